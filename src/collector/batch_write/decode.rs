//! Decoding of frames into rows and dead letters.

use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::Parts;
use super::frame::{Content, PendingFrame};
use super::retry::retrying;
use crate::event::{FieldError, Refusal, Source, decode, decode_canonical};
use crate::log::{DeadLetter, FrameEvent, Origin, Reason, WriterMark};
use crate::source::Names;
use crate::store::{Batch, BatchFrame, Row};

/// Bytes of events that are decoded before other work of the thread has its turn, such as telling the log that work goes
/// on.
const SLICE_BYTES: usize = 128 * 1024;

/// Decodes frames into the batch of one transaction. `poison` has positions of events that end collectors. Names of a
/// declared source that have no number are given one first. `None` if the time to drain is over before.
pub(super) async fn decode_all<'t>(
    parts: &Parts,
    pending: &'t [PendingFrame],
    poison: &[usize],
) -> Option<Batch<'t>> {
    let source = parts.source;
    let mut is_first = true;
    loop {
        let mut names = Names::new(source, parts.store.has_no_room_for_words());
        let mut frames = Vec::with_capacity(pending.len());
        let mut decoded = 0;
        for pending in pending {
            frames.push(decode_frame(source, pending, poison, &mut names, &mut decoded).await);
        }
        if !is_first || names.missing().is_empty() {
            let log_id = pending.first().map_or(Uuid::nil(), |pending| pending.log_id);
            return Some(Batch { source, log_id, frames });
        }
        // What has no number after this has no room.
        let learn = async || parts.store.learn(source, names.missing()).await;
        retrying(parts, pending, learn).await?;
        is_first = false;
    }
}

/// Counts decoded bytes, and yields to other work of this thread after every [`SLICE_BYTES`].
pub(super) async fn yield_after(decoded: &mut usize, bytes: usize) {
    *decoded += bytes;
    if *decoded >= SLICE_BYTES {
        *decoded = 0;
        tokio::task::yield_now().await;
    }
}

/// Decodes a frame: its rows, and the dead letters of events that cannot be stored.
async fn decode_frame<'t>(
    source: Source,
    pending: &'t PendingFrame,
    poison: &[usize],
    names: &mut Names,
    decoded: &mut usize,
) -> BatchFrame<'t> {
    let mut batch = BatchFrame {
        sequence: pending.sequence,
        writer: Uuid::nil(),
        number: 0,
        total: 0,
        acknowledged: WriterMark::default(),
        rows: Vec::new(),
        set_aside: Vec::new(),
        unreadable: false,
    };
    let frame = match &pending.content {
        Content::Frame(frame) => frame,
        Content::Unreadable(bytes, why) => {
            batch.unreadable = true;
            (batch.writer, batch.number) = (identity(pending, bytes), 1);
            let refusal = refusal(source, why.clone());
            batch.set_aside.push(DeadLetter::new(
                pending.logged_at,
                "",
                Reason::UnreadableFrame,
                bytes,
                refusal,
            ));
            return batch;
        }
    };
    (batch.writer, batch.number, batch.total) = (frame.writer, frame.number, frame.total);
    batch.acknowledged = frame.acknowledged;
    batch.rows.reserve(frame.len());
    for (position, event) in frame.events().enumerate() {
        yield_after(decoded, event.bytes.len()).await;
        let (reason, refusal) = if poison.contains(&position) {
            let why = format!("collectors ended while they had it, {} deliveries", pending.deliveries);
            (
                Reason::TooManyDeliveries,
                Refusal { event_id: event_id(source, event.bytes), ..refusal(source, why) },
            )
        } else {
            match decode_event(source, &event, pending, names) {
                Ok(row) => {
                    batch.rows.push(row);
                    continue;
                }
                Err(refusal) => (Reason::UnreadableFrame, Refusal { source: Some(source), ..refusal }),
            }
        };
        let Origin { correlation_id, accepted_at, .. } = event.origin;
        batch.set_aside.push(DeadLetter::new(*accepted_at, correlation_id, reason, event.bytes, refusal));
    }
    batch
}

/// Identity of a message that is no frame, in place of a frame's writer: the same with each delivery.
fn identity(pending: &PendingFrame, bytes: &[u8]) -> Uuid {
    let mut hash = Sha256::new();
    hash.update(pending.log_id.as_bytes());
    hash.update(pending.sequence.to_be_bytes());
    hash.update(pending.logged_at.to_be_bytes());
    hash.update(bytes);
    let hash: [u8; 32] = hash.finalize().into();
    let mut id = [0; 16];
    id.copy_from_slice(&hash[..16]);
    Uuid::from_bytes(id)
}

/// Decodes an event into its row. The gateway accepted the event; a gateway of another version may have accepted what
/// this version refuses.
pub(super) fn decode_event<'t>(
    source: Source,
    event: &FrameEvent<'t>,
    pending: &PendingFrame,
    names: &mut Names,
) -> Result<Row<'t>, Refusal> {
    let decoded = if source.is_built_in() {
        decode(event.bytes, Some(source))?
    } else {
        decode_canonical(source, event.bytes, names)?
    };
    #[cfg(feature = "faults")]
    {
        assert!(!decoded.id.starts_with("fault-panic"), "an event that ends collectors");
        if decoded.id.starts_with("fault-abort") {
            std::process::abort();
        }
    }
    Ok(Row::new(decoded, event.bytes, event.origin, pending.logged_at, pending.collected_at))
}

/// Id of an event that must not be decoded.
fn event_id(source: Source, event: &[u8]) -> Option<String> {
    let event: serde_json::Value = serde_json::from_slice(event).ok()?;
    event[if source.is_built_in() { "eventId" } else { "id" }].as_str().map(str::to_owned)
}

fn refusal(source: Source, message: String) -> Refusal {
    Refusal {
        source: Some(source),
        errors: vec![FieldError { path: String::new(), message }],
        ..Refusal::default()
    }
}
