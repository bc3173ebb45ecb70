//! Connections and transactions of either database, as sea-orm's queries take them.
//!
//! sea-orm itself prepares every statement under a name. Behind a connection pooler that fails, so PostgreSQL's are
//! driven here (see [`crate::store::session`]).

use futures::{StreamExt, TryStreamExt};
use sea_orm::sqlx::postgres::{PgQueryResult, PgRow};
use sea_orm::sqlx::query::Query;
use sea_orm::sqlx::{self, AssertSqlSafe, Either, Executor, PgConnection, PgPool, Postgres};
use sea_orm::{
    ConnectionTrait, DatabaseBackend, DatabaseConnection, DatabaseTransaction, DbErr, ExecResult,
    QueryResult, RuntimeErr, Statement, StreamTrait, TransactionTrait, Values,
};
use sea_query_sqlx::SqlxValues;
use tokio::sync::Mutex;

use crate::store::error::StoreError;
use crate::store::session::{PostgresTransaction, Sessions};

/// A pool of connections. A statement outside a [`Transaction`] is a transaction of its own.
#[derive(Debug, Clone)]
pub(in crate::store) struct Connections {
    pool: DatabaseConnection,
    pub sessions: Sessions,
}

/// Purpose of a transaction that sees all tables as of one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Snapshot {
    Read,
    /// A change of rows that another transaction changed since the snapshot is a [`StoreError::Conflict`].
    Write,
}

/// A transaction.
pub(in crate::store) enum Transaction {
    Sqlite(DatabaseTransaction),
    Postgres(Mutex<PostgresTransaction>),
}

fn error(error: sqlx::Error) -> DbErr {
    DbErr::Query(RuntimeErr::SqlxError(error.into()))
}

/// A statement for PostgreSQL; `named` if it may be prepared under a name.
fn query(statement: &Statement, named: bool) -> Query<'_, Postgres, SqlxValues> {
    let values = statement.values.clone().unwrap_or(Values(Vec::new()));
    sqlx::query_with(AssertSqlSafe(statement.sql.as_str()), SqlxValues(values)).persistent(named)
}

impl Connections {
    pub fn new(pool: DatabaseConnection, sessions: Sessions) -> Self {
        Self { pool, sessions }
    }

    /// sea-orm's own pool, which prepares statements under names.
    pub fn pool(&self) -> &DatabaseConnection {
        &self.pool
    }

    /// The pool, if the database is PostgreSQL.
    pub fn postgres(&self) -> Option<&PgPool> {
        (self.pool.get_database_backend() == DatabaseBackend::Postgres)
            .then(|| self.pool.get_postgres_connection_pool())
    }

    /// Begins a transaction that reads and writes. In PostgreSQL `mode` follows BEGIN; its isolation level is READ
    /// COMMITTED unless `mode` says otherwise. SQLite takes the write lock at once.
    pub async fn begin(&self, mode: &str) -> Result<Transaction, StoreError> {
        if let Some(pool) = self.postgres() {
            let begun = PostgresTransaction::begin(pool, &self.sessions, mode).await?;
            return Ok(Transaction::Postgres(Mutex::new(begun)));
        }
        let options = sea_orm::TransactionOptions {
            isolation_level: None,
            access_mode: None,
            sqlite_transaction_mode: Some(sea_orm::SqliteTransactionMode::Immediate),
        };
        Ok(Transaction::Sqlite(self.pool.begin_with_options(options).await?))
    }

    /// Begins a transaction that sees all tables as of one moment.
    pub async fn snapshot(&self, purpose: Snapshot) -> Result<Transaction, StoreError> {
        let reads = purpose == Snapshot::Read;
        match self.postgres() {
            Some(pool) => {
                let mode = if reads {
                    "ISOLATION LEVEL REPEATABLE READ READ ONLY"
                } else {
                    "ISOLATION LEVEL REPEATABLE READ"
                };
                let begun = PostgresTransaction::begin(pool, &self.sessions, mode).await?;
                Ok(Transaction::Postgres(Mutex::new(begun)))
            }
            None => {
                // Every transaction of SQLite is a snapshot.
                let options = sea_orm::TransactionOptions {
                    isolation_level: None,
                    access_mode: None,
                    sqlite_transaction_mode: (!reads).then_some(sea_orm::SqliteTransactionMode::Immediate),
                };
                Ok(Transaction::Sqlite(self.pool.begin_with_options(options).await?))
            }
        }
    }
}

/// Rows of a statement, and its outcome.
#[derive(Default)]
struct Fetched {
    rows: Vec<PgRow>,
    done: PgQueryResult,
}

/// Runs a statement on PostgreSQL; `named` if it may be prepared under a name.
async fn fetch(connection: &mut PgConnection, statement: &Statement, named: bool) -> Result<Fetched, DbErr> {
    let mut fetched = Fetched::default();
    let mut parts = connection.fetch_many(query(statement, named));
    while let Some(part) = parts.try_next().await.map_err(error)? {
        match part {
            Either::Left(done) => fetched.done.extend([done]),
            Either::Right(row) => fetched.rows.push(row),
        }
    }
    Ok(fetched)
}

impl Fetched {
    fn into_result(self) -> ExecResult {
        self.done.into()
    }

    fn into_row(self) -> Option<QueryResult> {
        self.rows.into_iter().next().map(QueryResult::from)
    }

    fn into_rows(self) -> Vec<QueryResult> {
        self.rows.into_iter().map(QueryResult::from).collect()
    }
}

impl Connections {
    /// Runs a statement on PostgreSQL: in a transaction where a pooler may give the next message to another server.
    async fn fetch(&self, pool: &PgPool, statement: &Statement) -> Result<Fetched, DbErr> {
        let mut session = self.sessions.acquire(pool).await.map_err(error)?;
        if self.sessions.named() {
            return fetch(&mut session, statement, true).await;
        }
        drop(session);
        let mut tx = PostgresTransaction::begin(pool, &self.sessions, "").await.map_err(error)?;
        match fetch(&mut tx, statement, false).await {
            Ok(fetched) => tx.end("COMMIT").await.map_err(error).map(|()| fetched),
            Err(failed) => {
                // If the rollback succeeds, the connection can be used again; otherwise it is closed.
                let _ = tx.end("ROLLBACK").await;
                Err(failed)
            }
        }
    }
}

#[async_trait::async_trait]
impl ConnectionTrait for Connections {
    fn get_database_backend(&self) -> DatabaseBackend {
        self.pool.get_database_backend()
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        match self.postgres() {
            None => self.pool.execute_raw(statement).await,
            Some(pool) => self.fetch(pool, &statement).await.map(Fetched::into_result),
        }
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        let Some(pool) = self.postgres() else { return self.pool.execute_unprepared(sql).await };
        // One message goes to one server.
        let mut connection = self.sessions.acquire(pool).await.map_err(error)?;
        let done = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut *connection).await;
        done.map(ExecResult::from).map_err(error)
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        match self.postgres() {
            None => self.pool.query_one_raw(statement).await,
            Some(pool) => self.fetch(pool, &statement).await.map(Fetched::into_row),
        }
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        match self.postgres() {
            None => self.pool.query_all_raw(statement).await,
            Some(pool) => self.fetch(pool, &statement).await.map(Fetched::into_rows),
        }
    }
}

impl Transaction {
    /// Commits.
    pub async fn commit(self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(tx) => Ok(tx.commit().await?),
            Self::Postgres(tx) => tx.into_inner().commit().await,
        }
    }

    /// Rolls back and returns the connection to its pool.
    pub async fn rollback(self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(tx) => Ok(tx.rollback().await?),
            Self::Postgres(tx) => tx.into_inner().rollback().await,
        }
    }

    /// Reads the rows of a statement in parts of at most `size` rows, so that memory holds one part at a time.
    pub async fn in_parts(
        &self,
        statement: Statement,
        size: usize,
        mut part: impl FnMut(&[QueryResult]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(tx) => {
                let mut parts = std::pin::pin!(tx.stream_raw(statement).await?.try_chunks(size));
                while let Some(rows) = parts.try_next().await.map_err(|error| error.1)? {
                    part(&rows)?;
                }
            }
            Self::Postgres(tx) => {
                let mut tx = tx.lock().await;
                let named = tx.named;
                let rows = query(&statement, named).fetch(&mut **tx);
                let mut parts = std::pin::pin!(rows.map(|row| row.map(QueryResult::from)).try_chunks(size));
                while let Some(rows) = parts.try_next().await.map_err(|error| error.1)? {
                    part(&rows)?;
                }
            }
        }
        Ok(())
    }
}

/// Runs a statement in a transaction of PostgreSQL.
async fn fetch_in(tx: &Mutex<PostgresTransaction>, statement: &Statement) -> Result<Fetched, DbErr> {
    let mut tx = tx.lock().await;
    let named = tx.named;
    fetch(&mut tx, statement, named).await
}

#[async_trait::async_trait]
impl ConnectionTrait for Transaction {
    fn get_database_backend(&self) -> DatabaseBackend {
        match self {
            Self::Sqlite(_) => DatabaseBackend::Sqlite,
            Self::Postgres(_) => DatabaseBackend::Postgres,
        }
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        match self {
            Self::Sqlite(tx) => tx.execute_raw(statement).await,
            Self::Postgres(tx) => fetch_in(tx, &statement).await.map(Fetched::into_result),
        }
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        match self {
            Self::Sqlite(tx) => tx.execute_unprepared(sql).await,
            Self::Postgres(tx) => {
                let sql = AssertSqlSafe(sql.to_owned());
                let done = sqlx::raw_sql(sql).execute(&mut **tx.lock().await).await;
                done.map(ExecResult::from).map_err(error)
            }
        }
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        match self {
            Self::Sqlite(tx) => tx.query_one_raw(statement).await,
            Self::Postgres(tx) => fetch_in(tx, &statement).await.map(Fetched::into_row),
        }
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        match self {
            Self::Sqlite(tx) => tx.query_all_raw(statement).await,
            Self::Postgres(tx) => fetch_in(tx, &statement).await.map(Fetched::into_rows),
        }
    }
}
