//! Dependencies that the groups of all sources of a collector share.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use actix::ArbiterHandle;
use tokio::sync::watch::Receiver;

use crate::config::Config;
use crate::event::Source;
use crate::log::SharedLog;
use crate::ops::metrics::CollectorMetrics;
use crate::ops::{Away, Readiness};
use crate::runtime::{DrainHandle, Group, Tree};
use crate::store::Store;

/// Name of the log in readiness.
pub(super) const LOG: &str = "log";
/// Name of the database in readiness.
pub(super) const DATABASE: &str = "database";
/// Name of frames of newer versions in readiness.
pub(super) const FRAMES: &str = "frames";
/// Name of the batches that wait for the database in readiness.
pub(super) const STORING: &str = "storing";

/// Dependencies of the groups of every source of a collector.
pub(super) struct Shared {
    pub config: Config,
    pub log: SharedLog,
    pub store: Store,
    pub metrics: CollectorMetrics,
    pub readiness: Arc<Readiness>,
    pub drain: DrainHandle,
    pub tree: Arc<Tree>,
    /// Threads of the pipelines.
    pub threads: Vec<ArbiterHandle>,
    pub main_thread: ArbiterHandle,
    /// True once the database has its schema.
    pub migrated: Receiver<bool>,
    /// The source, if the collector has one alone: its name is then in the root's.
    pub single: Option<Source>,
    pub next_thread: AtomicUsize,
}

impl Shared {
    /// Adds a group; one of several sources gives up alone.
    pub fn group(&self, source: Source, name: &str) -> Group {
        match self.single {
            Some(_) => self.tree.group(name),
            None => self.tree.isolated_group(&self.child(source, name)),
        }
    }

    /// Name of a source's actor or group behind the root's name.
    pub fn child(&self, source: Source, name: &str) -> String {
        match self.single {
            Some(_) => name.to_owned(),
            None => format!("{source}.{name}"),
        }
    }

    /// Reports a dependency of one source: as the collector's, or as a part of it where there are other sources.
    pub fn health(&self, source: Source) -> Health {
        let part_of = self.single.is_none().then_some(source);
        Health { readiness: self.readiness.clone(), part_of }
    }

    /// The thread of the next pipeline.
    pub fn thread(&self) -> ArbiterHandle {
        let next = self.next_thread.fetch_add(1, Ordering::Relaxed);
        self.threads[next % self.threads.len()].clone()
    }
}

/// Readiness of one source's dependencies.
#[derive(Clone)]
pub(super) struct Health {
    pub readiness: Arc<Readiness>,
    /// The source, if others have the same dependency in this service.
    pub part_of: Option<Source>,
}

impl Health {
    /// Reports the answer of a dependency.
    pub fn report(&self, dependency: &'static str, answer: Result<(), Away>) {
        match self.part_of {
            None => self.readiness.report(dependency, answer),
            Some(source) => self.readiness.report_part(&format!("{dependency}.{source}"), answer),
        }
    }
}
