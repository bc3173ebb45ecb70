//! Stores a batch of frames in one transaction, exactly once.
//!
//! 1. *Claim* the frames by writer and number. Frames that were processed before are left out, whatever their
//!    sequence number in the log.
//! 2. *Insert* the rows, sorted by key, one per key. Keys that are stored already are duplicates. The rollups are
//!    increased by the inserted rows.
//! 3. *Summarize*: insert a delta of the inserted rows, to be folded into the summaries later.
//! 4. *Set aside* events that cannot be stored, as dead letters.
//! 5. *Count* the frames and events in the ledger, and commit.
//!
//! If the database refuses a row, the transaction is repeated with savepoints ([`super::isolate`]): refused rows are
//! set aside, all others are stored.

use uuid::Uuid;

use crate::log::DeadLetter;
use crate::store::connect::{Backend, Store};
use crate::store::error::StoreError;
use crate::store::summary::Delta;
use crate::store::write::batch::{Batch, BatchFrame, Write, Written};
use crate::store::write::isolate::{WriteProgress, insert_isolating, letter_id};
use crate::store::write::postgres::PostgresWrite;
use crate::store::write::row::Row;
use crate::store::write::sqlite::SqliteWrite;
use crate::store::write::strategy::InsertStrategy;

impl Store {
    /// Stores a batch, exactly once. If a row is refused, a second transaction sets it aside.
    ///
    /// # Errors
    ///
    /// If the store is unavailable; nothing of the batch is stored then.
    pub async fn write(&self, batch: &Batch<'_>) -> Result<Written, StoreError> {
        let mut progress = WriteProgress::default();
        match self.write_on(batch, &mut progress).await {
            Err(StoreError::Refused { .. }) => self.write_on(batch, &mut progress).await,
            tried => tried,
        }
    }

    /// Stores a batch. `progress` is kept between the tries of one batch, so that a later one continues the search for
    /// refused rows.
    ///
    /// # Errors
    ///
    /// Nothing of the batch is stored after an error. After [`StoreError::Refused`] the next try finds the refused rows
    /// and sets them aside.
    pub async fn write_on(
        &self,
        batch: &Batch<'_>,
        progress: &mut WriteProgress,
    ) -> Result<Written, StoreError> {
        if progress.isolate {
            return self.write_once(batch, InsertStrategy::Upsert, progress).await;
        }
        let mut strategy = self.duplicates.strategy();
        loop {
            let tried = self.write_once(batch, strategy, progress).await;
            match &tried {
                Err(error @ StoreError::Conflict { .. }) if strategy != InsertStrategy::Upsert => {
                    tracing::debug!(%error, source = %batch.source, ?strategy,
                        "a row is stored already or another transaction is inserting it; trying the next strategy");
                    self.duplicates.found_duplicates();
                    strategy = strategy.next();
                }
                Err(StoreError::Refused { message, .. }) => {
                    tracing::warn!(reason = message, source = %batch.source,
                        "the database refuses a row of a batch; it will be found and set aside as a dead letter");
                    progress.isolate = true;
                    return tried;
                }
                _ => return tried,
            }
        }
    }

    /// Inserts rows and rolls back. The search for poison events runs suspected rows through the insert this way: a row
    /// that crashes the process does so before anything is stored.
    ///
    /// # Errors
    ///
    /// If the store is unavailable. Refused rows and statements that take too long are no errors here; both are handled
    /// when the frame is stored.
    pub async fn rehearse(&self, rows: &[&Row<'_>]) -> Result<(), StoreError> {
        let mut rows: Vec<&Row<'_>> = rows.to_vec();
        rows.sort_by_key(|row| row.key);
        rows.dedup_by_key(|row| row.key);
        let Some(first) = rows.first() else { return Ok(()) };
        match self.backend() {
            Backend::Postgres(pool, sessions) => {
                let (source, strategy) = (first.event.source, InsertStrategy::Upsert);
                let tx = PostgresWrite::begin(pool, sessions, source, strategy, &self.duplicates).await?;
                rehearse(tx, &rows).await
            }
            Backend::Sqlite(pool) => rehearse(SqliteWrite::begin(pool).await?, &rows).await,
        }
    }

    async fn write_once(
        &self,
        batch: &Batch<'_>,
        strategy: InsertStrategy,
        progress: &mut WriteProgress,
    ) -> Result<Written, StoreError> {
        match self.backend() {
            Backend::Postgres(pool, sessions) => {
                let tx = PostgresWrite::begin(pool, sessions, batch.source, strategy, &self.duplicates);
                write(tx.await?, batch, progress).await
            }
            Backend::Sqlite(pool) => write(SqliteWrite::begin(pool).await?, batch, progress).await,
        }
    }
}

async fn rehearse(mut tx: impl Write, rows: &[&Row<'_>]) -> Result<(), StoreError> {
    let tried = tx.insert(rows).await.map(drop);
    // An explicit rollback keeps the connection; opening another would take longer than the insert.
    let rolled_back = tx.roll_back().await;
    match tried {
        Ok(()) | Err(StoreError::Refused { .. } | StoreError::TooSlow { .. }) => rolled_back,
        Err(error) => Err(error),
    }
}

async fn write(
    mut tx: impl Write,
    batch: &Batch<'_>,
    progress: &mut WriteProgress,
) -> Result<Written, StoreError> {
    let frames = claim_new(&mut tx, batch).await?;
    let mut written =
        Written { repeated_frames: (batch.frames.len() - frames.len()) as u64, ..Written::default() };
    let mut rows: Vec<&Row<'_>> = frames.iter().flat_map(|frame| &frame.rows).collect();
    let events = rows.len() as u64;
    // Sorted by key, so that concurrent transactions lock rows in the same order and cannot deadlock. The sort is
    // stable: of several rows with the same key, the first of the batch is stored.
    rows.sort_by_key(|row| row.key);
    let mut letters: Vec<(Uuid, DeadLetter)> = Vec::new();
    for frame in &frames {
        for (index, letter) in frame.set_aside.iter().enumerate() {
            letters.push((letter_id(frame.identity(), index as u64), letter.clone()));
        }
    }
    let mut refused = 0;
    let mut new = Vec::new();
    if progress.isolate {
        let isolated = insert_isolating(&mut tx, rows, progress).await?;
        new = isolated.new;
        refused = isolated.letters.len() as u64;
        letters.extend(isolated.letters);
    } else {
        rows.dedup_by_key(|row| row.key);
        for part in rows.chunks(progress.rows) {
            new.extend(tx.insert(part).await?);
        }
    }
    written.stored = new.len() as u64;
    if !new.is_empty() {
        tx.summarize(batch.source, written.stored, Delta::of(&new).encode()?).await?;
    }
    written.duplicates = events - written.stored - refused;
    // A message that is no frame becomes a dead letter, but the ledger counts no event for it.
    let unreadable: usize =
        frames.iter().filter(|frame| frame.unreadable).map(|frame| frame.set_aside.len()).sum();
    written.quarantined = (letters.len() - unreadable) as u64;
    if !letters.is_empty() {
        tx.set_aside(&letters).await?;
    }
    if !frames.is_empty() {
        tx.count(batch, &frames, &written).await?;
    }
    tx.commit().await?;
    Ok(written)
}

/// Claims the batch's frames. Returns the ones that were not processed before, each once.
async fn claim_new<'b, 'a>(
    tx: &mut impl Write,
    batch: &'b Batch<'a>,
) -> Result<Vec<&'b BatchFrame<'a>>, StoreError> {
    let mut new = tx.claim(batch).await?;
    let (frames, repeated): (Vec<_>, Vec<_>) =
        batch.frames.iter().partition(|frame| new.remove(&frame.identity()));
    if !repeated.is_empty() {
        tx.repeat(batch, &repeated).await?;
    }
    Ok(frames)
}
