//! Fewer rows for each report.
//!
//! `rollups` counts in spans of 1, 10, 60, 360 and 1,440 minutes (`minutes`; `at` counts them since 1970), where
//! there were minutes, hours and days: whatever a range begins and ends with, the minutes and hours beside its
//! days are few.
//!
//! `summaries.campaigns` says whether a summary tells campaigns, so that nobody reads it to find that there were
//! too many; null where that is not known, as in what versions before this one have written. What such a
//! version rewrites while it still runs beside this one keeps what was said of it: its campaigns may be looked
//! for where they are told, which gives the same answer and takes longer.
//!
//! The index of campaigns by revenue has all that is asked of it. What versions before this one do not read any
//! more are the deltas of this one: [`down`](MigrationTrait::down) wants those folded.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::{ConnectionTrait, Statement};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

const COLUMNS: &str =
    "event_type, shard, source, funnel_stage, events, transactions, revenue_units, revenue_micros";

const POSTGRES: &str = "
-- Whatever a collector of the version before has counted is in; what it has not counted yet fails, and comes again.
LOCK TABLE rollups IN SHARE ROW EXCLUSIVE MODE;
CREATE TABLE spans (
    minutes smallint NOT NULL,
    at integer NOT NULL,
    event_type smallint NOT NULL,
    shard smallint NOT NULL,
    source smallint NOT NULL,
    funnel_stage smallint NOT NULL,
    events bigint NOT NULL,
    transactions bigint NOT NULL,
    revenue_units bigint NOT NULL,
    revenue_micros bigint NOT NULL,
    PRIMARY KEY (minutes, at, event_type, shard)
    -- Rows are counted up again and again: with room beside them they stay where they are, near each other.
) WITH (fillfactor = 50);
INSERT INTO spans
SELECT minutes, at / factor, event_type, 0, source, funnel_stage, sum(events)::bigint,
    sum(transactions)::bigint, sum(revenue_units)::bigint, sum(revenue_micros)::bigint
FROM rollups JOIN (VALUES (1::smallint, 0, 1), (10::smallint, 0, 10), (60::smallint, 1, 1), (360::smallint, 1, 6),
    (1440::smallint, 2, 1)) AS widths (minutes, of_level, factor) ON level = of_level
GROUP BY 1, 2, 3, 5, 6 ORDER BY 1, 2, 3;
DROP TABLE rollups;
ALTER TABLE spans RENAME TO rollups;
ALTER INDEX spans_pkey RENAME TO rollups_pkey;
ALTER TABLE summaries ADD COLUMN campaigns boolean;
DROP INDEX campaigns_by_revenue;
CREATE INDEX campaigns_by_revenue ON campaigns (source, units DESC, micros DESC, campaign_id)
    INCLUDE (transactions, first_minute, last_minute);
";

const SQLITE: &str = "
CREATE TABLE spans (
    minutes integer NOT NULL,
    at integer NOT NULL,
    event_type integer NOT NULL,
    shard integer NOT NULL,
    source integer NOT NULL,
    funnel_stage integer NOT NULL,
    events bigint NOT NULL,
    transactions bigint NOT NULL,
    revenue_units bigint NOT NULL,
    revenue_micros bigint NOT NULL,
    PRIMARY KEY (minutes, at, event_type, shard)
) WITHOUT ROWID;
INSERT INTO spans
SELECT column1, at / column3, event_type, 0, source, funnel_stage, sum(events), sum(transactions),
    sum(revenue_units), sum(revenue_micros)
FROM rollups JOIN (VALUES (1, 0, 1), (10, 0, 10), (60, 1, 1), (360, 1, 6), (1440, 2, 1)) ON level = column2
GROUP BY 1, 2, 3, 5, 6;
DROP TABLE rollups;
ALTER TABLE spans RENAME TO rollups;
ALTER TABLE summaries ADD COLUMN campaigns boolean;
DROP INDEX campaigns_by_revenue;
CREATE INDEX campaigns_by_revenue ON campaigns (source, units DESC, micros DESC, campaign_id, transactions,
    first_minute, last_minute);
";

/// Back to minutes, hours and days.
const DOWN: &str = "
CREATE TABLE levels (
    level smallint NOT NULL,
    at integer NOT NULL,
    event_type smallint NOT NULL,
    shard smallint NOT NULL,
    source smallint NOT NULL,
    funnel_stage smallint NOT NULL,
    events bigint NOT NULL,
    transactions bigint NOT NULL,
    revenue_units bigint NOT NULL,
    revenue_micros bigint NOT NULL,
    PRIMARY KEY (level, at, event_type, shard)
);
INSERT INTO levels SELECT CASE minutes WHEN 1 THEN 0 WHEN 60 THEN 1 ELSE 2 END, at, {COLUMNS}
FROM rollups WHERE minutes IN (1, 60, 1440);
DROP TABLE rollups;
ALTER TABLE levels RENAME TO rollups;
ALTER TABLE summaries DROP COLUMN campaigns;
DROP INDEX campaigns_by_revenue;
CREATE INDEX campaigns_by_revenue ON campaigns (source, units DESC, micros DESC, campaign_id);
";

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    // SQLite too: a kill must not leave half of it.
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        crate::run(manager, POSTGRES, SQLITE).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let waiting = "SELECT 1 AS waiting FROM summary_deltas LIMIT 1";
        let db = manager.get_connection();
        let statement = Statement::from_string(manager.get_database_backend(), waiting);
        if db.query_one_raw(statement).await?.is_some() {
            let why = "the version before does not read what waits in summary_deltas: stop the gateways, and the \
                collectors once they have folded all of it";
            return Err(DbErr::Custom(why.to_owned()));
        }
        let down = DOWN.replace("{COLUMNS}", COLUMNS);
        crate::run(manager, &down, &down).await
    }
}
