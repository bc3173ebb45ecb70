//! The ledger of version 0.1: outcomes of the events of each frame, counted in the transaction of their rows.
//!
//! `ledger_counts` has the number of events that were stored, were duplicates or were set aside, by source and log.
//! `ledger_frames` has the sequence numbers of processed frames, so that a redelivered frame is counted once. Sequence
//! numbers without a gap are folded into `ledger_watermarks`; its `holes` count those below the watermark that were never
//! processed and that the log no longer has. `ledger_writers` has the highest frame of each run of a gateway and the
//! number of events that it had sent by then, so that a lost frame leaves a gap. Transactions that run at the same time
//! write rows of different shards; readers sum over the shards, or take the highest.

use crate::script::{Script, SqlMigration};

/// For both databases: SQLite reads these types by their affinity.
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

pub(crate) fn migration() -> SqlMigration {
    SqlMigration::new("m20261124_000002_ledger", Script::with_uuids(TABLES), Script::both(DOWN))
}
