//! Migrations that are SQL text.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::{ConnectionTrait, DatabaseBackend, Statement};

/// Statements for each database.
pub(crate) struct Script {
    postgres: String,
    sqlite: String,
}

impl Script {
    /// A script for each database.
    pub fn each(postgres: &str, sqlite: &str) -> Self {
        Self { postgres: postgres.to_owned(), sqlite: sqlite.to_owned() }
    }

    /// One script for both. SQLite knows PostgreSQL's types by their affinity.
    pub fn both(sql: &str) -> Self {
        Self::each(sql, sql)
    }

    /// One script for both, with columns of the type uuid, which are blobs in SQLite.
    pub fn with_uuids(sql: &str) -> Self {
        Self::each(sql, &sql.replace("uuid", "blob"))
    }

    /// This script, and another one after it.
    pub fn then(self, next: Self) -> Self {
        Self { postgres: self.postgres + &next.postgres, sqlite: self.sqlite + &next.sqlite }
    }

    async fn run(&self, manager: &SchemaManager<'_>) -> Result<(), DbErr> {
        let sql = match manager.get_database_backend() {
            DatabaseBackend::Sqlite => &self.sqlite,
            _ => &self.postgres,
        };
        manager.get_connection().execute_unprepared(sql).await.map(drop)
    }
}

/// A migration of two scripts, each run in one transaction.
pub(crate) struct SqlMigration {
    name: &'static str,
    up: Script,
    down: Script,
    /// Table, or query in parentheses with a name, that has to be empty before `down`, and the error if it is not.
    empty: Option<(&'static str, &'static str)>,
}

impl SqlMigration {
    /// A migration. Its name is stored in the database: it never changes.
    pub fn new(name: &'static str, up: Script, down: Script) -> Self {
        Self { name, up, down, empty: None }
    }

    /// The same migration; it is undone only if a table, or a query in parentheses with a name, is empty.
    pub fn down_only_if_empty(self, table: &'static str, otherwise: &'static str) -> Self {
        Self { empty: Some((table, otherwise)), ..self }
    }
}

impl MigrationName for SqlMigration {
    fn name(&self) -> &str {
        self.name
    }
}

#[async_trait::async_trait]
impl MigrationTrait for SqlMigration {
    // SQLite, too: a process that is killed must not leave half of a migration.
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        self.up.run(manager).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        if let Some((table, otherwise)) = self.empty {
            let rows = Statement::from_string(
                manager.get_database_backend(),
                format!("SELECT 1 AS x FROM {table} LIMIT 1"),
            );
            if manager.get_connection().query_one_raw(rows).await?.is_some() {
                return Err(DbErr::Custom(otherwise.to_owned()));
            }
        }
        self.down.run(manager).await
    }
}
