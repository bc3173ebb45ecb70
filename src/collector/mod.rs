//! A collector: from the log to rows, for one source.
//!
//! ```text
//! log ──Delivery { frame, receipt }──▶ consume ──Collect──▶ batch_write ──Batch──▶ store
//!                                         ▲                      │ committed: acknowledge
//!                                         └───────room───────────┘
//! collector.<source>
//! ├── pipeline      consume, batch_write, dead_letters
//! ├── maintenance   compact_ledger, measure_lag, fold_summaries, expire_rows, expire_dead_letters
//! └── watch         probe_database, watch_storing
//! ```
//!
//! `consume` asks the log for as many frames as `batch_write` has room for. `batch_write` writes the frames that wait in
//! one transaction, and acknowledges them after its commit. Several collectors of one source share its frames.

mod batch_write;
mod consume;
mod dead_letters;
mod maintenance;
mod watch;

use std::sync::{Arc, LazyLock};

use tokio::sync::watch::{Receiver, Sender, channel};

use crate::config::Config;
use crate::event::{BySource, Source};
use crate::log::SharedLog;
use crate::ops::Sampler;
use crate::ops::metrics::CollectorMetrics;
use crate::runtime::DrainHandle;
use crate::service::{Builder, Listener, Running, StartError};
use crate::store::{Retention, Store};

/// Name of the log in readiness.
const LOG: &str = "log";
/// Name of the database in readiness.
const DATABASE: &str = "database";
/// Name of frames of newer versions in readiness.
const FRAMES: &str = "frames";
/// Name of the batches that wait for the database in readiness.
const STORING: &str = "storing";
/// Frames that `batch_write` holds: 32 MiB at most, and about 1 MiB of small ones.
const BATCH_WRITE_BOUND: usize = 64;
/// Maximum log lines a second about requests whose events were stored.
const LINES_PER_SECOND: u32 = 50;

/// Name of a source's collector.
pub fn name(source: Source) -> &'static str {
    static NAMES: LazyLock<BySource<String>> =
        LazyLock::new(|| BySource::new(|source| format!("collector-{source}")));
    NAMES.of(source)
}

/// Starts a collector of one source.
///
/// # Errors
///
/// If the listener cannot be started.
pub fn start(
    config: &Config,
    source: Source,
    port: u16,
    log: &SharedLog,
    store: &Store,
    drain: &DrainHandle,
) -> Result<Running, StartError> {
    let root = format!("collector.{source}");
    let mut service = Builder::new(name(source), &root, &[LOG, DATABASE], drain);
    let metrics = CollectorMetrics::new(&service.metrics);
    let (migrated, has_schema) = channel(false);
    let progress = batch_write::Progress::default();

    let pipeline = service.group("pipeline");
    let thread = service.thread();
    let parts = batch_write::Parts {
        source,
        store: store.clone(),
        metrics: metrics.clone(),
        readiness: service.readiness.clone(),
        drain: drain.clone(),
        lanes: config.batch_concurrency,
        max_deliveries: config.max_deliveries,
        lines: Arc::new(Sampler::per_second(LINES_PER_SECOND)),
        progress: progress.clone(),
        limit: batch_write::BatchLimit::default(),
    };
    let writer = pipeline.actor("batch_write", BATCH_WRITE_BOUND, &thread, move || {
        batch_write::BatchWriter::new(parts.clone())
    });
    let parts = consume::Parts {
        source,
        log: log.clone(),
        writer: writer.clone(),
        metrics: metrics.clone(),
        readiness: service.readiness.clone(),
        drain: drain.clone(),
        migrated: has_schema.clone(),
    };
    let consume = pipeline.task("consume", &thread, move |node| consume::consume(parts.clone(), node));
    let parts = dead_letters::Parts {
        log: log.clone(),
        store: store.clone(),
        drain: drain.clone(),
        migrated: has_schema.clone(),
    };
    let dead_letters =
        pipeline.task("dead_letters", &thread, move |node| dead_letters::consume(parts.clone(), node));

    start_maintenance(&service, config, source, log, store, &metrics, has_schema);
    start_watch(&service, source, store, progress, migrated);
    service.tell(log.bus(), config.admin_token.clone());

    let listener =
        Listener { port, workers: 1, works_over_http: false, tokens: Vec::new(), routes: |_: &mut _| {} };
    service.start(config, listener, async move {
        consume.stopped().await;
        dead_letters.stopped().await;
        writer.idle().await;
        format!("{} frames", writer.node().handled())
    })
}

/// Starts the tasks that keep the ledger, the summaries and the tables small and current.
fn start_maintenance(
    service: &Builder,
    config: &Config,
    source: Source,
    log: &SharedLog,
    store: &Store,
    metrics: &CollectorMetrics,
    migrated: Receiver<bool>,
) {
    let (group, thread) = (service.group("maintenance"), service.main_thread());
    let task = (log.clone(), store.clone());
    group.task("compact_ledger", &thread, move |node| {
        let (log, store) = task.clone();
        maintenance::compact_ledger(source, log, store, node)
    });
    let task = (log.clone(), store.clone(), metrics.clone());
    group.task("measure_lag", &thread, move |node| {
        let (log, store, metrics) = task.clone();
        maintenance::measure_lag(source, log, store, metrics, node)
    });
    let task = (store.clone(), migrated, metrics.clone());
    group.task("fold_summaries", &thread, move |node| {
        let (store, migrated, metrics) = task.clone();
        maintenance::fold_summaries(source, store, migrated, metrics, node)
    });
    let retention = Retention { age: config.dead_letter_retention, bytes: config.log.dead_letter_max_bytes };
    let task = (store.clone(), metrics.clone());
    group.task("expire_dead_letters", &thread, move |node| {
        let (store, metrics) = task.clone();
        maintenance::expire_dead_letters(store, retention, metrics, node)
    });
    if let Some(retention) = config.retention {
        let store = store.clone();
        group.task("expire_rows", &thread, move |node| {
            maintenance::expire_rows(source, store.clone(), retention, node)
        });
    }
}

/// Starts the tasks that watch the database.
fn start_watch(
    service: &Builder,
    source: Source,
    store: &Store,
    progress: batch_write::Progress,
    migrated: Sender<bool>,
) {
    let (group, thread) = (service.group("watch"), service.main_thread());
    let task = (store.clone(), service.readiness.clone(), Arc::new(migrated));
    group.task("probe_database", &thread, move |node| {
        let (store, readiness, migrated) = task.clone();
        watch::probe_database(store, readiness, migrated, node)
    });
    let task = (store.clone(), service.readiness.clone(), progress);
    group.task("watch_storing", &thread, move |node| {
        let (store, readiness, progress) = task.clone();
        watch::watch_storing(source, store, readiness, progress, node)
    });
}
