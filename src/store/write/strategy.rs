//! Strategies of inserting rows into PostgreSQL, chosen by how many duplicates the last batches had.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Way of inserting the rows of a batch, in the order in which they are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum InsertStrategy {
    /// COPY all rows: half the work of an upsert, but one row that is stored already fails the transaction.
    Copy,
    /// Select the keys that are stored already and COPY the other rows. A row that another transaction inserts in
    /// between fails the transaction.
    ProbeThenCopy,
    /// INSERT … ON CONFLICT DO NOTHING: never fails because of a duplicate.
    Upsert,
}

impl InsertStrategy {
    /// The strategy after a conflict.
    pub fn next(self) -> Self {
        match self {
            Self::Copy => Self::ProbeThenCopy,
            Self::ProbeThenCopy | Self::Upsert => Self::Upsert,
        }
    }
}

/// Number of batches that are probed after one that had duplicates: redeliveries come in bursts.
const PROBED_BATCHES: u32 = 64;

/// Number of the next batches that are probed for duplicates before they are copied; shared by all writers of a store.
#[derive(Debug, Clone, Default)]
pub(in crate::store) struct DuplicateBackoff(Arc<AtomicU32>);

impl DuplicateBackoff {
    /// The first strategy for a batch.
    pub fn strategy(&self) -> InsertStrategy {
        if self.0.load(Ordering::Relaxed) > 0 { InsertStrategy::ProbeThenCopy } else { InsertStrategy::Copy }
    }

    /// Records that a batch had rows that were stored already.
    pub fn found_duplicates(&self) {
        self.0.store(PROBED_BATCHES, Ordering::Relaxed);
    }

    /// Records that a batch was probed and had no duplicates.
    pub fn found_none(&self) {
        // Of two batches that end at once, one may go uncounted: one more batch is probed.
        let left = self.0.load(Ordering::Relaxed);
        let _ = self.0.compare_exchange(left, left.saturating_sub(1), Ordering::Relaxed, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_probed_until_sixty_four_in_a_row_had_no_duplicates() {
        let backoff = DuplicateBackoff::default();
        assert_eq!(backoff.strategy(), InsertStrategy::Copy);
        backoff.found_none();
        assert_eq!(backoff.strategy(), InsertStrategy::Copy, "nothing below zero");
        backoff.found_duplicates();
        for batch in 0..PROBED_BATCHES / 2 {
            assert_eq!(backoff.strategy(), InsertStrategy::ProbeThenCopy, "{batch}");
            backoff.found_none();
        }
        backoff.clone().found_duplicates();
        for batch in 0..PROBED_BATCHES {
            assert_eq!(backoff.strategy(), InsertStrategy::ProbeThenCopy, "{batch}");
            backoff.found_none();
        }
        assert_eq!(backoff.strategy(), InsertStrategy::Copy);
    }

    #[test]
    fn a_conflict_leads_to_an_upsert_within_two_steps() {
        assert_eq!(InsertStrategy::Copy.next(), InsertStrategy::ProbeThenCopy);
        assert_eq!(InsertStrategy::Copy.next().next(), InsertStrategy::Upsert);
        assert_eq!(InsertStrategy::Upsert.next(), InsertStrategy::Upsert);
    }
}
