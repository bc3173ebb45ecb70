//! The writer's transaction in SQLite.
//!
//! There is one writing connection, so one transaction at a time and one shard.

use std::collections::{HashMap, HashSet};

use sea_orm::sqlx::query::QueryScalar;
use sea_orm::sqlx::sqlite::SqliteArguments;
use sea_orm::sqlx::{self, AssertSqlSafe, Sqlite, SqlitePool, Transaction};
use uuid::Uuid;

use super::batch::{Batch, Write, Written, big};
use super::error::StoreError;
use super::rollup::Counts;
use super::row::{COLUMNS, Row, column_names};
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

type Inserting<'q> = QueryScalar<'q, Sqlite, Uuid, SqliteArguments>;

/// Binds a row's columns.
fn bind<'q>(query: Inserting<'q>, row: &'q Row<'_>) -> Inserting<'q> {
    let event = &row.event;
    let columns = &event.columns;
    query
        .bind(row.key)
        .bind(event.occurred_at)
        .bind(row.origin.accepted_at)
        .bind(row.logged_at)
        .bind(row.collected_at)
        .bind(columns.action_time)
        .bind(columns.amount.map(|amount| amount.0))
        .bind(event.revenue())
        .bind(columns.followers)
        .bind(columns.watch_time)
        .bind(columns.percentage_watched)
        .bind(event.source.code())
        .bind(event.kind.stage.code())
        .bind(event.kind.word.code)
        .bind(columns.age)
        .bind(columns.gender)
        .bind(columns.referrer)
        .bind(columns.click_position)
        .bind(columns.device)
        .bind(columns.browser)
        .bind(&*event.id)
        .bind(&*columns.user_id)
        .bind(columns.user_name.as_deref())
        .bind(columns.country.as_deref())
        .bind(columns.city.as_deref())
        .bind(columns.video_id.as_deref())
        .bind(columns.ad_id.as_deref())
        .bind(columns.campaign_id.as_deref())
        .bind(columns.profile_id.as_deref())
        .bind(columns.purchased_item.as_deref())
        .bind(event.rest.as_deref())
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
            let mut query = sqlx::query_scalar(AssertSqlSafe(insert(size)));
            for row in part {
                query = bind(query.bind(now), row);
            }
            let keys: Vec<Uuid> = query.fetch_all(&mut *self.tx).await?;
            new.extend(keys);
        }
        let new: Vec<&Row<'_>> = rows.iter().filter(|row| new.contains(&row.key)).copied().collect();
        for (span, count) in Counts::of(&new).iter() {
            sqlx::query(
                "INSERT INTO rollups (level, at, event_type, shard, source, funnel_stage, events, transactions,
                    revenue_units, revenue_micros) VALUES (?1, ?2, ?3, 0, ?4, ?5, ?6, ?7, ?8, ?9)
                 ON CONFLICT (level, at, event_type, shard) DO UPDATE SET events = events + excluded.events,
                    transactions = transactions + excluded.transactions,
                    revenue_units = revenue_units + excluded.revenue_units,
                    revenue_micros = revenue_micros + excluded.revenue_micros",
            )
            .bind(span.level)
            .bind(span.at)
            .bind(span.event_type)
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
