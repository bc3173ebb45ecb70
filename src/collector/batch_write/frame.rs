//! A frame in the writer's hands.

use bytes::Bytes;
use uuid::Uuid;

use crate::log::{Frame, Receipt};
use crate::runtime::Room;

/// A frame that is not stored yet. Dropping it asks the log for another delivery, and frees its room.
pub(super) struct PendingFrame {
    pub log_id: Uuid,
    pub sequence: u64,
    /// Number of deliveries, this one included.
    pub deliveries: u64,
    /// Microseconds since 1970.
    pub logged_at: i64,
    /// Microseconds since 1970.
    pub collected_at: i64,
    pub content: Content,
    pub receipt: Receipt,
    /// Room in the writer's mailbox, until the frame is settled.
    pub room: Room,
}

/// Content of a message of the log.
pub(super) enum Content {
    /// A frame.
    Frame(Frame),
    /// Bytes that are no frame, and the reason.
    Unreadable(Bytes, String),
}

impl PendingFrame {
    /// Number of events; 1 for a message that is no frame.
    pub fn events(&self) -> usize {
        match &self.content {
            Content::Frame(frame) => frame.len(),
            Content::Unreadable(..) => 1,
        }
    }

    /// Bytes of the events.
    pub fn bytes(&self) -> usize {
        match &self.content {
            Content::Frame(frame) => frame.size(),
            Content::Unreadable(bytes, _) => bytes.len(),
        }
    }
}

/// Frames for tests, and their receipts.
#[cfg(test)]
pub(super) mod tests {
    use std::sync::{Arc, Mutex};

    use futures::future::BoxFuture;

    use super::*;
    use crate::log::{FrameWriter, LogError, Origin, Piece, Settlement, Token};

    /// Settlements of a frame, in their order.
    pub type Settled = Arc<Mutex<Vec<&'static str>>>;

    struct Recorder(Settled);

    impl Token for Recorder {
        fn settle(&self, settlement: Settlement) -> BoxFuture<'_, Result<(), LogError>> {
            let name = if settlement == Settlement::Ack { "ack" } else { "retry" };
            self.0.lock().unwrap().push(name);
            Box::pin(async { Ok(()) })
        }

        fn progress(&self) -> BoxFuture<'static, Result<(), LogError>> {
            Box::pin(async { Ok(()) })
        }

        fn abandon(&self) {
            self.0.lock().unwrap().push("abandon");
        }
    }

    /// A frame of valid Facebook events with these ids.
    pub fn frame(sequence: u64, deliveries: u64, ids: &[String]) -> (PendingFrame, Settled) {
        let (mut body, mut events) = (String::new(), Vec::new());
        for id in ids {
            let start = body.len();
            body.push_str(&format!(
                r#"{{"eventId":"{id}","timestamp":"2026-03-01T00:00:00.000Z","source":"facebook","funnelStage":"top","eventType":"ad.view","data":{{"user":{{"userId":"u","name":"N","age":30,"gender":"male","location":{{"country":"Kenya","city":"Nairobi"}}}},"engagement":{{"actionTime":"2026-03-01T00:00:00.000Z","referrer":"newsfeed","videoId":null}}}}}}"#
            ));
            events.push(start..body.len());
        }
        let origin = Origin { correlation_id: "c".to_owned(), traceparent: None, accepted_at: 1 };
        let body = Bytes::from(body);
        let pieces = [Piece { origin: &origin, body: &body, events: &events }];
        let bytes = FrameWriter::default().write(&pieces).1;
        let settled = Settled::default();
        let frame = PendingFrame {
            log_id: Uuid::from_u128(1),
            sequence,
            deliveries,
            logged_at: 2,
            collected_at: 3,
            content: Content::Frame(Frame::read(bytes).unwrap()),
            receipt: Receipt::new(Box::new(Recorder(settled.clone()))),
            room: Room::detached(),
        };
        (frame, settled)
    }

    /// `count` ids that begin with `prefix`.
    pub fn ids(prefix: &str, count: usize) -> Vec<String> {
        (0..count).map(|n| format!("{prefix}-{n}")).collect()
    }
}
