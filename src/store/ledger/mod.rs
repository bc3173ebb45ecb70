//! The ledger's side of the store: counts of events, which frames were processed, and the last observation of the log.
//!
//! ```text
//! writer ──▶ ledger_counts (events), ledger_claims (one row a frame), ledger_repeats (redelivered frames)
//!                                        │ fold
//!                                        ▼
//!            ledger_runs (consecutive frames of a writer), ledger_places (consecutive sequence numbers of a log),
//!            ledger_writers, ledger_logs, ledger_totals
//! ```
//!
//! Claims live for a short time; [`crate::store::ledger::fold`] turns them into runs. Readers get both, as runs: their
//! work does not grow with claims that wait above a frame that is stuck. The schema's word for a sequence number is
//! "place".

pub(in crate::store) mod fold;
mod observation;
pub(in crate::store) mod ranges;
mod read;

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use sea_orm::QueryResult;
use uuid::Uuid;

use crate::log::WriterMark;
use crate::store::error::StoreError;
pub use crate::store::ledger::observation::{KnownLog, ObservedLog};
pub use crate::store::ledger::ranges::{Lost, Ranges, Run, Runs};

/// Frames of one writer.
#[derive(Debug, Clone, Default)]
pub struct WriterCut {
    /// Processed frames. For a writer of which no frame can be missing, all frames up to its highest one.
    pub runs: Runs,
    /// The last frame that the log is known to have acknowledged together with all before it.
    pub acked: WriterMark,
}

/// Ledger of one source at one moment.
#[derive(Debug, Clone, Default)]
pub struct LedgerCut {
    /// Events that became rows.
    pub stored: u64,
    /// Events whose key was stored before.
    pub duplicates: u64,
    /// Events that a collector set aside as dead letters.
    pub quarantined: u64,
    /// Sequence numbers of processed frames in the first requested log.
    pub sequences: Ranges,
    /// The same of each further log.
    pub further: HashMap<Uuid, Ranges>,
    /// Number of sequence numbers that were given up: the log no longer had them, and nothing had processed them.
    pub holes: u64,
    /// Events that version 0.1 counted as missing.
    pub lost_before: u64,
    /// Missing frames of writers that have been deleted since.
    pub forgotten: Lost,
    /// Known writers.
    pub writers: HashMap<Uuid, WriterCut>,
    /// Missing events as of the collectors' last reconciliation, if the database is a standby, which may lag behind.
    pub copied_missing: Option<u64>,
}

impl LedgerCut {
    /// Number of events that were stored, were duplicates, or were set aside.
    pub fn processed(&self) -> u64 {
        self.stored + self.duplicates + self.quarantined
    }

    /// Sequence numbers of processed frames in a requested log.
    pub fn sequences_of(&self, log_id: &Uuid) -> &Ranges {
        self.further.get(log_id).unwrap_or(&self.sequences)
    }

    /// Processed frames of a writer.
    pub fn runs_of(&self, writer: &Uuid) -> Runs {
        self.writers.get(writer).map(|cut| cut.runs.clone()).unwrap_or_default()
    }
}

fn column(row: &QueryResult, name: &str) -> Result<u64, StoreError> {
    Ok(row.try_get::<i64>("", name)?.max(0).cast_unsigned())
}

fn mark(row: &QueryResult, number: &str, total: &str) -> Result<WriterMark, StoreError> {
    Ok(WriterMark { number: column(row, number)?, total: column(row, total)? })
}

fn run(row: &QueryResult) -> Result<Run, StoreError> {
    Ok(Run {
        first: column(row, "first_number")?,
        last: column(row, "last_number")?,
        before: column(row, "total_before")?,
        total: column(row, "total")?,
    })
}

/// Seconds since 1970.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
