//! The writer's transaction in SQLite.
//!
//! There is one writing connection, so one transaction at a time and one shard.

use std::collections::{HashMap, HashSet};

use sea_orm::sqlx::query::QueryScalar;
use sea_orm::sqlx::sqlite::SqliteArguments;
use sea_orm::sqlx::{self, AssertSqlSafe, Encode, Sqlite, SqlitePool, Transaction, Type};
use uuid::Uuid;

use super::batch::{Batch, Write, Written, big};
use super::error::StoreError;
use super::rollup::{ADD, Counts};
use super::row::{COLUMNS, Columns, Row, column_names};
use crate::event::Source;
use crate::log::DeadLetter;

/// Rows of one statement: SQLite takes 32,766 parameters.
const SIZES: [usize; 4] = [1_000, 100, 10, 1];

/// Inserts so many rows, and says which of them were new.
fn insert(rows: usize) -> String {
    let row = format!("(?{})", ", ?".repeat(COLUMNS.len()));
    let all = vec![row; rows].join(", ");
    let columns = column_names();
    format!(
        "INSERT INTO event_rows (ingested_at, {columns}) VALUES {all} ON CONFLICT (key) DO NOTHING RETURNING key"
    )
}

pub(super) struct SqliteWrite {
    tx: Transaction<'static, Sqlite>,
}

impl SqliteWrite {
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

impl Write for SqliteWrite {
    async fn claim(&mut self, batch: &Batch<'_>) -> Result<HashSet<u64>, StoreError> {
        let mut fresh = HashSet::new();
        for frame in &batch.frames {
            let claimed = sqlx::query(
                "INSERT INTO ledger_frames (source, log_id, sequence) SELECT ?1, ?2, ?3
                 WHERE ?3 > coalesce((SELECT sequence FROM ledger_watermarks WHERE source = ?1 AND log_id = ?2), 0)
                 ON CONFLICT DO NOTHING",
            )
            .bind(batch.source.code())
            .bind(batch.log_id)
            .bind(big(frame.sequence))
            .execute(&mut *self.tx)
            .await?;
            if claimed.rows_affected() == 1 {
                fresh.insert(frame.sequence);
            }
        }
        Ok(fresh)
    }

    async fn highest(&mut self, batch: &Batch<'_>) -> Result<HashMap<Uuid, u64>, StoreError> {
        let marks: Vec<(Uuid, i64)> = sqlx::query_as(
            "SELECT writer, max(number) FROM ledger_writers WHERE source = ?1 AND log_id = ?2 GROUP BY writer",
        )
        .bind(batch.source.code())
        .bind(batch.log_id)
        .fetch_all(&mut *self.tx)
        .await?;
        Ok(marks.into_iter().map(|(writer, number)| (writer, number.cast_unsigned())).collect())
    }

    async fn insert<'r, 'a>(&mut self, rows: &[&'r Row<'a>]) -> Result<Vec<&'r Row<'a>>, StoreError> {
        let mut new: HashSet<Uuid> = HashSet::with_capacity(rows.len());
        let now = chrono::Utc::now().timestamp_micros();
        let mut left = rows;
        while !left.is_empty() {
            // The largest statement that is full: each is made ready once.
            let size = SIZES.into_iter().find(|size| *size <= left.len()).unwrap_or(1);
            let (part, more) = left.split_at(size);
            left = more;
            let mut query = Binding(sqlx::query_scalar(AssertSqlSafe(insert(size))));
            for row in part {
                query = row.columns(query.bind(now));
            }
            let keys: Vec<Uuid> = query.0.fetch_all(&mut *self.tx).await?;
            new.extend(keys);
        }
        let new: Vec<&Row<'_>> = rows.iter().filter(|row| new.contains(&row.key)).copied().collect();
        for (span, count) in Counts::of(&new).iter() {
            sqlx::query(AssertSqlSafe(ADD.as_str()))
                .bind(span.minutes)
                .bind(span.at)
                .bind(span.event_type)
                .bind(0)
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

    async fn summarize(&mut self, source: Source, events: u64, delta: Vec<u8>) -> Result<(), StoreError> {
        sqlx::query("INSERT INTO summary_deltas (source, events, body) VALUES (?1, ?2, ?3)")
            .bind(source.code())
            .bind(big(events))
            .bind(delta)
            .execute(&mut *self.tx)
            .await?;
        Ok(())
    }

    async fn run(&mut self, sql: &'static str) -> Result<(), StoreError> {
        sqlx::raw_sql(sql).execute(&mut *self.tx).await?;
        Ok(())
    }

    async fn set_aside(&mut self, letters: &[(Uuid, DeadLetter)]) -> Result<(), StoreError> {
        super::dead_letters::insert_sqlite(&mut self.tx, letters).await
    }

    async fn count(&mut self, batch: &Batch<'_>, written: &Written) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO ledger_counts (source, log_id, shard, stored, duplicates, quarantined)
             VALUES (?1, ?2, 0, ?3, ?4, ?5)
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
        for frame in batch.frames.iter().filter(|frame| !frame.alien) {
            sqlx::query(
                "INSERT INTO ledger_writers (source, log_id, writer, shard, number, total)
                 VALUES (?1, ?2, ?3, 0, ?4, ?5)
                 ON CONFLICT (source, log_id, writer, shard) DO UPDATE SET number = max(number, excluded.number),
                    total = max(total, excluded.total)",
            )
            .bind(batch.source.code())
            .bind(batch.log_id)
            .bind(frame.writer)
            .bind(big(frame.number))
            .bind(big(frame.total))
            .execute(&mut *self.tx)
            .await?;
        }
        Ok(())
    }

    async fn commit(self) -> Result<(), StoreError> {
        self.tx.commit().await.map_err(StoreError::from)
    }
}
