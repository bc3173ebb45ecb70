//! Every metric, declared in one place.
//!
//! Labels come from enums alone. Counters exist, at 0, for every value of their labels from the start.

use std::sync::Arc;
use std::time::Instant;

use prometheus::core::{Collector, Desc};
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::MetricFamily;
use prometheus::{
    CounterVec, Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, IntGaugeVec, Opts, Registry as Metrics, TextEncoder,
};

use super::readiness::Readiness;
use crate::event::{BySource, Source};
use crate::log::{Reason, Topic, TopicState};
use crate::runtime::{Phase, Registry, RestartReason};

/// The label of a source that was not valid.
pub const UNKNOWN_SOURCE: &str = "unknown";

/// The label of a source.
pub fn source_label(source: Option<Source>) -> &'static str {
    source.map_or(UNKNOWN_SOURCE, Source::as_str)
}

/// Puts a metric into a registry. Names are fixed here and distinct, so that this cannot fail.
fn register<M: Collector + Clone + 'static>(metrics: &Metrics, metric: Result<M, prometheus::Error>) -> M {
    #[allow(clippy::expect_used)]
    let metric = metric.expect("the metric is well-formed");
    #[allow(clippy::expect_used)]
    metrics.register(Box::new(metric.clone())).expect("the metric's name is its own");
    metric
}

fn counters(metrics: &Metrics, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    register(metrics, IntCounterVec::new(Opts::new(name, help), labels))
}

fn by_source(metrics: &Metrics, name: &str, help: &str) -> BySource<IntCounter> {
    let counters = counters(metrics, name, help, &["source"]);
    BySource::new(|source| counters.with_label_values(&[source.as_str()]))
}

/// Seconds, from a millisecond to half a minute.
const SECONDS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

fn seconds(name: &str, help: &str) -> HistogramOpts {
    HistogramOpts::new(name, help).buckets(SECONDS.to_vec())
}

/// Metrics that every service has.
#[derive(Clone)]
pub struct ServiceMetrics {
    metrics: Metrics,
    /// `ess_http_requests_total{route,status}`: requests by route pattern and class of status.
    requests: IntCounterVec,
    /// `ess_http_connections`: connections that are open.
    pub connections: IntGauge,
    /// `ess_ready{dependency}`: 1 where a dependency answers, or a part of one: at a gateway `log.facebook` and so on.
    ready: IntGaugeVec,
    /// `ess_draining`: 1 while the service finishes what it has.
    draining: IntGauge,
    /// `ess_drain_remaining_seconds`: what is left of `ESS_DRAIN_TIMEOUT` meanwhile; 0 otherwise.
    drain_remaining: Gauge,
    /// `ess_http_heads_too_large_total`: requests whose head was larger than `ESS_MAX_HEADER`.
    pub heads_too_large: IntCounter,
}

impl ServiceMetrics {
    /// Metrics of one service and its actors.
    pub fn new(actors: Arc<Registry>) -> Self {
        let metrics = Metrics::new();
        let requests = counters(
            &metrics,
            "ess_http_requests_total",
            "Requests by route and class of status",
            &["route", "status"],
        );
        let connections =
            register(&metrics, IntGauge::new("ess_http_connections", "Connections that are open"));
        let ready = register(
            &metrics,
            IntGaugeVec::new(Opts::new("ess_ready", "1 where the dependency answers"), &["dependency"]),
        );
        let draining =
            register(&metrics, IntGauge::new("ess_draining", "1 while the service finishes what it has"));
        let drain_remaining = register(
            &metrics,
            Gauge::new("ess_drain_remaining_seconds", "Time that is left to finish; 0 while it serves"),
        );
        let heads_too_large = register(
            &metrics,
            IntCounter::new("ess_http_heads_too_large_total", "Requests whose head was too large"),
        );
        for collector in [
            Box::new(ProcessCollector::for_self()) as Box<dyn Collector>,
            Box::new(ActorMetrics::new(actors)),
        ] {
            #[allow(clippy::expect_used)]
            metrics.register(collector).expect("registered once");
        }
        Self { metrics, requests, connections, ready, draining, drain_remaining, heads_too_large }
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

    /// All metrics as Prometheus text, in this phase of the service's life and with its dependencies as they are.
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
        TextEncoder::new().encode(&self.metrics.gather(), &mut text)?;
        Ok(text)
    }
}

/// Metrics of the actors, read from their registry when they are asked for.
struct ActorMetrics {
    actors: Arc<Registry>,
    descs: Vec<Desc>,
}

type ActorVecs = (IntGaugeVec, CounterVec, IntCounterVec, IntCounterVec, GaugeVec);

impl ActorMetrics {
    fn new(actors: Arc<Registry>) -> Self {
        let descs = Self::vecs().map_or_else(
            |_| Vec::new(),
            |(depth, blocked, restarts, handled, bound)| {
                [depth.desc(), blocked.desc(), restarts.desc(), handled.desc(), bound.desc()]
                    .into_iter()
                    .flatten()
                    .cloned()
                    .collect()
            },
        );
        Self { actors, descs }
    }

    fn vecs() -> Result<ActorVecs, prometheus::Error> {
        Ok((
            IntGaugeVec::new(
                Opts::new(
                    "ess_actor_mailbox_depth",
                    "What waits for the actor or is in its hands, in its unit",
                ),
                &["actor"],
            )?,
            CounterVec::new(
                Opts::new(
                    "ess_actor_blocked_seconds_total",
                    "How long senders have waited for room in the mailbox",
                ),
                &["actor"],
            )?,
            IntCounterVec::new(Opts::new("ess_actor_restarts_total", "Restarts"), &["actor", "reason"])?,
            IntCounterVec::new(
                Opts::new("ess_actor_handled_total", "Messages whose work is done"),
                &["actor"],
            )?,
            GaugeVec::new(
                Opts::new("ess_actor_mailbox_bound", "The mailbox's bound, in its unit"),
                &["actor"],
            )?,
        ))
    }
}

impl Collector for ActorMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Ok((depth, blocked, restarts, handled, bound)) = Self::vecs() else { return Vec::new() };
        for actor in self.actors.stats() {
            let name = &[actor.name()];
            depth.with_label_values(name).set(i64::try_from(actor.depth()).unwrap_or(i64::MAX));
            bound.with_label_values(name).set(actor.bound() as f64);
            blocked.with_label_values(name).inc_by(actor.blocked().as_secs_f64());
            handled.with_label_values(name).inc_by(actor.handled());
            for reason in RestartReason::ALL {
                restarts.with_label_values(&[actor.name(), reason.as_str()]).inc_by(actor.restarts(reason));
            }
        }
        [depth.collect(), blocked.collect(), restarts.collect(), handled.collect(), bound.collect()].concat()
    }
}

/// Why the gateway did not take an event or a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GatewayFailure {
    /// Events that break the contract.
    Invalid,
    /// Bodies that are no JSON; each counts as one.
    NotJson,
    /// Events that the full log refused.
    LogFull,
    /// Events whose durability the log did not confirm in time.
    LogUnavailable,
}

impl GatewayFailure {
    const ALL: [Self; 4] = [Self::Invalid, Self::NotJson, Self::LogFull, Self::LogUnavailable];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::NotJson => "not_json",
            Self::LogFull => "log_full",
            Self::LogUnavailable => "log_unavailable",
        }
    }
}

/// What became of a request to the webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestOutcome {
    /// 202: at least one event was accepted.
    Accepted,
    /// 422: every event was refused.
    Rejected,
    /// 400: the body could not be read.
    Unreadable,
    /// 401: no token or signature of ours.
    Unauthorized,
    /// 408: the body did not come in time.
    TimedOut,
    /// 413: too many bytes, or too many events.
    TooLarge,
    /// 415: another type or encoding.
    Unsupported,
    /// 429: more requests a second than the publisher may send.
    Limited,
    /// 503: saturated, draining, or the log is away.
    Unavailable,
}

impl RequestOutcome {
    const ALL: [Self; 9] = [
        Self::Accepted,
        Self::Rejected,
        Self::Unreadable,
        Self::Unauthorized,
        Self::TimedOut,
        Self::TooLarge,
        Self::Unsupported,
        Self::Limited,
        Self::Unavailable,
    ];

    /// The outcome that a status says.
    pub const fn of(status: u16) -> Self {
        match status {
            ..400 => Self::Accepted,
            401 => Self::Unauthorized,
            408 => Self::TimedOut,
            413 => Self::TooLarge,
            415 => Self::Unsupported,
            422 => Self::Rejected,
            429 => Self::Limited,
            400..500 => Self::Unreadable,
            _ => Self::Unavailable,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Rejected => "rejected",
            Self::Unreadable => "unreadable",
            Self::Unauthorized => "unauthorized",
            Self::TimedOut => "timed_out",
            Self::TooLarge => "too_large",
            Self::Unsupported => "unsupported",
            Self::Limited => "limited",
            Self::Unavailable => "unavailable",
        }
    }
}

/// Metrics of the gateway.
#[derive(Clone)]
pub struct GatewayMetrics {
    /// `ess_gateway_events_accepted_total{source}`: valid.
    pub accepted: BySource<IntCounter>,
    /// `ess_gateway_events_processed_total{source}`: durable in the log.
    pub processed: BySource<IntCounter>,
    failed: IntCounterVec,
    /// `ess_gateway_requests_total{publisher,outcome}`: publishers are the names of tokens, the sources of
    /// signatures, `anonymous` and `unknown`.
    requests: IntCounterVec,
    /// `ess_gateway_frames_total{source}`: frames that the log took.
    pub frames: BySource<IntCounter>,
    /// `ess_log_bytes{topic}`: what the log holds.
    log_bytes: IntGaugeVec,
    /// `ess_log_max_bytes{topic}`: what it may hold.
    log_max_bytes: IntGaugeVec,
    /// `ess_gateway_inflight_bytes`: bytes of all requests at this moment.
    pub inflight_bytes: IntGauge,
    /// `ess_gateway_dead_letters_dropped_total`: refused events whose bytes are not kept; they are counted.
    pub dead_letters_dropped: IntCounter,
    /// `ess_gateway_request_seconds`: from the first byte to the answer.
    pub request_seconds: Histogram,
}

impl GatewayMetrics {
    /// Declares them with a service.
    pub fn new<'p>(service: &ServiceMetrics, publishers: impl IntoIterator<Item = &'p str>) -> Self {
        let metrics = &service.metrics;
        let requests = counters(
            metrics,
            "ess_gateway_requests_total",
            "Requests to the webhook, by who sent them and what became of them",
            &["publisher", "outcome"],
        );
        for publisher in publishers {
            for outcome in RequestOutcome::ALL {
                requests.with_label_values(&[publisher, outcome.as_str()]);
            }
        }
        let failed = counters(
            metrics,
            "ess_gateway_events_failed_total",
            "Events that were refused, by reason",
            &["source", "reason"],
        );
        for source in Source::ALL.iter().map(|source| Some(*source)).chain([None]) {
            for reason in GatewayFailure::ALL {
                failed.with_label_values(&[source_label(source), reason.as_str()]);
            }
        }
        Self {
            accepted: by_source(metrics, "ess_gateway_events_accepted_total", "Events that are valid"),
            processed: by_source(
                metrics,
                "ess_gateway_events_processed_total",
                "Events that are durable in the log",
            ),
            failed,
            requests,
            frames: by_source(metrics, "ess_gateway_frames_total", "Frames that the log took"),
            log_bytes: register(
                metrics,
                IntGaugeVec::new(Opts::new("ess_log_bytes", "Bytes that the log holds"), &["topic"]),
            ),
            log_max_bytes: register(
                metrics,
                IntGaugeVec::new(Opts::new("ess_log_max_bytes", "Bytes that the log may hold"), &["topic"]),
            ),
            inflight_bytes: register(
                metrics,
                IntGauge::new("ess_gateway_inflight_bytes", "Bytes of all requests at this moment"),
            ),
            dead_letters_dropped: register(
                metrics,
                IntCounter::new(
                    "ess_gateway_dead_letters_dropped_total",
                    "Refused events whose bytes are not kept; the ledger counts them all the same",
                ),
            ),
            request_seconds: register(
                metrics,
                Histogram::with_opts(seconds(
                    "ess_gateway_request_seconds",
                    "From the body's end to the answer",
                )),
            ),
        }
    }

    /// Counts a request of a publisher.
    pub fn count_request(&self, publisher: &str, outcome: RequestOutcome) {
        self.requests.with_label_values(&[publisher, outcome.as_str()]).inc();
    }

    /// Says how full a topic of the log is.
    pub fn set_log(&self, topic: Topic, state: &TopicState) {
        let topic = topic.to_string();
        let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        self.log_bytes.with_label_values(&[&topic]).set(bytes(state.bytes));
        self.log_max_bytes.with_label_values(&[&topic]).set(bytes(state.max_bytes));
    }

    /// Counts events that were not taken.
    pub fn fail(&self, source: Option<Source>, reason: GatewayFailure, events: u64) {
        self.failed.with_label_values(&[source_label(source), reason.as_str()]).inc_by(events);
    }
}

/// Metrics of a collector.
#[derive(Clone)]
pub struct CollectorMetrics {
    /// `ess_collector_events_accepted_total{source}`: taken from the log.
    pub accepted: BySource<IntCounter>,
    /// `ess_collector_events_processed_total{source}`: committed.
    pub processed: BySource<IntCounter>,
    failed: IntCounterVec,
    /// `ess_collector_events_duplicate_total{source}`: committed before.
    pub duplicate: BySource<IntCounter>,
    /// `ess_collector_redelivered_frames_total{source}`: frames that came again.
    pub redelivered: BySource<IntCounter>,
    lag: IntGaugeVec,
    /// `ess_collector_batch_seconds`: one transaction.
    pub batch_seconds: Histogram,
    /// `ess_collector_batch_events`: events of one transaction.
    pub batch_events: Histogram,
    /// `ess_collector_event_age_seconds`: accepted to committed.
    pub event_age_seconds: Histogram,
    /// `ess_collector_dead_letters_expired_total`: letters that left by age or size.
    pub letters_expired: IntCounter,
    /// `ess_collector_write_retries_total`: transactions that were tried again.
    pub write_retries: IntCounter,
    damaged: IntGaugeVec,
}

impl CollectorMetrics {
    /// Declares them with a service.
    pub fn new(service: &ServiceMetrics) -> Self {
        let metrics = &service.metrics;
        let failed = counters(
            metrics,
            "ess_collector_events_failed_total",
            "Events that were set aside, by reason",
            &["source", "reason"],
        );
        for source in Source::ALL {
            for reason in Reason::ALL.into_iter().filter(|reason| !reason.at_gateway()) {
                failed.with_label_values(&[source.as_str(), reason.as_str()]);
            }
        }
        let age = [
            0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0,
        ];
        Self {
            accepted: by_source(metrics, "ess_collector_events_accepted_total", "Events taken from the log"),
            processed: by_source(
                metrics,
                "ess_collector_events_processed_total",
                "Events that were committed",
            ),
            failed,
            duplicate: by_source(
                metrics,
                "ess_collector_events_duplicate_total",
                "Events that were there already",
            ),
            redelivered: by_source(
                metrics,
                "ess_collector_redelivered_frames_total",
                "Frames that came again",
            ),
            lag: register(
                metrics,
                IntGaugeVec::new(
                    Opts::new("ess_collector_lag_events", "Events in the log that are not in the store"),
                    &["source"],
                ),
            ),
            batch_seconds: register(
                metrics,
                Histogram::with_opts(seconds("ess_collector_batch_seconds", "One transaction")),
            ),
            batch_events: register(
                metrics,
                Histogram::with_opts(
                    HistogramOpts::new("ess_collector_batch_events", "Events of one transaction")
                        .buckets(vec![1.0, 10.0, 100.0, 500.0, 1e3, 2e3, 5e3, 1e4, 2e4]),
                ),
            ),
            event_age_seconds: register(
                metrics,
                Histogram::with_opts(
                    HistogramOpts::new("ess_collector_event_age_seconds", "From accepted to committed")
                        .buckets(age.to_vec()),
                ),
            ),
            letters_expired: register(
                metrics,
                IntCounter::new(
                    "ess_collector_dead_letters_expired_total",
                    "Dead letters that left by age or size",
                ),
            ),
            write_retries: register(
                metrics,
                IntCounter::new("ess_collector_write_retries_total", "Transactions that were tried again"),
            ),
            damaged: register(
                metrics,
                IntGaugeVec::new(
                    Opts::new(
                        "ess_collector_damaged_summaries",
                        "Summaries, and deltas of these, that cannot be read until `ess rollups rebuild` mends them",
                    ),
                    &["source"],
                ),
            ),
        }
    }

    /// Counts events that were set aside.
    pub fn fail(&self, source: Source, reason: Reason, events: u64) {
        self.failed.with_label_values(&[source.as_str(), reason.as_str()]).inc_by(events);
    }

    /// Says how far the store is behind the log; where that is not known, nothing is said.
    pub fn set_lag(&self, source: Source, events: Option<u64>) {
        set_known(&self.lag, source, events);
    }

    /// Says how many summaries were found damaged; where that is not known, nothing is said.
    pub fn set_damaged(&self, source: Source, summaries: Option<u64>) {
        set_known(&self.damaged, source, summaries);
    }
}

/// Sets a source's gauge; takes it away where its value is not known, so that nobody sees an old one.
fn set_known(gauge: &IntGaugeVec, source: Source, value: Option<u64>) {
    match value {
        Some(value) => {
            gauge.with_label_values(&[source.as_str()]).set(i64::try_from(value).unwrap_or(i64::MAX));
        }
        // Taken away already.
        None => drop(gauge.remove_label_values(&[source.as_str()])),
    }
}

/// The reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Report {
    /// Counts.
    Events,
    /// Money.
    Revenue,
    /// Users.
    Demographics,
}

impl Report {
    const ALL: [Self; 3] = [Self::Events, Self::Revenue, Self::Demographics];

    /// The report as a label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Revenue => "revenue",
            Self::Demographics => "demographics",
        }
    }
}

/// Metrics of the reporter.
#[derive(Clone)]
pub struct ReporterMetrics {
    duration: HistogramVec,
    missing: IntGaugeVec,
}

impl ReporterMetrics {
    /// Declares them with a service.
    pub fn new(service: &ServiceMetrics) -> Self {
        let metrics = &service.metrics;
        let duration = register(
            metrics,
            HistogramVec::new(
                seconds("ess_reporter_report_duration_seconds", "From the question to the answer"),
                &["report"],
            ),
        );
        for report in Report::ALL {
            duration.with_label_values(&[report.as_str()]);
        }
        let missing = register(
            metrics,
            IntGaugeVec::new(Opts::new("ess_ledger_missing_events", "Events that are nowhere"), &["source"]),
        );
        for source in Source::ALL {
            missing.with_label_values(&[source.as_str()]);
        }
        Self { duration, missing }
    }

    /// The histogram of a report.
    pub fn duration(&self, report: Report) -> Histogram {
        self.duration.with_label_values(&[report.as_str()])
    }

    /// Says how many events are nowhere; where that is not known, nothing is said.
    pub fn set_missing(&self, source: Source, events: Option<u64>) {
        set_known(&self.missing, source, events);
    }
}
