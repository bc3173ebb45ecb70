//! Fewer rows for each report.
//!
//! `rollups` counts in spans of 1, 10, 60, 360 and 1,440 minutes (`minutes`; `at` counts the spans since 1970) in place of
//! minutes, hours and days: a range of any bounds consists of few spans.
//!
//! `summaries.campaigns` is true if a summary lists its campaigns, so that a summary of too many campaigns need not be
//! read to learn that. Null means unknown, as in summaries of the version before. If that version rewrites a summary while
//! it runs beside this one, the value stays: reports then look into a summary without need, and their answer is the same.
//!
//! The index of campaigns by revenue has all columns of its query. The version before cannot read deltas of this one, so
//! undoing this migration requires that all deltas are folded.

use crate::script::{Script, SqlMigration};

const POSTGRES: &str = "
-- Transactions of the version before that run now are waited for; later ones wait, fail, and their frames come again.
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
    -- Rows are updated again and again: with free space on their page they stay on it.
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

/// Spans of minutes, hours and days again.
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
INSERT INTO levels SELECT CASE minutes WHEN 1 THEN 0 WHEN 60 THEN 1 ELSE 2 END, at, event_type, shard, source, funnel_stage,
    events, transactions, revenue_units, revenue_micros
FROM rollups WHERE minutes IN (1, 60, 1440);
DROP TABLE rollups;
ALTER TABLE levels RENAME TO rollups;
ALTER TABLE summaries DROP COLUMN campaigns;
DROP INDEX campaigns_by_revenue;
CREATE INDEX campaigns_by_revenue ON campaigns (source, units DESC, micros DESC, campaign_id);
";

pub(crate) fn migration() -> SqlMigration {
    SqlMigration::new("m20261124_000005_widths", Script::each(POSTGRES, SQLITE), Script::both(DOWN)).down_only_if_empty(
        "summary_deltas",
        "the version before cannot read the deltas that wait in summary_deltas: stop the gateways, let the collectors \
         fold all deltas, and stop them",
    )
}
