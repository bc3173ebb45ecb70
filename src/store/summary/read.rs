//! Reading what a range of hours adds up to.

use std::collections::HashMap;
use std::sync::Arc;

use compact_str::CompactString;
use futures::TryStreamExt;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use sea_orm::{ConnectionTrait, DatabaseTransaction, QueryResult, Statement, StreamTrait, Value};

use super::audience::{Audience, Cities};
use super::body::{GrowingSummary, Summary};
use super::delta::{Added, CampaignRevenue, merge_campaigns};
use super::seen::{Events, Seen};
use super::span::{HOUR, Span, cover};
use super::users::mark;
use crate::event::Source;
use crate::store::connect::Store;
use crate::store::dialect::places;
use crate::store::error::StoreError;

/// Rows that are summed up at a time.
const ROWS: usize = 5_000;

/// What a reader keeps decoded, and the bytes that it takes, about: the cache asks for them again and again.
#[derive(Clone)]
enum Kept {
    Summary(Arc<Summary>, u64),
    Delta(Arc<Added>, u64),
}

impl Kept {
    fn summary(summary: Arc<Summary>) -> Self {
        let bytes = summary.size() as u64;
        Self::Summary(summary, bytes)
    }

    fn delta(delta: Arc<Added>) -> Self {
        let hours = delta.hours.iter().map(|(_, summary)| summary.size()).sum::<usize>();
        let bytes = hours + delta.campaigns.len() * 96;
        Self::Delta(delta, bytes as u64)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    Span(Source, Span, i64),
    Delta(i64),
}

#[derive(Clone)]
struct Bytes;

impl Weighter<Key, Kept> for Bytes {
    fn weight(&self, _: &Key, kept: &Kept) -> u64 {
        let (Kept::Summary(_, bytes) | Kept::Delta(_, bytes)) = kept;
        bytes + 64
    }
}

/// Summaries that were read, decoded; a summary that is another one by now has another version.
pub struct SummaryCache(Cache<Key, Kept, Bytes>);

impl std::fmt::Debug for SummaryCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SummaryCache({} of {} bytes)", self.0.weight(), self.0.capacity())
    }
}

impl SummaryCache {
    /// A cache of so many bytes.
    pub fn new(bytes: u64) -> Self {
        Self(Cache::with_weighter(1_000, bytes, Bytes))
    }
}

/// What is asked of a range of hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// All that is told.
    Everything,
    /// Campaigns: nothing, if some summary tells none.
    Campaigns,
}

/// What tells a range of hours of a source, in one snapshot.
pub struct Reading {
    from: i64,
    to: i64,
    /// Summaries of spans that cover the range together; none if campaigns are asked for and were too many.
    summaries: Vec<Arc<Summary>>,
    too_many_campaigns: bool,
    /// What was added to hours since, whatever the range.
    deltas: Vec<Arc<Added>>,
    /// Hours that the rows told.
    told_by_rows: Vec<i32>,
}

/// `($2, $3), ($4, $5), …` for so many pairs, from a parameter's number on.
fn pairs(first: usize, count: usize) -> String {
    let pair = |pair: usize| format!("(${}, ${})", first + 2 * pair, first + 2 * pair + 1);
    (0..count).map(pair).collect::<Vec<_>>().join(", ")
}

impl Store {
    /// What an hour's rows add up to.
    pub(in crate::store) async fn sum_hour(
        &self,
        tx: &DatabaseTransaction,
        source: Source,
        hour: i32,
    ) -> Result<Summary, StoreError> {
        sum_rows(self, tx, source, Span::hour(hour)).await
    }

    /// Reads what tells the hours from `from` up to `to`.
    pub(in crate::store) async fn read_summaries(
        &self,
        tx: &DatabaseTransaction,
        source: Source,
        (from, to): (Option<i64>, Option<i64>),
        asked: Asked,
        cache: &SummaryCache,
    ) -> Result<Reading, StoreError> {
        let backend = ConnectionTrait::get_database_backend(tx);
        let code = || Value::from(source.code());
        let mut reading = Reading {
            from: from.unwrap_or(0),
            to: to.unwrap_or(i64::MAX),
            summaries: Vec::new(),
            too_many_campaigns: false,
            deltas: Vec::new(),
            told_by_rows: Vec::new(),
        };
        let spans = cover(from, to);
        let mut lacking: Vec<Span> = Vec::new();
        if !spans.is_empty() {
            // A stale span is told by the four beneath it.
            let sql = format!(
                "WITH RECURSIVE wanted (level, at, version, stale, campaigns) AS (
                    SELECT level, at, version, stale, campaigns FROM summaries
                    WHERE source = $1 AND (level, at) IN (VALUES {})
                    UNION ALL
                    SELECT s.level, s.at, s.version, s.stale, s.campaigns FROM wanted w JOIN summaries s
                        ON s.source = $1 AND s.level = w.level - 1 AND s.at BETWEEN w.at * 4 AND w.at * 4 + 3
                    WHERE w.stale AND w.level > 0
                ) SELECT level, at, version, stale, campaigns FROM wanted WHERE level = 0 OR NOT stale",
                pairs(2, spans.len())
            );
            let mut values = vec![code()];
            values.extend(spans.iter().flat_map(|span| [span.level.into(), span.at.into()]));
            let rows = tx.query_all_raw(Statement::from_sql_and_values(backend, sql, values)).await?;
            if asked == Asked::Campaigns {
                let none = |row: &QueryResult| {
                    row.try_get::<Option<bool>>("", "campaigns").map(|told| told == Some(false))
                };
                for row in &rows {
                    reading.too_many_campaigns |= none(row)?;
                }
            }
            for row in rows.iter().filter(|_| !reading.too_many_campaigns) {
                let span = Span { level: row.try_get("", "level")?, at: row.try_get("", "at")? };
                let version: i64 = row.try_get("", "version")?;
                if row.try_get("", "stale")? {
                    reading.told_by_rows.push(span.at);
                    reading.summaries.push(Arc::new(sum_rows(self, tx, source, span).await?));
                } else if let Some(Kept::Summary(kept, _)) = cache.0.get(&Key::Span(source, span, version)) {
                    reading.summaries.push(kept);
                } else {
                    lacking.push(span);
                }
            }
        }
        for part in lacking.chunks(256) {
            let sql = format!(
                "SELECT level, at, version, body FROM summaries WHERE source = $1 AND (level, at) IN (VALUES {})",
                pairs(2, part.len())
            );
            let mut values = vec![code()];
            values.extend(part.iter().flat_map(|span| [span.level.into(), span.at.into()]));
            let rows = tx.query_all_raw(Statement::from_sql_and_values(backend, sql, values)).await?;
            let read = decoded(
                rows,
                |row| {
                    let span = Span { level: row.try_get("", "level")?, at: row.try_get("", "at")? };
                    Ok((Key::Span(source, span, row.try_get("", "version")?), row.try_get("", "body")?))
                },
                Summary::decode,
            );
            for (key, summary) in read.await? {
                let summary: Arc<Summary> = Arc::new(summary);
                cache.0.insert(key, Kept::summary(summary.clone()));
                reading.summaries.push(summary);
            }
        }
        self.read_deltas(tx, source, cache, &mut reading).await?;
        Ok(reading)
    }

    async fn read_deltas(
        &self,
        tx: &DatabaseTransaction,
        source: Source,
        cache: &SummaryCache,
        reading: &mut Reading,
    ) -> Result<(), StoreError> {
        let backend = ConnectionTrait::get_database_backend(tx);
        let sql = "SELECT id FROM summary_deltas WHERE source = $1";
        let rows =
            tx.query_all_raw(Statement::from_sql_and_values(backend, sql, [source.code().into()])).await?;
        let mut lacking: Vec<i64> = Vec::new();
        for row in rows {
            let id = row.try_get("", "id")?;
            match cache.0.get(&Key::Delta(id)) {
                Some(Kept::Delta(kept, _)) => reading.deltas.push(kept),
                _ => lacking.push(id),
            }
        }
        for part in lacking.chunks(64) {
            let mut values = Vec::new();
            let places = places(&mut values, part.iter().copied());
            let sql = format!("SELECT id, body FROM summary_deltas WHERE id IN ({places})");
            let rows = tx.query_all_raw(Statement::from_sql_and_values(backend, sql, values)).await?;
            let read = decoded(
                rows,
                |row| Ok((Key::Delta(row.try_get("", "id")?), row.try_get("", "body")?)),
                Added::read,
            );
            for (key, delta) in read.await? {
                let delta: Arc<Added> = Arc::new(delta);
                cache.0.insert(key, Kept::delta(delta.clone()));
                reading.deltas.push(delta);
            }
        }
        Ok(())
    }
}

/// Decodes rows' bodies away from whoever else works here.
async fn decoded<T: Send + 'static>(
    rows: Vec<QueryResult>,
    parts: impl Fn(&QueryResult) -> Result<(Key, Vec<u8>), sea_orm::DbErr>,
    decode: fn(&[u8]) -> Result<T, StoreError>,
) -> Result<Vec<(Key, T)>, StoreError> {
    let bodies = rows.iter().map(parts).collect::<Result<Vec<_>, _>>()?;
    tokio::task::spawn_blocking(move || {
        bodies.into_iter().map(|(key, body)| Ok((key, decode(&body)?))).collect()
    })
    .await
    .map_err(|error| StoreError::Transient(error.to_string()))?
}

impl Reading {
    /// What tells the range, each event once.
    fn parts(&self) -> impl Iterator<Item = &Summary> {
        let fresh = self.deltas.iter().flat_map(|delta| &delta.hours).filter(|(hour, _)| self.asks(*hour));
        self.summaries.iter().map(|summary| &**summary).chain(fresh.map(|(_, summary)| summary))
    }

    /// Adds it all up.
    pub fn sum(&self) -> Summary {
        let mut growing = GrowingSummary::default();
        self.parts().for_each(|part| growing.add(part));
        growing.finish()
    }

    /// Whom the range reached, with so many countries, and without cities.
    pub fn audience(&self, limit: usize) -> Audience {
        Audience::of(self.parts(), limit)
    }

    /// The first so many cities that it reached.
    pub fn cities(&self, limit: usize) -> Cities {
        Cities::of(self.parts(), limit)
    }

    /// Transactions and revenue (in millionths) by campaign; `None` if some summary holds no campaigns.
    pub fn sum_campaigns(&self) -> Option<HashMap<CompactString, (u64, i128)>> {
        if self.too_many_campaigns {
            return None;
        }
        let mut sums: HashMap<CompactString, (u64, i128)> = HashMap::new();
        for summary in self.parts() {
            for (key, sum) in summary.campaigns.as_ref()? {
                let known = match sums.get_mut(&key.campaign_id) {
                    Some(known) => known,
                    None => sums.entry(key.campaign_id.clone()).or_default(),
                };
                known.0 += sum.count;
                known.1 += sum.sum;
            }
        }
        Some(sums)
    }

    /// Whether some hour was told by its rows.
    pub fn is_told_by_rows(&self) -> bool {
        !self.told_by_rows.is_empty()
    }

    /// Whether what was added to an hour is asked for, and not told by its rows already.
    fn asks(&self, hour: i32) -> bool {
        (self.from..self.to).contains(&i64::from(hour)) && !self.told_by_rows.contains(&hour)
    }

    /// What was added to campaigns and not folded, by campaign; whatever the range.
    pub fn campaign_deltas(&self) -> HashMap<String, CampaignRevenue> {
        let all = self.deltas.iter().flat_map(|delta| delta.campaigns.iter().cloned()).collect();
        merge_campaigns(all).into_iter().map(|delta| (delta.campaign_id.clone(), delta)).collect()
    }
}

/// Sums up the rows of a span.
pub(super) async fn sum_rows(
    store: &Store,
    tx: &DatabaseTransaction,
    source: Source,
    span: Span,
) -> Result<Summary, StoreError> {
    let instant = store.instant();
    let sql = format!(
        "SELECT user_id, event_type, CAST({} AS integer) AS minute, revenue, age, gender, followers, device, watch_time, percentage_watched, country,
            city, campaign_id
         FROM event_rows WHERE source = $1 AND occurred_at >= {} AND occurred_at < {}",
        store.minute(),
        instant.replace("{}", "$2"),
        instant.replace("{}", "$3"),
    );
    let values = [source.code().into(), (span.first_hour() * HOUR).into(), (span.end_hour() * HOUR).into()];
    let statement = Statement::from_sql_and_values(ConnectionTrait::get_database_backend(tx), sql, values);
    let mut rows = std::pin::pin!(tx.stream_raw(statement).await?.try_chunks(ROWS));
    let mut growing = GrowingSummary::default();
    while let Some(part) = rows.try_next().await.map_err(|error| error.1)? {
        let part = part.iter().map(Told::read).collect::<Result<Vec<_>, _>>()?;
        growing.add_events(&Events::of(part.iter().map(Told::seen)));
    }
    Ok(growing.finish())
}

/// A row's columns.
struct Told {
    user_id: String,
    event_type: i16,
    minute: i32,
    revenue: Option<i64>,
    age: Option<i16>,
    gender: Option<i16>,
    followers: Option<i64>,
    device: Option<i16>,
    watch_time: Option<i64>,
    percentage_watched: Option<i64>,
    country: Option<String>,
    city: Option<String>,
    campaign_id: Option<String>,
}

impl Told {
    fn read(row: &QueryResult) -> Result<Self, sea_orm::DbErr> {
        let get = |name| row.try_get::<Option<i64>>("", name);
        let code = |name| row.try_get::<Option<i16>>("", name);
        let text = |name| row.try_get::<Option<String>>("", name);
        Ok(Self {
            user_id: row.try_get("", "user_id")?,
            event_type: row.try_get("", "event_type")?,
            minute: row.try_get("", "minute")?,
            revenue: get("revenue")?,
            age: code("age")?,
            gender: code("gender")?,
            followers: get("followers")?,
            device: code("device")?,
            watch_time: get("watch_time")?,
            percentage_watched: get("percentage_watched")?,
            country: text("country")?,
            city: text("city")?,
            campaign_id: text("campaign_id")?,
        })
    }

    fn seen(&self) -> Seen<'_> {
        Seen {
            user: mark(&self.user_id),
            event_type: self.event_type,
            minute: self.minute,
            revenue: self.revenue,
            age: self.age,
            gender: self.gender,
            followers: self.followers,
            device: self.device,
            watch_time: self.watch_time,
            percentage_watched: self.percentage_watched,
            country: self.country.as_deref(),
            city: self.city.as_deref(),
            campaign_id: self.campaign_id.as_deref(),
        }
    }
}
