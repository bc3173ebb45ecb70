//! The gateway's routes.

use std::sync::Arc;
use std::time::Instant;

use actix_web::{HttpRequest, HttpResponse, web};

use super::Shared;
use super::answer::Outcome;
use super::body::{encoding, read, unpack};
use super::ingest::{Ingest, deadline};
use super::publishers::Client;
use super::refusal::{Address, RequestRefusal};
use super::taking::{Progress, by_token, count, hand_over, pass};
use super::{declared, handshake, openapi};
use crate::config::Secret;
use crate::event::Source;
use crate::log::Origin;
use crate::ops::http::{origin, resource};
use crate::ops::openapi::describe;
use crate::source::{Signature, SignatureError, SignedRequest};

/// Adds the gateway's routes.
pub(super) fn routes(config: &mut web::ServiceConfig, shared: web::Data<Shared>) {
    let served = shared.served.clone();
    config.app_data(shared);
    describe(config, openapi::document(&served), &openapi::schemas().unwrap_or_default());
    let any = |request: HttpRequest, shared, payload| webhook(request, shared, payload, None);
    config.service(resource("/webhook", "POST, OPTIONS").route(web::post().to(any)));
    for source in Source::built_in() {
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
    declared::paths::routes(config, &served);
}

/// Takes events; of `only` that source if the request came to the source's own path.
async fn webhook(
    request: HttpRequest,
    shared: web::Data<Shared>,
    payload: web::Payload,
    only: Option<Source>,
) -> HttpResponse {
    let started = Instant::now();
    let origin = Arc::new(origin(&request));
    let address = Address::of(only);
    let mut progress = Progress { client: Client::UNKNOWN, body_read: false };
    let (answer, outcome) = match take(&request, &shared, payload, only, &origin, &mut progress).await {
        Ok(outcome) => shared.answers.answer(outcome, address, &origin),
        Err(refusal) => {
            let outcome = refusal.outcome();
            (refusal.respond(address, progress.body_read, &origin), outcome)
        }
    };
    count(&shared, &progress, outcome, started);
    answer
}

/// Checks the request in the order 401, 429, 415, 413, 400, then hands its events to ingest. Where a signature
/// identifies the client, the limit (429) is checked after it, so that nobody can use up the limit of another.
async fn take(
    request: &HttpRequest,
    shared: &Shared,
    payload: web::Payload,
    only: Option<Source>,
    origin: &Arc<Origin>,
    progress: &mut Progress,
) -> Result<Outcome, RequestRefusal> {
    if shared.drain.draining() {
        return Err(RequestRefusal::Draining);
    }
    let signature = only.and_then(|source| SignatureCheck::new(shared, source));
    let signed = signature.is_some();
    if !signed {
        progress.client = by_token(request, shared)?;
        pass(shared, progress.client)?;
    }
    if let Some(signature) = &signature {
        // A request without a signature is refused before its body is read.
        signature.header(request)?;
    }
    // The signature can be checked only with the body, and a wrong one is reported before a wrong type.
    let mut codings = encoding(request.headers());
    if !signed {
        codings = Ok(codings?);
    }
    let reservation = shared.budget.reservation(!signed);
    let wire = read(request.headers(), payload, shared.max_body, shared.body_timeout, reservation).await;
    progress.body_read = wire.is_ok();
    let (wire, mut reservation) = match wire {
        Ok(read) => read,
        // A wrong type is reported before a wrong size.
        Err(refusal) => return Err(codings.err().unwrap_or(refusal)),
    };
    if let Some(signature) = &signature {
        signature.check(request, &wire)?;
        reservation.verified();
        progress.client = only.map_or(Client::UNKNOWN, Client::signed);
        pass(shared, progress.client)?;
    }
    let unpacked = unpack(codings?, wire.clone(), shared.max_body, reservation).await;
    let (body, mut reservation) = unpacked.inspect_err(|refusal| {
        shared.dead_letters.keep_body(refusal, origin, only, &wire, shared.redactor.as_deref());
    })?;
    let bytes = body.len();
    if shared.redactor.is_some() {
        // The redacted events are held beside the body.
        reservation.reserve(2 * bytes).await?;
    }
    let ingest = Ingest {
        body,
        reservation: Arc::new(reservation),
        origin: origin.clone(),
        only,
        deadline: deadline(),
        declared: None,
    };
    hand_over(shared, ingest, progress.client, bytes).await
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
