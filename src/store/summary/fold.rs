//! Adding what transactions left to the hours' summaries, and making wider ones of those.

use std::collections::{BTreeMap, BTreeSet};

use sea_orm::sea_query::{Expr, OnConflict};
use sea_orm::{
    ActiveValue::Set, ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
    Statement,
};

use super::body::{GrowingSummary, Summary};
use super::delta::{Adding, CampaignRevenue};
use super::read;
use super::span::{HIGHEST, Span};
use crate::event::Source;
use crate::store::connect::{Snapshot, Store};
use crate::store::entity::{campaigns, summaries, summary_deltas};
use crate::store::error::StoreError;
use crate::store::postgres::SUMMARY_LOCKS;
use crate::store::transaction::Transaction;

/// Transactions that are folded in one.
const FOLD: u64 = 16;
/// Rows of one statement.
const ROWS: usize = 500;
/// Microseconds that nothing beneath a span changed before a summary of it is made.
const QUIET: i64 = 15_000_000;
/// Wider summaries that are made in one transaction.
const REFRESH: u64 = 32;

fn now() -> i64 {
    chrono::Utc::now().timestamp_micros()
}

fn resting(source: Source, span: Span, summary: &Summary) -> Result<summaries::ActiveModel, StoreError> {
    Ok(summaries::ActiveModel {
        source: Set(source.code()),
        level: Set(span.level),
        at: Set(span.at),
        version: Set(rand::random()),
        stale: Set(false),
        touched_at: Set(now()),
        body: Set(Some(summary.encode()?)),
        campaigns: Set(Some(summary.campaigns.is_some())),
    })
}

fn stale(source: Source, span: Span) -> summaries::ActiveModel {
    summaries::ActiveModel {
        source: Set(source.code()),
        level: Set(span.level),
        at: Set(span.at),
        version: Set(0),
        stale: Set(true),
        touched_at: Set(now()),
        body: Set(None),
        campaigns: Set(None),
    }
}

async fn put(tx: &Transaction, rows: Vec<summaries::ActiveModel>) -> Result<(), StoreError> {
    use summaries::Column::{At, Body, Campaigns, Level, Source, Stale, TouchedAt, Version};
    let mut rows = rows.into_iter().peekable();
    while rows.peek().is_some() {
        summaries::Entity::insert_many(rows.by_ref().take(ROWS))
            .on_conflict(
                OnConflict::columns([Source, Level, At])
                    .update_columns([Version, Stale, TouchedAt, Body, Campaigns])
                    .to_owned(),
            )
            .exec_without_returning(tx)
            .await?;
    }
    Ok(())
}

impl Store {
    /// A transaction that alone changes a source's summaries; `None` while another one does.
    pub(in crate::store) async fn alone(&self, source: Source) -> Result<Option<Transaction>, StoreError> {
        let tx = self.snapshot(Snapshot::ToChange).await?;
        if self.is_postgres() {
            let sql = "SELECT pg_try_advisory_xact_lock($1, $2) AS alone";
            let values = [SUMMARY_LOCKS.into(), i32::from(source.code()).into()];
            let statement = Statement::from_sql_and_values(tx.get_database_backend(), sql, values);
            let row = tx.query_one_raw(statement).await?;
            if !row.map_or(Ok(false), |row| row.try_get("", "alone"))? {
                tx.rollback().await?;
                return Ok(None);
            }
        }
        Ok(Some(tx))
    }

    /// Adds what transactions left to the summaries of their hours. Gives how many events that were; 0
    /// also while another one is at it.
    ///
    /// # Errors
    ///
    /// If the store is away, or another one folded meanwhile.
    pub async fn fold_summaries(&self, source: Source) -> Result<u64, StoreError> {
        let mut folded = 0;
        loop {
            let Some(tx) = self.alone(source).await? else { return Ok(folded) };
            let (events, more) = fold_some(&tx, source).await?;
            tx.commit().await?;
            folded += events;
            if !more {
                return Ok(folded);
            }
        }
    }

    /// Makes summaries anew that are stale: hours from their rows, and wider ones once nothing beneath
    /// them changed for a while. Gives how many were made; 0 when there is nothing to do.
    ///
    /// # Errors
    ///
    /// If the store is away, or another one folded meanwhile.
    pub async fn refresh_summaries(&self, source: Source) -> Result<u64, StoreError> {
        let Some(tx) = self.alone(source).await? else { return Ok(0) };
        let sql = "SELECT s.level, s.at FROM summaries s
            WHERE s.source = $1 AND s.stale AND (s.level = 0 OR s.touched_at < $2) AND NOT EXISTS (
                SELECT 1 FROM summaries c WHERE c.source = s.source AND c.level = s.level - 1
                    AND c.at BETWEEN s.at * 4 AND s.at * 4 + 3 AND c.stale)
            ORDER BY s.level, s.at LIMIT $3";
        let values = [source.code().into(), (now() - QUIET).into(), REFRESH.cast_signed().into()];
        let statement = Statement::from_sql_and_values(tx.get_database_backend(), sql, values);
        let spans: Vec<Span> = tx
            .query_all_raw(statement)
            .await?
            .iter()
            .map(|row| Ok(Span { level: row.try_get("", "level")?, at: row.try_get("", "at")? }))
            .collect::<Result<_, sea_orm::DbErr>>()?;
        let mut made = 0;
        for &span in &spans {
            if span.level == 0 {
                // The rows have what was left to be folded of this hour, and folding skips it while it is stale.
                fold_all(&tx, source).await?;
                let summary = read::sum_rows(self, &tx, source, span).await?;
                put(&tx, vec![resting(source, span, &summary)?]).await?;
                made += 1;
                // One hour can have very many rows.
                break;
            }
            put(&tx, vec![resting(source, span, &sum_beneath(&tx, source, span).await?)?]).await?;
            made += 1;
        }
        tx.commit().await?;
        Ok(made)
    }
}

/// What the summaries beneath a span add up to.
async fn sum_beneath(tx: &Transaction, source: Source, span: Span) -> Result<Summary, StoreError> {
    let mut growing = GrowingSummary::default();
    for at in span.at * 4..span.at * 4 + 4 {
        let part = summaries::Entity::find_by_id((source.code(), span.level - 1, at)).one(tx).await?;
        if let Some(body) = part.and_then(|part| part.body) {
            growing.add(&Summary::decode(&body)?);
        }
    }
    Ok(growing.finish())
}

/// Folds some of what the snapshot holds. Gives how many events that were, and whether there is more.
async fn fold_some(tx: &Transaction, source: Source) -> Result<(u64, bool), StoreError> {
    let waiting = summary_deltas::Entity::find()
        .filter(summary_deltas::Column::Source.eq(source.code()))
        .order_by_asc(summary_deltas::Column::Id)
        .limit(FOLD)
        .all(tx)
        .await?;
    let Some(last) = waiting.last().map(|delta| delta.id) else { return Ok((0, false)) };
    let more = waiting.len() as u64 == FOLD;
    let events = waiting.iter().map(|delta| delta.events.unsigned_abs()).sum::<u64>();
    let mut added = sum_up(waiting).await?;
    let campaigns = added.campaigns();
    add_to_hours(tx, source, added.hours).await?;
    add_to_campaigns(tx, source, campaigns).await?;
    // The snapshot holds no others up to the last.
    summary_deltas::Entity::delete_many()
        .filter(summary_deltas::Column::Source.eq(source.code()))
        .filter(summary_deltas::Column::Id.lte(last))
        .exec(tx)
        .await?;
    Ok((events, more))
}

/// Folds all that the snapshot holds.
pub(in crate::store) async fn fold_all(tx: &Transaction, source: Source) -> Result<(), StoreError> {
    while fold_some(tx, source).await?.1 {}
    Ok(())
}

async fn add_to_hours(
    tx: &Transaction,
    source: Source,
    hours: BTreeMap<i32, GrowingSummary>,
) -> Result<(), StoreError> {
    let wider: BTreeSet<Span> = hours.keys().flat_map(|hour| Span::hour(*hour).ancestors()).collect();
    // One after another, and in one form at a time: an hour of millions of users is many megabytes.
    for (at, mut growing) in hours {
        let span = Span::hour(at);
        let known = summaries::Entity::find_by_id((source.code(), span.level, at)).one(tx).await?;
        let row = match known.map(|known| known.body) {
            // Told by the rows, which have what was added. Whoever sums those up meanwhile finds that the
            // hour was touched.
            Some(None) => stale(source, span),
            Some(Some(body)) => {
                let known = Summary::decode(&body)?;
                drop(body);
                growing.add(&known);
                drop(known);
                resting(source, span, &growing.finish())?
            }
            None => resting(source, span, &growing.finish())?,
        };
        put(tx, vec![row]).await?;
    }
    put(tx, wider.into_iter().map(|span| stale(source, span)).collect()).await
}

impl Store {
    /// Marks hours as told by their rows, and what is around them.
    pub(in crate::store) async fn mark_stale(
        &self,
        tx: &Transaction,
        source: Source,
        hours: &[i32],
    ) -> Result<(), StoreError> {
        let hours = hours.iter().map(|hour| Span::hour(*hour));
        let spans: BTreeSet<Span> = hours.flat_map(|hour| hour.ancestors().chain([hour])).collect();
        put(tx, spans.into_iter().map(|span| stale(source, span)).collect()).await
    }

    /// How many of a source's wider summaries are not what those beneath them say; they are made anew if that
    /// is asked for.
    ///
    /// # Errors
    ///
    /// If the store is away, or another one folds all the time.
    pub async fn compare_spans(&self, source: Source, mend: bool) -> Result<usize, StoreError> {
        let mut wrong = 0;
        for level in 1..=HIGHEST {
            wrong += self.unless_in_the_way(async || self.compare_level(source, level, mend).await).await?;
        }
        Ok(wrong)
    }

    async fn compare_level(&self, source: Source, level: i16, mend: bool) -> Result<usize, StoreError> {
        let tx = self.snapshot(if mend { Snapshot::ToChange } else { Snapshot::ToRead }).await?;
        let resting: Vec<i32> = summaries::Entity::find()
            .filter(summaries::Column::Source.eq(source.code()))
            .filter(summaries::Column::Level.eq(level))
            .filter(summaries::Column::Stale.eq(false))
            .select_only()
            .column(summaries::Column::At)
            .into_tuple()
            .all(&tx)
            .await?;
        let mut wrong = Vec::new();
        for at in resting {
            let span = Span { level, at };
            let kept = summaries::Entity::find_by_id((source.code(), level, at)).one(&tx).await?;
            let Some(body) = kept.and_then(|kept| kept.body) else { continue };
            let kept = Summary::decode(&body)?;
            if !kept.agrees(&sum_beneath(&tx, source, span).await?) {
                wrong.push(span);
            }
        }
        if mend {
            let around = wrong.iter().flat_map(|span| span.ancestors().chain([*span]));
            let spans: BTreeSet<Span> = around.collect();
            put(&tx, spans.into_iter().map(|span| stale(source, span)).collect()).await?;
            tx.commit().await?;
        } else {
            tx.rollback().await?;
        }
        Ok(wrong.len())
    }

    /// Makes summaries anew until there is nothing to do.
    ///
    /// # Errors
    ///
    /// If the store is away.
    pub async fn refresh_all_summaries(&self, source: Source) -> Result<(), StoreError> {
        while self.unless_in_the_way(async || self.refresh_summaries(source).await).await? > 0 {}
        Ok(())
    }
}

/// Adds up, one transaction after another, so that others get their turn. On one thread, which uses the
/// memory of the fold before again.
async fn sum_up(waiting: Vec<summary_deltas::Model>) -> Result<Adding, StoreError> {
    let mut adding = Adding::default();
    for delta in waiting {
        adding.add(&delta.body)?;
        tokio::task::yield_now().await;
    }
    Ok(adding)
}

/// What is counted up where a campaign is known, by column.
const ADDED: [(campaigns::Column, &str); 8] = {
    use campaigns::Column::{
        EndsOf, FirstMinute, FirstUnits, LastMinute, LastUnits, Micros, Transactions, Units,
    };
    [
        (Transactions, "campaigns.transactions + excluded.transactions"),
        (Units, "campaigns.units + excluded.units + (campaigns.micros + excluded.micros) / 1000000"),
        (Micros, "(campaigns.micros + excluded.micros) % 1000000"),
        (
            FirstMinute,
            "CASE WHEN excluded.first_minute < campaigns.first_minute THEN excluded.first_minute
                ELSE campaigns.first_minute END",
        ),
        (
            LastMinute,
            "CASE WHEN excluded.last_minute > campaigns.last_minute THEN excluded.last_minute
                ELSE campaigns.last_minute END",
        ),
        (
            FirstUnits,
            "CASE WHEN excluded.first_minute < campaigns.first_minute THEN excluded.first_units
                WHEN excluded.first_minute = campaigns.first_minute
                    THEN campaigns.first_units + excluded.first_units
                ELSE campaigns.first_units END",
        ),
        (
            LastUnits,
            "CASE WHEN excluded.last_minute > campaigns.last_minute THEN excluded.last_units
                WHEN excluded.last_minute = campaigns.last_minute
                    THEN campaigns.last_units + excluded.last_units
                ELSE campaigns.last_units END",
        ),
        (
            EndsOf,
            "CASE WHEN campaigns.ends_of = campaigns.transactions
                    AND excluded.ends_of = excluded.transactions
                THEN campaigns.ends_of + excluded.ends_of ELSE 0 END",
        ),
    ]
};

async fn add_to_campaigns(
    tx: &Transaction,
    source: Source,
    deltas: Vec<CampaignRevenue>,
) -> Result<(), StoreError> {
    let models = deltas.into_iter().map(|delta| campaigns::ActiveModel {
        campaign_id: Set(delta.campaign_id),
        source: Set(source.code()),
        transactions: Set(delta.transactions),
        units: Set(delta.units),
        micros: Set(delta.micros),
        first_minute: Set(delta.first_minute),
        last_minute: Set(delta.last_minute),
        first_units: Set(delta.first_units),
        last_units: Set(delta.last_units),
        ends_of: Set(delta.ends_of),
    });
    let mut models = models.peekable();
    while models.peek().is_some() {
        let mut added = OnConflict::columns([campaigns::Column::CampaignId, campaigns::Column::Source]);
        added.values(ADDED.map(|(column, sum)| (column, Expr::cust(sum))));
        campaigns::Entity::insert_many(models.by_ref().take(ROWS))
            .on_conflict(added)
            .exec_without_returning(tx)
            .await?;
    }
    Ok(())
}
