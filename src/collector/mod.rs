//! A collector: from the log to rows, for one source or several.
//!
//! ```text
//! log ──Delivery { frame, receipt }──▶ consume ──Collect──▶ batch_write ──Batch──▶ store
//!                                         ▲                      │ committed: acknowledge
//!                                         └───────room───────────┘
//! collector.<source>                      collector
//! ├── pipeline                             ├── <source>.pipeline
//! │   consume, batch_write, dead_letters   │   <source>.consume, <source>.batch_write
//! ├── maintenance                          ├── <source>.maintenance
//! │   compact_ledger, measure_lag,         │   <source>.compact_ledger, …, <source>.watch_storing
//! │   fold_summaries, expire_rows,         ├── letters   dead_letters, expire_dead_letters
//! │   expire_dead_letters                  └── watch     probe_database, find_sources
//! └── watch
//!     probe_database, watch_storing
//! ```
//!
//! `consume` asks the log for as many frames as `batch_write` has room for. `batch_write` writes the frames that wait in
//! one transaction, and acknowledges them after its commit. Several collectors of one source share its frames.
//!
//! A collector of several sources has one listener and one pool of connections. A source whose groups give up is started
//! again and again, and does not end the others. `find_sources` adds sources that the log has a topic for.

mod batch_write;
mod consume;
mod dead_letters;
mod find_sources;
mod maintenance;
mod selection;
mod shared;
mod source;
mod sources;
mod watch;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use tokio::sync::watch::{Sender, channel};

use crate::config::Config;
use crate::log::SharedLog;
use crate::ops::metrics::CollectorMetrics;
use crate::runtime::{DrainHandle, Node};
use crate::service::{Builder, Listener, Running, StartError};
use crate::store::{Retention, Store};

pub use selection::Selection;
use shared::{DATABASE, LOG, Shared};
use sources::Sources;

/// Threads of a collector of several sources.
const THREADS: usize = 4;

/// Starts a collector of the selected sources.
///
/// # Errors
///
/// If the listener cannot be started.
pub fn start(
    config: &Config,
    selection: &Selection,
    port: u16,
    log: &SharedLog,
    store: &Store,
    drain: &DrainHandle,
) -> Result<Running, StartError> {
    let single = selection.single();
    let root = single.map_or_else(|| "collector".to_owned(), |source| format!("collector.{source}"));
    let mut service = Builder::new(selection.name(), &root, &[LOG, DATABASE], drain);
    let metrics = CollectorMetrics::new(&service.metrics);
    let (migrated, has_schema) = channel(false);
    let threads = (0..if single.is_some() { 1 } else { THREADS }).map(|_| service.thread()).collect();
    let collector = Arc::new(Sources::new(Shared {
        config: config.clone(),
        log: log.clone(),
        store: store.clone(),
        metrics,
        readiness: service.readiness.clone(),
        drain: drain.clone(),
        tree: service.tree.clone(),
        threads,
        main_thread: service.main_thread(),
        migrated: has_schema,
        single,
        next_thread: AtomicUsize::new(0),
    }));
    for source in selection.sources() {
        collector.add(source);
    }
    let letters = start_letters(&collector.shared);
    start_watch(&collector, selection, migrated);
    service.tell(log.bus(), config.admin_token.clone());

    let listener =
        Listener { port, workers: 1, works_over_http: false, tokens: Vec::new(), routes: |_: &mut _| {} };
    service.start(config, listener, async move {
        letters.stopped().await;
        format!("{} frames", collector.finished().await)
    })
}

/// Starts the tasks that store and delete dead letters, of all sources; gives the one that has to end first.
fn start_letters(collector: &Shared) -> Arc<Node> {
    let Shared { config, log, store, metrics, drain, migrated, tree, .. } = collector;
    let parts = dead_letters::Parts {
        log: log.clone(),
        store: store.clone(),
        drain: drain.clone(),
        migrated: migrated.clone(),
    };
    let group = tree.group("letters");
    let task = group
        .task("dead_letters", &collector.thread(), move |node| dead_letters::consume(parts.clone(), node));
    let retention = Retention { age: config.dead_letter_retention, bytes: config.log.dead_letter_max_bytes };
    let (store, metrics) = (store.clone(), metrics.clone());
    group.task("expire_dead_letters", &collector.main_thread, move |node| {
        maintenance::expire_dead_letters(store.clone(), retention, metrics.clone(), node)
    });
    task
}

/// Starts the tasks that watch the database and the log's topics.
fn start_watch(collector: &Arc<Sources>, selection: &Selection, migrated: Sender<bool>) {
    let shared = &collector.shared;
    let (group, thread) = (shared.tree.group("watch"), &shared.main_thread);
    let task = (shared.store.clone(), shared.readiness.clone(), Arc::new(migrated));
    group.task("probe_database", thread, move |node| {
        let (store, readiness, migrated) = task.clone();
        watch::probe_database(store, readiness, migrated, node)
    });
    if shared.single.is_none() {
        let (collector, selection) = (Arc::downgrade(collector), selection.clone());
        group.task("find_sources", thread, move |node| {
            find_sources::find_sources(collector.clone(), selection.clone(), node)
        });
    }
}
