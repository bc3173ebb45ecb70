//! Folding: adding deltas to the summaries of their hours.
//!
//! ```text
//! pending deltas ──select──▶ decode ─┬─ few hours ─▶ add to hours and campaigns, mark wider spans as stale
//!                                    └─ many hours ─▶ split by chunks of 64 hours, into new deltas
//! ```
//!
//! Deltas of a backfill have hundreds of hours each. They are first split into deltas of one chunk of 64 hours, so
//! that each hour's summary is written once for many of them. Where a fold changes whole chunks, the wider spans
//! within them are summed up at once.
//!
//! A fold is one transaction: rows, deltas and summaries agree in every snapshot.

mod campaigns;
mod hours;
mod select;
mod sum;

use std::collections::BTreeMap;

use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};

use self::campaigns::add_to_campaigns;
use self::hours::add_to_hours;
use self::select::{PENDING_READ, PendingDelta, select};
use self::sum::{Decoded, decode_and_sum};
use super::damaged;
use super::delta::Delta;
use super::encoding::Encoded;
use super::span::chunk_of;
use crate::event::Source;
use crate::store::connect::Store;
use crate::store::entity::summary_deltas;
use crate::store::error::StoreError;
use crate::store::locks::SUMMARY_LOCKS;
use crate::store::sql::Sql;
use crate::store::transaction::{Snapshot, Transaction};

impl Store {
    /// Begins a transaction that holds the lock on a source's summaries; `None` if another one holds it.
    pub(in crate::store) async fn lock_summaries(
        &self,
        source: Source,
    ) -> Result<Option<Transaction>, StoreError> {
        let tx = self.snapshot(Snapshot::Write).await?;
        // SQLite has one writer at a time.
        if self.is_postgres() {
            let lock = Sql::new("SELECT pg_try_advisory_xact_lock($1, $2)");
            let lock = lock.bind(SUMMARY_LOCKS).bind(i32::from(source.code()));
            if lock.scalar::<bool>(&tx).await? != Some(true) {
                tx.rollback().await?;
                return Ok(None);
            }
        }
        Ok(Some(tx))
    }

    /// Folds all pending deltas of a source, in several transactions. Returns the number of their events; 0 also if
    /// another process folds at the moment.
    ///
    /// # Errors
    ///
    /// [`StoreError::Conflict`] if another transaction changed the summaries meanwhile.
    pub async fn fold_summaries(&self, source: Source) -> Result<u64, StoreError> {
        let mut folded = 0;
        loop {
            let Some(tx) = self.lock_summaries(source).await? else { return Ok(folded) };
            let (events, more) = fold_some(&tx, source).await?;
            tx.commit().await?;
            folded += events;
            if !more {
                return Ok(folded);
            }
        }
    }
}

/// Folds all deltas of the snapshot.
pub(in crate::store) async fn fold_all(tx: &Transaction, source: Source) -> Result<(), StoreError> {
    while fold_some(tx, source).await?.1 {}
    Ok(())
}

/// Folds some deltas of the snapshot. Returns the number of their events, and true if there are more deltas.
async fn fold_some(tx: &Transaction, source: Source) -> Result<(u64, bool), StoreError> {
    // Deltas that are known to be corrupt are left where they are. SQL text: the condition joins on the tag.
    let pending: Vec<PendingDelta> = Sql::new(
        "SELECT id, events, chunk FROM summary_deltas w WHERE source = $1 AND NOT EXISTS (
            SELECT 1 FROM damaged_summaries d WHERE d.source = w.source AND d.level = -1 AND d.at = w.id
                AND d.version = w.tag)
         ORDER BY chunk NULLS FIRST, id LIMIT $2",
    )
    .bind(source.code())
    .bind(PENDING_READ as i64)
    .all(tx)
    .await?;
    let selected = select(&pending);
    if selected.is_empty() {
        return Ok((0, false));
    }
    let of_chunks = selected.iter().all(|delta| delta.chunk.is_some());
    let ids = selected.iter().map(|delta| delta.id);
    let deltas = summary_deltas::Entity::find().filter(summary_deltas::Column::Id.is_in(ids)).all(tx).await?;
    let mut more = selected.len() < pending.len() || pending.len() == PENDING_READ;
    let Decoded { mut sums, scattered, corrupt } = decode_and_sum(deltas, of_chunks).await?;
    let is_readable = |delta: &&PendingDelta| !corrupt.iter().any(|(id, _)| *id == delta.id);
    let readable: Vec<&PendingDelta> = selected.iter().filter(is_readable).collect();
    let mut events = readable.iter().map(|delta| delta.events.unsigned_abs()).sum::<u64>();
    if scattered.is_empty() {
        let campaigns = sums.take_campaigns();
        add_to_hours(tx, source, sums.hours, of_chunks).await?;
        add_to_campaigns(tx, source, campaigns).await?;
    } else {
        split_by_chunks(tx, source, scattered).await?;
        (events, more) = (0, true);
    }
    for (id, reason) in &corrupt {
        damaged::record_delta(tx, source, *id, reason).await?;
    }
    let folded = summary_deltas::Column::Id.is_in(readable.iter().map(|delta| delta.id));
    summary_deltas::Entity::delete_many().filter(folded).exec(tx).await?;
    Ok((events, more))
}

/// Writes deltas again, split by chunks of hours. In the new deltas each hour is once, which costs less to read, also
/// for every reporter.
async fn split_by_chunks(tx: &Transaction, source: Source, deltas: Vec<Delta>) -> Result<(), StoreError> {
    let mut chunks: BTreeMap<i32, (u64, Delta)> = BTreeMap::new();
    for (hour, inputs) in Delta::by_hour(&deltas) {
        let (events, delta) = chunks.entry(chunk_of(hour)).or_default();
        *events += delta.push_hour(hour, &inputs);
        tokio::task::yield_now().await;
    }
    drop(deltas);
    for (chunk, (events, delta)) in chunks {
        // SQL text: the entity lacks the tag, which the database chooses.
        let insert =
            "INSERT INTO summary_deltas (source, events, chunk, currency, body) VALUES ($1, $2, $3, $4, $5)";
        let Encoded { currency, body } = delta.encode()?;
        let insert = Sql::new(insert).bind(source.code()).bind(events.cast_signed());
        insert.bind(chunk).bind(currency).bind(body).execute(tx).await?;
    }
    Ok(())
}
