//! Events and revenue by span, source and type.

use sea_orm::entity::prelude::*;

/// One type of event over one span, as one shard counted it.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "rollups")]
pub struct Model {
    /// The span's width.
    #[sea_orm(primary_key, auto_increment = false)]
    pub minutes: i16,
    /// So many spans of that width since 1970.
    #[sea_orm(primary_key, auto_increment = false)]
    pub at: i32,
    /// A word's number.
    #[sea_orm(primary_key, auto_increment = false)]
    pub event_type: i16,
    /// Which of the writers that run at the same time.
    #[sea_orm(primary_key, auto_increment = false)]
    pub shard: i16,
    /// A word's number.
    pub source: i16,
    /// A word's number.
    pub funnel_stage: i16,
    /// Events.
    pub events: i64,
    /// Events that made revenue.
    pub transactions: i64,
    /// Revenue: the sum of whole units.
    pub revenue_units: i64,
    /// Revenue: the sum of the millionths beside the whole units.
    pub revenue_micros: i64,
    /// Revenue: 10^18 whole units that do not fit into the units.
    pub revenue_high: i64,
}

/// None.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
