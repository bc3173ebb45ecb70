//! Reading what a range of hours adds up to.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use compact_str::CompactString;
use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, Lifecycle, OptionsBuilder, Weighter};
use sea_orm::{ConnectionTrait, QueryResult, Statement, Value};

use super::audience::{Audience, Reached};
use super::block::{BlockPlan, DeltaKey, Unfolded, groups};
use super::body::{GrowingSummary, Summary};
use super::delta::{CampaignRevenue, merge_campaigns};
use super::seen::{Events, Seen};
use super::span::{HOUR, Span, cover};
use crate::event::Source;
use crate::sketch::user_hash;
use crate::store::connect::Store;
use crate::store::dialect::places;
use crate::store::error::StoreError;
use crate::store::transaction::Transaction;

/// Rows that are summed up at a time.
const ROWS: usize = 5_000;

/// What a reader keeps decoded, and the bytes that it takes, about: the cache asks for them again and again.
#[derive(Clone)]
enum Kept {
    Summary(Arc<Summary>, u64),
    Unfolded(Arc<Unfolded>, u64),
}

impl Kept {
    fn summary(summary: Arc<Summary>) -> Self {
        let bytes = summary.size() as u64;
        Self::Summary(summary, bytes)
    }

    fn unfolded(unfolded: Arc<Unfolded>) -> Self {
        let bytes = unfolded.size() as u64;
        Self::Unfolded(unfolded, bytes)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    Span(Source, Span, i64),
    Delta(DeltaKey),
    /// A block, by its deltas.
    Block(Source, u64),
}

#[derive(Clone)]
struct Bytes;

impl Weighter<Key, Kept> for Bytes {
    fn weight(&self, _: &Key, kept: &Kept) -> u64 {
        let (Kept::Summary(_, bytes) | Kept::Unfolded(_, bytes)) = kept;
        bytes + 64
    }
}

/// What leaves the cache for others: it is let go of when nobody waits for the cache any more.
#[derive(Clone)]
struct Leaving;

impl Lifecycle<Key, Kept> for Leaving {
    type RequestState = Vec<Kept>;

    fn on_evict(&self, left: &mut Vec<Kept>, _: Key, kept: Kept) {
        left.push(kept);
    }
}

/// Summaries that were read, decoded; a summary that is another one by now has another version. And deltas, and blocks
/// of these.
pub struct SummaryCache {
    kept: Arc<Cache<Key, Kept, Bytes, DefaultHashBuilder, Leaving>>,
    /// True while blocks are being made.
    making: Arc<AtomicBool>,
}

impl std::fmt::Debug for SummaryCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SummaryCache({} of {} bytes)", self.kept.weight(), self.kept.capacity())
    }
}

impl SummaryCache {
    /// A cache of so many bytes.
    #[expect(clippy::expect_used, reason = "both capacities are set")]
    pub fn new(bytes: u64) -> Self {
        // In one piece: wide summaries are so large that pieces would fill up long before all of it does.
        let options = OptionsBuilder::new()
            .shards(1)
            .estimated_items_capacity(4_000)
            .weight_capacity(bytes)
            .build()
            .expect("both capacities are set");
        let kept = Cache::with_options(options, Bytes, DefaultHashBuilder::default(), Leaving);
        Self { kept: Arc::new(kept), making: Arc::default() }
    }

    fn unfolded(&self, key: &Key) -> Option<Arc<Unfolded>> {
        match self.kept.get(key) {
            Some(Kept::Unfolded(unfolded, _)) => Some(unfolded),
            _ => None,
        }
    }

    /// Takes what is kept of some deltas: blocks, and deltas by themselves where there is no block. Gives the deltas
    /// that nothing is kept of, and the blocks that were not there.
    fn take(&self, groups: &[BlockPlan], reading: &mut Reading) -> (Vec<DeltaKey>, Vec<BlockPlan>) {
        let (mut lacking, mut to_make) = (Vec::new(), Vec::new());
        for group in groups {
            if let Some(block) = self.unfolded(&Key::Block(reading.source, group.key)) {
                reading.unfolded.push(block);
                continue;
            }
            let mut alone = group.deltas.clone();
            for smaller in &group.smaller {
                if let Some(block) = self.unfolded(&Key::Block(reading.source, smaller.key)) {
                    reading.unfolded.push(block);
                    alone.retain(|delta| !smaller.deltas.contains(delta));
                }
            }
            lacking.extend(self.take_deltas(&alone, reading));
            to_make.push(group.clone());
        }
        (lacking, to_make)
    }

    /// Takes what is kept of deltas; gives the others.
    fn take_deltas(&self, deltas: &[DeltaKey], reading: &mut Reading) -> Vec<DeltaKey> {
        let mut lacking = Vec::new();
        for key in deltas {
            match self.unfolded(&Key::Delta(*key)) {
                Some(delta) => reading.unfolded.push(delta),
                None => lacking.push(*key),
            }
        }
        lacking
    }

    /// Makes blocks beside the report that found them lacking, unless others are being made.
    fn make(&self, groups: Vec<(Source, BlockPlan)>) {
        if groups.is_empty() || self.making.swap(true, Ordering::AcqRel) {
            return;
        }
        let made = Made(self.making.clone());
        let cache = Self { kept: self.kept.clone(), making: self.making.clone() };
        tokio::task::spawn_blocking(move || {
            let _made = made;
            groups.iter().for_each(|(source, group)| cache.make_one(*source, group));
        });
    }

    fn make_one(&self, source: Source, group: &BlockPlan) {
        let mut alone = group.deltas.clone();
        let mut parts = Vec::new();
        for smaller in &group.smaller {
            if let Some(block) = self.unfolded(&Key::Block(source, smaller.key)) {
                alone.retain(|delta| !smaller.deltas.contains(delta));
                parts.push(block);
            }
        }
        let deltas = alone.into_iter().map(|key| self.unfolded(&Key::Delta(key)));
        // What has left the cache meanwhile was folded meanwhile, or there is no room for it.
        if let Some(deltas) = deltas.collect::<Option<Vec<_>>>() {
            parts.extend(deltas);
            let block = Arc::new(Unfolded::block(&parts));
            block.prepare();
            self.kept.insert(Key::Block(source, group.key), Kept::unfolded(block));
        }
    }
}

/// Lets others make blocks when it is dropped.
struct Made(Arc<AtomicBool>);

impl Drop for Made {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
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
    /// Whose hours they are.
    pub source: Source,
    from: i64,
    to: i64,
    /// The spans that cover the range.
    spans: Vec<Span>,
    /// Summaries of spans that cover the range together; none if campaigns are asked for and were too many.
    summaries: Vec<Arc<Summary>>,
    too_many_campaigns: bool,
    /// What was added to hours since, whatever the range.
    unfolded: Vec<Arc<Unfolded>>,
    /// Hours that the rows told.
    told_by_rows: Vec<i32>,
}

impl Store {
    /// True if the stored summary of an hour, with the deltas that are not folded yet, equals the sum of its rows. A
    /// damaged summary does not; a stale one does, since reports read the rows instead.
    pub(in crate::store) async fn hour_agrees(
        &self,
        tx: &Transaction,
        source: Source,
        hour: i32,
    ) -> Result<bool, StoreError> {
        // No cache: entries of other snapshots prove nothing.
        let cache = SummaryCache::new(0);
        let range = (Some(i64::from(hour)), Some(i64::from(hour) + 1));
        let readings = match self.read_summaries(tx, &[source], range, Asked::Everything, &cache).await {
            Err(StoreError::Corrupt { reason, .. }) => {
                tracing::debug!(reason, "a summary is damaged");
                return Ok(false);
            }
            read => read?,
        };
        for reading in readings.iter().filter(|reading| !reading.is_told_by_rows()) {
            if !sum_rows(self, tx, source, Span::hour(hour)).await?.agrees(&reading.sum()) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Reads what tells the hours from `from` up to `to`, of each of some sources: what that is, one statement says
    /// for all of them.
    pub(in crate::store) async fn read_summaries(
        &self,
        tx: &Transaction,
        sources: &[Source],
        (from, to): (Option<i64>, Option<i64>),
        asked: Asked,
        cache: &SummaryCache,
    ) -> Result<Vec<Reading>, StoreError> {
        let mut readings: Vec<Reading> =
            sources.iter().map(|source| Reading::new(*source, from, to)).collect();
        if readings.is_empty() {
            return Ok(readings);
        }
        let spans = cover(from, to);
        if !spans.is_empty() {
            let lacking = self.read_kept(tx, &spans, asked, cache, &mut readings).await?;
            self.read_bodies(tx, &lacking, cache, &mut readings).await?;
        }
        self.read_deltas(tx, cache, &mut readings).await?;
        Ok(readings)
    }

    /// Finds out what tells spans, and takes it from the cache; gives what is not there.
    async fn read_kept(
        &self,
        tx: &Transaction,
        spans: &[Span],
        asked: Asked,
        cache: &SummaryCache,
        readings: &mut [Reading],
    ) -> Result<Vec<(Source, Span)>, StoreError> {
        let mut values: Vec<Value> = Vec::new();
        let mut wanted: Vec<String> = Vec::new();
        for reading in readings.iter() {
            wanted.extend(spans.iter().map(|span| place(&mut values, reading.source, *span)));
        }
        // A stale span is told by the four beneath it.
        let sql = format!(
            "WITH RECURSIVE wanted (source, level, at, version, stale, campaigns) AS (
                SELECT source, level, at, version, stale, campaigns FROM summaries
                WHERE (source, level, at) IN (VALUES {})
                UNION ALL
                SELECT s.source, s.level, s.at, s.version, s.stale, s.campaigns FROM wanted w JOIN summaries s
                    ON s.source = w.source AND s.level = w.level - 1 AND s.at BETWEEN w.at * 4 AND w.at * 4 + 3
                WHERE w.stale AND w.level > 0
            ) SELECT source, level, at, version, stale, campaigns FROM wanted WHERE level = 0 OR NOT stale",
            wanted.join(", ")
        );
        let backend = ConnectionTrait::get_database_backend(tx);
        let rows = tx.query_all_raw(Statement::from_sql_and_values(backend, sql, values)).await?;
        if asked == Asked::Campaigns {
            for row in &rows {
                let told: Option<bool> = row.try_get("", "campaigns")?;
                of(readings, row)?.too_many_campaigns |= told == Some(false);
            }
        }
        let mut lacking = Vec::new();
        for row in &rows {
            let reading = of(readings, row)?;
            if reading.too_many_campaigns {
                continue;
            }
            let (source, span) = (reading.source, span(row)?);
            let version: i64 = row.try_get("", "version")?;
            if row.try_get("", "stale")? {
                reading.told_by_rows.push(span.at);
                reading.summaries.push(Arc::new(sum_rows(self, tx, source, span).await?));
            } else if let Some(Kept::Summary(kept, _)) = cache.kept.get(&Key::Span(source, span, version)) {
                reading.summaries.push(kept);
            } else {
                lacking.push((source, span));
            }
        }
        Ok(lacking)
    }

    /// Reads the summaries of spans, which the cache keeps from then on.
    async fn read_bodies(
        &self,
        tx: &Transaction,
        lacking: &[(Source, Span)],
        cache: &SummaryCache,
        readings: &mut [Reading],
    ) -> Result<(), StoreError> {
        let backend = ConnectionTrait::get_database_backend(tx);
        for part in lacking.chunks(256) {
            let mut values: Vec<Value> = Vec::new();
            let wanted: Vec<String> =
                part.iter().map(|(source, span)| place(&mut values, *source, *span)).collect();
            let sql = format!(
                "SELECT source, level, at, version, body FROM summaries WHERE (source, level, at) IN (VALUES {})",
                wanted.join(", ")
            );
            let rows = tx.query_all_raw(Statement::from_sql_and_values(backend, sql, values)).await?;
            let bodies = rows.iter().map(|row| {
                let key = (of(readings, row)?.source, span(row)?, row.try_get("", "version")?);
                Ok((key, row.try_get("", "body")?))
            });
            let bodies = bodies.collect::<Result<_, StoreError>>()?;
            for ((source, span, version), summary) in decoded(bodies, Summary::decode, |(source, span, _)| {
                format!("summaries, source {source}, level {}, at {}", span.level, span.at)
            })
            .await?
            {
                let summary = Arc::new(summary);
                cache.kept.insert(Key::Span(source, span, version), Kept::summary(summary.clone()));
                by(readings, source.code())?.summaries.push(summary);
            }
        }
        Ok(())
    }

    /// Reads what was added to hours since.
    async fn read_deltas(
        &self,
        tx: &Transaction,
        cache: &SummaryCache,
        readings: &mut [Reading],
    ) -> Result<(), StoreError> {
        let backend = ConnectionTrait::get_database_backend(tx);
        let mut values: Vec<Value> = Vec::new();
        let sources = places(&mut values, readings.iter().map(|reading| reading.source.code()));
        let sql =
            format!("SELECT id, tag, source FROM summary_deltas WHERE source IN ({sources}) ORDER BY id");
        let rows = tx.query_all_raw(Statement::from_sql_and_values(backend, sql, values)).await?;
        let mut waiting: HashMap<i16, Vec<DeltaKey>> = HashMap::new();
        let mut newest = 0;
        for row in &rows {
            let key = (row.try_get("", "id")?, row.try_get("", "tag")?);
            newest = key.0;
            waiting.entry(row.try_get("", "source")?).or_default().push(key);
        }
        // Without a cache nothing would be kept of a block.
        let in_blocks = cache.kept.capacity() > 0;
        let mut lacking: Vec<DeltaKey> = Vec::new();
        let mut to_make = Vec::new();
        for reading in readings.iter_mut() {
            let mut alone = waiting.remove(&reading.source.code()).unwrap_or_default();
            let groups = if in_blocks { groups(&alone, newest) } else { Vec::new() };
            let grouped: HashSet<DeltaKey> = groups.iter().flat_map(|group| &group.deltas).copied().collect();
            alone.retain(|delta| !grouped.contains(delta));
            lacking.extend(cache.take_deltas(&alone, reading));
            let (more, blocks) = cache.take(&groups, reading);
            lacking.extend(more);
            to_make.extend(blocks.into_iter().map(|group| (reading.source, group)));
        }
        self.read_lacking_deltas(tx, &lacking, cache, readings).await?;
        cache.make(to_make);
        Ok(())
    }

    /// Reads deltas, which the cache keeps from then on.
    async fn read_lacking_deltas(
        &self,
        tx: &Transaction,
        lacking: &[DeltaKey],
        cache: &SummaryCache,
        readings: &mut [Reading],
    ) -> Result<(), StoreError> {
        let backend = ConnectionTrait::get_database_backend(tx);
        for part in lacking.chunks(64) {
            let mut values = Vec::new();
            let places = places(&mut values, part.iter().map(|(id, _)| *id));
            let sql = format!("SELECT id, tag, source, body FROM summary_deltas WHERE id IN ({places})");
            let rows = tx.query_all_raw(Statement::from_sql_and_values(backend, sql, values)).await?;
            let bodies = rows.iter().map(|row| {
                let delta = (row.try_get("", "id")?, row.try_get("", "tag")?);
                let key: (Source, DeltaKey) = (of(readings, row)?.source, delta);
                Ok((key, row.try_get("", "body")?))
            });
            let bodies = bodies.collect::<Result<_, StoreError>>()?;
            for ((source, key), delta) in decoded(bodies, Unfolded::read, |(source, key)| {
                format!("summary_deltas, source {source}, {key:?}")
            })
            .await?
            {
                let delta = Arc::new(delta);
                cache.kept.insert(Key::Delta(key), Kept::unfolded(delta.clone()));
                by(readings, source.code())?.unfolded.push(delta);
            }
        }
        Ok(())
    }
}

/// A span's place in a list of values, with its parameters.
fn place(values: &mut Vec<Value>, source: Source, span: Span) -> String {
    let places = places(values, [Value::from(source.code()), span.level.into(), span.at.into()]);
    format!("({places})")
}

/// The span that a row tells of.
fn span(row: &QueryResult) -> Result<Span, sea_orm::DbErr> {
    Ok(Span { level: row.try_get("", "level")?, at: row.try_get("", "at")? })
}

/// The reading of a row's source.
fn of<'r>(readings: &'r mut [Reading], row: &QueryResult) -> Result<&'r mut Reading, StoreError> {
    by(readings, row.try_get("", "source")?)
}

/// The reading of a source.
fn by(readings: &mut [Reading], code: i16) -> Result<&mut Reading, StoreError> {
    let asked = readings.iter_mut().find(|reading| reading.source.code() == code);
    asked.ok_or_else(|| StoreError::unavailable(format!("source {code} was not asked for")))
}

/// Decodes bodies away from whoever else works here.
async fn decoded<K: Send + 'static, T: Send + 'static>(
    bodies: Vec<(K, Vec<u8>)>,
    decode: fn(&[u8]) -> Result<T, StoreError>,
    name: fn(&K) -> String,
) -> Result<Vec<(K, T)>, StoreError> {
    tokio::task::spawn_blocking(move || {
        let decode = |(key, body): (K, Vec<u8>)| match decode(&body) {
            Ok(decoded) => Ok((key, decoded)),
            Err(error) => Err(error.in_row(name(&key))),
        };
        bodies.into_iter().map(decode).collect()
    })
    .await
    .map_err(|error| StoreError::unavailable(error.to_string()))?
}

impl Reading {
    fn new(source: Source, from: Option<i64>, to: Option<i64>) -> Self {
        Self {
            source,
            from: from.unwrap_or(0),
            to: to.unwrap_or(i64::MAX),
            spans: cover(from, to),
            summaries: Vec::new(),
            too_many_campaigns: false,
            unfolded: Vec::new(),
            told_by_rows: Vec::new(),
        }
    }

    /// What tells the range, each event once.
    fn parts(&self) -> Vec<Arc<Summary>> {
        let mut parts = self.summaries.clone();
        for unfolded in &self.unfolded {
            if self.told_by_rows.is_empty() {
                parts.extend(self.spans.iter().filter_map(|span| unfolded.get(*span)));
            } else {
                let hours = unfolded.hours().filter(|hour| self.asks(*hour));
                parts.extend(hours.filter_map(|hour| unfolded.get(Span::hour(hour))));
            }
        }
        parts
    }

    /// Adds it all up.
    pub fn sum(&self) -> Summary {
        let mut growing = GrowingSummary::default();
        self.parts().iter().for_each(|part| growing.add(part));
        growing.finish()
    }

    /// Whom the range reached, without places.
    pub fn audience(&self) -> Audience {
        Audience::of(self.parts().iter().map(|part| &**part))
    }

    /// The first so many countries that it reached.
    pub fn countries(&self, limit: usize) -> Reached {
        Reached::countries(self.parts().iter().map(|part| &**part), limit)
    }

    /// The first so many cities.
    pub fn cities(&self, limit: usize) -> Reached {
        Reached::cities(self.parts().iter().map(|part| &**part), limit)
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

    /// Whether something was added to campaigns that is not folded.
    pub fn has_campaign_deltas(&self) -> bool {
        self.unfolded.iter().any(|delta| !delta.campaigns().is_empty())
    }

    /// What was added to campaigns and not folded, by campaign; whatever the range.
    pub fn campaign_deltas(&self) -> HashMap<String, CampaignRevenue> {
        let all = self.unfolded.iter().flat_map(|delta| delta.campaigns().iter().cloned()).collect();
        merge_campaigns(all).into_iter().map(|delta| (delta.campaign_id.clone(), delta)).collect()
    }
}

/// Sums up the rows of a span.
pub(super) async fn sum_rows(
    store: &Store,
    tx: &Transaction,
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
    let mut growing = GrowingSummary::default();
    tx.in_parts(statement, ROWS, |part| {
        let part = part.iter().map(Told::read).collect::<Result<Vec<_>, _>>()?;
        growing.add_events(&Events::of(part.iter().map(Told::seen)));
        Ok(())
    })
    .await?;
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
            user: user_hash(&self.user_id),
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
