//! What spans of hours add up to.

use sea_orm::entity::prelude::*;

/// A span of 4^level hours of one source.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "summaries")]
pub struct Model {
    /// A word's number.
    #[sea_orm(primary_key, auto_increment = false)]
    pub source: i16,
    /// 0 for an hour.
    #[sea_orm(primary_key, auto_increment = false)]
    pub level: i16,
    /// So many spans of the level since 1970.
    #[sea_orm(primary_key, auto_increment = false)]
    pub at: i32,
    /// Another one whenever the body is another one.
    pub version: i64,
    /// Whether what is beneath it has to be asked instead.
    pub stale: bool,
    /// When something beneath it changed last, in microseconds since 1970.
    pub touched_at: i64,
    /// The encoded summary; null if it is stale.
    pub body: Option<Vec<u8>>,
    /// Whether the body tells campaigns; null where that is not known.
    pub campaigns: Option<bool>,
}

/// None.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
