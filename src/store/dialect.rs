//! Expressions that the two databases write differently. PostgreSQL has instants as `timestamptz`, SQLite as integers of
//! microseconds since 1970.

use crate::store::connect::Store;
use crate::store::sql::Sql;

impl Store {
    /// An instant, from a placeholder of microseconds since 1970 such as `$1`.
    pub(in crate::store) fn instant(&self, placeholder: &str) -> String {
        if self.is_postgres() {
            format!("('epoch'::timestamptz + {placeholder} * interval '1 microsecond')")
        } else {
            placeholder.to_owned()
        }
    }

    /// Appends an instant, of microseconds since 1970, as a parameter.
    pub(in crate::store) fn push_instant(&self, sql: &mut Sql, micros: i64) {
        if self.is_postgres() {
            sql.push("('epoch'::timestamptz + ").push_bind(micros).push(" * interval '1 microsecond')");
        } else {
            sql.push_bind(micros);
        }
    }

    /// The minute since 1970 in which the event of a row occurred.
    pub(in crate::store) fn minute(&self) -> &'static str {
        if self.is_postgres() {
            "(extract(epoch FROM date_bin('1 minute', occurred_at, 'epoch'))::bigint / 60)"
        } else {
            "(occurred_at / 60000000)"
        }
    }

    /// The instant in a column, in microseconds since 1970.
    pub(in crate::store) fn micros(&self, column: &str) -> String {
        if self.is_postgres() {
            format!("(extract(epoch FROM {column}) * 1000000)::bigint")
        } else {
            column.to_owned()
        }
    }
}
