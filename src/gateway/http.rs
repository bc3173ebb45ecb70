//! The gateway's routes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use utoipa::{IntoResponses, OpenApi, ToSchema};

use super::Shared;
use super::answer::{EventErrors, Outcome};
use super::body::{UnpackError, encoding, read, unpack};
use super::ingest::{Ingest, IngestError, deadline, unreadable_body};
use super::publishers::Publisher;
use super::signature;
use crate::event::Source;
use crate::log::Origin;
use crate::ops::http::{Problem, borne, origin, resource, same};
use crate::ops::metrics::{GatewayFailure, RequestOutcome};
use crate::ops::openapi::describe;
use crate::ops::trace_id;

/// When a publisher that was told to wait may come again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The schemas of events, by the contract.
const EVENTS: &str = include_str!("event.schema.json");

/// Adds the gateway's routes.
pub(super) fn routes(config: &mut web::ServiceConfig, shared: web::Data<Shared>) {
    config.app_data(shared);
    describe(config, Routes::openapi(), EVENTS);
    config.service(resource("/webhook", "POST, OPTIONS").route(web::post().to(any_source)));
    for source in Source::ALL {
        let route =
            move |request: HttpRequest, shared, payload| webhook(request, shared, payload, Some(*source));
        let path = format!("/webhook/{source}");
        config.service(
            match source {
                Source::Facebook => resource(&path, "GET, HEAD, POST, OPTIONS")
                    .route(web::get().to(handshake))
                    .route(web::head().to(handshake)),
                Source::Tiktok => resource(&path, "POST, OPTIONS"),
            }
            .route(web::post().to(route)),
        );
    }
}

/// Takes events of any source.
#[utoipa::path(post, path = "/webhook", tag = "webhooks", security((), ("bearer" = [])),
    request_body(content = ref("#/components/schemas/Events"), content_type = "application/json",
        description = "One event or an array of events; plain, gzip or zstd"),
    responses(
        (status = 202, description = "At least one event was accepted, or there was none; what was accepted is stored",
            body = Accepted<'static>),
        Refused,
    ))]
async fn any_source(request: HttpRequest, shared: web::Data<Shared>, payload: web::Payload) -> HttpResponse {
    webhook(request, shared, payload, None).await
}

/// What became of a body's events. All that were accepted are durable.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "it is the shape alone")]
struct Accepted<'a> {
    accepted: usize,
    rejected: usize,
    correlation_id: &'a str,
    /// Of the first 100 events that were rejected, up to 256 KiB.
    errors: Vec<EventErrors<'a>>,
    /// True if events, or errors of one, are not named.
    errors_truncated: bool,
}

/// A problem with the members of an answer to events.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "it is the shape alone")]
struct Rejection {
    #[schema(rename = "type", example = "about:blank")]
    kind: String,
    title: String,
    #[schema(example = 422)]
    status: u16,
    detail: String,
    correlation_id: String,
    accepted: usize,
    rejected: usize,
    errors: Vec<EventErrors<'static>>,
    errors_truncated: bool,
}

/// What a body of events can be answered instead of 202.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "it is the shape alone")]
enum Refused {
    /// Not JSON, or neither object nor array
    #[response(status = 400)]
    NotJson,
    /// Signature or token
    #[response(status = 401)]
    Unauthorized,
    /// The body did not come in time
    #[response(status = 408)]
    TimedOut,
    /// Too large, or too many events
    #[response(status = 413)]
    TooLarge,
    /// Unsupported type or encoding
    #[response(status = 415)]
    Unsupported,
    /// Every event was rejected
    #[response(status = 422, content_type = "application/problem+json")]
    Rejected(Rejection),
    /// More requests a second than the publisher may send: come again
    #[response(status = 429)]
    TooMany,
    /// Saturated, draining, or the log is away: send the whole again
    #[response(status = 503)]
    Again,
}

/// The gateway's routes, described.
#[derive(OpenApi)]
#[openapi(paths(any_source, facebook, tiktok, handshake), components(schemas(Rejection)))]
struct Routes;

/// Takes events of Facebook, with `X-Hub-Signature-256` where its secret is set.
#[utoipa::path(post, path = "/webhook/facebook", tag = "webhooks", security((), ("bearer" = [])),
    request_body(content = ref("#/components/schemas/FacebookEvents"), content_type = "application/json",
        description = "One event or an array of events; plain, gzip or zstd"),
    responses(
        (status = 202, description = "At least one event was accepted, or there was none; what was accepted is stored",
            body = Accepted<'static>),
        Refused,
    ))]
#[expect(dead_code, reason = "it is the description alone")]
fn facebook() {}

/// Takes events of TikTok, with `TikTok-Signature` where its secret is set.
#[utoipa::path(post, path = "/webhook/tiktok", tag = "webhooks", security((), ("bearer" = [])),
    request_body(content = ref("#/components/schemas/TiktokEvents"), content_type = "application/json",
        description = "One event or an array of events; plain, gzip or zstd"),
    responses(
        (status = 202, description = "At least one event was accepted, or there was none; what was accepted is stored",
            body = Accepted<'static>),
        Refused,
    ))]
#[expect(dead_code, reason = "it is the description alone")]
fn tiktok() {}

/// Takes events, of one source alone where its own path is asked.
async fn webhook(
    request: HttpRequest,
    shared: web::Data<Shared>,
    payload: web::Payload,
    only: Option<Source>,
) -> HttpResponse {
    let started = Instant::now();
    let origin = Arc::new(origin(&request));
    let mut publisher = Publisher::UNKNOWN;
    let answer = match take(&request, &shared, payload, only, &origin, &mut publisher).await {
        Ok(outcome) => shared.answers.answer(outcome, &origin),
        Err(problem) => problem.respond_to(&origin),
    };
    let outcome = RequestOutcome::of(answer.status().as_u16());
    shared.metrics.count_request(shared.publishers.name(publisher), outcome);
    shared.metrics.request_seconds.observe(started.elapsed().as_secs_f64());
    answer
}

/// The checks in their order (401, 429, 415, 413, 400), then the events. Where a signature says who it is, 429
/// comes behind it: nobody can use up what another may send.
async fn take(
    request: &HttpRequest,
    shared: &Shared,
    payload: web::Payload,
    only: Option<Source>,
    origin: &Arc<Origin>,
    publisher: &mut Publisher,
) -> Result<Outcome, Problem> {
    if shared.drain.draining() {
        return Err(again(0, "the gateway is stopping").close());
    }
    let signed = match only {
        Some(Source::Facebook) => !shared.facebook_secrets.is_empty(),
        Some(Source::Tiktok) => !shared.tiktok_secrets.is_empty(),
        None => false,
    };
    if !signed {
        *publisher = match borne(request, &shared.tokens) {
            Some(place) => shared.publishers.with_token(place),
            None if shared.tokens.is_empty() => Publisher::ANONYMOUS,
            None => {
                let detail = "a bearer token is asked for, and it is missing or wrong";
                return Err(unauthorized(detail).close());
            }
        };
        pass(shared, *publisher).map_err(Problem::close)?;
    }
    if signed && signature_header(request, only).is_none() {
        return Err(unauthorized("the signature is missing").close());
    }
    // A type that is wrong is said after a signature that is wrong, which takes the body to know.
    let encoding = encoding(request.headers());
    if !signed && let Err(problem) = encoding {
        return Err(problem.close());
    }
    let share = shared.budget.share(!signed);
    let wire = read(request.headers(), payload, shared.max_body, shared.body_timeout, share).await;
    let (wire, mut share) = match (wire, &encoding) {
        // The type comes before the size.
        (Err(_), Err(_)) => return Err(encoding.err().unwrap_or_else(|| unauthorized("")).close()),
        (wire, _) => wire?,
    };
    if signed {
        check_signature(request, shared, only, &wire).map_err(unauthorized)?;
        share.verified();
        *publisher = only.map_or(Publisher::UNKNOWN, Publisher::signed);
        pass(shared, *publisher)?;
    }
    let (body, mut share) = match unpack(encoding?, wire.clone(), shared.max_body, share).await {
        Ok(unpacked) => unpacked,
        Err(UnpackError::Refused(problem)) => return Err(problem),
        Err(UnpackError::Broken(why)) => {
            let letter = unreadable_body(origin, only, &wire, &why, shared.redactor.as_deref());
            shared.metrics.fail(only, GatewayFailure::NotJson, 1);
            shared.dead_letters.set_one_aside(letter);
            return Err(Problem::new(
                StatusCode::BAD_REQUEST,
                format!("the body could not be unpacked: {why}"),
            ));
        }
    };
    let bytes = body.len();
    if shared.redactor.is_some() {
        // The events are held a second time, without what tells whose they are.
        share.grow_to(2 * bytes).await?;
    }
    let ingest = Ingest { body, share: Arc::new(share), origin: origin.clone(), only, deadline: deadline() };
    let left = ingest.deadline.saturating_duration_since(Instant::now()) + Duration::from_millis(500);
    match shared.ingest.ask(ingest, left).await {
        Ok(Ok(outcome)) => {
            say(shared, shared.publishers.name(*publisher), origin, bytes, &outcome);
            Ok(outcome)
        }
        Ok(Err(IngestError::NotJson(why))) => {
            Err(Problem::new(StatusCode::BAD_REQUEST, format!("the body is no JSON object or array: {why}")))
        }
        Ok(Err(IngestError::TooMany)) => {
            let limit = shared.max_events;
            let detail = format!("the body has more than {limit} events (ESS_MAX_EVENTS)");
            Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail).with("limit", limit))
        }
        Ok(Err(IngestError::NotDurable { accepted, why })) => Err(again(accepted, &why)),
        Err(error) => Err(again(0, &error.to_string())),
    }
}

fn say(shared: &Shared, publisher: &str, origin: &Origin, bytes: usize, outcome: &Outcome) {
    let Outcome { accepted, rejected, .. } = outcome;
    let (correlation_id, trace_id) = (&origin.correlation_id, trace_id(origin));
    if *rejected > 0 || shared.lines.pass() {
        tracing::info!(correlation_id, trace_id, publisher, accepted, rejected, bytes, "events taken");
    } else {
        tracing::debug!(correlation_id, trace_id, publisher, accepted, rejected, bytes, "events taken");
    }
}

/// Counts a request against what its publisher may send.
fn pass(shared: &Shared, publisher: Publisher) -> Result<(), Problem> {
    shared.publishers.pass(publisher).map_err(|wait| {
        let detail = "more requests a second than this publisher may send (ESS_RATE_LIMIT); send it again";
        let whole = Duration::from_secs(wait.as_secs() + u64::from(wait.subsec_nanos() > 0));
        Problem::new(StatusCode::TOO_MANY_REQUESTS, detail).with("accepted", 0).retry_after(whole)
    })
}

fn again(accepted: usize, why: &str) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, format!("{why}; send the whole again"))
        .with("accepted", accepted)
        .retry_after(RETRY_AFTER)
}

fn unauthorized(why: &str) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, why)
}

fn signature_header(request: &HttpRequest, only: Option<Source>) -> Option<&str> {
    let name = match only? {
        Source::Facebook => "X-Hub-Signature-256",
        Source::Tiktok => "TikTok-Signature",
    };
    request.headers().get(name)?.to_str().ok()
}

fn check_signature(
    request: &HttpRequest,
    shared: &Shared,
    only: Option<Source>,
    wire: &[u8],
) -> Result<(), &'static str> {
    let header = signature_header(request, only);
    match only {
        Some(Source::Facebook) => signature::facebook(&shared.facebook_secrets, header, wire),
        Some(Source::Tiktok) => {
            signature::tiktok(&shared.tiktok_secrets, header, wire, chrono::Utc::now().timestamp())
        }
        None => Ok(()),
    }
}

/// Meta's handshake: the challenge comes back if the token is ours, or none is set.
#[utoipa::path(get, path = "/webhook/facebook", tag = "webhooks",
    params(
        ("hub.mode" = String, Query, description = "`subscribe`", pattern = "^subscribe$"),
        ("hub.challenge" = String, Query, description = "What comes back"),
        ("hub.verify_token" = Option<String>, Query, description = "ESS_FACEBOOK_VERIFY_TOKEN, where that is set"),
    ),
    responses(
        (status = 200, description = "The challenge", body = String, content_type = "text/plain"),
        (status = 400, description = "No handshake"),
        (status = 403, description = "Not our token"),
    ))]
async fn handshake(request: HttpRequest, shared: web::Data<Shared>) -> HttpResponse {
    let pairs = web::Query::<Vec<(String, String)>>::from_query(request.query_string());
    let pairs = pairs.map(web::Query::into_inner).unwrap_or_default();
    let value = |name: &str| pairs.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    let token = value("hub.verify_token").unwrap_or_default();
    let fits = shared
        .facebook_verify_token
        .as_ref()
        .is_none_or(|ours| same(ours.expose().as_bytes(), token.as_bytes()));
    match (value("hub.mode"), value("hub.challenge")) {
        (Some("subscribe"), Some(challenge)) if fits => {
            HttpResponse::Ok().content_type("text/plain; charset=utf-8").body(challenge.to_owned())
        }
        (Some("subscribe"), Some(_)) => {
            Problem::new(StatusCode::FORBIDDEN, "hub.verify_token is not ESS_FACEBOOK_VERIFY_TOKEN")
                .respond(&request)
        }
        _ => Problem::new(StatusCode::BAD_REQUEST, "hub.mode=subscribe and hub.challenge are needed")
            .respond(&request),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;
    use crate::event::{FunnelStage, all_words};

    /// All words of a schema's closed sets.
    fn words(schema: &Value, found: &mut BTreeSet<String>) {
        match schema {
            Value::Object(members) => {
                let allowed = members.get("enum").and_then(Value::as_array).into_iter().flatten();
                found.extend(allowed.filter_map(Value::as_str).map(str::to_owned));
                members.values().for_each(|member| words(member, found));
            }
            Value::Array(items) => items.iter().for_each(|item| words(item, found)),
            _ => {}
        }
    }

    #[test]
    fn the_schemas_know_the_words_of_the_contract() {
        let schemas: Value = serde_json::from_str(EVENTS).unwrap();
        let mut found = BTreeSet::new();
        words(&schemas, &mut found);
        assert_eq!(found, all_words().map(|word| word.text.to_owned()).collect());
        for source in Source::ALL {
            for stage in FunnelStage::ALL {
                let capital = |word: &str| word[..1].to_uppercase() + &word[1..];
                let name = format!("{}{}Event", capital(source.as_str()), capital(stage.as_str()));
                let listed = &schemas[&name]["properties"]["eventType"]["enum"];
                let types = source.event_types().iter().filter(|kind| kind.stage == *stage);
                let types: Vec<&str> = types.map(|kind| kind.word.text).collect();
                assert_eq!(*listed, serde_json::json!(types), "{name}");
            }
        }
    }
}
