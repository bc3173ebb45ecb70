//! Entities of the tables that sea-orm's query builder reads and writes.

pub mod campaigns;
pub mod rollups;
pub mod summaries;
pub mod summary_deltas;
