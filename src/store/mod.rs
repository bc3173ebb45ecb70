//! Where events rest: PostgreSQL, or SQLite for one process.
//!
//! ```text
//! collector ──Batch──▶ write: one transaction { frames, rows + rollup, dead letters, ledger } ──▶ tables
//! reporter  ◀── report, ledger, dead letters ──────────────────────────────────────────────────────┘
//! ```
//!
//! The schema is the `migration` crate's. [`Store::write`] is the one way in: exactly once, by the key of each event,
//! and by writer and number of each frame. Reports read what is kept for them: rollups for events and revenue,
//! `summary` for users. [`maintain`] verifies and rebuilds both, lets rows go by age, and erases a user.

mod cancel;
mod connect;
mod dead_letters;
mod dialect;
mod entity;
mod error;
pub mod ledger;
mod locate;
mod locks;
pub mod maintain;
mod money;
mod poison;
pub mod report;
mod session;
mod sql;
mod summary;
mod transaction;
mod write;

pub use connect::{Purpose, SQLITE_FILE, Store};
pub use dead_letters::{DeadLetterFilter, ListedLetter, Retention, StoredLetter};
pub use error::StoreError;
pub use locate::{Location, Locations};
pub use maintain::retention::RetentionClock;
pub use poison::{LogPosition, PoisonSearch};
pub use summary::DamagedDelta;
pub use transaction::Connections;
pub use write::batch::{Batch, BatchFrame, Written};
pub use write::row::Row;
pub use write::transaction::WriteProgress;
