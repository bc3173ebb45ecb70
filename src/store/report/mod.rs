//! Reports: each is one transaction that only reads, so that all its answers are of one snapshot.
//!
//! Events and revenue come from the rollups ([`rollups`]), revenue by campaign and demographics from the summaries
//! ([`campaigns`], [`top_campaigns`], [`demographics`]). Sums are integers until they are shown.

mod campaigns;
mod demographics;
mod filter;
mod rollups;
mod sums;
mod top_campaigns;

use std::sync::Arc;

pub use filter::Filter;
pub use sums::{CampaignSum, EventCount, RevenueSum};

use crate::store::cancel::CancellableTransaction;
use crate::store::connect::Store;
use crate::store::error::StoreError;
use crate::store::summary::SummaryCache;
pub use crate::store::summary::{AGE_BOUNDS, Audience, Dimension, FOLLOWER_BOUNDS, Sum};
use crate::store::transaction::{Snapshot, Transaction};

/// Reports over a store. All of them share a cache of decoded summaries. Clones share it too.
#[derive(Debug, Clone)]
pub struct Reports {
    store: Store,
    cache: Arc<SummaryCache>,
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

impl Report<'_> {
    /// The store that is read.
    pub fn store(&self) -> &Store {
        self.store
    }

    /// Ends the report.
    ///
    /// # Errors
    ///
    /// If the store is unavailable; the answers stay valid.
    pub async fn end(mut self) -> Result<(), StoreError> {
        match self.running.take() {
            Some(running) => running.tx.commit().await,
            None => Ok(()),
        }
    }

    fn tx(&self) -> Result<&Transaction, StoreError> {
        let ended = || StoreError::internal("the report has ended");
        self.running.as_ref().map(|running| &running.tx).ok_or_else(ended)
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
                    tracing::debug!(%error, "cancelling an abandoned report failed; its time limit ends it");
                }
            });
        }
    }
}

async fn cancel(store: &Store, running: CancellableTransaction) -> Result<(), StoreError> {
    match store.cancellation() {
        Some(cancellation) => running.cancel(cancellation).await,
        None => running.tx.rollback().await,
    }
}
