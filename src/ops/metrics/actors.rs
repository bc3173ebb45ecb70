//! Metrics of a service's actors, read from their tree at each scrape.

use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{CounterVec, GaugeVec, IntCounterVec};

use super::catalog::{
    ACTOR_BLOCKED, ACTOR_HANDLED, ACTOR_MAILBOX_BOUND, ACTOR_MAILBOX_DEPTH, ACTOR_RESTARTS,
};
use crate::runtime::{RestartReason, Tree};

/// Reads the actors' tree at each scrape.
pub(super) struct ActorMetrics {
    actors: Arc<Tree>,
    descs: Vec<Desc>,
}

/// One scrape's values.
struct Scrape {
    depth: GaugeVec,
    bound: GaugeVec,
    blocked: CounterVec,
    restarts: IntCounterVec,
    handled: IntCounterVec,
}

impl Scrape {
    fn new() -> Result<Self, prometheus::Error> {
        Ok(Self {
            depth: ACTOR_MAILBOX_DEPTH.unregistered_gauges()?,
            bound: ACTOR_MAILBOX_BOUND.unregistered_gauges()?,
            blocked: ACTOR_BLOCKED.unregistered_float_counters()?,
            restarts: ACTOR_RESTARTS.unregistered_counters()?,
            handled: ACTOR_HANDLED.unregistered_counters()?,
        })
    }

    fn collectors(&self) -> [&dyn Collector; 5] {
        [&self.depth, &self.bound, &self.blocked, &self.restarts, &self.handled]
    }
}

impl ActorMetrics {
    pub(super) fn new(actors: Arc<Tree>) -> Self {
        let descs = |scrape: Scrape| {
            scrape.collectors().into_iter().flat_map(|metric| metric.desc().into_iter().cloned()).collect()
        };
        Self { actors, descs: Scrape::new().map(descs).unwrap_or_default() }
    }
}

impl Collector for ActorMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Ok(scrape) = Scrape::new() else { return Vec::new() };
        self.actors.each_node(|node| {
            let name = &[node.name()];
            if let Some(bound) = node.bound() {
                scrape.depth.with_label_values(name).set(node.depth() as f64);
                scrape.bound.with_label_values(name).set(bound as f64);
                scrape.blocked.with_label_values(name).inc_by(node.blocked().as_secs_f64());
            }
            scrape.handled.with_label_values(name).inc_by(node.handled());
            for reason in RestartReason::ALL {
                let labels = &[node.name(), reason.as_str()];
                scrape.restarts.with_label_values(labels).inc_by(node.restarts(reason));
            }
        });
        scrape.collectors().into_iter().flat_map(Collector::collect).collect()
    }
}
