//! Metrics of the gateway.

use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::catalog::{
    GATEWAY_ACCEPTED, GATEWAY_DEAD_LETTERS_DROPPED, GATEWAY_FAILED, GATEWAY_FRAMES, GATEWAY_INFLIGHT_BYTES,
    GATEWAY_PROCESSED, GATEWAY_REQUEST_SECONDS, GATEWAY_REQUESTS, LOG_BYTES, LOG_COPIES, LOG_COPIES_WANTED,
    LOG_LEADER_CHANGES, LOG_MAX_BYTES,
};
use super::{ServiceMetrics, level, source_label};
use crate::event::{BySource, Source};
use crate::log::{Topic, TopicState};

/// Declares the values of a label as an enum: each with its documentation and its text. `ALL` cannot miss one.
macro_rules! label {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident $text:literal,)+ }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $($(#[$doc])* $variant,)+
        }

        impl $name {
            /// Every value, so that its counters start at 0.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }
        }
    };
}

label! {
    /// Reason for which an event was refused, or not taken by the log.
    GatewayFailure {
        /// The event breaks the contract.
        Invalid "invalid",
        /// The body is not JSON; a body counts as one event.
        NotJson "not_json",
        /// The log is full.
        LogFull "log_full",
        /// The log did not acknowledge the event in time.
        LogUnavailable "log_unavailable",
    }
}

label! {
    /// Outcome of a webhook request. Each has a status of its own on `/webhook`; on a source's own path refused events
    /// are answered with 200, and 408 and 429 are 503.
    RequestOutcome {
        /// 202, or 200 on a source's own path: at least one event was accepted.
        Accepted "accepted",
        /// 422, or 200 on a source's own path: every event was refused.
        Rejected "rejected",
        /// 400: the body could not be read.
        Unreadable "unreadable",
        /// 401: the token or signature is missing or wrong.
        Unauthorized "unauthorized",
        /// 408: the body did not arrive in time.
        TimedOut "timed_out",
        /// 413: too many bytes, or too many events.
        TooLarge "too_large",
        /// 415: unsupported type or encoding.
        Unsupported "unsupported",
        /// 429: over the publisher's limit of requests a second.
        Limited "limited",
        /// 503: saturated, draining, or the log is away.
        Unavailable "unavailable",
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
    log_copies: IntGaugeVec,
    log_copies_wanted: IntGaugeVec,
    log_leader_changes: IntCounterVec,
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
        let log_leader_changes = LOG_LEADER_CHANGES.counters(registry);
        for topic in Topic::all() {
            log_leader_changes.with_label_values(&[&topic.to_string()]);
        }
        Self {
            accepted: GATEWAY_ACCEPTED.by_source(registry),
            processed: GATEWAY_PROCESSED.by_source(registry),
            failed,
            requests,
            frames: GATEWAY_FRAMES.by_source(registry),
            log_bytes: LOG_BYTES.gauges(registry),
            log_max_bytes: LOG_MAX_BYTES.gauges(registry),
            log_copies: LOG_COPIES.gauges(registry),
            log_copies_wanted: LOG_COPIES_WANTED.gauges(registry),
            log_leader_changes,
            inflight_bytes: GATEWAY_INFLIGHT_BYTES.gauge(registry),
            dead_letters_dropped: GATEWAY_DEAD_LETTERS_DROPPED.counter(registry),
            request_seconds: GATEWAY_REQUEST_SECONDS.histogram(registry),
        }
    }

    /// Counts a request of a publisher.
    pub fn count_request(&self, publisher: &str, outcome: RequestOutcome) {
        self.requests.with_label_values(&[publisher, outcome.as_str()]).inc();
    }

    /// Sets the size of a topic of the log, its bound, and its copies.
    pub fn set_log(&self, topic: Topic, state: &TopicState) {
        let topic = topic.to_string();
        self.log_bytes.with_label_values(&[&topic]).set(level(state.bytes));
        self.log_max_bytes.with_label_values(&[&topic]).set(level(state.max_bytes));
        let (wanted, behind) =
            state.copies.as_ref().map_or((1, 0), |copies| (copies.wanted, copies.behind.len()));
        self.log_copies.with_label_values(&[&topic]).set(level(wanted.saturating_sub(behind) as u64));
        self.log_copies_wanted.with_label_values(&[&topic]).set(level(wanted as u64));
    }

    /// Counts a change of the leader of a topic's stream.
    pub fn count_leader(&self, topic: Topic) {
        self.log_leader_changes.with_label_values(&[&topic.to_string()]).inc();
    }

    /// Counts events that were refused or that the log did not take.
    pub fn fail(&self, source: Option<Source>, reason: GatewayFailure, events: u64) {
        self.failed.with_label_values(&[source_label(source), reason.as_str()]).inc_by(events);
    }
}
