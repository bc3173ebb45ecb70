//! Connecting, migrating, and asking whether the store is there.

use std::path::Path;
use std::time::Duration;

use migration::{Migrator, MigratorTrait};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sea_orm::sqlx::sqlite::{SqliteJournalMode, SqliteSynchronous};
use sea_orm::sqlx::{self, AssertSqlSafe, ConnectOptions as _, Connection, PgPool, SqlitePool};
use sea_orm::{
    AccessMode, ConnectOptions, ConnectionTrait, Database, DatabaseBackend, DatabaseConnection,
    DatabaseTransaction, IsolationLevel, SqliteTransactionMode, Statement, TransactionOptions,
    TransactionTrait,
};

use super::error::StoreError;
use super::stop::{Control, Flags};
use super::way::Wary;
use crate::config::{Config, Secret};
use crate::event::all_words;

/// How long a statement waits for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long SQLite waits for another writer.
const BUSY_TIMEOUT: Duration = Duration::from_secs(15);
/// How often work that was in another's way is done again, and after which rest.
const CONFLICTS: u32 = 100;
const CONFLICT_REST: Duration = Duration::from_millis(50);
/// How long one connection is tried to find out why a database cannot be reached.
const REACH_TIMEOUT: Duration = Duration::from_secs(4);
/// The size to which SQLite cuts its write-ahead log once that was moved into the database's file, in bytes.
const JOURNAL_SIZE_LIMIT: u64 = 64 << 20;
/// How long closing waits for statements that still run.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// The advisory lock under which PostgreSQL is migrated: "ess" and a number.
const MIGRATION_LOCK: i64 = 0x0065_7373_0000_0001;
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
    db: DatabaseConnection,
    /// To stop what is done for reports; SQLite's connections have it in any case.
    control: Option<Control>,
    /// Whether rows may be copied without looking for them first.
    pub(super) wary: Wary,
}

/// What a transaction with one view of all tables is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Snapshot {
    ToRead,
    /// Ends with an error if another one changed what this one changes.
    ToChange,
}

pub(super) enum Backend<'a> {
    Postgres(&'a PgPool),
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
                    StoreError::Transient(format!("{}: {error}", config.data_dir.display()))
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
        let mut options = Self::options(url, connections);
        let control = match purpose {
            _ if sqlite => {
                let flags = Flags::default();
                let watching = flags.clone();
                options.map_sqlx_sqlite_pool_opts(move |pool| watching.watch(pool));
                Some(Control::Sqlite(flags))
            }
            Purpose::Read { .. } => Some(Control::Postgres(Database::connect(Self::options(url, 1)).await?)),
            Purpose::Write { .. } => None,
        };
        let db = Database::connect(options).await?;
        Ok(Self { db, control, wary: Wary::default() })
    }

    fn options(url: &str, connections: u32) -> ConnectOptions {
        let mut options = ConnectOptions::new(url);
        options
            .max_connections(connections)
            .min_connections(0)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .connect_lazy(true)
            .test_before_acquire(false)
            .sqlx_logging(false)
            // A client that vanished must not hold its locks, and a server that vanished is noticed.
            .map_sqlx_postgres_opts(|options| {
                options.options([
                    ("idle_in_transaction_session_timeout", "120000"),
                    ("tcp_keepalives_idle", "30"),
                    ("tcp_keepalives_interval", "10"),
                ])
            })
            // What was large in between, a summary's registers, is let go with the transaction.
            .map_sqlx_postgres_pool_opts(|pool| {
                pool.after_release(|connection, _| {
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

    /// What stops reports, if there is anything.
    pub(super) fn control(&self) -> Option<&Control> {
        self.control.as_ref()
    }

    /// The connection beside those for reports, if there is one.
    fn beside(&self) -> Option<&DatabaseConnection> {
        match &self.control {
            Some(Control::Postgres(beside)) => Some(beside),
            _ => None,
        }
    }

    pub(super) fn backend(&self) -> Backend<'_> {
        match self.db.get_database_backend() {
            DatabaseBackend::Sqlite => Backend::Sqlite(self.db.get_sqlite_connection_pool()),
            _ => Backend::Postgres(self.db.get_postgres_connection_pool()),
        }
    }

    /// The connections, for sea-orm's queries.
    pub fn db(&self) -> &DatabaseConnection {
        &self.db
    }

    /// The database's name, as OpenTelemetry has it.
    pub fn system(&self) -> &'static str {
        if self.is_postgres() { "postgresql" } else { "sqlite" }
    }

    /// Whether it is PostgreSQL.
    pub fn is_postgres(&self) -> bool {
        matches!(self.backend(), Backend::Postgres(_))
    }

    /// A transaction that sees all tables as they were at one moment.
    pub(super) async fn snapshot(&self, purpose: Snapshot) -> Result<DatabaseTransaction, StoreError> {
        let reads = purpose == Snapshot::ToRead;
        let options = TransactionOptions {
            // SQLite's transactions are snapshots in any case.
            isolation_level: self.is_postgres().then_some(IsolationLevel::RepeatableRead),
            access_mode: (self.is_postgres() && reads).then_some(AccessMode::ReadOnly),
            sqlite_transaction_mode: (!reads).then_some(SqliteTransactionMode::Immediate),
        };
        Ok(self.db.begin_with_options(options).await?)
    }

    /// Does something again until no other transaction is in its way.
    pub(super) async fn unless_in_the_way<T>(
        &self,
        work: impl AsyncFn() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut tries = 0..CONFLICTS;
        loop {
            match work().await {
                Err(StoreError::Conflict(_)) if tries.next().is_some() => {
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
        let pool = match (self.backend(), self.beside()) {
            (Backend::Sqlite(_), _) => return Ok(()),
            (Backend::Postgres(_), Some(beside)) => beside.get_postgres_connection_pool(),
            (Backend::Postgres(pool), None) => pool,
        };
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
            Ok(Err(sqlx::Error::Database(fault))) => {
                Err(StoreError::Transient(format!("{place}: {}", fault.message())))
            }
            Ok(Err(error)) => Err(StoreError::Transient(format!("{place}: {error}"))),
            Err(_) => Err(StoreError::Transient(format!("{place}: no answer within {REACH_TIMEOUT:?}"))),
        }
    }

    /// Brings the schema up to date. Several at once wait for each other.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        self.reach().await?;
        match self.backend() {
            Backend::Sqlite(_) => {
                let _lock = self.lock_sqlite_file().await?;
                self.migrate_alone().await?;
                // A schema that is in the write-ahead log alone would be lost with any damage to that.
                self.empty_write_ahead_log().await
            }
            Backend::Postgres(pool) => {
                let mut holder = pool.acquire().await?;
                sqlx::query("SELECT pg_advisory_lock($1)").bind(MIGRATION_LOCK).execute(&mut *holder).await?;
                let migrated = self.migrate_alone().await;
                let unlocked = sqlx::query("SELECT pg_advisory_unlock($1)")
                    .bind(MIGRATION_LOCK)
                    .execute(&mut *holder)
                    .await;
                if unlocked.is_err() {
                    // The lock ends with its connection.
                    drop(holder.detach());
                }
                migrated
            }
        }
    }

    async fn migrate_alone(&self) -> Result<(), StoreError> {
        Migrator::up(&self.db, None).await?;
        // The contract's words are the code's to know; the table follows it.
        for word in all_words() {
            let sql = "INSERT INTO words (code, word) VALUES ($1, $2)
                       ON CONFLICT (code) DO UPDATE SET word = excluded.word WHERE words.word <> excluded.word";
            let values = [word.code.into(), word.text.into()];
            self.db
                .execute_raw(Statement::from_sql_and_values(self.db.get_database_backend(), sql, values))
                .await?;
        }
        Ok(())
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
        .map_err(|error| StoreError::Transient(error.to_string()))?
        .map_err(|error: std::io::Error| StoreError::Transient(error.to_string()))
    }

    /// Whether so many migrations are enough for this version.
    pub(super) fn suffices(applied: i64) -> Result<(), StoreError> {
        let needed = Migrator::migrations().len();
        if usize::try_from(applied).unwrap_or(0) < needed {
            return Err(StoreError::Schema(format!("{applied} of {needed} migrations are applied")));
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
        Self::suffices(applied)
    }

    /// Moves what SQLite's write-ahead log holds into the database's file, as far as no reader needs it.
    pub(super) async fn empty_write_ahead_log(&self) -> Result<(), StoreError> {
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

    /// Ends all connections. SQLite's file is whole by itself then, unless another process uses it.
    ///
    /// # Errors
    ///
    /// If something still runs after some seconds.
    pub async fn close(&self) -> Result<(), StoreError> {
        let close = async {
            self.empty_write_ahead_log().await?;
            if let Some(beside) = self.beside() {
                beside.close_by_ref().await?;
            }
            self.db.close_by_ref().await.map_err(StoreError::from)
        };
        tokio::time::timeout(CLOSE_TIMEOUT, close).await.unwrap_or_else(|_| {
            Err(StoreError::Transient(format!("statements still run after {CLOSE_TIMEOUT:?}")))
        })
    }
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
