//! The ledger: what the log ever took, held against what the store holds.
//!
//! Everything here comes from durable state, in an order that makes it exact under load:
//!
//! 1. The store tells which frames of each writer the log is known to have acknowledged ([`Store::known`]).
//! 2. The log tells which places it holds. An acknowledged frame is there, or was processed.
//! 3. The store tells which frames and places were processed ([`Store::ledger`]).
//!
//! *In flight* are the places that the log holds and the store has not processed. Some of those frames are read, a
//! bounded number; the writers' running totals size the others. *Missing* are acknowledged frames that are neither
//! processed nor in flight, sized by the totals around them, and places that the log no longer holds and that nothing
//! processed: one event each, as long as no later frame of their writer sizes them. A frame that the log refused or
//! never confirmed is in neither.
//!
//! A copy of the database that lags behind says what the collectors found missing at their last look.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use serde::Serialize;
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::event::Source;
use crate::log::{Frame, FrameError, Log, LogError, SharedLog, Topic, TopicState, WriterMark};
use crate::ops::metrics::UNKNOWN_SOURCE;
use crate::store::ledger::{KnownLog, LedgerCut, Lost, ObservedLog, Ranges, Run, Runs};
use crate::store::{Store, StoreError};

/// Frames that one look reads between processed ones: those that collectors have in hand.
const GAP_FRAMES: u64 = 256;
/// Frames that one look reads behind the processed ones, to meet the last frame of each writer.
const TAIL_FRAMES: u64 = 64;
/// Frames at the end of the log that are read one by one, before the look goes by what their writers' numbers explain.
const TAIL_STEPS: u64 = 32;
/// Frames that stand for all of those of which there are too many to be read.
const SAMPLES: u64 = 32;
/// Frames that are read at one time.
const AT_ONCE: usize = 4;
/// Time limit of one look.
const DEADLINE: Duration = Duration::from_secs(10);
/// Requests that wait for a look at one time.
const WAITING: usize = 128;
/// Places that were given twice and are read in one look.
const GIVEN_TWICE: usize = 1_024;

/// One source's ledger, in events.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SourceLedger {
    /// The source; `unknown` for refused events whose source could not be read.
    #[schema(value_type = String)]
    pub source: &'static str,
    /// What the log ever took.
    pub published: u64,
    /// What became rows.
    pub stored: u64,
    /// What was there already.
    pub duplicates: u64,
    /// What a collector set aside.
    pub quarantined: u64,
    /// What the log holds and the store has not.
    pub in_flight: u64,
    /// What is nowhere.
    pub missing: u64,
    /// What the gateway refused; outside the sum.
    pub rejected: u64,
}

/// Why there is no ledger at the moment.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LedgerError {
    /// The log is away.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The store is away.
    #[error("{0}")]
    Store(Arc<StoreError>),
    /// The look was not finished in time.
    #[error("no ledger within {DEADLINE:?}")]
    Late,
    /// Too many requests wait for a look.
    #[error("{WAITING} requests wait for the ledger")]
    Busy,
}

impl From<StoreError> for LedgerError {
    fn from(error: StoreError) -> Self {
        Self::Store(Arc::new(error))
    }
}

/// One look at a source's ledger, and what the store should remember of it.
#[derive(Debug, Clone, Default)]
pub struct Reconciliation {
    /// The ledger.
    pub ledger: SourceLedger,
    /// State that the store knew before.
    pub known: KnownLog,
    /// State of the log that was seen.
    pub observed: ObservedLog,
}

/// Rounds of one source: numbered in the order in which they began, and the last one that ended.
#[derive(Default)]
struct Rounds {
    began: u64,
    last: Option<(u64, Reconciliation)>,
}

/// Rounds at the ledgers of all sources, one at a time for each. Whoever asks while one is under way shares the next.
pub struct Reconciler {
    log: SharedLog,
    store: Store,
    rounds: HashMap<Source, (Mutex<Rounds>, tokio::sync::Mutex<()>)>,
    waiting: Semaphore,
}

impl Reconciler {
    /// Of this log and this store.
    pub fn new(log: SharedLog, store: Store) -> Self {
        let rounds = Source::ALL.iter().map(|source| (*source, Default::default())).collect();
        Self { log, store, rounds, waiting: Semaphore::new(WAITING) }
    }

    /// A look that began after this was asked for.
    ///
    /// # Errors
    ///
    /// If log or store are away, or do not answer in time, or too many ask.
    pub async fn reconcile(&self, source: Source) -> Result<Reconciliation, LedgerError> {
        let _place = self.waiting.try_acquire().map_err(|_| LedgerError::Busy)?;
        tokio::time::timeout(DEADLINE, self.take_turn(source)).await.map_err(|_| LedgerError::Late)?
    }

    /// Refused events whose source the gateway could not read; none where there are none.
    ///
    /// # Errors
    ///
    /// If the store is away.
    pub async fn refused_without_source(&self) -> Result<Option<SourceLedger>, LedgerError> {
        let rejected = self.store.rejected().await?.get(&None).copied().unwrap_or(0).max(0).cast_unsigned();
        let ledger = SourceLedger { source: UNKNOWN_SOURCE, rejected, ..SourceLedger::default() };
        Ok((rejected > 0).then_some(ledger))
    }

    async fn take_turn(&self, source: Source) -> Result<Reconciliation, LedgerError> {
        let (rounds, turn) = &self.rounds[&source];
        let locked = || rounds.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = locked().began;
        let _turn = turn.lock().await;
        if let Some((began, look)) = &locked().last
            && *began > asked
        {
            return Ok(look.clone());
        }
        let began = {
            let mut rounds = locked();
            rounds.began += 1;
            rounds.began
        };
        let look = reconcile(&*self.log, &self.store, source).await?;
        locked().last = Some((began, look.clone()));
        Ok(look)
    }
}

/// What one frame of the log says of itself.
#[derive(Debug, Clone, Copy)]
struct FrameMark {
    writer: Uuid,
    mark: WriterMark,
    events: u64,
    /// Frames of the writer that the log had acknowledged when it was written.
    acknowledged: WriterMark,
}

impl FrameMark {
    fn run(&self) -> Run {
        let WriterMark { number, total } = self.mark;
        Run { first: number, last: number, before: total.saturating_sub(self.events), total }
    }
}

/// A place that was read.
enum Place {
    Frame(FrameMark),
    /// A frame that a newer version wrote.
    Newer,
    /// No frame.
    Alien,
    /// It left the log meanwhile: it was processed.
    Left,
}

/// What can be said of the frames in flight.
#[derive(Debug)]
struct InFlight {
    events: u64,
    writers: HashMap<Uuid, Runs>,
    /// Frames that were read, by writer, and those that they say the log had acknowledged.
    read: HashMap<Uuid, (Runs, WriterMark)>,
    /// True if every frame in flight is in `writers`.
    whole: bool,
    /// Frames that left the log while it was read.
    left: u64,
}

impl InFlight {
    fn add(&mut self, frame: &FrameMark) {
        let (runs, told) = self.read.entry(frame.writer).or_default();
        runs.add(frame.run());
        *told = told.max(frame.acknowledged);
    }
}

async fn reconcile(log: &dyn Log, store: &Store, source: Source) -> Result<Reconciliation, LedgerError> {
    let topic = Topic::Events(source);
    let known = store.known_log(source).await?;
    let state = log.state(topic).await?;
    let writers: Vec<Uuid> = state.acknowledged.keys().copied().collect();
    let mut cut = store.ledger(source, state.log_id, &writers).await?;
    let waiting = waiting(&state, &cut);
    let mut in_flight = in_flight(log, topic, &waiting, &cut).await?;
    if in_flight.left > 0 {
        // What left the log since the store was looked at was processed.
        let before = cut.processed();
        cut = store.ledger(source, state.log_id, &writers).await?;
        in_flight.events = in_flight.events.saturating_sub(cut.processed() - before.min(cut.processed()));
    }
    if lacks_acknowledged(&state, &cut, &in_flight) {
        add_at_places_given_twice(log, topic, &state, &cut, &mut in_flight).await?;
    }
    let rejected = store.rejected().await?.get(&Some(source.code())).copied().unwrap_or(0);
    let lost_places = lost_places(&state, &cut, waiting.count());
    let missing = match cut.copied_missing {
        Some(missing) => missing,
        None => missing(&known, &state, &cut, &in_flight, lost_places),
    };
    let ledger = SourceLedger {
        source: source.as_str(),
        published: cut.processed() + in_flight.events + missing,
        stored: cut.stored,
        duplicates: cut.duplicates,
        quarantined: cut.quarantined,
        in_flight: in_flight.events,
        missing,
        rejected: rejected.max(0).cast_unsigned(),
    };
    let acked = in_flight.read.iter().map(|(writer, (read, told))| {
        let mut runs = cut.writers.get(writer).map(|cut| cut.runs.clone()).unwrap_or_default();
        runs.extend(read);
        (*writer, runs.extend_acked(known.acked.get(writer).copied().unwrap_or_default().max(*told)))
    });
    let observed = ObservedLog { log_id: state.log_id, last: state.last, acked: acked.collect(), missing };
    Ok(Reconciliation { ledger, known, observed })
}

/// Places that the log holds and that were not processed.
fn waiting(state: &TopicState, cut: &LedgerCut) -> Ranges {
    let open = cut.places.gaps(state.first.max(1), state.last);
    let mut waiting = open.clone();
    for (first, last) in open.as_slice() {
        let from = state.gone.partition_point(|place| place < first);
        state.gone[from..]
            .iter()
            .take_while(|place| *place <= last)
            .for_each(|gone| waiting.remove(*gone, *gone));
    }
    waiting
}

/// True if the log remembers more acknowledged events of a writer than log and store are known to have.
fn lacks_acknowledged(state: &TopicState, cut: &LedgerCut, in_flight: &InFlight) -> bool {
    let nothing = Runs::default();
    in_flight.whole
        && state.acknowledged.iter().any(|(writer, mark)| {
            let mut runs = cut.writers.get(writer).map(|cut| cut.runs.clone()).unwrap_or_default();
            runs.extend(in_flight.writers.get(writer).unwrap_or(&nothing));
            mark.total > runs.events()
        })
}

/// A log that went back gives places again at which the store processed other frames: those that it holds there are
/// in flight as well.
async fn add_at_places_given_twice(
    log: &dyn Log,
    topic: Topic,
    state: &TopicState,
    cut: &LedgerCut,
    in_flight: &mut InFlight,
) -> Result<(), LedgerError> {
    let processed = cut.places.as_slice().iter().flat_map(|(first, last)| {
        let (first, last) = (*first.max(&state.first), *last.min(&state.last));
        first..=last
    });
    let held = processed.filter(|place| state.gone.binary_search(place).is_err());
    for place in held.take(GIVEN_TWICE) {
        let Place::Frame(frame) = peek(log, topic, place).await? else { continue };
        let known = cut.writers.get(&frame.writer).is_some_and(|cut| cut.runs.contains(frame.mark.number));
        let runs = in_flight.writers.entry(frame.writer).or_default();
        if !known && !runs.contains(frame.mark.number) {
            runs.add(frame.run());
            in_flight.events += frame.events;
        }
    }
    Ok(())
}

/// Places that were given, and that neither the log nor the store knows.
fn lost_places(state: &TopicState, cut: &LedgerCut, waiting: u64) -> u64 {
    cut.places.gaps(1, state.last).count().saturating_sub(waiting)
}

/// Events that are nowhere.
fn missing(
    known: &KnownLog,
    state: &TopicState,
    cut: &LedgerCut,
    in_flight: &InFlight,
    lost_places: u64,
) -> u64 {
    let mut lost = cut.forgotten;
    // A frame that was not read may be any that seems to be missing.
    if in_flight.whole {
        let nothing = Runs::default();
        let marked = state.acknowledged.keys().filter(|writer| !cut.writers.contains_key(writer));
        for writer in cut.writers.keys().chain(marked) {
            let mut runs = cut.writers.get(writer).map(|cut| cut.runs.clone()).unwrap_or_default();
            runs.extend(in_flight.writers.get(writer).unwrap_or(&nothing));
            let mut hole = runs.missing(known.acked.get(writer).copied().unwrap_or_default());
            if let Some(mark) = state.acknowledged.get(writer) {
                // The log's own sum is of the frames that it acknowledged alone.
                let events = mark.total.saturating_sub(runs.events());
                if events > hole.events {
                    // Numbers up to the mark that nobody has, wherever the gap is: their places are not counted again.
                    hole = Lost { frames: runs.missing(*mark).frames.max(1), events };
                }
            }
            (lost.frames, lost.events) = (lost.frames + hole.frames, lost.events + hole.events);
        }
    }
    let unsized_frames = (cut.holes + lost_places).saturating_sub(lost.frames);
    lost.events + unsized_frames + cut.lost_before
}

async fn peek(log: &dyn Log, topic: Topic, place: u64) -> Result<Place, LedgerError> {
    let Some(bytes) = log.peek(topic, place).await? else { return Ok(Place::Left) };
    Ok(match Frame::read(bytes) {
        Ok(frame) => Place::Frame(FrameMark {
            writer: frame.writer,
            mark: WriterMark { number: frame.number, total: frame.total },
            events: frame.len() as u64,
            acknowledged: frame.acknowledged,
        }),
        Err(FrameError::Newer(_)) => Place::Newer,
        Err(FrameError::Unreadable(_)) => Place::Alien,
    })
}

/// Sizes what is in flight: frame by frame between processed ones, by running totals behind them.
async fn in_flight(
    log: &dyn Log,
    topic: Topic,
    waiting: &Ranges,
    cut: &LedgerCut,
) -> Result<InFlight, LedgerError> {
    let mut sized =
        InFlight { events: 0, writers: HashMap::new(), read: HashMap::new(), whole: true, left: 0 };
    let (gaps, tail) = waiting.split(cut.places.highest());
    size_gaps(log, topic, &gaps, &mut sized).await?;
    size_tail(log, topic, &tail, cut, &mut sized).await?;
    Ok(sized)
}

async fn size_gaps(
    log: &dyn Log,
    topic: Topic,
    gaps: &Ranges,
    sized: &mut InFlight,
) -> Result<(), LedgerError> {
    let all = gaps.count();
    let (step, read) = if all > GAP_FRAMES { (all / SAMPLES, SAMPLES) } else { (1, all) };
    sized.whole &= step == 1;
    let places = (0..read).filter_map(|position| gaps.nth(position * step));
    let mut found = stream::iter(places).map(|place| peek(log, topic, place)).buffer_unordered(AT_ONCE);
    let (mut events, mut frames) = (0, 0);
    while let Some(place) = found.try_next().await? {
        match place {
            Place::Frame(frame) => {
                (frames, events) = (frames + 1, events + frame.events);
                sized.add(&frame);
                sized.writers.entry(frame.writer).or_default().add(frame.run());
            }
            Place::Newer => sized.whole = false,
            Place::Alien => {}
            Place::Left => sized.left += 1,
        }
    }
    sized.events += if step == 1 { events } else { scaled(events, all, frames) };
    Ok(())
}

/// As many times `events` as there are `all` for each of `counted`.
fn scaled(events: u64, all: u64, counted: u64) -> u64 {
    let scaled = u128::from(events) * u128::from(all) / u128::from(counted.max(1));
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

/// The last frame of each writer says how many events all its frames in the tail hold. Their numbers tell when
/// every writer of the tail has been met. Where they do not (the log refused frames in between, or very many writers
/// have been at work), what is left is estimated: a look does not read a whole backlog.
async fn size_tail(
    log: &dyn Log,
    topic: Topic,
    tail: &Ranges,
    cut: &LedgerCut,
    sized: &mut InFlight,
) -> Result<(), LedgerError> {
    let all = tail.count();
    let before = |writer: &Uuid, sized: &InFlight| {
        let of = |runs: Option<&Runs>| runs.map(Runs::end).unwrap_or_default();
        of(cut.writers.get(writer).map(|cut| &cut.runs)).max(of(sized.writers.get(writer)))
    };
    let mut met: HashMap<Uuid, Run> = HashMap::new();
    let mut read: Vec<FrameMark> = Vec::new();
    let (mut at, mut steps, mut gained, mut counted) = (all, 0, (0, 0), 0);
    while at > 0 && steps < TAIL_FRAMES && gained.0 != all {
        // Numbers that were gained by writers that were met are those of frames in front of their last one.
        at = if steps >= TAIL_STEPS { (at - 1).min(all.saturating_sub(gained.0)) } else { at - 1 };
        steps += 1;
        let Some(place) = tail.nth(at) else { break };
        match peek(log, topic, place).await? {
            Place::Frame(frame) => {
                counted += frame.events;
                let known = before(&frame.writer, sized);
                let run = Run {
                    first: known.number + 1,
                    last: frame.mark.number,
                    before: known.total,
                    total: frame.mark.total,
                };
                let met = met.entry(frame.writer).or_insert(run);
                if run.last > met.last {
                    *met = run;
                }
                sized.add(&frame);
                read.push(frame);
            }
            Place::Newer => sized.whole = false,
            Place::Alien => {}
            Place::Left => sized.left += 1,
        }
        let gain =
            |run: &Run| ((run.last + 1).saturating_sub(run.first), run.total.saturating_sub(run.before));
        gained = met.values().map(gain).fold((0, 0), |sum, gain| (sum.0 + gain.0, sum.1 + gain.1));
    }
    if gained.0 == all {
        sized.events += gained.1;
        for (writer, run) in met {
            sized.writers.entry(writer).or_default().add(run);
        }
        return Ok(());
    }
    for frame in &read {
        sized.writers.entry(frame.writer).or_default().add(frame.run());
    }
    if steps >= all {
        sized.events += counted;
    } else {
        sized.whole = false;
        let (frames, events) = if gained.0 > all { gained } else { (read.len() as u64, counted) };
        sized.events += scaled(events, all, frames);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::ledger::WriterCut;

    const WRITER: Uuid = Uuid::from_u128(9);

    fn state(first: u64, last: u64, gone: &[u64]) -> TopicState {
        TopicState {
            log_id: Uuid::nil(),
            first,
            last,
            gone: gone.to_vec(),
            bytes: 0,
            max_bytes: 1,
            acknowledged: HashMap::new(),
        }
    }

    fn runs(of: &[(u64, u64)]) -> Runs {
        let mut runs = Runs::default();
        for &(first, last) in of {
            runs.add(Run { first, last, before: (first - 1) * 10, total: last * 10 });
        }
        runs
    }

    fn mark(number: u64) -> WriterMark {
        WriterMark { number, total: number * 10 }
    }

    /// Frames of ten events each; a frame's place is its number.
    fn cut(processed: &[(u64, u64)]) -> LedgerCut {
        LedgerCut {
            places: processed.iter().copied().collect(),
            writers: HashMap::from([(
                WRITER,
                WriterCut { runs: runs(processed), acked: WriterMark::default() },
            )]),
            ..LedgerCut::default()
        }
    }

    fn found(state: &TopicState, cut: &LedgerCut, acked: u64, in_flight: &[(u64, u64)], whole: bool) -> u64 {
        let known = KnownLog { acked: HashMap::from([(WRITER, mark(acked))]), ..KnownLog::default() };
        let in_flight = InFlight {
            events: 0,
            writers: HashMap::from([(WRITER, runs(in_flight))]),
            read: HashMap::new(),
            whole,
            left: 0,
        };
        let lost = lost_places(state, cut, waiting(state, cut).count());
        missing(&known, state, cut, &in_flight, lost)
    }

    #[test]
    fn a_place_between_log_and_store_is_lost() {
        let lost = |state: TopicState, processed: &[(u64, u64)]| {
            let cut = cut(processed);
            lost_places(&state, &cut, waiting(&state, &cut).count())
        };
        assert_eq!(lost(state(1, 0, &[]), &[]), 0, "nothing yet");
        assert_eq!(lost(state(5, 9, &[6]), &[(1, 4), (6, 6)]), 0, "all known");
        assert_eq!(lost(state(5, 9, &[6]), &[(1, 7)]), 0, "held and processed");
        assert_eq!(lost(state(10, 9, &[]), &[(1, 9)]), 0, "empty log");
        assert_eq!(lost(state(10, 9, &[]), &[(1, 5), (8, 8)]), 3, "purged: 6, 7, 9");
        assert_eq!(lost(state(8, 9, &[]), &[(1, 5)]), 2, "6, 7");
        assert_eq!(lost(state(3, 4, &[]), &[(1, 9)]), 0, "the store is ahead");
    }

    #[test]
    fn missing_counts_acknowledged_frames_that_are_nowhere() {
        let empty = state(10, 9, &[]);
        assert_eq!(found(&empty, &cut(&[(1, 9)]), 9, &[], true), 0, "all processed");
        assert_eq!(found(&empty, &cut(&[(1, 5), (8, 9)]), 8, &[], true), 20, "two frames of ten events");
        assert_eq!(found(&empty, &cut(&[(1, 7)]), 6, &[], true), 2, "nothing sizes the last two frames");
        assert_eq!(
            found(&state(6, 9, &[8]), &cut(&[(1, 5), (8, 8)]), 9, &[(6, 7), (9, 9)], true),
            0,
            "in flight"
        );
        // The log refused frames 6 and 7, or never confirmed them: no place was given, and nobody counts on them.
        let mut refused = cut(&[(1, 5), (8, 9)]);
        refused.places = [(1, 7)].into_iter().collect();
        assert_eq!(found(&state(8, 7, &[]), &refused, 5, &[], true), 0);
        // The log went back: the places have other frames.
        assert_eq!(found(&state(8, 7, &[]), &refused, 8, &[], true), 20);
        // They may be among the frames that were not read.
        assert_eq!(found(&state(8, 7, &[]), &refused, 8, &[], false), 0);
        // A log that was made anew, and remembers what the one before acknowledged.
        let mut anew = state(1, 0, &[]);
        anew.acknowledged = HashMap::from([(WRITER, mark(12)), (Uuid::from_u128(3), mark(2))]);
        let mut before = cut(&[(1, 4), (6, 9)]);
        before.places = Ranges::default();
        assert_eq!(found(&anew, &before, 11, &[], true), 10 + 30 + 20);
    }

    #[test]
    fn a_look_at_a_million_places_above_a_gap_is_quick() {
        let state = state(1, 1_000_002, &(2..=1_000_001).collect::<Vec<_>>());
        let cut = cut(&[(2, 1_000_001)]);
        let began = std::time::Instant::now();
        let waiting = waiting(&state, &cut);
        assert_eq!(waiting.as_slice(), [(1, 1), (1_000_002, 1_000_002)]);
        assert_eq!(lost_places(&state, &cut, waiting.count()), 0);
        assert!(began.elapsed() < std::time::Duration::from_millis(50), "{:?}", began.elapsed());
    }
}
