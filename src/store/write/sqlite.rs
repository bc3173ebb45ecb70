//! The writer's transaction in SQLite: one writing connection, so one transaction at a time, and one shard.

use std::collections::HashSet;

use sea_orm::sqlx::query::QueryScalar;
use sea_orm::sqlx::sqlite::SqliteArguments;
use sea_orm::sqlx::{self, AssertSqlSafe, Encode, Sqlite, SqlitePool, Transaction, Type};
use uuid::Uuid;

use crate::event::Source;
use crate::log::DeadLetter;
use crate::store::error::StoreError;
use crate::store::summary::Encoded;
use crate::store::write::INSERT_DELTA;
use crate::store::write::batch::{Batch, BatchFrame, Write, Written, big};
use crate::store::write::counts::{INSERT_ROLLUP, RollupCounts};
use crate::store::write::letters::insert_sqlite;
use crate::store::write::row::{COLUMNS, Columns, Row, column_names};

/// Numbers of rows in one statement, the largest first; each size is prepared once.
const SIZES: [usize; 4] = [800, 100, 10, 1];
/// Parameters that SQLite takes in one statement.
const PARAMETERS: usize = 32_766;
const _: () =
    assert!(SIZES[0] * (COLUMNS.len() + 1) <= PARAMETERS, "the largest statement has too many parameters");

/// The statement that inserts a number of rows and gives the keys of the new ones.
fn insert_statement(rows: usize) -> String {
    let row = format!("(?{})", ", ?".repeat(COLUMNS.len()));
    let all = vec![row; rows].join(", ");
    let columns = column_names();
    format!(
        "INSERT INTO event_rows (ingested_at, {columns}) VALUES {all} ON CONFLICT (key) DO NOTHING RETURNING key"
    )
}

/// A transaction.
pub(super) struct SqliteWrite {
    tx: Transaction<'static, Sqlite>,
}

impl SqliteWrite {
    /// Begins a transaction; it has the write lock from the start, so that it never has to be upgraded.
    pub async fn begin(pool: &SqlitePool) -> Result<Self, StoreError> {
        Ok(Self { tx: pool.begin_with("BEGIN IMMEDIATE").await? })
    }
}

/// An insert whose parameters are bound one after another.
struct Binding<'q>(QueryScalar<'q, Sqlite, Uuid, SqliteArguments>);

impl<'q> Binding<'q> {
    fn bind<T: Encode<'q, Sqlite> + Type<Sqlite> + 'q>(self, value: T) -> Self {
        Self(self.0.bind(value))
    }
}

impl<'q> Columns<'q> for Binding<'q> {
    fn key(self, key: Uuid) -> Self {
        self.bind(key)
    }

    fn time(self, micros: Option<i64>) -> Self {
        self.bind(micros)
    }

    fn int8(self, value: Option<i64>) -> Self {
        self.bind(value)
    }

    fn int2(self, value: Option<i16>) -> Self {
        self.bind(value)
    }

    fn text(self, value: Option<&'q str>) -> Self {
        self.bind(value)
    }
}

/// Claims a frame that neither a claim nor a run has. A frame that was processed before version 0.2 is known by its
/// sequence number, and is looked for only if its writer had sent its number by then.
const CLAIM: &str = "INSERT INTO ledger_claims
    (source, log_id, writer, number, sequence, events, total, acked, acked_total)
    SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9
    WHERE coalesce((
        SELECT r.last_number FROM ledger_runs r
        WHERE r.source = $1 AND r.writer = $3 AND r.first_number <= $4
        ORDER BY r.first_number DESC LIMIT 1), 0) < $4
    AND NOT EXISTS (
        SELECT 1 FROM ledger_before_writers w
        WHERE w.source = $1 AND w.log_id = $2 AND w.writer = $3 AND w.number >= $4 AND (
            $5 <= (SELECT m.sequence FROM ledger_before_watermarks m WHERE m.source = $1 AND m.log_id = $2)
            OR EXISTS (SELECT 1 FROM ledger_before_frames f
                WHERE f.source = $1 AND f.log_id = $2 AND f.sequence = $5)))
    ON CONFLICT DO NOTHING";

impl Write for SqliteWrite {
    async fn claim(&mut self, batch: &Batch<'_>) -> Result<HashSet<(Uuid, u64)>, StoreError> {
        let mut fresh = HashSet::new();
        for frame in &batch.frames {
            let claimed = sqlx::query(CLAIM)
                .bind(batch.source.code())
                .bind(batch.log_id)
                .bind(frame.writer)
                .bind(big(frame.number))
                .bind(big(frame.sequence))
                .bind(big(frame.events()))
                .bind(big(frame.total))
                .bind(big(frame.acknowledged.number))
                .bind(big(frame.acknowledged.total))
                .execute(&mut *self.tx)
                .await?;
            if claimed.rows_affected() == 1 {
                fresh.insert(frame.identity());
            }
        }
        Ok(fresh)
    }

    async fn repeat(&mut self, batch: &Batch<'_>, frames: &[&BatchFrame<'_>]) -> Result<(), StoreError> {
        for frame in frames {
            sqlx::query(
                "INSERT INTO ledger_repeats (source, log_id, sequence) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
            )
            .bind(batch.source.code())
            .bind(batch.log_id)
            .bind(big(frame.sequence))
            .execute(&mut *self.tx)
            .await?;
        }
        Ok(())
    }

    async fn insert<'r, 'a>(&mut self, rows: &[&'r Row<'a>]) -> Result<Vec<&'r Row<'a>>, StoreError> {
        let mut new: HashSet<Uuid> = HashSet::with_capacity(rows.len());
        let now = chrono::Utc::now().timestamp_micros();
        let mut left = rows;
        while !left.is_empty() {
            // The largest statement that the rows fill.
            let size = SIZES.into_iter().find(|size| *size <= left.len()).unwrap_or(1);
            let (part, more) = left.split_at(size);
            left = more;
            let mut query = Binding(sqlx::query_scalar(AssertSqlSafe(insert_statement(size))));
            for row in part {
                query = row.columns(query.bind(now));
            }
            let keys: Vec<Uuid> = query.0.fetch_all(&mut *self.tx).await?;
            new.extend(keys);
        }
        let new: Vec<&Row<'_>> = rows.iter().filter(|row| new.contains(&row.key)).copied().collect();
        for (span, count) in RollupCounts::of(&new).iter() {
            sqlx::query(AssertSqlSafe(INSERT_ROLLUP.as_str()))
                .bind(span.minutes)
                .bind(span.at)
                .bind(span.event_type)
                .bind(0)
                .bind(span.currency)
                .bind(span.source)
                .bind(span.funnel_stage)
                .bind(count.events)
                .bind(count.transactions)
                .bind(count.units)
                .bind(count.micros)
                .execute(&mut *self.tx)
                .await?;
        }
        Ok(new)
    }

    async fn summarize(&mut self, source: Source, events: u64, delta: Encoded) -> Result<(), StoreError> {
        sqlx::query(INSERT_DELTA)
            .bind(source.code())
            .bind(big(events))
            .bind(delta.currency)
            .bind(delta.body)
            .execute(&mut *self.tx)
            .await?;
        Ok(())
    }

    async fn run(&mut self, sql: &'static str) -> Result<(), StoreError> {
        sqlx::raw_sql(sql).execute(&mut *self.tx).await?;
        Ok(())
    }

    async fn set_aside(&mut self, letters: &[(Uuid, DeadLetter)]) -> Result<(), StoreError> {
        insert_sqlite(&mut self.tx, letters).await
    }

    async fn count(
        &mut self,
        batch: &Batch<'_>,
        _frames: &[&BatchFrame<'_>],
        written: &Written,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO ledger_counts (source, log_id, shard, stored, duplicates, quarantined)
             VALUES ($1, $2, 0, $3, $4, $5)
             ON CONFLICT (source, log_id, shard) DO UPDATE SET stored = stored + excluded.stored,
                duplicates = duplicates + excluded.duplicates, quarantined = quarantined + excluded.quarantined",
        )
        .bind(batch.source.code())
        .bind(batch.log_id)
        .bind(big(written.stored))
        .bind(big(written.duplicates))
        .bind(big(written.quarantined))
        .execute(&mut *self.tx)
        .await?;
        Ok(())
    }

    async fn roll_back(self) -> Result<(), StoreError> {
        self.tx.rollback().await.map_err(StoreError::from)
    }

    async fn commit(self) -> Result<(), StoreError> {
        self.tx.commit().await.map_err(StoreError::from)
    }
}
