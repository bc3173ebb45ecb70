//! HTTP that all services share: the listener, and correlation ids, traces and metrics of requests.

use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::SystemTime;

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{Server, ServiceRequest, ServiceResponse};
use actix_web::http::header::{self, HeaderValue};
use actix_web::http::{ConnectionType, StatusCode};
use actix_web::middleware::{Next, from_fn};
use actix_web::{App, HttpMessage, web};
use opentelemetry::KeyValue;
use opentelemetry::trace::SpanKind;
use tracing_actix_web::{DefaultRootSpanBuilder, RootSpanBuilder, TracingLogger};

use super::connections::{self, Answering};
pub use super::listen::ListenError;
use super::listen::listen;
use super::origin::{self, CORRELATION_HEADER, TRACE_HEADER, origin_of, trace_id};
use super::problem::PROBLEM_TYPE;
pub use super::problem::{Problem, origin};
use super::resources::unmatched;
pub use super::resources::{client_has, not_found, readable, resource};
use super::service_routes::common;
pub use super::tokens::{administers, constant_time_eq, guard, token_index};
use super::trace;
pub use super::view::{Requests, ServiceView};

/// Prefixes of routes that are not traced: probes, scrapes and documentation.
const UNTRACED: [&str; 4] = ["/health", "/ready", "/metrics", "/docs"];

/// Starts the listener of a service; `routes` adds the routes of this service. Returns the address too, because the
/// port may be 0.
///
/// # Errors
///
/// If the address cannot be bound, or a file of the TLS identity cannot be used.
pub fn serve<F>(
    view: ServiceView,
    port: u16,
    workers: usize,
    routes: F,
) -> Result<(Server, std::net::SocketAddr), ListenError>
where
    F: Fn(&mut web::ServiceConfig) + Clone + Send + 'static,
{
    let data = view.clone();
    let metrics = view.metrics.clone();
    listen(&view.settings, (view.name, port), workers, &metrics.connections, move || {
        App::new()
            .app_data(web::Data::new(data.clone()))
            .wrap(from_fn(record_request))
            .wrap(TracingLogger::<Spans>::new())
            .configure(common)
            .configure(routes.clone())
            .default_service(web::to(unmatched))
    })
}

/// Creates a `tracing` span for each request, at level debug.
struct Spans;

impl RootSpanBuilder for Spans {
    fn on_request_start(request: &ServiceRequest) -> tracing::Span {
        let origin = origin_of(request.headers());
        let span = tracing::debug_span!(
            "request",
            method = %request.method(),
            route = request.match_pattern().unwrap_or_else(|| "unmatched".to_owned()),
            correlation_id = origin.correlation_id,
            trace_id = trace_id(&origin),
        );
        request.extensions_mut().insert(origin);
        span
    }

    fn on_request_end<B: MessageBody>(
        span: tracing::Span,
        outcome: &Result<ServiceResponse<B>, actix_web::Error>,
    ) {
        DefaultRootSpanBuilder::on_request_end(span, outcome);
    }
}

/// A body that marks its request as answered once the HTTP library drops it.
struct TrackedBody {
    body: BoxBody,
    _answering: Option<Answering>,
}

impl MessageBody for TrackedBody {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<web::Bytes, Self::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_next(context)
    }
}

/// Answers the placeholder of a refused request, and passes all others on. Errors without a problem body, such as an
/// extractor's, get one.
async fn answer(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let connection = connections::connection(request.request());
    if let Some(refusal) = connection.and_then(|connection| connection.take_refusal()) {
        if refusal.status == StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
            && let Some(view) = request.app_data::<web::Data<ServiceView>>()
        {
            view.metrics.heads_too_large.inc();
        }
        let answer = Problem::new(refusal.status, refusal.detail).close().respond(request.request());
        return Ok(request.into_response(answer));
    }
    let response = next.call(request).await?.map_into_boxed_body();
    if response.status().as_u16() < 400 || is_problem(response.headers()) {
        return Ok(response);
    }
    let why = response.response().error().map(ToString::to_string).unwrap_or_default();
    let answer = Problem::new(response.status(), why).respond(response.request());
    let (request, _) = response.into_parts();
    Ok(ServiceResponse::new(request, answer))
}

fn is_problem(headers: &header::HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes() == PROBLEM_TYPE.as_bytes())
}

/// The trace context of a request's headers.
fn trace_context(headers: &header::HeaderMap) -> trace::TraceContext {
    let states: Vec<&str> = headers.get_all("tracestate").filter_map(|value| value.to_str().ok()).collect();
    trace::TraceContext {
        parent: origin::incoming_traceparent(headers).map(str::to_owned),
        state: states.join(","),
    }
}

/// Counts and traces a request, and adds its correlation id and trace to the answer.
async fn record_request(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<TrackedBody>, actix_web::Error> {
    let view = request.app_data::<web::Data<ServiceView>>().cloned();
    let origin = origin(request.request());
    let route = request.match_pattern();
    let method = request.method().clone();
    let began = SystemTime::now();
    let incoming =
        if trace::exports() { trace_context(request.headers()) } else { trace::TraceContext::default() };
    let connection = connections::connection(request.request()).cloned();
    let answering = connection.clone().map(Answering::new);
    let _entered = view.as_ref().map(|view| view.requests.enter());
    let mut response = answer(request, next).await?;
    // Probes and scrapes would fill the traces.
    if let Some(route) =
        route.as_deref().filter(|route| !UNTRACED.iter().any(|prefix| route.starts_with(prefix)))
    {
        let status = response.status();
        trace::export_request(&origin, &incoming, || trace::SpanRecord {
            name: format!("{method} {route}"),
            kind: SpanKind::Server,
            began,
            error: status.is_server_error().then(|| status.to_string()),
            attributes: vec![
                KeyValue::new("http.request.method", method.to_string()),
                KeyValue::new("http.route", route.to_owned()),
                KeyValue::new("http.response.status_code", i64::from(status.as_u16())),
                KeyValue::new("correlation_id", origin.correlation_id.clone()),
            ],
        });
    }
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&origin.correlation_id) {
        headers.insert(CORRELATION_HEADER, id);
    }
    if let Some(Ok(parent)) = origin.traceparent.as_deref().map(HeaderValue::from_str) {
        headers.insert(TRACE_HEADER, parent);
    }
    if let Some(view) = view {
        view.metrics.count_request(route.as_deref().unwrap_or("unmatched"), response.status().as_u16());
        if view.drain.draining() {
            // Clients then open a connection to another instance for their next request.
            response.response_mut().head_mut().set_connection_type(ConnectionType::Close);
        }
    }
    if let Some(connection) = connection {
        // The rest of an incomplete body would be read as the next request.
        if connection.body_open.load(Ordering::Relaxed) || connection.last.load(Ordering::Relaxed) {
            response.response_mut().head_mut().set_connection_type(ConnectionType::Close);
        }
        if response.response().head().connection_type() == ConnectionType::Close {
            connection.last.store(true, Ordering::Relaxed);
        }
    }
    Ok(response.map_body(|_, body| TrackedBody { body, _answering: answering }))
}
