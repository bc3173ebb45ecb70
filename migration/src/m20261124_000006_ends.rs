//! What campaigns earned in their first and their last minute.
//!
//! A campaign that begins before a range, or ends behind it, earned at most the rest within: few have to be looked up
//! in the rows to find the first ones of a range. Whole units of each sale are added up, which never is too much and
//! never too large a number.
//!
//! `ends_of` says of how many transactions the two were known. Where that is not all, they say nothing: so it is with
//! campaigns from before, and with those that a version before this one adds to while it still runs beside this one.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

const UP: &str = "
ALTER TABLE campaigns ADD COLUMN first_units bigint NOT NULL DEFAULT 0;
ALTER TABLE campaigns ADD COLUMN last_units bigint NOT NULL DEFAULT 0;
ALTER TABLE campaigns ADD COLUMN ends_of bigint NOT NULL DEFAULT 0;
DROP INDEX campaigns_by_revenue;
";

const POSTGRES: &str = "
CREATE INDEX campaigns_by_revenue ON campaigns (source, units DESC, micros DESC, campaign_id)
    INCLUDE (transactions, first_minute, last_minute, first_units, last_units, ends_of);
";

const SQLITE: &str = "
CREATE INDEX campaigns_by_revenue ON campaigns (source, units DESC, micros DESC, campaign_id, transactions,
    first_minute, last_minute, first_units, last_units, ends_of);
";

const DOWN: &str = "
DROP INDEX campaigns_by_revenue;
ALTER TABLE campaigns DROP COLUMN first_units;
ALTER TABLE campaigns DROP COLUMN last_units;
ALTER TABLE campaigns DROP COLUMN ends_of;
";

const POSTGRES_BEFORE: &str = "
CREATE INDEX campaigns_by_revenue ON campaigns (source, units DESC, micros DESC, campaign_id)
    INCLUDE (transactions, first_minute, last_minute);
";

const SQLITE_BEFORE: &str = "
CREATE INDEX campaigns_by_revenue ON campaigns (source, units DESC, micros DESC, campaign_id, transactions,
    first_minute, last_minute);
";

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    // SQLite too: a kill must not leave half of it.
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        crate::run(manager, UP, UP).await?;
        crate::run(manager, POSTGRES, SQLITE).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        crate::run(manager, DOWN, DOWN).await?;
        crate::run(manager, POSTGRES_BEFORE, SQLITE_BEFORE).await
    }
}
