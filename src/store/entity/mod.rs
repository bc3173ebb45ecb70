//! The tables that are read by sea-orm's queries.

pub mod event_rollup;
pub mod ledger_counts;
pub mod ledger_writers;
