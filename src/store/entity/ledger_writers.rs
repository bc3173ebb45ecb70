//! How far each run of a gateway was seen to have written.

use sea_orm::entity::prelude::*;

/// The highest frame of a writer that one shard has seen.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "ledger_writers")]
pub struct Model {
    /// A word's number.
    #[sea_orm(primary_key, auto_increment = false)]
    pub source: i16,
    /// Which log.
    #[sea_orm(primary_key, auto_increment = false)]
    pub log_id: Uuid,
    /// The run of a gateway.
    #[sea_orm(primary_key, auto_increment = false)]
    pub writer: Uuid,
    /// Which of the store's writers that run at the same time.
    #[sea_orm(primary_key, auto_increment = false)]
    pub shard: i16,
    /// The highest number of a frame.
    pub number: i64,
    /// The most events.
    pub total: i64,
}

/// None.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
