//! Upkeep of what is stored: rollups and summaries held against rows, rows that leave by age, erasure of a user,
//! and transactions that stand still.

pub mod erase;
pub(super) mod retention;
pub(super) mod stuck;
pub mod verify;
