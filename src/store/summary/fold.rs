//! Adding what transactions left to the hours' summaries, and making wider ones of those.

use std::collections::{BTreeMap, BTreeSet};

use sea_orm::sea_query::{Expr, OnConflict};
use sea_orm::{
    ActiveValue::Set, ColumnTrait, ConnectionTrait, EntityTrait, FromQueryResult, QueryFilter, QuerySelect,
    Select, Statement,
};

use super::body::{GrowingSummary, Summary};
use super::damaged;
use super::delta::{Adding, CampaignRevenue, Delta};
use super::read;
use super::span::{CHUNK, HIGHEST, Span, chunk_of};
use crate::event::Source;
use crate::store::connect::{Snapshot, Store};
use crate::store::entity::{campaigns, summaries, summary_deltas};
use crate::store::error::StoreError;
use crate::store::locks::SUMMARY_LOCKS;
use crate::store::transaction::Transaction;

/// Deltas that are looked at, and those that are folded in one transaction as they were left.
const LOOK: i64 = 512;
const FOLD: usize = 32;
/// Of those, parts of one hour that are put together without a pause.
const PARTS: usize = 16;
/// Events that are folded in one transaction, but for those of a single delta.
const FOLD_EVENTS: u64 = 150_000;
/// Hours that deltas may be folded into as they are; what was added to more is split by chunks before.
const DIRECT_HOURS: usize = 128;
/// Chunks that are folded in one transaction while they have few events.
const CHUNKS: usize = 8;
const FEW_EVENTS: u64 = 20_000;
/// Bytes of summaries that are read, or kept to make wider ones, at a time.
const BYTES: usize = 32 << 20;
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
        let tx = self.snapshot(Snapshot::Write).await?;
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
                    AND c.at BETWEEN s.at * 4 AND s.at * 4 + 3 AND (c.stale OR EXISTS (
                        SELECT 1 FROM damaged_summaries d WHERE d.source = c.source AND d.level = c.level
                            AND d.at = c.at AND d.version = c.version)))
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
            match sum_beneath(&tx, source, span).await {
                Ok(sum) => put(&tx, vec![resting(source, span, &sum)?]).await?,
                Err(StoreError::Corrupt { .. }) => damaged::name_beneath(&tx, source, span).await?,
                Err(error) => return Err(error),
            }
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

/// A delta that waits, without its body.
#[derive(Debug, Clone, Copy, FromQueryResult)]
struct Waiting {
    id: i64,
    events: i64,
    chunk: Option<i32>,
}

/// Of deltas that wait, in their order, those that go into one transaction: of chunks, whole ones as far as that
/// is possible, so that the spans around their hours are made once.
fn together(waiting: &[Waiting]) -> &[Waiting] {
    let (mut events, mut chunks) = (0, 0);
    let mut taken: &[Waiting] = &[];
    for same in waiting.chunk_by(|left, right| left.chunk == right.chunk) {
        let of_chunk = same.iter().map(|delta| delta.events.unsigned_abs()).sum::<u64>();
        let ordered = same.iter().all(|delta| delta.chunk.is_some());
        if taken.is_empty() && !(ordered && of_chunk <= FOLD_EVENTS) {
            let fits = |delta: &&Waiting| {
                events += delta.events.unsigned_abs();
                events <= FOLD_EVENTS
            };
            let count = same.iter().take(FOLD).take_while(fits).count();
            return &waiting[..count.max(1)];
        }
        events += of_chunk;
        chunks += 1;
        if !taken.is_empty() && (events > FEW_EVENTS || chunks > CHUNKS) {
            break;
        }
        taken = &waiting[..taken.len() + same.len()];
    }
    taken
}

/// Folds some of what the snapshot holds. Gives how many events that were, and whether there is more.
async fn fold_some(tx: &Transaction, source: Source) -> Result<(u64, bool), StoreError> {
    let sql = "SELECT id, events, chunk FROM summary_deltas w WHERE source = $1 AND NOT EXISTS (
            SELECT 1 FROM damaged_summaries d WHERE d.source = w.source AND d.level = -1 AND d.at = w.id
                AND d.version = w.tag)
        ORDER BY chunk NULLS FIRST, id LIMIT $2";
    let backend = tx.get_database_backend();
    let values = [source.code().into(), LOOK.into()];
    let rows = tx.query_all_raw(Statement::from_sql_and_values(backend, sql, values)).await?;
    let waiting: Vec<Waiting> =
        rows.iter().map(|row| Waiting::from_query_result(row, "")).collect::<Result<_, _>>()?;
    let taken = together(&waiting);
    if taken.is_empty() {
        return Ok((0, false));
    }
    let in_order = taken.iter().all(|delta| delta.chunk.is_some());
    let taken_ids = || summary_deltas::Column::Id.is_in(taken.iter().map(|delta| delta.id));
    let deltas = summary_deltas::Entity::find().filter(taken_ids()).all(tx).await?;
    let mut more = taken.len() < waiting.len() || waiting.len() as i64 == LOOK;
    let (mut added, scattered, damaged) = sum_up(deltas, !in_order).await?;
    let read = |delta: &&Waiting| !damaged.iter().any(|(id, _)| *id == delta.id);
    let mut events = taken.iter().filter(read).map(|delta| delta.events.unsigned_abs()).sum::<u64>();
    if scattered.is_empty() {
        let campaigns = added.campaigns();
        add_to_hours(tx, source, added.hours, in_order).await?;
        add_to_campaigns(tx, source, campaigns).await?;
    } else {
        put_in_order(tx, source, scattered).await?;
        (events, more) = (0, true);
    }
    for (id, reason) in &damaged {
        damaged::name_delta(tx, source, *id, reason).await?;
    }
    let folded = summary_deltas::Column::Id.is_in(taken.iter().filter(read).map(|delta| delta.id));
    summary_deltas::Entity::delete_many().filter(folded).exec(tx).await?;
    Ok((events, more))
}

/// Splits deltas by chunks of hours, so that each hour is written once for many of them. In each chunk each hour is
/// once: reading that costs less, here and in every reporter.
async fn put_in_order(tx: &Transaction, source: Source, deltas: Vec<Delta>) -> Result<(), StoreError> {
    let sql = "INSERT INTO summary_deltas (source, events, chunk, body) VALUES ($1, $2, $3, $4)";
    let mut chunks: BTreeMap<i32, (u64, Delta)> = BTreeMap::new();
    for (hour, parts) in Delta::by_hour(&deltas) {
        let (events, delta) = chunks.entry(chunk_of(hour)).or_default();
        *events += delta.push(hour, &parts);
        tokio::task::yield_now().await;
    }
    drop(deltas);
    for (chunk, (events, delta)) in chunks {
        let values =
            [source.code().into(), events.cast_signed().into(), chunk.into(), delta.encode()?.into()];
        tx.execute_raw(Statement::from_sql_and_values(tx.get_database_backend(), sql, values)).await?;
    }
    Ok(())
}

/// Folds all that the snapshot holds.
pub(in crate::store) async fn fold_all(tx: &Transaction, source: Source) -> Result<(), StoreError> {
    while fold_some(tx, source).await?.1 {}
    Ok(())
}

/// Adds to hours what transactions left. Where most of a chunk's hours change (`wider`), the spans around them are
/// made at once, and else later.
async fn add_to_hours(
    tx: &Transaction,
    source: Source,
    hours: BTreeMap<i32, GrowingSummary>,
    wider: bool,
) -> Result<(), StoreError> {
    let around: BTreeSet<Span> = hours.keys().flat_map(|hour| Span::hour(*hour).ancestors()).collect();
    let sizes = sizes(tx, source, hours.keys().map(|hour| Span::hour(*hour)).collect()).await?;
    let mut fresh: BTreeMap<Span, Summary> = BTreeMap::new();
    let mut kept = wider.then_some(0);
    let mut hours = hours.into_iter().peekable();
    while hours.peek().is_some() {
        // Few at a time, and in one form at a time: an hour of millions of users is many megabytes.
        let mut part = Vec::new();
        let mut bytes = 0;
        while let Some((at, growing)) = hours.next_if(|(at, _)| {
            bytes += sizes.get(at).copied().unwrap_or(0);
            part.is_empty() || (part.len() < ROWS && bytes <= BYTES)
        }) {
            part.push((Span::hour(at), growing));
        }
        let spans = part.iter().map(|(span, _)| *span).collect();
        let mut known = bodies(tx, source, spans).await?;
        let mut rows = Vec::new();
        for (span, mut growing) in part {
            match known.remove(&span) {
                // Told by the rows, which have what was added. Whoever sums those up meanwhile finds that the
                // hour was touched.
                Some(None) => {
                    rows.push(stale(source, span));
                    continue;
                }
                Some(Some(body)) => match Summary::decode(&body) {
                    Ok(summary) => growing.add(&summary),
                    // It stays as it is, and is damaged. The rows have what was added.
                    Err(StoreError::Corrupt { reason, .. }) => {
                        damaged::name_summary(tx, source, span, &reason).await?;
                        continue;
                    }
                    Err(error) => return Err(error),
                },
                None => {}
            }
            let summary = growing.finish();
            rows.push(resting(source, span, &summary)?);
            kept = kept.map(|kept| kept + summary.size()).filter(|kept| *kept <= BYTES);
            match kept {
                Some(_) => drop(fresh.insert(span, summary)),
                None => fresh.clear(),
            }
            tokio::task::yield_now().await;
        }
        put(tx, rows).await?;
    }
    put_around(tx, source, around, fresh).await
}

/// Makes the spans around hours: from those beneath them, if these are all at hand, and else later.
async fn put_around(
    tx: &Transaction,
    source: Source,
    around: BTreeSet<Span>,
    mut fresh: BTreeMap<Span, Summary>,
) -> Result<(), StoreError> {
    for level in 1..=HIGHEST {
        let spans: Vec<Span> = around.iter().filter(|span| span.level == level).copied().collect();
        let mut others = BTreeMap::new();
        if level <= CHUNK && !fresh.is_empty() {
            let beneath = spans.iter().flat_map(|span| span.beneath());
            others = sizes(tx, source, beneath.filter(|span| !fresh.contains_key(span)).collect()).await?;
        }
        let mut rows = Vec::new();
        let mut made = BTreeMap::new();
        for span in spans {
            let known = span.beneath().any(|span| others.contains_key(&span.at));
            let parts: Vec<&Summary> = span.beneath().filter_map(|span| fresh.get(&span)).collect();
            if level > CHUNK || known || parts.is_empty() {
                rows.push(stale(source, span));
                continue;
            }
            let mut growing = GrowingSummary::default();
            parts.into_iter().for_each(|part| growing.add(part));
            let summary = growing.finish();
            rows.push(resting(source, span, &summary)?);
            made.insert(span, summary);
            tokio::task::yield_now().await;
        }
        put(tx, rows).await?;
        fresh = made;
    }
    Ok(())
}

fn of_level(source: Source, spans: &[Span]) -> Select<summaries::Entity> {
    summaries::Entity::find()
        .filter(summaries::Column::Source.eq(source.code()))
        .filter(summaries::Column::Level.eq(spans.first().map_or(0, |span| span.level)))
        .filter(summaries::Column::At.is_in(spans.iter().map(|span| span.at)))
}

/// Bytes of those of some spans of one level that there are, by their place.
async fn sizes(
    tx: &Transaction,
    source: Source,
    spans: Vec<Span>,
) -> Result<BTreeMap<i32, usize>, StoreError> {
    let mut sizes = BTreeMap::new();
    for part in spans.chunks(ROWS) {
        let found: Vec<(i32, i32)> = of_level(source, part)
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

/// The bodies of those of some spans of one level that there are; none where they are stale.
async fn bodies(
    tx: &Transaction,
    source: Source,
    spans: Vec<Span>,
) -> Result<BTreeMap<Span, Option<Vec<u8>>>, StoreError> {
    let level = spans.first().map_or(0, |span| span.level);
    let found = of_level(source, &spans).all(tx).await?;
    Ok(found.into_iter().map(|found| (Span { level, at: found.at }, found.body)).collect())
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
            wrong += self.retry_conflicts(async || self.compare_level(source, level, mend).await).await?;
        }
        Ok(wrong)
    }

    async fn compare_level(&self, source: Source, level: i16, mend: bool) -> Result<usize, StoreError> {
        let tx = self.snapshot(if mend { Snapshot::Write } else { Snapshot::Read }).await?;
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
            let agrees = match (Summary::decode(&body), sum_beneath(&tx, source, span).await) {
                (Ok(kept), Ok(sum)) => kept.agrees(&sum),
                (Err(StoreError::Corrupt { .. }), _) | (_, Err(StoreError::Corrupt { .. })) => false,
                (Err(error), _) | (_, Err(error)) => return Err(error),
            };
            if !agrees {
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
        while self.retry_conflicts(async || self.refresh_summaries(source).await).await? > 0 {}
        Ok(())
    }
}

/// Adds up, one transaction after another, so that others get their turn. On one thread, which uses the
/// memory of the fold before again. Gives them as they are instead, if they are of many hours and that is asked for;
/// and the ids of those that are damaged, with the reason.
async fn sum_up(
    waiting: Vec<summary_deltas::Model>,
    unless_scattered: bool,
) -> Result<(Adding, Vec<Delta>, Vec<(i64, String)>), StoreError> {
    let mut adding = Adding::default();
    let (mut deltas, mut damaged) = (Vec::new(), Vec::new());
    for waits in waiting {
        let read = match Delta::decode(&waits.body) {
            Ok(Some(delta)) => {
                deltas.push(delta);
                Ok(())
            }
            Ok(None) => adding.add(&waits.body),
            Err(error) => Err(error),
        };
        match read {
            Err(StoreError::Corrupt { reason, .. }) => damaged.push((waits.id, reason)),
            read => read?,
        }
        tokio::task::yield_now().await;
    }
    let hours: BTreeSet<i32> = deltas.iter().flat_map(Delta::hours).collect();
    if unless_scattered && hours.len() > DIRECT_HOURS && adding.hours.is_empty() {
        return Ok((adding, deltas, damaged));
    }
    for (hour, parts) in Delta::by_hour(&deltas) {
        // Some at a time, for the present hour may be all that there is.
        for parts in parts.chunks(PARTS) {
            adding.add_hour(hour, parts);
            tokio::task::yield_now().await;
        }
    }
    Ok((adding, Vec::new(), damaged))
}

/// What is counted up where a campaign is known, by column.
const ADDED: [(campaigns::Column, &str); 9] = {
    use campaigns::Column::{
        EndsOf, FirstMinute, FirstUnits, High, LastMinute, LastUnits, Micros, Transactions, Units,
    };
    [
        (Transactions, "campaigns.transactions + excluded.transactions"),
        (
            Units,
            "(campaigns.units + excluded.units + (campaigns.micros + excluded.micros) / 1000000)
                % 1000000000000000000",
        ),
        (
            High,
            "campaigns.high + excluded.high + (campaigns.units + excluded.units
                + (campaigns.micros + excluded.micros) / 1000000) / 1000000000000000000",
        ),
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
                    THEN CASE WHEN campaigns.first_units + excluded.first_units < 1000000000000000000
                        THEN campaigns.first_units + excluded.first_units ELSE 1000000000000000000 END
                ELSE campaigns.first_units END",
        ),
        (
            LastUnits,
            "CASE WHEN excluded.last_minute > campaigns.last_minute THEN excluded.last_units
                WHEN excluded.last_minute = campaigns.last_minute
                    THEN CASE WHEN campaigns.last_units + excluded.last_units < 1000000000000000000
                        THEN campaigns.last_units + excluded.last_units ELSE 1000000000000000000 END
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
        high: Set(delta.high),
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
