//! The write path: a batch of frames becomes rows, rollups, a delta of the summaries, dead letters and ledger entries,
//! in one transaction.
//!
//! ```text
//! Batch ──transaction──▶ claim frames ─▶ insert rows ─▶ add to rollups ─▶ insert delta ─▶ insert letters ─▶ count ─▶ commit
//!                          │ postgres: COPY and arrays (strategy, pg_copy)      isolate: finds refused rows
//!                          └ sqlite: one writer, row values
//! ```
//!
//! Both implementations of [`batch::Write`] speak to sqlx directly, not through sea-orm: COPY, arrays and borrowed
//! texts are what this path's measured cost rests on.

pub(super) mod batch;
pub(super) mod counts;
pub(super) mod isolate;
mod letters;
mod pg_copy;
mod postgres;
pub(super) mod row;
#[cfg(test)]
mod samples;
mod sqlite;
pub(super) mod strategy;
mod summarized_row;
mod transaction;

/// Inserts a delta of the summaries; its parameters are source, number of events, currency and encoded body.
const INSERT_DELTA: &str =
    "INSERT INTO summary_deltas (source, events, currency, body) VALUES ($1, $2, $3, $4)";
