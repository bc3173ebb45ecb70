//! Refreshing stale summaries: hours from their rows, wider spans from their children.

use std::collections::BTreeSet;

use sea_orm::{ColumnTrait, EntityTrait, FromQueryResult, QueryFilter, QuerySelect};

use super::builder::SummaryBuilder;
use super::damaged;
use super::fold::fold_all;
use super::rows::sum_rows;
use super::span::{HIGHEST, Span};
use super::summary::Summary;
use super::table::{body, current_row, now, put, stale_row};
use crate::event::Source;
use crate::store::connect::Store;
use crate::store::entity::summaries;
use crate::store::error::StoreError;
use crate::store::sql::Sql;
use crate::store::transaction::{Snapshot, Transaction};

/// Microseconds for which nothing within a wider span has changed before it is summed up: one that changes at every
/// fold would be summed up for nothing.
const QUIET_MICROS: i64 = 15_000_000;
/// Wider spans that one transaction sums up.
const SPANS_REFRESHED: i64 = 32;

#[derive(FromQueryResult)]
struct StaleSpan {
    level: i16,
    at: i32,
}

impl Store {
    /// Sums up stale spans, in one transaction: one hour from its rows, or several wider spans in which nothing has
    /// changed for a while. Returns their number; 0 also if another process folds at the moment.
    ///
    /// # Errors
    ///
    /// [`StoreError::Conflict`] if another transaction changed the summaries meanwhile.
    pub async fn refresh_summaries(&self, source: Source) -> Result<u64, StoreError> {
        let Some(tx) = self.lock_summaries(source).await? else { return Ok(0) };
        // SQL text, for the join of each span with its children, which must be neither stale nor corrupt.
        let stale: Vec<StaleSpan> = Sql::new(
            "SELECT s.level, s.at FROM summaries s
             WHERE s.source = $1 AND s.stale AND (s.level = 0 OR s.touched_at < $2) AND NOT EXISTS (
                SELECT 1 FROM summaries c WHERE c.source = s.source AND c.level = s.level - 1
                    AND c.at BETWEEN s.at * 4 AND s.at * 4 + 3 AND (c.stale OR EXISTS (
                        SELECT 1 FROM damaged_summaries d WHERE d.source = c.source AND d.level = c.level
                            AND d.at = c.at AND d.version = c.version)))
             ORDER BY s.level, s.at LIMIT $3",
        )
        .bind(source.code())
        .bind(now() - QUIET_MICROS)
        .bind(SPANS_REFRESHED)
        .all(&tx)
        .await?;
        let mut refreshed = 0;
        for StaleSpan { level, at } in stale {
            let span = Span { level, at };
            refreshed += 1;
            if level == 0 {
                // The rows include the pending deltas of this hour. Folding them first skips the hour while it is
                // stale, so that they are not added to its new summary.
                fold_all(&tx, source).await?;
                let summary = sum_rows(self, &tx, source, span).await?;
                put(&tx, vec![current_row(source, span, &summary)?]).await?;
                // One hour a transaction: it can have very many rows.
                break;
            }
            match sum_children(&tx, source, span).await {
                Ok(sum) => put(&tx, vec![current_row(source, span, &sum)?]).await?,
                Err(StoreError::Corrupt { .. }) => damaged::record_children(&tx, source, span).await?,
                Err(error) => return Err(error),
            }
        }
        tx.commit().await?;
        Ok(refreshed)
    }

    /// Refreshes until nothing is left to do.
    ///
    /// # Errors
    ///
    /// If the store is unavailable.
    pub async fn refresh_all_summaries(&self, source: Source) -> Result<(), StoreError> {
        while self.retry_conflicts(async || self.refresh_summaries(source).await).await? > 0 {}
        Ok(())
    }

    /// Marks hours, and all spans around them, as stale.
    pub(in crate::store) async fn mark_stale(
        &self,
        tx: &Transaction,
        source: Source,
        hours: &[i32],
    ) -> Result<(), StoreError> {
        mark_spans_stale(tx, source, hours.iter().map(|hour| Span::hour(*hour))).await
    }

    /// Number of a source's wider summaries that differ from the sum of their children. If `mend`, they are marked as
    /// stale.
    ///
    /// # Errors
    ///
    /// If the store is unavailable, or another process folds all the time.
    pub async fn compare_spans(&self, source: Source, mend: bool) -> Result<usize, StoreError> {
        let mut differing = 0;
        for level in 1..=HIGHEST {
            differing += self.retry_conflicts(async || self.compare_level(source, level, mend).await).await?;
        }
        Ok(differing)
    }

    async fn compare_level(&self, source: Source, level: i16, mend: bool) -> Result<usize, StoreError> {
        let tx = self.snapshot(if mend { Snapshot::Write } else { Snapshot::Read }).await?;
        let current: Vec<i32> = summaries::Entity::find()
            .filter(summaries::Column::Source.eq(source.code()))
            .filter(summaries::Column::Level.eq(level))
            .filter(summaries::Column::Stale.eq(false))
            .select_only()
            .column(summaries::Column::At)
            .into_tuple()
            .all(&tx)
            .await?;
        let mut differing = Vec::new();
        for at in current {
            let span = Span { level, at };
            let Some(body) = body(&tx, source, span).await? else { continue };
            let agrees = match (Summary::decode(&body), sum_children(&tx, source, span).await) {
                (Ok(stored), Ok(sum)) => stored.agrees(&sum),
                (Err(StoreError::Corrupt { .. }), _) | (_, Err(StoreError::Corrupt { .. })) => false,
                (Err(error), _) | (_, Err(error)) => return Err(error),
            };
            if !agrees {
                differing.push(span);
            }
        }
        let count = differing.len();
        if mend {
            mark_spans_stale(&tx, source, differing.into_iter()).await?;
            tx.commit().await?;
        } else {
            tx.rollback().await?;
        }
        Ok(count)
    }
}

/// Sum of the summaries of a span's children. Stale ones are left out.
async fn sum_children(tx: &Transaction, source: Source, span: Span) -> Result<Summary, StoreError> {
    let mut builder = SummaryBuilder::default();
    for child in span.children() {
        if let Some(body) = body(tx, source, child).await? {
            builder.add(&Summary::decode(&body)?);
        }
    }
    Ok(builder.finish())
}

async fn mark_spans_stale(
    tx: &Transaction,
    source: Source,
    spans: impl Iterator<Item = Span>,
) -> Result<(), StoreError> {
    let spans: BTreeSet<Span> = spans.flat_map(|span| span.ancestors().chain([span])).collect();
    put(tx, spans.into_iter().map(|span| stale_row(source, span)).collect()).await
}
