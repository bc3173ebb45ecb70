//! Background tasks that keep the ledger, the summaries and the tables small and current.
//!
//! Reports and the ledger are exact without them, and become slower: a task that fails in one round goes on in the next.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::event::Source;
use crate::ledger::{Reconciler, Reconciliation};
use crate::log::{Log, LogError, SharedLog, TopicState};
use crate::ops::metrics::CollectorMetrics;
use crate::runtime::Node;
use crate::store::{Retention, RetentionClock, Store, StoreError};

/// Interval at which processed frames are compacted, and at which the lag is measured.
const LEDGER: Duration = Duration::from_secs(5);
/// Time limit of one compaction.
const COMPACT_TIMEOUT: Duration = Duration::from_secs(60);
/// Interval at which summaries are folded, where that takes little time, and the longest one.
const FOLD: Duration = Duration::from_secs(5);
const MAX_FOLD: Duration = Duration::from_secs(30);
/// Rest after folding, as a multiple of the time that it took: folding takes a twentieth of a collector's time.
const FOLD_REST: u32 = 19;
/// Interval at which dead letters expire.
const EXPIRE_DEAD_LETTERS: Duration = Duration::from_secs(30);
/// Number of times that rows expire within the time that they are kept: they leave a twentieth of it late at most.
const EXPIRE_ROWS_WITHIN_RETENTION: u32 = 20;

/// Waits until the database has its schema and the source's number.
async fn wait_for(mut registered: watch::Receiver<bool>) {
    // The sender lives as long as the source's pipeline.
    let _ = registered.wait_for(|registered| *registered).await;
}

/// Compacts the ledger: folds the rows of processed frames into ranges, and removes writers that the log no longer has.
pub(super) async fn compact_ledger(
    source: Source,
    log: SharedLog,
    store: Store,
    registered: watch::Receiver<bool>,
    node: Arc<Node>,
) {
    wait_for(registered).await;
    loop {
        tokio::time::sleep(LEDGER).await;
        let Ok(states) = states(&*log, source).await else { continue };
        let compact = async {
            let mut remembered = HashMap::new();
            for state in states {
                store.fold_ledger(source, state.log_id, state.first).await?;
                remembered.extend(state.acknowledged);
            }
            store.expire_writers(source, &remembered).await
        };
        match tokio::time::timeout(COMPACT_TIMEOUT, compact).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%source, %error, "the ledger was not compacted now"),
            Err(_) => tracing::warn!(%source, "the ledger was not compacted within {COMPACT_TIMEOUT:?}"),
        }
        node.count_handled();
    }
}

/// States of all streams of a source.
async fn states(log: &dyn Log, source: Source) -> Result<Vec<TopicState>, LogError> {
    let mut states = Vec::new();
    for topic in log.streams(source).await? {
        states.push(log.state(topic).await?);
    }
    Ok(states)
}

/// Measures how far the store is behind the log, and saves the observed state of the log in the store.
pub(super) async fn measure_lag(
    source: Source,
    log: SharedLog,
    store: Store,
    metrics: CollectorMetrics,
    registered: watch::Receiver<bool>,
    node: Arc<Node>,
) {
    metrics.set_lag(source, Some(0));
    wait_for(registered).await;
    let reconciler = Reconciler::new(log, store.clone());
    loop {
        tokio::time::sleep(LEDGER).await;
        match reconciler.reconcile(source).await {
            Ok(found) => {
                metrics.set_lag(source, Some(found.ledger.in_flight));
                compare_logs(source, &found);
                if let Err(error) = store.save_observation(source, &found.known, &found.observed).await {
                    tracing::debug!(%source, %error, "the observed state of the log was not saved now");
                }
            }
            Err(error) => {
                metrics.set_lag(source, None);
                tracing::debug!(%source, %error, "the lag is not known now");
            }
        }
        node.count_handled();
    }
}

/// Logs that the log is another one than before, or has lost its newest frames.
fn compare_logs(source: Source, found: &Reconciliation) {
    let (known, observed, missing) = (&found.known.logs, &found.observed.logs, found.observed.missing);
    // The first observation of a source.
    if known.is_empty() {
        return;
    }
    let gone: Vec<_> = known.iter().filter(|(log_id, _)| !observed.contains_key(*log_id)).collect();
    for (log_id, last) in observed {
        match known.get(log_id) {
            Some(last_before) if last < last_before => {
                tracing::error!(%source, %log_id, last, last_before, missing,
                    "the log went back: it was restored from an older copy, or lost its newest frames. What it had \
                     taken and the store has not is missing in /ledger; if a newer copy is there, put that back");
            }
            Some(_) => {}
            // One stream more than before is no fault.
            None if gone.is_empty() => tracing::info!(%source, %log_id, "the log has another stream"),
            None => {
                let before = gone.iter().map(|(log_id, last)| format!("{log_id} up to {last}"));
                let before = before.collect::<Vec<_>>().join(", ");
                tracing::warn!(%source, %log_id, before, missing,
                    "another log than before: it was made anew. If that was not meant, put the former one back; what \
                     it had taken and the store has not is missing in /ledger");
            }
        }
    }
}

/// Folds the deltas of transactions into the summaries of their hours, and those into summaries of longer spans.
pub(super) async fn fold_summaries(
    source: Source,
    store: Store,
    registered: watch::Receiver<bool>,
    metrics: CollectorMetrics,
    node: Arc<Node>,
) {
    wait_for(registered).await;
    let mut rest = FOLD;
    loop {
        tokio::time::sleep(rest).await;
        let started = Instant::now();
        match fold_once(source, &store, started).await {
            Ok((0, 0)) => {}
            Ok((events, spans)) => tracing::debug!(%source, events, spans, "summaries were folded"),
            // Another collector of this source folds at the same time, or the database is away.
            Err(error) => tracing::debug!(%source, %error, "summaries were not folded now"),
        }
        metrics.set_damaged(source, store.damaged_summaries(source).await.ok());
        node.count_handled();
        rest = FOLD.max(started.elapsed() * FOLD_REST).min(MAX_FOLD);
    }
}

/// Folds once; gives the events that were folded into hours, and the number of longer spans.
async fn fold_once(source: Source, store: &Store, started: Instant) -> Result<(u64, u64), StoreError> {
    let events = store.fold_summaries(source).await?;
    let mut spans = 0;
    while started.elapsed() < FOLD {
        match store.refresh_summaries(source).await? {
            0 => break,
            some => spans += some,
        }
    }
    Ok((events, spans))
}

/// Deletes rows that are older than `retention`, at most a twentieth of it late.
pub(super) async fn expire_rows(
    source: Source,
    store: Store,
    retention: Duration,
    registered: watch::Receiver<bool>,
    node: Arc<Node>,
) {
    wait_for(registered).await;
    let interval = retention / EXPIRE_ROWS_WITHIN_RETENTION;
    let interval = interval.clamp(Duration::from_secs(1), Duration::from_hours(24));
    let age = i64::try_from(retention.as_micros()).unwrap_or(i64::MAX);
    let mut clock = RetentionClock::default();
    loop {
        tokio::time::sleep(interval).await;
        let expire = async {
            let Some(now) = clock.now(&store).await? else {
                tracing::warn!(%source, "no row leaves by age: the clock is far ahead of the last one; if it goes on \
                    evenly for an hour, it is trusted");
                return Ok(0);
            };
            store.expire_rows(source, now.saturating_sub(age).max(0)).await
        };
        match expire.await {
            Ok(0) => {}
            Ok(rows) => tracing::info!(%source, rows, "rows were deleted by age"),
            Err(error) => tracing::debug!(%source, %error, "rows were not deleted now"),
        }
        node.count_handled();
    }
}

/// Deletes dead letters that are too old or too many.
pub(super) async fn expire_dead_letters(
    store: Store,
    retention: Retention,
    metrics: CollectorMetrics,
    node: Arc<Node>,
) {
    loop {
        tokio::time::sleep(EXPIRE_DEAD_LETTERS).await;
        match store.expire_letters(retention).await {
            Ok(deleted) => metrics.letters_expired.inc_by(deleted),
            Err(error) => tracing::debug!(%error, "dead letters were not deleted now"),
        }
        node.count_handled();
    }
}
