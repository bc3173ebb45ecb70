//! Stopping a statement whose answer nobody waits for.
//!
//! PostgreSQL is told so on a connection beside those for reports. Where that connection ends at another server, one of
//! several replicas behind one address, the report's own connection is closed, which its server notices. SQLite works in this process and asks while it
//! works: each connection has a number, by which the one that a transaction runs on is found, and a flag.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use chrono::{DateTime, Utc};
use sea_orm::sqlx::pool::PoolOptions;
use sea_orm::sqlx::{self, AssertSqlSafe, Sqlite};
use sea_orm::{ConnectionTrait, DatabaseBackend, Statement};

use crate::store::error::StoreError;
use crate::store::transaction::{Connections, Transaction};

/// Steps of SQLite's machine, some tens of nanoseconds each, after which it asks whether to go on.
const STEPS: i32 = 10_000;

/// Time for PostgreSQL to be told.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(2);

/// How the statements of a pool are stopped.
#[derive(Debug, Clone)]
pub(in crate::store) enum Control {
    Postgres(Connections),
    Sqlite(Flags),
}

/// The flags of a pool's connections: where one is raised, nothing goes on.
#[derive(Debug, Clone, Default)]
pub(in crate::store) struct Flags(Arc<Mutex<Numbered>>);

#[derive(Debug, Default)]
struct Numbered {
    last: i32,
    flags: HashMap<i32, Weak<AtomicBool>>,
}

impl Flags {
    fn numbered(&self) -> MutexGuard<'_, Numbered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more: its number, and the flag, which is known as long as its connection lives.
    fn add(&self) -> (i32, Arc<AtomicBool>) {
        let mut numbered = self.numbered();
        numbered.last += 1;
        let (number, flag) = (numbered.last, Arc::<AtomicBool>::default());
        numbered.flags.retain(|_, flag| flag.strong_count() > 0);
        numbered.flags.insert(number, Arc::downgrade(&flag));
        (number, flag)
    }

    fn of(&self, number: i32) -> Option<Arc<AtomicBool>> {
        self.numbered().flags.get(&number)?.upgrade()
    }

    /// Gives every connection that a pool makes a number and a flag. While that fails there is none: the pool
    /// tries again, until whoever waits has waited long enough.
    pub fn watch(&self, pool: PoolOptions<Sqlite>) -> PoolOptions<Sqlite> {
        let flags = self.clone();
        pool.after_connect(move |connection, _| {
            let (number, flag) = flags.add();
            Box::pin(async move {
                let sql = format!("CREATE TEMP TABLE connection AS SELECT {number} AS number");
                sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *connection).await?;
                let goes_on = move || !flag.load(Ordering::Relaxed);
                connection.lock_handle().await?.set_progress_handler(STEPS, goes_on);
                Ok(())
            })
        })
    }
}

/// A raised flag, until it is let go.
struct Raised(Arc<AtomicBool>);

impl Raised {
    fn new(flag: Arc<AtomicBool>) -> Self {
        flag.store(true, Ordering::Relaxed);
        Self(flag)
    }
}

impl Drop for Raised {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// A transaction whose statements can be stopped.
pub(in crate::store) struct Running {
    pub tx: Transaction,
    /// Who works on it: the number of PostgreSQL's process, or of the connection to SQLite.
    worker: i32,
    /// When it began, by PostgreSQL's clock: with the process, it is no other server's transaction.
    begun: Option<DateTime<Utc>>,
}

impl Running {
    /// Finds out who works on a transaction, and how many migrations it sees.
    pub async fn begin(tx: Transaction) -> Result<(Self, i64), StoreError> {
        // The schema as this snapshot has it: a table that a migration makes meanwhile is empty to it.
        let is_postgres = tx.get_database_backend() == DatabaseBackend::Postgres;
        let sql = if is_postgres {
            // Reports have a deadline of their own; this is for those whose reporter is gone. And a plan that was
            // made for any range would read whole ranges for a few campaigns.
            // A client that closes its connection is noticed while a statement runs, where the system can do that.
            "SELECT pg_backend_pid() AS worker, now() AS begun, set_config('statement_timeout', '30s', true),
                set_config('plan_cache_mode', 'force_custom_plan', true),
                CASE WHEN version() LIKE '%linux%' THEN
                    set_config('client_connection_check_interval', '500ms', true) END,
                count(*) AS applied
             FROM seaql_migrations"
        } else {
            "SELECT (SELECT number FROM temp.connection) AS worker, count(*) AS applied FROM seaql_migrations"
        };
        let row = tx.query_one_raw(Statement::from_string(tx.get_database_backend(), sql)).await?;
        let begun = row.ok_or_else(|| StoreError::unavailable("the database does not answer"))?;
        let (worker, applied) = (begun.try_get("", "worker")?, begun.try_get("", "applied")?);
        let begun = if is_postgres { Some(begun.try_get("", "begun")?) } else { None };
        Ok((Self { tx, worker, begun }, applied))
    }

    /// Stops what is done for it, and gives the connection back.
    pub async fn stop(self, control: &Control) -> Result<(), StoreError> {
        match control {
            Control::Postgres(db) => {
                let sql = "SELECT pg_cancel_backend(pid) AS cancelled FROM pg_stat_activity
                    WHERE pid = $1 AND xact_start = $2";
                let values = [self.worker.into(), self.begun.into()];
                let asked = Statement::from_sql_and_values(db.get_database_backend(), sql, values);
                match tokio::time::timeout(CANCEL_TIMEOUT, db.query_one_raw(asked)).await {
                    Ok(Ok(Some(_))) => self.tx.rollback().await,
                    // It runs on another server than this connection reaches, or a pooler has no connection left:
                    // its own is closed with it.
                    Ok(Ok(None)) | Err(_) => Ok(()),
                    Ok(Err(error)) => Err(error.into()),
                }
            }
            Control::Sqlite(flags) => {
                // The connection works off one thing after another: what it does now ends, then the transaction,
                // and no other one has it before that.
                let _raised = flags.of(self.worker).map(Raised::new);
                self.tx.rollback().await
            }
        }
    }
}
