//! Rows that leave after a time.
//!
//! A pass walks the table from one end to the other, a window of pages at a time, and deletes what is old
//! enough: no index to keep for it, no long lock, and the space is taken by new rows once the database has
//! cleaned up. A row is old enough when it has been stored for so long *and* what it tells happened so long
//! ago. What was counted of it stays counted; but an event that comes again after its row has left is new.

use std::time::Duration;

use super::connect::Store;
use super::error::StoreError;
use crate::event::Source;

/// Pages of PostgreSQL, and rows of SQLite, of one window.
const PAGES: i64 = 1_024;
const ROWS: i64 = 20_000;
/// Rest after each window.
const REST: Duration = Duration::from_millis(20);

impl Store {
    /// Deletes the rows of a source that were stored, and happened, before an instant in microseconds since
    /// 1970. Gives how many those were.
    ///
    /// # Errors
    ///
    /// If the store is away; what was deleted before stays so.
    pub async fn expire_rows(&self, source: Source, before: i64) -> Result<u64, StoreError> {
        // Rows of the minute that the instant is in leave one by one.
        let minute = -(-before).div_euclid(60_000_000);
        // Hours that only the rows tell must be summed up first.
        let sql =
            "SELECT count(*) AS many FROM summaries WHERE source = $1 AND level = 0 AND stale AND at <= $2";
        let hour = i32::try_from(minute.div_euclid(60)).unwrap_or(i32::MAX);
        if self.number(sql, vec![source.code().into(), hour.into()], "many").await? > 0 {
            return Ok(0);
        }
        let sql = "INSERT INTO retained (source, from_minute) VALUES ($1, $2)
            ON CONFLICT (source) DO UPDATE SET from_minute = excluded.from_minute
            WHERE excluded.from_minute > retained.from_minute";
        self.change(sql, vec![source.code().into(), minute.into()]).await?;
        let (end, width) = if self.is_postgres() {
            let sql =
                "SELECT pg_relation_size('event_rows') / current_setting('block_size')::bigint AS pages";
            (self.number(sql, vec![], "pages").await?, PAGES)
        } else {
            (
                self.number("SELECT coalesce(max(rowid), 0) AS last FROM event_rows", vec![], "last").await?,
                ROWS,
            )
        };
        let window = if self.is_postgres() {
            "ctid >= format('(%s,0)', $3::bigint)::tid AND ctid < format('(%s,0)', $4::bigint)::tid"
        } else {
            "rowid >= $3 AND rowid < $4"
        };
        let instant = self.instant().replace("{}", "$2");
        let sql = format!(
            "DELETE FROM event_rows WHERE {window} AND source = $1 AND ingested_at < {instant}
                AND occurred_at < {instant}"
        );
        let mut gone = 0;
        let mut first = 0;
        while first <= end {
            let values = vec![source.code().into(), before.into(), first.into(), (first + width).into()];
            gone += self.change(&sql, values).await?;
            first += width;
            tokio::time::sleep(REST).await;
        }
        Ok(gone)
    }

    /// The minute from which on all rows of a source are still there; `None` if none ever left.
    pub(super) async fn retained_from(&self, source: Source) -> Result<Option<i64>, StoreError> {
        let sql = "SELECT coalesce(max(from_minute), -1) AS minute FROM retained WHERE source = $1";
        let minute = self.number(sql, vec![source.code().into()], "minute").await?;
        Ok((minute >= 0).then_some(minute))
    }
}
