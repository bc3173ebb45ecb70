//! Traces, exported over OTLP where `OTEL_EXPORTER_OTLP_ENDPOINT` is set.
//!
//! ```text
//! POST /webhook ──▶ append (to the log)            one trace a request
//!        ▲
//!        └─ link ── commit                          a trace of its own: it stores events of many requests
//! GET /reports/… ──▶ query
//! ```
//!
//! Spans are made when they end, from the [`Origin`] that goes with a request, into its frame and to the
//! collector: nothing is kept meanwhile. Exporting happens on a thread of its own; what it has no room for is
//! dropped, and no request waits for it.

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

/// Spans that wait to be exported, at most; further ones are dropped.
const QUEUE: usize = 16_384;
/// Time for which spans wait for others.
const DELAY: Duration = Duration::from_secs(1);
/// Time limit for the receiver.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Requests that a commit's span links to, at most; the others are counted.
const MAX_LINKS: usize = 1_000;

/// The exporter of this process, and the fraction of requests that begin a trace.
static EXPORT: OnceLock<(BatchSpanProcessor, f64)> = OnceLock::new();

/// Sends exported spans with ureq, the HTTP client that ESS uses anyway.
#[derive(Debug)]
struct Client(ureq::Agent);

#[async_trait::async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        // The exporter has a thread of its own to wait on.
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

/// Starts exporting, once in a process.
///
/// # Errors
///
/// If the endpoint is no URL.
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
    // A second start in one process changes nothing.
    let _ = EXPORT.set((processor, fraction));
    Ok(())
}

/// Exports the spans that are left, and stops exporting.
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

/// True if a request without a trace begins one that is exported: a random choice by the fraction that was set.
pub(super) fn begins() -> bool {
    EXPORT.get().is_none_or(|(_, fraction)| *fraction >= 1.0 || rand::rng().random_bool(*fraction))
}

/// The span that a `traceparent` names.
fn context(traceparent: &str) -> Option<SpanContext> {
    let trace = TraceId::from_hex(traceparent.get(3..35)?).ok()?;
    let span = SpanId::from_hex(traceparent.get(36..52)?).ok()?;
    let sampled = u8::from_str_radix(traceparent.get(53..55)?, 16).ok()? & 1 == 1;
    let flags = if sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
    Some(SpanContext::new(trace, span, flags, true, TraceState::default()))
}

/// The span of a request, if it is to be exported.
fn sampled(origin: &Origin) -> Option<SpanContext> {
    context(origin.traceparent.as_deref()?).filter(SpanContext::is_sampled)
}

fn random_span() -> SpanId {
    SpanId::from_bytes(rand::rng().random_range(1..=u64::MAX).to_be_bytes())
}

/// Data of a span.
#[derive(Debug)]
pub struct Said {
    /// Name.
    pub name: String,
    /// Kind.
    pub kind: SpanKind,
    /// Time of its begin.
    pub began: SystemTime,
    /// Error, if the work failed.
    pub error: Option<String>,
    /// Attributes.
    pub attributes: Vec<KeyValue>,
}

fn export(said: Said, context: SpanContext, parent: Option<SpanContext>, links: SpanLinks) {
    let Some((processor, _)) = EXPORT.get() else { return };
    processor.on_end(SpanData {
        span_context: context,
        parent_span_is_remote: parent.as_ref().is_some_and(SpanContext::is_remote),
        parent_span_id: parent.map_or(SpanId::INVALID, |parent| parent.span_id()),
        span_kind: said.kind,
        name: said.name.into(),
        start_time: said.began,
        end_time: SystemTime::now(),
        attributes: said.attributes,
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links,
        status: said.error.map_or(Status::Unset, Status::error),
        instrumentation_scope: InstrumentationScope::builder("ess").build(),
    });
}

/// Trace context of a request: its `traceparent`, and its `tracestate` header's values, joined.
#[derive(Debug, Default)]
pub(super) struct Brought {
    pub parent: Option<String>,
    pub state: String,
}

/// Members of a `tracestate` that are kept; more make it invalid (W3C Trace Context, 3.3.1).
const MAX_STATES: usize = 32;

/// Reads a `tracestate`. One that is invalid is dropped, as the standard asks, and the trace goes on.
fn state(text: &str) -> TraceState {
    let members: Vec<&str> = text.split(',').map(str::trim).filter(|member| !member.is_empty()).collect();
    if members.len() > MAX_STATES {
        return TraceState::default();
    }
    members.join(",").parse().unwrap_or_default()
}

/// Exports the span of a request itself.
pub(super) fn request(origin: &Origin, brought: &Brought, said: impl FnOnce() -> Said) {
    if EXPORT.get().is_some()
        && let Some(own) = sampled(origin)
    {
        // An incoming parent was adopted only if it belongs to this trace.
        let parent = brought.parent.as_deref().and_then(context);
        let parent = parent.filter(|parent| parent.trace_id() == own.trace_id());
        // The state belongs to the adopted trace.
        let state = if parent.is_some() { state(&brought.state) } else { TraceState::default() };
        let own = SpanContext::new(own.trace_id(), own.span_id(), own.trace_flags(), false, state);
        export(said(), own, parent, SpanLinks::default());
    }
}

/// Exports a span beneath a request's.
pub fn beneath(origin: &Origin, said: impl FnOnce() -> Said) {
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
        // The request was taken by this very process.
        let parent = SpanContext::new(
            parent.trace_id(),
            parent.span_id(),
            parent.trace_flags(),
            false,
            TraceState::default(),
        );
        export(said(), own, Some(parent), SpanLinks::default());
    }
}

/// Exports a span that stands by itself and links to those of requests, if one of them is exported.
pub fn linked<'o>(origins: impl Iterator<Item = &'o Origin>, said: impl FnOnce() -> Said) {
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
    export(said(), own, None, links);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_kept_as_it_came_or_dropped_whole() {
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
