//! The writer's transaction in PostgreSQL.
//!
//! Rows are copied. Where some of them may be stored already, those are looked for before. Where another
//! transaction is in the way, or the database refuses a row, rows go in as arrays, one parameter a column: no
//! limit of parameters, one plan for every size.

use std::collections::HashSet;
use std::sync::LazyLock;

use sea_orm::sqlx::encode::IsNull;
use sea_orm::sqlx::error::BoxDynError;
use sea_orm::sqlx::postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo};
use sea_orm::sqlx::{self, AssertSqlSafe, Encode, PgPool, Postgres, Type};
use uuid::Uuid;

use crate::event::Source;
use crate::log::DeadLetter;
use crate::store::error::StoreError;
use crate::store::locks::{SHARD_LOCKS, SHARDS, WRITER_LOCKS};
use crate::store::session::{PostgresTransaction, Sessions, WRITES};
use crate::store::write::batch::{Batch, BatchFrame, Write, Written, big};
use crate::store::write::counts::{self, Counts};
use crate::store::write::pg_copy::{POSTGRES_EPOCH, Part};
use crate::store::write::row::{COLUMNS, Columns, Row, column_names};
use crate::store::write::strategy::{Wary, Way};

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

/// A column of many rows.
enum Array<'r> {
    Key(Vec<Uuid>),
    Time(Vec<Option<Micros>>),
    Int8(Vec<Option<i64>>),
    Int2(Vec<Option<i16>>),
    Text(Vec<Option<&'r str>>),
}

/// Rows, column by column, and the column that is given next.
#[derive(Default)]
struct Arrays<'r>(Vec<Array<'r>>, usize);

impl<'r> Arrays<'r> {
    /// Begins another row.
    fn row(mut self) -> Self {
        self.1 = 0;
        self
    }

    /// Adds a value to the next column: makes it, or puts it at the end of what is there.
    fn add(mut self, first: Array<'r>) -> Self {
        match (self.0.get_mut(self.1), first) {
            (Some(Array::Key(column)), Array::Key(value)) => column.extend(value),
            (Some(Array::Time(column)), Array::Time(value)) => column.extend(value),
            (Some(Array::Int8(column)), Array::Int8(value)) => column.extend(value),
            (Some(Array::Int2(column)), Array::Int2(value)) => column.extend(value),
            (Some(Array::Text(column)), Array::Text(value)) => column.extend(value),
            // Rows give their columns in one order: a column of another kind is never there.
            (_, first) => self.0.push(first),
        }
        self.1 += 1;
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

/// Inserts the rows that are new, and says which those were.
static INSERT: LazyLock<String> = LazyLock::new(|| {
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

/// Copies rows, all of which have to be new.
static COPY: LazyLock<String> =
    LazyLock::new(|| format!("COPY event_rows ({}) FROM STDIN (FORMAT binary)", column_names()));

/// A transaction.
pub(in crate::store) struct PostgresWrite {
    tx: PostgresTransaction,
    shard: i16,
    way: Way,
    wary: Wary,
}

impl PostgresWrite {
    pub async fn begin(
        pool: &PgPool,
        sessions: &Sessions,
        source: Source,
        way: Way,
        wary: &Wary,
    ) -> Result<Self, StoreError> {
        let tx = PostgresTransaction::begin(pool, sessions, WRITES).await?;
        let mut write = Self { tx, shard: 0, way, wary: wary.clone() };
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
        // Each source has shards of its own: the fewer a source has, the fewer rows tell what it counted.
        // More writers than shards: some will wait for each other, which is slow and not wrong.
        write.shard = i16::try_from(shard.unwrap_or(0)).unwrap_or(0);
        Ok(write)
    }

    /// Copies rows, all of which have to be new.
    async fn copy(&mut self, rows: &[&Row<'_>]) -> Result<(), StoreError> {
        if !rows.is_empty() {
            let mut copy = self.tx.copy_in_raw(&COPY).await?;
            let mut part = Part::first();
            for row in rows {
                part.add(row);
                if part.is_full() {
                    copy.send(part.bytes()).await.map_err(in_the_way)?;
                    part.clear();
                }
            }
            part.end();
            copy.send(part.bytes()).await.map_err(in_the_way)?;
            copy.finish().await.map_err(in_the_way)?;
        }
        Ok(())
    }

    /// Gives the rows that are not there yet.
    async fn unknown<'r, 'a>(&mut self, rows: &[&'r Row<'a>]) -> Result<Vec<&'r Row<'a>>, StoreError> {
        // A plan that was made when there were few rows would read all of them.
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

    /// Inserts the rows that are not there yet; gives them.
    async fn insert_each<'r, 'a>(&mut self, rows: &[&'r Row<'a>]) -> Result<Vec<&'r Row<'a>>, StoreError> {
        let arrays = rows.iter().fold(Arrays::default(), |arrays, row| row.columns(arrays.row()));
        let mut query = sqlx::query_scalar(AssertSqlSafe(INSERT.as_str())).persistent(self.tx.named);
        for array in arrays.0 {
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

    /// Counts new rows in the rollups.
    async fn roll_up(&mut self, rows: &[&Row<'_>]) -> Result<(), StoreError> {
        let counts = Counts::of(rows);
        macro_rules! each {
            ($of:expr) => {
                counts.iter().map($of).collect::<Vec<_>>()
            };
        }
        let sql = format!(
            "INSERT INTO rollups ({COLUMNS})
             SELECT minutes, at, event_type, $9, source, funnel_stage, events, transactions, units, micros
             FROM unnest($1::int2[], $2::int4[], $3::int2[], $4::int2[], $5::int2[], $6::int8[], $7::int8[], $8::int8[],
                $10::int8[]) AS t (minutes, at, event_type, source, funnel_stage, events, transactions, units, micros)
             {ADDED}",
            COLUMNS = counts::COLUMNS,
            ADDED = counts::ADDED,
        );
        sqlx::query(AssertSqlSafe(sql))
            .persistent(self.tx.named)
            .bind(each!(|(span, _)| span.minutes))
            .bind(each!(|(span, _)| span.at))
            .bind(each!(|(span, _)| span.event_type))
            .bind(each!(|(span, _)| span.source))
            .bind(each!(|(span, _)| span.funnel_stage))
            .bind(each!(|(_, count)| count.events))
            .bind(each!(|(_, count)| count.transactions))
            .bind(each!(|(_, count)| count.units))
            .bind(self.shard)
            .bind(each!(|(_, count)| count.micros))
            .execute(&mut *self.tx)
            .await?;
        Ok(())
    }
}

/// A key that is there twice was inserted by another transaction at the same moment.
fn in_the_way(error: sqlx::Error) -> StoreError {
    match &error {
        sqlx::Error::Database(fault) if fault.is_unique_violation() => {
            let message = fault.message().to_owned();
            StoreError::conflict(message).because(error)
        }
        _ => error.into(),
    }
}

/// Claims frames that no claim has. A frame from before version 0.2 is known by its place alone, and only if its writer
/// had sent its number by then; most systems have none of those.
macro_rules! claim {
    ($unless:literal) => {
        concat!(
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
                        WHERE f.source = $1 AND f.log_id = $2 AND f.sequence = t.sequence))))",
            $unless,
            " ON CONFLICT DO NOTHING RETURNING writer, number"
        )
    };
}

/// Where rows are copied: those of a frame that was processed and folded end the transaction in any case, and [`COUNT`]
/// finds such a frame that has none.
const CLAIM: &str = claim!("");

/// Claims frames that no run has either.
const CLAIM_UNFOLDED: &str = claim!(
    " AND coalesce((
        SELECT r.last_number FROM ledger_runs r
        WHERE r.source = $1 AND r.writer = t.writer AND r.first_number <= t.number
        ORDER BY r.first_number DESC LIMIT 1), 0) < t.number"
);

/// Counts events, and tells how many of the claimed frames were folded into runs before they were claimed: see
/// [`crate::store::ledger::fold`].
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
        let claim = if self.way == Way::Copy { CLAIM } else { CLAIM_UNFOLDED };
        let fresh: Vec<(Uuid, i64)> = sqlx::query_as(claim)
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
        Ok(fresh.into_iter().map(|(writer, number)| (writer, number.cast_unsigned())).collect())
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
        let new = match self.way {
            Way::Copy => {
                self.copy(rows).await?;
                rows.to_vec()
            }
            Way::Look => {
                let new = self.unknown(rows).await?;
                if new.len() < rows.len() {
                    self.wary.met()
                } else {
                    self.wary.met_none()
                }
                self.copy(&new).await?;
                new
            }
            Way::Insert => self.insert_each(rows).await?,
        };
        self.roll_up(&new).await?;
        Ok(new)
    }

    async fn summarize(&mut self, source: Source, events: u64, delta: Vec<u8>) -> Result<(), StoreError> {
        sqlx::query("INSERT INTO summary_deltas (source, events, body) VALUES ($1, $2, $3)")
            .persistent(self.tx.named)
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
        crate::store::dead_letters::insert::insert(&mut self.tx, letters).await
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
