//! Folding: claims of frames become runs, and their rows are deleted.
//!
//! One transaction adds the runs and deletes the claims. No writer waits for it, and a second transaction that would fold
//! the same source skips its turn. A claim that is made at the same moment is correct for these reasons:
//!
//! 1. The claim looks for a run that has the frame (unless rows are copied), and inserts its row. It may see the runs as
//!    they were before the folding, while the row that it would collide with may be deleted already.
//! 2. The row is inserted only if no other row has its key, which is so before the frame is processed, or once the
//!    folding that deleted its row has committed: the unique index waits for a deleting transaction to end.
//! 3. The writer's last statement ([`crate::store::write::batch::Write::count`]) looks for the run again. Under READ
//!    COMMITTED it sees all that had committed before it began, so also the folding of step 2. If it finds the frame,
//!    the transaction is rolled back and done again.

use std::collections::HashMap;

use sea_orm::ConnectionTrait;
use uuid::Uuid;

use super::{column, mark, now, run};
use crate::event::Source;
use crate::log::WriterMark;
use crate::store::connect::Store;
use crate::store::error::StoreError;
use crate::store::ledger::ranges::{Lost, Ranges, Run, Runs};
use crate::store::locks::{FOLD_LOCKS, WRITER_LOCKS};
use crate::store::session::WRITES;
use crate::store::sql::Sql;
use crate::store::write::batch::big;

/// Maximum number of claims that one transaction folds.
const MAX_CLAIMS: usize = 20_000;
/// Number of sequence numbers above a gap after which the gap is given up: minutes of full load, so that a collector
/// that still had one of its frames has long finished.
const GIVE_UP_ABOVE: u64 = 10_000;
/// Time after which a writer is deleted, counted from the folding of its last frame, in seconds: 30 days. A gateway that
/// sends nothing for a day begins a new writer.
const WRITER_AGE: i64 = 30 * 24 * 3_600;

/// Claims taken from the table.
#[derive(Default)]
struct Claims {
    /// Number of claims.
    taken: usize,
    /// By writer, its frames and the last one that it names as acknowledged.
    writers: HashMap<Uuid, (Runs, WriterMark)>,
    /// By log, the sequence numbers of new frames.
    sequences: HashMap<Uuid, Vec<u64>>,
    /// By log, the sequence numbers of frames that had been processed before.
    repeats: HashMap<Uuid, Vec<u64>>,
}

impl Store {
    /// True if this transaction alone may fold the source.
    async fn may_fold(&self, tx: &impl ConnectionTrait, source: Source) -> Result<bool, StoreError> {
        if !self.is_postgres() {
            return Ok(true);
        }
        let sql = "SELECT free FROM (SELECT pg_advisory_xact_lock_shared($3, $2)) working,
                   (SELECT pg_try_advisory_xact_lock($1, $2) AS free) folding";
        let locked = Sql::new(sql).bind(FOLD_LOCKS).bind(i32::from(source.code())).bind(WRITER_LOCKS);
        Ok(locked.scalar(tx).await?.unwrap_or(false))
    }

    /// Folds claims into runs. `log_id` is the identity of the source's log, and `first` the lowest sequence number that
    /// it still holds. A gap below `first` with very many processed sequence numbers above it, such as after a purge, is
    /// given up and counted as holes.
    ///
    /// # Errors
    ///
    /// If the store is unavailable.
    pub async fn fold_ledger(&self, source: Source, log_id: Uuid, first: u64) -> Result<(), StoreError> {
        while self.fold_some(source, log_id, first).await? >= MAX_CLAIMS {}
        Ok(())
    }

    async fn fold_some(&self, source: Source, log_id: Uuid, first: u64) -> Result<usize, StoreError> {
        let tx = self.db().begin(WRITES).await?;
        if !self.may_fold(&tx, source).await? {
            tx.rollback().await?;
            return Ok(0);
        }
        let mut claims = take_claims(&tx, source).await?;
        for (writer, (runs, acked)) in &claims.writers {
            fold_writer(&tx, source, *writer, runs, *acked).await?;
        }
        claims.sequences.entry(log_id).or_default();
        for (log, sequences) in &mut claims.sequences {
            let repeats = claims.repeats.remove(log).unwrap_or_default();
            let held_from = (*log == log_id).then_some(first);
            fold_sequences(&tx, (source, *log), sequences, &repeats, held_from).await?;
        }
        for (log, repeats) in claims.repeats {
            fold_sequences(&tx, (source, log), &mut Vec::new(), &repeats, None).await?;
        }
        tx.commit().await?;
        Ok(claims.taken)
    }

    /// Deletes writers that sent nothing for [`WRITER_AGE`], at most a hundred at a time. The number of their missing
    /// frames and events is kept. Writers that the log remembers stay.
    ///
    /// # Errors
    ///
    /// If the store is unavailable.
    pub async fn expire_writers(
        &self,
        source: Source,
        remembered: &HashMap<Uuid, WriterMark>,
    ) -> Result<(), StoreError> {
        let expired = Sql::new(
            "SELECT writer, acked, acked_total FROM ledger_writers WHERE source = $1 AND touched < $2 LIMIT 100",
        );
        let expired = expired.bind(source.code()).bind(now() - WRITER_AGE);
        if expired.clone().row(self.db()).await?.is_none() {
            return Ok(());
        }
        let tx = self.db().begin(WRITES).await?;
        if !self.may_fold(&tx, source).await? {
            tx.rollback().await?;
            return Ok(());
        }
        let mut lost = Lost::default();
        for row in expired.rows(&tx).await? {
            let writer: Uuid = row.try_get("", "writer")?;
            let of_writer = |sql: &str| Sql::new(sql).bind(source.code()).bind(writer);
            if remembered.contains_key(&writer) {
                let touch = "UPDATE ledger_writers SET touched = $3 WHERE source = $1 AND writer = $2";
                of_writer(touch).bind(now()).execute(&tx).await?;
                continue;
            }
            let missing = runs_of(&tx, source, writer).await?.missing(mark(&row, "acked", "acked_total")?);
            lost.frames += missing.frames;
            lost.events += missing.events;
            of_writer("DELETE FROM ledger_runs WHERE source = $1 AND writer = $2").execute(&tx).await?;
            of_writer("DELETE FROM ledger_writers WHERE source = $1 AND writer = $2").execute(&tx).await?;
        }
        let add = Sql::new(
            "INSERT INTO ledger_totals (source, lost_frames, lost_events, missing) VALUES ($1, $2, $3, 0)
             ON CONFLICT (source) DO UPDATE SET lost_frames = ledger_totals.lost_frames + excluded.lost_frames,
             lost_events = ledger_totals.lost_events + excluded.lost_events",
        );
        add.bind(source.code()).bind(big(lost.frames)).bind(big(lost.events)).execute(&tx).await?;
        tx.commit().await
    }
}

async fn take_claims(tx: &impl ConnectionTrait, source: Source) -> Result<Claims, StoreError> {
    let mut claims = Claims::default();
    let take = |sql: &str| Sql::new(sql).bind(source.code()).bind(big(MAX_CLAIMS as u64));
    for row in take(TAKE_CLAIMS).rows(tx).await? {
        claims.taken += 1;
        let (number, total) = (column(&row, "number")?, column(&row, "total")?);
        let before = total.saturating_sub(column(&row, "events")?);
        let (runs, acked) = claims.writers.entry(row.try_get("", "writer")?).or_default();
        runs.add(Run { first: number, last: number, before, total });
        *acked = acked.max(mark(&row, "acked", "acked_total")?);
        claims.sequences.entry(row.try_get("", "log_id")?).or_default().push(column(&row, "sequence")?);
    }
    for row in take(TAKE_REPEATS).rows(tx).await? {
        claims.repeats.entry(row.try_get("", "log_id")?).or_default().push(column(&row, "sequence")?);
    }
    Ok(claims)
}

async fn runs_of(tx: &impl ConnectionTrait, source: Source, writer: Uuid) -> Result<Runs, StoreError> {
    let sql = "SELECT first_number, last_number, total_before, total FROM ledger_runs
               WHERE source = $1 AND writer = $2";
    let mut runs = Runs::default();
    for row in Sql::new(sql).bind(source.code()).bind(writer).rows(tx).await? {
        runs.add(run(&row)?);
    }
    Ok(runs)
}

/// Adds frames to a writer's runs. Runs that grew are replaced, all others are left untouched.
async fn fold_writer(
    tx: &impl ConnectionTrait,
    source: Source,
    writer: Uuid,
    claimed: &Runs,
    acked: WriterMark,
) -> Result<(), StoreError> {
    let of_writer = |sql: &str| Sql::new(sql).bind(source.code()).bind(writer);
    let before = runs_of(tx, source, writer).await?;
    let mut runs = before.clone();
    runs.extend(claimed);
    for run in before.as_slice().iter().filter(|run| !runs.as_slice().contains(run)) {
        let sql = "DELETE FROM ledger_runs WHERE source = $1 AND writer = $2 AND first_number = $3";
        of_writer(sql).bind(big(run.first)).execute(tx).await?;
    }
    for run in runs.as_slice().iter().filter(|run| !before.as_slice().contains(run)) {
        let sql = "INSERT INTO ledger_runs (source, writer, first_number, last_number, total_before, total)
                   VALUES ($1, $2, $3, $4, $5, $6)";
        let numbers = [run.first, run.last, run.before, run.total];
        numbers.into_iter().fold(of_writer(sql), |sql, number| sql.bind(big(number))).execute(tx).await?;
    }
    let end = runs.end();
    let numbers = [end.number, end.total, runs.prefix(), acked.number, acked.total];
    let writer = numbers.into_iter().fold(of_writer(SAVE_WRITER), |sql, number| sql.bind(big(number)));
    writer.bind(now()).execute(tx).await?;
    Ok(())
}

/// Adds processed sequence numbers of a log. `held_from` is the lowest one that the log holds, if it is the source's
/// present log.
async fn fold_sequences(
    tx: &impl ConnectionTrait,
    (source, log_id): (Source, Uuid),
    sequences: &mut Vec<u64>,
    repeats: &[u64],
    held_from: Option<u64>,
) -> Result<(), StoreError> {
    let of_log = |sql: &str| Sql::new(sql).bind(source.code()).bind(log_id);
    let mut before = Vec::new();
    let sql = "SELECT first_place, last_place FROM ledger_places WHERE source = $1 AND log_id = $2";
    for row in of_log(sql).rows(tx).await? {
        before.push((column(&row, "first_place")?, column(&row, "last_place")?));
    }
    let sql = "SELECT base FROM ledger_logs WHERE source = $1 AND log_id = $2";
    let base: Option<i64> = of_log(sql).scalar(tx).await?;
    let mut base = base.map_or(u64::MAX, |base| base.max(0).cast_unsigned());
    let mut ranges: Ranges = before.iter().copied().collect();
    let reused = add_sequences(&mut ranges, &mut base, sequences);
    repeats.iter().for_each(|sequence| ranges.insert(*sequence, *sequence));
    if let Some(sequence) = reused {
        tracing::error!(%source, %log_id, sequence,
            "the log gave this sequence number a second time: it was restored from an older copy. Its frames are \
             stored all the same; events that it had taken since that copy and that were not stored yet are missing \
             in /ledger");
    }
    let holes = held_from.map_or(0, |first| give_up(&mut ranges, first));
    for (first, _) in before.iter().filter(|range| !ranges.as_slice().contains(range)) {
        let sql = "DELETE FROM ledger_places WHERE source = $1 AND log_id = $2 AND first_place = $3";
        of_log(sql).bind(big(*first)).execute(tx).await?;
    }
    for (first, last) in ranges.as_slice().iter().filter(|range| !before.contains(range)) {
        let sql =
            "INSERT INTO ledger_places (source, log_id, first_place, last_place) VALUES ($1, $2, $3, $4)";
        of_log(sql).bind(big(*first)).bind(big(*last)).execute(tx).await?;
    }
    if reused.is_some() || holes > 0 {
        let sql =
            "INSERT INTO ledger_logs (source, log_id, last, base, holes, lost_before, tail_before, seen)
             VALUES ($1, $2, 0, $3, $4, 0, 0, 0)
             ON CONFLICT (source, log_id) DO UPDATE SET base = excluded.base,
             holes = ledger_logs.holes + excluded.holes";
        of_log(sql).bind(big(base)).bind(big(holes)).execute(tx).await?;
    }
    Ok(())
}

/// Adds the sequence numbers of new frames. A sequence number that was processed with another frame was given a second
/// time: all that is known from there on is about frames that the log no longer has, and is removed. `base` is the
/// lowest sequence number that is known to be reused. Gives the lowest reused one of these frames.
fn add_sequences(ranges: &mut Ranges, base: &mut u64, sequences: &mut Vec<u64>) -> Option<u64> {
    sequences.sort_unstable();
    let mut reused = sequences.windows(2).find(|two| two[0] == two[1]).map(|two| two[0]);
    *base = reused.map_or(*base, |sequence| sequence.min(*base));
    sequences.dedup();
    for &sequence in sequences.iter() {
        if ranges.contains(sequence) {
            ranges.remove(sequence, if sequence < *base { *base - 1 } else { u64::MAX });
            *base = sequence;
            reused = Some(reused.map_or(sequence, |lowest: u64| lowest.min(sequence)));
        }
        ranges.insert(sequence, sequence);
    }
    reused
}

/// Closes gaps that the log no longer holds and that have more than [`GIVE_UP_ABOVE`] sequence numbers above them; gives
/// the number of sequence numbers in them.
fn give_up(ranges: &mut Ranges, held_from: u64) -> u64 {
    let mut holes = 0;
    let mut above = ranges.count();
    let mut next = 1;
    for (first, last) in ranges.as_slice().to_vec() {
        if above <= GIVE_UP_ABOVE || first > held_from {
            break;
        }
        if first > next {
            holes += first - next;
            ranges.insert(next, first - 1);
        }
        above -= last - first + 1;
        next = last + 1;
    }
    holes
}

const TAKE_CLAIMS: &str = "DELETE FROM ledger_claims WHERE source = $1 AND (writer, number) IN (
    SELECT writer, number FROM ledger_claims WHERE source = $1 ORDER BY writer, number LIMIT $2)
    RETURNING writer, number, log_id, sequence, events, total, acked, acked_total";

const TAKE_REPEATS: &str = "DELETE FROM ledger_repeats WHERE source = $1 AND (log_id, sequence) IN (
    SELECT log_id, sequence FROM ledger_repeats WHERE source = $1 ORDER BY log_id, sequence LIMIT $2)
    RETURNING log_id, sequence";

/// Saves a writer. A reconciliation may have found more of its frames acknowledged in the meantime.
const SAVE_WRITER: &str = "INSERT INTO ledger_writers
    (source, writer, number, total, prefix, acked, acked_total, touched) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
    ON CONFLICT (source, writer) DO UPDATE SET number = excluded.number, total = excluded.total,
        prefix = excluded.prefix, touched = excluded.touched,
        acked_total = CASE WHEN excluded.acked > ledger_writers.acked THEN excluded.acked_total
            ELSE ledger_writers.acked_total END,
        acked = CASE WHEN excluded.acked > ledger_writers.acked THEN excluded.acked ELSE ledger_writers.acked END";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reused_sequence_number_removes_what_is_known_from_there_on() {
        let mut ranges: Ranges = [(1, 400)].into_iter().collect();
        let mut base = u64::MAX;
        // A log that was restored to 100: frames of a fast collector first, those of a slow one later.
        let add = |ranges: &mut Ranges, base: &mut u64, sequences: &[u64]| {
            add_sequences(ranges, base, &mut sequences.to_vec())
        };
        assert_eq!(add(&mut ranges, &mut base, &[151, 150, 152]), Some(150));
        assert_eq!((ranges.as_slice(), base), (&[(1, 152)][..], 150));
        assert_eq!(add(&mut ranges, &mut base, &[120, 121]), Some(120));
        assert_eq!((ranges.as_slice(), base), (&[(1, 121), (150, 152)][..], 120));
        assert_eq!(add(&mut ranges, &mut base, &[122, 123, 160]), None);
        // The backup is restored a second time.
        assert_eq!(add(&mut ranges, &mut base, &[121]), Some(121));
        assert_eq!((ranges.as_slice(), base), (&[(1, 121)][..], 121));
        // Both frames of a sequence number are folded at the same time.
        assert_eq!(add(&mut ranges, &mut base, &[200, 130, 130]), Some(130));
    }

    #[test]
    fn a_gap_is_given_up_once_the_log_no_longer_holds_it_and_many_frames_above_it_were_processed() {
        let mut ranges: Ranges = [(5, 9), (100, 10_200)].into_iter().collect();
        assert_eq!(give_up(&mut ranges.clone(), 4), 0, "the log holds what is missing");
        assert_eq!(give_up(&mut ranges.clone(), 60), 4, "the second gap is held");
        assert_eq!(give_up(&mut ranges, 10_201), 4 + 90);
        assert_eq!(ranges.as_slice(), [(1, 10_200)]);
        let mut few: Ranges = [(100, 10_099)].into_iter().collect();
        assert_eq!(give_up(&mut few, 20_000), 0);
    }
}
