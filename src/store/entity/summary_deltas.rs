//! Deltas of summaries that are not folded yet.

use sea_orm::entity::prelude::*;

/// Delta of one transaction, or one part of several.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "summary_deltas")]
pub struct Model {
    /// Id, ascending in the order of insertion.
    #[sea_orm(primary_key)]
    pub id: i64,
    /// Code of the source.
    pub source: i16,
    /// Number of events in it.
    pub events: i64,
    /// Chunk of 64 hours since 1970 that contains all its hours; null for a delta as a transaction inserted it.
    pub chunk: Option<i32>,
    /// Number of the currency of all amounts in the body; without meaning if the body has none, or names theirs.
    pub currency: i16,
    /// Encoded delta.
    pub body: Vec<u8>,
}

/// No relations.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
