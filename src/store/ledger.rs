//! The ledger as the store knows it.

use std::collections::HashMap;

use sea_orm::sqlx;
use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, Statement};
use uuid::Uuid;

use super::connect::{Backend, Snapshot, Store};
use super::entity::{ledger_counts, ledger_writers};
use super::error::StoreError;
use super::postgres::FOLD_LOCKS;
use super::session::PostgresTransaction;
use crate::event::Source;
use crate::log::WriterMark;

/// What became of the events of one log.
#[derive(Debug, Clone, Default)]
pub struct LogCounts {
    /// Events that became rows.
    pub stored: u64,
    /// Events whose key was there already.
    pub duplicates: u64,
    /// Events that a collector set aside.
    pub quarantined: u64,
    /// How far each run of a gateway was seen to have written.
    pub writers: HashMap<Uuid, WriterMark>,
}

impl LogCounts {
    /// Events that ended one way or another.
    pub fn processed(&self) -> u64 {
        self.stored + self.duplicates + self.quarantined
    }
}

/// One source's ledger at one moment.
#[derive(Debug, Clone, Default)]
pub struct LedgerCut {
    /// By log: the one asked for, and those that were before it.
    pub logs: HashMap<Uuid, LogCounts>,
    /// Frames of the log asked for that were processed: all up to here …
    pub watermark: u64,
    /// … and these.
    pub above: Vec<u64>,
    /// Places up to the watermark that were never processed: the log no longer has them.
    pub holes: u64,
}

impl LedgerCut {
    /// Whether a frame was processed.
    pub fn processed(&self, sequence: u64) -> bool {
        sequence <= self.watermark || self.above.binary_search(&sequence).is_ok()
    }
}

/// Runs the statements that fold, in either database's transaction.
macro_rules! fold {
    ($tx:ident, $named:expr, $source:ident, $log_id:ident, $first:ident) => {{
        let gap = sqlx::query(FOLD_GAP).persistent($named).bind($source.code()).bind($log_id);
        gap.bind($first).bind(MANY_ABOVE).execute(&mut *$tx).await?;
        for sql in [FOLD, CLEAR] {
            sqlx::query(sql).persistent($named).bind($source.code()).execute(&mut *$tx).await?;
        }
    }};
}

fn count(number: i64) -> u64 {
    number.max(0).cast_unsigned()
}

impl Store {
    /// What the store says of a source, in one snapshot; the frames are those of `log_id`.
    pub async fn ledger(&self, source: Source, log_id: Uuid) -> Result<LedgerCut, StoreError> {
        let tx = self.snapshot(Snapshot::ToRead).await?;
        let mut cut = LedgerCut::default();
        let counts = ledger_counts::Entity::find().filter(ledger_counts::Column::Source.eq(source.code()));
        for row in counts.all(&tx).await? {
            let log = cut.logs.entry(row.log_id).or_default();
            log.stored += count(row.stored);
            log.duplicates += count(row.duplicates);
            log.quarantined += count(row.quarantined);
        }
        let writers = ledger_writers::Entity::find().filter(ledger_writers::Column::Source.eq(source.code()));
        for row in writers.all(&tx).await? {
            let mark = WriterMark { number: count(row.number), total: count(row.total) };
            let known = cut.logs.entry(row.log_id).or_default().writers.entry(row.writer).or_default();
            *known = known.max(mark);
        }
        let backend = self.db().get_database_backend();
        let values = || [source.code().into(), log_id.into()];
        let sql = "SELECT sequence, holes FROM ledger_watermarks WHERE source = $1 AND log_id = $2";
        if let Some(row) = tx.query_one_raw(Statement::from_sql_and_values(backend, sql, values())).await? {
            cut.watermark = count(row.try_get("", "sequence")?);
            cut.holes = count(row.try_get("", "holes")?);
        }
        let sql = "SELECT sequence FROM ledger_frames WHERE source = $1 AND log_id = $2 ORDER BY sequence";
        for row in tx.query_all_raw(Statement::from_sql_and_values(backend, sql, values())).await? {
            cut.above.push(count(row.try_get("", "sequence")?));
        }
        tx.commit().await?;
        Ok(cut)
    }

    /// Folds processed frames without a gap below into the watermark. Where very many stand above a gap
    /// that the log no longer has (a purge, an age), the gap is folded too, and kept as so many holes.
    /// `log_id` and `first` are the log's own, and the first place that it still holds.
    pub async fn fold_ledger(&self, source: Source, log_id: Uuid, first: u64) -> Result<(), StoreError> {
        let first = i64::try_from(first).unwrap_or(i64::MAX);
        match self.backend() {
            Backend::Postgres(pool, sessions) => {
                let mut tx = PostgresTransaction::begin(pool, sessions, "").await?;
                let named = tx.named;
                // Nobody claims frames meanwhile: a claim that does not see the watermark must not
                // miss the row either.
                sqlx::query("SELECT pg_advisory_xact_lock($1, $2)")
                    .persistent(named)
                    .bind(FOLD_LOCKS)
                    .bind(i32::from(source.code()))
                    .execute(&mut *tx)
                    .await?;
                fold!(tx, named, source, log_id, first);
                tx.commit().await?;
            }
            Backend::Sqlite(pool) => {
                let mut tx = pool.begin_with("BEGIN IMMEDIATE").await?;
                fold!(tx, true, source, log_id, first);
                tx.commit().await?;
            }
        }
        Ok(())
    }
}

/// Frames above a gap before the gap is given up: minutes of full load, so that whoever still had one
/// of its frames in hand has long finished.
const MANY_ABOVE: i64 = 10_000;

/// Moves the watermark up to the first processed frame, if there are many and the log has nothing below.
const FOLD_GAP: &str = "INSERT INTO ledger_watermarks (source, log_id, sequence, holes)
    SELECT $1, $2, f.lowest - 1, f.lowest - 1 - coalesce(w.sequence, 0) FROM (
        SELECT min(sequence) AS lowest, count(*) AS many FROM ledger_frames WHERE source = $1 AND log_id = $2
    ) f LEFT JOIN ledger_watermarks w ON w.source = $1 AND w.log_id = $2
    WHERE f.many > $4 AND f.lowest <= $3 AND f.lowest - 1 > coalesce(w.sequence, 0)
    ON CONFLICT (source, log_id) DO UPDATE SET sequence = excluded.sequence,
        holes = ledger_watermarks.holes + excluded.holes";

/// The rows of a run without gaps have one and the same sequence minus row number.
const FOLD: &str = "INSERT INTO ledger_watermarks (source, log_id, sequence, holes)
    SELECT f.source, f.log_id, max(f.sequence), 0 FROM (
        SELECT source, log_id, sequence,
            sequence - row_number() OVER (PARTITION BY log_id ORDER BY sequence) AS run
        FROM ledger_frames WHERE source = $1
    ) f LEFT JOIN ledger_watermarks w ON w.source = f.source AND w.log_id = f.log_id
    WHERE f.run = coalesce(w.sequence, 0) GROUP BY f.source, f.log_id
    ON CONFLICT (source, log_id) DO UPDATE SET sequence = excluded.sequence";

const CLEAR: &str = "DELETE FROM ledger_frames WHERE source = $1 AND sequence <=
    (SELECT w.sequence FROM ledger_watermarks w WHERE w.source = ledger_frames.source
        AND w.log_id = ledger_frames.log_id)";
