//! What is written in one transaction, what becomes of it, and what each database does for it.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::error::StoreError;
use super::row::Row;
use crate::event::Source;
use crate::log::DeadLetter;

/// A frame that was decoded.
#[derive(Debug)]
pub struct BatchFrame<'a> {
    /// Its place in the log.
    pub sequence: u64,
    /// The gateway run that wrote it.
    pub writer: Uuid,
    /// The how manieth frame of its writer.
    pub number: u64,
    /// Events of its writer up to and with it.
    pub total: u64,
    /// What is to be stored.
    pub rows: Vec<Row<'a>>,
    /// What cannot be.
    pub set_aside: Vec<DeadLetter>,
    /// Whether no gateway wrote it: what is set aside of it is nothing that the log took as an event.
    pub alien: bool,
}

/// Frames of one source and one log, to be stored in one transaction.
#[derive(Debug)]
pub struct Batch<'a> {
    /// The source.
    pub source: Source,
    /// Which log they come from.
    pub log_id: Uuid,
    /// The frames.
    pub frames: Vec<BatchFrame<'a>>,
}

/// What became of a batch's events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// Rows that are new.
    pub stored: u64,
    /// Events whose key was there already.
    pub duplicates: u64,
    /// Events that were set aside as dead letters.
    pub quarantined: u64,
    /// Frames that had been processed before; their events are in none of the counts.
    pub repeated_frames: u64,
}

/// A count or a place as the databases' integers hold it.
pub(super) fn big(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A transaction of one database, as the writer needs it.
pub(super) trait Write {
    /// Remembers the frames as processed; gives the places that were not processed before.
    async fn claim(&mut self, batch: &Batch<'_>) -> Result<HashSet<u64>, StoreError>;
    /// The highest number of a frame that was processed, of each of the batch's writers in this log.
    async fn highest(&mut self, batch: &Batch<'_>) -> Result<HashMap<Uuid, u64>, StoreError>;
    /// Inserts rows and counts them in the rollups; gives those that were new.
    async fn insert<'r, 'a>(&mut self, rows: &[&'r Row<'a>]) -> Result<Vec<&'r Row<'a>>, StoreError>;
    /// Leaves what new rows add to the summaries, encoded.
    async fn summarize(&mut self, source: Source, events: u64, delta: Vec<u8>) -> Result<(), StoreError>;
    /// Runs a statement without parameters.
    async fn run(&mut self, sql: &'static str) -> Result<(), StoreError>;
    /// Keeps dead letters.
    async fn set_aside(&mut self, letters: &[(Uuid, DeadLetter)]) -> Result<(), StoreError>;
    /// Counts in the ledger.
    async fn count(&mut self, batch: &Batch<'_>, written: &Written) -> Result<(), StoreError>;
    /// Makes it last.
    async fn commit(self) -> Result<(), StoreError>;
}
