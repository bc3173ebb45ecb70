//! The groups of one source.

use std::sync::Arc;

use tokio::sync::watch::{Receiver, channel};

use super::batch_write::{self, BatchWriter};
use super::shared::Shared;
use super::{consume, maintenance, watch};
use crate::event::Source;
use crate::ops::Sampler;
use crate::runtime::{Mailbox, Node};

/// Frames that `batch_write` holds: 32 MiB at most, and about 1 MiB of small ones.
const BATCH_WRITE_BOUND: usize = 64;
/// Maximum log lines a second about requests whose events were stored.
const LINES_PER_SECOND: u32 = 50;

/// A source that was started.
pub(super) struct Started {
    pub source: Source,
    consume: Arc<Node>,
    writer: Mailbox<BatchWriter>,
}

impl Started {
    /// Waits until it takes no frames and stores none; gives the number of frames that it has stored.
    pub async fn finished(self) -> u64 {
        self.consume.stopped().await;
        self.writer.idle().await;
        self.writer.node().handled()
    }
}

/// Starts the groups of a source.
pub(super) fn start(collector: &Shared, source: Source) -> Started {
    let (pipeline, thread) = (collector.group(source, "pipeline"), collector.thread());
    let name = |actor| collector.child(source, actor);
    let progress = batch_write::Progress::default();
    let parts = batch_write::Parts {
        source,
        store: collector.store.clone(),
        metrics: collector.metrics.clone(),
        health: collector.health(source),
        drain: collector.drain.clone(),
        lanes: collector.config.batch_concurrency,
        max_deliveries: collector.config.max_deliveries,
        lines: Arc::new(Sampler::per_second(LINES_PER_SECOND)),
        progress: progress.clone(),
        limit: batch_write::BatchLimit::default(),
    };
    let writer = pipeline
        .actor(&name("batch_write"), BATCH_WRITE_BOUND, &thread, move || BatchWriter::new(parts.clone()));
    let (registered, is_registered) = channel(false);
    let parts = consume::Parts {
        source,
        log: collector.log.clone(),
        store: collector.store.clone(),
        writer: writer.clone(),
        metrics: collector.metrics.clone(),
        health: collector.health(source),
        drain: collector.drain.clone(),
        migrated: collector.migrated.clone(),
        registered: Arc::new(registered),
    };
    let consume = pipeline.task(&name("consume"), &thread, move |node| consume::consume(parts.clone(), node));
    start_maintenance(collector, source, &is_registered);
    start_watch(collector, source, progress);
    Started { source, consume, writer }
}

/// Starts the tasks that keep the ledger, the summaries and the rows small and current.
fn start_maintenance(collector: &Shared, source: Source, registered: &Receiver<bool>) {
    let (group, thread) = (collector.group(source, "maintenance"), &collector.main_thread);
    let name = |task| collector.child(source, task);
    let Shared { config, log, store, metrics, .. } = collector;
    let task = (log.clone(), store.clone(), registered.clone());
    group.task(&name("compact_ledger"), thread, move |node| {
        let (log, store, registered) = task.clone();
        maintenance::compact_ledger(source, log, store, registered, node)
    });
    let task = (log.clone(), store.clone(), metrics.clone(), registered.clone());
    group.task(&name("measure_lag"), thread, move |node| {
        let (log, store, metrics, registered) = task.clone();
        maintenance::measure_lag(source, log, store, metrics, registered, node)
    });
    let task = (store.clone(), registered.clone(), metrics.clone());
    group.task(&name("fold_summaries"), thread, move |node| {
        let (store, registered, metrics) = task.clone();
        maintenance::fold_summaries(source, store, registered, metrics, node)
    });
    if let Some(retention) = config.retention {
        let task = (store.clone(), registered.clone());
        group.task(&name("expire_rows"), thread, move |node| {
            let (store, registered) = task.clone();
            maintenance::expire_rows(source, store, retention, registered, node)
        });
    }
}

/// Starts the task that watches whether batches are stored.
fn start_watch(collector: &Shared, source: Source, progress: batch_write::Progress) {
    let group = collector.group(source, "storing");
    let task = (collector.store.clone(), collector.health(source), progress);
    group.task(&collector.child(source, "watch_storing"), &collector.main_thread, move |node| {
        let (store, health, progress) = task.clone();
        watch::watch_storing(source, store, health, progress, node)
    });
}
