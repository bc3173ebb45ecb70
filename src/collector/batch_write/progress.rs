//! Age of the oldest batch that is not stored.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Batches that are being stored.
#[derive(Default)]
struct Began {
    last: u64,
    /// Start of each batch that is not stored yet, by its number.
    open: BTreeMap<u64, Instant>,
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

    /// Age of the oldest batch; zero if there is none.
    pub fn oldest(&self) -> Duration {
        self.began().open.first_key_value().map_or(Duration::ZERO, |(_, began)| began.elapsed())
    }
}

impl Drop for Storing {
    fn drop(&mut self) {
        self.0.began().open.remove(&self.1);
    }
}
