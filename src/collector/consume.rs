//! The actor that takes frames from the log, as many as there is room for.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, Context, WrapFuture};
use futures::StreamExt;
use tokio::sync::watch;

use super::batch_write::{BatchWriter, Collect};
use super::{LOG, topic};
use crate::event::Source;
use crate::log::SharedLog;
use crate::ops::Readiness;
use crate::ops::metrics::CollectorMetrics;
use crate::runtime::{DrainHandle, Mailbox, Room};

/// Frames that one pull asks for at most.
const PULL: usize = 32;
/// The wait after a pull that failed.
const BACKOFF: Duration = Duration::from_millis(250);
const MAX_BACKOFF: Duration = Duration::from_secs(2);

/// Says that a consumer has taken its last frame.
pub(super) type Ended = Arc<watch::Sender<bool>>;

/// Waits for a consumer's last frame.
pub(super) struct WaitEnded(watch::Receiver<bool>);

/// A consumer's end, from both sides.
pub(super) fn ending() -> (Ended, WaitEnded) {
    let (ended, wait) = watch::channel(false);
    (Arc::new(ended), WaitEnded(wait))
}

impl WaitEnded {
    pub async fn wait(mut self) {
        // A consumer that is gone takes nothing either.
        let _ = self.0.wait_for(|ended| *ended).await;
    }
}

/// What a consumer works with.
#[derive(Clone)]
pub(super) struct Parts {
    pub source: Source,
    pub log: SharedLog,
    pub sink: Mailbox<BatchWriter>,
    pub metrics: CollectorMetrics,
    pub readiness: Arc<Readiness>,
    pub drain: DrainHandle,
    pub migrated: watch::Receiver<bool>,
    pub ended: Ended,
}

/// The actor.
pub(super) struct Consumer {
    parts: Parts,
}

impl Consumer {
    pub fn new(parts: Parts) -> Self {
        Self { parts }
    }
}

impl Actor for Consumer {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        let parts = self.parts.clone();
        let work = async move {
            consume(&parts).await;
            parts.ended.send_replace(true);
        };
        context.spawn(work.into_actor(self).map(|(), _, context| context.stop()));
    }
}

/// Asks the log whether it is there, again and again: for the time in which nothing is taken from it.
async fn ask_log(parts: &Parts) {
    loop {
        let answer = parts.log.state(topic(parts.source)).await;
        parts.readiness.report(LOG, answer.map(drop).map_err(|error| error.to_string()));
        tokio::time::sleep(MAX_BACKOFF).await;
    }
}

/// Takes frames until the collector drains. Frames wait in the log until there is a schema.
async fn consume(parts: &Parts) {
    let mut migrated = parts.migrated.clone();
    tokio::select! {
        _ = migrated.wait_for(|migrated| *migrated) => {}
        () = ask_log(parts) => {}
        () = parts.drain.started() => return,
    }
    let mut wait = BACKOFF;
    while !parts.drain.draining() {
        let Some(rooms) = rooms(parts).await else { return };
        match parts.log.pull(topic(parts.source), rooms.len()).await {
            Ok(frames) => {
                parts.readiness.report(LOG, Ok(()));
                match hand_on(parts, frames, rooms).await {
                    Ok(()) => wait = BACKOFF,
                    Err(why) => {
                        tracing::debug!(why, "a pull ended early");
                        pause(&mut wait).await;
                    }
                }
            }
            Err(error) => {
                parts.readiness.report(LOG, Err(error.to_string()));
                pause(&mut wait).await;
            }
        }
    }
}

async fn pause(wait: &mut Duration) {
    tokio::time::sleep(*wait).await;
    *wait = (*wait * 2).min(MAX_BACKOFF);
}

/// Room for at least one frame, and for as many more as there is at once; `None` when draining.
async fn rooms(parts: &Parts) -> Option<Vec<Room>> {
    let first = tokio::select! {
        room = parts.sink.reserve(1) => room.ok()?,
        () = parts.drain.started() => return None,
    };
    let mut rooms = vec![first];
    while rooms.len() < PULL
        && let Some(room) = parts.sink.try_reserve(1)
    {
        rooms.push(room);
    }
    Some(rooms)
}

/// Hands frames on as they come. What was asked for is taken also when draining starts meanwhile: it
/// would come again otherwise.
async fn hand_on(parts: &Parts, mut frames: crate::log::Pull, mut rooms: Vec<Room>) -> Result<(), String> {
    while let Some(frame) = frames.next().await {
        let delivery = frame.map_err(|error| error.to_string())?;
        if delivery.deliveries > 1 {
            parts.metrics.redelivered.of(parts.source).inc();
        }
        let Some(room) = rooms.pop() else { break };
        // Should the writer be restarted now, the receipt goes with the message and asks for another
        // delivery.
        if let Err(error) = parts.sink.send_in(room, Collect(delivery)).await {
            tracing::warn!(%error, "a frame was given back to the log");
        }
    }
    Ok(())
}
