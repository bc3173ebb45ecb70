//! HTTP that all services share: routes of operation, bearer tokens, correlation ids, traces and metrics of requests.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{Server, ServiceRequest, ServiceResponse};
use actix_web::http::header::{self, HeaderValue};
use actix_web::http::{ConnectionType, Method, StatusCode};
use actix_web::middleware::{Next, from_fn};
use actix_web::{App, FromRequest, Handler, HttpMessage, HttpRequest, HttpResponse, Responder, web};
use opentelemetry::KeyValue;
use opentelemetry::trace::SpanKind;
use serde::Serialize;
use serde_json::{Map, Value};
use tracing_actix_web::{DefaultRootSpanBuilder, RootSpanBuilder, TracingLogger};
use utoipa::ToSchema;

use super::connections::{self, Answering};
pub use super::listen::ListenError;
use super::listen::listen;
use super::metrics::ServiceMetrics;
use super::origin::{self, CORRELATION_HEADER, TRACE_HEADER, origin_of, trace_id};
use super::problem::{PROBLEM_TYPE, ProblemShape};
pub use super::problem::{Problem, origin};
use super::readiness::Readiness;
use super::trace;
use crate::config::{HttpSettings, Secret, Token};
use crate::runtime::{Command, DrainHandle, Phase, Tree};

/// Prefixes of routes that are not traced: probes, scrapes and documentation.
const UNTRACED: [&str; 4] = ["/health", "/ready", "/metrics", "/docs"];

/// Parts of a service that its HTTP routes use.
#[derive(Clone)]
pub struct ServiceView {
    /// Name in answers and logs.
    pub name: &'static str,
    /// Tree of actors and tasks.
    pub actors: Arc<Tree>,
    /// Metrics.
    pub metrics: ServiceMetrics,
    /// Readiness of the dependencies.
    pub readiness: Arc<Readiness>,
    /// Phase of the service's life.
    pub drain: DrainHandle,
    /// Token for commands of operators; without one they are off.
    pub admin_token: Option<Secret>,
    /// Requests in progress.
    pub requests: Requests,
    /// Bearer tokens of all routes but health and metrics; empty if the routes are open.
    pub tokens: Vec<Token>,
    /// Limits, address and TLS of the listener.
    pub settings: HttpSettings,
}

/// Number of requests in progress.
#[derive(Debug, Clone, Default)]
pub struct Requests(Arc<AtomicUsize>);

impl Requests {
    fn enter(&self) -> impl Drop + use<> {
        struct Entered(Arc<AtomicUsize>);
        impl Drop for Entered {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        self.0.fetch_add(1, Ordering::Relaxed);
        Entered(self.0.clone())
    }

    /// Waits until no request is in progress.
    pub async fn none(&self) {
        while self.0.load(Ordering::Relaxed) > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// The token of a request's `Authorization: Bearer` header.
fn bearer_token(request: &HttpRequest) -> Option<&str> {
    let value = request.headers().get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Index of a request's bearer token among `tokens`; compared in constant time.
pub fn token_index(request: &HttpRequest, tokens: &[Token]) -> Option<usize> {
    let token = bearer_token(request)?;
    // All tokens are compared, so that the time does not depend on the index.
    tokens.iter().enumerate().fold(None, |found, (index, known)| {
        let equal = constant_time_eq(token.as_bytes(), known.secret.expose().as_bytes());
        found.or(equal.then_some(index))
    })
}

/// Requires one of the tokens; without tokens every request passes.
///
/// # Errors
///
/// A problem with status 401 if the token is missing or unknown.
pub fn guard(request: &HttpRequest, tokens: &[Token]) -> Result<(), Problem> {
    if tokens.is_empty() || token_index(request, tokens).is_some() {
        return Ok(());
    }
    Err(Problem::new(StatusCode::UNAUTHORIZED, "a bearer token is required, and it is missing or wrong"))
}

/// Compares two secrets by their digests, so that the time does not depend on the first difference.
pub fn constant_time_eq(left: &[u8], right: &[u8]) -> bool {
    use sha2::{Digest, Sha256};
    let (left, right) = (Sha256::digest(left), Sha256::digest(right));
    left.iter().zip(right.iter()).fold(0, |difference, (left, right)| difference | (left ^ right)) == 0
}

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

/// True if `If-None-Match` names the tag, so that the answer is 304 (RFC 9110, 13.1.2).
pub fn client_has(request: &HttpRequest, tag: &header::EntityTag) -> bool {
    use header::Header;
    match header::IfNoneMatch::parse(request) {
        Ok(header::IfNoneMatch::Any) => true,
        Ok(header::IfNoneMatch::Items(tags)) => tags.iter().any(|known| known.weak_eq(tag)),
        Err(_) => false,
    }
}

/// The answer for an unknown path.
pub fn not_found(request: &HttpRequest) -> HttpResponse {
    Problem::new(StatusCode::NOT_FOUND, format!("there is nothing at {}", request.path())).respond(request)
}

async fn unmatched(request: HttpRequest) -> HttpResponse {
    if request.method() == Method::OPTIONS && request.path() == "*" {
        return allowing("GET, HEAD, POST, OPTIONS");
    }
    not_found(&request)
}

/// The answer to OPTIONS (RFC 9110, 9.3.7).
fn allowing(allowed: &'static str) -> HttpResponse {
    HttpResponse::NoContent().insert_header((header::ALLOW, allowed)).finish()
}

/// A resource that answers other methods with 405 and `Allow`, and OPTIONS with 204. `allowed` includes OPTIONS.
pub fn resource(path: &str, allowed: &'static str) -> actix_web::Resource {
    web::resource(path.to_owned()).default_service(web::to(move |request: HttpRequest| async move {
        if request.method() == Method::OPTIONS {
            return allowing(allowed);
        }
        let detail = format!("{} is not allowed at {}", request.method(), request.path());
        let mut response = Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail).respond(&request);
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
        response
    }))
}

/// A resource for GET and HEAD.
pub fn readable<F, Args>(path: &str, handler: F) -> actix_web::Resource
where
    F: Handler<Args> + Clone,
    Args: FromRequest + 'static,
    F::Output: Responder + 'static,
{
    resource(path, "GET, HEAD, OPTIONS").route(web::get().to(handler.clone())).route(web::head().to(handler))
}

fn common(config: &mut web::ServiceConfig) {
    for path in ["/health", "/health/live", "/health/liveness"] {
        config.service(readable(path, live));
    }
    for path in ["/ready", "/health/ready", "/health/readiness"] {
        config.service(readable(path, ready));
    }
    config.service(readable("/metrics", metrics));
    config.service(readable("/actors", actors));
    config.service(resource("/actors/{name}/restart", "POST, OPTIONS").route(web::post().to(restart)));
    #[cfg(feature = "faults")]
    config.service(resource("/actors/{name}/panic", "POST, OPTIONS").route(web::post().to(panic)));
}

/// Actors of a service as a tree; its root is the service.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only its OpenAPI schema is used")]
pub(super) struct Actors {
    actors: Vec<crate::runtime::ActorView>,
}

/// State of a service that is alive or ready.
#[derive(Serialize, ToSchema)]
pub(super) struct Health {
    #[schema(value_type = String, example = "ok")]
    status: &'static str,
    #[schema(value_type = String, example = "reporter")]
    service: &'static str,
    /// Parts of dependencies that are away, with the errors, although the service is ready; topics of the log at a
    /// gateway.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(required = false)]
    degraded: BTreeMap<String, String>,
}

/// Liveness: the process can make progress.
#[utoipa::path(get, path = "/health", tag = "service", responses(
    (status = 200, description = "The process can make progress", body = Health),
    (status = 503, description = "The service has failed: actors gave up too often", body = ProblemShape,
        content_type = "application/problem+json"),
))]
pub(super) async fn live(request: HttpRequest, view: web::Data<ServiceView>) -> HttpResponse {
    let Some(why) = view.actors.failure() else {
        return HttpResponse::Ok().json(Health {
            status: "ok",
            service: view.name,
            degraded: BTreeMap::new(),
        });
    };
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, why).respond(&request)
}

/// Readiness: the service runs and its dependencies answer.
#[utoipa::path(get, path = "/ready", tag = "service", responses(
    (status = 200, description = "Ready; `degraded` lists parts of dependencies that are away", body = Health),
    (status = 503, description = "Not ready; `dependencies` has the reasons", body = ProblemShape,
        content_type = "application/problem+json"),
))]
pub(super) async fn ready(request: HttpRequest, view: web::Data<ServiceView>) -> HttpResponse {
    let mut missing = view.readiness.missing();
    if view.drain.phase() != Phase::Running {
        missing.insert(0, ("service", "is stopping".to_owned()));
    }
    let faults = view.actors.faults();
    if !faults.is_empty() {
        missing.insert(0, ("actors", faults.join("; ")));
    }
    if missing.is_empty() {
        let degraded = view.readiness.degraded();
        return HttpResponse::Ok().json(Health { status: "ready", service: view.name, degraded });
    }
    let detail: Vec<_> = missing.iter().map(|(name, why)| format!("{name}: {why}")).collect();
    let dependencies: Map<String, Value> =
        missing.into_iter().map(|(name, why)| (name.to_owned(), Value::from(why))).collect();
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail.join("; "))
        .with("dependencies", dependencies)
        .retry_after(Duration::from_secs(1))
        .respond(&request)
}

/// Metrics in the text format of Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "service", responses(
    (status = 200, description = "Prometheus text", body = String, content_type = "text/plain"),
))]
pub(super) async fn metrics(request: HttpRequest, view: web::Data<ServiceView>) -> HttpResponse {
    match view.metrics.text(view.drain.phase(), &view.readiness) {
        Ok(text) => HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(text),
        Err(error) => Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).respond(&request),
    }
}

/// Current state of all actors.
#[utoipa::path(get, path = "/actors", tag = "service", security((), ("bearer" = [])), responses(
    (status = 200, description = "All actors of the service", body = Actors),
    (status = 401, description = "No token, or a wrong one", body = ProblemShape,
        content_type = "application/problem+json"),
))]
pub(super) async fn actors(request: HttpRequest, view: web::Data<ServiceView>) -> HttpResponse {
    if let Err(problem) = guard(&request, &view.tokens) {
        return problem.respond(&request);
    }
    HttpResponse::Ok().json(serde_json::json!({ "actors": [view.actors.view()] }))
}

/// Restarts an actor; no event is lost.
#[utoipa::path(post, path = "/actors/{name}/restart", tag = "service", security((), ("bearer" = [])),
    params(("name" = String, Path, description = "An actor's name, such as `reporter.report.1`")),
    responses(
        (status = 202, description = "The actor will restart", body = Commanded<'static>),
        (status = 401, description = "No admin token, or a wrong one", body = ProblemShape,
            content_type = "application/problem+json"),
        (status = 403, description = "ESS_ADMIN_TOKEN is not set", body = ProblemShape,
            content_type = "application/problem+json"),
        (status = 404, description = "There is no such actor", body = ProblemShape,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn restart(
    request: HttpRequest,
    view: web::Data<ServiceView>,
    name: web::Path<String>,
) -> HttpResponse {
    command(&request, &view, &name, Command::Restart)
}

#[cfg(feature = "faults")]
async fn panic(request: HttpRequest, view: web::Data<ServiceView>, name: web::Path<String>) -> HttpResponse {
    command(&request, &view, &name, Command::Panic)
}

/// A command that was accepted.
#[derive(Serialize, ToSchema)]
pub(super) struct Commanded<'a> {
    actor: &'a str,
    #[schema(value_type = String, example = "accepted")]
    status: &'static str,
}

/// Requires the admin token; returns it.
///
/// # Errors
///
/// A problem with status 403 if no admin token is set, or 401 if the request has another one or none.
pub fn administers<'v>(request: &HttpRequest, view: &'v ServiceView) -> Result<&'v Secret, Problem> {
    let token = view.admin_token.as_ref().ok_or_else(|| {
        Problem::new(StatusCode::FORBIDDEN, "commands of operators are off: ESS_ADMIN_TOKEN is not set")
    })?;
    if bearer_token(request)
        .is_some_and(|shown| constant_time_eq(shown.as_bytes(), token.expose().as_bytes()))
    {
        return Ok(token);
    }
    Err(Problem::new(StatusCode::UNAUTHORIZED, "the admin token is missing or wrong"))
}

fn command(request: &HttpRequest, view: &ServiceView, name: &str, command: Command) -> HttpResponse {
    if let Err(problem) = administers(request, view) {
        return problem.respond(request);
    }
    if !view.actors.command(name, command) {
        return Problem::new(StatusCode::NOT_FOUND, format!("there is no actor {name}")).respond(request);
    }
    HttpResponse::Accepted().json(Commanded { actor: name, status: "accepted" })
}
