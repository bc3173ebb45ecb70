//! The catalogue of metrics: each one's name, type, unit, labels and help, declared once.
//!
//! Registration, `docs/metrics.md` and the checks of dashboards and alerts follow from [`METRICS`].

use std::fmt::Write;

use prometheus::core::Collector;
use prometheus::{
    CounterVec, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry,
};

use crate::event::BySource;

/// Type of a metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// A sum that only grows; it begins at 0 when the process starts.
    Counter,
    /// A value that rises and falls.
    Gauge,
    /// A distribution, with the upper bounds of its buckets.
    Histogram(&'static [f64]),
}

impl Kind {
    /// The type as Prometheus names it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

/// Services that have a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Every service.
    Service,
    /// Gateways.
    Gateway,
    /// Collectors.
    Collector,
    /// Reporters.
    Reporter,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 4] = [Self::Service, Self::Gateway, Self::Collector, Self::Reporter];

    /// The heading of the scope in the documentation.
    pub const fn heading(self) -> &'static str {
        match self {
            Self::Service => "Every service",
            Self::Gateway => "Gateway",
            Self::Collector => "Collector",
            Self::Reporter => "Reporter",
        }
    }
}

/// Declaration of a metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Metric {
    /// Name, as Prometheus stores it.
    pub name: &'static str,
    /// Services that have it.
    pub scope: Scope,
    /// Type.
    pub kind: Kind,
    /// Unit of its value.
    pub unit: &'static str,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// Help text: the thing that is counted or measured.
    pub help: &'static str,
}

macro_rules! metrics {
    ($($constant:ident: $scope:ident $kind:expr, $unit:literal, $name:literal [$($label:literal),*] $help:literal;)+) => {
        $(
            #[doc = concat!("`", $name, "`: ", $help, ".")]
            pub const $constant: Metric = Metric {
                name: $name, scope: Scope::$scope, kind: $kind, unit: $unit, labels: &[$($label),*], help: $help,
            };
        )+
        /// Every metric of ESS. `process_*` metrics come from the Prometheus library.
        pub const METRICS: &[Metric] = &[$($constant),+];
    };
}

use Kind::{Counter, Gauge as Level};

/// Buckets for durations of requests and transactions, in seconds.
const DURATION: Kind =
    Kind::Histogram(&[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0]);
/// Buckets for the age of events, in seconds: up to two hours, for a store that was away.
const AGE: Kind = Kind::Histogram(&[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0,
]);
/// Buckets for events of a transaction.
const BATCH: Kind = Kind::Histogram(&[1.0, 10.0, 100.0, 500.0, 1e3, 2e3, 5e3, 1e4, 2e4]);

metrics! {
    HTTP_REQUESTS: Service Counter, "requests", "ess_http_requests_total" ["route", "status"]
        "HTTP requests, by route pattern and class of the status (2xx, 3xx, 4xx, 5xx)";
    HTTP_CONNECTIONS: Service Level, "connections", "ess_http_connections" []
        "HTTP connections that are open (bound: ESS_MAX_CONNECTIONS)";
    HTTP_HEADS_TOO_LARGE: Service Counter, "requests", "ess_http_heads_too_large_total" []
        "Requests that were refused because their head was larger than ESS_MAX_HEADER";
    READY: Service Level, "0 or 1", "ess_ready" ["dependency"]
        "1 if the dependency, or the part of it that the label names, answered its last probe";
    DRAINING: Service Level, "0 or 1", "ess_draining" []
        "1 while the service drains before it stops";
    DRAIN_REMAINING: Service Level, "seconds", "ess_drain_remaining_seconds" []
        "Time left of ESS_DRAIN_TIMEOUT while the service drains; 0 otherwise";
    ACTOR_MAILBOX_DEPTH: Service Level, "unit of the mailbox", "ess_actor_mailbox_depth" ["actor"]
        "Messages that wait in the actor's mailbox or are being handled, in the unit of its bound";
    ACTOR_MAILBOX_BOUND: Service Level, "unit of the mailbox", "ess_actor_mailbox_bound" ["actor"]
        "Bound of the actor's mailbox; senders wait while it is full";
    ACTOR_BLOCKED: Service Counter, "seconds", "ess_actor_blocked_seconds_total" ["actor"]
        "Time that senders have waited for room in the actor's mailbox";
    ACTOR_HANDLED: Service Counter, "messages", "ess_actor_handled_total" ["actor"]
        "Messages that the actor has handled, or rounds of a background task";
    ACTOR_RESTARTS: Service Counter, "restarts", "ess_actor_restarts_total" ["actor", "reason"]
        "Restarts of the actor: after a panic, after an end that nobody asked for, with its group, or requested by an operator";

    GATEWAY_ACCEPTED: Gateway Counter, "events", "ess_gateway_events_accepted_total" ["source"]
        "Valid events that the gateway received";
    GATEWAY_PROCESSED: Gateway Counter, "events", "ess_gateway_events_processed_total" ["source"]
        "Events that the log has acknowledged as durable";
    GATEWAY_FAILED: Gateway Counter, "events", "ess_gateway_events_failed_total" ["source", "reason"]
        "Events that were refused (invalid, not_json: a body counts once) or that the log did not take (log_full, log_unavailable)";
    GATEWAY_REQUESTS: Gateway Counter, "requests", "ess_gateway_requests_total" ["publisher", "outcome"]
        "Webhook requests, by publisher (name of its token, source of its signature, anonymous or unknown) and outcome";
    GATEWAY_REQUEST_SECONDS: Gateway DURATION, "seconds", "ess_gateway_request_seconds" []
        "Time from the head of a webhook request to its answer, the arrival of its body included";
    GATEWAY_FRAMES: Gateway Counter, "frames", "ess_gateway_frames_total" ["source"]
        "Frames that the log has acknowledged";
    GATEWAY_INFLIGHT_BYTES: Gateway Level, "bytes", "ess_gateway_inflight_bytes" []
        "Bytes of all requests that the gateway holds (bound: ESS_MAX_INFLIGHT)";
    GATEWAY_DEAD_LETTERS_DROPPED: Gateway Counter, "events", "ess_gateway_dead_letters_dropped_total" []
        "Refused events whose bytes were not kept; the ledger counts them";
    LOG_BYTES: Gateway Level, "bytes", "ess_log_bytes" ["topic"]
        "Bytes that the log holds";
    LOG_MAX_BYTES: Gateway Level, "bytes", "ess_log_max_bytes" ["topic"]
        "Bytes that the log may hold before it refuses new frames";
    LOG_COPIES: Gateway Level, "copies", "ess_log_copies" ["topic"]
        "Copies of the log that are up to date, on as many servers; 1 where there is no cluster";
    LOG_COPIES_WANTED: Gateway Level, "copies", "ess_log_copies_wanted" ["topic"]
        "Copies that the log is to have";
    LOG_LEADER_CHANGES: Gateway Counter, "changes", "ess_log_leader_changes_total" ["topic"]
        "Times that another server of a NATS cluster became the leader of the topic's stream, as this process saw it";

    COLLECTOR_ACCEPTED: Collector Counter, "events", "ess_collector_events_accepted_total" ["source"]
        "Events that the collector took from the log, redeliveries included";
    COLLECTOR_PROCESSED: Collector Counter, "events", "ess_collector_events_processed_total" ["source"]
        "Events that were committed to the store as new rows";
    COLLECTOR_DUPLICATE: Collector Counter, "events", "ess_collector_events_duplicate_total" ["source"]
        "Events that the store already had";
    COLLECTOR_FAILED: Collector Counter, "events", "ess_collector_events_failed_total" ["source", "reason"]
        "Events that could not be stored and became dead letters";
    COLLECTOR_REDELIVERED: Collector Counter, "frames", "ess_collector_redelivered_frames_total" ["source"]
        "Frames that the log delivered more than once";
    COLLECTOR_LAG: Collector Level, "events", "ess_collector_lag_events" ["source"]
        "Events that are in the log and not yet in the store; absent while that is not known";
    COLLECTOR_BATCH_SECONDS: Collector DURATION, "seconds", "ess_collector_batch_seconds" []
        "Duration of a transaction that stores a batch of events";
    COLLECTOR_BATCH_EVENTS: Collector BATCH, "events", "ess_collector_batch_events" []
        "Events of a transaction: stored, duplicate and set aside";
    COLLECTOR_EVENT_AGE: Collector AGE, "seconds", "ess_collector_event_age_seconds" []
        "Time from a request's acceptance by the gateway to the commit of its events, once for each request of a frame";
    COLLECTOR_WRITE_RETRIES: Collector Counter, "transactions", "ess_collector_write_retries_total" []
        "Transactions that failed and were tried again";
    COLLECTOR_LETTERS_EXPIRED: Collector Counter, "dead letters", "ess_collector_dead_letters_expired_total" []
        "Dead letters that were deleted by ESS_DEAD_LETTER_RETENTION or ESS_DEAD_LETTER_MAX_BYTES";
    COLLECTOR_DAMAGED_SUMMARIES: Collector Level, "summaries", "ess_collector_damaged_summaries" ["source"]
        "Summaries and summary deltas that cannot be read; `ess rollups rebuild` computes them again from the rows";

    REPORT_DURATION: Reporter DURATION, "seconds", "ess_reporter_report_duration_seconds" ["report"]
        "Time from a report's request to its answer";
    LEDGER_MISSING: Reporter Level, "events", "ess_ledger_missing_events" ["source"]
        "Published events that neither the log nor the store has; absent while that is not known";
}

/// Puts a metric into a registry. Names are constants and a test registers them all, so that this cannot fail.
fn register<M: Collector + Clone + 'static>(registry: &Registry, metric: Result<M, prometheus::Error>) -> M {
    #[allow(clippy::expect_used)]
    let metric = metric.expect("the metric is well-formed");
    #[allow(clippy::expect_used)]
    registry.register(Box::new(metric.clone())).expect("the metric is registered once");
    metric
}

impl Metric {
    /// Name and help.
    fn opts(&self) -> Opts {
        Opts::new(self.name, self.help)
    }

    fn histogram_opts(&self) -> HistogramOpts {
        let buckets = match self.kind {
            Kind::Histogram(bounds) => bounds.to_vec(),
            Kind::Counter | Kind::Gauge => Vec::new(),
        };
        HistogramOpts::new(self.name, self.help).buckets(buckets)
    }

    pub(super) fn counter(&self, registry: &Registry) -> IntCounter {
        register(registry, IntCounter::with_opts(self.opts()))
    }

    pub(super) fn counters(&self, registry: &Registry) -> IntCounterVec {
        register(registry, self.unregistered_counters())
    }

    /// Counters with the label `source`, one for each source, at 0.
    pub(super) fn by_source(&self, registry: &Registry) -> BySource<IntCounter> {
        let counters = self.counters(registry);
        BySource::new(move |source| counters.with_label_values(&[source.name()]))
    }

    pub(super) fn gauge(&self, registry: &Registry) -> IntGauge {
        register(registry, IntGauge::with_opts(self.opts()))
    }

    pub(super) fn float_gauge(&self, registry: &Registry) -> Gauge {
        register(registry, Gauge::with_opts(self.opts()))
    }

    pub(super) fn gauges(&self, registry: &Registry) -> IntGaugeVec {
        register(registry, IntGaugeVec::new(self.opts(), self.labels))
    }

    pub(super) fn histogram(&self, registry: &Registry) -> Histogram {
        register(registry, Histogram::with_opts(self.histogram_opts()))
    }

    pub(super) fn histograms(&self, registry: &Registry) -> HistogramVec {
        register(registry, HistogramVec::new(self.histogram_opts(), self.labels))
    }

    pub(super) fn unregistered_counters(&self) -> Result<IntCounterVec, prometheus::Error> {
        IntCounterVec::new(self.opts(), self.labels)
    }

    pub(super) fn unregistered_float_counters(&self) -> Result<CounterVec, prometheus::Error> {
        CounterVec::new(self.opts(), self.labels)
    }

    pub(super) fn unregistered_gauges(&self) -> Result<GaugeVec, prometheus::Error> {
        GaugeVec::new(self.opts(), self.labels)
    }
}

/// The catalogue as Markdown: the text of `docs/metrics.md` after its introduction.
pub fn markdown() -> String {
    let mut text = String::new();
    for scope in Scope::ALL {
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "\n## {}\n\n| metric | type | unit | labels | help |\n|---|---|---|---|---|\n",
            scope.heading()
        );
        for metric in METRICS.iter().filter(|metric| metric.scope == scope) {
            let labels =
                metric.labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
            let (name, kind) = (metric.name, metric.kind.as_str());
            let _ = writeln!(text, "| `{name}` | {kind} | {} | {labels} | {} |", metric.unit, metric.help);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_distinct_and_say_type_and_unit_as_prometheus_asks() {
        let names: BTreeSet<_> = METRICS.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), METRICS.len());
        for metric in METRICS {
            let name = metric.name;
            assert_eq!(name.ends_with("_total"), metric.kind == Counter, "{name}");
            if ["seconds", "bytes"].contains(&metric.unit) {
                assert!(name.contains(metric.unit), "{name} is in {}", metric.unit);
            }
            assert!(
                !metric.help.ends_with('.')
                    && metric.help.starts_with(|first: char| first.is_uppercase() || first == '1'),
                "{name}"
            );
        }
    }

    /// After a change, copy what this test prints into the file.
    #[test]
    fn the_documentation_lists_every_metric_as_it_is_declared() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
        let text = std::fs::read_to_string(path).unwrap();
        let tables = &text[text.find("\n## ").unwrap()..];
        assert!(
            tables == markdown(),
            "docs/metrics.md differs from the catalogue, which is now:\n{}",
            markdown()
        );
    }
}
