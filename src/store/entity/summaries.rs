//! Summaries of spans of hours.

use sea_orm::entity::prelude::*;

/// Summary of 4^level hours of one source.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "summaries")]
pub struct Model {
    /// Code of the source.
    #[sea_orm(primary_key, auto_increment = false)]
    pub source: i16,
    /// Level; 0 for an hour.
    #[sea_orm(primary_key, auto_increment = false)]
    pub level: i16,
    /// Number of spans of the level since 1970.
    #[sea_orm(primary_key, auto_increment = false)]
    pub at: i32,
    /// Random number that changes with the body; caches compare it.
    pub version: i64,
    /// True if readers have to use the level below, or the rows at level 0.
    pub stale: bool,
    /// Instant of the last change below, in microseconds since 1970.
    pub touched_at: i64,
    /// Encoded summary; null if stale.
    pub body: Option<Vec<u8>>,
    /// True if the body lists campaigns; null if unknown.
    pub campaigns: Option<bool>,
    /// Number of the currency of all campaigns in the body; without meaning if the body has none, or names theirs.
    pub currency: i16,
}

/// No relations.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
