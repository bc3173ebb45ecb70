//! Revenue of a campaign in its first and its last minute.
//!
//! A campaign that begins before a range or ends after it earned at most the remainder within the range: with these
//! bounds, few campaigns have to be summed from rows to find the top campaigns of a range. `first_units` and `last_units`
//! are sums of whole units, each sale rounded down, so the remainder is never too small.
//!
//! `ends_of` is the number of transactions for which both are known. If it is not the number of all transactions, both are
//! ignored: so it is for campaigns from before, and for those that the version before adds to while it runs beside this
//! one.

use crate::script::{Script, SqlMigration};

const UP: &str = "
ALTER TABLE campaigns ADD COLUMN first_units bigint NOT NULL DEFAULT 0;
ALTER TABLE campaigns ADD COLUMN last_units bigint NOT NULL DEFAULT 0;
ALTER TABLE campaigns ADD COLUMN ends_of bigint NOT NULL DEFAULT 0;
DROP INDEX campaigns_by_revenue;
";

const POSTGRES: &str = "
CREATE INDEX campaigns_by_revenue ON campaigns (source, units DESC, micros DESC, campaign_id)
    INCLUDE (transactions, first_minute, last_minute, first_units, last_units, ends_of);
";

const SQLITE: &str = "
CREATE INDEX campaigns_by_revenue ON campaigns (source, units DESC, micros DESC, campaign_id, transactions,
    first_minute, last_minute, first_units, last_units, ends_of);
";

const DOWN: &str = "
DROP INDEX campaigns_by_revenue;
ALTER TABLE campaigns DROP COLUMN first_units;
ALTER TABLE campaigns DROP COLUMN last_units;
ALTER TABLE campaigns DROP COLUMN ends_of;
";

const POSTGRES_BEFORE: &str = "
CREATE INDEX campaigns_by_revenue ON campaigns (source, units DESC, micros DESC, campaign_id)
    INCLUDE (transactions, first_minute, last_minute);
";

const SQLITE_BEFORE: &str = "
CREATE INDEX campaigns_by_revenue ON campaigns (source, units DESC, micros DESC, campaign_id, transactions,
    first_minute, last_minute);
";

pub(crate) fn migration() -> SqlMigration {
    SqlMigration::new(
        "m20261124_000006_ends",
        Script::both(UP).then(Script::each(POSTGRES, SQLITE)),
        Script::both(DOWN).then(Script::each(POSTGRES_BEFORE, SQLITE_BEFORE)),
    )
}
