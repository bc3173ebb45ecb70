//! Adding sums to the summaries of their hours, and summing up the spans around them.

use std::collections::{BTreeMap, BTreeSet};

use super::super::builder::SummaryBuilder;
use super::super::damaged;
use super::super::span::{CHUNK_LEVEL, HIGHEST, Span};
use super::super::summary::Summary;
use super::super::table::{ROWS, bodies, body_sizes, current_row, put, stale_row};
use crate::event::Source;
use crate::store::entity::summaries;
use crate::store::error::StoreError;
use crate::store::transaction::Transaction;

/// Bytes of stored bodies that are in memory at a time, and of new summaries that are kept for the spans around them.
const BYTES_IN_MEMORY: usize = 32 << 20;

/// New summaries of a level, kept to sum up the spans around them while they are small enough.
struct NewSummaries {
    summaries: BTreeMap<Span, Summary>,
    /// Bytes of the summaries; `None` once they are not kept.
    bytes: Option<usize>,
}

impl NewSummaries {
    fn add(&mut self, span: Span, summary: Summary) {
        let bytes = self.bytes.map(|bytes| bytes + summary.size());
        self.bytes = bytes.filter(|bytes| *bytes <= BYTES_IN_MEMORY);
        match self.bytes {
            Some(_) => drop(self.summaries.insert(span, summary)),
            None => self.summaries.clear(),
        }
    }
}

/// Adds sums to the summaries of their hours. The spans around them become stale; if `of_chunks`, those within chunks
/// are summed up at once.
pub(super) async fn add_to_hours(
    tx: &Transaction,
    source: Source,
    hours: BTreeMap<i32, SummaryBuilder>,
    of_chunks: bool,
) -> Result<(), StoreError> {
    let ancestors: BTreeSet<Span> = hours.keys().flat_map(|hour| Span::hour(*hour).ancestors()).collect();
    let spans: Vec<Span> = hours.keys().map(|hour| Span::hour(*hour)).collect();
    let sizes = body_sizes(tx, source, &spans).await?;
    let mut new = NewSummaries { summaries: BTreeMap::new(), bytes: of_chunks.then_some(0) };
    let mut hours = hours.into_iter().peekable();
    while hours.peek().is_some() {
        // Few hours at a time: the summary of an hour with millions of users has many megabytes.
        let mut part = Vec::new();
        let mut bytes = 0;
        while let Some((at, builder)) = hours.next_if(|(at, _)| {
            bytes += sizes.get(at).copied().unwrap_or(0);
            part.is_empty() || (part.len() < ROWS && bytes <= BYTES_IN_MEMORY)
        }) {
            part.push((Span::hour(at), builder));
        }
        let rows = add_to_some_hours(tx, source, part, &mut new).await?;
        put(tx, rows).await?;
    }
    put_ancestors(tx, source, ancestors, new.summaries).await
}

/// Adds sums to the stored summaries of some hours; returns the rows to write.
async fn add_to_some_hours(
    tx: &Transaction,
    source: Source,
    hours: Vec<(Span, SummaryBuilder)>,
    new: &mut NewSummaries,
) -> Result<Vec<summaries::ActiveModel>, StoreError> {
    let spans: Vec<Span> = hours.iter().map(|(span, _)| *span).collect();
    let mut stored = bodies(tx, source, &spans).await?;
    let mut rows = Vec::new();
    for (span, mut builder) in hours {
        match stored.remove(&span) {
            // A stale hour is summed up from its rows, which include these deltas. Writing it again makes a
            // concurrent refresh of the hour fail and start anew.
            Some(None) => {
                rows.push(stale_row(source, span));
                continue;
            }
            Some(Some(body)) => match Summary::decode(&body) {
                Ok(summary) => builder.add(&summary),
                // A corrupt summary stays as it is. The rows, from which it is rebuilt, include these deltas.
                Err(StoreError::Corrupt { reason, .. }) => {
                    damaged::record_summary(tx, source, span, &reason).await?;
                    continue;
                }
                Err(error) => return Err(error),
            },
            None => {}
        }
        let summary = builder.finish();
        rows.push(current_row(source, span, &summary)?);
        new.add(span, summary);
        tokio::task::yield_now().await;
    }
    Ok(rows)
}

/// Writes the spans around changed hours. A span within a chunk whose children are all new is summed up at once; any
/// other becomes stale.
async fn put_ancestors(
    tx: &Transaction,
    source: Source,
    ancestors: BTreeSet<Span>,
    mut children: BTreeMap<Span, Summary>,
) -> Result<(), StoreError> {
    for level in 1..=HIGHEST {
        let spans: Vec<Span> = ancestors.iter().filter(|span| span.level == level).copied().collect();
        let mut stored_children = BTreeMap::new();
        if level <= CHUNK_LEVEL && !children.is_empty() {
            let others = spans.iter().flat_map(|span| span.children());
            let others: Vec<Span> = others.filter(|span| !children.contains_key(span)).collect();
            stored_children = body_sizes(tx, source, &others).await?;
        }
        let mut rows = Vec::new();
        let mut summed_up = BTreeMap::new();
        for span in spans {
            let has_stored_child = span.children().any(|child| stored_children.contains_key(&child.at));
            let new: Vec<&Summary> = span.children().filter_map(|child| children.get(&child)).collect();
            if level > CHUNK_LEVEL || has_stored_child || new.is_empty() {
                rows.push(stale_row(source, span));
                continue;
            }
            let mut builder = SummaryBuilder::default();
            new.into_iter().for_each(|child| builder.add(child));
            let summary = builder.finish();
            rows.push(current_row(source, span, &summary)?);
            summed_up.insert(span, summary);
            tokio::task::yield_now().await;
        }
        put(tx, rows).await?;
        children = summed_up;
    }
    Ok(())
}
