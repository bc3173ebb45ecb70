//! Selection of the deltas that one transaction folds.

use sea_orm::FromQueryResult;

/// Pending deltas that are looked at.
pub(super) const PENDING_READ: usize = 512;
/// Deltas of one transaction, unless they are of chunks.
const DELTAS_MAX: usize = 32;
/// Events of one transaction, unless a single delta has more.
const EVENTS_MAX: u64 = 150_000;
/// Chunks of one transaction, while they have at most `FEW_EVENTS` events together.
const CHUNKS_MAX: usize = 8;
const FEW_EVENTS: u64 = 20_000;

/// A delta that is not folded yet, without its body.
#[derive(Debug, Clone, Copy, FromQueryResult)]
pub(super) struct PendingDelta {
    pub(super) id: i64,
    pub(super) events: i64,
    /// The chunk that all its hours are in; `None` for the delta of one transaction of rows.
    pub(super) chunk: Option<i32>,
}

/// Selects deltas for one transaction, of those in the order of chunk and id: whole chunks where possible, so that
/// the spans around their hours are summed up once.
pub(super) fn select(pending: &[PendingDelta]) -> &[PendingDelta] {
    let (mut events, mut chunks) = (0, 0);
    let mut selected: &[PendingDelta] = &[];
    for same in pending.chunk_by(|left, right| left.chunk == right.chunk) {
        let of_chunk = same.iter().map(|delta| delta.events.unsigned_abs()).sum::<u64>();
        let is_chunk = same.iter().all(|delta| delta.chunk.is_some());
        if selected.is_empty() && !(is_chunk && of_chunk <= EVENTS_MAX) {
            let fits = |delta: &&PendingDelta| {
                events += delta.events.unsigned_abs();
                events <= EVENTS_MAX
            };
            let count = same.iter().take(DELTAS_MAX).take_while(fits).count();
            return &pending[..count.max(1)];
        }
        events += of_chunk;
        chunks += 1;
        if !selected.is_empty() && (events > FEW_EVENTS || chunks > CHUNKS_MAX) {
            break;
        }
        selected = &pending[..selected.len() + same.len()];
    }
    selected
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selected(deltas: &[(Option<i32>, i64)]) -> usize {
        let pending: Vec<_> = (1..)
            .zip(deltas)
            .map(|(id, (chunk, events))| PendingDelta { id, events: *events, chunk: *chunk })
            .collect();
        select(&pending).len()
    }

    #[test]
    fn deltas_of_transactions_are_folded_up_to_a_number_and_to_their_events() {
        assert_eq!(selected(&[]), 0);
        assert_eq!(selected(&[(None, 10); 100]), DELTAS_MAX);
        assert_eq!(selected(&[(None, 60_000); 5]), 2);
        assert_eq!(selected(&[(None, 1_000_000), (None, 1)]), 1, "one is always folded");
        assert_eq!(selected(&[(None, 1), (Some(3), 1)]), 1, "a chunk waits for the next transaction");
    }

    #[test]
    fn whole_chunks_are_folded_while_they_have_few_events() {
        let small = |chunk| (Some(chunk), 100);
        assert_eq!(selected(&[small(1), small(1), small(2)]), 3);
        assert_eq!(selected(&(0..20).map(small).collect::<Vec<_>>()), CHUNKS_MAX);
        assert_eq!(
            selected(&[(Some(1), 50_000), (Some(1), 50_000), small(2)]),
            2,
            "one chunk of many events"
        );
        assert_eq!(selected(&[(Some(1), 15_000), (Some(2), 6_000)]), 1);
        assert_eq!(
            selected(&[(Some(1), 100_000), (Some(1), 100_000)]),
            1,
            "a chunk of too many events is split"
        );
    }
}
