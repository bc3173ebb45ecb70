//! Sums of revenue beyond 64 bits.
//!
//! Nine million events of 999999999999 units are more than a bigint holds. `revenue_high` of a rollup, and `high` of a
//! campaign, count in 10^18 units what no longer fits beside them: the sum is `high * 10^18 + units`, and `units` stays
//! below 10^18 whatever is added. Both begin at 0, so that a version before this one goes on adding to `units` while
//! it still runs beside this one.
//!
//! Campaigns are ranked by `high` first. `first_units` and `last_units`, which bound what a campaign earned in a range
//! from above, stop at 10^18: what is left of the sum then is a bound as well.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

const UP: &str = "
ALTER TABLE rollups ADD COLUMN revenue_high bigint NOT NULL DEFAULT 0;
ALTER TABLE campaigns ADD COLUMN high bigint NOT NULL DEFAULT 0;
UPDATE rollups SET revenue_high = revenue_units / 1000000000000000000, revenue_units = revenue_units % 1000000000000000000
    WHERE revenue_units >= 1000000000000000000;
UPDATE campaigns SET high = units / 1000000000000000000, units = units % 1000000000000000000
    WHERE units >= 1000000000000000000;
DROP INDEX campaigns_by_revenue;
";

const POSTGRES: &str = "
CREATE INDEX campaigns_by_revenue ON campaigns (source, high DESC, units DESC, micros DESC, campaign_id)
    INCLUDE (transactions, first_minute, last_minute, first_units, last_units, ends_of);
";

const SQLITE: &str = "
CREATE INDEX campaigns_by_revenue ON campaigns (source, high DESC, units DESC, micros DESC, campaign_id, transactions,
    first_minute, last_minute, first_units, last_units, ends_of);
";

const DOWN: &str = "
DROP INDEX campaigns_by_revenue;
ALTER TABLE campaigns DROP COLUMN high;
ALTER TABLE rollups DROP COLUMN revenue_high;
";

const POSTGRES_BEFORE: &str = "
CREATE INDEX campaigns_by_revenue ON campaigns (source, units DESC, micros DESC, campaign_id)
    INCLUDE (transactions, first_minute, last_minute, first_units, last_units, ends_of);
";

const SQLITE_BEFORE: &str = "
CREATE INDEX campaigns_by_revenue ON campaigns (source, units DESC, micros DESC, campaign_id, transactions,
    first_minute, last_minute, first_units, last_units, ends_of);
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
