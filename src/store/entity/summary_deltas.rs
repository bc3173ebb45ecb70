//! What transactions added that was not folded yet.

use sea_orm::entity::prelude::*;

/// One transaction of rows.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "summary_deltas")]
pub struct Model {
    /// Its place.
    #[sea_orm(primary_key)]
    pub id: i64,
    /// A word's number.
    pub source: i16,
    /// Rows that it added.
    pub events: i64,
    /// Chunk of 64 hours since 1970 that all its hours are in; null for what one transaction left.
    pub chunk: Option<i32>,
    /// The encoded delta.
    pub body: Vec<u8>,
}

/// None.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
