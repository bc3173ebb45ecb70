//! The writer's transaction in PostgreSQL.
//!
//! Rows are inserted by the batch's [`InsertStrategy`]: by COPY, or as arrays, one parameter a column, which have no
//! limit of parameters and one plan for every size.

use std::collections::HashSet;
use std::sync::LazyLock;

use sea_orm::sqlx::encode::IsNull;
use sea_orm::sqlx::error::{BoxDynError, DatabaseError};
use sea_orm::sqlx::postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo};
use sea_orm::sqlx::{self, AssertSqlSafe, Encode, PgPool, Postgres, Type};
use uuid::Uuid;

use crate::event::Source;
use crate::log::DeadLetter;
use crate::store::error::StoreError;
use crate::store::locks::{SHARD_LOCKS, SHARDS, WRITER_LOCKS};
use crate::store::session::{PostgresTransaction, Sessions, WRITES};
use crate::store::summary::Encoded;
use crate::store::write::INSERT_DELTA;
use crate::store::write::batch::{Batch, BatchFrame, Write, Written, big};
use crate::store::write::counts::{self, RollupCounts};
use crate::store::write::letters::insert_postgres;
use crate::store::write::pg_copy::{CopyBuffer, POSTGRES_EPOCH};
use crate::store::write::row::{COLUMNS, Columns, Row, column_names};
use crate::store::write::strategy::{DuplicateBackoff, InsertStrategy};

/// A timestamptz, in microseconds since 1970.
#[derive(Debug, Clone, Copy)]
struct Micros(i64);

impl Type<Postgres> for Micros {
    fn type_info() -> PgTypeInfo {
        <chrono::DateTime<chrono::Utc> as Type<Postgres>>::type_info()
    }
}

impl PgHasArrayType for Micros {
    fn array_type_info() -> PgTypeInfo {
        <chrono::DateTime<chrono::Utc> as PgHasArrayType>::array_type_info()
    }
}

impl Encode<'_, Postgres> for Micros {
    fn encode_by_ref(&self, buf: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        Encode::<Postgres>::encode_by_ref(&(self.0 - POSTGRES_EPOCH), buf)
    }
}

/// Values of one column.
enum Array<'r> {
    Key(Vec<Uuid>),
    Time(Vec<Option<Micros>>),
    Int8(Vec<Option<i64>>),
    Int2(Vec<Option<i16>>),
    Text(Vec<Option<&'r str>>),
}

/// Rows as columns.
#[derive(Default)]
struct Arrays<'r> {
    columns: Vec<Array<'r>>,
    /// Index of the column that the next value is for.
    next: usize,
}

impl<'r> Arrays<'r> {
    /// Begins another row.
    fn row(mut self) -> Self {
        self.next = 0;
        self
    }

    /// Appends a value to the next column, or creates the column with it.
    fn add(mut self, value: Array<'r>) -> Self {
        match (self.columns.get_mut(self.next), value) {
            (Some(Array::Key(column)), Array::Key(value)) => column.extend(value),
            (Some(Array::Time(column)), Array::Time(value)) => column.extend(value),
            (Some(Array::Int8(column)), Array::Int8(value)) => column.extend(value),
            (Some(Array::Int2(column)), Array::Int2(value)) => column.extend(value),
            (Some(Array::Text(column)), Array::Text(value)) => column.extend(value),
            // Rows give their columns in one order, so a column never has another type.
            (_, value) => self.columns.push(value),
        }
        self.next += 1;
        self
    }
}

impl<'r> Columns<'r> for Arrays<'r> {
    fn key(self, key: Uuid) -> Self {
        self.add(Array::Key(vec![key]))
    }

    fn time(self, micros: Option<i64>) -> Self {
        self.add(Array::Time(vec![micros.map(Micros)]))
    }

    fn int8(self, value: Option<i64>) -> Self {
        self.add(Array::Int8(vec![value]))
    }

    fn int2(self, value: Option<i16>) -> Self {
        self.add(Array::Int2(vec![value]))
    }

    fn text(self, value: Option<&'r str>) -> Self {
        self.add(Array::Text(vec![value]))
    }
}

/// Inserts the rows that are new, and gives their keys.
static UPSERT: LazyLock<String> = LazyLock::new(|| {
    let arrays: Vec<_> = (1..).zip(COLUMNS).map(|(n, (_, kind))| format!("${n}::{kind}[]")).collect();
    let values =
        COLUMNS.map(|(name, _)| if name == "rest" { "rest::json".to_owned() } else { name.to_owned() });
    format!(
        "INSERT INTO event_rows ({columns}) SELECT {values} FROM unnest({arrays}) AS t ({columns})
         ON CONFLICT (key) DO NOTHING RETURNING key",
        columns = column_names(),
        values = values.join(", "),
        arrays = arrays.join(", "),
    )
});

/// Copies rows. It fails if one is stored already.
static COPY: LazyLock<String> =
    LazyLock::new(|| format!("COPY event_rows ({}) FROM STDIN (FORMAT binary)", column_names()));

/// Adds counts of one shard to the rollups, as arrays.
static ROLL_UP: LazyLock<String> = LazyLock::new(|| {
    format!(
        "INSERT INTO rollups ({COLUMNS})
         SELECT minutes, at, event_type, $9, currency, source, funnel_stage, events, transactions, units, micros
         FROM unnest($1::int2[], $2::int4[], $3::int2[], $4::int2[], $5::int2[], $6::int8[], $7::int8[], $8::int8[],
            $10::int8[], $11::int2[])
            AS t (minutes, at, event_type, source, funnel_stage, events, transactions, units, micros, currency)
         {ADD}",
        COLUMNS = counts::COLUMNS,
        ADD = counts::ADD,
    )
});

/// A transaction.
pub(super) struct PostgresWrite {
    tx: PostgresTransaction,
    /// Shard of the rollups that this transaction alone adds to.
    shard: i16,
    strategy: InsertStrategy,
    duplicates: DuplicateBackoff,
}

impl PostgresWrite {
    /// Begins a transaction, which takes a free shard of the source and marks itself as one of its writers.
    pub async fn begin(
        pool: &PgPool,
        sessions: &Sessions,
        source: Source,
        strategy: InsertStrategy,
        duplicates: &DuplicateBackoff,
    ) -> Result<Self, StoreError> {
        let tx = PostgresTransaction::begin(pool, sessions, WRITES).await?;
        let mut write = Self { tx, shard: 0, strategy, duplicates: duplicates.clone() };
        let shard: Option<i32> = sqlx::query_scalar(
            "SELECT shard FROM (SELECT pg_advisory_xact_lock_shared($1, $2)) working
             LEFT JOIN (SELECT k AS shard FROM generate_series(0, $4 - 1) k
                WHERE pg_try_advisory_xact_lock($3, $2 * $4 + k) LIMIT 1) free ON true",
        )
        .persistent(write.tx.named)
        .bind(WRITER_LOCKS)
        .bind(i32::from(source.code()))
        .bind(SHARD_LOCKS)
        .bind(SHARDS)
        .fetch_one(&mut *write.tx)
        .await?;
        // If there are more writers than shards, some share shard 0 and wait for each other.
        write.shard = i16::try_from(shard.unwrap_or(0)).unwrap_or(0);
        Ok(write)
    }

    /// Copies rows, all of which have to be new; an empty COPY is not sent.
    async fn copy(&mut self, rows: &[&Row<'_>]) -> Result<(), StoreError> {
        if !rows.is_empty() {
            let mut copy = self.tx.copy_in_raw(&COPY).await?;
            let mut buffer = CopyBuffer::new();
            for row in rows {
                buffer.add(row);
                if buffer.is_full() {
                    copy.send(buffer.bytes()).await.map_err(copy_error)?;
                    buffer.clear();
                }
            }
            buffer.end();
            copy.send(buffer.bytes()).await.map_err(copy_error)?;
            copy.finish().await.map_err(copy_error)?;
        }
        Ok(())
    }

    /// The rows that are not stored yet.
    async fn probe<'r, 'a>(&mut self, rows: &[&'r Row<'a>]) -> Result<Vec<&'r Row<'a>>, StoreError> {
        // Without this, a plan made while the table was small would read all of it.
        sqlx::raw_sql("SET LOCAL enable_seqscan = off").execute(&mut *self.tx).await?;
        let keys: Vec<Uuid> = rows.iter().map(|row| row.key).collect();
        let known: Vec<Uuid> = sqlx::query_scalar("SELECT key FROM event_rows WHERE key = ANY($1)")
            .persistent(self.tx.named)
            .bind(keys)
            .fetch_all(&mut *self.tx)
            .await?;
        let known: HashSet<Uuid> = known.into_iter().collect();
        Ok(rows.iter().filter(|row| !known.contains(&row.key)).copied().collect())
    }

    /// Inserts the rows that are not stored yet; gives them.
    async fn upsert<'r, 'a>(&mut self, rows: &[&'r Row<'a>]) -> Result<Vec<&'r Row<'a>>, StoreError> {
        let arrays = rows.iter().fold(Arrays::default(), |arrays, row| row.columns(arrays.row()));
        let mut query = sqlx::query_scalar(AssertSqlSafe(UPSERT.as_str())).persistent(self.tx.named);
        for array in arrays.columns {
            query = match array {
                Array::Key(keys) => query.bind(keys),
                Array::Time(times) => query.bind(times),
                Array::Int8(numbers) => query.bind(numbers),
                Array::Int2(numbers) => query.bind(numbers),
                Array::Text(texts) => query.bind(texts),
            };
        }
        let new: Vec<Uuid> = query.fetch_all(&mut *self.tx).await?;
        let new: HashSet<Uuid> = new.into_iter().collect();
        Ok(rows.iter().filter(|row| new.contains(&row.key)).copied().collect())
    }

    /// Adds new rows to the rollups.
    async fn roll_up(&mut self, rows: &[&Row<'_>]) -> Result<(), StoreError> {
        let counts = RollupCounts::of(rows);
        sqlx::query(AssertSqlSafe(ROLL_UP.as_str()))
            .persistent(self.tx.named)
            .bind(counts.column(|key, _| key.minutes))
            .bind(counts.column(|key, _| key.at))
            .bind(counts.column(|key, _| key.event_type))
            .bind(counts.column(|key, _| key.source))
            .bind(counts.column(|key, _| key.funnel_stage))
            .bind(counts.column(|_, count| count.events))
            .bind(counts.column(|_, count| count.transactions))
            .bind(counts.column(|_, count| count.units))
            .bind(self.shard)
            .bind(counts.column(|_, count| count.micros))
            .bind(counts.column(|key, _| key.currency))
            .execute(&mut *self.tx)
            .await?;
        Ok(())
    }
}

/// True if the database gives no SQLSTATE that says what failed: none, or `internal_error`. A distributed PostgreSQL
/// reports a duplicate key of one of its servers so.
fn has_no_state(fault: &dyn DatabaseError) -> bool {
    fault.code().is_none_or(|code| code.is_empty() || code == "XX000")
}

/// An error of COPY. A key that is stored already, or that another transaction inserts at the same time, is a conflict.
/// An error of the server without a state is one too: it is no lost connection, and the next strategy, which cannot fail
/// because of a duplicate, succeeds or says what is wrong.
fn copy_error(error: sqlx::Error) -> StoreError {
    match &error {
        sqlx::Error::Database(fault) if fault.is_unique_violation() || has_no_state(&**fault) => {
            let message = fault.message().to_owned();
            StoreError::conflict(message).because(error)
        }
        _ => error.into(),
    }
}

/// Claims frames that no claim has. A frame that was processed before version 0.2 is known by its sequence number, and
/// is looked for only if its writer had sent its number by then; most systems have none of those.
fn claim_unless(also: &str) -> String {
    format!(
        "INSERT INTO ledger_claims
            (source, log_id, writer, number, sequence, events, total, acked, acked_total)
         SELECT $1, $2, t.* FROM unnest($3::uuid[], $4::int8[], $5::int8[], $6::int8[], $7::int8[], $8::int8[],
            $9::int8[]) AS t (writer, number, sequence, events, total, acked, acked_total)
         WHERE ((SELECT NOT EXISTS (SELECT FROM ledger_before_writers)) OR NOT EXISTS (
            SELECT FROM ledger_before_writers w
            WHERE w.source = $1 AND w.log_id = $2 AND w.writer = t.writer AND w.number >= t.number AND (
                t.sequence <= (SELECT m.sequence FROM ledger_before_watermarks m
                    WHERE m.source = $1 AND m.log_id = $2)
                OR EXISTS (SELECT FROM ledger_before_frames f
                    WHERE f.source = $1 AND f.log_id = $2 AND f.sequence = t.sequence)))) {also}
         ON CONFLICT DO NOTHING RETURNING writer, number"
    )
}

/// The claim where rows are copied: rows of a frame that was processed and folded fail the transaction in any case, and
/// [`COUNT`] finds such a frame without rows.
static CLAIM: LazyLock<String> = LazyLock::new(|| claim_unless(""));

/// The claim of frames that no run has either.
static CLAIM_UNFOLDED: LazyLock<String> = LazyLock::new(|| {
    claim_unless(
        "AND coalesce((
            SELECT r.last_number FROM ledger_runs r
            WHERE r.source = $1 AND r.writer = t.writer AND r.first_number <= t.number
            ORDER BY r.first_number DESC LIMIT 1), 0) < t.number",
    )
});

/// Adds to the ledger's counts, and gives the number of claimed frames that had been folded into runs before they were
/// claimed; see [`crate::store::ledger::fold`].
const COUNT: &str = "WITH counted AS (
        INSERT INTO ledger_counts AS c (source, log_id, shard, stored, duplicates, quarantined)
        VALUES ($1, $2, $3, $4, $5, $6)
        ON CONFLICT (source, log_id, shard) DO UPDATE SET stored = c.stored + excluded.stored,
            duplicates = c.duplicates + excluded.duplicates, quarantined = c.quarantined + excluded.quarantined
    )
    SELECT count(*) FROM unnest($7::uuid[], $8::int8[]) AS t (writer, number)
    WHERE coalesce((
        SELECT r.last_number FROM ledger_runs r
        WHERE r.source = $1 AND r.writer = t.writer AND r.first_number <= t.number
        ORDER BY r.first_number DESC LIMIT 1), 0) >= t.number";

impl Write for PostgresWrite {
    async fn claim(&mut self, batch: &Batch<'_>) -> Result<HashSet<(Uuid, u64)>, StoreError> {
        // In one order, so that two transactions never wait for each other crosswise.
        let mut frames: Vec<&BatchFrame<'_>> = batch.frames.iter().collect();
        frames.sort_unstable_by_key(|frame| frame.identity());
        let column = |get: fn(&BatchFrame<'_>) -> u64| {
            frames.iter().map(|frame| big(get(frame))).collect::<Vec<i64>>()
        };
        let claim = if self.strategy == InsertStrategy::Copy { &CLAIM } else { &CLAIM_UNFOLDED };
        let new: Vec<(Uuid, i64)> = sqlx::query_as(AssertSqlSafe(claim.as_str()))
            .persistent(self.tx.named)
            .bind(batch.source.code())
            .bind(batch.log_id)
            .bind(frames.iter().map(|frame| frame.writer).collect::<Vec<Uuid>>())
            .bind(column(|frame| frame.number))
            .bind(column(|frame| frame.sequence))
            .bind(column(|frame| frame.events()))
            .bind(column(|frame| frame.total))
            .bind(column(|frame| frame.acknowledged.number))
            .bind(column(|frame| frame.acknowledged.total))
            .fetch_all(&mut *self.tx)
            .await?;
        Ok(new.into_iter().map(|(writer, number)| (writer, number.cast_unsigned())).collect())
    }

    async fn repeat(&mut self, batch: &Batch<'_>, frames: &[&BatchFrame<'_>]) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO ledger_repeats (source, log_id, sequence)
             SELECT $1, $2, sequence FROM unnest($3::int8[]) AS t (sequence) ORDER BY sequence
             ON CONFLICT DO NOTHING",
        )
        .persistent(self.tx.named)
        .bind(batch.source.code())
        .bind(batch.log_id)
        .bind(frames.iter().map(|frame| big(frame.sequence)).collect::<Vec<i64>>())
        .execute(&mut *self.tx)
        .await?;
        Ok(())
    }

    async fn insert<'r, 'a>(&mut self, rows: &[&'r Row<'a>]) -> Result<Vec<&'r Row<'a>>, StoreError> {
        let new = match self.strategy {
            InsertStrategy::Copy => {
                self.copy(rows).await?;
                rows.to_vec()
            }
            InsertStrategy::ProbeThenCopy => {
                let new = self.probe(rows).await?;
                if new.len() < rows.len() {
                    self.duplicates.found_duplicates()
                } else {
                    self.duplicates.found_none()
                }
                self.copy(&new).await?;
                new
            }
            InsertStrategy::Upsert => self.upsert(rows).await?,
        };
        self.roll_up(&new).await?;
        Ok(new)
    }

    async fn summarize(&mut self, source: Source, events: u64, delta: Encoded) -> Result<(), StoreError> {
        sqlx::query(INSERT_DELTA)
            .persistent(self.tx.named)
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
        insert_postgres(&mut self.tx, letters).await
    }

    async fn count(
        &mut self,
        batch: &Batch<'_>,
        frames: &[&BatchFrame<'_>],
        written: &Written,
    ) -> Result<(), StoreError> {
        let folded: i64 = sqlx::query_scalar(COUNT)
            .persistent(self.tx.named)
            .bind(batch.source.code())
            .bind(batch.log_id)
            .bind(self.shard)
            .bind(big(written.stored))
            .bind(big(written.duplicates))
            .bind(big(written.quarantined))
            .bind(frames.iter().map(|frame| frame.writer).collect::<Vec<Uuid>>())
            .bind(frames.iter().map(|frame| big(frame.number)).collect::<Vec<i64>>())
            .fetch_one(&mut *self.tx)
            .await?;
        if folded > 0 {
            return Err(StoreError::conflict("a frame was processed and folded at the same moment"));
        }
        Ok(())
    }

    async fn roll_back(self) -> Result<(), StoreError> {
        self.tx.rollback().await
    }

    async fn commit(self) -> Result<(), StoreError> {
        self.tx.commit().await
    }
}
