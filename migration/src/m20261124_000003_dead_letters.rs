//! Dead letters: events that were refused or set aside, with their bytes and the reason.
//!
//! `replayed_at` is the instant at which a letter was sent again and accepted; `history` has the reasons that it had
//! before replays that failed.
//!
//! `id` follows from the origin of a letter (its frame and its position in it), so that a letter that is delivered twice
//! is stored once. `dead_letter_counts` counts all events that were ever refused or set aside, even if their letters were
//! deleted because of their age or size, which `fallen_out` counts.
//!
//! `suspects` marks the event that a collector of version 0.1 is about to handle, in a frame that ended collectors before.
//! A mark that a later delivery finds is a failed attempt.

use crate::script::{Script, SqlMigration};

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

pub(crate) fn migration() -> SqlMigration {
    SqlMigration::new("m20261124_000003_dead_letters", Script::each(POSTGRES, SQLITE), Script::both(DOWN))
}
