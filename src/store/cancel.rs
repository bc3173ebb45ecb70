//! Cancellation of statements whose result nobody waits for.
//!
//! PostgreSQL: `pg_cancel_backend` is called on a connection of its own, apart from those of reports. Where that
//! connection reaches another server (several replicas behind one address), the report's connection is closed instead,
//! which its server notices.
//!
//! SQLite runs in this process and polls a progress handler while a statement runs. Each connection of the pool has a
//! number, kept in a temporary table, by which the connection of a transaction is found, and a flag that its handler
//! reads.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use chrono::{DateTime, Utc};
use sea_orm::sqlx::pool::PoolOptions;
use sea_orm::sqlx::{self, AssertSqlSafe, Sqlite};
use sea_orm::{ConnectionTrait, DatabaseBackend};

use crate::store::error::StoreError;
use crate::store::sql::Sql;
use crate::store::transaction::{Connections, Transaction};

/// Instructions of SQLite's virtual machine, some tens of nanoseconds each, between two calls of the progress handler.
const PROGRESS_INSTRUCTIONS: i32 = 10_000;

/// Time limit of the request to cancel in PostgreSQL.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(2);

/// Means of cancelling the statements of a pool.
#[derive(Debug, Clone)]
pub(in crate::store) enum Cancellation {
    /// The connection on which `pg_cancel_backend` is called.
    Postgres(Connections),
    Sqlite(CancelFlags),
}

/// Cancel flags of a pool's SQLite connections, by connection number. A raised flag interrupts the running statement.
#[derive(Debug, Clone, Default)]
pub(in crate::store) struct CancelFlags(Arc<Mutex<NumberedFlags>>);

#[derive(Debug, Default)]
struct NumberedFlags {
    last: i32,
    flags: HashMap<i32, Weak<AtomicBool>>,
}

impl CancelFlags {
    fn lock(&self) -> MutexGuard<'_, NumberedFlags> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a connection; returns its number and its flag. Flags of closed connections are forgotten.
    fn add(&self) -> (i32, Arc<AtomicBool>) {
        let mut numbered = self.lock();
        numbered.last += 1;
        let (number, flag) = (numbered.last, Arc::<AtomicBool>::default());
        numbered.flags.retain(|_, flag| flag.strong_count() > 0);
        numbered.flags.insert(number, Arc::downgrade(&flag));
        (number, flag)
    }

    fn get(&self, number: i32) -> Option<Arc<AtomicBool>> {
        self.lock().flags.get(&number)?.upgrade()
    }

    /// Gives every new connection of a pool a number and a progress handler that reads its flag. If that fails, the
    /// connection is discarded, and the pool tries again until its acquire timeout.
    pub fn install(&self, pool: PoolOptions<Sqlite>) -> PoolOptions<Sqlite> {
        let flags = self.clone();
        pool.after_connect(move |connection, _| {
            let (number, flag) = flags.add();
            Box::pin(async move {
                // On the new connection itself, which no pool has yet.
                let sql = format!("CREATE TEMP TABLE connection AS SELECT {number} AS number");
                sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *connection).await?;
                let goes_on = move || !flag.load(Ordering::Relaxed);
                connection.lock_handle().await?.set_progress_handler(PROGRESS_INSTRUCTIONS, goes_on);
                Ok(())
            })
        })
    }
}

/// A cancel flag that is raised until this is dropped.
struct RaisedFlag(Arc<AtomicBool>);

impl RaisedFlag {
    fn new(flag: Arc<AtomicBool>) -> Self {
        flag.store(true, Ordering::Relaxed);
        Self(flag)
    }
}

impl Drop for RaisedFlag {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// A transaction whose statements can be cancelled.
pub(in crate::store) struct CancellableTransaction {
    pub tx: Transaction,
    /// PostgreSQL: process id of the backend. SQLite: number of the connection.
    worker: i32,
    /// Start of the transaction by PostgreSQL's clock. Together with the process id it identifies the transaction, also
    /// among several servers.
    begun: Option<DateTime<Utc>>,
}

impl CancellableTransaction {
    /// Prepares a transaction for cancellation; also returns the number of migrations in its snapshot: a table that a
    /// concurrent migration creates would look empty in it.
    pub async fn begin(tx: Transaction) -> Result<(Self, i64), StoreError> {
        let is_postgres = tx.get_database_backend() == DatabaseBackend::Postgres;
        let sql = if is_postgres {
            // `statement_timeout` ends the statements of a reporter that died; reports have a shorter deadline of their
            // own. A generic plan would read whole ranges for a few campaigns. `client_connection_check_interval`
            // notices a closed connection while a statement runs, which PostgreSQL supports on Linux.
            "SELECT pg_backend_pid() AS worker, now() AS begun, set_config('statement_timeout', '30s', true),
                set_config('plan_cache_mode', 'force_custom_plan', true),
                CASE WHEN version() LIKE '%linux%' THEN
                    set_config('client_connection_check_interval', '500ms', true) END,
                count(*) AS applied
             FROM seaql_migrations"
        } else {
            "SELECT (SELECT number FROM temp.connection) AS worker, count(*) AS applied FROM seaql_migrations"
        };
        let begun = Sql::new(sql).row(&tx).await?;
        let begun = begun.ok_or_else(|| StoreError::unavailable("the database does not answer"))?;
        let (worker, applied) = (begun.try_get("", "worker")?, begun.try_get("", "applied")?);
        let begun = if is_postgres { Some(begun.try_get("", "begun")?) } else { None };
        Ok((Self { tx, worker, begun }, applied))
    }

    /// Cancels the running statement, rolls back, and returns the connection to its pool.
    pub async fn cancel(self, cancellation: &Cancellation) -> Result<(), StoreError> {
        match cancellation {
            Cancellation::Postgres(db) => {
                let request = Sql::new(
                    "SELECT pg_cancel_backend(pid) AS cancelled FROM pg_stat_activity
                     WHERE pid = $1 AND xact_start = $2",
                );
                let request = request.bind(self.worker).bind(self.begun);
                match tokio::time::timeout(CANCEL_TIMEOUT, request.row(db)).await {
                    Ok(Ok(Some(_))) => self.tx.rollback().await,
                    // The transaction runs on another server than this connection reaches, or a pooler has no free
                    // connection: dropping the transaction closes its connection.
                    Ok(Ok(None)) | Err(_) => Ok(()),
                    Ok(Err(error)) => Err(error),
                }
            }
            Cancellation::Sqlite(flags) => {
                // A connection works off its requests in order: the statement ends, then the transaction. No other
                // transaction has the connection before that, so the flag interrupts nothing else.
                let _raised = flags.get(self.worker).map(RaisedFlag::new);
                self.tx.rollback().await
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_of_closed_connections_are_forgotten() {
        let flags = CancelFlags::default();
        let (first, open) = flags.add();
        let (second, closed) = flags.add();
        assert!(first != second && flags.get(second).is_some());
        drop(closed);
        assert!(flags.get(second).is_none());
        let _third = flags.add();
        assert_eq!(flags.lock().flags.len(), 2, "the closed one is gone");
        assert!(Arc::ptr_eq(&flags.get(first).unwrap(), &open));
    }

    #[test]
    fn a_flag_is_raised_only_while_its_guard_lives() {
        let (_, flag) = CancelFlags::default().add();
        let raised = RaisedFlag::new(flag.clone());
        assert!(flag.load(Ordering::Relaxed));
        drop(raised);
        assert!(!flag.load(Ordering::Relaxed));
    }
}
