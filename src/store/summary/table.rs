//! Table `summaries`: reading and writing of rows.

use std::collections::BTreeMap;

use sea_orm::sea_query::{Expr, OnConflict};
use sea_orm::{ActiveValue::Set, ColumnTrait, EntityTrait, QueryFilter, QuerySelect, Select};

use super::encoding::Encoded;
use super::span::Span;
use super::summary::Summary;
use crate::event::Source;
use crate::store::entity::summaries;
use crate::store::error::StoreError;
use crate::store::transaction::Transaction;

/// Rows of one statement.
pub(super) const ROWS: usize = 500;

/// The present, in microseconds since 1970.
pub(super) fn now() -> i64 {
    chrono::Utc::now().timestamp_micros()
}

/// A row with a body.
pub(super) fn current_row(
    source: Source,
    span: Span,
    summary: &Summary,
) -> Result<summaries::ActiveModel, StoreError> {
    let Encoded { currency, body } = summary.encode()?;
    Ok(summaries::ActiveModel {
        source: Set(source.code()),
        level: Set(span.level),
        at: Set(span.at),
        version: Set(rand::random()),
        stale: Set(false),
        touched_at: Set(now()),
        body: Set(Some(body)),
        campaigns: Set(Some(summary.campaigns.is_some())),
        currency: Set(currency),
    })
}

/// A row without a body: readers use the children of the span, or the rows of the hour.
pub(super) fn stale_row(source: Source, span: Span) -> summaries::ActiveModel {
    summaries::ActiveModel {
        source: Set(source.code()),
        level: Set(span.level),
        at: Set(span.at),
        version: Set(0),
        stale: Set(true),
        touched_at: Set(now()),
        body: Set(None),
        campaigns: Set(None),
        currency: Set(0),
    }
}

/// Inserts rows, or replaces those of the same spans.
pub(super) async fn put(tx: &Transaction, rows: Vec<summaries::ActiveModel>) -> Result<(), StoreError> {
    use summaries::Column::{At, Body, Campaigns, Currency, Level, Source, Stale, TouchedAt, Version};
    let mut rows = rows.into_iter().peekable();
    while rows.peek().is_some() {
        summaries::Entity::insert_many(rows.by_ref().take(ROWS))
            .on_conflict(
                OnConflict::columns([Source, Level, At])
                    .update_columns([Version, Stale, TouchedAt, Body, Campaigns, Currency])
                    .to_owned(),
            )
            .exec_without_returning(tx)
            .await?;
    }
    Ok(())
}

fn of_one_level(source: Source, spans: &[Span]) -> Select<summaries::Entity> {
    summaries::Entity::find()
        .filter(summaries::Column::Source.eq(source.code()))
        .filter(summaries::Column::Level.eq(spans.first().map_or(0, |span| span.level)))
        .filter(summaries::Column::At.is_in(spans.iter().map(|span| span.at)))
}

/// Bytes of the bodies of spans, 0 for a stale one, by `at`. Spans of one level; those without a row are absent.
pub(super) async fn body_sizes(
    tx: &Transaction,
    source: Source,
    spans: &[Span],
) -> Result<BTreeMap<i32, usize>, StoreError> {
    let mut sizes = BTreeMap::new();
    for part in spans.chunks(ROWS) {
        let found: Vec<(i32, i32)> = of_one_level(source, part)
            .select_only()
            .column(summaries::Column::At)
            .expr(Expr::cust("CAST(coalesce(length(body), 0) AS integer)"))
            .into_tuple()
            .all(tx)
            .await?;
        sizes.extend(found.into_iter().map(|(at, size)| (at, usize::try_from(size).unwrap_or(0))));
    }
    Ok(sizes)
}

/// Bodies of spans, `None` for a stale one. Spans of one level; those without a row are absent.
pub(super) async fn bodies(
    tx: &Transaction,
    source: Source,
    spans: &[Span],
) -> Result<BTreeMap<Span, Option<Encoded>>, StoreError> {
    let level = spans.first().map_or(0, |span| span.level);
    let found = of_one_level(source, spans).all(tx).await?;
    Ok(found.into_iter().map(|row| (Span { level, at: row.at }, encoded(row))).collect())
}

/// The body of one span; `None` if it is stale or has no row.
pub(super) async fn body(
    tx: &Transaction,
    source: Source,
    span: Span,
) -> Result<Option<Encoded>, StoreError> {
    let found = summaries::Entity::find_by_id((source.code(), span.level, span.at)).one(tx).await?;
    Ok(found.and_then(encoded))
}

fn encoded(row: summaries::Model) -> Option<Encoded> {
    row.body.map(|body| Encoded { currency: row.currency, body })
}
