//! The store of events: PostgreSQL, or SQLite for one process.
//!
//! ```text
//! collector ──Batch──▶ write: one transaction { frames, rows, rollups, delta, dead letters, ledger } ──▶ tables
//!                              summary: deltas ──fold──▶ summaries of hours, and of wider spans ──────────┤
//! reporter  ◀── report, ledger, dead_letters, locate ─────────────────────────────────────────────────────┘
//! ```
//!
//! The schema is the `migration` crate's. [`Store::write`] is the only way in: each event is stored exactly once, by
//! its key, and each frame is processed exactly once, by its writer and number. Reports never scan events: rollups have
//! the counts and the revenue, summaries the users. [`maintain`] compares both with the events and rebuilds them,
//! deletes events by age, and erases a user.
//!
//! SQL is run by sea-orm's entities and query builder, or as text by `sql`. Only `write` uses sqlx directly.

mod cancel;
mod connect;
mod dead_letters;
mod dialect;
mod dictionary;
mod entity;
mod error;
mod health;
mod last_read;
pub mod ledger;
mod locate;
mod locks;
pub mod maintain;
mod migrate;
mod money;
mod poison;
pub mod report;
mod session;
mod sql;
mod sqlite_file;
mod summary;
mod test_sql;
mod transaction;
mod write;

pub use connect::{Purpose, SQLITE_FILE, Store};
pub use dead_letters::{DeadLetterFilter, LetterSize, ListedLetter, ReadOnly, Retention, StoredLetter};
pub use error::StoreError;
pub use locate::{Location, Locations};
pub use maintain::RetentionClock;
pub use poison::{LogPosition, PoisonSearch};
pub use summary::DamagedDelta;
pub use write::batch::{Batch, BatchFrame, Written};
pub use write::isolate::WriteProgress;
pub use write::row::Row;
