//! Sums of revenue beyond 64 bits.
//!
//! Nine million events of 999999999999 units exceed a bigint. `revenue_high` of a rollup and `high` of a campaign count
//! units of 10^18: the sum is `high * 10^18 + units`, and `units` stays below 10^18. Both begin at 0, so that the version
//! before can go on adding to `units` while it runs beside this one.
//!
//! Campaigns are ranked by `high` first. `first_units` and `last_units`, upper bounds of the revenue in a range, stop at
//! 10^18: the remainder of the sum is an upper bound then.

use crate::script::{Script, SqlMigration};

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

pub(crate) fn migration() -> SqlMigration {
    SqlMigration::new(
        "m20261126_000008_wide_sums",
        Script::both(UP).then(Script::each(POSTGRES, SQLITE)),
        Script::both(DOWN).then(Script::each(POSTGRES_BEFORE, SQLITE_BEFORE)),
    )
}
