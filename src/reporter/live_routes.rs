//! The routes of the fleet and of the live feed.

use std::convert::Infallible;

use actix_web::http::StatusCode;
use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use futures::stream;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::answered::{Refused, answered};
use super::error::ReportError;
use super::query::Parameters;
use super::shapes;
use super::shared::Shared;
use crate::fleet::{Flow, KnownInstance, Outcome, Restart, SampleFilter};
use crate::log::Subject;
use crate::ops::http::{Problem, ServiceView, administers, guard};
use crate::runtime::ActorView;

/// The services that were heard of.
#[derive(Serialize, ToSchema)]
struct Fleet {
    instances: Vec<KnownInstance>,
}

/// Every service of every process that was heard of in the last 10 s.
#[utoipa::path(get, path = "/fleet", tag = "live", security((), ("bearer" = [])),
    responses(
        (status = 200, description = "The services", body = Fleet),
        Refused,
    ))]
pub(super) async fn fleet(request: HttpRequest, shared: web::Data<Shared>) -> HttpResponse {
    let answer = async {
        guard(&request, &shared.tokens)?;
        Parameters::read(request.query_string(), &[]).map_err(ReportError::from)?;
        Ok(HttpResponse::Ok().json(Fleet { instances: shared.live.instances() }))
    };
    answered(&request, answer.await)
}

/// Live feed: rates of the system each second, and up to 20 samples a second of events as they are validated.
///
/// Server-Sent Events: `flow` each second, `sample` for an event, `missed` with the number of samples that were left out
/// for this viewer. Figures that are not known are null. The answer ends when the reporter drains.
#[utoipa::path(get, path = "/live", tag = "live", security((), ("bearer" = [])),
    params(LiveParameters),
    responses(
        (status = 200, description = "The feed", content_type = "text/event-stream", body = Flow),
        Refused,
    ))]
pub(super) async fn live(request: HttpRequest, shared: web::Data<Shared>) -> HttpResponse {
    let answer = async {
        guard(&request, &shared.tokens)?;
        let parameters = shared.parameters(request.query_string(), LIVE).await?;
        let filter = SampleFilter {
            source: parameters.source().map_err(ReportError::from)?.map(|source| source.name().to_owned()),
            event_type: parameters.event_type_name().map_err(ReportError::from)?,
            outcome: parameters.outcome().map_err(ReportError::from)?,
        };
        let messages = shared.live.watch(filter).ok_or(ReportError::TooManyViewers)?;
        let messages = stream::unfold(messages, |mut messages| async move {
            let message = messages.recv().await?;
            Some((Ok::<_, Infallible>(message), messages))
        });
        Ok(HttpResponse::Ok()
            .content_type("text/event-stream")
            .insert_header((header::CACHE_CONTROL, "no-store"))
            // Proxies of the nginx family hold answers back unless told not to.
            .insert_header(("X-Accel-Buffering", "no"))
            .streaming(messages))
    };
    answered(&request, answer.await)
}

/// Parameters of the feed.
const LIVE: &[&str] = &["source", "eventType", "outcome"];

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "it is the shape alone")]
struct LiveParameters {
    /// Samples of this source
    #[param(schema_with = shapes::source)]
    source: Option<String>,
    /// Samples of this type of event
    #[param(schema_with = shapes::event_type, rename = "eventType")]
    event_type: Option<String>,
    /// Samples with this outcome
    outcome: Option<Outcome>,
}

/// Asks a process to restart one of its actors, or all of a group or of a service. Nothing is lost.
#[utoipa::path(post, path = "/fleet/{instance}/actors/{actor}/restart", tag = "live", security((), ("bearer" = [])),
    params(
        ("instance" = String, Path, description = "Host name and process id, as `/fleet` tells"),
        ("actor" = String, Path, description = "Name of the actor, the group or the service"),
    ),
    responses(
        (status = 202, description = "The process is asked"),
        (status = 401, description = "The admin token is missing or wrong"),
        (status = 403, description = "No admin token is set"),
        (status = 404, description = "No such process was heard of, or it has no such actor"),
    ))]
pub(super) async fn restart(
    request: HttpRequest,
    shared: web::Data<Shared>,
    view: web::Data<ServiceView>,
    path: web::Path<(String, String)>,
) -> HttpResponse {
    let answer = async {
        let token = administers(&request, &view)?;
        let (instance, actor) = path.into_inner();
        let is_it = |known: &KnownInstance| {
            known.instance.instance == instance && has(&known.instance.actors, &actor)
        };
        let known = shared.live.instances().iter().any(is_it);
        let order = known.then(|| Restart::new(token, instance, actor)).flatten();
        let order = order.and_then(|order| serde_json::to_vec(&order).ok()).ok_or_else(|| {
            Problem::new(StatusCode::NOT_FOUND, "no such process was heard of, or it has no such actor")
        })?;
        shared.live.bus().publish(Subject::Restart, order.into()).await;
        Ok(HttpResponse::Accepted().finish())
    };
    answered(&request, answer.await)
}

fn has(nodes: &[ActorView], name: &str) -> bool {
    nodes.iter().any(|node| node.name == name || has(&node.children, name))
}
