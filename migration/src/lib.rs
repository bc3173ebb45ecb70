//! The schema of the ESS store, for PostgreSQL and SQLite.
//!
//! Each migration is one file: its tables, the reasons for their shape, and the SQL. A migration that was released never
//! changes; `down` undoes one that was just applied.

pub use sea_orm_migration::prelude::MigratorTrait;
use sea_orm_migration::prelude::*;

mod m20261124_000001_events;
mod m20261124_000002_ledger;
mod m20261124_000003_dead_letters;
mod m20261124_000004_summaries;
mod m20261124_000005_widths;
mod m20261124_000006_ends;
mod m20261126_000007_frames;
mod m20261126_000008_poison_searches;
mod m20261126_000008_wide_sums;
mod m20261126_000009_deltas;
mod m20261126_000011_damaged_summaries;
mod m20261127_000012_dictionary;
mod m20261127_000013_currencies;
mod script;

/// Number of the US dollar in ISO 4217.
const USD: i16 = 840;

tokio::task_local! {
    static CURRENCY_BEFORE: i16;
}

/// The currency of amounts that were stored by versions without currencies.
fn currency_before() -> i16 {
    CURRENCY_BEFORE.try_with(|currency| *currency).unwrap_or(USD)
}

/// Applies all migrations that are missing. Amounts that a version without currencies stored are taken to be in
/// `currency`, a number of ISO 4217.
///
/// # Errors
///
/// If the database cannot be reached, or refuses a migration.
pub async fn migrate<'c>(db: impl IntoSchemaManagerConnection<'c>, currency: i16) -> Result<(), DbErr> {
    CURRENCY_BEFORE.scope(currency, Migrator::up(db, None)).await
}

/// The migrations, in the order in which they are applied.
#[derive(Debug)]
pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m20261124_000001_events::migration()),
            Box::new(m20261124_000002_ledger::migration()),
            Box::new(m20261124_000003_dead_letters::migration()),
            Box::new(m20261124_000004_summaries::migration()),
            Box::new(m20261124_000005_widths::migration()),
            Box::new(m20261124_000006_ends::migration()),
            Box::new(m20261126_000007_frames::migration()),
            Box::new(m20261126_000009_deltas::migration()),
            Box::new(m20261126_000008_poison_searches::migration()),
            Box::new(m20261126_000008_wide_sums::migration()),
            Box::new(m20261126_000011_damaged_summaries::migration()),
            Box::new(m20261127_000012_dictionary::migration()),
            Box::new(m20261127_000013_currencies::migration(currency_before())),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names under which databases that exist know their migrations, in the order in which they were applied.
    #[test]
    fn names_and_order_of_migrations_never_change() {
        let names: Vec<_> =
            Migrator::migrations().iter().map(|migration| migration.name().to_owned()).collect();
        assert_eq!(
            names,
            [
                "m20261124_000001_events",
                "m20261124_000002_ledger",
                "m20261124_000003_dead_letters",
                "m20261124_000004_summaries",
                "m20261124_000005_widths",
                "m20261124_000006_ends",
                "m20261126_000007_frames",
                "m20261126_000009_deltas",
                "m20261126_000008_poison_searches",
                "m20261126_000008_wide_sums",
                "m20261126_000011_damaged_summaries",
                "m20261127_000012_dictionary",
                "m20261127_000013_currencies",
            ]
        );
    }
}
