//! Routes of the reporter, and their OpenAPI description.

use std::sync::atomic::Ordering;
use std::time::Instant;

use actix_web::http::header::{self, CacheControl, CacheDirective, ETag, EntityTag};
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use tokio::sync::oneshot;
use utoipa::{IntoParams, OpenApi, ToSchema};

use super::answer::{EventsReport, RevenueReport};
use super::answered::{Answer, Refused, answered};
use super::dead_letters;
use super::demographics::DemographicsReport;
use super::error::ReportError;
use super::form::Form;
use super::live_routes;
use super::query::Parameters;
use super::report::{Ask, Question};
use super::shapes;
use super::shared::Shared;
use crate::event::{Source, format_micros};
use crate::ledger::SourceLedger;
use crate::ops::http::{client_has, guard, origin, readable, resource};
use crate::ops::left;
use crate::ops::metrics::Report;
use crate::ops::openapi::describe;
use crate::runtime::Undelivered;

/// Registers the routes.
pub(super) fn routes(config: &mut web::ServiceConfig, shared: web::Data<Shared>) {
    config.app_data(shared);
    config.service(readable("/reports/events", events));
    config.service(readable("/reports/revenue", revenue));
    config.service(readable("/reports/demographics", demographics));
    config.service(readable("/ledger", ledger));
    config.service(readable("/dead-letters", dead_letters::list));
    let replays = resource("/dead-letters/replay", "POST, OPTIONS");
    config.service(replays.route(web::post().to(dead_letters::replay)));
    config.service(readable("/dead-letters/{id}", dead_letters::letter));
    config.service(readable("/events/{eventId}", event));
    config.service(readable("/fleet", live_routes::fleet));
    config.service(readable("/live", live_routes::live));
    let restarts = resource("/fleet/{instance}/actors/{actor}/restart", "POST, OPTIONS");
    config.service(restarts.route(web::post().to(live_routes::restart)));
    describe(config, Routes::openapi(), "{}");
}

/// OpenAPI description of the routes.
#[derive(OpenApi)]
#[openapi(paths(
    events,
    revenue,
    demographics,
    ledger,
    dead_letters::list,
    dead_letters::letter,
    dead_letters::replay,
    event,
    live_routes::fleet,
    live_routes::live,
    live_routes::restart
))]
struct Routes;

#[derive(Serialize, ToSchema)]
struct Ledger {
    sources: Vec<SourceLedger>,
}

/// Declares query parameters for the description; [`Parameters`] parses them.
macro_rules! parameters {
    ($($name:ident { $($(#[$meta:meta])* $parameter:ident),* $(,)? })*) => {$(
        #[derive(IntoParams)]
        #[into_params(parameter_in = Query, rename_all = "camelCase")]
        #[expect(dead_code, reason = "declared for the description only")]
        struct $name { $($(#[$meta])* $parameter: Option<String>,)* }
    )*};
}

parameters! {
    EventsParameters {
        /// RFC 3339 or a date; inclusive, rounded down to the minute.
        #[param(schema_with = shapes::point)]
        from,
        /// RFC 3339 or a date; exclusive, rounded up to the minute.
        #[param(schema_with = shapes::point)]
        to,
        /// A source's name.
        #[param(schema_with = shapes::source)]
        source,
        /// `top` or `bottom`.
        #[param(schema_with = shapes::stage)]
        funnel_stage,
        /// Type of event, such as `ad.view`.
        #[param(schema_with = shapes::event_type)]
        event_type,
        /// `minute`, `hour` or `day`: adds a series, of 10,000 buckets at most.
        #[param(schema_with = shapes::interval)]
        interval,
    }
    RevenueParameters {
        /// RFC 3339 or a date; inclusive, rounded down to the minute.
        #[param(schema_with = shapes::point)]
        from,
        /// RFC 3339 or a date; exclusive, rounded up to the minute.
        #[param(schema_with = shapes::point)]
        to,
        /// A source's name.
        #[param(schema_with = shapes::source)]
        source,
        /// Only this campaign.
        #[param(schema_with = shapes::campaign)]
        campaign_id,
        /// Currency of the report, by its code of ISO 4217; `ESS_CURRENCY` by default.
        #[param(schema_with = shapes::currency)]
        currency,
        /// `minute`, `hour` or `day`: adds a series, of 10,000 buckets at most.
        #[param(schema_with = shapes::interval)]
        interval,
        /// `campaign`: adds the campaigns that earned the most.
        #[param(schema_with = shapes::group_by)]
        group_by,
        /// Maximum number of campaigns: 1 to 1,000, 50 by default.
        #[param(schema_with = shapes::limit)]
        limit,
    }
    DemographicsParameters {
        /// RFC 3339 or a date; inclusive, rounded down to the hour.
        #[param(schema_with = shapes::point)]
        from,
        /// RFC 3339 or a date; exclusive, rounded up to the hour.
        #[param(schema_with = shapes::point)]
        to,
        /// A source's name.
        #[param(schema_with = shapes::source)]
        source,
        /// Maximum number of countries and of cities: 1 to 1,000, 50 by default.
        #[param(schema_with = shapes::limit)]
        limit,
    }
    EventParameters {
        /// A source's name.
        #[param(schema_with = shapes::source)]
        source,
    }
}

/// Sends a question to a report actor: round robin, skipping actors whose mailbox is full.
async fn ask(request: &HttpRequest, shared: &Shared, report: Report, question: Question) -> Answer {
    let started = Instant::now();
    let form = Form::asked(request);
    let turn = shared.turn.fetch_add(1, Ordering::Relaxed);
    let mut actors =
        shared.reports.iter().cycle().skip(turn % shared.reports.len()).take(shared.reports.len());
    let (actor, room) =
        actors.find_map(|actor| Some((actor, actor.try_reserve(1)?))).ok_or(ReportError::TooManyReports)?;
    let asking = async {
        // The sender is dropped with this future, for example when the client leaves; that cancels the report.
        let (_waits, asker) = oneshot::channel();
        let origin = origin(request);
        match actor
            .send_in(room, Ask { question: question.clone(), form, asker, origin: origin.clone() })
            .await
        {
            // The actor was restarted before it answered: the question goes to its successor.
            Err(Undelivered::Lost) => {
                let (_waits, asker) = oneshot::channel();
                actor.send(Ask { question, form, asker, origin }).await
            }
            other => other,
        }
    };
    let answer = tokio::select! {
        answer = asking => answer,
        () = left(request) => Ok(Err(ReportError::ClientLeft)),
    };
    shared.metrics.duration(report).observe(started.elapsed().as_secs_f64());
    match answer {
        Ok(Ok(body)) => Ok(cacheable(request, form, body)),
        Ok(Err(error)) => Err(error.into()),
        Err(error) => Err(ReportError::from(error).into()),
    }
}

/// Answer with an entity tag, which a cache may store and has to revalidate: late events can change a report on any
/// range. 304 if the client has the same answer already.
fn cacheable(request: &HttpRequest, form: Form, body: Vec<u8>) -> HttpResponse {
    let tag = EntityTag::new_strong(format!("{:032x}", xxhash_rust::xxh3::xxh3_128(&body)));
    let known = client_has(request, &tag);
    let mut answer = if known { HttpResponse::NotModified() } else { HttpResponse::Ok() };
    answer
        .insert_header(ETag(tag))
        .insert_header(CacheControl(vec![CacheDirective::Private, CacheDirective::NoCache]))
        .insert_header((header::VARY, "Accept, Authorization"));
    if known { answer.finish() } else { answer.content_type(form.content_type()).body(body) }
}

/// Numbers of events, by source, funnel stage and type.
#[utoipa::path(get, path = "/reports/events", tag = "reports", security((), ("bearer" = [])),
    params(EventsParameters),
    responses(
        (status = 200, description = "The report; as CSV if the client prefers `text/csv`", content((EventsReport = "application/json"), (String = "text/csv"))),
        (status = 304, description = "The report is the one that If-None-Match names"),
        Refused,
    ))]
async fn events(request: HttpRequest, shared: web::Data<Shared>) -> HttpResponse {
    const ALLOWED: &[&str] = &["from", "to", "source", "funnelStage", "eventType", "interval"];
    let answer = async {
        guard(&request, &shared.tokens)?;
        let parameters = shared.parameters(request.query_string(), ALLOWED).await?;
        let filter = parameters.filter(1, shared.store.currency()).map_err(ReportError::from)?;
        let interval = parameters.interval_within(&filter).map_err(ReportError::from)?;
        ask(&request, &shared, Report::Events, Question::Events { filter, interval }).await
    };
    answered(&request, answer.await)
}

/// Revenue, by source and event type, and by campaign.
#[utoipa::path(get, path = "/reports/revenue", tag = "reports", security((), ("bearer" = [])),
    params(RevenueParameters),
    responses(
        (status = 200, description = "The report; as CSV if the client prefers `text/csv`", content((RevenueReport = "application/json"), (String = "text/csv"))),
        (status = 304, description = "The report is the one that If-None-Match names"),
        Refused,
    ))]
async fn revenue(request: HttpRequest, shared: web::Data<Shared>) -> HttpResponse {
    const ALLOWED: &[&str] =
        &["from", "to", "source", "campaignId", "currency", "interval", "groupBy", "limit"];
    let answer = async {
        guard(&request, &shared.tokens)?;
        let parameters = shared.parameters(request.query_string(), ALLOWED).await?;
        let filter = parameters.filter(1, shared.store.currency()).map_err(ReportError::from)?;
        let interval = parameters.interval_within(&filter).map_err(ReportError::from)?;
        let limit = parameters.limit().map_err(ReportError::from)?;
        let campaigns = parameters.by_campaign().map_err(ReportError::from)?.then_some(limit.into());
        ask(&request, &shared, Report::Revenue, Question::Revenue { filter, interval, campaigns }).await
    };
    answered(&request, answer.await)
}

/// Users that the events reached, by source.
#[utoipa::path(get, path = "/reports/demographics", tag = "reports", security((), ("bearer" = [])),
    params(DemographicsParameters),
    responses(
        (status = 200, description = "The report; as CSV if the client prefers `text/csv`", content((DemographicsReport = "application/json"), (String = "text/csv"))),
        (status = 304, description = "The report is the one that If-None-Match names"),
        Refused,
    ))]
async fn demographics(request: HttpRequest, shared: web::Data<Shared>) -> HttpResponse {
    const ALLOWED: &[&str] = &["from", "to", "source", "limit"];
    let answer = async {
        guard(&request, &shared.tokens)?;
        let parameters = shared.parameters(request.query_string(), ALLOWED).await?;
        let filter = parameters.filter(60, shared.store.currency()).map_err(ReportError::from)?;
        let limit = parameters.limit().map_err(ReportError::from)?;
        ask(&request, &shared, Report::Demographics, Question::Demographics { filter, limit: limit.into() })
            .await
    };
    answered(&request, answer.await)
}

/// Ledger: the state of every event that the log accepted.
#[utoipa::path(get, path = "/ledger", tag = "reports", security((), ("bearer" = [])),
    responses(
        (status = 200, description = "The ledger of each source, each from a consistent snapshot", body = Ledger),
        Refused,
    ))]
async fn ledger(request: HttpRequest, shared: web::Data<Shared>) -> HttpResponse {
    let answer = async {
        guard(&request, &shared.tokens)?;
        Parameters::read(request.query_string(), &[]).map_err(ReportError::from)?;
        let ledgers = shared.ledgers.as_ref().ok_or(ReportError::NoLog)?;
        let mut sources = Vec::new();
        for source in Source::all() {
            match ledgers.reconcile(source).await {
                Ok(found) => sources.push(found.ledger),
                // A source that was removed may have no topic any more.
                Err(error) if !source.is_built_in() => tracing::debug!(%source, %error, "no ledger now"),
                Err(error) => return Err(ReportError::from(error).into()),
            }
        }
        sources.extend(ledgers.refused_without_source().await.map_err(ReportError::from)?);
        Ok(HttpResponse::Ok().json(Ledger { sources }))
    };
    answered(&request, answer.await)
}

/// Locations of an event.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Matches {
    /// Rows first, then at most 100 dead letters, oldest first.
    matches: Vec<Match>,
    /// True if there are more dead letters with this id.
    matches_truncated: bool,
}

/// Location of an event, and the times at which it was accepted, logged, collected and stored.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Match {
    #[schema(value_type = Option<String>)]
    source: Option<&'static str>,
    #[schema(value_type = String, example = "stored")]
    state: &'static str,
    accepted_at: Option<String>,
    logged_at: Option<String>,
    collected_at: Option<String>,
    stored_at: Option<String>,
}

/// Locations of one event: rows and dead letters.
#[utoipa::path(get, path = "/events/{eventId}", tag = "reports", security((), ("bearer" = [])),
    params(("eventId" = String, Path, description = "The publisher's id"), EventParameters),
    responses(
        (status = 200, description = "The event's rows and dead letters", body = Matches),
        Refused,
        (status = 404, description = "No event of this id is known"),
    ))]
async fn event(request: HttpRequest, shared: web::Data<Shared>, event_id: web::Path<String>) -> HttpResponse {
    const ALLOWED: &[&str] = &["source"];
    let answer = async {
        guard(&request, &shared.tokens)?;
        let parameters = shared.parameters(request.query_string(), ALLOWED).await?;
        let only = parameters.source().map_err(ReportError::from)?;
        let turn = shared.lists.turn().await?;
        let found = shared.store.locate_event(&event_id, only).await.map_err(ReportError::from)?;
        if found.locations.is_empty() {
            return Err(ReportError::UnknownEvent.into());
        }
        let matches: Vec<Match> = found
            .locations
            .into_iter()
            .map(|place| Match {
                source: place.source.map(Source::name),
                state: if place.stored_at.is_some() { "stored" } else { "deadLetter" },
                accepted_at: place.accepted_at.map(format_micros),
                logged_at: place.logged_at.map(format_micros),
                collected_at: place.collected_at.map(format_micros),
                stored_at: place.stored_at.map(format_micros),
            })
            .collect();
        turn.answer(&Matches { matches, matches_truncated: found.truncated })
    };
    answered(&request, answer.await)
}
