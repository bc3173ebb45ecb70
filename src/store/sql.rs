//! Statements with parameters: the one way to run SQL text on either database.
//!
//! Tables whose rows are read and written whole have entities, and their statements sea-orm's query builder
//! ([`super::entity`]). SQL text is for what the builder cannot say: upserts with expressions, window functions,
//! recursive queries, casts, conditions over several tables; the ledger's and the dead letters' tables have hardly
//! anything else. Both databases read `$1` as the first parameter.
//!
//! sqlx is spoken to directly by the writer's hot path (`write/`), which binds arrays and copies rows; by
//! [`super::session`] and [`super::transaction`], which this module runs on; and where a statement belongs to one
//! connection or cannot be prepared: `BEGIN`, `PRAGMA`, `VACUUM`, `DEALLOCATE` ([`super::sqlite_file`],
//! [`super::migrate`]).

use sea_orm::{ConnectionTrait, FromQueryResult, QueryResult, Statement, TryGetable, Value};

use crate::store::error::StoreError;

/// A statement and its parameters.
#[derive(Debug, Clone)]
#[must_use]
pub(in crate::store) struct Sql {
    text: String,
    values: Vec<Value>,
}

impl Sql {
    /// A statement; its parameters follow by [`Sql::bind`].
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), values: Vec::new() }
    }

    /// Binds the next parameter, `$1` first.
    pub fn bind(mut self, value: impl Into<Value>) -> Self {
        self.values.push(value.into());
        self
    }

    /// Appends text.
    pub fn push(&mut self, text: impl AsRef<str>) -> &mut Self {
        self.text.push_str(text.as_ref());
        self
    }

    /// Appends the placeholder of a parameter, and binds it.
    pub fn push_bind(&mut self, value: impl Into<Value>) -> &mut Self {
        self.push_list([value])
    }

    /// Appends the placeholders of parameters, comma-separated, and binds them.
    pub fn push_list(&mut self, values: impl IntoIterator<Item = impl Into<Value>>) -> &mut Self {
        let list = placeholders(&mut self.values, values);
        self.push(list)
    }

    /// The statement as sea-orm takes it.
    pub fn statement(self, db: &impl ConnectionTrait) -> Statement {
        Statement::from_sql_and_values(db.get_database_backend(), self.text, self.values)
    }

    /// Runs it; gives the number of rows that it changed.
    pub async fn execute(self, db: &impl ConnectionTrait) -> Result<u64, StoreError> {
        Ok(db.execute_raw(self.statement(db)).await?.rows_affected())
    }

    /// All rows.
    pub async fn rows(self, db: &impl ConnectionTrait) -> Result<Vec<QueryResult>, StoreError> {
        Ok(db.query_all_raw(self.statement(db)).await?)
    }

    /// All rows as structs.
    pub async fn all<T: FromQueryResult>(self, db: &impl ConnectionTrait) -> Result<Vec<T>, StoreError> {
        let rows = self.rows(db).await?;
        Ok(rows.iter().map(|row| T::from_query_result(row, "")).collect::<Result<_, _>>()?)
    }

    /// The first row.
    pub async fn row(self, db: &impl ConnectionTrait) -> Result<Option<QueryResult>, StoreError> {
        Ok(db.query_one_raw(self.statement(db)).await?)
    }

    /// The first column of the first row.
    pub async fn scalar<T: TryGetable>(self, db: &impl ConnectionTrait) -> Result<Option<T>, StoreError> {
        let row = self.row(db).await?;
        Ok(row.map(|row| row.try_get_by_index(0)).transpose()?)
    }

    /// The first column of all rows.
    pub async fn scalars<T: TryGetable>(self, db: &impl ConnectionTrait) -> Result<Vec<T>, StoreError> {
        let rows = self.rows(db).await?;
        Ok(rows.iter().map(|row| row.try_get_by_index(0)).collect::<Result<_, _>>()?)
    }
}

/// Adds parameters to a list; gives their placeholders, comma-separated.
pub(in crate::store) fn placeholders(
    values: &mut Vec<Value>,
    more: impl IntoIterator<Item = impl Into<Value>>,
) -> String {
    let mut list = Vec::new();
    for value in more {
        values.push(value.into());
        list.push(format!("${}", values.len()));
    }
    list.join(", ")
}

#[cfg(test)]
mod tests {
    use sea_orm::Database;

    use super::*;

    #[tokio::test]
    async fn parameters_are_numbered_in_the_order_in_which_they_are_bound() {
        let db = Database::connect("sqlite::memory:").await.unwrap();
        let mut sql =
            Sql::new("SELECT $1 || ':' || x FROM (SELECT 1 AS x UNION SELECT 2 UNION SELECT 3) AS t")
                .bind("n");
        sql.push(" WHERE x IN (").push_list([2_i64, 3, 9]).push(") AND x > ").push_bind(2_i64);
        assert_eq!(sql.clone().scalars::<String>(&db).await.unwrap(), ["n:3"]);
        assert_eq!(sql.clone().scalar::<String>(&db).await.unwrap().as_deref(), Some("n:3"));
        assert_eq!(sql.rows(&db).await.unwrap().len(), 1);
        let none = Sql::new("SELECT 1 WHERE 1 = $1").bind(0);
        assert_eq!(none.scalar::<i64>(&db).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_statement_says_how_many_rows_it_changed() {
        let db = Database::connect("sqlite::memory:").await.unwrap();
        Sql::new("CREATE TABLE t (x integer)").execute(&db).await.unwrap();
        let insert = Sql::new("INSERT INTO t VALUES ($1), ($2), ($1)").bind(1).bind(2);
        assert_eq!(insert.execute(&db).await.unwrap(), 3);
        assert_eq!(Sql::new("DELETE FROM t WHERE x = $1").bind(1).execute(&db).await.unwrap(), 2);
    }
}
