//! Upkeep of SQLite's file. PostgreSQL does the same by itself.

use sea_orm::sqlx::{self, AssertSqlSafe};

use crate::store::connect::{BUSY_TIMEOUT, Backend, Store};
use crate::store::error::StoreError;

impl Store {
    /// Moves the content of SQLite's write-ahead log into the database file, as far as no reader needs it.
    ///
    /// # Errors
    ///
    /// If no connection is free. A checkpoint that another process prevents is no error: the next one does it.
    pub(in crate::store) async fn checkpoint(&self) -> Result<(), StoreError> {
        let Backend::Sqlite(pool) = self.backend() else { return Ok(()) };
        // On one connection: the pragmas are a session's. Readers and writers are not waited for.
        let mut connection = pool.acquire().await?;
        sqlx::query("PRAGMA busy_timeout = 0").execute(&mut *connection).await?;
        let checkpoint =
            sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").fetch_optional(&mut *connection).await;
        let restore = format!("PRAGMA busy_timeout = {}", BUSY_TIMEOUT.as_millis());
        sqlx::query(AssertSqlSafe(restore)).execute(&mut *connection).await?;
        if let Err(error) = checkpoint {
            let error = StoreError::from(error);
            tracing::debug!(%error, "SQLite's write-ahead log was not emptied; the next checkpoint will");
        }
        Ok(())
    }

    /// Rewrites SQLite's file, so that it holds no byte of deleted rows.
    ///
    /// # Errors
    ///
    /// If there is no room for a second copy, or another process holds a lock for too long.
    pub async fn vacuum(&self) -> Result<(), StoreError> {
        let Backend::Sqlite(pool) = self.backend() else { return Ok(()) };
        sqlx::query("VACUUM").execute(pool).await?;
        self.checkpoint().await
    }
}
