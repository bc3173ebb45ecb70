//! Sessions of PostgreSQL, with and without a connection pooler between it and this process.
//!
//! A pooler in transaction mode gives each transaction to any of its connections to the server. A statement that was
//! prepared under a name is unknown there, or, worse, another client's statement has the name. So names are used only
//! on a connection that is proven to be a session of the server itself: its startup packet sets a parameter to a token
//! that the session then has to know. A pooler refuses the parameter, or loses it. Behind a pooler nothing depends on
//! a session: each statement runs in a transaction, without a name, and settings last as long as their transaction.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use sea_orm::sqlx::error::DatabaseError;
use sea_orm::sqlx::pool::{PoolConnection, PoolOptions};
use sea_orm::sqlx::postgres::PgConnectOptions;
use sea_orm::sqlx::{self, AssertSqlSafe, Executor, PgConnection, PgPool, Postgres, Row};
use uuid::Uuid;

use crate::store::error::StoreError;

/// Settings of a writer's transaction, after BEGIN. It waits for no lock longer than a few seconds: see
/// `maintain::stuck`. Generic plans that use indexes: a plan made while a table was small would read all of it, and
/// planning each batch anew costs more than the batch.
pub(in crate::store) const WRITES: &str = "ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = '3s';
    SET LOCAL enable_seqscan = off; SET LOCAL plan_cache_mode = force_generic_plan";

/// Parameter whose value proves that a connection is a session of the server.
const PARAMETER: &str = "ess.session";
/// Time after which the server ends a transaction whose client is silent, so that a client that vanished holds no locks.
const IDLE_IN_TRANSACTION: &str = "120s";

/// Kind of the connections of a store's pools: sessions of the server, or connections of a pooler.
#[derive(Debug, Clone, Default)]
pub(in crate::store) struct Sessions(Arc<State>);

#[derive(Debug)]
struct State {
    token: String,
    /// True once a connection was found to end at a pooler. It stays so: names are then never used again.
    pooled: AtomicBool,
    /// Options of a connection through a pooler: those of the URL, and no statement is kept under a name.
    plain: OnceLock<PgConnectOptions>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            token: Uuid::new_v4().simple().to_string(),
            pooled: AtomicBool::new(false),
            plain: OnceLock::new(),
        }
    }
}

impl Sessions {
    /// True if statements may be prepared under names.
    pub fn named(&self) -> bool {
        !self.0.pooled.load(Ordering::Relaxed)
    }

    /// Options of a connection to the server itself. With these keepalives the server notices a client that vanished.
    pub fn options(&self, options: PgConnectOptions) -> PgConnectOptions {
        // PgBouncer refuses `extra_float_digits`, too; values come in binary, which needs none.
        let options = options.extra_float_digits(None);
        self.0.plain.get_or_init(|| options.clone().statement_cache_capacity(0));
        options.options([
            (PARAMETER, self.0.token.as_str()),
            ("idle_in_transaction_session_timeout", IDLE_IN_TRANSACTION),
            ("tcp_keepalives_idle", "30"),
            ("tcp_keepalives_interval", "10"),
        ])
    }

    /// Checks every new connection of a pool for a pooler.
    pub fn watch(&self, pool: PoolOptions<Postgres>) -> PoolOptions<Postgres> {
        let sessions = self.clone();
        pool.after_connect(move |connection, _| {
            let sessions = sessions.clone();
            Box::pin(async move { sessions.prove(connection).await })
        })
    }

    async fn prove(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        if self.named() {
            let sql = format!("SELECT coalesce(current_setting('{PARAMETER}', true), '')");
            let row = connection.fetch_one(sqlx::raw_sql(AssertSqlSafe(sql))).await?;
            if row.try_get::<String, _>(0)? != self.0.token {
                self.is_pooled("it loses parameters of the startup packet");
            }
        }
        Ok(())
    }

    fn is_pooled(&self, reason: &str) {
        if !self.0.pooled.swap(true, Ordering::Relaxed) {
            tracing::info!(
                reason,
                "there is a connection pooler before PostgreSQL: statements are not prepared under names"
            );
        }
    }

    /// A connection of a pool. If a pooler refuses the startup packet, the pool connects without parameters from then on.
    pub async fn acquire(&self, pool: &PgPool) -> Result<PoolConnection<Postgres>, sqlx::Error> {
        match pool.acquire().await {
            Err(sqlx::Error::Database(fault)) if self.do_without(&*fault, pool) => pool.acquire().await,
            other => other,
        }
    }

    /// Has a pool connect without parameters if an error says that a pooler refused them; true if it does.
    pub fn do_without(&self, fault: &dyn DatabaseError, pool: &PgPool) -> bool {
        let refused = refuses_parameters(fault);
        if refused {
            self.is_pooled(fault.message());
            if let Some(plain) = self.0.plain.get() {
                pool.set_connect_options(plain.clone());
            }
        }
        refused
    }

    /// The statement that begins a transaction; `mode` follows BEGIN.
    fn begin(&self, mode: &str) -> String {
        if self.named() {
            return format!("BEGIN {mode}");
        }
        format!(
            "BEGIN {mode}; SET LOCAL idle_in_transaction_session_timeout = '{IDLE_IN_TRANSACTION}';
             SET LOCAL TimeZone = 'UTC'"
        )
    }
}

/// True if an error while connecting is a pooler's about the startup packet: PgBouncer's and Neon's code is 08P01, that
/// of the proxy of Amazon RDS 0A000.
fn refuses_parameters(fault: &dyn DatabaseError) -> bool {
    matches!(fault.code().as_deref(), Some("08P01" | "0A000"))
        && (fault.message().contains("startup parameter") || fault.message().contains("options"))
}

/// A transaction in PostgreSQL. If it is dropped before its end, its connection is closed: a statement that was cancelled
/// would leave its answer to the next user of the connection.
pub(in crate::store) struct PostgresTransaction {
    connection: PoolConnection<Postgres>,
    /// True if its statements may be prepared under names.
    pub named: bool,
    ended: bool,
}

impl PostgresTransaction {
    /// Begins a transaction; `mode` follows BEGIN.
    pub async fn begin(pool: &PgPool, sessions: &Sessions, mode: &str) -> Result<Self, sqlx::Error> {
        let connection = sessions.acquire(pool).await?;
        let mut tx = Self { connection, named: sessions.named(), ended: false };
        sqlx::raw_sql(AssertSqlSafe(sessions.begin(mode))).execute(&mut *tx).await?;
        Ok(tx)
    }

    pub async fn commit(self) -> Result<(), StoreError> {
        Ok(self.end("COMMIT").await?)
    }

    pub async fn rollback(self) -> Result<(), StoreError> {
        Ok(self.end("ROLLBACK").await?)
    }

    pub async fn end(mut self, sql: &'static str) -> Result<(), sqlx::Error> {
        sqlx::raw_sql(sql).execute(&mut *self.connection).await?;
        self.ended = true;
        Ok(())
    }
}

impl Deref for PostgresTransaction {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.connection
    }
}

impl DerefMut for PostgresTransaction {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}

impl Drop for PostgresTransaction {
    fn drop(&mut self) {
        if !self.ended {
            self.connection.close_on_drop();
        }
    }
}
