//! The writer's transaction in SQLite.
//!
//! There is one writing connection, so one transaction at a time and one shard. Rows go in as one JSON
//! document, which SQLite takes apart itself.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::LazyLock;

use sea_orm::sqlx::{self, AssertSqlSafe, Sqlite, SqlitePool, Transaction};
use serde_json::{Value, json};
use uuid::Uuid;

use super::batch::{Batch, Write, Written, big};
use super::error::StoreError;
use super::rollup::LEVELS;
use super::row::{COLUMNS, Row, column_names};
use crate::event::{MICROS_PER_UNIT, Source};
use crate::log::DeadLetter;

static INSERT: LazyLock<String> = LazyLock::new(|| {
    let values: Vec<_> = (0..)
        .zip(COLUMNS)
        .map(
            |(n, (name, _))| {
                if name == "key" { format!("unhex(value ->> {n})") } else { format!("value ->> {n}") }
            },
        )
        .collect();
    format!(
        "INSERT INTO event_rows (ingested_at, {}) SELECT ?2, {} FROM json_each(?1) WHERE true
         ON CONFLICT (key) DO NOTHING RETURNING key, occurred_at, event_type, source, funnel_stage, revenue",
        column_names(),
        values.join(", ")
    )
});

pub(super) struct SqliteWrite {
    tx: Transaction<'static, Sqlite>,
}

impl SqliteWrite {
    pub async fn begin(pool: &SqlitePool) -> Result<Self, StoreError> {
        Ok(Self { tx: pool.begin_with("BEGIN IMMEDIATE").await? })
    }
}

fn values(row: &Row<'_>) -> Value {
    let event = &row.event;
    let columns = &event.columns;
    json!([
        row.key.simple().to_string(),
        event.occurred_at,
        row.origin.accepted_at,
        row.logged_at,
        row.collected_at,
        columns.action_time,
        columns.amount.map(|amount| amount.0),
        event.revenue(),
        columns.followers,
        columns.watch_time,
        columns.percentage_watched,
        event.source.code(),
        event.kind.stage.code(),
        event.kind.word.code,
        columns.age,
        columns.gender,
        columns.referrer,
        columns.click_position,
        columns.device,
        columns.browser,
        event.id,
        columns.user_id,
        columns.user_name,
        columns.country,
        columns.city,
        columns.video_id,
        columns.ad_id,
        columns.campaign_id,
        columns.profile_id,
        columns.purchased_item,
        event.rest,
    ])
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
        #[derive(Default)]
        struct Count {
            events: i64,
            transactions: i64,
            units: i64,
            micros: i64,
        }
        let document = Value::Array(rows.iter().map(|row| values(row)).collect()).to_string();
        let new: Vec<(Uuid, i64, i16, i16, i16, Option<i64>)> = sqlx::query_as(AssertSqlSafe(INSERT.as_str()))
            .bind(document)
            .bind(chrono::Utc::now().timestamp_micros())
            .fetch_all(&mut *self.tx)
            .await?;
        let mut counts: BTreeMap<(i16, i64, i16, i16, i16), Count> = BTreeMap::new();
        for (_, occurred_at, kind, source, stage, revenue) in &new {
            for (level, minutes) in LEVELS {
                let at = occurred_at / (60_000_000 * minutes);
                let count = counts.entry((level, at, *kind, *source, *stage)).or_default();
                count.events += 1;
                if let Some(revenue) = revenue {
                    count.transactions += 1;
                    count.units += revenue / MICROS_PER_UNIT;
                    count.micros += revenue % MICROS_PER_UNIT;
                }
            }
        }
        for ((level, at, kind, source, stage), count) in counts {
            sqlx::query(
                "INSERT INTO rollups (level, at, event_type, shard, source, funnel_stage, events, transactions,
                    revenue_units, revenue_micros) VALUES (?1, ?2, ?3, 0, ?4, ?5, ?6, ?7, ?8, ?9)
                 ON CONFLICT (level, at, event_type, shard) DO UPDATE SET events = events + excluded.events,
                    transactions = transactions + excluded.transactions,
                    revenue_units = revenue_units + excluded.revenue_units,
                    revenue_micros = revenue_micros + excluded.revenue_micros",
            )
            .bind(level)
            .bind(at)
            .bind(kind)
            .bind(source)
            .bind(stage)
            .bind(count.events)
            .bind(count.transactions)
            .bind(count.units)
            .bind(count.micros)
            .execute(&mut *self.tx)
            .await?;
        }
        if new.len() == rows.len() {
            return Ok(rows.to_vec());
        }
        let new: HashSet<Uuid> = new.into_iter().map(|row| row.0).collect();
        Ok(rows.iter().filter(|row| new.contains(&row.key)).copied().collect())
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
