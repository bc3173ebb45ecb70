//! The ledger: what became of the events of every frame, counted in the transaction of their rows.
//!
//! `ledger_counts` says how many events were stored, were duplicates or were set aside, by source and
//! log. `ledger_frames` remembers which frames were processed, by their place in the log, so that a
//! frame that comes again is counted once; places without a gap below are folded into
//! `ledger_watermarks`, whose `holes` are places below that were never processed and that the log no longer has.
//! `ledger_writers` keeps the highest frame seen of each gateway run and how many
//! events it had sent by then, so that a frame that was lost shows as a hole. `shard` keeps
//! transactions that run at the same time out of each other's way; readers sum (or take the highest).

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

/// Both databases take these types: SQLite goes by their affinity.
const TABLES: &str = "
CREATE TABLE ledger_counts (
    source smallint NOT NULL,
    log_id uuid NOT NULL,
    shard smallint NOT NULL,
    stored bigint NOT NULL,
    duplicates bigint NOT NULL,
    quarantined bigint NOT NULL,
    PRIMARY KEY (source, log_id, shard)
);
CREATE TABLE ledger_frames (
    source smallint NOT NULL,
    log_id uuid NOT NULL,
    sequence bigint NOT NULL,
    PRIMARY KEY (source, log_id, sequence)
);
CREATE TABLE ledger_watermarks (
    source smallint NOT NULL,
    log_id uuid NOT NULL,
    sequence bigint NOT NULL,
    holes bigint NOT NULL,
    PRIMARY KEY (source, log_id)
);
CREATE TABLE ledger_writers (
    source smallint NOT NULL,
    log_id uuid NOT NULL,
    writer uuid NOT NULL,
    shard smallint NOT NULL,
    number bigint NOT NULL,
    total bigint NOT NULL,
    PRIMARY KEY (source, log_id, writer, shard)
);
";

const DOWN: &str = "DROP TABLE ledger_writers; DROP TABLE ledger_watermarks; DROP TABLE ledger_frames;
DROP TABLE ledger_counts;";

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    // SQLite too: a kill must not leave half of it.
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        crate::run(manager, TABLES, &TABLES.replace("uuid", "blob")).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        crate::run(manager, DOWN, DOWN).await
    }
}
