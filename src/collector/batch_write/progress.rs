//! Age of the oldest batch that is not stored.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::store::StoreError;

/// Batches that are being stored.
#[derive(Default)]
struct Began {
    last: u64,
    /// Start of each batch that is not stored yet, by its number.
    open: BTreeMap<u64, Instant>,
    /// Error of the last attempt that failed, until no batch is open.
    last_error: Option<String>,
}

/// Batches that are being stored, shared by the writer and the task that watches it.
#[derive(Clone, Default)]
pub struct Progress(Arc<Mutex<Began>>);

/// A batch that is being stored, until this is dropped.
pub struct Storing(Progress, u64);

impl Progress {
    fn began(&self) -> MutexGuard<'_, Began> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a batch.
    pub fn begin(&self) -> Storing {
        let mut began = self.began();
        began.last += 1;
        let number = began.last;
        began.open.insert(number, Instant::now());
        Storing(self.clone(), number)
    }

    /// Keeps the error of an attempt, for readiness: a full disk and a damaged page are told by it alone.
    pub fn failed(&self, error: &StoreError) {
        self.began().last_error = Some(error.to_string());
    }

    /// Error of the last attempt that failed; `None` if every batch is stored.
    pub fn last_error(&self) -> Option<String> {
        self.began().last_error.clone()
    }

    /// Age of the oldest batch; zero if there is none.
    pub fn oldest(&self) -> Duration {
        self.began().open.first_key_value().map_or(Duration::ZERO, |(_, began)| began.elapsed())
    }
}

impl Drop for Storing {
    fn drop(&mut self) {
        let mut began = self.0.began();
        began.open.remove(&self.1);
        if began.open.is_empty() {
            began.last_error = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_is_told_until_every_batch_is_stored() {
        let progress = Progress::default();
        let (first, second) = (progress.begin(), progress.begin());
        progress.failed(&StoreError::unavailable("the disk is full"));
        progress.failed(&StoreError::unavailable("a page is damaged"));
        drop(first);
        let last = progress.last_error().unwrap();
        assert!(last.contains("a page is damaged"), "{last}");
        drop(second);
        assert_eq!((progress.last_error(), progress.oldest()), (None, Duration::ZERO));
    }
}
