//! Metrics that every service has.

use std::sync::Arc;
use std::time::Instant;

use prometheus::process_collector::ProcessCollector;
use prometheus::{Encoder, Gauge, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, TextEncoder};

use super::actors::ActorMetrics;
use super::catalog::{
    DRAIN_REMAINING, DRAINING, HTTP_CONNECTIONS, HTTP_HEADS_TOO_LARGE, HTTP_REQUESTS, READY,
};
use crate::ops::readiness::Readiness;
use crate::runtime::{Phase, Tree};

/// Metrics of one service: those that every service has, and the registry for its own.
#[derive(Clone)]
pub struct ServiceMetrics {
    pub(super) registry: prometheus::Registry,
    requests: IntCounterVec,
    /// HTTP connections that are open.
    pub connections: IntGauge,
    ready: IntGaugeVec,
    draining: IntGauge,
    drain_remaining: Gauge,
    /// Requests whose head was larger than `ESS_MAX_HEADER`.
    pub heads_too_large: IntCounter,
}

impl ServiceMetrics {
    /// Registers the metrics of a service and of its actors.
    pub fn new(actors: Arc<Tree>) -> Self {
        let registry = prometheus::Registry::new();
        for collector in [
            Box::new(ProcessCollector::for_self()) as Box<dyn prometheus::core::Collector>,
            Box::new(ActorMetrics::new(actors)),
        ] {
            #[allow(clippy::expect_used)]
            registry.register(collector).expect("the metrics are registered once");
        }
        Self {
            requests: HTTP_REQUESTS.counters(&registry),
            connections: HTTP_CONNECTIONS.gauge(&registry),
            ready: READY.gauges(&registry),
            draining: DRAINING.gauge(&registry),
            drain_remaining: DRAIN_REMAINING.float_gauge(&registry),
            heads_too_large: HTTP_HEADS_TOO_LARGE.counter(&registry),
            registry,
        }
    }

    /// All metrics as they are at this moment.
    pub fn gather(&self) -> Vec<prometheus::proto::MetricFamily> {
        self.registry.gather()
    }

    /// Counts a request; `route` is its match pattern or `unmatched`.
    pub fn count_request(&self, route: &str, status: u16) {
        let class = match status {
            ..300 => "2xx",
            300..400 => "3xx",
            400..500 => "4xx",
            500.. => "5xx",
        };
        self.requests.with_label_values(&[route, class]).inc();
    }

    /// All metrics as Prometheus text, for the service's phase and its dependencies' last probes.
    ///
    /// # Errors
    ///
    /// If the encoder refuses a metric.
    pub fn text(&self, phase: Phase, readiness: &Readiness) -> Result<Vec<u8>, prometheus::Error> {
        for (dependency, answers) in readiness.answers() {
            self.ready.with_label_values(&[&dependency]).set(i64::from(answers));
        }
        let remaining = match phase {
            Phase::Draining(deadline) => Some(deadline.saturating_duration_since(Instant::now())),
            Phase::Running | Phase::Leaving => None,
        };
        self.draining.set(i64::from(remaining.is_some()));
        self.drain_remaining.set(remaining.unwrap_or_default().as_secs_f64());
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}
