//! Connecting to the store: which pools there are and how they are configured.

use std::path::Path;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sea_orm::sqlx::sqlite::{SqliteJournalMode, SqliteSynchronous};
use sea_orm::sqlx::{Connection, PgPool, SqlitePool};
use sea_orm::{ConnectOptions, Database, DbErr};

use crate::config::{Config, Secret};
use crate::money::Currency;
use crate::store::cancel::{CancelFlags, Cancellation};
use crate::store::error::StoreError;
use crate::store::last_read::LastRead;
use crate::store::session::Sessions;
use crate::store::transaction::{Connections, Snapshot, Transaction};
use crate::store::write::strategy::DuplicateBackoff;

/// Time for which a statement waits for a connection.
pub(in crate::store) const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for which SQLite waits for another writer.
pub(in crate::store) const BUSY_TIMEOUT: Duration = Duration::from_secs(15);
/// Maximum number of times that work is done again after a conflict, and the rest before each.
const MAX_CONFLICTS: u32 = 100;
const CONFLICT_REST: Duration = Duration::from_millis(50);
/// Size to which SQLite truncates its write-ahead log after a checkpoint, in bytes.
const JOURNAL_SIZE_LIMIT: u64 = 64 << 20;
/// Time for which closing waits for statements that still run.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections for lists: dead letters, and locations of events. They wait for each other, not for reports.
const LIST_CONNECTIONS: u32 = 2;
/// Connections of a writer beside its transactions: one for health, one for folding.
const SPARE_CONNECTIONS: u32 = 2;
/// File of the embedded database in the data folder.
pub const SQLITE_FILE: &str = "ess.db";

/// Purpose of a pool of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A collector.
    Write {
        /// Maximum number of transactions in flight.
        transactions: usize,
    },
    /// Reports.
    Read {
        /// Maximum number of reports at one time.
        connections: u32,
    },
}

/// The store: pools of connections to one database.
#[derive(Debug, Clone)]
pub struct Store {
    db: Connections,
    /// Connections for lists.
    lists: Connections,
    /// Cancellation of reports. Every pool of SQLite has it, one of PostgreSQL if it is for reading.
    cancellation: Option<Cancellation>,
    /// Currency of amounts that tell none, and of amounts from before the schema knew currencies.
    currency: Currency,
    /// Duplicates that its writers found lately.
    pub(in crate::store) duplicates: DuplicateBackoff,
    /// The names that were read of its dictionary.
    pub(in crate::store) names: LastRead,
}

/// The pool, as sqlx knows it.
pub(in crate::store) enum Backend<'a> {
    Postgres(&'a PgPool, &'a Sessions),
    Sqlite(&'a SqlitePool),
}

/// Characters of a path that a URL may hold unescaped.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'.').remove(b'-').remove(b'_');

/// URL of the embedded database in a data folder; the folder's name may hold any characters.
fn embedded_url(data_dir: &Path) -> String {
    let file = data_dir.join(SQLITE_FILE);
    format!("sqlite://{}?mode=rwc", utf8_percent_encode(&file.to_string_lossy(), PATH))
}

impl Store {
    /// The store that a configuration names. Connections are made when they are needed.
    ///
    /// # Errors
    ///
    /// If the URL is invalid, or the data folder of the embedded database cannot be made.
    pub async fn open(config: &Config, purpose: Purpose) -> Result<Self, StoreError> {
        let url = config.database_url.as_ref().map(Secret::expose);
        let read_only = config.reporter_database_url.as_ref().map(Secret::expose);
        let url = match purpose {
            Purpose::Read { .. } => read_only.or(url),
            Purpose::Write { .. } => url,
        };
        let store = match url {
            Some(url) => Self::connect(url, purpose).await,
            None => {
                std::fs::create_dir_all(&config.data_dir).map_err(|error| {
                    let message = format!("{}: {error}", config.data_dir.display());
                    StoreError::unavailable(message).because(error)
                })?;
                Self::connect(&embedded_url(&config.data_dir), purpose).await
            }
        };
        Ok(store?.with_currency(config.currency))
    }

    /// The store at a URL, with US dollars as its currency. Connections are made when they are needed.
    ///
    /// # Errors
    ///
    /// If the URL is invalid.
    pub async fn connect(url: &str, purpose: Purpose) -> Result<Self, StoreError> {
        let sqlite = url.starts_with("sqlite:");
        let connections = match purpose {
            // SQLite has one writer at a time.
            Purpose::Write { .. } if sqlite => 1,
            Purpose::Write { transactions } => u32::try_from(transactions).unwrap_or(16) + SPARE_CONNECTIONS,
            Purpose::Read { connections } => connections,
        };
        let sessions = Sessions::default();
        let open = async |connections| {
            let pool = Database::connect(options(url, connections, &sessions)).await?;
            Ok::<_, DbErr>(Connections::new(pool, sessions.clone()))
        };
        let mut options = options(url, connections, &sessions);
        let cancellation = match purpose {
            _ if sqlite => Some(Cancellation::Sqlite(watch_sqlite(&mut options))),
            Purpose::Read { .. } => Some(Cancellation::Postgres(open(1).await?)),
            Purpose::Write { .. } => None,
        };
        let db = Connections::new(Database::connect(options).await?, sessions.clone());
        let lists = match purpose {
            Purpose::Read { .. } => open(LIST_CONNECTIONS).await?,
            Purpose::Write { .. } => db.clone(),
        };
        let currency = Currency::default();
        Ok(Self {
            db,
            lists,
            cancellation,
            currency,
            duplicates: DuplicateBackoff::default(),
            names: LastRead::default(),
        })
    }

    /// The same store with another currency of amounts that tell none.
    #[must_use]
    pub fn with_currency(self, currency: Currency) -> Self {
        Self { currency, ..self }
    }

    /// The currency of amounts that tell none.
    pub fn currency(&self) -> Currency {
        self.currency
    }

    /// Cancellation of reports, if the pool has it.
    pub(in crate::store) fn cancellation(&self) -> Option<&Cancellation> {
        self.cancellation.as_ref()
    }

    /// The connections that do not wait for reports.
    pub(in crate::store) fn unblocked(&self) -> &Connections {
        match &self.cancellation {
            Some(Cancellation::Postgres(connections)) => connections,
            _ => &self.db,
        }
    }

    pub(in crate::store) fn backend(&self) -> Backend<'_> {
        match self.db.postgres() {
            Some(pool) => Backend::Postgres(pool, &self.db.sessions),
            None => Backend::Sqlite(self.db.pool().get_sqlite_connection_pool()),
        }
    }

    /// The connections, for [`crate::store::sql::Sql`] and sea-orm's queries.
    pub(in crate::store) fn db(&self) -> &Connections {
        &self.db
    }

    /// The connections for lists, which reports do not use.
    pub(in crate::store) fn lists(&self) -> &Connections {
        &self.lists
    }

    /// Name of the database in OpenTelemetry's conventions (`db.system.name`).
    pub fn system(&self) -> &'static str {
        if self.is_postgres() { "postgresql" } else { "sqlite" }
    }

    /// True if the database is PostgreSQL.
    pub fn is_postgres(&self) -> bool {
        self.db.postgres().is_some()
    }

    /// A transaction that sees all tables as of one moment.
    pub(in crate::store) async fn snapshot(&self, purpose: Snapshot) -> Result<Transaction, StoreError> {
        self.db.snapshot(purpose).await
    }

    /// Does work again as long as other transactions conflict with it, up to [`MAX_CONFLICTS`] times.
    pub(in crate::store) async fn retry_conflicts<T>(
        &self,
        work: impl AsyncFn() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut conflicts = Conflicts::default();
        loop {
            let tried = work().await;
            if !conflicts.rest_after(tried.as_ref().err()).await {
                return tried;
            }
        }
    }

    /// Closes all connections. After that SQLite's file is complete by itself, unless another process uses it.
    ///
    /// # Errors
    ///
    /// If statements still run after [`CLOSE_TIMEOUT`].
    pub async fn close(&self) -> Result<(), StoreError> {
        // The collectors of one process share SQLite's pool.
        if matches!(self.backend(), Backend::Sqlite(pool) if pool.is_closed()) {
            return Ok(());
        }
        let close = async {
            self.checkpoint().await?;
            self.unblocked().pool().close_by_ref().await?;
            self.lists.pool().close_by_ref().await?;
            self.db.pool().close_by_ref().await.map_err(StoreError::from)
        };
        tokio::time::timeout(CLOSE_TIMEOUT, close).await.unwrap_or_else(|_| {
            Err(StoreError::unavailable(format!("statements still run after {CLOSE_TIMEOUT:?}")))
        })
    }
}

/// Number of conflicts that a piece of work has met.
#[derive(Debug, Default)]
pub(in crate::store) struct Conflicts(u32);

impl Conflicts {
    /// Rests after a conflict; false if there was none, or as many as [`MAX_CONFLICTS`] before.
    pub async fn rest_after(&mut self, error: Option<&StoreError>) -> bool {
        let again = error.is_some_and(StoreError::is_conflict) && self.0 < MAX_CONFLICTS;
        if again {
            self.0 += 1;
            tokio::time::sleep(CONFLICT_REST).await;
        }
        again
    }
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
        // Buffers that grew for one large row, such as a summary, are given back with the transaction.
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
                // Deleted bytes are overwritten in pages that are written anyway.
                .pragma("secure_delete", "FAST")
        });
    options
}

/// Has SQLite's connections watched, so that reports can be cancelled, and closes connections in an unknown state.
fn watch_sqlite(options: &mut ConnectOptions) -> CancelFlags {
    let flags = CancelFlags::default();
    let watching = flags.clone();
    options.map_sqlx_sqlite_pool_opts(move |pool| {
        // If the disk is full, SQLite rolls back by itself, and sqlx goes on counting an open transaction.
        watching.install(pool).after_release(|connection, _| {
            Box::pin(async move {
                if !connection.is_in_transaction() {
                    return Ok(true);
                }
                // A rollback may be under way; a ping waits for its end.
                connection.ping().await?;
                Ok(!connection.is_in_transaction())
            })
        })
    });
    flags
}

#[cfg(test)]
mod tests {
    use sea_orm::sqlx::sqlite::SqliteConnectOptions;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn work_is_done_again_after_conflicts_alone_and_not_for_ever() {
        let conflict = StoreError::conflict("could not serialize");
        let mut conflicts = Conflicts::default();
        assert!(!conflicts.rest_after(None).await);
        assert!(!conflicts.rest_after(Some(&StoreError::unavailable("no route"))).await);
        for n in 0..MAX_CONFLICTS {
            assert!(conflicts.rest_after(Some(&conflict)).await, "{n}");
        }
        assert!(!conflicts.rest_after(Some(&conflict)).await);
    }

    #[test]
    fn the_embedded_database_lies_in_the_folder_that_was_named() {
        let parent = tempfile::tempdir().unwrap();
        for name in ["pd%41", "odd ?x", "a#b", "plain", "ünï &=+"] {
            let folder = parent.path().join(name);
            let options: SqliteConnectOptions = embedded_url(&folder).parse().unwrap();
            assert_eq!(options.get_filename(), folder.join(SQLITE_FILE), "{name}");
        }
    }
}
