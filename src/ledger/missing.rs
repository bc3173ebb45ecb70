//! Missing events: those in acknowledged frames that neither the log nor the store has.
//!
//! The writers' running totals size a missing frame by the frames around it. A sequence number that the log no longer
//! holds, that was not processed, and that no later frame of its writer sizes, counts as one event.

use std::collections::HashMap;

use uuid::Uuid;

use crate::log::{self, TopicState, WriterMark};
use crate::store::ledger::{KnownLog, LedgerCut, Lost, Ranges, Runs};

use super::in_flight::InFlight;

/// Sequence numbers that the log holds and that were not processed. If the log does not list those that it no longer
/// holds, all that were not processed count as held until they are read: frames leave the log once they are processed.
pub(super) fn waiting_sequences(state: &TopicState, processed: &Ranges) -> Ranges {
    let mut waiting = processed.gaps(state.first.max(1), state.last);
    for (first, last) in state.gone.iter().flat_map(log::Runs::iter) {
        waiting.remove(first, last);
    }
    waiting
}

/// True if the log remembers more acknowledged events of a writer than log and store are known to have.
pub(super) fn lacks_acknowledged(state: &TopicState, cut: &LedgerCut, in_flight: &InFlight) -> bool {
    let nothing = Runs::default();
    in_flight.complete
        && state.acknowledged.iter().any(|(writer, mark)| {
            let mut runs = cut.runs_of(writer);
            runs.extend(in_flight.writers.get(writer).unwrap_or(&nothing));
            mark.total > runs.events()
        })
}

/// Number of sequence numbers that the log gave and that neither log nor store know.
pub(super) fn lost_sequences(state: &TopicState, processed: &Ranges, waiting: u64) -> u64 {
    processed.gaps(1, state.last).count().saturating_sub(waiting)
}

/// Number of missing events. `remembered` are the acknowledged frames that the log itself remembers, by writer.
pub(super) fn missing_events(
    known: &KnownLog,
    remembered: &HashMap<Uuid, WriterMark>,
    cut: &LedgerCut,
    in_flight: &InFlight,
    lost_sequences: u64,
) -> u64 {
    let mut lost = cut.forgotten;
    // If frames in flight were not read, any of them may be one that seems to be missing.
    if in_flight.complete {
        let nothing = Runs::default();
        let others = remembered.keys().filter(|writer| !cut.writers.contains_key(writer));
        for writer in cut.writers.keys().chain(others) {
            let mut runs = cut.runs_of(writer);
            runs.extend(in_flight.writers.get(writer).unwrap_or(&nothing));
            let mut hole = runs.missing(known.acked.get(writer).copied().unwrap_or_default());
            if let Some(mark) = remembered.get(writer) {
                // The log's own sum holds acknowledged frames only.
                let events = mark.total.saturating_sub(runs.events());
                if events > hole.events {
                    // As many frames up to the mark as are missing wherever the gap is, so that their sequence numbers
                    // are not counted again below.
                    hole = Lost { frames: runs.missing(*mark).frames.max(1), events };
                }
            }
            (lost.frames, lost.events) = (lost.frames + hole.frames, lost.events + hole.events);
        }
    }
    let unsized_frames = (cut.holes + lost_sequences).saturating_sub(lost.frames);
    lost.events + unsized_frames + cut.lost_before
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::ledger::{Run, WriterCut};

    const WRITER: Uuid = Uuid::from_u128(9);

    fn state(first: u64, last: u64, gone: &[u64]) -> TopicState {
        TopicState {
            log_id: Uuid::nil(),
            first,
            last,
            held: (last + 1).saturating_sub(first + gone.len() as u64),
            gone: Some(gone.iter().copied().collect()),
            bytes: 0,
            max_bytes: 1,
            acknowledged: HashMap::new(),
            copies: None,
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

    /// Processed frames of ten events each; a frame's sequence number is its number.
    fn cut(processed: &[(u64, u64)]) -> LedgerCut {
        LedgerCut {
            sequences: processed.iter().copied().collect(),
            writers: HashMap::from([(
                WRITER,
                WriterCut { runs: runs(processed), acked: WriterMark::default() },
            )]),
            ..LedgerCut::default()
        }
    }

    fn found(
        state: &TopicState,
        cut: &LedgerCut,
        acked: u64,
        in_flight: &[(u64, u64)],
        complete: bool,
    ) -> u64 {
        let known = KnownLog { acked: HashMap::from([(WRITER, mark(acked))]), ..KnownLog::default() };
        let in_flight =
            InFlight { writers: HashMap::from([(WRITER, runs(in_flight))]), complete, ..InFlight::none() };
        let processed = &cut.sequences;
        let lost = lost_sequences(state, processed, waiting_sequences(state, processed).count());
        missing_events(&known, &state.acknowledged, cut, &in_flight, lost)
    }

    #[test]
    fn a_sequence_number_that_neither_log_nor_store_knows_is_lost() {
        let lost = |state: TopicState, processed: &[(u64, u64)]| {
            let processed = cut(processed).sequences;
            lost_sequences(&state, &processed, waiting_sequences(&state, &processed).count())
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
    fn acknowledged_frames_that_neither_log_nor_store_has_are_missing() {
        let empty = state(10, 9, &[]);
        assert_eq!(found(&empty, &cut(&[(1, 9)]), 9, &[], true), 0, "all processed");
        assert_eq!(found(&empty, &cut(&[(1, 5), (8, 9)]), 8, &[], true), 20, "two frames of ten events");
        assert_eq!(found(&empty, &cut(&[(1, 7)]), 6, &[], true), 2, "nothing sizes the last two frames");
        assert_eq!(
            found(&state(6, 9, &[8]), &cut(&[(1, 5), (8, 8)]), 9, &[(6, 7), (9, 9)], true),
            0,
            "in flight"
        );
        // The log refused frames 6 and 7, or never confirmed them: it gave no sequence number, and they do not count.
        let mut refused = cut(&[(1, 5), (8, 9)]);
        refused.sequences = [(1, 7)].into_iter().collect();
        assert_eq!(found(&state(8, 7, &[]), &refused, 5, &[], true), 0);
        // The log was restored from an older copy: other frames have their sequence numbers.
        assert_eq!(found(&state(8, 7, &[]), &refused, 8, &[], true), 20);
        // The two may be among the frames that were not read.
        assert_eq!(found(&state(8, 7, &[]), &refused, 8, &[], false), 0);
        // A new log that remembers the acknowledged frames of the one before.
        let mut anew = state(1, 0, &[]);
        anew.acknowledged = HashMap::from([(WRITER, mark(12)), (Uuid::from_u128(3), mark(2))]);
        let mut before = cut(&[(1, 4), (6, 9)]);
        before.sequences = Ranges::default();
        assert_eq!(found(&anew, &before, 11, &[], true), 10 + 30 + 20);
    }

    #[test]
    fn a_million_messages_that_left_out_of_order_leave_two_gaps_whether_they_are_listed_or_not() {
        // Linear work: at quadratic cost this test would run for hours.
        let listed = state(1, 1_000_002, &(2..=1_000_001).collect::<Vec<_>>());
        let unlisted = TopicState { gone: None, ..listed.clone() };
        let processed = cut(&[(2, 1_000_001)]).sequences;
        for state in [listed, unlisted] {
            let waiting = waiting_sequences(&state, &processed);
            assert_eq!(waiting.as_slice(), [(1, 1), (1_000_002, 1_000_002)]);
            assert_eq!(lost_sequences(&state, &processed, waiting.count()), 0);
        }
    }
}
