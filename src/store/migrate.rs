//! Migrating the schema at start. Any number of processes may do so at the same time: they take turns.

use sea_orm::sqlx::postgres::PgPoolOptions;
use sea_orm::{ConnectionTrait, DatabaseConnection, TransactionTrait, Value};

use crate::event::all_codes;
use crate::money::Currency;
use crate::source::OTHER;
use crate::store::connect::{ACQUIRE_TIMEOUT, Backend, Conflicts, Store};
use crate::store::error::StoreError;
use crate::store::locks::MIGRATION_LOCK;
use crate::store::sql::Sql;

impl Store {
    /// Brings the schema up to date.
    ///
    /// # Errors
    ///
    /// If the database cannot be reached, or refuses a migration.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        self.reach().await?;
        match self.backend() {
            Backend::Sqlite(_) => {
                let _lock = self.lock_sqlite_file().await?;
                migration::migrate(self.db().pool(), self.currency().number()).await?;
                update_codes(self.db().pool()).await?;
                // A schema that only the write-ahead log holds would be lost if that was damaged.
                self.checkpoint().await
            }
            // A collector of the version before and a migration may wait for each other's locks: a deadlock.
            Backend::Postgres(..) => {
                let mut conflicts = Conflicts::default();
                loop {
                    let migrated = self.migrate_postgres().await;
                    if !conflicts.rest_after(migrated.as_ref().err()).await {
                        return migrated;
                    }
                }
            }
        }
    }

    /// Takes a lock on a file beside the database, which is held until the file is dropped.
    async fn lock_sqlite_file(&self) -> Result<std::fs::File, StoreError> {
        let row = Sql::new("PRAGMA database_list").row(self.db()).await?;
        let file: String = row.and_then(|row| row.try_get("", "file").ok()).unwrap_or_default();
        let lock = move || {
            let lock = std::fs::File::create(format!("{file}.migrating"))?;
            lock.lock()?;
            Ok::<_, std::io::Error>(lock)
        };
        let locked = tokio::task::spawn_blocking(lock).await;
        let locked = locked.map_err(|error| StoreError::internal(error.to_string()).because(error))?;
        locked.map_err(|error| {
            StoreError::unavailable(format!("the lock of migrations: {error}")).because(error)
        })
    }

    /// Migrates PostgreSQL in one transaction, which holds a lock. A pooler gives the whole transaction one connection
    /// of the server; nothing depends on a session that is longer.
    async fn migrate_postgres(&self) -> Result<(), StoreError> {
        let Backend::Postgres(pool, sessions) = self.backend() else { return Ok(()) };
        // The first connection finds out whether there is a pooler.
        drop(sessions.acquire(pool).await?);
        let one = PgPoolOptions::new().max_connections(1).acquire_timeout(ACQUIRE_TIMEOUT);
        let db = DatabaseConnection::from(one.connect_lazy_with((*pool.connect_options()).clone()));
        let tx = db.begin().await?;
        tx.execute_unprepared(&format!("SELECT pg_advisory_xact_lock({MIGRATION_LOCK})")).await?;
        // Migrations prepare statements under names. Behind a pooler, statements of another client may have the same
        // names before, and of this one after the transaction.
        let deallocate = if sessions.named() { "" } else { "DEALLOCATE ALL" };
        tx.execute_unprepared(deallocate).await?;
        migration::migrate(&tx, self.currency().number()).await?;
        update_codes(&tx).await?;
        tx.execute_unprepared(deallocate).await?;
        tx.commit().await?;
        Ok(db.close().await?)
    }
}

/// Updates the tables of codes, which the view `events` reads: this version knows them all.
async fn update_codes(db: &impl ConnectionTrait) -> Result<(), StoreError> {
    for code in all_codes().chain([OTHER]) {
        let sql = "INSERT INTO words (code, word) VALUES ($1, $2)
                   ON CONFLICT (code) DO UPDATE SET word = excluded.word WHERE words.word <> excluded.word";
        Sql::new(sql).bind(code.number).bind(code.name).execute(db).await?;
    }
    // One statement for all: a starting process waits for it.
    let mut sql = Sql::new("INSERT INTO currencies (number, code) VALUES ");
    for (position, (code, currency)) in Currency::all().enumerate() {
        sql.push(if position == 0 { "(" } else { ", (" });
        sql.push_list([Value::from(currency.number()), code.into()]).push(")");
    }
    let update =
        " ON CONFLICT (number) DO UPDATE SET code = excluded.code WHERE currencies.code <> excluded.code";
    sql.push(update);
    sql.execute(db).await?;
    Ok(())
}
