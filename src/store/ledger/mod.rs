//! The ledger as the store knows it: what became of frames, which of them, and what was seen of the log.
//!
//! Claims of frames are rows for a short time; [`crate::store::ledger::fold`] makes runs of them. What reads the ledger
//! reads both, as runs: its work does not grow with frames that wait behind one that stays.

pub(in crate::store) mod fold;
pub(in crate::store) mod ranges;

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use sea_orm::{ConnectionTrait, QueryResult, Statement, Value};
use uuid::Uuid;

use crate::event::Source;
use crate::log::WriterMark;
use crate::store::connect::{Snapshot, Store};
use crate::store::error::StoreError;
pub use crate::store::ledger::ranges::{Lost, Ranges, Run, Runs};
use crate::store::write::batch::big;

/// One writer's frames.
#[derive(Debug, Clone, Default)]
pub struct WriterCut {
    /// Frames that were processed. Those between the first and the highest of a writer of which nothing can be
    /// missing count as processed.
    pub runs: Runs,
    /// The frames that the log is known to have acknowledged, all from the first one on.
    pub acked: WriterMark,
}

/// One source's ledger at one moment.
#[derive(Debug, Clone, Default)]
pub struct LedgerCut {
    /// Events that became rows.
    pub stored: u64,
    /// Events whose key was there already.
    pub duplicates: u64,
    /// Events that a collector set aside.
    pub quarantined: u64,
    /// Places of the log asked for whose frames were processed.
    pub places: Ranges,
    /// Places that were given up: the log no longer had them, and nothing processed them.
    pub holes: u64,
    /// Events that version 0.1 counted as missing.
    pub lost_before: u64,
    /// Frames that are missing of writers that were forgotten.
    pub forgotten: Lost,
    /// Writers that are known.
    pub writers: HashMap<Uuid, WriterCut>,
    /// Events missing as the collectors saw it last, where this is a copy that may lag behind them.
    pub copied_missing: Option<u64>,
}

impl LedgerCut {
    /// Events that ended one way or another.
    pub fn processed(&self) -> u64 {
        self.stored + self.duplicates + self.quarantined
    }
}

/// State of a source's log that the store knew before a look at it.
#[derive(Debug, Clone, Default)]
pub struct KnownLog {
    /// The log that was seen last, and the highest place that it had given.
    pub log: Option<(Uuid, u64)>,
    /// Frames that the log acknowledged, by writer, all from the first one on.
    pub acked: HashMap<Uuid, WriterMark>,
}

/// State of a source's log that a look saw, to be remembered.
#[derive(Debug, Clone, Default)]
pub struct ObservedLog {
    /// Which log.
    pub log_id: Uuid,
    /// The highest place that it had given.
    pub last: u64,
    /// Frames that the log has acknowledged, by writer, all from the first one on.
    pub acked: HashMap<Uuid, WriterMark>,
    /// Events that were missing.
    pub missing: u64,
}

pub(in crate::store) fn count(number: i64) -> u64 {
    number.max(0).cast_unsigned()
}

pub(in crate::store) fn column(row: &QueryResult, name: &str) -> Result<u64, StoreError> {
    Ok(count(row.try_get("", name)?))
}

pub(in crate::store) fn mark(row: &QueryResult, number: &str, total: &str) -> Result<WriterMark, StoreError> {
    Ok(WriterMark { number: column(row, number)?, total: column(row, total)? })
}

pub(in crate::store) fn run(row: &QueryResult) -> Result<Run, StoreError> {
    Ok(Run {
        first: column(row, "first_number")?,
        last: column(row, "last_number")?,
        before: column(row, "total_before")?,
        total: column(row, "total")?,
    })
}

pub(in crate::store) async fn rows(
    db: &impl ConnectionTrait,
    sql: &str,
    values: Vec<Value>,
) -> Result<Vec<QueryResult>, StoreError> {
    Ok(db.query_all_raw(Statement::from_sql_and_values(db.get_database_backend(), sql, values)).await?)
}

pub(in crate::store) async fn change(
    db: &impl ConnectionTrait,
    sql: &str,
    values: Vec<Value>,
) -> Result<u64, StoreError> {
    let done = db.execute_raw(Statement::from_sql_and_values(db.get_database_backend(), sql, values)).await?;
    Ok(done.rows_affected())
}

/// Seconds since 1970.
pub(in crate::store) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

impl Store {
    /// What is known before the log is looked at. Every frame that counts as acknowledged here is in the log or
    /// processed at any later moment, or it is missing.
    ///
    /// # Errors
    ///
    /// If the store is away.
    pub async fn known_log(&self, source: Source) -> Result<KnownLog, StoreError> {
        let mut known = KnownLog::default();
        let sql = "SELECT log_id, last FROM ledger_logs WHERE source = $1 AND seen > 0 ORDER BY seen DESC, last DESC
                   LIMIT 1";
        for row in rows(self.db(), sql, vec![source.code().into()]).await? {
            known.log = Some((row.try_get("", "log_id")?, column(&row, "last")?));
        }
        let sql = format!(
            "SELECT writer, acked, acked_total FROM ({KNOWN_WRITERS}) w
             UNION ALL SELECT writer, max(acked), max(acked_total) FROM ledger_claims WHERE source = $1 GROUP BY writer"
        );
        for row in rows(self.db(), &sql, vec![source.code().into()]).await? {
            let acked = known.acked.entry(row.try_get("", "writer")?).or_default();
            *acked = acked.max(mark(&row, "acked", "acked_total")?);
        }
        Ok(known)
    }

    /// What the store says of a source, in one snapshot; the places are those of `log_id`. `writers` are known in
    /// any case.
    ///
    /// # Errors
    ///
    /// If the store is away.
    pub async fn ledger(
        &self,
        source: Source,
        log_id: Uuid,
        writers: &[Uuid],
    ) -> Result<LedgerCut, StoreError> {
        let tx = self.snapshot(Snapshot::Read).await?;
        let mut cut = LedgerCut::default();
        let of = || vec![source.code().into()];
        let of_log = || vec![source.code().into(), log_id.into()];
        for row in rows(&tx, COUNTS, of()).await? {
            (cut.stored, cut.duplicates) = (column(&row, "stored")?, column(&row, "duplicates")?);
            cut.quarantined = column(&row, "quarantined")?;
        }
        for row in rows(&tx, LOST_PLACES, of_log()).await? {
            (cut.holes, cut.lost_before) = (column(&row, "holes")?, column(&row, "lost_before")?);
        }
        let mut missing = 0;
        for row in rows(&tx, TOTALS, of()).await? {
            cut.forgotten =
                Lost { frames: column(&row, "lost_frames")?, events: column(&row, "lost_events")? };
            missing = column(&row, "missing")?;
        }
        for row in rows(&tx, PLACES, of_log()).await? {
            cut.places.insert(column(&row, "first_place")?, column(&row, "last_place")?);
        }
        self.read_writers(&tx, source, writers, &mut cut.writers).await?;
        if self.is_postgres() {
            for row in rows(&tx, "SELECT pg_is_in_recovery() AS copied", Vec::new()).await? {
                cut.copied_missing = row.try_get::<bool>("", "copied")?.then_some(missing);
            }
        }
        tx.commit().await?;
        Ok(cut)
    }

    async fn read_writers(
        &self,
        tx: &impl ConnectionTrait,
        source: Source,
        asked: &[Uuid],
        writers: &mut HashMap<Uuid, WriterCut>,
    ) -> Result<(), StoreError> {
        let of = || vec![source.code().into()];
        let mut whole: HashMap<Uuid, Run> = HashMap::new();
        let mut known = |row: &QueryResult, writers: &mut HashMap<Uuid, WriterCut>| {
            let writer: Uuid = row.try_get("", "writer")?;
            let end = mark(row, "number", "total")?;
            writers.entry(writer).or_default().acked = mark(row, "acked", "acked_total")?;
            whole.insert(writer, Run { first: 1, last: end.number, before: 0, total: end.total });
            Ok::<_, StoreError>(())
        };
        for row in rows(tx, KNOWN_WRITERS, of()).await? {
            known(&row, writers)?;
        }
        for writer in asked {
            if !writers.contains_key(writer) {
                let sql = "SELECT writer, number, total, acked, acked_total FROM ledger_writers
                           WHERE source = $1 AND writer = $2";
                for row in rows(tx, sql, vec![source.code().into(), (*writer).into()]).await? {
                    known(&row, writers)?;
                }
            }
        }
        for row in rows(tx, OPEN_RUNS, of()).await? {
            let writer = row.try_get("", "writer")?;
            whole.remove(&writer);
            writers.entry(writer).or_default().runs.add(run(&row)?);
        }
        for row in rows(tx, CLAIMED, of()).await? {
            let writer = row.try_get("", "writer")?;
            let cut = writers.entry(writer).or_default();
            cut.acked = cut.acked.max(mark(&row, "acked", "acked_total")?);
            cut.runs.add(run(&row)?);
        }
        for (writer, run) in whole {
            let runs = &mut writers.entry(writer).or_default().runs;
            // None of its frames is missing, and none was claimed since it was folded.
            if run.last > 0 && runs.as_slice().is_empty() {
                runs.add(run);
            }
        }
        Ok(())
    }

    /// Remembers what was seen of a log, for the case that it is another one, or shorter, next time.
    ///
    /// # Errors
    ///
    /// If the store is away.
    pub async fn save_observation(
        &self,
        source: Source,
        known: &KnownLog,
        seen: &ObservedLog,
    ) -> Result<(), StoreError> {
        let last = big(seen.last);
        let of_log = || vec![source.code().into(), seen.log_id.into(), last.into()];
        match known.log {
            Some((log_id, before)) if log_id == seen.log_id && before > seen.last => {
                let sql = "UPDATE ledger_logs SET last = $3 WHERE source = $1 AND log_id = $2 AND last = $4";
                let mut values = of_log();
                values.push(big(before).into());
                change(self.db(), sql, values).await?;
            }
            _ => {}
        }
        let mut values = of_log();
        values.push(now().into());
        change(self.db(), SEEN, values).await?;
        for (writer, acked) in &seen.acked {
            if known.acked.get(writer).is_none_or(|known| known.number < acked.number) {
                let values = vec![
                    source.code().into(),
                    (*writer).into(),
                    big(acked.number).into(),
                    big(acked.total).into(),
                    now().into(),
                ];
                change(self.db(), ACKED, values).await?;
            }
        }
        let sql =
            "INSERT INTO ledger_totals (source, lost_frames, lost_events, missing) VALUES ($1, 0, 0, $2)
                   ON CONFLICT (source) DO UPDATE SET missing = excluded.missing
                   WHERE ledger_totals.missing <> excluded.missing";
        change(self.db(), sql, vec![source.code().into(), big(seen.missing).into()]).await?;
        Ok(())
    }
}

const COUNTS: &str = "SELECT CAST(coalesce(sum(stored), 0) AS bigint) AS stored,
    CAST(coalesce(sum(duplicates), 0) AS bigint) AS duplicates,
    CAST(coalesce(sum(quarantined), 0) AS bigint) AS quarantined FROM ledger_counts WHERE source = $1";

const LOST_PLACES: &str = "SELECT CAST(coalesce(sum(holes), 0) AS bigint) AS holes,
    CAST(coalesce(sum(lost_before + CASE WHEN log_id = $2 THEN 0 ELSE tail_before END), 0) AS bigint) AS lost_before
    FROM ledger_logs WHERE source = $1";

const TOTALS: &str = "SELECT lost_frames, lost_events, missing FROM ledger_totals WHERE source = $1";

/// Places whose frames were processed: folded ones, and those since. Rows of a run without gaps have one and the same
/// place minus row number.
const PLACES: &str = "SELECT first_place, last_place FROM ledger_places WHERE source = $1 AND log_id = $2
    UNION ALL SELECT min(sequence), max(sequence) FROM (
        SELECT sequence, sequence - row_number() OVER (ORDER BY sequence) AS run FROM (
            SELECT sequence FROM ledger_claims WHERE source = $1 AND log_id = $2
            UNION SELECT sequence FROM ledger_repeats WHERE source = $1 AND log_id = $2
        ) places
    ) numbered GROUP BY run";

/// The thousand writers that were active last, and those of which a frame may be missing.
const KNOWN_WRITERS: &str = "SELECT writer, number, total, acked, acked_total FROM ledger_writers
    WHERE source = $1 AND acked > prefix
    UNION SELECT writer, number, total, acked, acked_total FROM (
        SELECT writer, number, total, acked, acked_total FROM ledger_writers WHERE source = $1
        ORDER BY touched DESC LIMIT 1000
    ) active";

/// Folded runs of the writers of which a frame may be missing, or was claimed since.
const OPEN_RUNS: &str = "SELECT writer, first_number, last_number, total_before, total FROM ledger_runs
    WHERE source = $1 AND writer IN (
        SELECT writer FROM ledger_writers WHERE source = $1 AND acked > prefix
        UNION SELECT writer FROM ledger_claims WHERE source = $1
    )";

/// Runs of frames that were claimed and are not folded.
const CLAIMED: &str = "SELECT writer, min(number) AS first_number, max(number) AS last_number,
    min(total - events) AS total_before, max(total) AS total, max(acked) AS acked, max(acked_total) AS acked_total
    FROM (
        SELECT writer, number, events, total, acked, acked_total,
            number - row_number() OVER (PARTITION BY writer ORDER BY number) AS run
        FROM ledger_claims WHERE source = $1
    ) numbered GROUP BY writer, run";

const SEEN: &str =
    "INSERT INTO ledger_logs (source, log_id, last, base, holes, lost_before, tail_before, seen)
    VALUES ($1, $2, $3, 9223372036854775807, 0, 0, 0, $4)
    ON CONFLICT (source, log_id) DO UPDATE SET seen = excluded.seen, tail_before = 0,
        last = CASE WHEN excluded.last > ledger_logs.last THEN excluded.last ELSE ledger_logs.last END";

/// A writer's acknowledged frames go up alone; both numbers are of one frame.
const ACKED: &str = "INSERT INTO ledger_writers
    (source, writer, number, total, prefix, acked, acked_total, touched)
    VALUES ($1, $2, 0, 0, 0, $3, $4, $5)
    ON CONFLICT (source, writer) DO UPDATE SET acked = excluded.acked, acked_total = excluded.acked_total
    WHERE ledger_writers.acked < excluded.acked";
