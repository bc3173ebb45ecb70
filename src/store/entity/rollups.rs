//! Counts of events and revenue by span, source and event type.

use sea_orm::entity::prelude::*;

/// One event type over one span, as one shard counted it.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "rollups")]
pub struct Model {
    /// Width of the span, in minutes.
    #[sea_orm(primary_key, auto_increment = false)]
    pub minutes: i16,
    /// Number of spans of that width since 1970.
    #[sea_orm(primary_key, auto_increment = false)]
    pub at: i32,
    /// Code of the event type.
    #[sea_orm(primary_key, auto_increment = false)]
    pub event_type: i16,
    /// Shard: writers at the same time add to different ones.
    #[sea_orm(primary_key, auto_increment = false)]
    pub shard: i16,
    /// Number of the currency in ISO 4217.
    #[sea_orm(primary_key, auto_increment = false)]
    pub currency: i16,
    /// Code of the source.
    pub source: i16,
    /// Code of the funnel stage.
    pub funnel_stage: i16,
    /// Events.
    pub events: i64,
    /// Events with revenue.
    pub transactions: i64,
    /// Revenue: sum of whole units.
    pub revenue_units: i64,
    /// Revenue: sum of the millionths beside the whole units.
    pub revenue_micros: i64,
    /// Revenue: units of 10^18 that exceed `revenue_units`.
    pub revenue_high: i64,
}

/// No relations.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
