//! The task that takes frames from the log, as many as the batch writer has room for.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio::sync::watch;

use super::LOG;
use super::batch_write::{BatchWriter, Collect};
use crate::event::Source;
use crate::log::{LogError, Pull, SharedLog, Topic};
use crate::ops::metrics::CollectorMetrics;
use crate::ops::{Away, Readiness};
use crate::runtime::{DrainHandle, Mailbox, Node, Room};

/// Maximum frames of one pull.
const PULL: usize = 32;
/// Wait after a pull that failed; it doubles up to [`MAX_BACKOFF`].
const BACKOFF: Duration = Duration::from_millis(250);
const MAX_BACKOFF: Duration = Duration::from_secs(2);

/// Dependencies of the task.
#[derive(Clone)]
pub(super) struct Parts {
    pub source: Source,
    pub log: SharedLog,
    pub writer: Mailbox<BatchWriter>,
    pub metrics: CollectorMetrics,
    pub readiness: Arc<Readiness>,
    pub drain: DrainHandle,
    /// True once the database has its schema.
    pub migrated: watch::Receiver<bool>,
}

impl Parts {
    fn topic(&self) -> Topic {
        Topic::Events(self.source)
    }
}

/// Takes frames until the collector drains. Until the database has its schema, frames stay in the log.
pub(super) async fn consume(parts: Parts, node: Arc<Node>) {
    let mut migrated = parts.migrated.clone();
    tokio::select! {
        _ = migrated.wait_for(|migrated| *migrated) => {}
        () = probe_log(&parts) => {}
        () = parts.drain.started() => return,
    }
    let mut wait = BACKOFF;
    while !parts.drain.draining() {
        let Some(rooms) = reserve(&parts).await else { return };
        match parts.log.pull(parts.topic(), rooms.len()).await {
            Ok(frames) => {
                parts.readiness.report(LOG, Ok(()));
                match forward(&parts, frames, rooms, &node).await {
                    Ok(()) => wait = BACKOFF,
                    Err(error) => {
                        tracing::debug!(%error, "a pull ended early");
                        pause(&mut wait).await;
                    }
                }
            }
            Err(error) => {
                parts.readiness.report(LOG, Err(Away::because(error)));
                pause(&mut wait).await;
            }
        }
    }
}

/// Reports whether the log answers, while no frame is taken from it.
async fn probe_log(parts: &Parts) {
    loop {
        let answer = parts.log.state(parts.topic()).await;
        parts.readiness.report(LOG, answer.map(drop).map_err(Away::because));
        tokio::time::sleep(MAX_BACKOFF).await;
    }
}

async fn pause(wait: &mut Duration) {
    tokio::time::sleep(*wait).await;
    *wait = (*wait * 2).min(MAX_BACKOFF);
}

/// Waits for room for one frame, and takes the room for more that is free then. `None` when the collector drains.
async fn reserve(parts: &Parts) -> Option<Vec<Room>> {
    let first = tokio::select! {
        room = parts.writer.reserve(1) => room.ok()?,
        () = parts.drain.started() => return None,
    };
    let mut rooms = vec![first];
    while rooms.len() < PULL
        && let Some(room) = parts.writer.try_reserve(1)
    {
        rooms.push(room);
    }
    Some(rooms)
}

/// Sends frames to the batch writer as they come, also when draining starts meanwhile: a frame that was asked for and
/// not taken would be delivered again.
async fn forward(parts: &Parts, mut frames: Pull, mut rooms: Vec<Room>, node: &Node) -> Result<(), LogError> {
    while let Some(delivery) = frames.next().await {
        let delivery = delivery?;
        if delivery.deliveries > 1 {
            parts.metrics.redelivered.of(parts.source).inc();
        }
        let Some(room) = rooms.pop() else { break };
        // The receipt is in the message: if the writer ends with it, the log delivers the frame again.
        if let Err(error) = parts.writer.send_in(room, Collect(delivery)).await {
            tracing::warn!(%error, "a frame was given back to the log");
        }
        node.count_handled();
    }
    Ok(())
}
