//! `poison_searches`: searches for events that end their collector, one row for each frame that is searched.
//!
//! The part of the frame from `first_position` to `end_position` (exclusive) is tried next. While `under_way` is 1, its
//! trial is under way, in the delivery of the frame that `delivery` numbers: a later delivery that finds such a row knows
//! that the collector ended during the trial. `strikes` is the number of failed attempts in a row at a part of one event.
//! `poison` lists the positions found so far, comma-separated.
//!
//! `suspects` is no longer read. Collectors of the version before still write it while both versions run, so it remains
//! until the next release.

use crate::script::{Script, SqlMigration};

/// For both databases: SQLite reads these types by their affinity.
const TABLE: &str = "
CREATE TABLE poison_searches (
    source smallint NOT NULL,
    log_id uuid NOT NULL,
    sequence bigint NOT NULL,
    first_position integer NOT NULL,
    end_position integer NOT NULL,
    strikes integer NOT NULL,
    under_way smallint NOT NULL,
    delivery bigint NOT NULL,
    poison text NOT NULL,
    PRIMARY KEY (source, log_id, sequence)
);
";

const DOWN: &str = "DROP TABLE poison_searches;";

pub(crate) fn migration() -> SqlMigration {
    SqlMigration::new("m20261126_000008_poison_searches", Script::both(TABLE), Script::both(DOWN))
}
