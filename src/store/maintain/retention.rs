//! Rows that leave after a time.
//!
//! A pass walks the table from one end to the other, a window of pages at a time, and deletes what is old
//! enough: no index to keep for it, no long lock, and the space is taken by new rows once the database has
//! cleaned up. A row is old enough when it has been stored for so long *and* what it tells happened so long
//! ago. What was counted of it stays counted; but an event that comes again after its row has left is new.

use std::time::{Duration, Instant};

use sea_orm::{ConnectionTrait, Statement, Value};

use crate::event::{MICROS_PER_MINUTE, Source};
use crate::store::connect::{Snapshot, Store};
use crate::store::error::StoreError;
use crate::store::sql::Sql;
use crate::store::summary::COUNT_DAMAGED;
use crate::store::transaction::Transaction;

/// Pages of PostgreSQL, and rows of SQLite, of one window.
const PAGES: i64 = 1_024;
const ROWS: i64 = 20_000;
/// Rest after each window.
const REST: Duration = Duration::from_millis(20);
/// Name of the last clock that was trusted, in `progress`.
const CLOCK: &str = "retention clock";
/// Time by which a clock may be ahead of the last one that was trusted: passes are at most a day apart.
const STEP: Duration = Duration::from_hours(48);
/// Time for which a clock that is further ahead has to go on evenly before it is trusted.
const CONFIRM: Duration = Duration::from_hours(1);
/// Deviation of a clock that goes evenly.
const EVEN: i64 = 60_000_000;

/// The clock by which rows leave.
///
/// A clock that jumped years ahead, if only for a moment, would let all rows go. So the last clock that was trusted is
/// kept in the database, and one that is much further ahead (since the system was off for days, or by a fault) is
/// trusted once it went on evenly for an hour of this process. Where PostgreSQL has the rows, its clock is asked as
/// well, and the earlier of both counts.
#[derive(Debug, Default)]
pub struct RetentionClock {
    /// When a clock that is not trusted was first seen, and what it said.
    doubted: Option<(Instant, i64)>,
}

impl RetentionClock {
    /// The instant that is now, in microseconds since 1970; `None` while that is in doubt.
    ///
    /// # Errors
    ///
    /// If the store is away.
    pub async fn now(&mut self, store: &Store) -> Result<Option<i64>, StoreError> {
        let clock = chrono::Utc::now().timestamp_micros();
        let clock = store.database_clock().await?.map_or(clock, |other| clock.min(other));
        self.judge(store, clock, Instant::now()).await
    }

    /// The same of a clock that says `clock` at a moment of this process.
    ///
    /// # Errors
    ///
    /// If the store is away.
    pub async fn judge(
        &mut self,
        store: &Store,
        clock: i64,
        moment: Instant,
    ) -> Result<Option<i64>, StoreError> {
        let micros = |time: Duration| i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
        let sql = "SELECT coalesce(max(next), -1) AS next FROM progress WHERE work = $1";
        let last: i64 = match Sql::new(sql).bind(CLOCK).scalar(store.db()).await?.unwrap_or(-1) {
            // Not kept yet: summaries say when they were touched. Where there is none, no row is old.
            ..0 => {
                let sql = "SELECT coalesce(max(touched_at), -1) AS touched FROM summaries";
                Sql::new(sql).scalar(store.db()).await?.unwrap_or(-1)
            }
            last => last,
        };
        let trusted = last < 0 || clock <= last.saturating_add(micros(STEP));
        let confirmed = match self.doubted {
            _ if trusted => true,
            Some((since, first)) => {
                let passed = moment.saturating_duration_since(since);
                if (clock - first - micros(passed)).abs() > EVEN {
                    self.doubted = Some((moment, clock));
                    false
                } else {
                    passed >= CONFIRM
                }
            }
            None => {
                self.doubted = Some((moment, clock));
                false
            }
        };
        if !confirmed {
            return Ok(None);
        }
        self.doubted = None;
        let sql = "INSERT INTO progress (work, next) VALUES ($1, $2) ON CONFLICT (work) DO UPDATE SET next = excluded.next";
        Sql::new(sql).bind(CLOCK).bind(clock).execute(store.db()).await?;
        store.correct_retained(clock).await?;
        Ok(Some(clock))
    }
}

impl Store {
    /// Deletes the rows of a source that were stored, and happened, before an instant in microseconds since
    /// 1970. Gives how many those were.
    ///
    /// # Errors
    ///
    /// If the store is away; what was deleted before stays so.
    pub async fn expire_rows(&self, source: Source, before: i64) -> Result<u64, StoreError> {
        // Rows of the minute that the instant is in leave one by one.
        let minute = -(-before).div_euclid(MICROS_PER_MINUTE);
        if !self.may_leave(source, minute).await? {
            return Ok(0);
        }
        let (end, width) = self.windows().await?;
        let window = self.window("$3", "$4");
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

    /// The database's own clock, if it has one, in microseconds since 1970.
    async fn database_clock(&self) -> Result<Option<i64>, StoreError> {
        if !self.is_postgres() {
            return Ok(None);
        }
        let sql = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS clock";
        Ok(Some(self.number(sql, vec![], "clock").await?))
    }

    /// Takes back that rows of the future have left: a clock that was ahead let them go. Whatever happens from now on
    /// is there.
    async fn correct_retained(&self, clock: i64) -> Result<(), StoreError> {
        let next = clock.div_euclid(MICROS_PER_MINUTE) + 1;
        let sql = "UPDATE retained SET from_minute = $1 WHERE from_minute > $1";
        if self.change(sql, vec![next.into()]).await? > 0 {
            tracing::warn!("rows had left by a clock that was ahead; from now on they are compared again");
        }
        Ok(())
    }

    /// Where the last window on the rows begins at most, and how wide each is: in pages of PostgreSQL, in
    /// rows of SQLite.
    pub(in crate::store) async fn windows(&self) -> Result<(i64, i64), StoreError> {
        if self.is_postgres() {
            let sql =
                "SELECT pg_relation_size('event_rows') / current_setting('block_size')::bigint AS pages";
            return Ok((self.number(sql, vec![], "pages").await?, PAGES));
        }
        let sql = "SELECT coalesce(max(rowid), 0) AS last FROM event_rows";
        Ok((self.number(sql, vec![], "last").await?, ROWS))
    }

    /// The condition that a row is in the window from one parameter up to another.
    pub(in crate::store) fn window(&self, from: &str, to: &str) -> String {
        if self.is_postgres() {
            format!(
                "ctid >= format('(%s,0)', {from}::bigint)::tid AND ctid < format('(%s,0)', {to}::bigint)::tid"
            )
        } else {
            format!("rowid >= {from} AND rowid < {to}")
        }
    }

    /// Whether rows from before a minute may leave, which is remembered: not while only they tell an hour,
    /// or can mend what is damaged.
    async fn may_leave(&self, source: Source, minute: i64) -> Result<bool, StoreError> {
        let tx = self.snapshot(Snapshot::Write).await?;
        // Where rows have left before, none that is left mends an hour.
        let from = retained_from(&tx, source).await?.unwrap_or(-1);
        let mendable = format!("{COUNT_DAMAGED} AND (d.level <> 0 OR d.at * 60 >= $2)");
        retain(&tx, source, minute).await?;
        let sql =
            "SELECT count(*) AS number FROM summaries WHERE source = $1 AND level = 0 AND stale AND at <= $2";
        let hour = i32::try_from(minute.div_euclid(60)).unwrap_or(i32::MAX);
        if number(&tx, sql, [source.code().into(), hour.into()]).await? > 0
            || number(&tx, &mendable, [source.code().into(), from.into()]).await? > 0
        {
            tx.rollback().await?;
            return Ok(false);
        }
        tx.commit().await?;
        Ok(true)
    }
}

/// Remembers that rows from before a minute may leave, or that they may not as long as this transaction
/// lasts (`minute` below 0): of two that do either, one ends with a conflict.
pub(in crate::store) async fn retain(
    tx: &Transaction,
    source: Source,
    minute: i64,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO retained (source, from_minute) VALUES ($1, $2)
        ON CONFLICT (source) DO UPDATE SET from_minute =
            CASE WHEN excluded.from_minute > retained.from_minute THEN excluded.from_minute
            ELSE retained.from_minute END";
    let values = [source.code().into(), minute.into()];
    tx.execute_raw(Statement::from_sql_and_values(tx.get_database_backend(), sql, values)).await?;
    Ok(())
}

/// The minute from which on all rows of a source are still there; `None` if none ever left.
pub(in crate::store) async fn retained_from(
    tx: &Transaction,
    source: Source,
) -> Result<Option<i64>, StoreError> {
    let sql = "SELECT coalesce(max(from_minute), -1) AS number FROM retained WHERE source = $1";
    let minute = number(tx, sql, [source.code().into()]).await?;
    Ok((minute >= 0).then_some(minute))
}

async fn number<const N: usize>(tx: &Transaction, sql: &str, values: [Value; N]) -> Result<i64, StoreError> {
    let statement = Statement::from_sql_and_values(tx.get_database_backend(), sql, values);
    let row = tx.query_one_raw(statement).await?;
    Ok(row.map_or(Ok(0), |row| row.try_get("", "number"))?)
}
