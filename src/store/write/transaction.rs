//! The one way into the store: a batch of frames as one transaction.
//!
//! 1. *Claim* the frames by their writer and number: one that was processed before is left out whole, wherever in
//!    the log it stands.
//! 2. *Insert* the rows, sorted by key and without twins; a key that is there already is a duplicate.
//!    The rollups count the rows that were really inserted.
//! 3. *Summarize*: leave what those rows add to their hours, to be folded later.
//! 4. *Set aside* what cannot be stored, as dead letters.
//! 5. *Count* all three in the ledger, and commit.
//!
//! If the database refuses a row, the transaction is done again with savepoints, which split it down to the rows that
//! are refused: they are set aside, all others are stored. What is learnt about rows is kept in a [`WriteProgress`]: a
//! transaction that breaks off on the way, because the connection or the time ended, is taken up where it was.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use crate::event::{FieldError, Refusal};
use crate::log::{DeadLetter, Reason};
use crate::store::connect::{Backend, Store};
use crate::store::error::StoreError;
use crate::store::summary::Delta;
use crate::store::write::batch::{Batch, BatchFrame, Write, Written};
use crate::store::write::postgres::PostgresWrite;
use crate::store::write::row::Row;
use crate::store::write::sqlite::SqliteWrite;
use crate::store::write::strategy::Way;

/// What the tries of one batch learnt so far; it belongs to the batch for which it was made.
#[derive(Debug)]
pub struct WriteProgress {
    /// Rows of one statement at most.
    rows: usize,
    /// True once the database refused a row of the batch.
    isolate: bool,
    /// Rows that the database took, by their address in the batch.
    accepted: HashSet<usize>,
    /// Rows that the database refused, by their address in the batch, and its reason.
    refused: HashMap<usize, String>,
}

impl WriteProgress {
    /// For a batch whose statements have at most so many rows.
    pub fn new(rows: usize) -> Self {
        Self { rows: rows.max(1), isolate: false, accepted: HashSet::new(), refused: HashMap::new() }
    }

    /// Statements have at most so many rows from now on.
    pub fn limit_rows(&mut self, rows: usize) {
        self.rows = rows.max(1);
    }

    /// True if rows that are refused are being looked for.
    pub fn isolates(&self) -> bool {
        self.isolate
    }
}

impl Default for WriteProgress {
    fn default() -> Self {
        Self::new(usize::MAX)
    }
}

fn address(row: &Row<'_>) -> usize {
    std::ptr::from_ref(row).addr()
}

impl Store {
    /// Stores a batch, exactly once. Nothing of it is there after an error.
    pub async fn write(&self, batch: &Batch<'_>) -> Result<Written, StoreError> {
        let mut progress = WriteProgress::default();
        match self.write_on(batch, &mut progress).await {
            Err(StoreError::Refused { .. }) => self.write_on(batch, &mut progress).await,
            tried => tried,
        }
    }

    /// Stores a batch, and goes on where an earlier try of the same batch broke off. Nothing of it is there after an
    /// error. After [`StoreError::Data`] the next try looks for the rows that the database refuses.
    pub async fn write_on(
        &self,
        batch: &Batch<'_>,
        progress: &mut WriteProgress,
    ) -> Result<Written, StoreError> {
        if progress.isolate {
            return self.write_once(batch, Way::Insert, progress).await;
        }
        let mut way = self.wary.way();
        loop {
            let tried = self.write_once(batch, way, progress).await;
            match &tried {
                Err(error @ StoreError::Conflict { .. }) if way != Way::Insert => {
                    tracing::debug!(%error, source = %batch.source, ?way, "a row is there already, or in the way");
                    self.wary.met();
                    way = if way == Way::Copy { Way::Look } else { Way::Insert };
                }
                Err(StoreError::Refused { message, .. }) => {
                    tracing::warn!(reason = message, source = %batch.source,
                        "the database refuses a row; rows are inserted in ever smaller parts to find it");
                    progress.isolate = true;
                    return tried;
                }
                _ => return tried,
            }
        }
    }

    /// Does what storing rows does, and takes it back.
    pub async fn rehearse(&self, rows: &[&Row<'_>]) -> Result<(), StoreError> {
        let mut rows: Vec<&Row<'_>> = rows.to_vec();
        rows.sort_by_key(|row| row.key);
        rows.dedup_by_key(|row| row.key);
        let Some(first) = rows.first() else { return Ok(()) };
        match self.backend() {
            Backend::Postgres(pool, sessions) => {
                let source = first.event.source;
                let tx = PostgresWrite::begin(pool, sessions, source, Way::Insert, &self.wary).await?;
                rehearse(tx, &rows).await
            }
            Backend::Sqlite(pool) => rehearse(SqliteWrite::begin(pool).await?, &rows).await,
        }
    }

    async fn write_once(
        &self,
        batch: &Batch<'_>,
        way: Way,
        progress: &mut WriteProgress,
    ) -> Result<Written, StoreError> {
        match self.backend() {
            Backend::Postgres(pool, sessions) => {
                let tx = PostgresWrite::begin(pool, sessions, batch.source, way, &self.wary).await?;
                write(tx, batch, progress).await
            }
            Backend::Sqlite(pool) => write(SqliteWrite::begin(pool).await?, batch, progress).await,
        }
    }
}

async fn rehearse(mut tx: impl Write, rows: &[&Row<'_>]) -> Result<(), StoreError> {
    let tried = tx.insert(rows).await.map(drop);
    // The connection serves the next one, if it can: a new one for each trial is what takes the time.
    let taken_back = tx.roll_back().await;
    match tried {
        // Rows that are refused, or too many of them for one statement, are found when the frame is stored.
        Ok(()) | Err(StoreError::Refused { .. } | StoreError::TooSlow { .. }) => taken_back,
        Err(error) => Err(error),
    }
}

async fn write(
    mut tx: impl Write,
    batch: &Batch<'_>,
    progress: &mut WriteProgress,
) -> Result<Written, StoreError> {
    let frames = unprocessed(&mut tx, batch).await?;
    let mut written =
        Written { repeated_frames: (batch.frames.len() - frames.len()) as u64, ..Written::default() };
    let mut rows: Vec<&Row<'_>> = frames.iter().flat_map(|frame| &frame.rows).collect();
    let events = rows.len() as u64;
    // By key, so that two transactions never wait for each other crosswise. The earlier of two twins stays; the later
    // is tried if the database refuses the earlier.
    rows.sort_by_key(|row| row.key);
    let mut twins = if progress.isolate { later_twins(&rows) } else { Vec::new() };
    rows.dedup_by_key(|row| row.key);
    let mut letters: Vec<(Uuid, DeadLetter)> = Vec::new();
    for frame in &frames {
        for (index, letter) in frame.set_aside.iter().enumerate() {
            letters.push((letter_id(frame.identity(), index as u64), letter.clone()));
        }
    }
    let mut refused = 0;
    let mut new = Vec::new();
    if progress.isolate {
        let mut tries = 0;
        while !rows.is_empty() {
            let (stored, guilty) = insert_apart(&mut tx, &rows, progress).await?;
            new.extend(stored);
            refused += guilty.len() as u64;
            let keys: HashSet<Uuid> = guilty.iter().map(|(row, _)| row.key).collect();
            letters.extend(guilty.into_iter().map(|(row, reason)| {
                let id = if tries == 0 { row.key } else { letter_id((row.key, 0), tries) };
                (id, refused_row(row, reason))
            }));
            (rows, twins) = twins.into_iter().partition(|row| keys.contains(&row.key));
            let later = later_twins(&rows);
            rows.dedup_by_key(|row| row.key);
            twins.extend(later);
            twins.sort_by_key(|row| row.key);
            tries += 1;
        }
    } else {
        for part in rows.chunks(progress.rows) {
            new.extend(tx.insert(part).await?);
        }
    }
    written.stored = new.len() as u64;
    if !new.is_empty() {
        tx.summarize(batch.source, written.stored, Delta::of(&new).encode()?).await?;
    }
    written.duplicates = events - written.stored - refused;
    let alien: usize = frames.iter().filter(|frame| frame.alien).map(|frame| frame.set_aside.len()).sum();
    written.quarantined = (letters.len() - alien) as u64;
    if !letters.is_empty() {
        tx.set_aside(&letters).await?;
    }
    if !frames.is_empty() {
        tx.count(batch, &frames, &written).await?;
    }
    tx.commit().await?;
    Ok(written)
}

/// The batch's frames that were not processed before, each once.
async fn unprocessed<'b, 'a>(
    tx: &mut impl Write,
    batch: &'b Batch<'a>,
) -> Result<Vec<&'b BatchFrame<'a>>, StoreError> {
    let mut fresh = tx.claim(batch).await?;
    let (frames, repeated): (Vec<_>, Vec<_>) =
        batch.frames.iter().partition(|frame| fresh.remove(&frame.identity()));
    if !repeated.is_empty() {
        tx.repeat(batch, &repeated).await?;
    }
    Ok(frames)
}

/// A dead letter's id: the same whenever the same frame is processed.
fn letter_id((writer, number): (Uuid, u64), index: u64) -> Uuid {
    use sha2::{Digest, Sha256};
    let mut hash = Sha256::new();
    hash.update(writer.as_bytes());
    hash.update(number.to_be_bytes());
    hash.update(index.to_be_bytes());
    Uuid::from_slice(&hash.finalize()[..16]).unwrap_or_default()
}

fn refused_row(row: &Row<'_>, reason: String) -> DeadLetter {
    let refusal = Refusal {
        event_id: Some(row.event.id.to_string()),
        source: Some(row.event.source),
        errors: vec![FieldError { path: String::new(), message: reason }],
        truncated: false,
    };
    DeadLetter::new(row.origin.accepted_at, &row.origin.correlation_id, Reason::Database, row.bytes, refusal)
}

/// All but the first of the rows of each key; rows are sorted by key.
fn later_twins<'r, 'a>(rows: &[&'r Row<'a>]) -> Vec<&'r Row<'a>> {
    rows.windows(2).filter(|pair| pair[0].key == pair[1].key).map(|pair| pair[1]).collect()
}

/// Inserts what can be inserted; gives the rows that are new, and those that are refused, with the reason.
///
/// The part that is tried is halved when it is refused and doubled when it is taken: one refused row among many takes
/// some thirty steps, and many of them two round trips each. Rows whose fate is known from an earlier try are not
/// tried again.
async fn insert_apart<'r, 'a>(
    tx: &mut impl Write,
    rows: &[&'r Row<'a>],
    progress: &mut WriteProgress,
) -> Result<(Vec<&'r Row<'a>>, Vec<(&'r Row<'a>, String)>), StoreError> {
    let mut stored = Vec::new();
    let (known, unknown): (Vec<&Row<'_>>, Vec<&Row<'_>>) =
        rows.iter().partition(|row| progress.accepted.contains(&address(row)));
    let untried: Vec<&Row<'_>> =
        unknown.into_iter().filter(|row| !progress.refused.contains_key(&address(row))).collect();
    for part in known.chunks(progress.rows) {
        match tx.insert(part).await {
            Ok(new) => stored.extend(new),
            Err(error) => {
                // Taken before, and refused now: nothing that was learnt holds.
                if matches!(error, StoreError::Refused { .. }) {
                    progress.accepted.clear();
                }
                return Err(error);
            }
        }
    }
    let (mut at, mut width) = (0, progress.rows);
    if !untried.is_empty() {
        tx.run("SAVEPOINT part").await?;
    }
    while at < untried.len() {
        let part = &untried[at..at.saturating_add(width).min(untried.len())];
        match tx.insert(part).await {
            Ok(new) => {
                tx.run("RELEASE SAVEPOINT part; SAVEPOINT part").await?;
                stored.extend(new);
                progress.accepted.extend(part.iter().map(|row| address(row)));
                at += part.len();
                width = part.len().saturating_mul(2).min(progress.rows);
            }
            Err(StoreError::Refused { message: reason, .. }) => {
                // The savepoint stays.
                tx.run("ROLLBACK TO SAVEPOINT part").await?;
                if let [row] = part {
                    progress.refused.insert(address(row), reason);
                    at += 1;
                }
                width = (part.len() / 2).max(1);
            }
            Err(error) => return Err(error),
        }
    }
    let reason = |row: &&'r Row<'a>| Some((*row, progress.refused.get(&address(row))?.clone()));
    Ok((stored, rows.iter().filter_map(reason).collect()))
}
