//! `damaged_summaries`: summaries and deltas that were found unreadable, so that each is named once and counted.
//!
//! `level` and `at` are the summary's, and `version` the one that it has; of a delta `level` is -1, `at` its id and
//! `version` its tag. A row says nothing any more once its summary has another version or its delta has left.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

/// Both databases take these types: SQLite goes by their affinity.
const TABLE: &str = "
CREATE TABLE damaged_summaries (
    source smallint NOT NULL,
    level smallint NOT NULL,
    at bigint NOT NULL,
    version bigint NOT NULL,
    PRIMARY KEY (source, level, at)
);
";

const DOWN: &str = "DROP TABLE damaged_summaries;";

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        crate::run(manager, TABLE, TABLE).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        crate::run(manager, DOWN, DOWN).await
    }
}
