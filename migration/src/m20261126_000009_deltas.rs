//! Deltas that are sorted before they are folded, and are identified by more than their id.
//!
//! `summary_deltas.chunk`: deltas of many hours are first split by chunks of 64 hours, so that a backfill writes each hour
//! once, in short transactions. It is null for a delta as a transaction inserted it.
//!
//! `summary_deltas.tag` is random: after a failover a sequence may give an id again, and a cache that knew deltas by id
//! alone would confuse them.
//!
//! SQLite reads all pages of a body to reach the columns behind it, so the body is the last column of both tables now.

use crate::script::{Script, SqlMigration};

const POSTGRES: &str = "
ALTER TABLE summary_deltas ADD COLUMN chunk integer,
    ADD COLUMN tag bigint NOT NULL DEFAULT (random() * 9e18)::bigint;
";

const POSTGRES_DOWN: &str = "ALTER TABLE summary_deltas DROP COLUMN chunk, DROP COLUMN tag;";

const SQLITE: &str = "
CREATE TABLE deltas_in_order (
    id integer PRIMARY KEY AUTOINCREMENT,
    source integer NOT NULL,
    events bigint NOT NULL,
    chunk integer,
    tag bigint NOT NULL DEFAULT (random()),
    body blob NOT NULL
);
INSERT INTO deltas_in_order (id, source, events, body) SELECT id, source, events, body FROM summary_deltas;
DROP TABLE summary_deltas;
ALTER TABLE deltas_in_order RENAME TO summary_deltas;
CREATE TABLE summaries_in_order (
    source integer NOT NULL,
    level integer NOT NULL,
    at integer NOT NULL,
    version bigint NOT NULL,
    stale boolean NOT NULL,
    touched_at bigint NOT NULL,
    campaigns boolean,
    body blob,
    PRIMARY KEY (source, level, at)
);
INSERT INTO summaries_in_order (source, level, at, version, stale, touched_at, campaigns, body)
SELECT source, level, at, version, stale, touched_at, campaigns, body FROM summaries;
DROP TABLE summaries;
ALTER TABLE summaries_in_order RENAME TO summaries;
CREATE INDEX summaries_stale ON summaries (source, level) WHERE stale;
";

const SQLITE_DOWN: &str = "
CREATE TABLE deltas_before (
    id integer PRIMARY KEY AUTOINCREMENT,
    source integer NOT NULL,
    events bigint NOT NULL,
    body blob NOT NULL
);
INSERT INTO deltas_before SELECT id, source, events, body FROM summary_deltas;
DROP TABLE summary_deltas;
ALTER TABLE deltas_before RENAME TO summary_deltas;
CREATE TABLE summaries_before (
    source integer NOT NULL,
    level integer NOT NULL,
    at integer NOT NULL,
    version bigint NOT NULL,
    stale boolean NOT NULL,
    touched_at bigint NOT NULL,
    body blob,
    campaigns boolean,
    PRIMARY KEY (source, level, at)
);
INSERT INTO summaries_before SELECT source, level, at, version, stale, touched_at, body, campaigns FROM summaries;
DROP TABLE summaries;
ALTER TABLE summaries_before RENAME TO summaries;
CREATE INDEX summaries_stale ON summaries (source, level) WHERE stale;
";

pub(crate) fn migration() -> SqlMigration {
    SqlMigration::new(
        "m20261126_000009_deltas",
        Script::each(POSTGRES, SQLITE),
        Script::each(POSTGRES_DOWN, SQLITE_DOWN),
    )
}
