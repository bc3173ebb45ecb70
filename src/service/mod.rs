//! Running services in this process, from their start to their drained end.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use actix::Arbiter;
use actix_web::dev::Server;
use futures::future;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;

use crate::ops::http::Requests;
use crate::runtime::{Drain, Registry};

/// Waits until a service holds nothing any more; says what it has done.
pub type Idle = Pin<Box<dyn Future<Output = String>>>;

/// A service that was started.
pub struct Running {
    /// Its name in logs.
    pub name: &'static str,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its listener.
    pub server: Server,
    /// Requests that are being answered.
    pub requests: Requests,
    /// Its actors.
    pub actors: Arc<Registry>,
    /// Its end.
    pub idle: Idle,
    /// Whether its work comes over HTTP. The listener of one whose work does not goes on telling how far it
    /// is until that is done.
    pub works_over_http: bool,
    /// Background tasks that end with it.
    pub probes: Vec<JoinHandle<()>>,
    /// The threads of its actors.
    pub arbiters: Vec<Arbiter>,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Everything was finished.
    Clean,
    /// An actor failed for good, or draining was not finished.
    Incomplete,
}

/// How long draining may take, and how long normal service goes on before.
#[derive(Debug, Clone, Copy)]
pub struct DrainBudget {
    /// Normal service after readiness is off.
    pub grace: Duration,
    /// Time to finish.
    pub timeout: Duration,
}

/// SIGTERM and SIGINT.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Listens from now on.
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for one of them.
    pub async fn received(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Runs services until a signal comes or an actor fails for good; then drains them, in the order in
/// which they are given, and runs `close` as the last thing.
pub async fn run(
    services: Vec<Running>,
    drain: Drain,
    mut signals: Signals,
    budget: DrainBudget,
    close: impl Future<Output = ()>,
) -> Ending {
    let mut handles = Vec::new();
    let mut listeners = Vec::new();
    let mut rest = Vec::new();
    for Running { name, server, requests, actors, idle, probes, arbiters, works_over_http, .. } in services {
        handles.push((name, server.handle(), requests, idle, works_over_http));
        listeners.push(actix::spawn(server));
        rest.push((actors, probes, arbiters));
    }
    let mut ending = Ending::Clean;
    {
        let failed = future::select_all(rest.iter().map(|(actors, _, _)| Box::pin(actors.failed())));
        let stopped = future::select_all(listeners);
        tokio::select! {
            name = signals.received() => tracing::info!(signal = name, "stopping"),
            (why, _, _) = failed => {
                tracing::error!(why, "an actor failed for good; stopping");
                ending = Ending::Incomplete;
            }
            (result, _, _) = stopped => {
                tracing::error!(?result, "a listener ended; stopping");
                ending = Ending::Incomplete;
            }
        }
    }
    drain.leave();
    if ending == Ending::Clean && !budget.grace.is_zero() {
        tokio::select! {
            () = tokio::time::sleep(budget.grace) => {}
            name = signals.received() => {
                tracing::warn!(signal = name, "second signal; ending at once");
                return Ending::Incomplete;
            }
        }
    }
    drain.start(budget.timeout);
    for (actors, _, _) in &rest {
        actors.set_draining();
    }
    let drained = async {
        for (name, listener, requests, idle, works_over_http) in handles {
            if works_over_http {
                requests.none().await;
                listener.stop(true).await;
            }
            let done = idle.await;
            if !works_over_http {
                listener.stop(true).await;
            }
            tracing::info!(service = name, done, "drained");
        }
        // What runs beside would ask for what is closed now.
        rest.iter().flat_map(|(_, probes, _)| probes).for_each(JoinHandle::abort);
        close.await;
    };
    tokio::select! {
        () = drained => {}
        () = tokio::time::sleep(budget.timeout) => {
            tracing::error!(timeout = ?budget.timeout, "draining was not finished in time; what is not acknowledged comes again");
            ending = Ending::Incomplete;
        }
        name = signals.received() => {
            tracing::warn!(signal = name, "second signal; ending at once");
            ending = Ending::Incomplete;
        }
    }
    for (_, probes, arbiters) in rest {
        probes.iter().for_each(JoinHandle::abort);
        for arbiter in &arbiters {
            arbiter.stop();
        }
    }
    ending
}
