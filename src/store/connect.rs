//! Connecting, migrating, and asking whether the store is there.

use std::path::Path;
use std::time::Duration;

use migration::{Migrator, MigratorTrait};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sea_orm::sqlx::postgres::PgPoolOptions;
use sea_orm::sqlx::sqlite::{SqliteJournalMode, SqliteSynchronous};
use sea_orm::sqlx::{self, AssertSqlSafe, ConnectOptions as _, Connection, PgPool, SqlitePool};
use sea_orm::{
    ConnectOptions, ConnectionTrait, Database, DatabaseBackend, DatabaseConnection, DbErr, Statement,
    TransactionTrait,
};

use crate::config::{Config, Secret};
use crate::event::all_words;
use crate::store::cancel::{CancelFlags, Cancellation};
use crate::store::error::StoreError;
use crate::store::session::Sessions;
use crate::store::transaction::{Connections, Transaction};
use crate::store::write::strategy::Wary;

/// How long a statement waits for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long SQLite waits for another writer.
const BUSY_TIMEOUT: Duration = Duration::from_secs(15);
/// How often work that was in another's way is done again, and after which rest.
const CONFLICTS: u32 = 100;
const CONFLICT_REST: Duration = Duration::from_millis(50);
/// Time limit of the connection that finds out why a database cannot be reached.
const REACH_TIMEOUT: Duration = Duration::from_secs(4);
/// The size to which SQLite cuts its write-ahead log once that was moved into the database's file, in bytes.
const JOURNAL_SIZE_LIMIT: u64 = 64 << 20;
/// Time for which closing waits for statements that still run.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// The advisory lock under which PostgreSQL is migrated: "ess" and a number.
const MIGRATION_LOCK: i64 = 0x0065_7373_0000_0001;
/// Connections for lists: dead letters, and the ways of events. They wait for each other, not for reports.
const LISTS: u32 = 2;
/// The embedded database's file in the data folder.
pub const SQLITE_FILE: &str = "ess.db";

/// What a pool of connections is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A collector with so many transactions in flight.
    Write {
        /// Transactions in flight.
        transactions: usize,
    },
    /// Reports; this many at one time.
    Read {
        /// Reports at one time.
        connections: u32,
    },
}

/// A pool of connections to the store.
#[derive(Debug, Clone)]
pub struct Store {
    db: Connections,
    /// Connections for lists.
    lists: Connections,
    /// Cancellation of reports; present on every SQLite pool.
    cancellation: Option<Cancellation>,
    /// Whether rows may be copied without looking for them first.
    pub(in crate::store) wary: Wary,
}

/// What a transaction with one view of all tables is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Snapshot {
    Read,
    /// Ends with an error if another one changed what this one changes.
    Write,
}

pub(in crate::store) enum Backend<'a> {
    Postgres(&'a PgPool, &'a Sessions),
    Sqlite(&'a SqlitePool),
}

/// Characters of a path that a URL may hold as they are.
const IN_A_PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'.').remove(b'-').remove(b'_');

/// The URL of the embedded database in a data folder, whatever characters the folder's name has.
fn embedded_url(data_dir: &Path) -> String {
    let file = data_dir.join(SQLITE_FILE);
    format!("sqlite://{}?mode=rwc", utf8_percent_encode(&file.to_string_lossy(), IN_A_PATH))
}

impl Store {
    /// The pool that a configuration asks for; connections are made when they are needed.
    pub async fn open(config: &Config, purpose: Purpose) -> Result<Self, StoreError> {
        let url = config.database_url.as_ref().map(Secret::expose);
        let read_only = config.reporter_database_url.as_ref().map(Secret::expose);
        let url = match purpose {
            Purpose::Read { .. } => read_only.or(url),
            Purpose::Write { .. } => url,
        };
        match url {
            Some(url) => Self::connect(url, purpose).await,
            None => {
                let made = std::fs::create_dir_all(&config.data_dir);
                made.map_err(|error| {
                    StoreError::unavailable(format!("{}: {error}", config.data_dir.display()))
                })?;
                Self::connect(&embedded_url(&config.data_dir), purpose).await
            }
        }
    }

    /// The pool to a database, by its URL.
    pub async fn connect(url: &str, purpose: Purpose) -> Result<Self, StoreError> {
        let sqlite = url.starts_with("sqlite:");
        let connections = match purpose {
            // SQLite has one writer at a time in any case.
            Purpose::Write { .. } if sqlite => 1,
            // One more for health, one for folding the ledger.
            Purpose::Write { transactions } => u32::try_from(transactions).unwrap_or(16) + 2,
            Purpose::Read { connections } => connections,
        };
        let sessions = Sessions::default();
        let open = async |connections| {
            let pool = Database::connect(Self::options(url, connections, &sessions)).await?;
            Ok::<_, DbErr>(Connections::new(pool, sessions.clone()))
        };
        let mut options = Self::options(url, connections, &sessions);
        let cancellation = match purpose {
            _ if sqlite => {
                let flags = CancelFlags::default();
                let watching = flags.clone();
                options.map_sqlx_sqlite_pool_opts(move |pool| {
                    // SQLite rolls back by itself where the disk is full; the library believes then that the
                    // transaction goes on, for ever.
                    watching.install(pool).after_release(|connection, _| {
                        Box::pin(async move {
                            if !connection.is_in_transaction() {
                                return Ok(true);
                            }
                            // A rollback may be under way: what comes behind it waits for it.
                            connection.ping().await?;
                            Ok(!connection.is_in_transaction())
                        })
                    })
                });
                Some(Cancellation::Sqlite(flags))
            }
            Purpose::Read { .. } => Some(Cancellation::Postgres(open(1).await?)),
            Purpose::Write { .. } => None,
        };
        let db = Connections::new(Database::connect(options).await?, sessions.clone());
        let lists = match purpose {
            Purpose::Read { .. } => open(LISTS).await?,
            Purpose::Write { .. } => db.clone(),
        };
        Ok(Self { db, lists, cancellation, wary: Wary::default() })
    }

    fn options(url: &str, connections: u32, sessions: &Sessions) -> ConnectOptions {
        let (connecting, watching) = (sessions.clone(), sessions.clone());
        let mut options = ConnectOptions::new(url);
        options
            .max_connections(connections)
            .min_connections(0)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .connect_lazy(true)
            .test_before_acquire(false)
            .sqlx_logging(false)
            .map_sqlx_postgres_opts(move |options| connecting.options(options))
            // What was large in between, a summary's registers, is let go with the transaction.
            .map_sqlx_postgres_pool_opts(move |pool| {
                watching.watch(pool).after_release(|connection, _| {
                    connection.shrink_buffers();
                    Box::pin(std::future::ready(Ok(true)))
                })
            })
            .map_sqlx_sqlite_opts(|options| {
                options
                    .journal_mode(SqliteJournalMode::Wal)
                    .synchronous(SqliteSynchronous::Full)
                    .busy_timeout(BUSY_TIMEOUT)
                    .foreign_keys(false)
                    .pragma("journal_size_limit", JOURNAL_SIZE_LIMIT.to_string())
                    // Deleted bytes are overwritten in the page that is written anyway.
                    .pragma("secure_delete", "FAST")
            });
        options
    }

    /// Cancellation of reports, if the pool has it.
    pub(in crate::store) fn cancellation(&self) -> Option<&Cancellation> {
        self.cancellation.as_ref()
    }

    /// The connection beside those for reports, if there is one.
    fn beside(&self) -> Option<&Connections> {
        match &self.cancellation {
            Some(Cancellation::Postgres(beside)) => Some(beside),
            _ => None,
        }
    }

    pub(in crate::store) fn backend(&self) -> Backend<'_> {
        match self.db.postgres() {
            Some(pool) => Backend::Postgres(pool, &self.db.sessions),
            None => Backend::Sqlite(self.db.pool().get_sqlite_connection_pool()),
        }
    }

    /// The connections, for sea-orm's queries.
    pub fn db(&self) -> &Connections {
        &self.db
    }

    /// The connections for lists, which reports do not use.
    pub(in crate::store) fn lists(&self) -> &Connections {
        &self.lists
    }

    /// The database's name, as OpenTelemetry has it.
    pub fn system(&self) -> &'static str {
        if self.is_postgres() { "postgresql" } else { "sqlite" }
    }

    /// Whether it is PostgreSQL.
    pub fn is_postgres(&self) -> bool {
        self.db.postgres().is_some()
    }

    /// A transaction that sees all tables as they were at one moment.
    pub(in crate::store) async fn snapshot(&self, purpose: Snapshot) -> Result<Transaction, StoreError> {
        self.db.snapshot(purpose).await
    }

    /// Does something again until no other transaction is in its way.
    pub(in crate::store) async fn retry_conflicts<T>(
        &self,
        work: impl AsyncFn() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut tries = 0..CONFLICTS;
        loop {
            match work().await {
                Err(StoreError::Conflict { .. }) if tries.next().is_some() => {
                    tokio::time::sleep(CONFLICT_REST).await;
                }
                other => return other,
            }
        }
    }

    /// Makes sure that a connection can be made. A pool without connections would try again and again until its
    /// time is over, and say no more than that; one connection beside it says why at once.
    ///
    /// # Errors
    ///
    /// The cause, with host and port.
    pub async fn reach(&self) -> Result<(), StoreError> {
        let Some(pool) = self.beside().unwrap_or(&self.db).postgres() else { return Ok(()) };
        if pool.size() > 0 {
            return Ok(());
        }
        let options = pool.connect_options();
        let place = match options.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => format!("{}:{}", options.get_host(), options.get_port()),
        };
        match tokio::time::timeout(REACH_TIMEOUT, options.connect()).await {
            Ok(Ok(connection)) => {
                let _ = connection.close().await;
                Ok(())
            }
            // What a pooler refuses is done without.
            Ok(Err(sqlx::Error::Database(fault))) if self.db.sessions.do_without(&*fault, pool) => Ok(()),
            Ok(Err(sqlx::Error::Database(fault))) => {
                Err(StoreError::unavailable(format!("{place}: {}", fault.message())))
            }
            Ok(Err(error)) => Err(StoreError::unavailable(format!("{place}: {error}"))),
            Err(_) => Err(StoreError::unavailable(format!("{place}: no answer within {REACH_TIMEOUT:?}"))),
        }
    }

    /// Brings the schema up to date. Several at once wait for each other.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        self.reach().await?;
        match self.backend() {
            Backend::Sqlite(_) => {
                let _lock = self.lock_sqlite_file().await?;
                Migrator::up(self.db.pool(), None).await?;
                name_words(self.db.pool()).await?;
                // A schema that is in the write-ahead log alone would be lost with any damage to that.
                self.empty_write_ahead_log().await
            }
            Backend::Postgres(pool, sessions) => {
                let mut tries = 0..CONFLICTS;
                loop {
                    match migrate_postgres(pool, sessions).await {
                        // A collector of the version before waits for what this has, and this for what it has.
                        Err(StoreError::Conflict { .. }) if tries.next().is_some() => {
                            tokio::time::sleep(CONFLICT_REST).await;
                        }
                        other => return other,
                    }
                }
            }
        }
    }

    /// A lock on a file beside the database, held while it lives.
    async fn lock_sqlite_file(&self) -> Result<std::fs::File, StoreError> {
        let row = self
            .db
            .query_one_raw(Statement::from_string(DatabaseBackend::Sqlite, "PRAGMA database_list"))
            .await?;
        let file: String = row.and_then(|row| row.try_get("", "file").ok()).unwrap_or_default();
        tokio::task::spawn_blocking(move || {
            let lock = std::fs::File::create(format!("{file}.migrating"))?;
            lock.lock()?;
            Ok(lock)
        })
        .await
        .map_err(|error| StoreError::unavailable(error.to_string()))?
        .map_err(|error: std::io::Error| StoreError::unavailable(error.to_string()))
    }

    /// Whether so many migrations are enough for this version.
    pub(in crate::store) fn check_migrations(applied: i64) -> Result<(), StoreError> {
        let needed = Migrator::migrations().len();
        if usize::try_from(applied).unwrap_or(0) < needed {
            return Err(StoreError::schema(format!("{applied} of {needed} migrations are applied")));
        }
        Ok(())
    }

    /// Whether the database answers and has the schema that this version needs.
    pub async fn check(&self) -> Result<(), StoreError> {
        self.reach().await?;
        let sql = "SELECT count(*) AS applied FROM seaql_migrations";
        // Readiness does not wait for reports.
        let db = self.beside().unwrap_or(&self.db);
        let row = db.query_one_raw(Statement::from_string(db.get_database_backend(), sql)).await?;
        let applied: i64 = row.map_or(Ok(0), |row| row.try_get("", "applied"))?;
        Self::check_migrations(applied)
    }

    /// Moves what SQLite's write-ahead log holds into the database's file, as far as no reader needs it.
    pub(in crate::store) async fn empty_write_ahead_log(&self) -> Result<(), StoreError> {
        let Backend::Sqlite(pool) = self.backend() else { return Ok(()) };
        let mut connection = pool.acquire().await?;
        // Others that read or write are not waited for.
        sqlx::query("PRAGMA busy_timeout = 0").execute(&mut *connection).await?;
        let emptied = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").fetch_optional(&mut *connection).await;
        let wait = format!("PRAGMA busy_timeout = {}", BUSY_TIMEOUT.as_millis());
        sqlx::query(AssertSqlSafe(wait)).execute(&mut *connection).await?;
        match emptied {
            Ok(_) => Ok(()),
            Err(error) => {
                let error = StoreError::from(error);
                tracing::debug!(%error, "the write-ahead log was not emptied now");
                Ok(())
            }
        }
    }

    /// Overwrites what was deleted from SQLite's file, by writing all of it anew. PostgreSQL cleans up by itself.
    ///
    /// # Errors
    ///
    /// If there is no room for it, or another process is in the way for too long.
    pub async fn vacuum(&self) -> Result<(), StoreError> {
        let Backend::Sqlite(pool) = self.backend() else { return Ok(()) };
        sqlx::query("VACUUM").execute(pool).await?;
        self.empty_write_ahead_log().await
    }

    /// Ends all connections. SQLite's file is whole by itself then, unless another process uses it.
    ///
    /// # Errors
    ///
    /// If something still runs after some seconds.
    pub async fn close(&self) -> Result<(), StoreError> {
        // SQLite's one pool is shared by all collectors.
        if matches!(self.backend(), Backend::Sqlite(pool) if pool.is_closed()) {
            return Ok(());
        }
        let close = async {
            self.empty_write_ahead_log().await?;
            if let Some(beside) = self.beside() {
                beside.pool().close_by_ref().await?;
            }
            self.lists.pool().close_by_ref().await?;
            self.db.pool().close_by_ref().await.map_err(StoreError::from)
        };
        tokio::time::timeout(CLOSE_TIMEOUT, close).await.unwrap_or_else(|_| {
            Err(StoreError::unavailable(format!("statements still run after {CLOSE_TIMEOUT:?}")))
        })
    }
}

/// Migrates PostgreSQL in one transaction, which holds a lock: no session has to outlive it, and all that a pooler
/// does with the connection it does between transactions.
async fn migrate_postgres(pool: &PgPool, sessions: &Sessions) -> Result<(), StoreError> {
    // The first connection tells of what kind sessions are.
    drop(sessions.acquire(pool).await?);
    let alone = PgPoolOptions::new().max_connections(1).acquire_timeout(ACQUIRE_TIMEOUT);
    let db = DatabaseConnection::from(alone.connect_lazy_with((*pool.connect_options()).clone()));
    let tx = db.begin().await?;
    let lock = format!("SELECT pg_advisory_xact_lock({MIGRATION_LOCK})");
    tx.execute_unprepared(&lock).await?;
    // Migrations prepare statements under names: where the server's connection is another client's before and
    // after, there are none.
    let forget = if sessions.named() { "" } else { "DEALLOCATE ALL" };
    tx.execute_unprepared(forget).await?;
    Migrator::up(&tx, None).await?;
    name_words(&tx).await?;
    tx.execute_unprepared(forget).await?;
    tx.commit().await?;
    Ok(db.close().await?)
}

/// Brings the table of words up to date: the contract's words are the code's to know.
async fn name_words(db: &impl ConnectionTrait) -> Result<(), StoreError> {
    for word in all_words() {
        let sql = "INSERT INTO words (code, word) VALUES ($1, $2)
                   ON CONFLICT (code) DO UPDATE SET word = excluded.word WHERE words.word <> excluded.word";
        let values = [word.code.into(), word.text.into()];
        db.execute_raw(Statement::from_sql_and_values(db.get_database_backend(), sql, values)).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_database_lies_in_the_folder_that_was_named() {
        let parent = tempfile::tempdir().unwrap();
        for name in ["pd%41", "odd ?x", "a#b", "plain", "ünï &=+"] {
            let folder = parent.path().join(name);
            let options: sqlx::sqlite::SqliteConnectOptions = embedded_url(&folder).parse().unwrap();
            assert_eq!(options.get_filename(), folder.join(SQLITE_FILE), "{name}");
        }
    }
}
