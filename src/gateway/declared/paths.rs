//! The routes of declared sources.

use std::sync::Arc;
use std::time::Instant;

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};

use super::incoming::Incoming;
use crate::gateway::Shared;
use crate::gateway::answer::Outcome;
use crate::gateway::body::{Coding, Reservation, codings, read, unpack};
use crate::gateway::ingest::{Ingest, deadline};
use crate::gateway::publishers::Client;
use crate::gateway::refusal::{Address, RequestRefusal};
use crate::gateway::taking::{Progress, by_token, count, hand_over, pass};
use crate::log::Origin;
use crate::ops::http::{Problem, origin, resource};
use crate::source::declared::{Accept, Method, RefusedBody, Served, Subject, Unverified};

/// Maximum bytes of a body that a filter runs on: its values take many times as much memory.
const MAX_FILTERED: usize = 8 * 1_024 * 1_024;
/// Bytes of memory for each byte of a body that a filter runs on, and of one whose elements are events.
const FILTERED_FACTOR: usize = 8;
const ELEMENTS_FACTOR: usize = 3;
/// Bytes of a body from which its check runs on a thread for blocking work.
const BLOCKING: usize = 256 * 1_024;

/// Adds the routes of declared sources.
pub(in crate::gateway) fn routes(config: &mut web::ServiceConfig, served: &[Arc<Served>]) {
    for served in served {
        let path = format!("/webhook/{}", served.source);
        let by = |method| {
            let served = served.clone();
            move |request: HttpRequest, shared, payload| {
                answer(request, shared, payload, served.clone(), method)
            }
        };
        let resource = match served.file.takes_get() {
            true => resource(&path, "GET, HEAD, POST, OPTIONS")
                .route(web::get().to(by(Method::Get)))
                .route(web::head().to(by(Method::Get))),
            false => resource(&path, "POST, OPTIONS"),
        };
        config.service(resource.route(web::post().to(by(Method::Post))));
    }
}

/// Answers a challenge, or takes events.
async fn answer(
    request: HttpRequest,
    shared: web::Data<Shared>,
    payload: web::Payload,
    served: Arc<Served>,
    method: Method,
) -> HttpResponse {
    let started = Instant::now();
    let origin = Arc::new(origin(&request));
    let head = Incoming::new(&request, &served, method, origin.accepted_at);
    if method == Method::Get
        && let Some(answer) = answer_get(&head, &origin)
    {
        return answer;
    }
    let mut progress = Progress { client: Client::UNKNOWN, body_read: false };
    let taken = take(&request, &shared, payload, head, &origin, &mut progress).await;
    let (answer, outcome) = match taken {
        Ok(outcome) => {
            let (answer, outcome) = shared.answers.answer(outcome, Address::Own, &origin);
            (as_configured(answer, &served), outcome)
        }
        Err(refusal) => {
            let outcome = refusal.outcome();
            (refusal.respond(Address::Own, progress.body_read, &origin), outcome)
        }
    };
    count(&shared, &progress, outcome, started);
    answer
}

/// The answer to a challenge, or to a GET that is none and holds no events.
fn answer_get(head: &Incoming, origin: &Origin) -> Option<HttpResponse> {
    let Served { file, secrets, .. } = &*head.served;
    let reply = head.with_request(|request| file.challenge(request, secrets));
    match reply {
        Some(reply) if reply.status < 400 => {
            Some(HttpResponse::Ok().content_type(reply.content_type).body(reply.body))
        }
        Some(reply) => {
            let status = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::FORBIDDEN);
            Some(Problem::new(status, reply.body.trim_end()).respond_to(origin))
        }
        None if file.accept().contains(&Accept::Query) => None,
        None => {
            let detail = format!("this is no challenge of {}", file.title());
            Some(Problem::new(StatusCode::BAD_REQUEST, detail).respond_to(origin))
        }
    }
}

/// The answer of success that the source's file asks for.
fn as_configured(mut answer: HttpResponse, served: &Served) -> HttpResponse {
    let configured = served.file.answer();
    let status = StatusCode::from_u16(configured.status).unwrap_or(StatusCode::OK);
    match &configured.body {
        // These have no body (RFC 9110, 15.3.5 and 15.3.6).
        _ if matches!(configured.status, 204 | 205) => HttpResponse::build(status).finish(),
        Some(body) => HttpResponse::build(status).content_type(configured.content_type).body(body.clone()),
        None => {
            *answer.status_mut() = status;
            answer
        }
    }
}

/// Checks the request in the order 401, 415, 413, 400, then hands its events to ingest.
async fn take(
    request: &HttpRequest,
    shared: &Shared,
    payload: web::Payload,
    head: Incoming,
    origin: &Arc<Origin>,
    progress: &mut Progress,
) -> Result<Outcome, RequestRefusal> {
    if shared.drain.draining() {
        return Err(RequestRefusal::Draining);
    }
    let (source, subject) = (head.served.source, head.served.file.subject());
    let is_verified = match subject {
        Subject::Token => {
            progress.client = by_token(request, shared)?;
            true
        }
        Subject::Head | Subject::Wire | Subject::Body => {
            head.with_request(|request| head.served.file.verify_head(request, &head.served.secrets))?;
            subject == Subject::Head
        }
    };
    if is_verified {
        if subject == Subject::Head {
            progress.client = Client::signed(source);
        }
        pass(shared, progress.client)?;
    }
    let mut type_and_codings = is_supported(&head, request);
    if is_verified {
        // A wrong signature is reported before a wrong type, but nothing else has to be checked here.
        type_and_codings = Ok(type_and_codings?);
    }
    let limit = match head.served.file.takes_elements() {
        true => shared.max_body,
        false => shared.max_body.min(MAX_FILTERED),
    };
    let reservation = shared.budget.reservation(is_verified);
    let wire = read(request.headers(), payload, limit, shared.body_timeout, reservation).await;
    progress.body_read = wire.is_ok();
    let (wire, mut reservation) = match wire {
        Ok(read) => read,
        // A wrong type is reported before a wrong size.
        Err(refusal) => return Err(type_and_codings.err().unwrap_or(refusal)),
    };
    if subject == Subject::Wire {
        verify(head.with_body(wire.clone())).await?;
        known(shared, &head, &mut reservation, progress)?;
    }
    let unpacked = unpack(type_and_codings?, wire.clone(), limit, reservation).await;
    let (body, mut reservation) = unpacked.map_err(|refusal| match refusal {
        // Nobody has shown a secret yet: nothing of the body is kept.
        RequestRefusal::BrokenEncoding(why) if subject == Subject::Body => {
            RequestRefusal::Unverified(Unverified(format!("the body could not be unpacked: {why}")))
        }
        refusal => {
            let redactor = shared.redactor.as_deref();
            shared.dead_letters.keep_body(&refusal, origin, Some(source), &wire, redactor);
            refusal
        }
    })?;
    if subject == Subject::Body {
        verify(head.with_body(body.clone())).await?;
        known(shared, &head, &mut reservation, progress)?;
    }
    take_events(shared, head.with_body(body), reservation, origin, progress).await
}

/// Hands the events of a request to ingest.
async fn take_events(
    shared: &Shared,
    incoming: Incoming,
    mut reservation: Reservation,
    origin: &Arc<Origin>,
    progress: &Progress,
) -> Result<Outcome, RequestRefusal> {
    let bytes = incoming.len();
    let factor = if incoming.takes_elements() { ELEMENTS_FACTOR } else { FILTERED_FACTOR };
    reservation.reserve(factor * bytes).await?;
    let ingest = Ingest {
        body: incoming.body.clone(),
        reservation: Arc::new(reservation),
        origin: origin.clone(),
        only: Some(incoming.served.source),
        deadline: deadline(),
        declared: Some(Arc::new(incoming)),
    };
    hand_over(shared, ingest, progress.client, bytes).await
}

/// Type and codings of the body, if both are supported.
fn is_supported(head: &Incoming, request: &HttpRequest) -> Result<Vec<Coding>, RequestRefusal> {
    if request.method() == actix_web::http::Method::POST {
        // A ping without a body has no type.
        let length = request.headers().get(actix_web::http::header::CONTENT_LENGTH);
        let is_empty = length.is_none_or(|length| length.as_bytes() == b"0");
        match head.with_request(|request| head.served.file.media(request)) {
            Err(refused) if !is_empty => return Err(refused.into()),
            Err(_) | Ok(_) => {}
        }
    }
    codings(request.headers())
}

/// Leaves the room of unverified requests, and counts the request against its client's limit.
fn known(
    shared: &Shared,
    head: &Incoming,
    reservation: &mut Reservation,
    progress: &mut Progress,
) -> Result<(), RequestRefusal> {
    reservation.verified();
    progress.client = Client::signed(head.served.source);
    pass(shared, progress.client)
}

/// Checks signature or secret; a large body's on a thread for blocking work.
async fn verify(incoming: Incoming) -> Result<(), RequestRefusal> {
    let is_large = incoming.body.len() > BLOCKING;
    let check = move || {
        let Served { file, secrets, .. } = &*incoming.served;
        incoming.with_request(|request| file.verify(request, secrets))
    };
    if !is_large {
        return Ok(check()?);
    }
    match web::block(check).await {
        Ok(verified) => Ok(verified?),
        Err(_) => Err(RequestRefusal::NotUnpacked),
    }
}

impl From<RefusedBody> for RequestRefusal {
    fn from(refused: RefusedBody) -> Self {
        match refused {
            RefusedBody::ContentType(why) => Self::Media(why),
            RefusedBody::Method(_) => {
                Self::Media("the source takes its events in the query of a GET".to_owned())
            }
            RefusedBody::Unreadable(why) | RefusedBody::Filter { message: why, .. } => Self::Unreadable(why),
        }
    }
}
