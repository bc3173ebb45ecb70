//! Parts of a service that its HTTP routes use.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::metrics::ServiceMetrics;
use super::readiness::Readiness;
use crate::config::{HttpSettings, Secret, Token};
use crate::runtime::{DrainHandle, Tree};

/// Parts of a service that its HTTP routes use.
#[derive(Clone)]
pub struct ServiceView {
    /// Name in answers and logs.
    pub name: &'static str,
    /// Tree of actors and tasks.
    pub actors: Arc<Tree>,
    /// Metrics.
    pub metrics: ServiceMetrics,
    /// Readiness of the dependencies.
    pub readiness: Arc<Readiness>,
    /// Phase of the service's life.
    pub drain: DrainHandle,
    /// Token for commands of operators; without one they are off.
    pub admin_token: Option<Secret>,
    /// Requests in progress.
    pub requests: Requests,
    /// Bearer tokens of all routes but health and metrics; empty if the routes are open.
    pub tokens: Vec<Token>,
    /// Limits, address and TLS of the listener.
    pub settings: HttpSettings,
}

/// Number of requests in progress.
#[derive(Debug, Clone, Default)]
pub struct Requests(Arc<AtomicUsize>);

impl Requests {
    /// Counts a request until the result is dropped.
    pub(super) fn enter(&self) -> impl Drop + use<> {
        struct Entered(Arc<AtomicUsize>);
        impl Drop for Entered {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        self.0.fetch_add(1, Ordering::Relaxed);
        Entered(self.0.clone())
    }

    /// Waits until no request is in progress.
    pub async fn none(&self) {
        while self.0.load(Ordering::Relaxed) > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
