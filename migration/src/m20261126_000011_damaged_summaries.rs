//! `damaged_summaries`: summaries and deltas that cannot be decoded, so that each is reported once and counted.
//!
//! `level`, `at` and `version` are those of the summary. For a delta, `level` is -1, `at` its id and `version` its tag. A
//! row is obsolete once its summary has another version or its delta was deleted.

use crate::script::{Script, SqlMigration};

/// For both databases: SQLite reads these types by their affinity.
const TABLE: &str = "
CREATE TABLE damaged_summaries (
    source smallint NOT NULL,
    level smallint NOT NULL,
    at bigint NOT NULL,
    version bigint NOT NULL,
    PRIMARY KEY (source, level, at)
);
";

const DOWN: &str = "DROP TABLE damaged_summaries;";

pub(crate) fn migration() -> SqlMigration {
    SqlMigration::new("m20261126_000011_damaged_summaries", Script::both(TABLE), Script::both(DOWN))
}
