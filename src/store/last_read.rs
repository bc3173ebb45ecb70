//! How far a store has read the dictionary.

use std::sync::Arc;
use std::sync::atomic::{AtomicI16, Ordering};

/// Number of the last name that a store has read.
#[derive(Debug, Clone, Default)]
pub(in crate::store) struct LastRead(Arc<AtomicI16>);

impl LastRead {
    /// The number; 0 if none was read.
    pub fn get(&self) -> i16 {
        self.0.load(Ordering::Relaxed)
    }

    /// Notes that all names up to this one were read.
    pub fn reach(&self, code: i16) {
        self.0.fetch_max(code, Ordering::Relaxed);
    }
}
