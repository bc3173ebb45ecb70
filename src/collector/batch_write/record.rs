//! Metrics, log lines and traces of a batch that was written.

use std::time::{Instant, SystemTime};

use opentelemetry::KeyValue;
use opentelemetry::trace::SpanKind;

use super::Parts;
use crate::log::Reason;
use crate::ops::{trace, trace_id};
use crate::store::{Batch, Written};

/// Counts and logs a batch that was written.
pub(super) fn record(parts: &Parts, batch: &Batch<'_>, written: &Written, started: Instant) {
    let Parts { source, metrics, .. } = parts;
    let seconds = started.elapsed().as_secs_f64();
    let now = chrono::Utc::now().timestamp_micros();
    metrics.batch_seconds.observe(seconds);
    metrics.batch_events.observe((written.stored + written.duplicates + written.quarantined) as f64);
    metrics.processed.of(*source).inc_by(written.stored);
    metrics.duplicate.of(*source).inc_by(written.duplicates);
    let letters = || batch.frames.iter().flat_map(|frame| &frame.set_aside);
    letters().for_each(|letter| metrics.fail(*source, letter.reason, 1));
    let by_database = written.quarantined.saturating_sub(letters().count() as u64);
    metrics.fail(*source, Reason::Database, by_database);
    for frame in &batch.frames {
        for request in frame.rows.chunk_by(|left, right| std::ptr::eq(left.origin, right.origin)) {
            let origin = request[0].origin;
            let age = (now - origin.accepted_at).max(0) as f64 / 1e6;
            metrics.event_age_seconds.observe(age);
            if parts.lines.pass() {
                let (correlation_id, trace_id) = (&origin.correlation_id, trace_id(origin));
                tracing::info!(%source, correlation_id, trace_id, events = request.len(), age, "events committed");
            } else {
                let correlation_id = &origin.correlation_id;
                tracing::debug!(%source, correlation_id, events = request.len(), age, "events committed");
            }
        }
    }
    let Written { stored, duplicates, quarantined, repeated_frames } = *written;
    let requests = batch.frames.iter().flat_map(|frame| {
        let requests = frame.rows.chunk_by(|left, right| std::ptr::eq(left.origin, right.origin));
        requests.map(|request| request[0].origin)
    });
    trace::export_linked(requests, || {
        let count = |events: u64| i64::try_from(events).unwrap_or(i64::MAX);
        trace::SpanRecord {
            name: format!("commit {source}"),
            kind: SpanKind::Consumer,
            began: SystemTime::now() - started.elapsed(),
            error: None,
            attributes: vec![
                KeyValue::new("ess.stored", count(stored)),
                KeyValue::new("ess.duplicates", count(duplicates)),
                KeyValue::new("ess.quarantined", count(quarantined)),
                KeyValue::new("messaging.batch.message_count", count(batch.frames.len() as u64)),
            ],
        }
    });
    tracing::debug!(%source, stored, duplicates, quarantined, repeated_frames, seconds, "batch committed");
}
