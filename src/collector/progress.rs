//! Time for which batches have been waiting for the database.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

#[derive(Default)]
struct Began {
    last: u64,
    /// When each batch that is not stored yet was tried first.
    open: BTreeMap<u64, Instant>,
}

/// The batches that are being stored.
#[derive(Clone, Default)]
pub(super) struct Progress(Arc<Mutex<Began>>);

/// A batch that is being stored, until this is dropped.
pub(super) struct Storing(Progress, u64);

impl Progress {
    fn began(&self) -> MutexGuard<'_, Began> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another batch.
    pub fn begin(&self) -> Storing {
        let mut began = self.began();
        began.last += 1;
        let number = began.last;
        began.open.insert(number, Instant::now());
        Storing(self.clone(), number)
    }

    /// Time for which the batch that began first has been tried.
    pub fn oldest(&self) -> Duration {
        self.began().open.first_key_value().map_or(Duration::ZERO, |(_, began)| began.elapsed())
    }
}

impl Drop for Storing {
    fn drop(&mut self) {
        self.0.began().open.remove(&self.1);
    }
}
