//! SQL of tests and benches, on the store's own connections.

use sea_orm::ConnectionTrait;

use crate::store::connect::Store;
use crate::store::error::StoreError;
use crate::store::sql::Sql;

#[doc(hidden)]
impl Store {
    /// The number that a scalar expression, such as a query in parentheses, gives.
    pub async fn query_number(&self, expression: &str) -> Result<i64, StoreError> {
        let number = Sql::new(format!("SELECT CAST(({expression}) AS bigint)")).scalar(self.db()).await?;
        number.ok_or_else(|| StoreError::internal("no row"))
    }

    /// Runs a statement without parameters.
    pub async fn execute(&self, sql: &str) -> Result<(), StoreError> {
        self.db().execute_unprepared(sql).await?;
        Ok(())
    }
}
