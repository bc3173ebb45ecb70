//! The actor that makes transactions of frames.
//!
//! What waits goes together, up to [`BATCH_EVENTS`] and [`BATCH_BYTES`]: when there is little to do a frame is written
//! at once, when there is much the batches grow by themselves. Up to `EVENTS_BATCH_CONCURRENCY`
//! transactions are in flight. A frame is acknowledged after its commit; while the database is away
//! frames are kept, and the log is told so, and nothing new is taken.
//!
//! Batches become smaller, down to one event a statement, while the database ends statements that take too long
//! ([`Limit`]), and grow again when they pass. A batch of which the database refuses a row is written frame by frame:
//! what is found out about one frame is committed before the next is begun.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, Message, WrapFuture};
use futures::future;
use opentelemetry::KeyValue;
use opentelemetry::trace::SpanKind;
use rand::Rng;
use uuid::Uuid;

use super::progress::Progress;
use super::{FRAMES, poison};
use crate::event::{FieldError, Refusal, Source, decode};
use crate::log::{DeadLetter, Delivery, Frame, FrameError, FrameEvent, Origin, Reason, Receipt, WriterMark};
use crate::ops::metrics::CollectorMetrics;
use crate::ops::{Readiness, Sampler, trace, trace_id};
use crate::runtime::{DrainHandle, Held, Phase, Room};
use crate::store::{Batch, BatchFrame, Row, Store, StoreError, WriteProgress, Written};

/// Events of one transaction at most. Larger ones cost less per row, until they no longer fit the
/// processor's caches; smaller ones wait less.
const BATCH_EVENTS: usize = 8_000;
/// Bytes of the events of one transaction, at most; the first frame always fits. A batch of small events has fewer.
const BATCH_BYTES: usize = 8 * 1024 * 1024;
/// Bytes of events that are decoded before other work of the thread has its turn, such as telling the log that work
/// goes on.
const SLICE_BYTES: usize = 128 * 1024;
/// Events that must wait before a second transaction is begun beside one in flight.
const SECOND_LANE_EVENTS: usize = 2_000;
/// How often the log is told that frames are being worked on.
const PROGRESS: Duration = Duration::from_secs(3);
/// The wait before a transaction is tried again; it doubles up to [`MAX_BACKOFF`], less up to half.
const BACKOFF: Duration = Duration::from_millis(50);
const MAX_BACKOFF: Duration = Duration::from_secs(5);
/// A transaction of fewer events than this begins so long after the one before: what a commit costs is
/// shared by more of them.
const SMALL_EVENTS: usize = 1_000;
const REST: Duration = Duration::from_millis(25);
/// How long one try may take: a database that vanished without a word must not hold frames for ever.
const WRITE_TIMEOUT: Duration = Duration::from_secs(120);
/// When a frame of a newer version is looked at again.
const NEWER_RETRY: Duration = Duration::from_secs(10);

/// Store this frame.
pub(super) struct Collect(pub Delivery);

impl Message for Collect {
    type Result = ();
}

/// What the writer works with.
#[derive(Clone)]
pub(super) struct Parts {
    pub source: Source,
    pub store: Store,
    pub metrics: CollectorMetrics,
    pub readiness: Arc<Readiness>,
    pub drain: DrainHandle,
    pub lanes: usize,
    pub max_deliveries: u64,
    pub lines: Arc<Sampler>,
    pub progress: Progress,
    pub limit: Limit,
}

/// Events of one transaction and of one statement, at most.
#[derive(Clone)]
pub(super) struct Limit(Arc<AtomicUsize>);

impl Default for Limit {
    fn default() -> Self {
        Self(Arc::new(AtomicUsize::new(BATCH_EVENTS)))
    }
}

impl Limit {
    fn events(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Halves after so many events took too long.
    fn shrink(&self, events: usize) {
        self.0.store((events.min(self.events()) / 2).max(1), Ordering::Relaxed);
    }

    /// Grows by a quarter after a batch that passed.
    fn grow(&self) {
        let events = self.events();
        if events < BATCH_EVENTS {
            self.0.store((events + events / 4 + 1).min(BATCH_EVENTS), Ordering::Relaxed);
        }
    }
}

/// A frame that is here, with its duty and its room.
pub(super) struct Taken {
    pub log_id: Uuid,
    pub sequence: u64,
    pub deliveries: u64,
    logged_at: i64,
    collected_at: i64,
    pub frame: Content,
    pub receipt: Receipt,
    _room: Room,
}

pub(super) enum Content {
    Frame(Frame),
    /// Something that is no frame.
    Alien(bytes::Bytes, String),
}

impl Taken {
    fn events(&self) -> usize {
        match &self.frame {
            Content::Frame(frame) => frame.len(),
            Content::Alien(..) => 1,
        }
    }

    fn bytes(&self) -> usize {
        match &self.frame {
            Content::Frame(frame) => frame.size(),
            Content::Alien(bytes, _) => bytes.len(),
        }
    }
}

/// The actor.
pub(super) struct BatchWriter {
    parts: Parts,
    waiting: VecDeque<Taken>,
    waiting_events: usize,
    busy: usize,
    /// When the last transaction began.
    began: Instant,
    /// Whether [`BatchWriter::pump`] will be called when the next may begin.
    resting: bool,
    /// When a frame of a newer version was last seen.
    newer: Option<Instant>,
}

impl BatchWriter {
    pub fn new(parts: Parts) -> Self {
        let began = Instant::now();
        Self {
            parts,
            waiting: VecDeque::new(),
            waiting_events: 0,
            busy: 0,
            began,
            resting: false,
            newer: None,
        }
    }

    /// How long the next transaction has to wait: one that would be small, until a while after the one
    /// before it. What comes alone never waits.
    fn rest(&self) -> Duration {
        if self.waiting_events >= SMALL_EVENTS || self.parts.drain.draining() {
            return Duration::ZERO;
        }
        REST.saturating_sub(self.began.elapsed())
    }

    fn pump(&mut self, context: &mut Context<Self>) {
        while self.busy < self.parts.lanes
            && !self.waiting.is_empty()
            && (self.busy == 0 || self.waiting_events >= SECOND_LANE_EVENTS || self.parts.drain.draining())
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
            let batch = self.next_batch();
            self.busy += 1;
            let work = write(self.parts.clone(), batch);
            context.spawn(work.into_actor(self).map(|(), actor, context| {
                actor.busy -= 1;
                actor.pump(context);
            }));
        }
    }

    /// Frames for one transaction: of one log, and a suspect by itself.
    fn next_batch(&mut self) -> Vec<Taken> {
        let mut batch: Vec<Taken> = Vec::new();
        let (mut events, mut bytes) = (0, 0);
        let most = self.parts.limit.events();
        while let Some(next) = self.waiting.front() {
            let suspect = next.deliveries > self.parts.max_deliveries;
            let fits = batch.first().is_none_or(|first| {
                first.log_id == next.log_id
                    && !suspect
                    && first.deliveries <= self.parts.max_deliveries
                    && events + next.events() <= most
                    && bytes + next.bytes() <= BATCH_BYTES
            });
            if !fits {
                break;
            }
            events += next.events();
            bytes += next.bytes();
            batch.extend(self.waiting.pop_front());
        }
        self.waiting_events -= events;
        batch
    }
}

impl Actor for BatchWriter {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        // Frames that wait for a transaction are being worked on as well.
        context.run_interval(PROGRESS, |actor, context| {
            for taken in &actor.waiting {
                let progress = taken.receipt.progress();
                context.spawn(progress.into_actor(actor).map(|_, _, _| ()));
            }
            // Each of them comes again in less time than this.
            if actor.newer.is_some_and(|seen| seen.elapsed() > NEWER_RETRY * 2) {
                actor.newer = None;
                actor.parts.readiness.report(FRAMES, Ok(()));
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
        let frame = match Frame::read(frame.clone()) {
            Ok(frame) => Content::Frame(frame),
            Err(FrameError::Unreadable(why)) => Content::Alien(frame, why),
            Err(error @ FrameError::Newer(_)) => {
                // Neither acknowledged nor set aside: a newer collector will read it.
                self.parts.readiness.report(FRAMES, Err(error.to_string()));
                self.newer = Some(Instant::now());
                let later = receipt.retry(NEWER_RETRY);
                context.spawn(later.into_actor(self).map(|_, _, _| ()));
                return;
            }
        };
        let collected_at = chrono::Utc::now().timestamp_micros();
        let taken =
            Taken { log_id, sequence, deliveries, logged_at, collected_at, frame, receipt, _room: room };
        self.parts.metrics.accepted.of(self.parts.source).inc_by(taken.events() as u64);
        self.waiting_events += taken.events();
        self.waiting.push_back(taken);
        self.pump(context);
    }
}

/// Writes frames, however long the database takes to be there, and acknowledges.
async fn write(parts: Parts, mut taken: Vec<Taken>) {
    if taken.first().is_some_and(|first| first.deliveries > parts.max_deliveries)
        && let Some(suspect) = taken.pop()
    {
        return poison::store(&parts, suspect).await;
    }
    write_all(&parts, taken, &[]).await;
}

/// Outcome of an attempt to write some frames in one transaction.
enum Attempt {
    Done(Written),
    /// Fewer frames at a time may pass.
    TooMuch,
    /// The database refuses a row: each frame is to be written by itself.
    Apart,
    /// The time to drain is over.
    Ended,
}

/// Writes frames in as few transactions as pass, and acknowledges them. `poison` are the positions of events of the
/// only frame that are to be set aside. Gives false when the time to drain is over: the receipts are dropped, and the
/// frames come again.
pub(super) async fn write_all(parts: &Parts, mut taken: Vec<Taken>, poison: &[usize]) -> bool {
    let mut apart = false;
    while !taken.is_empty() {
        let most = parts.limit.events();
        let mut events = 0;
        let fitting = taken.iter().take_while(|taken| {
            events += taken.events();
            events <= most
        });
        let frames = if apart { 1 } else { fitting.count().max(1) };
        match attempt(parts, &taken, frames, poison).await {
            Attempt::Done(written) => {
                let rest = taken.split_off(frames);
                acknowledge(std::mem::replace(&mut taken, rest), &written).await;
            }
            Attempt::TooMuch => {}
            Attempt::Apart => apart = true,
            Attempt::Ended => return false,
        }
    }
    true
}

/// Writes the first of the frames that are held as one transaction.
async fn attempt(parts: &Parts, taken: &[Taken], frames: usize, poison: &[usize]) -> Attempt {
    let started = Instant::now();
    let batch = alive(decode_all(parts.source, &taken[..frames], poison), taken).await;
    let events: usize = batch.frames.iter().map(|frame| frame.rows.len()).sum();
    let mut progress = WriteProgress::new(parts.limit.events());
    let _storing = parts.progress.begin();
    let mut wait = BACKOFF;
    loop {
        let isolates = progress.isolates();
        let tried = alive(parts.store.write_on(&batch, &mut progress), taken);
        let error = match tokio::time::timeout(WRITE_TIMEOUT, tried).await {
            Ok(Ok(written)) => {
                parts.limit.grow();
                tell(parts, &batch, &written, started);
                return Attempt::Done(written);
            }
            Ok(Err(StoreError::Refused { .. })) if frames > 1 => return Attempt::Apart,
            Ok(Err(StoreError::Refused { .. })) if !isolates => continue,
            Ok(Err(error)) => error,
            // What was found out by then is kept.
            Err(_) if isolates => StoreError::unavailable(format!("no end within {WRITE_TIMEOUT:?}")),
            Err(_) => StoreError::too_slow(format!("no end within {WRITE_TIMEOUT:?}")),
        };
        let too_slow = matches!(error, StoreError::TooSlow { .. });
        if !pause(parts, taken, &error, &mut wait).await {
            return Attempt::Ended;
        }
        if too_slow {
            parts.limit.shrink(events);
            if frames > 1 {
                return Attempt::TooMuch;
            }
            progress.limit_rows(parts.limit.events());
        }
    }
}

async fn acknowledge(taken: Vec<Taken>, written: &Written) {
    let acks = taken.into_iter().map(|taken| async move { (taken.receipt.ack().await, taken._room) });
    for (acked, _room) in future::join_all(acks).await {
        if let Err(error) = acked {
            // It comes again, and is recognised.
            tracing::warn!(%error, repeated = written.repeated_frames, "a frame was stored but not acknowledged");
        }
    }
}

/// Tries until it is done; `None` when the time to drain is over before that.
pub(super) async fn retrying<T>(
    parts: &Parts,
    taken: &[Taken],
    work: impl AsyncFn() -> Result<T, StoreError>,
) -> Option<T> {
    let _storing = parts.progress.begin();
    let mut wait = BACKOFF;
    loop {
        let error = match tokio::time::timeout(WRITE_TIMEOUT, alive(work(), taken)).await {
            Ok(Ok(done)) => return Some(done),
            Ok(Err(error)) => error,
            Err(_) => StoreError::unavailable(format!("no end within {WRITE_TIMEOUT:?}")),
        };
        if !pause(parts, taken, &error, &mut wait).await {
            return None;
        }
    }
}

/// Waits before the next try; false if the time to drain would be over by then.
async fn pause(parts: &Parts, taken: &[Taken], error: &StoreError, wait: &mut Duration) -> bool {
    if let Phase::Draining(deadline) = parts.drain.phase()
        && Instant::now() + *wait >= deadline
    {
        tracing::error!(%error, "frames were not stored before the end; they come again");
        return false;
    }
    parts.metrics.write_retries.inc();
    tracing::warn!(%error, wait_ms = wait.as_millis() as u64, "the batch was not stored; trying again");
    let jitter = rand::rng().random_range(0.5..=1.0);
    alive(tokio::time::sleep(wait.mul_f64(jitter)), taken).await;
    *wait = (*wait * 2).min(MAX_BACKOFF);
    true
}

/// Runs something long, and tells the log meanwhile that its frames are being worked on.
pub(super) async fn alive<T>(work: impl Future<Output = T>, taken: &[Taken]) -> T {
    let mut work = std::pin::pin!(work);
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + PROGRESS, PROGRESS);
    loop {
        tokio::select! {
            done = &mut work => return done,
            _ = ticks.tick() => {
                let said = future::join_all(taken.iter().map(|taken| taken.receipt.progress())).await;
                if let Some(Err(error)) = said.into_iter().find(Result::is_err) {
                    tracing::debug!(%error, "the log was not told that work goes on");
                }
            }
        }
    }
}

async fn decode_all<'t>(source: Source, taken: &'t [Taken], poison: &[usize]) -> Batch<'t> {
    let mut frames = Vec::with_capacity(taken.len());
    let mut decoded = 0;
    for taken in taken {
        frames.push(decode_frame(source, taken, poison, &mut decoded).await);
    }
    Batch { source, log_id: taken.first().map_or(Uuid::nil(), |taken| taken.log_id), frames }
}

/// Counts decoded bytes, and lets other work of this thread have its turn after each slice.
pub(super) async fn yield_after(decoded: &mut usize, bytes: usize) {
    *decoded += bytes;
    if *decoded >= SLICE_BYTES {
        *decoded = 0;
        tokio::task::yield_now().await;
    }
}

/// A frame's rows. `poison` are the positions of events that end collectors.
async fn decode_frame<'t>(
    source: Source,
    taken: &'t Taken,
    poison: &[usize],
    decoded: &mut usize,
) -> BatchFrame<'t> {
    let mut batch = BatchFrame {
        sequence: taken.sequence,
        writer: Uuid::nil(),
        number: 0,
        total: 0,
        acknowledged: WriterMark::default(),
        rows: Vec::new(),
        set_aside: Vec::new(),
        alien: false,
    };
    let frame = match &taken.frame {
        Content::Frame(frame) => frame,
        Content::Alien(bytes, why) => {
            batch.alien = true;
            (batch.writer, batch.number) = (alien(taken, bytes), 1);
            let refusal = refusal(source, why.clone());
            batch.set_aside.push(DeadLetter::new(
                taken.logged_at,
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
            let why = format!("collectors ended while they had it, {} deliveries", taken.deliveries);
            (Reason::TooManyDeliveries, Refusal { event_id: event_id(event.bytes), ..refusal(source, why) })
        } else {
            match decode_event(source, &event, taken) {
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

/// Identity of a message that is no frame, in place of a frame's writer.
fn alien(taken: &Taken, bytes: &[u8]) -> Uuid {
    use sha2::{Digest, Sha256};
    let mut hash = Sha256::new();
    hash.update(taken.log_id.as_bytes());
    hash.update(taken.sequence.to_be_bytes());
    hash.update(taken.logged_at.to_be_bytes());
    hash.update(bytes);
    Uuid::from_slice(&hash.finalize()[..16]).unwrap_or_default()
}

/// An event's row. The gateway judged it; another version of this program may have judged otherwise.
pub(super) fn decode_event<'t>(
    source: Source,
    event: &FrameEvent<'t>,
    taken: &Taken,
) -> Result<Row<'t>, Refusal> {
    let decoded = decode(event.bytes, Some(source))?;
    #[cfg(feature = "faults")]
    {
        assert!(!decoded.id.starts_with("fault-panic"), "an event that ends collectors");
        if decoded.id.starts_with("fault-abort") {
            std::process::abort();
        }
    }
    Ok(Row::new(decoded, event.bytes, event.origin, taken.logged_at, taken.collected_at))
}

/// The eventId alone, of an event that must not be decoded.
fn event_id(event: &[u8]) -> Option<String> {
    let event: serde_json::Value = serde_json::from_slice(event).ok()?;
    event["eventId"].as_str().map(str::to_owned)
}

fn refusal(source: Source, message: String) -> Refusal {
    Refusal {
        source: Some(source),
        errors: vec![FieldError { path: String::new(), message }],
        ..Refusal::default()
    }
}

/// Counts and logs what was written.
fn tell(parts: &Parts, batch: &Batch<'_>, written: &Written, started: Instant) {
    let Parts { source, metrics, .. } = parts;
    let seconds = started.elapsed().as_secs_f64();
    let now = chrono::Utc::now().timestamp_micros();
    metrics.batch_seconds.observe(seconds);
    metrics.batch_events.observe((written.stored + written.duplicates + written.quarantined) as f64);
    metrics.processed.of(*source).inc_by(written.stored);
    metrics.duplicate.of(*source).inc_by(written.duplicates);
    let letters = || batch.frames.iter().flat_map(|frame| &frame.set_aside);
    letters().for_each(|letter| metrics.fail(*source, letter.reason, 1));
    let by_database = written.quarantined.saturating_sub(letters().count() as u64);
    metrics.fail(*source, Reason::Database, by_database);
    for frame in &batch.frames {
        for request in frame.rows.chunk_by(|left, right| std::ptr::eq(left.origin, right.origin)) {
            let origin = request[0].origin;
            let age = (now - origin.accepted_at).max(0) as f64 / 1e6;
            metrics.event_age_seconds.observe(age);
            if parts.lines.pass() {
                let (correlation_id, trace_id) = (&origin.correlation_id, trace_id(origin));
                tracing::info!(%source, correlation_id, trace_id, events = request.len(), age, "events committed");
            } else {
                let correlation_id = &origin.correlation_id;
                tracing::debug!(%source, correlation_id, events = request.len(), age, "events committed");
            }
        }
    }
    let Written { stored, duplicates, quarantined, repeated_frames } = *written;
    let requests = batch.frames.iter().flat_map(|frame| {
        let requests = frame.rows.chunk_by(|left, right| std::ptr::eq(left.origin, right.origin));
        requests.map(|request| request[0].origin)
    });
    trace::linked(requests, || {
        let count = |events: u64| i64::try_from(events).unwrap_or(i64::MAX);
        trace::Said {
            name: format!("commit {source}"),
            kind: SpanKind::Consumer,
            began: SystemTime::now() - started.elapsed(),
            error: None,
            attributes: vec![
                KeyValue::new("ess.stored", count(stored)),
                KeyValue::new("ess.duplicates", count(duplicates)),
                KeyValue::new("ess.quarantined", count(quarantined)),
                KeyValue::new("messaging.batch.message_count", count(batch.frames.len() as u64)),
            ],
        }
    });
    tracing::debug!(%source, stored, duplicates, quarantined, repeated_frames, seconds, "batch committed");
}
