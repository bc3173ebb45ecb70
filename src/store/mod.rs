//! Where events rest: PostgreSQL, or SQLite for one process.
//!
//! ```text
//! collector ──Batch──▶ writer: one transaction { frames, rows + rollup, dead letters, ledger } ──▶ tables
//! reporter  ◀── report, ledger, dead letters ──────────────────────────────────────────────────────┘
//! ```
//!
//! The schema is the `migration` crate's. [`Store::write`] is the one way in: exactly once, by the key
//! of each event, and by writer and number of each frame. What reads is in [`report`] and [`ledger`].
//! Reports read what is kept for them: [`rollup`] for events and revenue, [`summary`] for users.

mod audience;
mod batch;
mod campaigns;
mod connect;
mod copy;
mod dead_letters;
mod dialect;
pub mod entity;
mod error;
pub mod forget;
pub mod ledger;
mod ledger_fold;
mod letters;
mod postgres;
mod ranges;
mod ranking;
pub mod rebuild;
pub mod report;
mod retention;
mod rollup;
mod row;
mod session;
mod sqlite;
mod stop;
mod stuck;
pub mod summary;
mod suspects;
mod trace;
mod transaction;
mod way;
mod writer;

pub use batch::{Batch, BatchFrame, Written};
pub use connect::{Purpose, SQLITE_FILE, Store};
pub use dead_letters::{DeadLetterFilter, ListedLetter, Retention, StoredLetter};
pub use error::StoreError;
pub use retention::RetentionClock;
pub use row::Row;
pub use suspects::{FramePlace, Search};
pub use trace::{Place, Trace};
pub use transaction::Connections;
pub use writer::WriteProgress;
