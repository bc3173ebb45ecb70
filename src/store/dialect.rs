//! What the two databases write differently, and the statements that need no more than this.

use sea_orm::{ConnectionTrait, Statement, Value};

use crate::store::connect::Store;
use crate::store::error::StoreError;
use crate::store::sql::Sql;

/// A condition that grows, with its parameters from $1.
pub(in crate::store) struct Condition {
    wheres: Vec<String>,
    /// The parameters.
    pub values: Vec<Value>,
}

impl Condition {
    /// One that begins with a condition without parameters.
    pub fn new(first: &str) -> Self {
        Self { wheres: vec![first.to_owned()], values: Vec::new() }
    }

    /// Adds `left` followed by `form`, whose `{}` is a value's place, if there is a value.
    pub fn also(&mut self, left: &str, value: Option<impl Into<Value>>, form: &str) {
        if let Some(value) = value {
            let place = places(&mut self.values, [value]);
            self.wheres.push(format!("{left} {}", form.replace("{}", &place)));
        }
    }

    /// The whole of it.
    pub fn sql(&self) -> String {
        self.wheres.join(" AND ")
    }
}

/// Adds parameters; gives their places, comma-separated.
pub(in crate::store) fn places(
    values: &mut Vec<Value>,
    more: impl IntoIterator<Item = impl Into<Value>>,
) -> String {
    let mut places = Vec::new();
    for value in more {
        values.push(value.into());
        places.push(format!("${}", values.len()));
    }
    places.join(", ")
}

impl Store {
    /// An instant, from a parameter at `{}` of microseconds since 1970.
    pub(in crate::store) fn instant(&self) -> &'static str {
        if self.is_postgres() { "('epoch'::timestamptz + {} * interval '1 microsecond')" } else { "{}" }
    }

    /// Appends an instant, of microseconds since 1970, as a parameter.
    pub(in crate::store) fn push_instant(&self, sql: &mut Sql, micros: i64) {
        if self.is_postgres() {
            sql.push("('epoch'::timestamptz + ").push_bind(micros).push(" * interval '1 microsecond')");
        } else {
            sql.push_bind(micros);
        }
    }

    /// The minute since 1970 in which a row's event happened.
    pub(in crate::store) fn minute(&self) -> &'static str {
        if self.is_postgres() {
            "(extract(epoch FROM date_bin('1 minute', occurred_at, 'epoch'))::bigint / 60)"
        } else {
            "(occurred_at / 60000000)"
        }
    }

    /// A column's instant, in microseconds since 1970.
    pub(in crate::store) fn micros(&self, column: &str) -> String {
        if self.is_postgres() {
            format!("(extract(epoch FROM {column}) * 1000000)::bigint")
        } else {
            column.to_owned()
        }
    }

    /// A number that a query gives; 0 if it gives no row.
    pub(in crate::store) async fn number(
        &self,
        sql: &str,
        values: Vec<Value>,
        name: &str,
    ) -> Result<i64, StoreError> {
        let statement = Statement::from_sql_and_values(self.db().get_database_backend(), sql, values);
        let row = self.db().query_one_raw(statement).await?;
        Ok(row.map_or(Ok(0), |row| row.try_get("", name))?)
    }

    /// Runs a statement; gives how many rows it changed.
    pub(in crate::store) async fn change(&self, sql: &str, values: Vec<Value>) -> Result<u64, StoreError> {
        let statement = Statement::from_sql_and_values(self.db().get_database_backend(), sql, values);
        Ok(self.db().execute_raw(statement).await?.rows_affected())
    }
}
