//! Deliveries of JetStream, and the receipts that settle them.

use std::time::Duration;

use async_nats::{Client, Request, jetstream};
use bytes::Bytes;
use futures::future::BoxFuture;
use uuid::Uuid;

use super::request::{REQUEST_TIMEOUT, unavailable};
use crate::log::{Delivery, LogError, Receipt, Settlement, Token, Topic};

/// Converts a message of JetStream into a delivery.
pub(super) fn delivery(
    topic: Topic,
    log_id: Uuid,
    client: Client,
    message: jetstream::Message,
) -> Result<Delivery, LogError> {
    let reply = message.reply.clone();
    let (sequence, deliveries, logged_at) = {
        let info = message.info().map_err(unavailable)?;
        let logged_at = i64::try_from(info.published.unix_timestamp_nanos() / 1_000).unwrap_or_default();
        (info.stream_sequence, u64::try_from(info.delivered).unwrap_or(1), logged_at)
    };
    let reply = reply.ok_or_else(|| unavailable("a delivery without an address for its acknowledgement"))?;
    let receipt = Receipt::new(Box::new(Ack { client, reply, deliveries }));
    let frame = message.message.payload;
    Ok(Delivery { topic, log_id, sequence, deliveries, logged_at, frame, receipt })
}

struct Ack {
    client: Client,
    reply: async_nats::Subject,
    deliveries: u64,
}

impl Ack {
    fn body(settlement: Settlement) -> Bytes {
        match settlement {
            Settlement::Ack => Bytes::from_static(b"+ACK"),
            Settlement::Retry(delay) => format!("-NAK {{\"delay\":{}}}", delay.as_nanos()).into(),
        }
    }
}

impl Token for Ack {
    fn settle(&self, settlement: Settlement) -> BoxFuture<'_, Result<(), LogError>> {
        Box::pin(async move {
            // A request instead of a publication, because the server confirms it.
            let request = Request::new().payload(Self::body(settlement)).timeout(Some(REQUEST_TIMEOUT));
            self.client.send_request(self.reply.clone(), request).await.map(drop).map_err(unavailable)
        })
    }

    fn progress(&self) -> BoxFuture<'static, Result<(), LogError>> {
        let (client, reply) = (self.client.clone(), self.reply.clone());
        Box::pin(async move { client.publish(reply, Bytes::from_static(b"+WPI")).await.map_err(unavailable) })
    }

    fn abandon(&self) {
        // The delay grows with each delivery, so that a permanent fault does not cause a busy loop.
        let delay = Duration::from_millis(100) * u32::try_from(self.deliveries.min(50)).unwrap_or(50);
        let (client, reply) = (self.client.clone(), self.reply.clone());
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                // If this is lost, the server redelivers the frame after ACK_WAIT.
                let _ = client.publish(reply, Self::body(Settlement::Retry(delay))).await;
            });
        }
    }
}
