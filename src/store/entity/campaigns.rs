//! Campaigns with their revenue over all time.

use sea_orm::entity::prelude::*;

/// One campaign. Deltas that are not folded yet are not included.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "campaigns")]
pub struct Model {
    /// Id of the campaign, as sent.
    #[sea_orm(primary_key, auto_increment = false)]
    pub campaign_id: String,
    /// Code of the source.
    #[sea_orm(primary_key, auto_increment = false)]
    pub source: i16,
    /// Number of the currency in ISO 4217.
    #[sea_orm(primary_key, auto_increment = false)]
    pub currency: i16,
    /// Events with revenue.
    pub transactions: i64,
    /// Whole units of revenue.
    pub units: i64,
    /// Millionths of revenue beside the units; less than one unit.
    pub micros: i64,
    /// Units of 10^18 that exceed `units`.
    pub high: i64,
    /// Minute of the first of these events, since 1970.
    pub first_minute: i32,
    /// Minute of the last of these events, since 1970.
    pub last_minute: i32,
    /// Sum of whole units in the first minute, each sale rounded down.
    #[sea_orm(column_name = "first_units")]
    pub first_minute_units: i64,
    /// Sum of whole units in the last minute, each sale rounded down.
    #[sea_orm(column_name = "last_units")]
    pub last_minute_units: i64,
    /// Number of events that the sums of the first and the last minute take into account. Unless it equals
    /// `transactions`, both sums are ignored.
    #[sea_orm(column_name = "ends_of")]
    pub edge_transactions: i64,
}

/// No relations.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
