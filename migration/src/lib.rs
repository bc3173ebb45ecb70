//! The schema of the ESS store, for PostgreSQL and SQLite.
//!
//! Each migration is one file that says what it makes and why it is shaped so. Migrations only ever
//! go forward on data that people have; `down` exists to undo one that was just applied.

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

/// Runs the migrations in their order.
#[derive(Debug)]
pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m20261124_000001_events::Migration),
            Box::new(m20261124_000002_ledger::Migration),
            Box::new(m20261124_000003_dead_letters::Migration),
            Box::new(m20261124_000004_summaries::Migration),
            Box::new(m20261124_000005_widths::Migration),
            Box::new(m20261124_000006_ends::Migration),
            Box::new(m20261126_000007_frames::Migration),
            Box::new(m20261126_000009_deltas::Migration),
            Box::new(m20261126_000008_poison_searches::Migration),
            Box::new(m20261126_000008_wide_sums::Migration),
            Box::new(m20261126_000011_damaged_summaries::Migration),
        ]
    }
}

/// Runs statements that are written for each database by itself.
async fn run(manager: &SchemaManager<'_>, postgres: &str, sqlite: &str) -> Result<(), DbErr> {
    let sql = match manager.get_database_backend() {
        sea_orm_migration::sea_orm::DatabaseBackend::Sqlite => sqlite,
        _ => postgres,
    };
    manager.get_connection().execute_unprepared(sql).await.map(drop)
}
