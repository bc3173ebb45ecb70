//! Services in this process, from their start to their drained end.
//!
//! ```text
//! Builder { tree, metrics, readiness, threads } ──start──▶ Running ──run──▶ Ending
//!                                                 listener      │
//!          signal, failed service or ended listener ────────────┤
//!          not ready ▶ grace ▶ no new work ▶ sources … sinks ▶ background tasks ▶ close
//! ```
//!
//! Every service is made by the [`Builder`], which brings its tree of actors, its metrics, readiness and listener
//! together. [`run`] runs several of them and drains them in the order in which they are given.

mod builder;
mod drain;
mod signals;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use actix::Arbiter;
use actix_web::dev::Server;

use crate::ops::Readiness;
use crate::ops::http::Requests;
use crate::runtime::Tree;

pub use builder::{Builder, Listener, StartError};
pub use drain::{DrainBudget, Ending, run};
pub use signals::Signals;

/// Waits until a service holds no work, its sources first and its sinks last; gives a summary of its work.
pub type Drained = Pin<Box<dyn Future<Output = String>>>;

/// A service that was started.
pub struct Running {
    /// Name in logs.
    pub name: &'static str,
    /// Address of the listener.
    pub address: SocketAddr,
    /// The listener.
    pub server: Server,
    /// Requests that are being answered.
    pub requests: Requests,
    /// Actors and background tasks.
    pub tree: Arc<Tree>,
    /// State of the dependencies.
    pub readiness: Arc<Readiness>,
    /// Its end.
    pub drained: Drained,
    /// True if its work comes over HTTP. The listener of another service answers until its work is done, so that its
    /// progress can be watched.
    pub works_over_http: bool,
    /// Threads of the actors.
    pub threads: Vec<Arbiter>,
}
