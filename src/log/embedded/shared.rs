//! State of the embedded log that its handle, its pulls and its writing thread share.

use std::error::Error;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, TryLockError};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use redb::{Database, ReadableDatabase};
use tokio::sync::Notify;
use uuid::Uuid;

use super::file::{FRAMES, PREFIX, Queues};
use super::queue::Queue;
use crate::config::LogSettings;
use crate::log::marks::Marks;
use crate::log::{Cause, LogError, Topic};

/// A file whose presence asks for the log's file to be written anew, without deleted frames.
pub const FORGET_FILE: &str = "forget.pending";
/// State of the log, for its handle, its pulls and its writing thread.
pub(super) struct Shared {
    pub(super) file: PathBuf,
    /// `None` while the file is opened again.
    pub(super) database: RwLock<Option<Database>>,
    pub(super) log_id: Uuid,
    /// Number of this open of the file.
    pub(super) opens: u64,
    pub(super) settings: LogSettings,
    pub(super) queues: Queues,
    pub(super) marks: Mutex<Marks>,
    /// Error of the last write, while the file cannot be written.
    pub(super) failed: Mutex<Option<String>>,
}

pub(super) fn away(cause: impl Into<Box<dyn Error + Send + Sync>>) -> LogError {
    LogError::Unavailable(Cause::of(cause))
}

pub(in crate::log) fn now_micros() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

impl Shared {
    pub(super) fn queue(&self, topic: Topic) -> (MutexGuard<'_, Queue>, &Notify) {
        let (queue, notify) = self.queues.of(topic);
        (queue.lock().unwrap_or_else(PoisonError::into_inner), notify)
    }

    pub(super) fn marks(&self) -> MutexGuard<'_, Marks> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Error of the last write, while the file cannot be written.
    pub(super) fn why_failed(&self) -> Option<String> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_failed(&self, why: Option<String>) {
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    pub(super) fn read(&self, topic: Topic, sequence: u64) -> Result<Option<Bytes>, LogError> {
        // Opening a file takes time; callers get an error instead of waiting.
        let database = match self.database.try_read() {
            Ok(database) => database,
            Err(TryLockError::Poisoned(database)) => database.into_inner(),
            Err(TryLockError::WouldBlock) => return Err(away("its file is being opened again")),
        };
        let database = database.as_ref().ok_or_else(|| away("its file is being opened again"))?;
        let read = database.begin_read().map_err(away)?;
        let frames = read.open_table(FRAMES).map_err(away)?;
        let value = frames.get((topic.to_string().as_str(), sequence)).map_err(away)?;
        Ok(value.and_then(|value| value.value().get(PREFIX..).map(Bytes::copy_from_slice)))
    }

    /// True if an earlier process appended the frame.
    pub(super) fn is_inherited(&self, topic: Topic, sequence: u64) -> bool {
        self.queue(topic).0.held.get(&sequence).is_some_and(|held| held.inherited)
    }
}
