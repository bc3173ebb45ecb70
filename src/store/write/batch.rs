//! The batch that one transaction stores, its outcome, and the operations that a database provides for it.

use std::collections::HashSet;

use uuid::Uuid;

use crate::event::Source;
use crate::log::{DeadLetter, WriterMark};
use crate::money::Currency;
use crate::store::error::StoreError;
use crate::store::summary::Encoded;
use crate::store::write::row::Row;

/// A decoded frame.
#[derive(Debug)]
pub struct BatchFrame<'a> {
    /// Sequence number in the log.
    pub sequence: u64,
    /// Writer of the frame: one run of one gateway. For a message that is no frame, a hash of its bytes.
    pub writer: Uuid,
    /// Frame number within its writer, starting at 1. Writer and number are the frame's identity.
    pub number: u64,
    /// Number of events of its writer, up to and including this frame.
    pub total: u64,
    /// Last of the writer's frames that the log had acknowledged, together with all before it, when this one was
    /// written.
    pub acknowledged: WriterMark,
    /// Events to be stored.
    pub rows: Vec<Row<'a>>,
    /// Events of the frame that cannot be stored; they become dead letters.
    pub set_aside: Vec<DeadLetter>,
    /// True if the message is no frame of a gateway. The ledger counts no event for its dead letter, since the gateway
    /// counted none as published.
    pub unreadable: bool,
}

impl BatchFrame<'_> {
    /// Identity of the frame: its writer, and its number within that.
    pub(in crate::store) fn identity(&self) -> (Uuid, u64) {
        (self.writer, self.number)
    }

    /// Number of events in the frame; 0 for a message that is no frame.
    pub(in crate::store) fn events(&self) -> u64 {
        if self.unreadable { 0 } else { (self.rows.len() + self.set_aside.len()) as u64 }
    }
}

/// Frames of one source and one log, to be stored in one transaction.
#[derive(Debug)]
pub struct Batch<'a> {
    /// Source of the frames.
    pub source: Source,
    /// Identity of the log that holds them.
    pub log_id: Uuid,
    /// The frames.
    pub frames: Vec<BatchFrame<'a>>,
}

impl Batch<'_> {
    /// Gives amounts that tell no currency one.
    pub fn set_currency(&mut self, currency: Currency) {
        for row in self.frames.iter_mut().flat_map(|frame| &mut frame.rows) {
            row.event.columns.currency.get_or_insert(currency);
        }
    }
}

/// Outcome of a batch, in events except where it says frames.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// New rows.
    pub stored: u64,
    /// Events whose key was stored before.
    pub duplicates: u64,
    /// Events that became dead letters.
    pub quarantined: u64,
    /// Frames that had been processed before; their events are in none of the other counts.
    pub repeated_frames: u64,
}

/// A count or a sequence number as the databases' 64-bit integers hold it.
pub(in crate::store) fn big(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A transaction of one database, with the operations of the writer. See [`super::transaction`] for their order.
pub(in crate::store) trait Write {
    /// Records the frames as processed; gives the identities of those that were not processed before.
    async fn claim(&mut self, batch: &Batch<'_>) -> Result<HashSet<(Uuid, u64)>, StoreError>;
    /// Records the sequence numbers of frames that were processed before.
    async fn repeat(&mut self, batch: &Batch<'_>, frames: &[&BatchFrame<'_>]) -> Result<(), StoreError>;
    /// Inserts rows and adds the new ones to the rollups; gives the new ones.
    async fn insert<'r, 'a>(&mut self, rows: &[&'r Row<'a>]) -> Result<Vec<&'r Row<'a>>, StoreError>;
    /// Inserts the encoded delta of new rows, to be folded into the summaries later.
    async fn summarize(&mut self, source: Source, events: u64, delta: Encoded) -> Result<(), StoreError>;
    /// Runs a statement without parameters.
    async fn run(&mut self, sql: &'static str) -> Result<(), StoreError>;
    /// Inserts dead letters.
    async fn set_aside(&mut self, letters: &[(Uuid, DeadLetter)]) -> Result<(), StoreError>;
    /// Adds claimed frames to the ledger's counts; the last statement. A frame that turns out to have been processed
    /// before is a [`StoreError::Conflict`].
    async fn count(
        &mut self,
        batch: &Batch<'_>,
        frames: &[&BatchFrame<'_>],
        written: &Written,
    ) -> Result<(), StoreError>;
    /// Rolls back and returns the connection to its pool.
    async fn roll_back(self) -> Result<(), StoreError>;
    /// Commits.
    async fn commit(self) -> Result<(), StoreError>;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Refusal;
    use crate::log::Reason;
    use crate::store::write::samples::{origin, row, view};

    #[test]
    fn a_message_that_is_no_frame_holds_no_events() {
        let (origin, text) = (origin(), view("fb-1", "u"));
        let letter = DeadLetter::new(5, "c", Reason::UnreadableFrame, b"{}", Refusal::default());
        let frame = |unreadable| BatchFrame {
            sequence: 1,
            writer: Uuid::nil(),
            number: 7,
            total: 9,
            acknowledged: WriterMark::default(),
            rows: vec![],
            set_aside: vec![letter.clone()],
            unreadable,
        };
        let mut full = frame(false);
        full.rows.push(row(&text, &origin));
        assert_eq!((full.events(), frame(false).events(), frame(true).events()), (2, 1, 0));
        assert_eq!(full.identity(), (Uuid::nil(), 7));
    }

    #[test]
    fn numbers_beyond_the_databases_range_stop_at_its_end() {
        assert_eq!((big(0), big(7), big(u64::MAX)), (0, 7, i64::MAX));
    }
}
