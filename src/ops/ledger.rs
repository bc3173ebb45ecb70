//! The ledger: what the log ever took, held against what the store holds.
//!
//! Everything here comes from durable state. The log is looked at first and the store after it, so
//! that a frame that moves from one to the other in between is seen at least once; what the store
//! already has is then taken out of what the log holds.
//!
//! *In flight* are the frames that the log holds and the store has not processed. A frame of the log
//! that neither holds is *lost*: its place is a hole, and the running totals that each gateway writes
//! into its frames tell how many events it held.

use std::collections::HashMap;

use serde::Serialize;
use uuid::Uuid;

use crate::event::Source;
use crate::log::{Frame, Log, LogError, Topic, TopicState, WriterMark};
use crate::store::ledger::LedgerCut;
use crate::store::{Store, StoreError};

/// Looks at log and store that are tried until one is found between two frames.
const TRIES: usize = 8;

/// One source's ledger, in events.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SourceLedger {
    /// The source.
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
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The log is away.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The store is away.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What one frame of the log says of itself.
#[derive(Debug, Clone, Copy)]
struct Seen {
    writer: Uuid,
    mark: WriterMark,
    events: u64,
}

/// What can be said of the frames in flight.
#[derive(Debug, Default)]
struct InFlight {
    events: u64,
    writers: HashMap<Uuid, WriterMark>,
    /// Frames that left the log before they were sized.
    left: u64,
}

/// The ledger of one source at this moment.
pub async fn source_ledger(
    log: &dyn Log,
    store: &Store,
    source: Source,
) -> Result<SourceLedger, LedgerError> {
    let topic = Topic::Events(source);
    let mut tries = 1..=TRIES;
    let (state, cut, in_flight) = loop {
        let last_try = tries.next().is_none();
        let state = log.state(topic).await?;
        let cut = store.ledger(source, state.log_id).await?;
        // A frame that was appended and processed after the log was looked at can have others before
        // it that this look did not see.
        let ahead = cut.above.last().copied().unwrap_or(cut.watermark).max(cut.watermark) > state.last;
        if ahead && !last_try {
            continue;
        }
        let in_flight = in_flight(log, topic, &state, &cut).await?;
        // A frame that left the log after the store was looked at is in neither.
        if in_flight.left == 0 || last_try {
            break (state, cut, in_flight);
        }
    };
    let rejected = store.rejected().await?.get(&Some(source.code())).copied().unwrap_or(0);
    Ok(balance(source, &state, &cut, &in_flight, rejected.max(0).cast_unsigned()))
}

fn balance(
    source: Source,
    state: &TopicState,
    cut: &LedgerCut,
    in_flight: &InFlight,
    rejected: u64,
) -> SourceLedger {
    let mut ledger = SourceLedger {
        source: source.as_str(),
        in_flight: in_flight.events,
        rejected,
        ..SourceLedger::default()
    };
    let mut logs = cut.logs.clone();
    let current = logs.entry(state.log_id).or_default();
    for (writer, mark) in &in_flight.writers {
        let known = current.writers.entry(*writer).or_default();
        *known = known.max(*mark);
    }
    for (log_id, counts) in &logs {
        ledger.stored += counts.stored;
        ledger.duplicates += counts.duplicates;
        ledger.quarantined += counts.quarantined;
        let written: u64 = counts.writers.values().map(|mark| mark.total).sum();
        let found = counts.processed() + if *log_id == state.log_id { in_flight.events } else { 0 };
        let hole = written.saturating_sub(found);
        // A frame can be known to be lost without anything after it that sizes it: then it is one event.
        let lost = if *log_id == state.log_id { lost_frames(state, cut) } else { u64::from(hole > 0) };
        let missing = if lost == 0 { 0 } else { hole.max(lost) };
        ledger.missing += missing;
        ledger.published += found + missing;
    }
    ledger
}

/// Whether the log holds a place.
fn holds(state: &TopicState, sequence: u64) -> bool {
    (state.first..=state.last).contains(&sequence) && state.gone.binary_search(&sequence).is_err()
}

/// Places that were given, and that neither the log nor the store knows.
fn lost_frames(state: &TopicState, cut: &LedgerCut) -> u64 {
    let open = state.last.saturating_sub(cut.watermark);
    let above = cut.above.iter().filter(|sequence| (cut.watermark + 1..=state.last).contains(*sequence));
    let processed = above.clone().count() as u64;
    let gone_below = state.gone.iter().filter(|sequence| **sequence > cut.watermark).count() as u64;
    let held_from = state.first.max(cut.watermark + 1);
    let held = (state.last + 1).saturating_sub(held_from).saturating_sub(gone_below);
    let both = above.filter(|sequence| holds(state, **sequence)).count() as u64;
    cut.holes + open.saturating_sub(processed + held - both)
}

/// Sizes what is in flight: frame by frame where processing has left gaps, by running totals behind.
async fn in_flight(
    log: &dyn Log,
    topic: Topic,
    state: &TopicState,
    cut: &LedgerCut,
) -> Result<InFlight, LedgerError> {
    let start = state.first.max(cut.watermark + 1);
    let waiting: Vec<u64> = (start..=state.last)
        .filter(|sequence| holds(state, *sequence) && !cut.processed(*sequence))
        .collect();
    let edge = cut.above.last().copied().unwrap_or(0).max(cut.watermark);
    let (gaps, tail) = waiting.split_at(waiting.partition_point(|sequence| *sequence <= edge));
    let mut sized = InFlight::default();
    let mut before = cut.logs.get(&state.log_id).map(|counts| counts.writers.clone()).unwrap_or_default();
    for sequence in gaps {
        if let Some(seen) = look(log, topic, *sequence, &mut sized).await? {
            sized.events += seen.events;
            let known = before.entry(seen.writer).or_default();
            *known = known.max(seen.mark);
            let known = sized.writers.entry(seen.writer).or_default();
            *known = known.max(seen.mark);
        }
    }
    // The last frame of each writer says how many events all its frames in the tail hold. Their
    // numbers tell when every writer of the tail has been met.
    let mut last: HashMap<Uuid, WriterMark> = HashMap::new();
    let mut counted = 0;
    for sequence in tail.iter().rev() {
        let Some(seen) = look(log, topic, *sequence, &mut sized).await? else { continue };
        counted += seen.events;
        let known = last.entry(seen.writer).or_default();
        *known = known.max(seen.mark);
        let gained = |(writer, mark): (&Uuid, &WriterMark)| {
            let base = before.get(writer).copied().unwrap_or_default();
            (mark.number.saturating_sub(base.number), mark.total.saturating_sub(base.total))
        };
        let (frames, events) =
            last.iter().map(gained).fold((0, 0), |sum, gain| (sum.0 + gain.0, sum.1 + gain.1));
        if frames == tail.len() as u64 {
            counted = events;
            break;
        }
    }
    sized.events += counted;
    for (writer, mark) in last {
        let known = sized.writers.entry(writer).or_default();
        *known = known.max(mark);
    }
    Ok(sized)
}

async fn look(
    log: &dyn Log,
    topic: Topic,
    sequence: u64,
    sized: &mut InFlight,
) -> Result<Option<Seen>, LedgerError> {
    let Some(bytes) = log.peek(topic, sequence).await? else {
        sized.left += 1;
        return Ok(None);
    };
    let frame = Frame::read(bytes).ok();
    Ok(frame.map(|frame| Seen {
        writer: frame.writer,
        mark: WriterMark { number: frame.number, total: frame.total },
        events: frame.len() as u64,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::ledger::LogCounts;

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

    fn cut(watermark: u64, above: &[u64], stored: u64, total: u64) -> LedgerCut {
        let mark = WriterMark { number: 1, total };
        let counts =
            LogCounts { stored, writers: HashMap::from([(Uuid::nil(), mark)]), ..LogCounts::default() };
        LedgerCut { logs: HashMap::from([(Uuid::nil(), counts)]), watermark, above: above.to_vec(), holes: 0 }
    }

    #[test]
    fn a_hole_between_log_and_store_is_lost() {
        assert_eq!(lost_frames(&state(1, 0, &[]), &cut(0, &[], 0, 0)), 0, "nothing yet");
        assert_eq!(lost_frames(&state(5, 9, &[6]), &cut(3, &[4, 6], 0, 0)), 0, "all known");
        assert_eq!(lost_frames(&state(5, 9, &[6]), &cut(3, &[4, 5, 6, 7], 0, 0)), 0, "held and processed");
        assert_eq!(lost_frames(&state(10, 9, &[]), &cut(9, &[], 0, 0)), 0, "empty log");
        assert_eq!(lost_frames(&state(10, 9, &[]), &cut(5, &[8], 0, 0)), 3, "purged: 6, 7, 9");
        assert_eq!(lost_frames(&state(8, 9, &[]), &cut(5, &[], 0, 0)), 2, "6, 7");
        assert_eq!(lost_frames(&state(3, 4, &[]), &cut(9, &[], 0, 0)), 0, "the store is ahead");
    }

    #[test]
    fn missing_counts_only_what_is_nowhere() {
        let none = InFlight::default();
        let ledger = balance(Source::Facebook, &state(10, 9, &[]), &cut(9, &[], 70, 100), &none, 0);
        assert_eq!((ledger.published, ledger.missing), (70, 0), "no place is a hole");
        let ledger = balance(Source::Facebook, &state(10, 9, &[]), &cut(5, &[8, 9], 70, 100), &none, 4);
        assert_eq!((ledger.published, ledger.missing, ledger.rejected), (100, 30, 4));
        let ledger = balance(Source::Facebook, &state(10, 9, &[]), &cut(7, &[], 100, 100), &none, 0);
        assert_eq!((ledger.published, ledger.missing), (102, 2), "the last two frames, which nothing sizes");
    }
}
