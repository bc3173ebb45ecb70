//! The builder that every service is made with.

use std::sync::{Arc, OnceLock};

use actix::{Arbiter, ArbiterHandle};
use actix_web::web::ServiceConfig;

use super::Running;
use crate::config::{Config, Secret, Token};
use crate::fleet;
use crate::log::Bus;
use crate::ops::Readiness;
use crate::ops::http::{ListenError, Requests, ServiceView, serve};
use crate::ops::metrics::ServiceMetrics;
use crate::runtime::{DrainHandle, Group, Tree};

/// Reason for which a service could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address cannot be bound, or a file of the listener is wrong.
    #[error(transparent)]
    Listener(#[from] ListenError),
    /// A token has a name that the gateway gives to clients of another kind.
    #[error("ESS_WEBHOOK_TOKEN: no publisher can be called {name}")]
    ReservedName {
        /// The name.
        name: String,
    },
}

/// A service before its start.
pub struct Builder {
    name: &'static str,
    /// Its tree of actors and tasks.
    pub tree: Arc<Tree>,
    /// Its metrics.
    pub metrics: ServiceMetrics,
    /// State of its dependencies.
    pub readiness: Arc<Readiness>,
    /// Phase of its life.
    pub drain: DrainHandle,
    threads: Vec<Arbiter>,
    /// Port of the listener, once it listens.
    port: Arc<OnceLock<u16>>,
}

/// Listener of a service.
pub struct Listener<R> {
    /// Port, 0 for any that is free.
    pub port: u16,
    /// Threads that answer.
    pub workers: usize,
    /// True if the service's work comes over HTTP.
    pub works_over_http: bool,
    /// Tokens of which one is asked for, but by health and metrics; none: no token is asked for.
    pub tokens: Vec<Token>,
    /// Adds the service's own routes.
    pub routes: R,
}

impl Builder {
    /// A service by its name in logs. `root` is its name in the tree; `dependencies` have to answer before it is ready.
    pub fn new(name: &'static str, root: &str, dependencies: &[&'static str], drain: &DrainHandle) -> Self {
        let tree = Tree::new(root, drain.clone());
        let metrics = ServiceMetrics::new(tree.clone());
        let readiness = Arc::new(Readiness::new(name, dependencies));
        Self {
            name,
            tree,
            metrics,
            readiness,
            drain: drain.clone(),
            threads: Vec::new(),
            port: Arc::default(),
        }
    }

    /// Adds a group to the tree.
    pub fn group(&self, name: &str) -> Group {
        self.tree.group(name)
    }

    /// Starts a thread for actors; it ends with the service.
    pub fn thread(&mut self) -> ArbiterHandle {
        let thread = Arbiter::new();
        let handle = thread.handle();
        self.threads.push(thread);
        handle
    }

    /// Tells the other processes of this service while it runs, and restarts actors that an operator asks for through
    /// one of them.
    pub fn tell(&self, bus: Bus, admin_token: Option<Secret>) {
        let (tree, metrics, readiness) = (self.tree.clone(), self.metrics.clone(), self.readiness.clone());
        let (drain, port) = (self.drain.clone(), self.port.clone());
        let group = self.group("fleet");
        let (requests, actors) = (bus.clone(), tree.clone());
        group.task("restarts", &self.main_thread(), move |node| {
            fleet::obey(requests.clone(), actors.clone(), admin_token.clone(), move || node.count_handled())
        });
        group.task("status", &self.main_thread(), move |node| {
            let service = fleet::Service {
                tree: tree.clone(),
                metrics: metrics.clone(),
                readiness: readiness.clone(),
                drain: drain.clone(),
                port: port.clone(),
            };
            fleet::tell(bus.clone(), service, move || node.count_handled())
        });
    }

    /// The thread on which services are started: for tasks that must not take time from a service's actors.
    pub fn main_thread(&self) -> ArbiterHandle {
        Arbiter::current()
    }

    /// Starts the listener. `drained` waits until the service holds no work, its sources first and its sinks last.
    ///
    /// # Errors
    ///
    /// If the address cannot be bound, or a file of the listener is wrong.
    pub fn start<R>(
        self,
        config: &Config,
        listener: Listener<R>,
        drained: impl Future<Output = String> + 'static,
    ) -> Result<Running, StartError>
    where
        R: Fn(&mut ServiceConfig) + Clone + Send + 'static,
    {
        let Self { name, tree, metrics, readiness, drain, threads, port: listens_at } = self;
        let Listener { port, workers, works_over_http, tokens, routes } = listener;
        let requests = Requests::default();
        let view = ServiceView {
            name,
            actors: tree.clone(),
            metrics,
            readiness: readiness.clone(),
            drain,
            admin_token: config.admin_token.clone(),
            requests: requests.clone(),
            tokens,
            settings: config.http.clone(),
        };
        let (server, address) = serve(view, port, workers, routes)?;
        listens_at.get_or_init(|| address.port());
        let drained = Box::pin(drained);
        Ok(Running { name, address, server, requests, tree, readiness, drained, works_over_http, threads })
    }
}
