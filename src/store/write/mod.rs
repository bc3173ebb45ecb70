//! The one way in: a batch of frames becomes rows, rollups, deltas of summaries and the ledger, in one transaction.

pub(super) mod batch;
pub(super) mod counts;
pub(super) mod pg_copy;
pub(super) mod postgres;
pub(super) mod row;
pub(super) mod sqlite;
pub(super) mod strategy;
pub(super) mod transaction;
