//! Transactions and connections of either database, for sea-orm's queries.
//!
//! sea-orm prepares every statement under a name. These do so only where a name holds (see [`crate::store::session`]).

use futures::{StreamExt, TryStreamExt};
use sea_orm::sqlx::query::Query;
use sea_orm::sqlx::{self, AssertSqlSafe, PgPool, Postgres};
use sea_orm::{
    ConnectionTrait, DatabaseBackend, DatabaseConnection, DatabaseTransaction, DbErr, ExecResult,
    QueryResult, RuntimeErr, Statement, StreamTrait, TransactionTrait, Values,
};
use sea_query_sqlx::SqlxValues;
use tokio::sync::Mutex;

use crate::store::connect::Snapshot;
use crate::store::error::StoreError;
use crate::store::session::{PostgresTransaction, Sessions};

/// A pool of connections. A statement outside a [`Transaction`] is one by itself.
#[derive(Debug, Clone)]
pub struct Connections {
    pool: DatabaseConnection,
    pub(in crate::store) sessions: Sessions,
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
    pub(in crate::store) fn new(pool: DatabaseConnection, sessions: Sessions) -> Self {
        Self { pool, sessions }
    }

    /// The pool itself, whose statements have names.
    pub fn pool(&self) -> &DatabaseConnection {
        &self.pool
    }

    /// PostgreSQL's pool, if it is that.
    pub(in crate::store) fn postgres(&self) -> Option<&PgPool> {
        (self.pool.get_database_backend() == DatabaseBackend::Postgres)
            .then(|| self.pool.get_postgres_connection_pool())
    }

    /// Begins a transaction to change what it reads. Each of PostgreSQL's statements sees all that has ended by then;
    /// `mode` is what follows BEGIN.
    pub(in crate::store) async fn writing(&self, mode: &str) -> Result<Transaction, StoreError> {
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

    /// Begins a transaction that sees all tables as they were at one moment.
    pub(in crate::store) async fn snapshot(&self, purpose: Snapshot) -> Result<Transaction, StoreError> {
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
                // SQLite's transactions are snapshots in any case.
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

/// Does `$work` with a connection to PostgreSQL: in a transaction where the next message may go to another server.
macro_rules! alone {
    ($self:expr, $pool:expr, |$connection:ident, $named:ident| $work:expr) => {{
        let mut session = $self.sessions.acquire($pool).await.map_err(error)?;
        let $named = $self.sessions.named();
        if $named {
            let $connection = &mut *session;
            $work.await.map_err(error)
        } else {
            drop(session);
            let begun = PostgresTransaction::begin($pool, &$self.sessions, "").await;
            let mut tx = begun.map_err(error)?;
            let $connection = &mut *tx;
            match $work.await {
                Ok(done) => tx.end("COMMIT").await.map_err(error).map(|()| done),
                Err(failed) => {
                    // The connection is as good as before where the rollback gets through.
                    let _ = tx.end("ROLLBACK").await;
                    Err(error(failed))
                }
            }
        }
    }};
}

#[async_trait::async_trait]
impl ConnectionTrait for Connections {
    fn get_database_backend(&self) -> DatabaseBackend {
        self.pool.get_database_backend()
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        let Some(pool) = self.postgres() else { return self.pool.execute_raw(statement).await };
        alone!(self, pool, |connection, named| query(&statement, named).execute(connection))
            .map(ExecResult::from)
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        let Some(pool) = self.postgres() else { return self.pool.execute_unprepared(sql).await };
        // One message: it goes to one server.
        let mut connection = self.sessions.acquire(pool).await.map_err(error)?;
        let done = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut *connection).await;
        done.map(ExecResult::from).map_err(error)
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        let Some(pool) = self.postgres() else { return self.pool.query_one_raw(statement).await };
        let row = alone!(self, pool, |connection, named| query(&statement, named).fetch_optional(connection));
        Ok(row?.map(QueryResult::from))
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        let Some(pool) = self.postgres() else { return self.pool.query_all_raw(statement).await };
        let rows = alone!(self, pool, |connection, named| query(&statement, named).fetch_all(connection));
        Ok(rows?.into_iter().map(QueryResult::from).collect())
    }
}

impl Transaction {
    pub async fn commit(self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(tx) => Ok(tx.commit().await?),
            Self::Postgres(tx) => tx.into_inner().commit().await,
        }
    }

    pub async fn rollback(self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(tx) => Ok(tx.rollback().await?),
            Self::Postgres(tx) => tx.into_inner().rollback().await,
        }
    }

    /// Reads the rows of a statement, at most `size` at one time.
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
            Self::Postgres(tx) => {
                let mut tx = tx.lock().await;
                let named = tx.named;
                query(&statement, named).execute(&mut **tx).await.map(ExecResult::from).map_err(error)
            }
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
            Self::Postgres(tx) => {
                let mut tx = tx.lock().await;
                let named = tx.named;
                let row = query(&statement, named).fetch_optional(&mut **tx).await.map_err(error)?;
                Ok(row.map(QueryResult::from))
            }
        }
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        match self {
            Self::Sqlite(tx) => tx.query_all_raw(statement).await,
            Self::Postgres(tx) => {
                let mut tx = tx.lock().await;
                let named = tx.named;
                let rows = query(&statement, named).fetch_all(&mut **tx).await.map_err(error)?;
                Ok(rows.into_iter().map(QueryResult::from).collect())
            }
        }
    }
}
