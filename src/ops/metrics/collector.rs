//! Metrics of a collector.

use prometheus::{Histogram, IntCounter, IntCounterVec, IntGaugeVec};

use super::catalog::{
    COLLECTOR_ACCEPTED, COLLECTOR_BATCH_EVENTS, COLLECTOR_BATCH_SECONDS, COLLECTOR_DAMAGED_SUMMARIES,
    COLLECTOR_DUPLICATE, COLLECTOR_EVENT_AGE, COLLECTOR_FAILED, COLLECTOR_LAG, COLLECTOR_LETTERS_EXPIRED,
    COLLECTOR_PROCESSED, COLLECTOR_REDELIVERED, COLLECTOR_WRITE_RETRIES,
};
use super::{ServiceMetrics, set_known};
use crate::event::{BySource, Source};
use crate::log::Reason;

/// Metrics of a collector.
#[derive(Clone)]
pub struct CollectorMetrics {
    /// Events taken from the log.
    pub accepted: BySource<IntCounter>,
    /// Events committed as new rows.
    pub processed: BySource<IntCounter>,
    failed: IntCounterVec,
    /// Events that the store already had.
    pub duplicate: BySource<IntCounter>,
    /// Frames that the log delivered more than once.
    pub redelivered: BySource<IntCounter>,
    lag: IntGaugeVec,
    /// Seconds of a transaction.
    pub batch_seconds: Histogram,
    /// Events of a transaction.
    pub batch_events: Histogram,
    /// Seconds from acceptance to commit, observed once for each request of a frame.
    pub event_age_seconds: Histogram,
    /// Dead letters that were deleted by age or size.
    pub letters_expired: IntCounter,
    /// Transactions that failed and were tried again.
    pub write_retries: IntCounter,
    damaged: IntGaugeVec,
}

impl CollectorMetrics {
    /// Registers the metrics with a service.
    pub fn new(service: &ServiceMetrics) -> Self {
        let registry = &service.registry;
        let failed = COLLECTOR_FAILED.counters(registry);
        for source in Source::all() {
            for reason in Reason::ALL.into_iter().filter(|reason| !reason.at_gateway()) {
                failed.with_label_values(&[source.name(), reason.as_str()]);
            }
        }
        Self {
            accepted: COLLECTOR_ACCEPTED.by_source(registry),
            processed: COLLECTOR_PROCESSED.by_source(registry),
            failed,
            duplicate: COLLECTOR_DUPLICATE.by_source(registry),
            redelivered: COLLECTOR_REDELIVERED.by_source(registry),
            lag: COLLECTOR_LAG.gauges(registry),
            batch_seconds: COLLECTOR_BATCH_SECONDS.histogram(registry),
            batch_events: COLLECTOR_BATCH_EVENTS.histogram(registry),
            event_age_seconds: COLLECTOR_EVENT_AGE.histogram(registry),
            letters_expired: COLLECTOR_LETTERS_EXPIRED.counter(registry),
            write_retries: COLLECTOR_WRITE_RETRIES.counter(registry),
            damaged: COLLECTOR_DAMAGED_SUMMARIES.gauges(registry),
        }
    }

    /// Counts events that became dead letters.
    pub fn fail(&self, source: Source, reason: Reason, events: u64) {
        self.failed.with_label_values(&[source.name(), reason.as_str()]).inc_by(events);
    }

    /// Sets the number of events in the log that are not in the store; `None` if it is not known.
    pub fn set_lag(&self, source: Source, events: Option<u64>) {
        set_known(&self.lag, source, events);
    }

    /// Sets the number of damaged summaries; `None` if it is not known.
    pub fn set_damaged(&self, source: Source, summaries: Option<u64>) {
        set_known(&self.damaged, source, summaries);
    }
}
