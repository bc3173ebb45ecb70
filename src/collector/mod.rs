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
mod source;
mod watch;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use actix::ArbiterHandle;
use tokio::sync::watch::{Receiver, Sender, channel};

use crate::config::Config;
use crate::event::Source;
use crate::log::SharedLog;
use crate::ops::metrics::CollectorMetrics;
use crate::ops::{Away, Readiness};
use crate::runtime::{DrainHandle, Group, Tree};
use crate::service::{Builder, Listener, Running, StartError};
use crate::store::{Retention, Store};

pub use selection::Selection;

/// Name of the log in readiness.
const LOG: &str = "log";
/// Name of the database in readiness.
const DATABASE: &str = "database";
/// Name of frames of newer versions in readiness.
const FRAMES: &str = "frames";
/// Name of the batches that wait for the database in readiness.
const STORING: &str = "storing";
/// Threads of a collector of several sources.
const THREADS: usize = 4;

/// Dependencies of the groups of every source of a collector.
struct Collector {
    config: Config,
    log: SharedLog,
    store: Store,
    metrics: CollectorMetrics,
    readiness: Arc<Readiness>,
    drain: DrainHandle,
    tree: Arc<Tree>,
    /// Threads of the pipelines.
    threads: Vec<ArbiterHandle>,
    main_thread: ArbiterHandle,
    /// True once the database has its schema.
    migrated: Receiver<bool>,
    /// The source, if the collector has one alone: its name is then in the root's.
    single: Option<Source>,
    /// Sources that were started, with what has to end before the collector ends.
    started: Mutex<Vec<source::Started>>,
    next_thread: AtomicUsize,
}

impl Collector {
    /// Adds a group; one of several sources gives up alone.
    fn group(&self, source: Source, name: &str) -> Group {
        match self.single {
            Some(_) => self.tree.group(name),
            None => self.tree.isolated_group(&self.child(source, name)),
        }
    }

    /// Name of a source's actor or group behind the root's name.
    fn child(&self, source: Source, name: &str) -> String {
        match self.single {
            Some(_) => name.to_owned(),
            None => format!("{source}.{name}"),
        }
    }

    /// Reports a dependency of one source: as the collector's, or as a part of it where there are other sources.
    fn health(&self, source: Source) -> Health {
        let part_of = self.single.is_none().then_some(source);
        Health { readiness: self.readiness.clone(), part_of }
    }

    fn thread(&self) -> ArbiterHandle {
        let next = self.next_thread.fetch_add(1, Ordering::Relaxed);
        self.threads[next % self.threads.len()].clone()
    }

    /// Starts a source, unless it was started before.
    fn add(&self, source: Source) {
        let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        if !started.iter().any(|known| known.source == source) {
            if self.single.is_none() {
                tracing::info!(%source, "collecting this source");
            }
            let begun = source::start(self, source);
            started.push(begun);
        }
    }

    /// Waits until no source has work.
    async fn finished(&self) -> u64 {
        let mut frames = 0;
        loop {
            let next = self.started.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some(source) = next else { return frames };
            frames += source.finished().await;
        }
    }
}

/// Readiness of one source's dependencies.
#[derive(Clone)]
struct Health {
    readiness: Arc<Readiness>,
    /// The source, if others have the same dependency in this service.
    part_of: Option<Source>,
}

impl Health {
    fn report(&self, dependency: &'static str, answer: Result<(), Away>) {
        match self.part_of {
            None => self.readiness.report(dependency, answer),
            Some(source) => self.readiness.report_part(&format!("{dependency}.{source}"), answer),
        }
    }
}

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
    let dependencies: &[&'static str] = if single.is_some() { &[LOG, DATABASE] } else { &[DATABASE] };
    let mut service = Builder::new(selection.name(), &root, dependencies, drain);
    let metrics = CollectorMetrics::new(&service.metrics);
    let (migrated, has_schema) = channel(false);
    let threads = (0..if single.is_some() { 1 } else { THREADS }).map(|_| service.thread()).collect();
    let collector = Arc::new(Collector {
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
        started: Mutex::default(),
        next_thread: AtomicUsize::new(0),
    });
    for source in selection.sources() {
        collector.add(source);
    }
    let letters = start_letters(&collector);
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
fn start_letters(collector: &Collector) -> Arc<crate::runtime::Node> {
    let Collector { config, log, store, metrics, drain, migrated, tree, .. } = collector;
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
fn start_watch(collector: &Arc<Collector>, selection: &Selection, migrated: Sender<bool>) {
    let (group, thread) = (collector.tree.group("watch"), &collector.main_thread);
    let task = (collector.store.clone(), collector.readiness.clone(), Arc::new(migrated));
    group.task("probe_database", thread, move |node| {
        let (store, readiness, migrated) = task.clone();
        watch::probe_database(store, readiness, migrated, node)
    });
    if selection.finds_sources() {
        let (collector, selection) = (Arc::downgrade(collector), selection.clone());
        group.task("find_sources", thread, move |node| {
            find_sources::find_sources(collector.clone(), selection.clone(), node)
        });
    }
}
