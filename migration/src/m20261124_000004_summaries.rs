//! Tables of reports, whose cost does not grow with the number of events.
//!
//! `rollups` replaces `event_rollup`. It counts events and revenue by type in minutes, hours and days (`level` 0, 1, 2;
//! `at` counts them since 1970), in the transaction of the rows. Transactions that run at the same time count in rows of
//! different shards; readers sum over the shards.
//!
//! `summaries` has users by dimension, means and campaigns of each source. The span of a summary is 4^level hours; `at`
//! counts the spans since 1970. A *stale* summary has no body: readers use the four summaries below it, or the rows at
//! level 0. Each transaction inserts what it adds to its hours as one row of `summary_deltas`; folding adds the deltas to
//! the hours, and until then readers do.
//!
//! `campaigns` ranks campaigns by their revenue over all time, as far as deltas are folded. `retained` has the minute from
//! which on a source has all its rows. `progress` has the state of long work, such as a rebuild.

use crate::script::{Script, SqlMigration};

const POSTGRES: &str = r#"
-- Transactions of the version before that run now are waited for; later ones wait, fail, and their frames come again.
LOCK TABLE event_rows, event_rollup IN SHARE ROW EXCLUSIVE MODE;
CREATE TABLE rollups (
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
INSERT INTO rollups
SELECT level, minute / width, event_type, shard, source, funnel_stage, sum(events)::bigint,
    sum(transactions)::bigint, sum(revenue_units)::bigint, sum(revenue_micros)::bigint
FROM event_rollup, (VALUES (0::smallint, 1), (1::smallint, 60), (2::smallint, 1440)) AS levels (level, width)
GROUP BY 1, 2, 3, 4, 5, 6;
CREATE TABLE summaries (
    source smallint NOT NULL,
    level smallint NOT NULL,
    at integer NOT NULL,
    version bigint NOT NULL,
    stale boolean NOT NULL,
    touched_at bigint NOT NULL,
    body bytea,
    PRIMARY KEY (source, level, at)
);
ALTER TABLE summaries ALTER COLUMN body SET STORAGE EXTERNAL;
CREATE INDEX summaries_stale ON summaries (source, level) WHERE stale;
INSERT INTO summaries (source, level, at, version, stale, touched_at)
SELECT DISTINCT source, level, (minute / 60) >> (2 * level), 0, true, 0
FROM event_rollup, generate_series(0, 8) AS levels (level);
CREATE TABLE summary_deltas (
    id bigserial PRIMARY KEY,
    source smallint NOT NULL,
    events bigint NOT NULL,
    body bytea NOT NULL
);
ALTER TABLE summary_deltas ALTER COLUMN body SET STORAGE EXTERNAL;
CREATE TABLE campaigns (
    campaign_id text COLLATE "C" NOT NULL,
    source smallint NOT NULL,
    transactions bigint NOT NULL,
    units bigint NOT NULL,
    micros bigint NOT NULL,
    first_minute integer NOT NULL,
    last_minute integer NOT NULL,
    PRIMARY KEY (campaign_id, source)
);
CREATE INDEX campaigns_by_revenue ON campaigns (source, units DESC, micros DESC, campaign_id);
INSERT INTO campaigns
SELECT campaign_id, source, count(*), sum(revenue / 1000000) + sum(revenue % 1000000)::bigint / 1000000,
    sum(revenue % 1000000) % 1000000, floor(extract(epoch FROM min(occurred_at)) / 60),
    floor(extract(epoch FROM max(occurred_at)) / 60)
FROM event_rows WHERE revenue IS NOT NULL AND campaign_id IS NOT NULL GROUP BY campaign_id, source;
CREATE TABLE retained (
    source smallint PRIMARY KEY,
    from_minute bigint NOT NULL
);
CREATE TABLE progress (
    work text PRIMARY KEY,
    next bigint NOT NULL
);
DROP INDEX event_rows_campaign;
CREATE INDEX event_rows_campaign ON event_rows (campaign_id, occurred_at) INCLUDE (source, event_type, revenue)
    WHERE revenue IS NOT NULL AND campaign_id IS NOT NULL;
CREATE INDEX event_rows_revenue ON event_rows (occurred_at) INCLUDE (source, event_type, campaign_id, revenue)
    WHERE revenue IS NOT NULL AND campaign_id IS NOT NULL;
ALTER TABLE event_rows SET (autovacuum_vacuum_scale_factor = 0.05);
DROP TABLE event_rollup;
"#;

const SQLITE: &str = "
CREATE TABLE rollups (
    level integer NOT NULL,
    at integer NOT NULL,
    event_type integer NOT NULL,
    shard integer NOT NULL,
    source integer NOT NULL,
    funnel_stage integer NOT NULL,
    events bigint NOT NULL,
    transactions bigint NOT NULL,
    revenue_units bigint NOT NULL,
    revenue_micros bigint NOT NULL,
    PRIMARY KEY (level, at, event_type, shard)
) WITHOUT ROWID;
INSERT INTO rollups
SELECT column1, minute / column2, event_type, shard, source, funnel_stage, sum(events), sum(transactions),
    sum(revenue_units), sum(revenue_micros)
FROM event_rollup, (VALUES (0, 1), (1, 60), (2, 1440)) GROUP BY 1, 2, 3, 4, 5, 6;
CREATE TABLE summaries (
    source integer NOT NULL,
    level integer NOT NULL,
    at integer NOT NULL,
    version bigint NOT NULL,
    stale boolean NOT NULL,
    touched_at bigint NOT NULL,
    body blob,
    PRIMARY KEY (source, level, at)
);
CREATE INDEX summaries_stale ON summaries (source, level) WHERE stale;
INSERT INTO summaries (source, level, at, version, stale, touched_at)
SELECT DISTINCT source, column1, (minute / 60) >> (2 * column1), 0, true, 0
FROM event_rollup, (VALUES (0), (1), (2), (3), (4), (5), (6), (7), (8));
CREATE TABLE summary_deltas (
    id integer PRIMARY KEY AUTOINCREMENT,
    source integer NOT NULL,
    events bigint NOT NULL,
    body blob NOT NULL
);
CREATE TABLE campaigns (
    campaign_id text NOT NULL,
    source integer NOT NULL,
    transactions bigint NOT NULL,
    units bigint NOT NULL,
    micros bigint NOT NULL,
    first_minute integer NOT NULL,
    last_minute integer NOT NULL,
    PRIMARY KEY (campaign_id, source)
);
CREATE INDEX campaigns_by_revenue ON campaigns (source, units DESC, micros DESC, campaign_id);
INSERT INTO campaigns
SELECT campaign_id, source, count(*), sum(revenue / 1000000) + sum(revenue % 1000000) / 1000000,
    sum(revenue % 1000000) % 1000000, min(occurred_at) / 60000000, max(occurred_at) / 60000000
FROM event_rows WHERE revenue IS NOT NULL AND campaign_id IS NOT NULL GROUP BY campaign_id, source;
CREATE TABLE retained (
    source integer PRIMARY KEY,
    from_minute bigint NOT NULL
);
CREATE TABLE progress (
    work text PRIMARY KEY,
    next bigint NOT NULL
);
DROP INDEX event_rows_campaign;
CREATE INDEX event_rows_campaign ON event_rows (campaign_id, occurred_at, source, event_type, revenue)
    WHERE revenue IS NOT NULL AND campaign_id IS NOT NULL;
CREATE INDEX event_rows_revenue ON event_rows (occurred_at, source, event_type, campaign_id, revenue)
    WHERE revenue IS NOT NULL AND campaign_id IS NOT NULL;
DROP TABLE event_rollup;
";

/// Counts by minute alone again.
const DOWN: &str = "
CREATE TABLE event_rollup (
    minute integer NOT NULL,
    event_type smallint NOT NULL,
    shard smallint NOT NULL,
    source smallint NOT NULL,
    funnel_stage smallint NOT NULL,
    events bigint NOT NULL,
    transactions bigint NOT NULL,
    revenue_units bigint NOT NULL,
    revenue_micros bigint NOT NULL,
    PRIMARY KEY (minute, event_type, shard)
);
INSERT INTO event_rollup SELECT at, event_type, shard, source, funnel_stage, events, transactions, revenue_units,
    revenue_micros FROM rollups WHERE level = 0;
DROP INDEX event_rows_campaign;
DROP INDEX event_rows_revenue;
CREATE INDEX event_rows_campaign ON event_rows (campaign_id, occurred_at)
    WHERE revenue IS NOT NULL AND campaign_id IS NOT NULL;
DROP TABLE progress; DROP TABLE retained; DROP TABLE campaigns; DROP TABLE summary_deltas; DROP TABLE summaries; DROP TABLE rollups;
";

pub(crate) fn migration() -> SqlMigration {
    SqlMigration::new("m20261124_000004_summaries", Script::each(POSTGRES, SQLITE), Script::both(DOWN))
}
