//! Routes that every service has: health, readiness, metrics and actors.

use std::collections::BTreeMap;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::problem::{Problem, ProblemShape};
use super::resources::{readable, resource};
use super::tokens::{administers, guard};
use super::view::ServiceView;
use crate::runtime::{Command, Phase};

/// Registers the routes.
pub(super) fn common(config: &mut web::ServiceConfig) {
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

fn command(request: &HttpRequest, view: &ServiceView, name: &str, command: Command) -> HttpResponse {
    if let Err(problem) = administers(request, view) {
        return problem.respond(request);
    }
    if !view.actors.command(name, command) {
        return Problem::new(StatusCode::NOT_FOUND, format!("there is no actor {name}")).respond(request);
    }
    HttpResponse::Accepted().json(Commanded { actor: name, status: "accepted" })
}
