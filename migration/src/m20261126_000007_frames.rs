//! Frames are identified by writer (one run of one gateway) and number within it.
//!
//! A log that was restored from an older copy gives sequence numbers a second time, to other frames; a writer never gives
//! a number twice. `ledger_claims` has a row for each frame that was processed lately, inserted in the transaction of its
//! events. Folding turns claims into `ledger_runs`, consecutive frames of one writer with its running totals, and into
//! `ledger_places`, consecutive sequence numbers of one log. `ledger_repeats` has the sequence numbers of redelivered
//! frames.
//!
//! `ledger_writers` has for each writer the highest processed frame, the number of frames processed from the first one on
//! without a gap (`prefix`), and the last frame that the log is known to have acknowledged together with all before it
//! (`acked`). An acknowledged frame that is neither processed nor in the log is missing.
//!
//! `ledger_logs` has the last observation of each log: its highest sequence number, the lowest one that was given a second
//! time (`base`), and the number of those that were given up (`holes`). `ledger_totals` has for each source what was
//! missing of writers that were deleted since, and what was missing in the last reconciliation.
//!
//! Frames of version 0.1 are known by their sequence number alone. Its tables stay as `ledger_before_…`; a frame is looked
//! for there only if its writer had sent its number by then. `lost_before` counts events that were missing; `tail_before`
//! counts events that were still in a log, and are missing if that log is never seen again.

use crate::script::{Script, SqlMigration};

/// For both databases: SQLite reads these types by their affinity.
const UP: &str = "
ALTER TABLE ledger_frames RENAME TO ledger_before_frames;
ALTER TABLE ledger_watermarks RENAME TO ledger_before_watermarks;
ALTER TABLE ledger_writers RENAME TO ledger_before_writers;
CREATE TABLE ledger_claims (
    source smallint NOT NULL,
    writer uuid NOT NULL,
    number bigint NOT NULL,
    log_id uuid NOT NULL,
    sequence bigint NOT NULL,
    events bigint NOT NULL,
    total bigint NOT NULL,
    acked bigint NOT NULL,
    acked_total bigint NOT NULL,
    PRIMARY KEY (source, writer, number)
);
CREATE TABLE ledger_repeats (
    source smallint NOT NULL,
    log_id uuid NOT NULL,
    sequence bigint NOT NULL,
    PRIMARY KEY (source, log_id, sequence)
);
CREATE TABLE ledger_runs (
    source smallint NOT NULL,
    writer uuid NOT NULL,
    first_number bigint NOT NULL,
    last_number bigint NOT NULL,
    total_before bigint NOT NULL,
    total bigint NOT NULL,
    PRIMARY KEY (source, writer, first_number)
);
CREATE TABLE ledger_writers (
    source smallint NOT NULL,
    writer uuid NOT NULL,
    number bigint NOT NULL,
    total bigint NOT NULL,
    prefix bigint NOT NULL,
    acked bigint NOT NULL,
    acked_total bigint NOT NULL,
    touched bigint NOT NULL,
    PRIMARY KEY (source, writer)
);
CREATE INDEX ledger_writers_by_age ON ledger_writers (source, touched);
CREATE INDEX ledger_writers_open ON ledger_writers (source) WHERE acked > prefix;
CREATE TABLE ledger_places (
    source smallint NOT NULL,
    log_id uuid NOT NULL,
    first_place bigint NOT NULL,
    last_place bigint NOT NULL,
    PRIMARY KEY (source, log_id, first_place)
);
CREATE TABLE ledger_logs (
    source smallint NOT NULL,
    log_id uuid NOT NULL,
    last bigint NOT NULL,
    base bigint NOT NULL,
    holes bigint NOT NULL,
    lost_before bigint NOT NULL,
    tail_before bigint NOT NULL,
    seen bigint NOT NULL,
    PRIMARY KEY (source, log_id)
);
CREATE TABLE ledger_totals (
    source smallint NOT NULL,
    lost_frames bigint NOT NULL,
    lost_events bigint NOT NULL,
    missing bigint NOT NULL,
    PRIMARY KEY (source)
);
INSERT INTO ledger_places (source, log_id, first_place, last_place)
    SELECT source, log_id, 1, sequence FROM ledger_before_watermarks WHERE sequence > 0;
INSERT INTO ledger_places (source, log_id, first_place, last_place)
    SELECT source, log_id, min(sequence), max(sequence) FROM (
        SELECT f.source, f.log_id, f.sequence,
            f.sequence - row_number() OVER (PARTITION BY f.source, f.log_id ORDER BY f.sequence) AS run
        FROM ledger_before_frames f LEFT JOIN ledger_before_watermarks w
            ON w.source = f.source AND w.log_id = f.log_id
        WHERE f.sequence > coalesce(w.sequence, 0)
    ) places GROUP BY source, log_id, run;
INSERT INTO ledger_logs (source, log_id, last, base, holes, lost_before, tail_before, seen)
    SELECT known.source, known.log_id, 0, 9223372036854775807, 0,
        CASE WHEN coalesce(marks.holes, 0) = 0 THEN 0
             WHEN known.unknown < marks.holes OR EXISTS (SELECT 1 FROM ledger_before_frames f
                 WHERE f.source = known.source AND f.log_id = known.log_id) THEN marks.holes
             ELSE known.unknown END,
        CASE WHEN coalesce(marks.holes, 0) = 0 AND known.unknown > 0 THEN known.unknown ELSE 0 END, 0
    FROM (
        SELECT source, log_id, CAST(sum(events) AS bigint) AS unknown FROM (
            SELECT source, log_id, max(total) AS events FROM ledger_before_writers GROUP BY source, log_id, writer
            UNION ALL SELECT source, log_id, -(stored + duplicates + quarantined) FROM ledger_counts
        ) parts GROUP BY source, log_id
    ) known LEFT JOIN ledger_before_watermarks marks
        ON marks.source = known.source AND marks.log_id = known.log_id;
";

const DOWN: &str = "
DROP TABLE ledger_totals;
DROP TABLE ledger_logs;
DROP TABLE ledger_places;
DROP TABLE ledger_writers;
DROP TABLE ledger_runs;
DROP TABLE ledger_repeats;
DROP TABLE ledger_claims;
ALTER TABLE ledger_before_writers RENAME TO ledger_writers;
ALTER TABLE ledger_before_watermarks RENAME TO ledger_watermarks;
ALTER TABLE ledger_before_frames RENAME TO ledger_frames;
";

pub(crate) fn migration() -> SqlMigration {
    SqlMigration::new("m20261126_000007_frames", Script::with_uuids(UP), Script::both(DOWN))
}
