//! Running services until something ends them, and draining them.

use std::future::Future;
use std::time::Duration;

use actix::Arbiter;
use actix_web::dev::ServerHandle;
use futures::future;
use tokio::task::JoinHandle;

use super::{Drained, Running, Signals};
use crate::ops::http::Requests;
use crate::runtime::{Drain, Tree};

/// Outcome of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// A signal came, and all work was finished.
    Clean,
    /// A service failed, or draining was not finished in time.
    Incomplete,
}

/// Time limits of the end.
#[derive(Debug, Clone, Copy)]
pub struct DrainBudget {
    /// Normal service after readiness is off.
    pub grace: Duration,
    /// Time to finish the work.
    pub timeout: Duration,
}

/// A service whose listener runs.
struct Listening {
    name: &'static str,
    listener: ServerHandle,
    requests: Requests,
    tree: std::sync::Arc<Tree>,
    works_over_http: bool,
    drained: Drained,
}

type Listeners = Vec<JoinHandle<std::io::Result<()>>>;

/// Runs services until a signal comes, a service fails or a listener ends. Then drains them in the given order, ends
/// their background tasks, and runs `close` last. A second signal, and the time limit, end the draining early.
pub async fn run(
    services: Vec<Running>,
    drain: Drain,
    mut signals: Signals,
    budget: DrainBudget,
    close: impl Future<Output = ()>,
) -> Ending {
    let (services, listeners, threads) = listen(services);
    let mut ending = until_stopped(&services, listeners, &mut signals).await;
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
    let drained = async {
        drain_all(services).await;
        close.await;
    };
    tokio::select! {
        () = drained => {}
        () = tokio::time::sleep(budget.timeout) => {
            tracing::error!(timeout = ?budget.timeout,
                "draining was not finished in time; frames that are not acknowledged are delivered again");
            ending = Ending::Incomplete;
        }
        name = signals.received() => {
            tracing::warn!(signal = name, "second signal; ending at once");
            ending = Ending::Incomplete;
        }
    }
    for thread in &threads {
        thread.stop();
    }
    ending
}

/// Runs the listeners.
fn listen(services: Vec<Running>) -> (Vec<Listening>, Listeners, Vec<Arbiter>) {
    let (mut listeners, mut threads) = (Vec::new(), Vec::new());
    let services = services.into_iter().map(|service| {
        let Running { name, server, requests, tree, drained, works_over_http, threads: own, .. } = service;
        let listener = server.handle();
        listeners.push(actix::spawn(server));
        threads.extend(own);
        Listening { name, listener, requests, tree, works_over_http, drained }
    });
    (services.collect(), listeners, threads)
}

/// Waits for a signal, a failed service or the end of a listener.
async fn until_stopped(services: &[Listening], listeners: Listeners, signals: &mut Signals) -> Ending {
    let failed = future::select_all(services.iter().map(|service| Box::pin(service.tree.failed())));
    tokio::select! {
        name = signals.received() => {
            tracing::info!(signal = name, "stopping");
            Ending::Clean
        }
        (why, _, _) = failed => {
            tracing::error!(why, "a service has failed; stopping");
            Ending::Incomplete
        }
        (result, _, _) = future::select_all(listeners) => {
            tracing::error!(?result, "a listener ended; stopping");
            Ending::Incomplete
        }
    }
}

/// Drains service after service, then ends their background tasks, which would ask for what is closed next.
async fn drain_all(services: Vec<Listening>) {
    let mut trees = Vec::new();
    for Listening { name, listener, requests, tree, works_over_http, drained } in services {
        if works_over_http {
            requests.none().await;
            listener.stop(true).await;
        }
        let done = drained.await;
        if !works_over_http {
            listener.stop(true).await;
        }
        tracing::info!(service = name, done, "drained");
        trees.push(tree);
    }
    for tree in trees {
        tree.stop().await;
    }
}
