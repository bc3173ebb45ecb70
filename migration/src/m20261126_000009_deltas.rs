//! Deltas that are put in order before they are folded, and are known by more than their id.
//!
//! `summary_deltas.chunk`: what transactions added to many hours is split by chunks of 64 hours first, so that each
//! hour of a backfill is written once, in short transactions. Null for what one transaction left.
//!
//! `summary_deltas.tag` is of chance: after a failover a sequence may give an id again, and whoever keeps deltas by
//! id alone would take one for another.
//!
//! SQLite follows a body's pages to find what stands behind it: in both tables the body comes last now.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

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
        crate::run(manager, POSTGRES_DOWN, SQLITE_DOWN).await
    }
}
