//! Upkeep of stored data: rollups, summaries and campaigns are compared with the rows and rebuilt, rows are deleted by age,
//! a user is erased, and transactions that stand still are ended.

mod campaigns;
mod clock;
pub mod erase;
mod progress;
mod retention;
mod rollups;
mod stuck;
pub mod verify;
mod windows;

pub use clock::RetentionClock;
