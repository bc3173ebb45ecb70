//! Windows of `event_rows`: a pass over the whole table in parts, without an index for it and without long locks.

use crate::store::connect::Store;
use crate::store::error::StoreError;
use crate::store::sql::Sql;

/// Size of a window in PostgreSQL, in pages.
const PAGES: i64 = 1_024;
/// Size of a window in SQLite, in rows.
const ROWS: i64 = 20_000;

/// A part of `event_rows`: from a page (PostgreSQL) or a row id (SQLite) up to another one, exclusive.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    first: i64,
    end: i64,
}

impl Store {
    /// All windows, as of now. Rows that are inserted later may be in none of them.
    pub(super) async fn windows(&self) -> Result<impl Iterator<Item = Window> + use<>, StoreError> {
        let (sql, width) = if self.is_postgres() {
            ("SELECT pg_relation_size('event_rows') / current_setting('block_size')::bigint", PAGES)
        } else {
            ("SELECT coalesce(max(rowid), 0) FROM event_rows", ROWS)
        };
        let last: i64 = Sql::new(sql).scalar(self.db()).await?.unwrap_or(0);
        Ok((0..=last / width).map(move |at| Window { first: at * width, end: (at + 1) * width }))
    }

    /// Appends the condition that a row is in a window.
    pub(super) fn push_window(&self, sql: &mut Sql, window: Window) {
        let (first, end) = (window.first, window.end);
        if self.is_postgres() {
            sql.push("ctid >= format('(%s,0)', ").push_bind(first).push("::bigint)::tid AND ");
            sql.push("ctid < format('(%s,0)', ").push_bind(end).push("::bigint)::tid");
        } else {
            sql.push("rowid >= ").push_bind(first).push(" AND rowid < ").push_bind(end);
        }
    }
}
