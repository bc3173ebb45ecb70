//! Health checks of the store: the database can be reached and has the schema of this version.

use std::time::Duration;

use migration::{Migrator, MigratorTrait};
use sea_orm::ConnectionTrait;
use sea_orm::sqlx::{self, ConnectOptions as _, Connection};

use crate::store::connect::Store;
use crate::store::error::StoreError;
use crate::store::sql::Sql;

/// Timeout of the connection attempt of [`Store::reach`].
const REACH_TIMEOUT: Duration = Duration::from_secs(4);

impl Store {
    /// Checks that PostgreSQL accepts connections, unless the pool already has one. The attempt is made outside the
    /// pool, which would retry until its timeout and then report only the timeout, not the cause.
    ///
    /// # Errors
    ///
    /// If the connection fails; the message has the address and the cause.
    pub async fn reach(&self) -> Result<(), StoreError> {
        let connections = self.unblocked();
        let Some(pool) = connections.postgres() else { return Ok(()) };
        if pool.size() > 0 {
            return Ok(());
        }
        let options = pool.connect_options();
        let address = match options.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => format!("{}:{}", options.get_host(), options.get_port()),
        };
        match tokio::time::timeout(REACH_TIMEOUT, options.connect()).await {
            Ok(Ok(connection)) => {
                let _ = connection.close().await;
                Ok(())
            }
            // The pooler is up and only refuses startup parameters; the pool connects without them from now on.
            Ok(Err(sqlx::Error::Database(error))) if connections.sessions.do_without(&*error, pool) => Ok(()),
            Ok(Err(sqlx::Error::Database(error))) => {
                let message = format!("{address}: {}", error.message());
                Err(StoreError::unavailable(message).because(sqlx::Error::Database(error)))
            }
            Ok(Err(error)) => Err(StoreError::unavailable(format!("{address}: {error}")).because(error)),
            Err(_) => Err(StoreError::unavailable(format!("{address}: no answer within {REACH_TIMEOUT:?}"))),
        }
    }

    /// Checks that the database answers and has the schema that this version needs.
    ///
    /// # Errors
    ///
    /// If the store is unavailable, or migrations are missing.
    pub async fn check(&self) -> Result<(), StoreError> {
        self.reach().await?;
        // Not from the reports' pool: long reports can hold all of its connections, and the service is ready all the
        // same.
        Self::check_migrations(applied_migrations(self.unblocked()).await?)
    }

    /// Checks that no newer version of ESS has migrated the database: this one could take its summaries for corrupt.
    ///
    /// # Errors
    ///
    /// [`StoreError::Schema`] if more migrations are applied than this version has.
    pub async fn check_not_newer(&self) -> Result<(), StoreError> {
        check_not_newer(self.db()).await
    }

    /// Checks that no migration of this version is missing.
    ///
    /// # Errors
    ///
    /// If fewer migrations are applied than this version has.
    pub(in crate::store) fn check_migrations(applied: i64) -> Result<(), StoreError> {
        let needed = Migrator::migrations().len();
        if usize::try_from(applied).unwrap_or(0) < needed {
            let message = format!("{applied} of {needed} migrations are applied; run `ess migrate`");
            return Err(StoreError::schema(message));
        }
        Ok(())
    }
}

/// Number of migrations that were applied to a database.
async fn applied_migrations(db: &impl ConnectionTrait) -> Result<i64, StoreError> {
    Ok(Sql::new("SELECT count(*) FROM seaql_migrations").scalar(db).await?.unwrap_or(0))
}

/// [`Store::check_not_newer`] on a connection or in a transaction.
pub(in crate::store) async fn check_not_newer(db: &impl ConnectionTrait) -> Result<(), StoreError> {
    let (applied, known) = (applied_migrations(db).await?, Migrator::migrations().len());
    if usize::try_from(applied).unwrap_or(0) > known {
        let message = format!(
            "{applied} migrations are applied, and this version knows {known}: a newer version of ESS has migrated it"
        );
        return Err(StoreError::schema(message));
    }
    Ok(())
}
