//! Deleting rows by age.
//!
//! A pass deletes old rows window by window; the database reuses their space for new rows. A row is old enough if it was
//! stored, and its event occurred, before the same instant. Rollups and summaries keep its event; but an event that is
//! sent again after its row was deleted counts as new.

use std::time::Duration;

use sea_orm::ConnectionTrait;

use crate::event::{MICROS_PER_MINUTE, Source};
use crate::store::connect::Store;
use crate::store::error::StoreError;
use crate::store::sql::Sql;
use crate::store::summary::COUNT_DAMAGED;
use crate::store::transaction::Snapshot;

/// Rest after each window.
const REST: Duration = Duration::from_millis(20);
/// A minute before all others: with it, [`retain`] only keeps rows from being deleted during a transaction.
pub(super) const NO_MINUTE: i64 = -1;

impl Store {
    /// Deletes the rows of a source that were stored, and whose events occurred, before an instant in microseconds since
    /// 1970; gives their number. Nothing is deleted while the rows are needed to compute a summary.
    ///
    /// # Errors
    ///
    /// If the store is unavailable; rows that were deleted before stay so.
    pub async fn expire_rows(&self, source: Source, before: i64) -> Result<u64, StoreError> {
        // The minute of the instant itself is incomplete from now on.
        let minute = -(-before).div_euclid(MICROS_PER_MINUTE);
        if !self.may_expire(source, minute).await? {
            return Ok(0);
        }
        let mut deleted = 0;
        for window in self.windows().await? {
            let mut sql = Sql::new("DELETE FROM event_rows WHERE source = $1 AND ").bind(source.code());
            self.push_window(&mut sql, window);
            for column in ["ingested_at", "occurred_at"] {
                sql.push(format!(" AND {column} < "));
                self.push_instant(&mut sql, before);
            }
            deleted += sql.execute(self.db()).await?;
            tokio::time::sleep(REST).await;
        }
        Ok(deleted)
    }

    /// True if rows from before a minute may be deleted, which is recorded then: not while an hour is computed from them
    /// because its summary is stale, or can be computed from them because its summary is corrupt.
    async fn may_expire(&self, source: Source, minute: i64) -> Result<bool, StoreError> {
        let tx = self.snapshot(Snapshot::Write).await?;
        // Hours of which rows were deleted before cannot be computed from the others.
        let from = retained_from(&tx, source).await?.unwrap_or(NO_MINUTE);
        retain(&tx, source, minute).await?;
        let stale = "SELECT count(*) FROM summaries WHERE source = $1 AND level = 0 AND stale AND at <= $2";
        let hour = i32::try_from(minute.div_euclid(60)).unwrap_or(i32::MAX);
        let stale = Sql::new(stale).bind(source.code()).bind(hour).scalar::<i64>(&tx).await?;
        let mut corrupt = Sql::new(COUNT_DAMAGED).bind(source.code());
        corrupt.push(" AND (d.level <> 0 OR d.at * 60 >= ").push_bind(from).push(")");
        let corrupt = corrupt.scalar::<i64>(&tx).await?;
        let may = (stale, corrupt) == (Some(0), Some(0));
        if may {
            tx.commit().await?
        } else {
            tx.rollback().await?
        }
        Ok(may)
    }
}

/// Records that rows from before a minute may be deleted. With [`NO_MINUTE`] none are deleted before this transaction
/// ends: of two transactions that record something for a source, one ends with a conflict.
pub(super) async fn retain(tx: &impl ConnectionTrait, source: Source, minute: i64) -> Result<(), StoreError> {
    let sql = "INSERT INTO retained (source, from_minute) VALUES ($1, $2)
        ON CONFLICT (source) DO UPDATE SET from_minute =
            CASE WHEN excluded.from_minute > retained.from_minute THEN excluded.from_minute
            ELSE retained.from_minute END";
    Sql::new(sql).bind(source.code()).bind(minute).execute(tx).await.map(drop)
}

/// The minute from which on a source has all its rows; `None` if no row was ever deleted.
pub(super) async fn retained_from(
    tx: &impl ConnectionTrait,
    source: Source,
) -> Result<Option<i64>, StoreError> {
    let sql = Sql::new("SELECT from_minute FROM retained WHERE source = $1").bind(source.code());
    let minute: Option<i64> = sql.scalar(tx).await?;
    Ok(minute.filter(|minute| *minute >= 0))
}
