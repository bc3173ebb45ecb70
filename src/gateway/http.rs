//! The gateway's routes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};

use super::Shared;
use super::answer::Outcome;
use super::body::{UnpackError, encoding, read, unpack};
use super::ingest::{Ingest, IngestError, deadline, unreadable_body};
use super::publishers::Client;
use super::{handshake, openapi};
use crate::config::Secret;
use crate::event::Source;
use crate::log::Origin;
use crate::ops::http::{Problem, borne, origin, resource};
use crate::ops::metrics::{GatewayFailure, RequestOutcome};
use crate::ops::openapi::describe;
use crate::ops::trace_id;
use crate::source::{Signature, SignatureError, SignedRequest};

/// When a publisher that was told to wait may come again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Adds the gateway's routes.
pub(super) fn routes(config: &mut web::ServiceConfig, shared: web::Data<Shared>) {
    config.app_data(shared);
    describe(config, openapi::document(), &openapi::schemas().unwrap_or_default());
    let any = |request: HttpRequest, shared, payload| webhook(request, shared, payload, None);
    config.service(resource("/webhook", "POST, OPTIONS").route(web::post().to(any)));
    for source in Source::all() {
        let own =
            move |request: HttpRequest, shared, payload| webhook(request, shared, payload, Some(source));
        let path = format!("/webhook/{source}");
        let resource = match source.handshake() {
            Some(handshake) => {
                let answer = move |request: HttpRequest, shared: web::Data<Shared>| async move {
                    let token = shared.sources.of(source).handshake_token.as_ref();
                    handshake::answer(&request, handshake, token)
                };
                resource(&path, "GET, HEAD, POST, OPTIONS")
                    .route(web::get().to(answer))
                    .route(web::head().to(answer))
            }
            None => resource(&path, "POST, OPTIONS"),
        };
        config.service(resource.route(web::post().to(own)));
    }
}

/// Takes events, of one source alone where its own path is asked.
async fn webhook(
    request: HttpRequest,
    shared: web::Data<Shared>,
    payload: web::Payload,
    only: Option<Source>,
) -> HttpResponse {
    let started = Instant::now();
    let origin = Arc::new(origin(&request));
    let mut client = Client::UNKNOWN;
    let answer = match take(&request, &shared, payload, only, &origin, &mut client).await {
        Ok(outcome) => shared.answers.answer(outcome, &origin),
        Err(problem) => problem.respond_to(&origin),
    };
    let outcome = RequestOutcome::of(answer.status().as_u16());
    shared.metrics.count_request(shared.clients.name(client), outcome);
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
    client: &mut Client,
) -> Result<Outcome, Problem> {
    if shared.drain.draining() {
        return Err(again(0, "the gateway is stopping").close());
    }
    let signature = only.and_then(|source| SignatureCheck::new(shared, source));
    let signed = signature.is_some();
    if !signed {
        *client = match borne(request, &shared.tokens) {
            Some(place) => shared.clients.with_token(place),
            None if shared.tokens.is_empty() => Client::ANONYMOUS,
            None => {
                let detail = "a bearer token is asked for, and it is missing or wrong";
                return Err(unauthorized(detail).close());
            }
        };
        pass(shared, *client).map_err(Problem::close)?;
    }
    if let Some(signature) = &signature {
        // A body is not read for a request that cannot be accepted.
        signature.header(request).map_err(|error| unauthorized(&error.to_string()).close())?;
    }
    // A type that is wrong is said after a signature that is wrong, which takes the body to know.
    let encoding = encoding(request.headers());
    if !signed && let Err(problem) = encoding {
        return Err(problem.close());
    }
    let reservation = shared.budget.reservation(!signed);
    let wire = read(request.headers(), payload, shared.max_body, shared.body_timeout, reservation).await;
    let (wire, mut reservation) = match (wire, &encoding) {
        // The type comes before the size.
        (Err(_), Err(_)) => return Err(encoding.err().unwrap_or_else(|| unauthorized("")).close()),
        (wire, _) => wire?,
    };
    if let Some(signature) = &signature {
        signature.check(request, &wire).map_err(|error| unauthorized(&error.to_string()))?;
        reservation.verified();
        *client = only.map_or(Client::UNKNOWN, Client::signed);
        pass(shared, *client)?;
    }
    let (body, mut reservation) = match unpack(encoding?, wire.clone(), shared.max_body, reservation).await {
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
        reservation.reserve(2 * bytes).await?;
    }
    let ingest = Ingest {
        body,
        reservation: Arc::new(reservation),
        origin: origin.clone(),
        only,
        deadline: deadline(),
    };
    let left = ingest.deadline.saturating_duration_since(Instant::now()) + Duration::from_millis(500);
    match shared.ingest.ask(ingest, left).await {
        Ok(Ok(outcome)) => {
            log_outcome(shared, shared.clients.name(*client), origin, bytes, &outcome);
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

fn log_outcome(shared: &Shared, publisher: &str, origin: &Origin, bytes: usize, outcome: &Outcome) {
    let Outcome { accepted, rejected, .. } = outcome;
    let (correlation_id, trace_id) = (&origin.correlation_id, trace_id(origin));
    if *rejected > 0 || shared.lines.pass() {
        tracing::info!(correlation_id, trace_id, publisher, accepted, rejected, bytes, "events taken");
    } else {
        tracing::debug!(correlation_id, trace_id, publisher, accepted, rejected, bytes, "events taken");
    }
}

/// Counts a request against what its publisher may send.
fn pass(shared: &Shared, client: Client) -> Result<(), Problem> {
    shared.clients.pass(client).map_err(|wait| {
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

/// The check of a source's signature, where its secrets are set.
struct SignatureCheck<'a> {
    signature: &'static Signature,
    secrets: &'a [Secret],
}

impl<'a> SignatureCheck<'a> {
    fn new(shared: &'a Shared, source: Source) -> Option<Self> {
        let (signature, secrets) = (source.signature()?, &shared.sources.of(source).signature_secrets);
        (!secrets.is_empty()).then_some(Self { signature, secrets })
    }

    fn header<'r>(&self, request: &'r HttpRequest) -> Result<&'r str, SignatureError> {
        let header = self.signature.header;
        let value = request.headers().get(header).and_then(|value| value.to_str().ok());
        value.ok_or(SignatureError::Missing(header))
    }

    fn check(&self, request: &HttpRequest, body: &[u8]) -> Result<(), SignatureError> {
        let secrets: Vec<&[u8]> = self.secrets.iter().map(|secret| secret.expose().as_bytes()).collect();
        let (signature, now) = (self.header(request)?, chrono::Utc::now().timestamp());
        (self.signature.check)(&SignedRequest { secrets: &secrets, signature, body, now })
    }
}
