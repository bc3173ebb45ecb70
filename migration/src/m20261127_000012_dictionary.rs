//! `dictionary`: the numbers of names that no program knows beforehand: declared sources, their types of events, and
//! words of their columns.
//!
//! Numbers are given one after the other under a lock, from 1,000, so that they never meet those of built-in tables, and
//! are the same for ever. `words` has each of them too, for the view `events`. `kind` says what a name is: 1 a source, 2
//! a type, 3 a device, 4 a browser, 5 a gender, 6 a referrer. `source` and `stage` are 0 where they do not apply.

use crate::script::{Script, SqlMigration};

/// For both databases: SQLite reads these types by their affinity.
const TABLE: &str = "
CREATE TABLE dictionary (
    code smallint PRIMARY KEY,
    kind smallint NOT NULL,
    source smallint NOT NULL,
    stage smallint NOT NULL,
    word text NOT NULL,
    UNIQUE (source, kind, stage, word)
);
";

/// Rows keep the numbers, so a table with names cannot be undone.
const DOWN: &str = "DROP TABLE dictionary;";

pub(crate) fn migration() -> SqlMigration {
    SqlMigration::new("m20261127_000012_dictionary", Script::both(TABLE), Script::both(DOWN))
        .down_only_if_empty("dictionary", "the dictionary has names of sources whose events may be stored")
}
