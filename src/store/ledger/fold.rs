//! Folding: claims of frames become runs, and their rows leave.
//!
//! One transaction adds the runs and deletes the claims, and nobody waits for it: a second one that folds the same
//! source skips its turn. A claim that is made at the same moment is right all the same:
//!
//! 1. The claim looks for a run that has the frame (where rows are not copied), and inserts its row. Its view of the runs may be older than the
//!    folding, and the row that it would collide with may be gone by then.
//! 2. The row goes in only if no other row of that key is there, which is so only before the frame was processed, or
//!    once the folding that deleted its row has ended: the unique index waits for a deleting transaction to end.
//! 3. The writer's last statement ([`crate::store::write::batch::Write::count`]) looks for the run again. Under READ COMMITTED it
//!    sees all that had ended before it began, the folding of step 2 included. A frame that is found there makes the
//!    transaction end and begin anew.

use std::collections::HashMap;

use sea_orm::ConnectionTrait;
use uuid::Uuid;

use crate::event::Source;
use crate::log::WriterMark;
use crate::store::connect::Store;
use crate::store::error::StoreError;
use crate::store::ledger::ranges::{Lost, Ranges, Run, Runs};
use crate::store::ledger::{change, column, mark, now, rows, run};
use crate::store::locks::{FOLD_LOCKS, WRITER_LOCKS};
use crate::store::session::WRITES;
use crate::store::write::batch::big;

/// Claims that one transaction folds at most.
const CLAIMS: usize = 20_000;
/// Places above a gap before the gap is given up: minutes of full load, so that whoever still had one
/// of its frames in hand has long finished.
const MANY_ABOVE: u64 = 10_000;
/// A writer is forgotten so long after its last frame was folded, in seconds: 30 days. Gateways that send nothing for
/// a day begin a new one.
const FORGET_AFTER: i64 = 30 * 24 * 3_600;
/// Writers that are forgotten at one time.
const FORGET_MOST: usize = 100;

/// What was claimed: the writers' runs, and the places by log.
#[derive(Default)]
struct Claims {
    taken: usize,
    writers: HashMap<Uuid, (Runs, WriterMark)>,
    /// Places of frames, in ascending order when they are used.
    places: HashMap<Uuid, Vec<u64>>,
    /// Places of frames that had been processed before.
    repeats: HashMap<Uuid, Vec<u64>>,
}

impl Store {
    /// True if this transaction alone folds the source.
    async fn may_fold(&self, tx: &impl ConnectionTrait, source: Source) -> Result<bool, StoreError> {
        if !self.is_postgres() {
            return Ok(true);
        }
        let sql = "SELECT free FROM (SELECT pg_advisory_xact_lock_shared($3, $2)) working,
                   (SELECT pg_try_advisory_xact_lock($1, $2) AS free) folding";
        let code = i32::from(source.code());
        let values = vec![FOLD_LOCKS.into(), code.into(), WRITER_LOCKS.into()];
        let row = rows(tx, sql, values).await?.pop();
        Ok(row.map_or(Ok(false), |row| row.try_get("", "free"))?)
    }

    /// Folds claims into runs. Where very many places stand above a gap that the log no longer has (a purge, an age),
    /// the gap is given up, and kept as so many holes. `log_id` and `first` are the log's own, and the first place
    /// that it still holds.
    ///
    /// # Errors
    ///
    /// If the store is away.
    pub async fn fold_ledger(&self, source: Source, log_id: Uuid, first: u64) -> Result<(), StoreError> {
        while self.fold_some(source, log_id, first).await? >= CLAIMS {}
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
        claims.places.entry(log_id).or_default();
        for (log, places) in &mut claims.places {
            let repeats = claims.repeats.remove(log).unwrap_or_default();
            fold_places(&tx, source, *log, places, &repeats, (*log == log_id).then_some(first)).await?;
        }
        for (log, repeats) in claims.repeats {
            fold_places(&tx, source, log, &mut Vec::new(), &repeats, None).await?;
        }
        tx.commit().await?;
        Ok(claims.taken)
    }

    /// Forgets writers that have not written for long; what is missing of their frames is kept as a sum. Those that the
    /// log remembers stay.
    ///
    /// # Errors
    ///
    /// If the store is away.
    pub async fn expire_writers(
        &self,
        source: Source,
        remembered: &HashMap<Uuid, WriterMark>,
    ) -> Result<(), StoreError> {
        let before = now() - FORGET_AFTER;
        let sql = "SELECT writer, acked, acked_total FROM ledger_writers WHERE source = $1 AND touched < $2 LIMIT 100";
        if rows(self.db(), sql, vec![source.code().into(), before.into()]).await?.is_empty() {
            return Ok(());
        }
        let tx = self.db().begin(WRITES).await?;
        if !self.may_fold(&tx, source).await? {
            tx.rollback().await?;
            return Ok(());
        }
        let mut lost = Lost::default();
        for row in rows(&tx, sql, vec![source.code().into(), before.into()]).await?.iter().take(FORGET_MOST) {
            let writer: Uuid = row.try_get("", "writer")?;
            if remembered.contains_key(&writer) {
                let sql = "UPDATE ledger_writers SET touched = $3 WHERE source = $1 AND writer = $2";
                change(&tx, sql, vec![source.code().into(), writer.into(), now().into()]).await?;
                continue;
            }
            let missing = runs_of(&tx, source, writer).await?.missing(mark(row, "acked", "acked_total")?);
            lost.frames += missing.frames;
            lost.events += missing.events;
            for table in ["ledger_runs", "ledger_writers"] {
                let sql = format!("DELETE FROM {table} WHERE source = $1 AND writer = $2");
                change(&tx, &sql, vec![source.code().into(), writer.into()]).await?;
            }
        }
        let sql = "INSERT INTO ledger_totals (source, lost_frames, lost_events, missing) VALUES ($1, $2, $3, 0)
                   ON CONFLICT (source) DO UPDATE SET lost_frames = ledger_totals.lost_frames + excluded.lost_frames,
                   lost_events = ledger_totals.lost_events + excluded.lost_events";
        let values = vec![source.code().into(), big(lost.frames).into(), big(lost.events).into()];
        change(&tx, sql, values).await?;
        tx.commit().await
    }
}

async fn take_claims(tx: &impl ConnectionTrait, source: Source) -> Result<Claims, StoreError> {
    let mut claims = Claims::default();
    let most = || vec![source.code().into(), big(CLAIMS as u64).into()];
    for row in rows(tx, TAKE_CLAIMS, most()).await? {
        claims.taken += 1;
        let (number, total) = (column(&row, "number")?, column(&row, "total")?);
        let before = total.saturating_sub(column(&row, "events")?);
        let (runs, acked) = claims.writers.entry(row.try_get("", "writer")?).or_default();
        runs.add(Run { first: number, last: number, before, total });
        *acked = acked.max(mark(&row, "acked", "acked_total")?);
        claims.places.entry(row.try_get("", "log_id")?).or_default().push(column(&row, "sequence")?);
    }
    for row in rows(tx, TAKE_REPEATS, most()).await? {
        claims.repeats.entry(row.try_get("", "log_id")?).or_default().push(column(&row, "sequence")?);
    }
    Ok(claims)
}

async fn runs_of(tx: &impl ConnectionTrait, source: Source, writer: Uuid) -> Result<Runs, StoreError> {
    let sql = "SELECT first_number, last_number, total_before, total FROM ledger_runs
               WHERE source = $1 AND writer = $2";
    let mut runs = Runs::default();
    for row in rows(tx, sql, vec![source.code().into(), writer.into()]).await? {
        runs.add(run(&row)?);
    }
    Ok(runs)
}

async fn fold_writer(
    tx: &impl ConnectionTrait,
    source: Source,
    writer: Uuid,
    claimed: &Runs,
    acked: WriterMark,
) -> Result<(), StoreError> {
    let before = runs_of(tx, source, writer).await?;
    let mut runs = before.clone();
    runs.extend(claimed);
    for run in before.as_slice().iter().filter(|run| !runs.as_slice().contains(run)) {
        let sql = "DELETE FROM ledger_runs WHERE source = $1 AND writer = $2 AND first_number = $3";
        change(tx, sql, vec![source.code().into(), writer.into(), big(run.first).into()]).await?;
    }
    for run in runs.as_slice().iter().filter(|run| !before.as_slice().contains(run)) {
        let sql = "INSERT INTO ledger_runs (source, writer, first_number, last_number, total_before, total)
                   VALUES ($1, $2, $3, $4, $5, $6)";
        let numbers = [run.first, run.last, run.before, run.total].map(|number| big(number).into());
        change(tx, sql, [vec![source.code().into(), writer.into()], numbers.into()].concat()).await?;
    }
    let end = runs.end();
    let numbers = [end.number, end.total, runs.prefix(), acked.number, acked.total];
    let numbers = numbers.map(|number| big(number).into());
    let values = [vec![source.code().into(), writer.into()], numbers.into(), vec![now().into()]].concat();
    change(tx, WRITER, values).await?;
    Ok(())
}

/// Adds processed places. `held_from` is the first place that the log holds, where it is the one at hand.
async fn fold_places(
    tx: &impl ConnectionTrait,
    source: Source,
    log_id: Uuid,
    places: &mut Vec<u64>,
    repeats: &[u64],
    held_from: Option<u64>,
) -> Result<(), StoreError> {
    let of_log = || vec![source.code().into(), log_id.into()];
    let mut before = Vec::new();
    let sql = "SELECT first_place, last_place FROM ledger_places WHERE source = $1 AND log_id = $2";
    for row in rows(tx, sql, of_log()).await? {
        before.push((column(&row, "first_place")?, column(&row, "last_place")?));
    }
    let mut base = u64::MAX;
    for row in rows(tx, "SELECT base FROM ledger_logs WHERE source = $1 AND log_id = $2", of_log()).await? {
        base = column(&row, "base")?;
    }
    let mut ranges: Ranges = before.iter().copied().collect();
    let rewound = add_places(&mut ranges, &mut base, places);
    repeats.iter().for_each(|place| ranges.insert(*place, *place));
    if let Some(place) = rewound {
        tracing::error!(%source, %log_id, place,
            "the log gave this place a second time: it was restored from an older copy. Its frames are stored all the \
             same; events that it had taken since that copy and that were not stored yet are missing in /ledger");
    }
    let holes = held_from.map_or(0, |first| give_up(&mut ranges, first));
    for (first, _) in before.iter().filter(|range| !ranges.as_slice().contains(range)) {
        let sql = "DELETE FROM ledger_places WHERE source = $1 AND log_id = $2 AND first_place = $3";
        change(tx, sql, [of_log(), vec![big(*first).into()]].concat()).await?;
    }
    for (first, last) in ranges.as_slice().iter().filter(|range| !before.contains(range)) {
        let sql =
            "INSERT INTO ledger_places (source, log_id, first_place, last_place) VALUES ($1, $2, $3, $4)";
        change(tx, sql, [of_log(), vec![big(*first).into(), big(*last).into()]].concat()).await?;
    }
    if rewound.is_some() || holes > 0 {
        let sql =
            "INSERT INTO ledger_logs (source, log_id, last, base, holes, lost_before, tail_before, seen)
                   VALUES ($1, $2, 0, $3, $4, 0, 0, 0)
                   ON CONFLICT (source, log_id) DO UPDATE SET base = excluded.base,
                   holes = ledger_logs.holes + excluded.holes";
        change(tx, sql, [of_log(), vec![big(base).into(), big(holes).into()]].concat()).await?;
    }
    Ok(())
}

/// Adds the places of frames that were processed for the first time. A place that had another
/// frame before was given a second time: what is known of places from there on is of frames that the log no longer
/// has. `base` is the lowest place that is known to have been given again. Gives the lowest such place of these.
fn add_places(ranges: &mut Ranges, base: &mut u64, places: &mut Vec<u64>) -> Option<u64> {
    places.sort_unstable();
    let mut rewound = places.windows(2).find(|two| two[0] == two[1]).map(|two| two[0]);
    *base = rewound.map_or(*base, |place| place.min(*base));
    places.dedup();
    for &place in places.iter() {
        if ranges.contains(place) {
            ranges.remove(place, if place < *base { *base - 1 } else { u64::MAX });
            *base = place;
            rewound = Some(rewound.map_or(place, |lowest: u64| lowest.min(place)));
        }
        ranges.insert(place, place);
    }
    rewound
}

/// Gives gaps up that the log no longer holds and above which there are many places; gives how many places.
fn give_up(ranges: &mut Ranges, held_from: u64) -> u64 {
    let mut holes = 0;
    let mut above = ranges.count();
    let mut next = 1;
    for (first, last) in ranges.as_slice().to_vec() {
        if above <= MANY_ABOVE || first > held_from {
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

/// A look may have found more of the writer's frames acknowledged meanwhile.
const WRITER: &str = "INSERT INTO ledger_writers
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
    fn a_place_that_is_given_again_ends_what_is_known_from_there_on() {
        let mut ranges: Ranges = [(1, 400)].into_iter().collect();
        let mut base = u64::MAX;
        // A log that went back to 100: a quick collector's frames first, a slow one's later.
        let add = |ranges: &mut Ranges, base: &mut u64, places: &[u64]| {
            add_places(ranges, base, &mut places.to_vec())
        };
        assert_eq!(add(&mut ranges, &mut base, &[151, 150, 152]), Some(150));
        assert_eq!((ranges.as_slice(), base), (&[(1, 152)][..], 150));
        assert_eq!(add(&mut ranges, &mut base, &[120, 121]), Some(120));
        assert_eq!((ranges.as_slice(), base), (&[(1, 121), (150, 152)][..], 120));
        assert_eq!(add(&mut ranges, &mut base, &[122, 123, 160]), None);
        // It goes back once more.
        assert_eq!(add(&mut ranges, &mut base, &[121]), Some(121));
        assert_eq!((ranges.as_slice(), base), (&[(1, 121)][..], 121));
        // Both frames of a place are folded at the same time.
        assert_eq!(add(&mut ranges, &mut base, &[200, 130, 130]), Some(130));
    }

    #[test]
    fn a_gap_is_given_up_once_the_log_has_let_go_and_much_is_above() {
        let mut ranges: Ranges = [(5, 9), (100, 10_200)].into_iter().collect();
        assert_eq!(give_up(&mut ranges.clone(), 4), 0, "the log holds what is missing");
        assert_eq!(give_up(&mut ranges.clone(), 60), 4, "the second gap is held");
        assert_eq!(give_up(&mut ranges, 10_201), 4 + 90);
        assert_eq!(ranges.as_slice(), [(1, 10_200)]);
        let mut few: Ranges = [(100, 10_099)].into_iter().collect();
        assert_eq!(give_up(&mut few, 20_000), 0);
    }
}
