//! The reporter's routes.

use std::time::{Duration, Instant};

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use serde_json::json;

use super::query::{BadParameter, Parameters};
use super::report::{Ask, Question, ReportError, Reporter};
use crate::config::Secret;
use crate::event::{Source, format_micros};
use crate::log::{Reason, SharedLog};
use crate::ops::http::{Problem, guard, readable};
use crate::ops::ledger::{LedgerError, source_ledger};
use crate::ops::metrics::{Report, ReporterMetrics};
use crate::runtime::{Mailbox, Undelivered};
use crate::store::{DeadLetterFilter, Store, StoreError};

/// When somebody who was told to wait may ask again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What the handlers share.
pub(super) struct Shared {
    pub report: Mailbox<Reporter>,
    pub store: Store,
    pub log: Option<SharedLog>,
    pub metrics: ReporterMetrics,
    pub tokens: Vec<Secret>,
}

/// Adds the reporter's routes.
pub(super) fn routes(config: &mut web::ServiceConfig, shared: web::Data<Shared>) {
    config.app_data(shared);
    config.service(readable("/reports/events", events));
    config.service(readable("/reports/revenue", revenue));
    config.service(readable("/reports/demographics", demographics));
    config.service(readable("/ledger", ledger));
    config.service(readable("/dead-letters", dead_letters));
    config.service(readable("/events/{eventId}", event));
}

type Answer = Result<HttpResponse, Problem>;

fn answered(request: &HttpRequest, answer: Answer) -> HttpResponse {
    answer.unwrap_or_else(|problem| problem.respond(request))
}

fn bad(BadParameter { name, message }: BadParameter) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, format!("{name}: {message}")).with("parameter", name)
}

fn away(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).retry_after(RETRY_AFTER)
}

fn store_away(error: &StoreError) -> Problem {
    tracing::warn!(%error, "the store did not answer");
    away("the database is away, or has no schema yet")
}

async fn ask(shared: &Shared, report: Report, question: Question) -> Answer {
    let started = Instant::now();
    let room = shared.report.try_reserve(1).ok_or_else(|| away("too many reports are being made"))?;
    let answer = match shared.report.send_in(room, Ask(question.clone())).await {
        // The actor was restarted under the question: the new one answers it.
        Err(Undelivered::Lost) => shared.report.ask(Ask(question), Duration::from_secs(20)).await,
        other => other,
    };
    shared.metrics.duration(report).observe(started.elapsed().as_secs_f64());
    match answer {
        Ok(Ok(json)) => Ok(HttpResponse::Ok().content_type("application/json").body(json)),
        Ok(Err(ReportError::Bad(parameter))) => Err(bad(parameter)),
        Ok(Err(ReportError::Store(error))) => Err(store_away(&error)),
        Ok(Err(ReportError::TooLong)) => Err(away("the report took too long")),
        Ok(Err(ReportError::Shape(error))) => {
            Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
        }
        Err(error) => Err(away(error.to_string())),
    }
}

async fn events(request: HttpRequest, shared: web::Data<Shared>) -> HttpResponse {
    const ALLOWED: &[&str] = &["from", "to", "source", "funnelStage", "eventType", "interval"];
    let answer = async {
        guard(&request, &shared.tokens)?;
        let parameters = Parameters::read(request.query_string(), ALLOWED).map_err(bad)?;
        let filter = parameters.filter(1).map_err(bad)?;
        let interval = parameters.interval_within(&filter).map_err(bad)?;
        ask(&shared, Report::Events, Question::Events { filter, interval }).await
    };
    answered(&request, answer.await)
}

async fn revenue(request: HttpRequest, shared: web::Data<Shared>) -> HttpResponse {
    const ALLOWED: &[&str] = &["from", "to", "source", "campaignId", "interval", "groupBy", "limit"];
    let answer = async {
        guard(&request, &shared.tokens)?;
        let parameters = Parameters::read(request.query_string(), ALLOWED).map_err(bad)?;
        let filter = parameters.filter(1).map_err(bad)?;
        let interval = parameters.interval_within(&filter).map_err(bad)?;
        let limit = parameters.limit().map_err(bad)?;
        let campaigns = parameters.by_campaign().map_err(bad)?.then_some(limit);
        ask(&shared, Report::Revenue, Question::Revenue { filter, interval, campaigns }).await
    };
    answered(&request, answer.await)
}

async fn demographics(request: HttpRequest, shared: web::Data<Shared>) -> HttpResponse {
    const ALLOWED: &[&str] = &["from", "to", "source", "limit"];
    let answer = async {
        guard(&request, &shared.tokens)?;
        let parameters = Parameters::read(request.query_string(), ALLOWED).map_err(bad)?;
        let filter = parameters.filter(60).map_err(bad)?;
        let limit = parameters.limit().map_err(bad)?;
        ask(&shared, Report::Demographics, Question::Demographics { filter, limit }).await
    };
    answered(&request, answer.await)
}

async fn ledger(request: HttpRequest, shared: web::Data<Shared>) -> HttpResponse {
    let answer = async {
        guard(&request, &shared.tokens)?;
        Parameters::read(request.query_string(), &[]).map_err(bad)?;
        let log = shared.log.as_ref().ok_or_else(|| away("the log is away: NATS_URL is not set"))?;
        let mut sources = Vec::new();
        for &source in Source::ALL {
            sources.push(source_ledger(&**log, &shared.store, source).await.map_err(
                |error| match error {
                    LedgerError::Log(error) => away(error.to_string()),
                    LedgerError::Store(error) => store_away(&error),
                },
            )?);
        }
        Ok(HttpResponse::Ok().json(json!({ "sources": sources })))
    };
    answered(&request, answer.await)
}

async fn dead_letters(request: HttpRequest, shared: web::Data<Shared>) -> HttpResponse {
    const ALLOWED: &[&str] = &["reason", "source", "from", "to", "limit"];
    let answer = async {
        guard(&request, &shared.tokens)?;
        let parameters = Parameters::read(request.query_string(), ALLOWED).map_err(bad)?;
        let reason = match parameters.text("reason") {
            None => None,
            Some(text) => Some(Reason::parse(text).ok_or_else(|| {
                let allowed = Reason::ALL.map(Reason::as_str).join(", ");
                bad(BadParameter { name: "reason".to_owned(), message: format!("must be one of {allowed}") })
            })?),
        };
        parameters.range(1).map_err(bad)?;
        let filter = DeadLetterFilter {
            reason,
            source: parameters.source().map_err(bad)?,
            from: parameters.instant("from").map_err(bad)?,
            to: parameters.instant("to").map_err(bad)?,
            limit: parameters.limit().map_err(bad)?,
            ids: Vec::new(),
            replayed: true,
        };
        let letters = shared.store.letters(&filter).await.map_err(|error| store_away(&error))?;
        Ok(HttpResponse::Ok().json(json!({ "deadLetters": letters })))
    };
    answered(&request, answer.await)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Match {
    source: Option<&'static str>,
    state: &'static str,
    accepted_at: Option<String>,
    logged_at: Option<String>,
    collected_at: Option<String>,
    stored_at: Option<String>,
}

async fn event(request: HttpRequest, shared: web::Data<Shared>, event_id: web::Path<String>) -> HttpResponse {
    const ALLOWED: &[&str] = &["source"];
    let answer = async {
        guard(&request, &shared.tokens)?;
        let parameters = Parameters::read(request.query_string(), ALLOWED).map_err(bad)?;
        let only = parameters.source().map_err(bad)?;
        let found = shared.store.trace_event(&event_id, only).await.map_err(|error| store_away(&error))?;
        if found.is_empty() {
            return Err(Problem::new(StatusCode::NOT_FOUND, "no event of this id is known"));
        }
        let matches: Vec<Match> = found
            .into_iter()
            .map(|place| Match {
                source: place.source.map(Source::as_str),
                state: if place.stored_at.is_some() { "stored" } else { "deadLetter" },
                accepted_at: place.accepted_at.map(format_micros),
                logged_at: place.logged_at.map(format_micros),
                collected_at: place.collected_at.map(format_micros),
                stored_at: place.stored_at.map(format_micros),
            })
            .collect();
        Ok(HttpResponse::Ok().json(json!({ "matches": matches })))
    };
    answered(&request, answer.await)
}
