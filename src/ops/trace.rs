//! Traces, exported over OTLP where `OTEL_EXPORTER_OTLP_ENDPOINT` is set.
//!
//! ```text
//! POST /webhook ──▶ append (to the log)            one trace a request
//!        ▲
//!        └─ link ── commit                          its own trace: it stores events of many requests
//! GET /reports/… ──▶ query
//! ```
//!
//! A span is created when it ends, from the [`Origin`] that travels with a request through its frame to the collector,
//! so that no state is kept meanwhile. A separate thread exports the spans; if its queue is full, spans are dropped,
//! and no request waits.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SpanData, SpanEvents, SpanLinks, SpanProcessor,
};
use rand::Rng;

use crate::log::Origin;

/// Maximum number of spans that wait for export; further ones are dropped.
const QUEUE: usize = 16_384;
/// Time for which spans are collected into one export.
const DELAY: Duration = Duration::from_secs(1);
/// Time limit of one export.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum number of links of a span; the others are counted.
const MAX_LINKS: usize = 1_000;

/// The exporter of this process, and the fraction of requests without a trace that are sampled.
static EXPORT: OnceLock<(BatchSpanProcessor, f64)> = OnceLock::new();

/// Sends exported spans with ureq, the HTTP client that ESS uses anyway.
#[derive(Debug)]
struct Client(ureq::Agent);

#[async_trait::async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        // Blocking is fine: the exporter has its own thread.
        let (parts, body) = request.into_parts();
        let response = self.0.run(Request::from_parts(parts, body.to_vec()))?;
        let (parts, mut body) = response.into_parts();
        Ok(Response::from_parts(parts, body.read_to_vec()?.into()))
    }
}

/// Error of starting to export traces.
#[derive(Debug, thiserror::Error)]
#[error("OTEL_EXPORTER_OTLP_ENDPOINT: {0}")]
pub struct TraceError(#[from] opentelemetry_otlp::ExporterBuildError);

/// Starts the export of spans; further calls in one process have no effect.
///
/// # Errors
///
/// If the endpoint is not a URL.
pub fn start(service: &'static str, endpoint: &str, fraction: f64) -> Result<(), TraceError> {
    let agent =
        ureq::Agent::config_builder().timeout_global(Some(TIMEOUT)).http_status_as_error(false).build();
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(Client(agent.into()))
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(format!("{endpoint}/v1/traces"))
        .build()?;
    let config = BatchConfigBuilder::default().with_max_queue_size(QUEUE).with_scheduled_delay(DELAY).build();
    let mut processor = BatchSpanProcessor::new(exporter, config);
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    processor.set_resource(&Resource::builder().with_service_name(service).with_attribute(version).build());
    // Set already: this process exports.
    let _ = EXPORT.set((processor, fraction));
    Ok(())
}

/// Exports the remaining spans, and ends the export.
pub fn stop() {
    if let Some((processor, _)) = EXPORT.get()
        && let Err(error) = processor.shutdown_with_timeout(TIMEOUT)
    {
        tracing::debug!(%error, "the last spans were not exported");
    }
}

/// True if spans are exported.
pub(super) fn exports() -> bool {
    EXPORT.get().is_some()
}

/// True if the new trace of a request is sampled: a random choice by the configured fraction.
pub(super) fn is_sampled() -> bool {
    EXPORT.get().is_none_or(|(_, fraction)| *fraction >= 1.0 || rand::rng().random_bool(*fraction))
}

/// The span context of a `traceparent`.
fn context(traceparent: &str) -> Option<SpanContext> {
    let trace = TraceId::from_hex(traceparent.get(3..35)?).ok()?;
    let span = SpanId::from_hex(traceparent.get(36..52)?).ok()?;
    let sampled = u8::from_str_radix(traceparent.get(53..55)?, 16).ok()? & 1 == 1;
    let flags = if sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
    Some(SpanContext::new(trace, span, flags, true, TraceState::default()))
}

/// The span context of a request, if its trace is sampled.
fn sampled(origin: &Origin) -> Option<SpanContext> {
    context(origin.traceparent.as_deref()?).filter(SpanContext::is_sampled)
}

fn random_span() -> SpanId {
    SpanId::from_bytes(rand::rng().random_range(1..=u64::MAX).to_be_bytes())
}

/// Data of a span.
#[derive(Debug)]
pub struct SpanRecord {
    /// Name.
    pub name: String,
    /// Kind.
    pub kind: SpanKind,
    /// Start time; the end is the time of the export.
    pub began: SystemTime,
    /// Error, if the work failed.
    pub error: Option<String>,
    /// Attributes.
    pub attributes: Vec<KeyValue>,
}

fn export(record: SpanRecord, context: SpanContext, parent: Option<SpanContext>, links: SpanLinks) {
    let Some((processor, _)) = EXPORT.get() else { return };
    processor.on_end(SpanData {
        span_context: context,
        parent_span_is_remote: parent.as_ref().is_some_and(SpanContext::is_remote),
        parent_span_id: parent.map_or(SpanId::INVALID, |parent| parent.span_id()),
        span_kind: record.kind,
        name: record.name.into(),
        start_time: record.began,
        end_time: SystemTime::now(),
        attributes: record.attributes,
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links,
        status: record.error.map_or(Status::Unset, Status::error),
        instrumentation_scope: InstrumentationScope::builder("ess").build(),
    });
}

/// Trace context of a request: `traceparent`, and the joined values of `tracestate`.
#[derive(Debug, Default)]
pub(super) struct TraceContext {
    pub parent: Option<String>,
    pub state: String,
}

/// Maximum number of members of a `tracestate`; more make it invalid (W3C Trace Context, 3.3.1).
const MAX_STATES: usize = 32;

/// Parses a `tracestate`. An invalid one is dropped and the trace continues, as the standard requires.
fn state(text: &str) -> TraceState {
    let members: Vec<&str> = text.split(',').map(str::trim).filter(|member| !member.is_empty()).collect();
    if members.len() > MAX_STATES {
        return TraceState::default();
    }
    members.join(",").parse().unwrap_or_default()
}

/// Exports the span of a request.
pub(super) fn export_request(origin: &Origin, incoming: &TraceContext, record: impl FnOnce() -> SpanRecord) {
    if EXPORT.get().is_some()
        && let Some(own) = sampled(origin)
    {
        // The incoming parent was adopted only if it has this trace id.
        let parent = incoming.parent.as_deref().and_then(context);
        let parent = parent.filter(|parent| parent.trace_id() == own.trace_id());
        // A `tracestate` belongs to its `traceparent`.
        let state = if parent.is_some() { state(&incoming.state) } else { TraceState::default() };
        let own = SpanContext::new(own.trace_id(), own.span_id(), own.trace_flags(), false, state);
        export(record(), own, parent, SpanLinks::default());
    }
}

/// Exports a child of a request's span.
pub fn export_child(origin: &Origin, record: impl FnOnce() -> SpanRecord) {
    if EXPORT.get().is_some()
        && let Some(parent) = sampled(origin)
    {
        let own = SpanContext::new(
            parent.trace_id(),
            random_span(),
            parent.trace_flags(),
            false,
            TraceState::default(),
        );
        // The parent is not remote: this process has the request.
        let parent = SpanContext::new(
            parent.trace_id(),
            parent.span_id(),
            parent.trace_flags(),
            false,
            TraceState::default(),
        );
        export(record(), own, Some(parent), SpanLinks::default());
    }
}

/// Exports a span with a trace of its own and links to the spans of requests, if one of these is sampled.
pub fn export_linked<'o>(origins: impl Iterator<Item = &'o Origin>, record: impl FnOnce() -> SpanRecord) {
    if EXPORT.get().is_none() {
        return;
    }
    let mut links = SpanLinks::default();
    for context in origins.filter_map(sampled) {
        if links.links.len() < MAX_LINKS {
            links.links.push(Link::with_context(context));
        } else {
            links.dropped_count += 1;
        }
    }
    if links.links.is_empty() {
        return;
    }
    let trace = TraceId::from_bytes(rand::rng().random_range(1..=u128::MAX).to_be_bytes());
    let own = SpanContext::new(trace, random_span(), TraceFlags::SAMPLED, false, TraceState::default());
    export(record(), own, None, links);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tracestate_is_kept_whole_or_dropped() {
        assert_eq!(
            state("congo=t61rcWkgMzE , rojo=00f067aa0ba902b7").header(),
            "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7"
        );
        assert_eq!(state("").header(), "");
        assert_eq!(state("no member").header(), "");
        let many: Vec<String> = (0..33).map(|n| format!("k{n}=v")).collect();
        assert_eq!(state(&many.join(",")).header(), "");
    }
}
