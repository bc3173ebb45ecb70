//! Reading the summaries and deltas of a range of hours.
//!
//! 1. One statement finds the widest summaries that are not stale; below a stale one it finds its children, down to
//!    stale hours, whose rows are summed up.
//! 2. Bodies that are not cached are read and decoded.
//! 3. One statement lists the deltas that are not folded yet; those that are not cached are read and decoded.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use sea_orm::{FromQueryResult, Value};

use super::block_plan::{DeltaKey, plan_blocks};
use super::cache::{CachedDeltas, SummaryCache};
use super::encoding::Encoded;
use super::rows::sum_rows;
use super::span::{Span, cover};
use super::summary::Summary;
use super::unfolded::UnfoldedDeltas;
use super::view::{Sections, SummaryView};
use crate::event::Source;
use crate::store::connect::Store;
use crate::store::error::StoreError;
use crate::store::sql::Sql;
use crate::store::transaction::Transaction;

/// Bodies of summaries that one statement reads.
const SUMMARIES_READ: usize = 256;
/// Bodies of deltas that one statement reads.
const DELTAS_READ: usize = 64;

/// A summary without its body.
#[derive(Debug, FromQueryResult)]
struct FoundSummary {
    source: i16,
    level: i16,
    at: i32,
    version: i64,
    stale: bool,
    campaigns: Option<bool>,
}

#[derive(FromQueryResult)]
struct SummaryBody {
    source: i16,
    level: i16,
    at: i32,
    version: i64,
    currency: i16,
    body: Vec<u8>,
}

/// A delta without its body.
#[derive(FromQueryResult)]
struct FoundDelta {
    id: i64,
    tag: i64,
    source: i16,
}

#[derive(FromQueryResult)]
struct DeltaBody {
    id: i64,
    tag: i64,
    source: i16,
    currency: i16,
    body: Vec<u8>,
}

impl Store {
    /// Reads the summaries and deltas of the hours from `from` up to `to`, for each of some sources. The number of
    /// statements does not grow with the number of sources.
    ///
    /// # Errors
    ///
    /// [`StoreError::Corrupt`] if a body that is needed cannot be decoded.
    pub(in crate::store) async fn read_summaries(
        &self,
        tx: &Transaction,
        sources: &[Source],
        (from, to): (Option<i64>, Option<i64>),
        sections: Sections,
        cache: &SummaryCache,
    ) -> Result<Vec<SummaryView>, StoreError> {
        if sources.is_empty() {
            return Ok(Vec::new());
        }
        let views = sources.iter().map(|source| SummaryView::new(*source, from, to)).collect();
        let mut reader = Reader { store: self, tx, cache, views };
        let spans = cover(from, to);
        if !spans.is_empty() {
            let missing = reader.find_summaries(sources, &spans, sections).await?;
            reader.read_summaries(&missing).await?;
        }
        reader.find_deltas().await?;
        Ok(reader.views)
    }

    /// True if the stored summary of an hour, with the deltas that are not folded yet, equals the sum of its rows. A
    /// corrupt summary does not; a stale one does, since reports read the rows instead.
    pub(in crate::store) async fn hour_agrees(
        &self,
        tx: &Transaction,
        source: Source,
        hour: i32,
    ) -> Result<bool, StoreError> {
        // No cache: entries of other snapshots prove nothing.
        let cache = SummaryCache::new(0);
        let range = (Some(i64::from(hour)), Some(i64::from(hour) + 1));
        let views = match self.read_summaries(tx, &[source], range, Sections::All, &cache).await {
            Err(StoreError::Corrupt { item, reason, .. }) => {
                tracing::debug!(item, reason, "a summary is corrupt");
                return Ok(false);
            }
            read => read?,
        };
        for view in views.iter().filter(|view| !view.is_from_rows()) {
            if !sum_rows(self, tx, source, Span::hour(hour)).await?.agrees(&view.sum()) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

struct Reader<'r> {
    store: &'r Store,
    tx: &'r Transaction,
    cache: &'r SummaryCache,
    views: Vec<SummaryView>,
}

impl Reader<'_> {
    /// Finds the summaries that cover spans. Takes those that are cached, sums up the rows of stale hours, and returns
    /// the spans of all others.
    async fn find_summaries(
        &mut self,
        sources: &[Source],
        spans: &[Span],
        sections: Sections,
    ) -> Result<Vec<(Source, Span)>, StoreError> {
        // A recursive query, which sea-orm cannot build: a stale span is replaced by its four children.
        let mut sql = Sql::new(
            "WITH RECURSIVE wanted (source, level, at, version, stale, campaigns) AS (
                SELECT source, level, at, version, stale, campaigns FROM summaries
                WHERE (source, level, at) IN (VALUES ",
        );
        let wanted = sources.iter().flat_map(|source| spans.iter().map(|span| (*source, *span)));
        push_spans(&mut sql, wanted);
        sql.push(
            ")
                UNION ALL
                SELECT s.source, s.level, s.at, s.version, s.stale, s.campaigns FROM wanted w JOIN summaries s
                    ON s.source = w.source AND s.level = w.level - 1 AND s.at BETWEEN w.at * 4 AND w.at * 4 + 3
                WHERE w.stale AND w.level > 0
            ) SELECT source, level, at, version, stale, campaigns FROM wanted WHERE level = 0 OR NOT stale",
        );
        let found: Vec<FoundSummary> = sql.all(self.tx).await?;
        if sections == Sections::Campaigns {
            for summary in &found {
                self.view(summary.source)?.too_many_campaigns |= summary.campaigns == Some(false);
            }
        }
        let mut missing = Vec::new();
        for summary in found {
            let (store, tx, cache) = (self.store, self.tx, self.cache);
            let view = self.view(summary.source)?;
            if view.too_many_campaigns {
                continue;
            }
            let (source, span) = (view.source, Span { level: summary.level, at: summary.at });
            if summary.stale {
                view.hours_from_rows.push(span.at);
                view.summaries.push(Arc::new(sum_rows(store, tx, source, span).await?));
            } else if let Some(cached) = cache.summary(source, span, summary.version) {
                view.summaries.push(cached);
            } else {
                missing.push((source, span));
            }
        }
        Ok(missing)
    }

    /// Reads the summaries of spans into the cache.
    async fn read_summaries(&mut self, missing: &[(Source, Span)]) -> Result<(), StoreError> {
        for part in missing.chunks(SUMMARIES_READ) {
            // SQL text: a list of row values.
            let mut sql = Sql::new(
                "SELECT source, level, at, version, currency, body FROM summaries WHERE (source, level, at) IN (VALUES ",
            );
            push_spans(&mut sql, part.iter().copied());
            sql.push(")");
            let mut bodies = Vec::new();
            for SummaryBody { source, level, at, version, currency, body } in sql.all(self.tx).await? {
                let key = (self.view(source)?.source, Span { level, at }, version);
                bodies.push((key, Encoded { currency, body }));
            }
            let row = |(source, span, _): &(Source, Span, i64)| {
                format!("summaries, source {source}, level {}, at {}", span.level, span.at)
            };
            for ((source, span, version), summary) in decode_all(bodies, Summary::decode, row).await? {
                let summary = Arc::new(summary);
                self.cache.insert_summary(source, span, version, summary.clone());
                self.view(source.code())?.summaries.push(summary);
            }
        }
        Ok(())
    }

    /// Lists the deltas that are not folded yet, takes those that are cached, and reads the others.
    async fn find_deltas(&mut self) -> Result<(), StoreError> {
        let mut sql = Sql::new("SELECT id, tag, source FROM summary_deltas WHERE source IN (");
        sql.push_list(self.views.iter().map(|view| view.source.code())).push(") ORDER BY id");
        let mut by_source: HashMap<i16, Vec<DeltaKey>> = HashMap::new();
        let mut newest = 0;
        for FoundDelta { id, tag, source } in sql.all(self.tx).await? {
            newest = id;
            by_source.entry(source).or_default().push((id, tag));
        }
        let mut missing: Vec<DeltaKey> = Vec::new();
        let mut missing_blocks = Vec::new();
        for view in &mut self.views {
            let mut alone = by_source.remove(&view.source.code()).unwrap_or_default();
            // Blocks are of use in a cache alone.
            let plans = if self.cache.is_disabled() { Vec::new() } else { plan_blocks(&alone, newest) };
            let in_blocks: HashSet<DeltaKey> = plans.iter().flat_map(|plan| &plan.deltas).copied().collect();
            alone.retain(|delta| !in_blocks.contains(delta));
            let mut cached = CachedDeltas::default();
            self.cache.find_deltas(&alone, &mut cached);
            self.cache.find_blocks(view.source, &plans, &mut cached);
            view.unfolded.extend(cached.found);
            missing.extend(cached.missing);
            missing_blocks.extend(cached.missing_blocks.into_iter().map(|plan| (view.source, plan)));
        }
        self.read_deltas(&missing).await?;
        self.cache.build_blocks(missing_blocks);
        Ok(())
    }

    /// Reads deltas into the cache.
    async fn read_deltas(&mut self, missing: &[DeltaKey]) -> Result<(), StoreError> {
        for part in missing.chunks(DELTAS_READ) {
            let mut sql =
                Sql::new("SELECT id, tag, source, currency, body FROM summary_deltas WHERE id IN (");
            sql.push_list(part.iter().map(|(id, _)| *id)).push(")");
            let mut bodies = Vec::new();
            for DeltaBody { id, tag, source, currency, body } in sql.all(self.tx).await? {
                bodies.push(((self.view(source)?.source, (id, tag)), Encoded { currency, body }));
            }
            let row =
                |(source, (id, _)): &(Source, DeltaKey)| format!("summary_deltas, source {source}, id {id}");
            for ((source, key), delta) in decode_all(bodies, UnfoldedDeltas::decode, row).await? {
                let delta = Arc::new(delta);
                self.cache.insert_delta(key, delta.clone());
                self.view(source.code())?.unfolded.push(delta);
            }
        }
        Ok(())
    }

    /// The view of a source, by its code.
    fn view(&mut self, code: i16) -> Result<&mut SummaryView, StoreError> {
        let view = self.views.iter_mut().find(|view| view.source.code() == code);
        view.ok_or_else(|| StoreError::internal(format!("a summary of source {code} was not asked for")))
    }
}

/// Appends spans as row values, comma-separated.
fn push_spans(sql: &mut Sql, spans: impl Iterator<Item = (Source, Span)>) {
    for (number, (source, span)) in spans.enumerate() {
        sql.push(if number == 0 { "(" } else { ", (" });
        sql.push_list([Value::from(source.code()), span.level.into(), span.at.into()]).push(")");
    }
}

/// Decodes bodies on a thread for blocking work. An error names the row.
async fn decode_all<K: Send + 'static, T: Send + 'static>(
    bodies: Vec<(K, Encoded)>,
    decode: fn(&Encoded) -> Result<T, StoreError>,
    row: fn(&K) -> String,
) -> Result<Vec<(K, T)>, StoreError> {
    tokio::task::spawn_blocking(move || {
        let decode = |(key, body): (K, Encoded)| match decode(&body) {
            Ok(decoded) => Ok((key, decoded)),
            Err(error) => Err(error.in_row(row(&key))),
        };
        bodies.into_iter().map(decode).collect()
    })
    .await
    .map_err(|error| StoreError::internal("decoding summaries failed").because(error))?
}
