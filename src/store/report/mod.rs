//! What reports ask the store: one transaction that only reads, in which all answers agree.
//!
//! Events and revenue come from the rollups ([`crate::store::report::rollups`]), campaigns and audiences from the summaries
//! ([`crate::store::report::campaigns`], [`crate::store::report::demographics`]). All sums are integers until they are shown.

mod campaigns;
mod demographics;
mod rollups;
mod top_campaigns;

use std::sync::Arc;

use sea_orm::{ConnectionTrait, FromQueryResult, Statement, Value};

use crate::event::{FunnelStage, Source};
use crate::store::cancel::CancellableTransaction;
use crate::store::connect::{Snapshot, Store};
use crate::store::error::StoreError;
use crate::store::money::total;
use crate::store::summary::SummaryCache;
pub use crate::store::summary::{AGE_BOUNDS, Audience, Dimension, FOLLOWER_BOUNDS, Sum};
use crate::store::transaction::Transaction;

/// The rows that a report is over. Bounds are minutes since 1970, `from` inclusive, `to` exclusive.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// The first minute.
    pub from: Option<i64>,
    /// The minute after the last.
    pub to: Option<i64>,
    /// One source alone.
    pub source: Option<Source>,
    /// One stage alone.
    pub stage: Option<FunnelStage>,
    /// Types of these numbers alone.
    pub event_types: Option<Vec<i16>>,
    /// One campaign alone; for revenue.
    pub campaign_id: Option<String>,
}

impl Filter {
    /// The sources that it leaves in.
    pub fn sources(&self) -> impl Iterator<Item = Source> + use<> {
        let only = self.source;
        Source::ALL.iter().copied().filter(move |source| only.is_none_or(|only| only == *source))
    }

    /// The same of one source alone.
    pub fn of(&self, source: Source) -> Self {
        Self { source: Some(source), ..self.clone() }
    }
}

/// A count of events.
#[derive(Debug, Clone, PartialEq, Eq, FromQueryResult)]
pub struct EventCount {
    /// The bucket, counted in intervals since 1970; 0 without an interval.
    pub bucket: i64,
    /// A word's number.
    pub source: i16,
    /// A word's number.
    pub funnel_stage: i16,
    /// A word's number.
    pub event_type: i16,
    /// How many.
    pub events: i64,
}

/// Revenue of one type of event.
#[derive(Debug, Clone, PartialEq, Eq, FromQueryResult)]
pub struct RevenueSum {
    /// The bucket, counted in intervals since 1970; 0 without an interval.
    pub bucket: i64,
    /// A word's number.
    pub source: i16,
    /// A word's number.
    pub event_type: i16,
    /// Events that made revenue.
    pub transactions: i64,
    /// The sum of whole millions of units.
    pub millions: i64,
    /// The sum of whole units beside them.
    pub units: i64,
    /// The sum of the millionths beside those.
    pub micros: i64,
}

impl RevenueSum {
    /// The sum, in millionths.
    pub fn total(&self) -> i128 {
        total(self.millions, self.units, self.micros)
    }
}

/// Revenue of one campaign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CampaignSum {
    /// Whose it is.
    pub source: Source,
    /// The campaign.
    pub campaign_id: String,
    /// Events that made revenue.
    pub transactions: u64,
    /// The sum, in millionths.
    pub total: i128,
}

impl CampaignSum {
    /// The highest first, and in one order whatever is equal.
    pub(in crate::store) fn rank(left: &Self, right: &Self) -> std::cmp::Ordering {
        let by_name =
            || (&left.campaign_id, left.source.code()).cmp(&(&right.campaign_id, right.source.code()));
        right.total.cmp(&left.total).then_with(by_name)
    }
}

/// Reports over a store. All of them share a cache of decoded summaries. Clones share it too.
#[derive(Debug, Clone)]
pub struct Reports {
    store: Store,
    cache: Arc<SummaryCache>,
}

/// One report: a transaction that only reads. Dropping it before [`Report::end`] cancels its running statement.
pub struct Report<'s> {
    store: &'s Store,
    cache: &'s SummaryCache,
    /// `None` once it has ended.
    running: Option<CancellableTransaction>,
}

impl std::fmt::Debug for Report<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Report").finish_non_exhaustive()
    }
}

impl Reports {
    /// Reports over a store, with a cache of at most `cache_bytes` of decoded summaries. With 0 nothing is cached.
    pub fn new(store: Store, cache_bytes: u64) -> Self {
        Self { store, cache: Arc::new(SummaryCache::new(cache_bytes)) }
    }

    /// The store that is read.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Begins a report. All its answers are of one snapshot.
    ///
    /// # Errors
    ///
    /// [`StoreError::Schema`] if migrations are missing; any other if the store is unavailable.
    pub async fn begin(&self) -> Result<Report<'_>, StoreError> {
        let snapshot = self.store.snapshot(Snapshot::Read).await?;
        let (running, applied) = CancellableTransaction::begin(snapshot).await?;
        Store::check_migrations(applied)?;
        Ok(Report { store: &self.store, cache: &self.cache, running: Some(running) })
    }
}

async fn cancel(store: &Store, running: CancellableTransaction) -> Result<(), StoreError> {
    match store.cancellation() {
        Some(cancellation) => running.cancel(cancellation).await,
        None => running.tx.rollback().await,
    }
}

impl Drop for Report<'_> {
    fn drop(&mut self) {
        if let Some(running) = self.running.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let store = self.store.clone();
            runtime.spawn(async move {
                if let Err(error) = cancel(&store, running).await {
                    tracing::debug!(%error, "an abandoned report was not cancelled");
                }
            });
        }
    }
}

impl Report<'_> {
    /// Ends it.
    ///
    /// # Errors
    ///
    /// If the store is away; what was answered stays true.
    pub async fn end(mut self) -> Result<(), StoreError> {
        match self.running.take() {
            Some(running) => running.tx.commit().await,
            None => Ok(()),
        }
    }

    /// Its transaction.
    /// Its transaction.
    fn tx(&self) -> Result<&Transaction, StoreError> {
        let ended = || StoreError::unavailable("the report has ended");
        self.running.as_ref().map(|running| &running.tx).ok_or_else(ended)
    }

    async fn select<T: FromQueryResult>(
        &self,
        sql: String,
        values: Vec<Value>,
    ) -> Result<Vec<T>, StoreError> {
        let tx = self.tx()?;
        let statement = Statement::from_sql_and_values(tx.get_database_backend(), sql, values);
        let rows = tx.query_all_raw(statement).await?;
        Ok(rows.iter().map(|row| T::from_query_result(row, "")).collect::<Result<_, _>>()?)
    }
}
