//! Metrics of the gateway.

use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::catalog::{
    GATEWAY_ACCEPTED, GATEWAY_DEAD_LETTERS_DROPPED, GATEWAY_FAILED, GATEWAY_FRAMES, GATEWAY_INFLIGHT_BYTES,
    GATEWAY_PROCESSED, GATEWAY_REQUEST_SECONDS, GATEWAY_REQUESTS, LOG_BYTES, LOG_MAX_BYTES,
};
use super::{ServiceMetrics, level, source_label};
use crate::event::{BySource, Source};
use crate::log::{Topic, TopicState};

/// Reason for which an event was refused, or not taken by the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GatewayFailure {
    /// The event breaks the contract.
    Invalid,
    /// The body is not JSON; a body counts as one event.
    NotJson,
    /// The log is full.
    LogFull,
    /// The log did not acknowledge the event in time.
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

/// Outcome of a webhook request, by its status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestOutcome {
    /// 202: at least one event was accepted.
    Accepted,
    /// 422: every event was refused.
    Rejected,
    /// 400: the body could not be read.
    Unreadable,
    /// 401: the token or signature is missing or wrong.
    Unauthorized,
    /// 408: the body did not arrive in time.
    TimedOut,
    /// 413: too many bytes, or too many events.
    TooLarge,
    /// 415: unsupported type or encoding.
    Unsupported,
    /// 429: over the publisher's limit of requests a second.
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

    /// The outcome of a status.
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
    /// Valid events.
    pub accepted: BySource<IntCounter>,
    /// Events that are durable in the log.
    pub processed: BySource<IntCounter>,
    failed: IntCounterVec,
    requests: IntCounterVec,
    /// Frames that the log has acknowledged.
    pub frames: BySource<IntCounter>,
    log_bytes: IntGaugeVec,
    log_max_bytes: IntGaugeVec,
    /// Bytes of all requests at this moment.
    pub inflight_bytes: IntGauge,
    /// Refused events whose bytes were not kept.
    pub dead_letters_dropped: IntCounter,
    /// Seconds from a request's head to its answer.
    pub request_seconds: Histogram,
}

impl GatewayMetrics {
    /// Registers the metrics with a service. `publishers` are the names of tokens and signatures, and those of
    /// requests without either.
    pub fn new<'p>(service: &ServiceMetrics, publishers: impl IntoIterator<Item = &'p str>) -> Self {
        let registry = &service.registry;
        let requests = GATEWAY_REQUESTS.counters(registry);
        for publisher in publishers {
            for outcome in RequestOutcome::ALL {
                requests.with_label_values(&[publisher, outcome.as_str()]);
            }
        }
        let failed = GATEWAY_FAILED.counters(registry);
        for source in Source::all().map(Some).chain([None]) {
            for reason in GatewayFailure::ALL {
                failed.with_label_values(&[source_label(source), reason.as_str()]);
            }
        }
        Self {
            accepted: GATEWAY_ACCEPTED.by_source(registry),
            processed: GATEWAY_PROCESSED.by_source(registry),
            failed,
            requests,
            frames: GATEWAY_FRAMES.by_source(registry),
            log_bytes: LOG_BYTES.gauges(registry),
            log_max_bytes: LOG_MAX_BYTES.gauges(registry),
            inflight_bytes: GATEWAY_INFLIGHT_BYTES.gauge(registry),
            dead_letters_dropped: GATEWAY_DEAD_LETTERS_DROPPED.counter(registry),
            request_seconds: GATEWAY_REQUEST_SECONDS.histogram(registry),
        }
    }

    /// Counts a request of a publisher.
    pub fn count_request(&self, publisher: &str, outcome: RequestOutcome) {
        self.requests.with_label_values(&[publisher, outcome.as_str()]).inc();
    }

    /// Sets the size of a topic of the log, and its bound.
    pub fn set_log(&self, topic: Topic, state: &TopicState) {
        let topic = topic.to_string();
        self.log_bytes.with_label_values(&[&topic]).set(level(state.bytes));
        self.log_max_bytes.with_label_values(&[&topic]).set(level(state.max_bytes));
    }

    /// Counts events that were refused or that the log did not take.
    pub fn fail(&self, source: Option<Source>, reason: GatewayFailure, events: u64) {
        self.failed.with_label_values(&[source_label(source), reason.as_str()]).inc_by(events);
    }
}
