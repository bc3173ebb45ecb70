//! The tables that are read by sea-orm's queries.

pub mod campaigns;
pub mod rollups;
pub mod summaries;
pub mod summary_deltas;
