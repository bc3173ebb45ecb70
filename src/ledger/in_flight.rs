//! Sizing the events in flight: those in frames that the log holds and the store has not processed.
//!
//! A bounded number of frames is read. Frames between processed ones are those that collectors have in hand: they are
//! read one by one. Behind the last processed one there may be a backlog of any length: the writers' running totals,
//! which each frame carries, size it.

use std::collections::HashMap;

use futures::{StreamExt, TryStreamExt, stream};
use uuid::Uuid;

use super::LedgerError;
use crate::log::{self, Frame, FrameError, Log, Topic, TopicState, WriterMark};
use crate::store::ledger::{LedgerCut, Ranges, Run, Runs};

/// Maximum number of frames between processed ones that are all read.
const MAX_GAP_FRAMES: u64 = 256;
/// Number of frames that are read as a sample where there are more.
const SAMPLES: u64 = 32;
/// Maximum number of frames behind the processed ones that are read, to find the last frame of each writer.
const MAX_TAIL_FRAMES: u64 = 64;
/// Number of frames at the end of the log that are read one by one, before frames are skipped that their writers'
/// numbers account for.
const TAIL_STEPS: u64 = 32;
/// Number of frames that are read at one time.
const CONCURRENCY: usize = 4;
/// Maximum number of reused sequence numbers that are read.
const MAX_REUSED: usize = 1_024;

/// The header of one frame in the log.
#[derive(Debug, Clone, Copy)]
struct FrameMark {
    writer: Uuid,
    mark: WriterMark,
    events: u64,
    /// Frames of the writer that the log had acknowledged when this one was written.
    acknowledged: WriterMark,
}

impl FrameMark {
    fn run(&self) -> Run {
        let WriterMark { number, total } = self.mark;
        Run { first: number, last: number, before: total.saturating_sub(self.events), total }
    }
}

/// Content of the log at a sequence number.
enum Peeked {
    Frame(FrameMark),
    /// A frame in a format of a newer version.
    Newer,
    /// A message that is no frame.
    Alien,
    /// Nothing: the message left the log. It was processed in the meantime, or else is lost.
    Left(u64),
}

/// Frames in flight.
#[derive(Debug)]
pub(super) struct InFlight {
    /// Number of events.
    pub events: u64,
    /// Frames, by writer.
    pub writers: HashMap<Uuid, Runs>,
    /// Frames that were read, by writer, and the highest acknowledged frame that they name.
    pub read: HashMap<Uuid, (Runs, WriterMark)>,
    /// True if every frame in flight is in `writers`.
    pub complete: bool,
    /// Sequence numbers at which the log has nothing any more.
    pub left: Vec<u64>,
}

impl InFlight {
    /// No frames.
    pub fn none() -> Self {
        Self { events: 0, writers: HashMap::new(), read: HashMap::new(), complete: true, left: Vec::new() }
    }

    /// Events of these frames that a later look at the store has not processed. Only if the frames are complete.
    pub fn unprocessed(&self, cut: &LedgerCut) -> u64 {
        let of_writer = |(writer, runs): (&Uuid, &Runs)| {
            let mut all = cut.runs_of(writer);
            let processed = all.events();
            all.extend(runs);
            all.events().saturating_sub(processed)
        };
        self.writers.iter().map(of_writer).sum()
    }

    fn record(&mut self, frame: &FrameMark) {
        let (runs, named) = self.read.entry(frame.writer).or_default();
        runs.add(frame.run());
        *named = named.max(frame.acknowledged);
    }

    fn add_runs(&mut self, writer: Uuid, run: Run) {
        self.writers.entry(writer).or_default().add(run);
    }
}

/// Adds the frames at the waiting sequence numbers of a stream. Frames of a writer stand in one stream.
pub(super) async fn size(
    log: &dyn Log,
    topic: Topic,
    waiting: &Ranges,
    (cut, processed): (&LedgerCut, &Ranges),
    sized: &mut InFlight,
) -> Result<(), LedgerError> {
    let (gaps, tail) = waiting.split(processed.highest());
    size_gaps(log, topic, &gaps, sized).await?;
    size_tail(log, topic, &tail, cut, sized).await
}

/// True if the log gives sequence numbers a second time that the store processed: it was restored from an older copy.
/// Reads two frames, the oldest and the newest at processed sequence numbers that the log still holds: one that the store
/// does not know tells it.
pub(super) async fn reuses_sequences(
    log: &dyn Log,
    topic: Topic,
    state: &TopicState,
    cut: &LedgerCut,
) -> Result<bool, LedgerError> {
    let held = processed_and_held(state, cut);
    let ends = [held.iter().next().map(|(first, _)| first), held.last()];
    for sequence in ends.into_iter().flatten() {
        if let Peeked::Frame(frame) = peek(log, topic, sequence).await?
            && cut.writers.get(&frame.writer).is_none_or(|cut| !cut.runs.contains(frame.mark.number))
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Sequence numbers that the store processed and that the log still holds, or may hold. Computed by runs, not by
/// numbers: millions of processed frames may lie above one that is not.
fn processed_and_held(state: &TopicState, cut: &LedgerCut) -> log::Runs {
    let mut processed = log::Runs::default();
    for (first, last) in cut.sequences_of(&state.log_id).as_slice() {
        let (first, last) = (*first.max(&state.first), *last.min(&state.last));
        if first <= last {
            processed.add(first, last);
        }
    }
    state.gone.as_ref().map_or_else(|| processed.clone(), |gone| processed.without(gone))
}

/// Adds the frames at sequence numbers that the store processed and a log that was restored gives a second time, to
/// other frames.
pub(super) async fn add_at_reused_sequences(
    log: &dyn Log,
    topic: Topic,
    state: &TopicState,
    cut: &LedgerCut,
    in_flight: &mut InFlight,
) -> Result<(), LedgerError> {
    let held = processed_and_held(state, cut);
    for sequence in held.iter().flat_map(|(first, last)| first..=last).take(MAX_REUSED) {
        let Peeked::Frame(frame) = peek(log, topic, sequence).await? else { continue };
        let processed =
            cut.writers.get(&frame.writer).is_some_and(|cut| cut.runs.contains(frame.mark.number));
        let runs = in_flight.writers.entry(frame.writer).or_default();
        if !processed && !runs.contains(frame.mark.number) {
            runs.add(frame.run());
            in_flight.events += frame.events;
        }
    }
    Ok(())
}

async fn peek(log: &dyn Log, topic: Topic, sequence: u64) -> Result<Peeked, LedgerError> {
    let Some(bytes) = log.peek(topic, sequence).await? else { return Ok(Peeked::Left(sequence)) };
    Ok(match Frame::read(bytes) {
        Ok(frame) => Peeked::Frame(FrameMark {
            writer: frame.writer,
            mark: WriterMark { number: frame.number, total: frame.total },
            events: frame.len() as u64,
            acknowledged: frame.acknowledged,
        }),
        Err(FrameError::Newer(_)) => Peeked::Newer,
        Err(FrameError::Unreadable(_)) => Peeked::Alien,
    })
}

/// Sizes the frames between processed ones: reads all of them, or a sample if there are very many.
async fn size_gaps(
    log: &dyn Log,
    topic: Topic,
    gaps: &Ranges,
    sized: &mut InFlight,
) -> Result<(), LedgerError> {
    let all = gaps.count();
    let (step, read) = if all > MAX_GAP_FRAMES { (all / SAMPLES, SAMPLES) } else { (1, all) };
    sized.complete &= step == 1;
    let sequences = (0..read).filter_map(|position| gaps.nth(position * step));
    let mut found =
        stream::iter(sequences).map(|sequence| peek(log, topic, sequence)).buffer_unordered(CONCURRENCY);
    let (mut events, mut frames) = (0, 0);
    while let Some(peeked) = found.try_next().await? {
        match peeked {
            Peeked::Frame(frame) => {
                (frames, events) = (frames + 1, events + frame.events);
                sized.record(&frame);
                sized.add_runs(frame.writer, frame.run());
            }
            Peeked::Newer => sized.complete = false,
            Peeked::Alien => {}
            Peeked::Left(sequence) => sized.left.push(sequence),
        }
    }
    sized.events += if step == 1 { events } else { scaled(events, all, frames) };
    Ok(())
}

/// `events` of `counted` frames, scaled up to `all` frames.
fn scaled(events: u64, all: u64, counted: u64) -> u64 {
    let scaled = u128::from(events) * u128::from(all) / u128::from(counted.max(1));
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

/// Frames and events of the tail that the last frames of the writers found so far account for.
#[derive(Default)]
struct Tail {
    /// The frames of each writer in the tail, by the last one of it.
    writers: HashMap<Uuid, Run>,
    frames: u64,
    events: u64,
}

impl Tail {
    /// Adds a frame; `before` is the last frame of its writer before the tail.
    fn add(&mut self, frame: &FrameMark, before: WriterMark) {
        let run = Run {
            first: before.number + 1,
            last: frame.mark.number,
            before: before.total,
            total: frame.mark.total,
        };
        let known = self.writers.entry(frame.writer).or_insert(run);
        if run.last > known.last {
            *known = run;
        }
        let frames = |run: &Run| (run.last + 1).saturating_sub(run.first);
        self.frames = self.writers.values().map(frames).sum();
        self.events = self.writers.values().map(|run| run.total.saturating_sub(run.before)).sum();
    }
}

/// Sizes the frames behind the processed ones, from the end of the log backwards. The last frame of a writer tells the
/// number of its frames and events in the tail; once these account for as many frames as the tail has, every writer has
/// been found. If they never do (the log refused frames in between, or very many writers were active), the rest is
/// estimated: a reconciliation does not read a whole backlog.
async fn size_tail(
    log: &dyn Log,
    topic: Topic,
    tail: &Ranges,
    cut: &LedgerCut,
    sized: &mut InFlight,
) -> Result<(), LedgerError> {
    let all = tail.count();
    let (mut found, mut read) = (Tail::default(), Vec::new());
    let (mut at, mut steps, mut counted) = (all, 0, 0);
    while at > 0 && steps < MAX_TAIL_FRAMES && found.frames != all {
        // Frames that the known writers account for lie before their last ones: they can be skipped.
        at = if steps >= TAIL_STEPS { (at - 1).min(all.saturating_sub(found.frames)) } else { at - 1 };
        steps += 1;
        let Some(sequence) = tail.nth(at) else { break };
        match peek(log, topic, sequence).await? {
            Peeked::Frame(frame) => {
                counted += frame.events;
                let in_gaps = sized.writers.get(&frame.writer).map(Runs::end).unwrap_or_default();
                found.add(&frame, cut.runs_of(&frame.writer).end().max(in_gaps));
                sized.record(&frame);
                read.push(frame);
            }
            Peeked::Newer => sized.complete = false,
            Peeked::Alien => {}
            Peeked::Left(sequence) => sized.left.push(sequence),
        }
    }
    if found.frames == all {
        sized.events += found.events;
        found.writers.into_iter().for_each(|(writer, run)| sized.add_runs(writer, run));
        return Ok(());
    }
    read.iter().for_each(|frame| sized.add_runs(frame.writer, frame.run()));
    if steps >= all {
        sized.events += counted;
    } else {
        sized.complete = false;
        let (frames, events) =
            if found.frames > all { (found.frames, found.events) } else { (read.len() as u64, counted) };
        sized.events += scaled(events, all, frames);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::ledger::WriterCut;

    fn frame(writer: u128, number: u64, events: u64) -> FrameMark {
        let mark = WriterMark { number, total: number * events };
        FrameMark { writer: Uuid::from_u128(writer), mark, events, acknowledged: WriterMark::default() }
    }

    #[test]
    fn frames_that_were_processed_meanwhile_take_nothing_from_those_that_were_not() {
        let run = |first: u64, last: u64| Run { first, last, before: (first - 1) * 5, total: last * 5 };
        let runs = |first: u64, last: u64| {
            let mut runs = Runs::default();
            runs.add(run(first, last));
            runs
        };
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let writers = HashMap::from([(one, runs(5, 8)), (other, runs(1, 2))]);
        let in_flight = InFlight { events: 30, writers, ..InFlight::none() };
        let cut = |processed: Runs| LedgerCut {
            writers: HashMap::from([(one, WriterCut { runs: processed, acked: WriterMark::default() })]),
            ..LedgerCut::default()
        };
        assert_eq!(in_flight.unprocessed(&LedgerCut::default()), 30);
        // Frames 1 to 4 were not in flight: that they are processed changes nothing.
        assert_eq!(in_flight.unprocessed(&cut(runs(1, 4))), 30);
        assert_eq!(in_flight.unprocessed(&cut(runs(1, 6))), 20);
        assert_eq!(in_flight.unprocessed(&cut(runs(1, 9))), 10, "the other writer's");
    }

    #[test]
    fn the_last_frame_of_each_writer_accounts_for_all_before_it() {
        let mut tail = Tail::default();
        tail.add(&frame(1, 20, 3), WriterMark { number: 5, total: 15 });
        assert_eq!((tail.frames, tail.events), (15, 45));
        tail.add(&frame(1, 19, 3), WriterMark { number: 5, total: 15 });
        assert_eq!((tail.frames, tail.events), (15, 45), "an earlier frame adds nothing");
        tail.add(&frame(2, 4, 10), WriterMark::default());
        assert_eq!((tail.frames, tail.events), (19, 85));
    }

    #[test]
    fn a_sample_is_scaled_without_overflow() {
        assert_eq!(scaled(64, 1_000, 32), 2_000);
        assert_eq!(scaled(5, 9, 0), 45, "no frame was read");
        assert_eq!(scaled(u64::MAX, u64::MAX, 1), u64::MAX);
    }
}
