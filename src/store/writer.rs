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
//! If the database refuses a row, the transaction is done again, split by savepoints down to the rows
//! that are guilty: they are set aside, all others are stored.

use uuid::Uuid;

use super::batch::{Batch, BatchFrame, Write, Written};
use super::connect::{Backend, Store};
use super::error::StoreError;
use super::postgres::PostgresWrite;
use super::row::Row;
use super::sqlite::SqliteWrite;
use super::summary::Delta;
use super::way::Way;
use crate::event::{FieldError, Refusal};
use crate::log::{DeadLetter, Reason};

impl Store {
    /// Stores a batch, exactly once. Nothing of it is there after an error.
    pub async fn write(&self, batch: &Batch<'_>) -> Result<Written, StoreError> {
        let mut way = self.wary.way();
        loop {
            let tried = self.write_once(batch, way, false).await;
            match &tried {
                Err(StoreError::Conflict(reason)) if way != Way::Insert => {
                    tracing::debug!(reason, source = %batch.source, ?way, "a row is there already, or in the way");
                    self.wary.met();
                    way = if way == Way::Copy { Way::Look } else { Way::Insert };
                }
                Err(StoreError::Data(reason)) => {
                    tracing::warn!(reason, source = %batch.source, "the database refuses a row; looking for it");
                    return self.write_once(batch, Way::Insert, true).await;
                }
                _ => return tried,
            }
        }
    }

    /// Does what storing a row does, and takes it back.
    pub async fn rehearse(&self, row: &Row<'_>) -> Result<(), StoreError> {
        let tried = match self.backend() {
            Backend::Postgres(pool, sessions) => {
                let tx =
                    PostgresWrite::begin(pool, sessions, row.event.source, Way::Insert, &self.wary).await;
                tx?.insert(&[row]).await.map(drop)
            }
            Backend::Sqlite(pool) => SqliteWrite::begin(pool).await?.insert(&[row]).await.map(drop),
        };
        match tried {
            // That is the row's own fault, and is found when the frame is stored.
            Ok(()) | Err(StoreError::Data(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn write_once(&self, batch: &Batch<'_>, way: Way, isolate: bool) -> Result<Written, StoreError> {
        match self.backend() {
            Backend::Postgres(pool, sessions) => {
                let tx = PostgresWrite::begin(pool, sessions, batch.source, way, &self.wary).await?;
                write(tx, batch, isolate).await
            }
            Backend::Sqlite(pool) => write(SqliteWrite::begin(pool).await?, batch, isolate).await,
        }
    }
}

async fn write(mut tx: impl Write, batch: &Batch<'_>, isolate: bool) -> Result<Written, StoreError> {
    let frames = unprocessed(&mut tx, batch).await?;
    let mut written =
        Written { repeated_frames: (batch.frames.len() - frames.len()) as u64, ..Written::default() };
    let mut rows: Vec<&Row<'_>> = frames.iter().flat_map(|frame| &frame.rows).collect();
    let events = rows.len() as u64;
    // By key, so that two transactions never wait for each other crosswise; the earlier of two twins stays.
    rows.sort_by_key(|row| row.key);
    rows.dedup_by_key(|row| row.key);
    let mut letters: Vec<(Uuid, DeadLetter)> = Vec::new();
    for frame in &frames {
        for (index, letter) in frame.set_aside.iter().enumerate() {
            letters.push((letter_id(frame.identity(), index as u64), letter.clone()));
        }
    }
    let mut refused = 0;
    let mut new = Vec::new();
    if isolate {
        let guilty;
        (new, guilty) = insert_apart(&mut tx, &rows).await?;
        refused = guilty.len() as u64;
        letters.extend(guilty.into_iter().map(|(row, reason)| (row.key, refused_row(row, reason))));
    } else if !rows.is_empty() {
        new = tx.insert(&rows).await?;
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

/// Inserts what can be inserted, halving what is refused until single rows are left.
async fn insert_apart<'r, 'a>(
    tx: &mut impl Write,
    rows: &[&'r Row<'a>],
) -> Result<(Vec<&'r Row<'a>>, Vec<(&'r Row<'a>, String)>), StoreError> {
    let mut stored = Vec::new();
    let mut guilty = Vec::new();
    let mut waiting = vec![rows];
    while let Some(part) = waiting.pop() {
        if part.is_empty() {
            continue;
        }
        tx.run("SAVEPOINT part").await?;
        match tx.insert(part).await {
            Ok(new) => {
                tx.run("RELEASE SAVEPOINT part").await?;
                stored.extend(new);
            }
            Err(StoreError::Data(reason)) => {
                tx.run("ROLLBACK TO SAVEPOINT part").await?;
                match part {
                    [row] => guilty.push((*row, reason)),
                    part => {
                        let (left, right) = part.split_at(part.len() / 2);
                        waiting.extend([right, left]);
                    }
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok((stored, guilty))
}
