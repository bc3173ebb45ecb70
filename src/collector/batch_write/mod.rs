//! The actor that writes frames into the store.
//!
//! ```text
//! Collect ──▶ queue ──frames of a transaction──▶ decode ──Batch──▶ commit ──▶ acknowledge
//!               │                                                    │ refused row: frame by frame
//!               └── frame with too many deliveries ──▶ poison        │ too slow: fewer events
//! ```
//!
//! Frames that wait are written together, up to [`limit::BATCH_EVENTS`] and [`queue::BATCH_BYTES`]: under little load a
//! frame is written at once, under much load batches grow by themselves. Up to `EVENTS_BATCH_CONCURRENCY` transactions
//! are in flight. A frame is acknowledged after its commit. While the database is away frames are kept, the log is told
//! so, and no more frames are taken.

mod commit;
mod decode;
mod frame;
mod limit;
mod poison;
mod progress;
mod queue;
mod record;
mod retry;

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, Message, WrapFuture};

pub(super) use self::limit::BatchLimit;
pub(super) use self::progress::Progress;

use self::frame::{Content, PendingFrame};
use self::queue::Queue;
use super::shared::{FRAMES, Health};
use crate::event::Source;
use crate::log::{Delivery, Frame, FrameError};
use crate::ops::metrics::CollectorMetrics;
use crate::ops::{Away, Sampler};
use crate::runtime::{DrainHandle, Held};
use crate::source::canonical::{CanonicalEvent, NotCanonical};
use crate::store::Store;

/// Events that must wait before a second transaction is begun beside one in flight.
const SECOND_LANE_EVENTS: usize = 2_000;
/// Interval at which the log is told that frames are being worked on.
const PROGRESS: Duration = Duration::from_secs(3);
/// A transaction of fewer events than this begins [`REST`] after the one before, so that more events share the cost of a
/// commit.
const SMALL_EVENTS: usize = 1_000;
const REST: Duration = Duration::from_millis(25);
/// Delay of the next delivery of a frame of a newer version.
const NEWER_RETRY: Duration = Duration::from_secs(10);

/// Request to store a frame.
pub(super) struct Collect(pub Delivery);

impl Message for Collect {
    type Result = ();
}

/// Dependencies of the writer, shared by its instances.
#[derive(Clone)]
pub(super) struct Parts {
    pub source: Source,
    pub store: Store,
    pub metrics: CollectorMetrics,
    pub health: Health,
    pub drain: DrainHandle,
    /// Maximum transactions in flight.
    pub lanes: usize,
    /// Deliveries after which a frame is searched for poison events.
    pub max_deliveries: u64,
    /// Passes the log lines that are written at INFO.
    pub lines: Arc<Sampler>,
    pub progress: Progress,
    pub limit: BatchLimit,
}

/// The actor.
pub(super) struct BatchWriter {
    parts: Parts,
    queue: Queue,
    /// Transactions in flight.
    busy: usize,
    /// Start of the last transaction.
    began: Instant,
    /// True if [`BatchWriter::pump`] is scheduled for the time at which the next transaction may begin.
    resting: bool,
    /// Time at which a frame of a newer version was last delivered.
    newer: Option<Instant>,
}

impl BatchWriter {
    pub fn new(parts: Parts) -> Self {
        Self { parts, queue: Queue::default(), busy: 0, began: Instant::now(), resting: false, newer: None }
    }

    /// Wait before the next transaction: for one that would be small, the rest of [`REST`] since the one before it. A
    /// frame that comes alone never waits.
    fn rest(&self) -> Duration {
        if self.queue.events() >= SMALL_EVENTS || self.parts.drain.draining() {
            return Duration::ZERO;
        }
        REST.saturating_sub(self.began.elapsed())
    }

    /// Begins as many transactions as may be in flight.
    fn pump(&mut self, context: &mut Context<Self>) {
        while self.busy < self.parts.lanes
            && !self.queue.is_empty()
            && (self.busy == 0 || self.queue.events() >= SECOND_LANE_EVENTS || self.parts.drain.draining())
        {
            let rest = self.rest();
            if !rest.is_zero() {
                if !self.resting {
                    self.resting = true;
                    context.run_later(rest, |actor, context| {
                        actor.resting = false;
                        actor.pump(context);
                    });
                }
                return;
            }
            self.began = Instant::now();
            let batch = self.queue.next_batch(self.parts.limit.events(), self.parts.max_deliveries);
            self.busy += 1;
            let work = write(self.parts.clone(), batch);
            context.spawn(work.into_actor(self).map(|(), actor, context| {
                actor.busy -= 1;
                actor.pump(context);
            }));
        }
    }
}

impl Actor for BatchWriter {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        // Frames that wait for a transaction are being worked on, too.
        context.run_interval(PROGRESS, |actor, context| {
            for frame in actor.queue.iter() {
                let progress = frame.receipt.progress();
                context.spawn(progress.into_actor(actor).map(|_, _, _| ()));
            }
            // Each frame of a newer version is delivered again within less time than this.
            if actor.newer.is_some_and(|seen| seen.elapsed() > NEWER_RETRY * 2) {
                actor.newer = None;
                actor.parts.health.report(FRAMES, Ok(()));
            }
            actor.pump(context);
        });
    }
}

impl Handler<Held<Collect>> for BatchWriter {
    type Result = ();

    fn handle(&mut self, held: Held<Collect>, context: &mut Self::Context) {
        let (Collect(delivery), room) = held.open();
        let Delivery { log_id, sequence, deliveries, logged_at, frame, receipt, .. } = delivery;
        let content = match Frame::read(frame.clone()) {
            Ok(frame) => newer_events(self.parts.source, &frame).map_or(Ok(Content::Frame(frame)), Err),
            Err(FrameError::Unreadable(why)) => Ok(Content::Unreadable(frame, why)),
            Err(error @ FrameError::Newer(_)) => Err(Away::because(error)),
        };
        let content = match content {
            Ok(content) => content,
            Err(why) => {
                // Neither acknowledged nor set aside: a newer collector can read it.
                self.parts.health.report(FRAMES, Err(why));
                self.newer = Some(Instant::now());
                let later = receipt.retry(NEWER_RETRY);
                context.spawn(later.into_actor(self).map(|_, _, _| ()));
                return;
            }
        };
        let collected_at = chrono::Utc::now().timestamp_micros();
        let frame =
            PendingFrame { log_id, sequence, deliveries, logged_at, collected_at, content, receipt, room };
        self.parts.metrics.accepted.of(self.parts.source).inc_by(frame.events() as u64);
        self.queue.push(frame);
        self.pump(context);
    }
}

/// The reason, if a newer version wrote the events of a declared source's frame. All of a frame have one version.
fn newer_events(source: Source, frame: &Frame) -> Option<Away> {
    let first = frame.events().next().filter(|_| !source.is_built_in())?;
    match CanonicalEvent::read(first.bytes) {
        Err(error @ NotCanonical::Newer(_)) => Some(Away::because(error)),
        _ => None,
    }
}

/// Writes the frames of one transaction, however long the database is away, and acknowledges them.
async fn write(parts: Parts, mut frames: Vec<PendingFrame>) {
    if frames.first().is_some_and(|first| first.deliveries > parts.max_deliveries)
        && let Some(frame) = frames.pop()
    {
        return poison::store(&parts, frame).await;
    }
    commit::write_all(&parts, frames, &[]).await;
}
