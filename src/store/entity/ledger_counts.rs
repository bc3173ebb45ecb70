//! What became of the events of a log's frames.

use sea_orm::entity::prelude::*;

/// The counts of one shard.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "ledger_counts")]
pub struct Model {
    /// A word's number.
    #[sea_orm(primary_key, auto_increment = false)]
    pub source: i16,
    /// Which log.
    #[sea_orm(primary_key, auto_increment = false)]
    pub log_id: Uuid,
    /// Which of the writers that run at the same time.
    #[sea_orm(primary_key, auto_increment = false)]
    pub shard: i16,
    /// Events that became rows.
    pub stored: i64,
    /// Events whose key was there already.
    pub duplicates: i64,
    /// Events that a collector set aside.
    pub quarantined: i64,
}

/// None.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
