//! The events that were set aside, with their bytes and the reason.
//!
//! `replayed_at` is set once a letter was sent again and taken; `history` keeps the reasons that a
//! letter had before a replay that failed.
//!
//! `id` follows from where the letter came from (its frame and place in it), so that a letter that is
//! delivered twice stands here once. `dead_letter_counts` counts what was refused or set aside for ever, also when
//! the letters themselves have left by age or size (which `fallen_out` counts).
//!
//! `suspects` marks the event that a collector is about to try, of a frame that ended collectors again
//! and again. A mark that a later delivery finds is a strike; with two strikes the event is guilty.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

const POSTGRES: &str = "
CREATE TABLE dead_letters (
    id uuid PRIMARY KEY,
    received_at timestamptz NOT NULL,
    source smallint,
    reason text NOT NULL,
    event_id text,
    correlation_id text NOT NULL,
    errors json NOT NULL,
    payload bytea NOT NULL,
    payload_length bigint NOT NULL,
    payload_sha256 bytea NOT NULL,
    replayed_at timestamptz,
    history json
);
CREATE INDEX dead_letters_received_at ON dead_letters (received_at);
CREATE INDEX dead_letters_event_id ON dead_letters (event_id);
CREATE TABLE suspects (
    source smallint NOT NULL,
    log_id uuid NOT NULL,
    sequence bigint NOT NULL,
    position integer NOT NULL,
    delivery bigint NOT NULL,
    strikes integer NOT NULL,
    PRIMARY KEY (source, log_id, sequence, position)
);
CREATE TABLE dead_letter_counts (
    source smallint NOT NULL,
    reason text NOT NULL,
    letters bigint NOT NULL,
    PRIMARY KEY (source, reason)
);
";

const SQLITE: &str = "
CREATE TABLE dead_letters (
    id blob PRIMARY KEY,
    received_at integer NOT NULL,
    source integer,
    reason text NOT NULL,
    event_id text,
    correlation_id text NOT NULL,
    errors text NOT NULL,
    payload blob NOT NULL,
    payload_length integer NOT NULL,
    payload_sha256 blob NOT NULL,
    replayed_at integer,
    history text
);
CREATE INDEX dead_letters_received_at ON dead_letters (received_at);
CREATE INDEX dead_letters_event_id ON dead_letters (event_id);
CREATE TABLE suspects (
    source integer NOT NULL,
    log_id blob NOT NULL,
    sequence integer NOT NULL,
    position integer NOT NULL,
    delivery bigint NOT NULL,
    strikes integer NOT NULL,
    PRIMARY KEY (source, log_id, sequence, position)
);
CREATE TABLE dead_letter_counts (
    source integer NOT NULL,
    reason text NOT NULL,
    letters integer NOT NULL,
    PRIMARY KEY (source, reason)
);
";

const DOWN: &str = "DROP TABLE suspects; DROP TABLE dead_letter_counts; DROP TABLE dead_letters;";

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
        crate::run(manager, DOWN, DOWN).await
    }
}
