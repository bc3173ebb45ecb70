//! The currency of each amount, so that money is never added across currencies.
//!
//! `event_rows.currency` is the number of ISO 4217; `currencies` has the codes, for the view `events`. Amounts of versions
//! that knew no currency are in the one that `ESS_CURRENCY` names at this migration: it is the default of the new columns,
//! with which neither database rewrites rows.
//!
//! `rollups` and `campaigns` have the currency in their keys. Bodies of `summaries` and `summary_deltas` name no currency
//! unless they have several; `currency` of their row is that of all their campaigns.
//!
//! The indexes of rows with revenue have the currency, too, so that reports still read them alone. A collector of the
//! version before cannot add to these rollups: it stores nothing any more, and its frames are delivered again.

use crate::script::{Script, SqlMigration};

/// `{before}` stands for the currency of amounts from before.
const BOTH: &str = "
CREATE TABLE currencies (
    number smallint PRIMARY KEY,
    code text NOT NULL
);
ALTER TABLE event_rows ADD COLUMN currency smallint NOT NULL DEFAULT {before};
ALTER TABLE summaries ADD COLUMN currency smallint NOT NULL DEFAULT {before};
ALTER TABLE summary_deltas ADD COLUMN currency smallint NOT NULL DEFAULT {before};
DROP INDEX campaigns_by_revenue;
DROP INDEX event_rows_campaign;
DROP INDEX event_rows_revenue;
";

const POSTGRES: &str = "
ALTER TABLE rollups ADD COLUMN currency smallint NOT NULL DEFAULT {before};
ALTER TABLE rollups DROP CONSTRAINT rollups_pkey, ADD PRIMARY KEY (minutes, at, event_type, shard, currency);
ALTER TABLE campaigns ADD COLUMN currency smallint NOT NULL DEFAULT {before};
ALTER TABLE campaigns DROP CONSTRAINT campaigns_pkey, ADD PRIMARY KEY (campaign_id, source, currency);
CREATE INDEX campaigns_by_revenue ON campaigns (source, currency, high DESC, units DESC, micros DESC, campaign_id)
    INCLUDE (transactions, first_minute, last_minute, first_units, last_units, ends_of);
CREATE INDEX event_rows_campaign ON event_rows (campaign_id, occurred_at) INCLUDE (source, event_type, revenue, currency)
    WHERE revenue IS NOT NULL AND campaign_id IS NOT NULL;
CREATE INDEX event_rows_revenue ON event_rows (occurred_at) INCLUDE (source, event_type, campaign_id, revenue, currency)
    WHERE revenue IS NOT NULL AND campaign_id IS NOT NULL;
CREATE OR REPLACE VIEW events AS
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
    e.profile_id, e.purchased_item, e.rest AS unknown, e.accepted_at, e.logged_at, e.collected_at, e.key,
    CASE WHEN e.amount IS NOT NULL THEN currency.code END AS currency
FROM event_rows e
LEFT JOIN words source ON source.code = e.source
LEFT JOIN words stage ON stage.code = e.funnel_stage
LEFT JOIN words kind ON kind.code = e.event_type
LEFT JOIN words gender ON gender.code = e.gender
LEFT JOIN words referrer ON referrer.code = e.referrer
LEFT JOIN words click ON click.code = e.click_position
LEFT JOIN words device ON device.code = e.device
LEFT JOIN words browser ON browser.code = e.browser
LEFT JOIN currencies currency ON currency.number = e.currency;
";

const SQLITE: &str = "
CREATE TABLE rollups_by_currency (
    minutes integer NOT NULL,
    at integer NOT NULL,
    event_type integer NOT NULL,
    shard integer NOT NULL,
    currency integer NOT NULL DEFAULT {before},
    source integer NOT NULL,
    funnel_stage integer NOT NULL,
    events bigint NOT NULL,
    transactions bigint NOT NULL,
    revenue_units bigint NOT NULL,
    revenue_micros bigint NOT NULL,
    revenue_high bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (minutes, at, event_type, shard, currency)
) WITHOUT ROWID;
INSERT INTO rollups_by_currency (minutes, at, event_type, shard, source, funnel_stage, events, transactions,
    revenue_units, revenue_micros, revenue_high)
SELECT minutes, at, event_type, shard, source, funnel_stage, events, transactions, revenue_units, revenue_micros,
    revenue_high FROM rollups;
DROP TABLE rollups;
ALTER TABLE rollups_by_currency RENAME TO rollups;
CREATE TABLE campaigns_by_currency (
    campaign_id text NOT NULL,
    source integer NOT NULL,
    currency integer NOT NULL DEFAULT {before},
    transactions bigint NOT NULL,
    units bigint NOT NULL,
    micros bigint NOT NULL,
    first_minute integer NOT NULL,
    last_minute integer NOT NULL,
    first_units bigint NOT NULL DEFAULT 0,
    last_units bigint NOT NULL DEFAULT 0,
    ends_of bigint NOT NULL DEFAULT 0,
    high bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (campaign_id, source, currency)
);
INSERT INTO campaigns_by_currency (campaign_id, source, transactions, units, micros, first_minute, last_minute,
    first_units, last_units, ends_of, high)
SELECT campaign_id, source, transactions, units, micros, first_minute, last_minute, first_units, last_units, ends_of,
    high FROM campaigns;
DROP TABLE campaigns;
ALTER TABLE campaigns_by_currency RENAME TO campaigns;
CREATE INDEX campaigns_by_revenue ON campaigns (source, currency, high DESC, units DESC, micros DESC, campaign_id,
    transactions, first_minute, last_minute, first_units, last_units, ends_of);
CREATE INDEX event_rows_campaign ON event_rows (campaign_id, occurred_at, source, event_type, revenue, currency)
    WHERE revenue IS NOT NULL AND campaign_id IS NOT NULL;
CREATE INDEX event_rows_revenue ON event_rows (occurred_at, source, event_type, campaign_id, revenue, currency)
    WHERE revenue IS NOT NULL AND campaign_id IS NOT NULL;
DROP VIEW events;
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
    e.key, CASE WHEN e.amount IS NOT NULL THEN currency.code END AS currency
FROM event_rows e
LEFT JOIN words source ON source.code = e.source
LEFT JOIN words stage ON stage.code = e.funnel_stage
LEFT JOIN words kind ON kind.code = e.event_type
LEFT JOIN words gender ON gender.code = e.gender
LEFT JOIN words referrer ON referrer.code = e.referrer
LEFT JOIN words click ON click.code = e.click_position
LEFT JOIN words device ON device.code = e.device
LEFT JOIN words browser ON browser.code = e.browser
LEFT JOIN currencies currency ON currency.number = e.currency;
";

const DOWN: &str = "
DROP VIEW events;
DROP INDEX campaigns_by_revenue;
DROP INDEX event_rows_campaign;
DROP INDEX event_rows_revenue;
ALTER TABLE event_rows DROP COLUMN currency;
ALTER TABLE summaries DROP COLUMN currency;
ALTER TABLE summary_deltas DROP COLUMN currency;
DROP TABLE currencies;
";

const POSTGRES_BEFORE: &str = "
ALTER TABLE rollups DROP CONSTRAINT rollups_pkey;
ALTER TABLE rollups DROP COLUMN currency, ADD PRIMARY KEY (minutes, at, event_type, shard);
ALTER TABLE campaigns DROP CONSTRAINT campaigns_pkey;
ALTER TABLE campaigns DROP COLUMN currency, ADD PRIMARY KEY (campaign_id, source);
CREATE INDEX campaigns_by_revenue ON campaigns (source, high DESC, units DESC, micros DESC, campaign_id)
    INCLUDE (transactions, first_minute, last_minute, first_units, last_units, ends_of);
CREATE INDEX event_rows_campaign ON event_rows (campaign_id, occurred_at) INCLUDE (source, event_type, revenue)
    WHERE revenue IS NOT NULL AND campaign_id IS NOT NULL;
CREATE INDEX event_rows_revenue ON event_rows (occurred_at) INCLUDE (source, event_type, campaign_id, revenue)
    WHERE revenue IS NOT NULL AND campaign_id IS NOT NULL;
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

const SQLITE_BEFORE: &str = "
CREATE TABLE rollups_before (
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
    revenue_high bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (minutes, at, event_type, shard)
) WITHOUT ROWID;
INSERT INTO rollups_before
SELECT minutes, at, event_type, shard, source, funnel_stage, events, transactions, revenue_units, revenue_micros,
    revenue_high FROM rollups;
DROP TABLE rollups;
ALTER TABLE rollups_before RENAME TO rollups;
CREATE TABLE campaigns_before (
    campaign_id text NOT NULL,
    source integer NOT NULL,
    transactions bigint NOT NULL,
    units bigint NOT NULL,
    micros bigint NOT NULL,
    first_minute integer NOT NULL,
    last_minute integer NOT NULL,
    first_units bigint NOT NULL DEFAULT 0,
    last_units bigint NOT NULL DEFAULT 0,
    ends_of bigint NOT NULL DEFAULT 0,
    high bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (campaign_id, source)
);
INSERT INTO campaigns_before
SELECT campaign_id, source, transactions, units, micros, first_minute, last_minute, first_units, last_units, ends_of,
    high FROM campaigns;
DROP TABLE campaigns;
ALTER TABLE campaigns_before RENAME TO campaigns;
CREATE INDEX campaigns_by_revenue ON campaigns (source, high DESC, units DESC, micros DESC, campaign_id, transactions,
    first_minute, last_minute, first_units, last_units, ends_of);
CREATE INDEX event_rows_campaign ON event_rows (campaign_id, occurred_at, source, event_type, revenue)
    WHERE revenue IS NOT NULL AND campaign_id IS NOT NULL;
CREATE INDEX event_rows_revenue ON event_rows (occurred_at, source, event_type, campaign_id, revenue)
    WHERE revenue IS NOT NULL AND campaign_id IS NOT NULL;
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

/// The migration; amounts from before are in a currency, by its number in ISO 4217.
pub(crate) fn migration(before: i16) -> SqlMigration {
    let with = |sql: &str| sql.replace("{before}", &before.to_string());
    SqlMigration::new(
        "m20261127_000013_currencies",
        Script::both(&with(BOTH)).then(Script::each(&with(POSTGRES), &with(SQLITE))),
        Script::both(DOWN).then(Script::each(POSTGRES_BEFORE, SQLITE_BEFORE)),
    )
    .down_only_if_empty(
        "(SELECT count(DISTINCT currency) FROM rollups HAVING count(DISTINCT currency) > 1) several",
        "amounts are in several currencies, which the version before would add up",
    )
}
