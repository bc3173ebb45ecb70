//! Reading a source's ledger, in one snapshot.

use std::collections::HashMap;

use sea_orm::{ConnectionTrait, QueryResult};
use uuid::Uuid;

use super::{LedgerCut, Lost, Ranges, Run, WriterCut, column, mark, run};
use crate::event::Source;
use crate::store::connect::Store;
use crate::store::error::StoreError;
use crate::store::sql::Sql;
use crate::store::transaction::Snapshot;

impl Store {
    /// The ledger of a source with one log: see [`Self::ledger_of_logs`].
    ///
    /// # Errors
    ///
    /// If the store is unavailable.
    pub async fn ledger(
        &self,
        source: Source,
        log_id: Uuid,
        writers: &[Uuid],
    ) -> Result<LedgerCut, StoreError> {
        self.ledger_of_logs(source, &[log_id], writers).await
    }

    /// The ledger of a source in one snapshot, with the processed sequence numbers of its present logs, one for each
    /// stream. `writers` are included even if they were not active lately.
    ///
    /// # Errors
    ///
    /// If the store is unavailable.
    pub async fn ledger_of_logs(
        &self,
        source: Source,
        logs: &[Uuid],
        writers: &[Uuid],
    ) -> Result<LedgerCut, StoreError> {
        let tx = self.snapshot(Snapshot::Read).await?;
        let of_source = |sql: &str| Sql::new(sql).bind(source.code());
        let mut cut = LedgerCut::default();
        if let Some(row) = of_source(COUNTS).row(&tx).await? {
            (cut.stored, cut.duplicates) = (column(&row, "stored")?, column(&row, "duplicates")?);
            cut.quarantined = column(&row, "quarantined")?;
        }
        for row in of_source(LOST_SEQUENCES).rows(&tx).await? {
            cut.holes += column(&row, "holes")?;
            cut.lost_before += column(&row, "lost_before")?;
            if !logs.contains(&row.try_get("", "log_id")?) {
                cut.lost_before += column(&row, "tail_before")?;
            }
        }
        let mut missing = 0;
        if let Some(row) = of_source(TOTALS).row(&tx).await? {
            cut.forgotten =
                Lost { frames: column(&row, "lost_frames")?, events: column(&row, "lost_events")? };
            missing = column(&row, "missing")?;
        }
        for (at, log_id) in logs.iter().enumerate() {
            let mut sequences = Ranges::default();
            for row in of_source(SEQUENCES).bind(*log_id).rows(&tx).await? {
                sequences.insert(column(&row, "first_place")?, column(&row, "last_place")?);
            }
            if at == 0 {
                cut.sequences = sequences;
            } else {
                cut.further.insert(*log_id, sequences);
            }
        }
        cut.writers = read_writers(&tx, source, writers).await?;
        if self.is_postgres() {
            let standby: Option<bool> = Sql::new("SELECT pg_is_in_recovery()").scalar(&tx).await?;
            cut.copied_missing = standby.unwrap_or(false).then_some(missing);
        }
        tx.commit().await?;
        Ok(cut)
    }
}

async fn read_writers(
    tx: &impl ConnectionTrait,
    source: Source,
    requested: &[Uuid],
) -> Result<HashMap<Uuid, WriterCut>, StoreError> {
    let of_source = |sql: &str| Sql::new(sql).bind(source.code());
    let mut rows = of_source(KNOWN_WRITERS).rows(tx).await?;
    let mut known: Vec<Uuid> = Vec::new();
    for row in &rows {
        known.push(row.try_get("", "writer")?);
    }
    for writer in requested.iter().filter(|writer| !known.contains(writer)) {
        let sql = "SELECT writer, number, total, acked, acked_total FROM ledger_writers
                   WHERE source = $1 AND writer = $2";
        rows.extend(of_source(sql).bind(*writer).row(tx).await?);
    }
    let mut writers: HashMap<Uuid, WriterCut> = HashMap::new();
    // Writers without open runs and claims: all their frames up to the highest were processed.
    let mut complete: HashMap<Uuid, Run> = HashMap::new();
    for row in &rows {
        let writer: Uuid = row.try_get("", "writer")?;
        let end = mark(row, "number", "total")?;
        writers.entry(writer).or_default().acked = mark(row, "acked", "acked_total")?;
        complete.insert(writer, Run { first: 1, last: end.number, before: 0, total: end.total });
    }
    for row in of_source(OPEN_RUNS).rows(tx).await? {
        let writer = writer_of(&row)?;
        complete.remove(&writer);
        writers.entry(writer).or_default().runs.add(run(&row)?);
    }
    for row in of_source(CLAIMED).rows(tx).await? {
        let cut = writers.entry(writer_of(&row)?).or_default();
        cut.acked = cut.acked.max(mark(&row, "acked", "acked_total")?);
        cut.runs.add(run(&row)?);
    }
    for (writer, run) in complete {
        let runs = &mut writers.entry(writer).or_default().runs;
        if run.last > 0 && runs.as_slice().is_empty() {
            runs.add(run);
        }
    }
    Ok(writers)
}

fn writer_of(row: &QueryResult) -> Result<Uuid, StoreError> {
    Ok(row.try_get("", "writer")?)
}

const COUNTS: &str = "SELECT CAST(coalesce(sum(stored), 0) AS bigint) AS stored,
    CAST(coalesce(sum(duplicates), 0) AS bigint) AS duplicates,
    CAST(coalesce(sum(quarantined), 0) AS bigint) AS quarantined FROM ledger_counts WHERE source = $1";

/// By log, sequence numbers that were given up, and events lost before version 0.2. Unprocessed events of another log
/// than the present ones (`tail_before`) are lost.
const LOST_SEQUENCES: &str =
    "SELECT log_id, holes, lost_before, tail_before FROM ledger_logs WHERE source = $1
    AND (holes > 0 OR lost_before > 0 OR tail_before > 0)";

const TOTALS: &str = "SELECT lost_frames, lost_events, missing FROM ledger_totals WHERE source = $1";

/// Sequence numbers of processed frames: folded ones, and those since. Within a range without gaps, sequence number less
/// row number is constant.
const SEQUENCES: &str = "SELECT first_place, last_place FROM ledger_places WHERE source = $1 AND log_id = $2
    UNION ALL SELECT min(sequence), max(sequence) FROM (
        SELECT sequence, sequence - row_number() OVER (ORDER BY sequence) AS run FROM (
            SELECT sequence FROM ledger_claims WHERE source = $1 AND log_id = $2
            UNION SELECT sequence FROM ledger_repeats WHERE source = $1 AND log_id = $2
        ) places
    ) numbered GROUP BY run";

/// The thousand writers that were active last, and those of which a frame may be missing.
pub(super) const KNOWN_WRITERS: &str =
    "SELECT writer, number, total, acked, acked_total FROM ledger_writers WHERE source = $1 AND acked > prefix
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
