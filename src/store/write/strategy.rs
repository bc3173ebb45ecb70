//! The way in which rows go into PostgreSQL: by what batches met before.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// The way in which rows are inserted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Way {
    /// Copy them: half the work, but one that is there already ends the transaction, and its connection.
    Copy,
    /// Look which are there already, and copy the others: whoever inserts one of them at the same moment ends
    /// the transaction.
    Look,
    /// Row by row, whatever else happens.
    Insert,
}

/// Batches after one that had duplicates that look for them before they copy.
const WARY: u32 = 64;

/// How many of the next batches look first which of their rows are stored already.
#[derive(Debug, Clone, Default)]
pub(in crate::store) struct Wary(Arc<AtomicU32>);

impl Wary {
    /// The way in which a batch is tried first.
    pub fn way(&self) -> Way {
        if self.0.load(Ordering::Relaxed) > 0 { Way::Look } else { Way::Copy }
    }

    /// A row was there already.
    pub fn met(&self) {
        self.0.store(WARY, Ordering::Relaxed);
    }

    /// A batch looked, and all of its rows were new.
    pub fn met_none(&self) {
        // Two that end at once may count as one.
        let left = self.0.load(Ordering::Relaxed);
        let _ = self.0.compare_exchange(left, left.saturating_sub(1), Ordering::Relaxed, Ordering::Relaxed);
    }
}
