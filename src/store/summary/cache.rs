//! Cache of decoded summaries, deltas and blocks of deltas, shared by all reports of a reader.
//!
//! Entries never become wrong: the key of a summary has its version, that of a delta its tag, that of a block all of
//! its deltas. What is outdated is not asked for any more, and is evicted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, Lifecycle, OptionsBuilder, Weighter};

use super::block_plan::{BlockPlan, DeltaKey};
use super::span::Span;
use super::summary::Summary;
use super::unfolded::UnfoldedDeltas;
use crate::event::Source;

/// Number of entries that the cache is laid out for.
const ENTRIES: usize = 4_000;
/// Approximate bytes that the cache takes per entry.
const ENTRY_OVERHEAD: u64 = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum CacheKey {
    /// A span with the version of its summary.
    Summary(Source, Span, i64),
    Delta(DeltaKey),
    /// [`BlockPlan::key`].
    Block(Source, u64),
}

/// A cached value with its approximate size in bytes, which the cache asks for often.
#[derive(Clone)]
enum CacheEntry {
    Summary(Arc<Summary>, u64),
    Unfolded(Arc<UnfoldedDeltas>, u64),
}

#[derive(Clone)]
struct SizeInBytes;

impl Weighter<CacheKey, CacheEntry> for SizeInBytes {
    fn weight(&self, _: &CacheKey, entry: &CacheEntry) -> u64 {
        let (CacheEntry::Summary(_, bytes) | CacheEntry::Unfolded(_, bytes)) = entry;
        bytes + ENTRY_OVERHEAD
    }
}

/// Collects evicted entries, so that they are freed after the cache's lock is released.
#[derive(Clone)]
struct DeferredDrop;

impl Lifecycle<CacheKey, CacheEntry> for DeferredDrop {
    type RequestState = Vec<CacheEntry>;

    fn on_evict(&self, evicted: &mut Vec<CacheEntry>, _: CacheKey, entry: CacheEntry) {
        evicted.push(entry);
    }
}

/// Deltas and blocks that the cache has, and those that it lacks.
#[derive(Default)]
pub(super) struct CachedDeltas {
    pub(super) found: Vec<Arc<UnfoldedDeltas>>,
    pub(super) missing: Vec<DeltaKey>,
    pub(super) missing_blocks: Vec<BlockPlan>,
}

/// Cache of decoded summaries, deltas and blocks of deltas. Clones share it.
#[derive(Clone)]
pub struct SummaryCache {
    entries: Arc<Cache<CacheKey, CacheEntry, SizeInBytes, DefaultHashBuilder, DeferredDrop>>,
    /// True while a background task builds blocks.
    builds_blocks: Arc<AtomicBool>,
}

impl std::fmt::Debug for SummaryCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SummaryCache({} of {} bytes)", self.entries.weight(), self.entries.capacity())
    }
}

impl SummaryCache {
    /// A cache of at most `bytes`. With 0 nothing is cached.
    #[expect(clippy::expect_used, reason = "both capacities are set")]
    pub fn new(bytes: u64) -> Self {
        // One shard: wide summaries are so large that one of several shards would be full long before the others.
        let options = OptionsBuilder::new()
            .shards(1)
            .estimated_items_capacity(ENTRIES)
            .weight_capacity(bytes)
            .build()
            .expect("both capacities are set");
        let entries = Cache::with_options(options, SizeInBytes, DefaultHashBuilder::default(), DeferredDrop);
        Self { entries: Arc::new(entries), builds_blocks: Arc::default() }
    }

    /// True if nothing is cached.
    pub(super) fn is_disabled(&self) -> bool {
        self.entries.capacity() == 0
    }

    pub(super) fn summary(&self, source: Source, span: Span, version: i64) -> Option<Arc<Summary>> {
        match self.entries.get(&CacheKey::Summary(source, span, version)) {
            Some(CacheEntry::Summary(summary, _)) => Some(summary),
            _ => None,
        }
    }

    pub(super) fn insert_summary(&self, source: Source, span: Span, version: i64, summary: Arc<Summary>) {
        let bytes = summary.size() as u64;
        self.entries.insert(CacheKey::Summary(source, span, version), CacheEntry::Summary(summary, bytes));
    }

    pub(super) fn insert_delta(&self, key: DeltaKey, delta: Arc<UnfoldedDeltas>) {
        self.insert_unfolded(CacheKey::Delta(key), delta);
    }

    fn insert_unfolded(&self, key: CacheKey, unfolded: Arc<UnfoldedDeltas>) {
        let bytes = unfolded.size() as u64;
        self.entries.insert(key, CacheEntry::Unfolded(unfolded, bytes));
    }

    fn unfolded(&self, key: &CacheKey) -> Option<Arc<UnfoldedDeltas>> {
        match self.entries.get(key) {
            Some(CacheEntry::Unfolded(unfolded, _)) => Some(unfolded),
            _ => None,
        }
    }

    /// Looks up deltas that are in no block.
    pub(super) fn find_deltas(&self, deltas: &[DeltaKey], cached: &mut CachedDeltas) {
        for key in deltas {
            match self.unfolded(&CacheKey::Delta(*key)) {
                Some(delta) => cached.found.push(delta),
                None => cached.missing.push(*key),
            }
        }
    }

    /// Looks up blocks: each as a whole, else by its smaller blocks, else delta by delta.
    pub(super) fn find_blocks(&self, source: Source, plans: &[BlockPlan], cached: &mut CachedDeltas) {
        for plan in plans {
            if let Some(block) = self.unfolded(&CacheKey::Block(source, plan.key)) {
                cached.found.push(block);
                continue;
            }
            let (blocks, alone) = self.smaller_blocks(source, plan);
            cached.found.extend(blocks);
            self.find_deltas(&alone, cached);
            cached.missing_blocks.push(plan.clone());
        }
    }

    /// The smaller blocks of a block that are cached, and the deltas that are in none of those.
    fn smaller_blocks(&self, source: Source, plan: &BlockPlan) -> (Vec<Arc<UnfoldedDeltas>>, Vec<DeltaKey>) {
        let (mut blocks, mut alone) = (Vec::new(), plan.deltas.clone());
        for smaller in &plan.smaller {
            if let Some(block) = self.unfolded(&CacheKey::Block(source, smaller.key)) {
                alone.retain(|delta| !smaller.deltas.contains(delta));
                blocks.push(block);
            }
        }
        (blocks, alone)
    }

    /// Builds blocks in the background, unless others are being built. A later report asks again for what is missing
    /// then.
    pub(super) fn build_blocks(&self, plans: Vec<(Source, BlockPlan)>) {
        if plans.is_empty() || self.builds_blocks.swap(true, Ordering::AcqRel) {
            return;
        }
        let cache = self.clone();
        let building = BuildingBlocks(self.builds_blocks.clone());
        tokio::task::spawn_blocking(move || {
            let _building = building;
            plans.iter().for_each(|(source, plan)| cache.build_block(*source, plan));
        });
    }

    fn build_block(&self, source: Source, plan: &BlockPlan) {
        let (mut parts, alone) = self.smaller_blocks(source, plan);
        let deltas = alone.into_iter().map(|key| self.unfolded(&CacheKey::Delta(key)));
        // A delta that was evicted meanwhile was folded, or does not fit into the cache.
        if let Some(deltas) = deltas.collect::<Option<Vec<_>>>() {
            parts.extend(deltas);
            let block = Arc::new(UnfoldedDeltas::block(&parts));
            block.prepare();
            self.insert_unfolded(CacheKey::Block(source, plan.key), block);
        }
    }
}

/// Allows the next task to build blocks when it is dropped.
struct BuildingBlocks(Arc<AtomicBool>);

impl Drop for BuildingBlocks {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::super::delta::Delta;
    use super::super::hour_input::HourInput;
    use super::super::hour_input::tests::event;
    use super::*;
    use crate::store::summary::block_plan::plan_blocks;

    fn delta(user: u64) -> Arc<UnfoldedDeltas> {
        let mut delta = Delta::default();
        delta.push_hour(7, &[&HourInput::of([event(user)].into_iter())]);
        Arc::new(UnfoldedDeltas::decode(&delta.encode().unwrap()).unwrap())
    }

    fn users(found: &[Arc<UnfoldedDeltas>]) -> u64 {
        found.iter().filter_map(|deltas| deltas.sum(Span::hour(7))).map(|sum| sum.users.count().0).sum()
    }

    #[test]
    fn a_block_is_built_of_cached_deltas_and_then_used_instead_of_them() {
        let cache = SummaryCache::new(1 << 20);
        let keys: Vec<DeltaKey> = (8..16).map(|id| (id, id)).collect();
        let plans = plan_blocks(&keys, 16);
        let find = || {
            let mut cached = CachedDeltas::default();
            cache.find_blocks(Source::FACEBOOK, &plans, &mut cached);
            cached
        };
        assert_eq!((find().missing, find().missing_blocks.len()), (keys.clone(), 1));
        keys.iter().skip(1).for_each(|key| cache.insert_delta(*key, delta(key.0.unsigned_abs())));
        cache.build_block(Source::FACEBOOK, &plans[0]);
        let found = find();
        assert_eq!((found.found.len(), found.missing), (7, vec![(8, 8)]), "no block without the first delta");
        cache.insert_delta(keys[0], delta(8));
        cache.build_block(Source::FACEBOOK, &plans[0]);
        let found = find();
        assert_eq!((found.found.len(), users(&found.found), found.missing_blocks.len()), (1, 8, 0));
        assert!(found.missing.is_empty());
    }

    #[test]
    fn a_summary_is_found_under_its_version_alone() {
        let cache = SummaryCache::new(1 << 20);
        let (source, span) = (Source::TIKTOK, Span::hour(3));
        cache.insert_summary(source, span, 5, Arc::new(Summary { events: 9, ..Summary::default() }));
        assert_eq!(cache.summary(source, span, 5).map(|summary| summary.events), Some(9));
        assert!(cache.summary(source, span, 6).is_none());
        assert!(cache.summary(Source::FACEBOOK, span, 5).is_none());
    }

    #[test]
    fn entries_are_evicted_beyond_the_capacity() {
        let cache = SummaryCache::new(8 << 10);
        for version in 0..100 {
            cache.insert_summary(Source::FACEBOOK, Span::hour(1), version, Arc::default());
        }
        assert!(cache.entries.weight() <= 8 << 10 && cache.entries.len() < 50, "{cache:?}");
        let disabled = SummaryCache::new(0);
        disabled.insert_summary(Source::FACEBOOK, Span::hour(1), 1, Arc::default());
        assert!(disabled.is_disabled() && disabled.summary(Source::FACEBOOK, Span::hour(1), 1).is_none());
    }
}
