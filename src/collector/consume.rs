//! The task that takes frames from the log, as many as the batch writer has room for, from every stream of the source.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{self, FuturesUnordered};
use tokio::sync::watch;

use super::batch_write::{BatchWriter, Collect};
use super::shared::{Health, LOG};
use crate::event::Source;
use crate::log::{LogError, Pull, SharedLog, Topic};
use crate::ops::Away;
use crate::ops::metrics::CollectorMetrics;
use crate::runtime::{DrainHandle, Mailbox, Node, Room};
use crate::store::Store;

/// Interval at which further streams of the source are looked for.
const LOOK_FOR_STREAMS: Duration = Duration::from_secs(5);
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
    pub store: Store,
    pub writer: Mailbox<BatchWriter>,
    pub metrics: CollectorMetrics,
    pub health: Health,
    pub drain: DrainHandle,
    /// True once the database has its schema.
    pub migrated: watch::Receiver<bool>,
    /// Set to true once the source has its number in the database.
    pub registered: Arc<watch::Sender<bool>>,
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
    tokio::select! {
        () = register(&parts) => {}
        () = parts.drain.started() => return,
    }
    let (parts, streams) = (&parts, Streams::default());
    let mut consumed = FuturesUnordered::new();
    let found = stream::unfold(Duration::ZERO, |wait| async move {
        tokio::time::sleep(wait).await;
        // The first one, also while the log does not answer.
        let found = parts.log.streams(parts.source).await.unwrap_or_else(|_| vec![parts.topic()]);
        Some((found, LOOK_FOR_STREAMS))
    });
    tokio::pin!(found);
    loop {
        tokio::select! {
            Some(topics) = found.next(), if !parts.drain.draining() => {
                for topic in topics.into_iter().filter(|topic| streams.begin(*topic)) {
                    consumed.push(consume_stream(parts, topic, &streams, &node));
                }
            }
            Some(()) = consumed.next() => {}
            () = parts.drain.started(), if consumed.is_empty() => return,
        }
        if parts.drain.draining() && consumed.is_empty() {
            return;
        }
    }
}

/// The streams of the source that are consumed, each with the log's last answer.
#[derive(Default)]
struct Streams(Mutex<HashMap<Topic, Result<(), Away>>>);

impl Streams {
    fn locked(&self) -> MutexGuard<'_, HashMap<Topic, Result<(), Away>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a stream; false if it is consumed already.
    fn begin(&self, topic: Topic) -> bool {
        let mut answers = self.locked();
        let begins = !answers.contains_key(&topic);
        answers.entry(topic).or_insert(Ok(()));
        begins
    }

    fn end(&self, topic: Topic) {
        self.locked().remove(&topic);
    }

    /// Records the answer of a stream, and gives that of the log: an error while one of its streams is away.
    fn record(&self, topic: Topic, answer: Result<(), Away>) -> Result<(), Away> {
        let mut answers = self.locked();
        answers.insert(topic, answer);
        answers.values().find(|answer| answer.is_err()).cloned().unwrap_or(Ok(()))
    }

    /// Frames that a stream may ask for at one time: all of them share the batch writer's room.
    fn share(&self) -> usize {
        (PULL / self.locked().len().max(1)).max(1)
    }
}

/// Takes the frames of one stream until the collector drains, or the stream is gone.
async fn consume_stream(parts: &Parts, topic: Topic, streams: &Streams, node: &Node) {
    let mut wait = BACKOFF;
    while !parts.drain.draining() {
        let Some(rooms) = reserve(parts, streams.share()).await else { break };
        match parts.log.pull(topic, rooms.len()).await {
            Ok(frames) => {
                parts.health.report(LOG, streams.record(topic, Ok(())));
                match forward(parts, frames, rooms, node).await {
                    Ok(()) => wait = BACKOFF,
                    Err(error) => {
                        tracing::debug!(%error, "a pull ended early");
                        pause(&mut wait).await;
                    }
                }
            }
            Err(error) => {
                drop(rooms);
                // A further stream that an operator removed, once it was empty.
                if topic != parts.topic()
                    && parts.log.streams(parts.source).await.is_ok_and(|there| !there.contains(&topic))
                {
                    tracing::info!(%topic, "the stream is gone");
                    break;
                }
                parts.health.report(LOG, streams.record(topic, Err(Away::because(error))));
                pause(&mut wait).await;
            }
        }
    }
    streams.end(topic);
}

/// Reports whether the log answers, while no frame is taken from it.
async fn probe_log(parts: &Parts) {
    loop {
        let answer = parts.log.state(parts.topic()).await;
        parts.health.report(LOG, answer.map(drop).map_err(Away::because));
        tokio::time::sleep(MAX_BACKOFF).await;
    }
}

/// Has the source's number given, once the log has a topic for it: a name that is only wrong gets none.
async fn register(parts: &Parts) {
    let mut wait = BACKOFF;
    while parts.source.code() == 0 {
        let answer = match parts.log.state(parts.topic()).await {
            // The database's own probe reports the database.
            Ok(_) => parts.store.register(parts.source).await.map_err(Away::because),
            Err(error) => {
                parts.health.report(LOG, Err(Away::because(&error)));
                Err(Away::because(error))
            }
        };
        if let Err(error) = answer {
            tracing::debug!(source = %parts.source, %error, "the source has no number yet");
            pause(&mut wait).await;
        }
    }
    parts.registered.send_replace(true);
}

async fn pause(wait: &mut Duration) {
    tokio::time::sleep(*wait).await;
    *wait = (*wait * 2).min(MAX_BACKOFF);
}

/// Waits for room for one frame, and takes the room for `most` that is free then. `None` when the collector drains.
async fn reserve(parts: &Parts, most: usize) -> Option<Vec<Room>> {
    let first = tokio::select! {
        room = parts.writer.reserve(1) => room.ok()?,
        () = parts.drain.started() => return None,
    };
    let mut rooms = vec![first];
    while rooms.len() < most
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
