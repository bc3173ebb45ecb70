//! Rows of events, the view `events` over them, and the first rollup.
//!
//! `event_rows.key` is the first 16 bytes of SHA-256 over source, NUL and eventId: half as wide as the id, of one width
//! for every source, and computable in SQL. Values of enums are stored as codes, which `words` translates. Money is
//! stored in millionths and watch times in billionths, as integers, which both databases sum exactly. Columns of fixed
//! width come first, the widest first, because PostgreSQL aligns them. `rest` holds what has no column: unknown keys, and
//! values finer than their column.
//!
//! `event_rollup` counts by minute, source and type. Transactions that run at the same time count in rows of different
//! shards; readers sum over the shards.

use crate::script::{Script, SqlMigration};

const POSTGRES: &str = "
CREATE TABLE words (
    code smallint PRIMARY KEY,
    word text NOT NULL
);
CREATE TABLE event_rows (
    key uuid PRIMARY KEY,
    occurred_at timestamptz NOT NULL,
    ingested_at timestamptz NOT NULL DEFAULT now(),
    accepted_at timestamptz NOT NULL,
    logged_at timestamptz NOT NULL,
    collected_at timestamptz NOT NULL,
    action_time timestamptz,
    amount bigint,
    revenue bigint,
    followers bigint,
    watch_time bigint,
    percentage_watched bigint,
    source smallint NOT NULL,
    funnel_stage smallint NOT NULL,
    event_type smallint NOT NULL,
    age smallint,
    gender smallint,
    referrer smallint,
    click_position smallint,
    device smallint,
    browser smallint,
    event_id text NOT NULL,
    user_id text NOT NULL,
    user_name text,
    country text,
    city text,
    video_id text,
    ad_id text,
    campaign_id text,
    profile_id text,
    purchased_item text,
    rest json
);
CREATE INDEX event_rows_occurred_at ON event_rows USING brin (occurred_at) WITH (autosummarize = on);
CREATE INDEX event_rows_campaign ON event_rows (campaign_id, occurred_at) WHERE revenue IS NOT NULL AND campaign_id IS NOT NULL;
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
CREATE FUNCTION ess_money(micros bigint) RETURNS numeric LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN micros % 10000 = 0 THEN round(micros * 0.000001, 2) ELSE trim_scale(micros * 0.000001) END
$$;
CREATE VIEW events AS
SELECT e.event_id, e.occurred_at, e.ingested_at, source.word AS source, stage.word AS funnel_stage,
    kind.word AS event_type, e.user_id, e.user_name, e.age, gender.word AS gender, e.followers, e.country, e.city,
    e.action_time, referrer.word AS referrer, e.video_id, e.ad_id, e.campaign_id, click.word AS click_position,
    device.word AS device, browser.word AS browser, ess_money(e.amount) AS purchase_amount,
    ess_money(e.revenue) AS revenue,
    CASE WHEN e.watch_time IS NOT NULL THEN coalesce((e.rest #>> '{data,engagement,watchTime}')::numeric,
        trim_scale(e.watch_time * 0.000000001)) END AS watch_time,
    CASE WHEN e.percentage_watched IS NOT NULL THEN
        coalesce((e.rest #>> '{data,engagement,percentageWatched}')::numeric,
        trim_scale(e.percentage_watched * 0.000000001)) END AS percentage_watched,
    e.profile_id, e.purchased_item, e.rest AS unknown, e.accepted_at, e.logged_at, e.collected_at, e.key
FROM event_rows e
LEFT JOIN words source ON source.code = e.source
LEFT JOIN words stage ON stage.code = e.funnel_stage
LEFT JOIN words kind ON kind.code = e.event_type
LEFT JOIN words gender ON gender.code = e.gender
LEFT JOIN words referrer ON referrer.code = e.referrer
LEFT JOIN words click ON click.code = e.click_position
LEFT JOIN words device ON device.code = e.device
LEFT JOIN words browser ON browser.code = e.browser;
";

const SQLITE: &str = "
CREATE TABLE words (
    code integer PRIMARY KEY,
    word text NOT NULL
);
CREATE TABLE event_rows (
    key blob NOT NULL,
    occurred_at integer NOT NULL,
    ingested_at integer NOT NULL,
    accepted_at integer NOT NULL,
    logged_at integer NOT NULL,
    collected_at integer NOT NULL,
    action_time integer,
    amount integer,
    revenue integer,
    followers integer,
    watch_time integer,
    percentage_watched integer,
    source integer NOT NULL,
    funnel_stage integer NOT NULL,
    event_type integer NOT NULL,
    age integer,
    gender integer,
    referrer integer,
    click_position integer,
    device integer,
    browser integer,
    event_id text NOT NULL,
    user_id text NOT NULL,
    user_name text,
    country text,
    city text,
    video_id text,
    ad_id text,
    campaign_id text,
    profile_id text,
    purchased_item text,
    rest text
);
CREATE UNIQUE INDEX event_rows_key ON event_rows (key);
CREATE INDEX event_rows_occurred_at ON event_rows (occurred_at);
CREATE INDEX event_rows_campaign ON event_rows (campaign_id, occurred_at) WHERE revenue IS NOT NULL AND campaign_id IS NOT NULL;
CREATE TABLE event_rollup (
    minute integer NOT NULL,
    event_type integer NOT NULL,
    shard integer NOT NULL,
    source integer NOT NULL,
    funnel_stage integer NOT NULL,
    events integer NOT NULL,
    transactions integer NOT NULL,
    revenue_units integer NOT NULL,
    revenue_micros integer NOT NULL,
    PRIMARY KEY (minute, event_type, shard)
) WITHOUT ROWID;
CREATE VIEW events AS
SELECT e.event_id,
    strftime('%Y-%m-%dT%H:%M:%S', e.occurred_at / 1000000, 'unixepoch') || printf('.%06dZ', e.occurred_at % 1000000)
        AS occurred_at,
    strftime('%Y-%m-%dT%H:%M:%S', e.ingested_at / 1000000, 'unixepoch') || printf('.%06dZ', e.ingested_at % 1000000)
        AS ingested_at,
    source.word AS source, stage.word AS funnel_stage, kind.word AS event_type,
    e.user_id, e.user_name, e.age, gender.word AS gender, e.followers, e.country, e.city,
    strftime('%Y-%m-%dT%H:%M:%S', e.action_time / 1000000, 'unixepoch') || printf('.%06dZ', e.action_time % 1000000)
        AS action_time,
    referrer.word AS referrer, e.video_id, e.ad_id, e.campaign_id, click.word AS click_position,
    device.word AS device, browser.word AS browser,
    CASE WHEN e.amount IS NULL THEN NULL WHEN e.amount % 10000 = 0
        THEN printf('%d.%02d', e.amount / 1000000, e.amount % 1000000 / 10000)
        ELSE rtrim(printf('%d.%06d', e.amount / 1000000, e.amount % 1000000), '0') END AS purchase_amount,
    CASE WHEN e.revenue IS NULL THEN NULL WHEN e.revenue % 10000 = 0
        THEN printf('%d.%02d', e.revenue / 1000000, e.revenue % 1000000 / 10000)
        ELSE rtrim(printf('%d.%06d', e.revenue / 1000000, e.revenue % 1000000), '0') END AS revenue,
    CASE WHEN e.watch_time IS NOT NULL
        THEN coalesce(e.rest ->> '$.data.engagement.watchTime', e.watch_time / 1e9) END AS watch_time,
    CASE WHEN e.percentage_watched IS NOT NULL
        THEN coalesce(e.rest ->> '$.data.engagement.percentageWatched', e.percentage_watched / 1e9) END
        AS percentage_watched,
    e.profile_id, e.purchased_item, e.rest AS unknown,
    strftime('%Y-%m-%dT%H:%M:%S', e.accepted_at / 1000000, 'unixepoch') || printf('.%06dZ', e.accepted_at % 1000000)
        AS accepted_at,
    strftime('%Y-%m-%dT%H:%M:%S', e.logged_at / 1000000, 'unixepoch') || printf('.%06dZ', e.logged_at % 1000000)
        AS logged_at,
    strftime('%Y-%m-%dT%H:%M:%S', e.collected_at / 1000000, 'unixepoch') || printf('.%06dZ', e.collected_at % 1000000)
        AS collected_at,
    e.key
FROM event_rows e
LEFT JOIN words source ON source.code = e.source
LEFT JOIN words stage ON stage.code = e.funnel_stage
LEFT JOIN words kind ON kind.code = e.event_type
LEFT JOIN words gender ON gender.code = e.gender
LEFT JOIN words referrer ON referrer.code = e.referrer
LEFT JOIN words click ON click.code = e.click_position
LEFT JOIN words device ON device.code = e.device
LEFT JOIN words browser ON browser.code = e.browser;
";

const DOWN: &str = "DROP VIEW events; DROP TABLE event_rollup; DROP TABLE event_rows; DROP TABLE words;";

pub(crate) fn migration() -> SqlMigration {
    SqlMigration::new(
        "m20261124_000001_events",
        Script::each(POSTGRES, SQLITE),
        Script::each(&format!("{DOWN} DROP FUNCTION ess_money;"), DOWN),
    )
}
