//! What is written in one transaction, what becomes of it, and what each database does for it.

use std::collections::HashSet;

use uuid::Uuid;

use crate::event::Source;
use crate::log::{DeadLetter, WriterMark};
use crate::store::error::StoreError;
use crate::store::write::row::Row;

/// A frame that was decoded.
#[derive(Debug)]
pub struct BatchFrame<'a> {
    /// Its place in the log.
    pub sequence: u64,
    /// The run of a gateway that wrote it; of what is no frame, a hash of the message.
    pub writer: Uuid,
    /// Frame number within its writer, starting at 1. Writer and number are the frame's identity.
    pub number: u64,
    /// Events of its writer up to and with it.
    pub total: u64,
    /// Frames of its writer that the log had acknowledged when it was written, all from the first one on.
    pub acknowledged: WriterMark,
    /// What is to be stored.
    pub rows: Vec<Row<'a>>,
    /// What cannot be.
    pub set_aside: Vec<DeadLetter>,
    /// Whether no gateway wrote it: what is set aside of it is nothing that the log took as an event.
    pub alien: bool,
}

impl BatchFrame<'_> {
    /// The frame's identity: its writer, and its number within that.
    pub(in crate::store) fn identity(&self) -> (Uuid, u64) {
        (self.writer, self.number)
    }

    /// Number of events in the frame. What is no frame holds none.
    pub(in crate::store) fn events(&self) -> u64 {
        if self.alien { 0 } else { (self.rows.len() + self.set_aside.len()) as u64 }
    }
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
pub(in crate::store) fn big(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A transaction of one database, as the writer needs it.
pub(in crate::store) trait Write {
    /// Remembers the frames as processed; gives the identities of those that were not processed before.
    async fn claim(&mut self, batch: &Batch<'_>) -> Result<HashSet<(Uuid, u64)>, StoreError>;
    /// Remembers the places of frames that were processed before.
    async fn repeat(&mut self, batch: &Batch<'_>, frames: &[&BatchFrame<'_>]) -> Result<(), StoreError>;
    /// Inserts rows and counts them in the rollups; gives those that were new.
    async fn insert<'r, 'a>(&mut self, rows: &[&'r Row<'a>]) -> Result<Vec<&'r Row<'a>>, StoreError>;
    /// Leaves what new rows add to the summaries, encoded.
    async fn summarize(&mut self, source: Source, events: u64, delta: Vec<u8>) -> Result<(), StoreError>;
    /// Runs a statement without parameters.
    async fn run(&mut self, sql: &'static str) -> Result<(), StoreError>;
    /// Keeps dead letters.
    async fn set_aside(&mut self, letters: &[(Uuid, DeadLetter)]) -> Result<(), StoreError>;
    /// Counts claimed frames in the ledger, as the last statement. The error is a conflict if one of them turns out to
    /// have been processed before.
    async fn count(
        &mut self,
        batch: &Batch<'_>,
        frames: &[&BatchFrame<'_>],
        written: &Written,
    ) -> Result<(), StoreError>;
    /// Takes it back, and gives the connection on.
    async fn roll_back(self) -> Result<(), StoreError>;
    /// Makes it last.
    async fn commit(self) -> Result<(), StoreError>;
}
