//! Campaigns, by what they earned over all time.

use sea_orm::entity::prelude::*;

/// One campaign, as far as it was folded.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "campaigns")]
pub struct Model {
    /// The campaign's id, as sent.
    #[sea_orm(primary_key, auto_increment = false)]
    pub campaign_id: String,
    /// A word's number.
    #[sea_orm(primary_key, auto_increment = false)]
    pub source: i16,
    /// Events that made revenue.
    pub transactions: i64,
    /// Whole units of revenue.
    pub units: i64,
    /// Millionths beside them, less than one unit.
    pub micros: i64,
    /// 10^18 whole units that do not fit into the units.
    pub high: i64,
    /// The minute since 1970 of the first of them.
    pub first_minute: i32,
    /// The minute of the last.
    pub last_minute: i32,
    /// Whole units of those in the first minute, each rounded down.
    pub first_units: i64,
    /// The same of the last minute.
    pub last_units: i64,
    /// Of how many of them these two are known: where that is not all, they say nothing.
    pub ends_of: i64,
}

/// None.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
