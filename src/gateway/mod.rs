//! The gateway: from a publisher's POST to a frame in the log.
//!
//! ```text
//! http ──Ingest──▶ ingest ──Judge──▶ validate.N      (slices of the body, so that big ones take turns)
//!                    │ ├─────Publish──▶ publish.<source> ──frame──▶ log
//!                    │ └───letters───▶ publish.dead_letters ─────▶ log
//!                    ▼
//!                 202, after the log has acknowledged every accepted event
//! ```
//!
//! [`http`] reads a request under the bounds of [`body`] and checks who sent it ([`signature`]) and how often
//! ([`publishers`]).
//! `ingest` carries the request through: it asks `validate` to judge the body slice by slice, hands
//! the good events to their source's `publish` and the bad ones to the dead letters, and answers.

mod answer;
mod body;
mod dead_letters;
mod http;
mod ingest;
mod probe;
mod publish;
mod publishers;
mod signature;
mod unverified;
mod validate;

use std::sync::Arc;
use std::time::Duration;

use actix::Arbiter;

use crate::config::{Config, Secret, Token};
use crate::event::{Redactor, Source};
use crate::log::SharedLog;
use crate::ops::http::{Requests, ServiceView, serve};
use crate::ops::metrics::{GatewayMetrics, ServiceMetrics};
use crate::ops::{Readiness, Sampler};
use crate::runtime::{DrainHandle, Mailbox, Registry, Spec, supervise};
use crate::service::Running;

/// The service's name.
pub const NAME: &str = "gateway";
/// The log, as readiness names it.
const LOG: &str = "log";
/// How long a request waits for its events to be durable before it is answered 503.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);
/// Threads that judge events.
const VALIDATORS: usize = 2;
/// Requests that ingest holds at one time; their bytes are bounded by `ESS_MAX_INFLIGHT`.
const INGEST_BOUND: usize = 16_384;
/// Slices that wait for one validator.
const VALIDATE_BOUND: usize = 16_384;
/// Requests that wait for one source's publisher; their bytes are bounded by `ESS_MAX_INFLIGHT`.
const PUBLISH_BOUND: usize = 16_384;
/// Lines per second about requests that went well.
const LINES_PER_SECOND: u32 = 50;

/// What the handlers of the gateway's routes share.
struct Shared {
    ingest: Mailbox<ingest::Ingestor>,
    dead_letters: dead_letters::DeadLetters,
    answers: answer::Answers,
    budget: body::Budget,
    max_body: usize,
    max_events: usize,
    body_timeout: Duration,
    publishers: publishers::Publishers,
    redactor: Option<Arc<Redactor>>,
    metrics: GatewayMetrics,
    facebook_secrets: Vec<Secret>,
    facebook_verify_token: Option<Secret>,
    tiktok_secrets: Vec<Secret>,
    tokens: Vec<Token>,
    drain: DrainHandle,
    lines: Sampler,
}

/// Starts a gateway on a log. The error names what could not be started.
pub fn start(config: &Config, port: u16, log: &SharedLog, drain: &DrainHandle) -> Result<Running, String> {
    let actors = Arc::new(Registry::default());
    let service_metrics = ServiceMetrics::new(actors.clone());
    let known = publishers::Publishers::new(&config.webhook_tokens, config.rate_limit)?;
    let metrics = GatewayMetrics::new(&service_metrics, known.names());
    let redactor = Redactor::new(&config.pii).map(Arc::new);
    let readiness = Arc::new(Readiness::new(NAME, &[LOG]));
    let spec = |name: &str, bound| Spec { name: format!("{NAME}.{name}"), bound };

    // Sinks first: what hands on is started after what it hands to.
    let home = Arbiter::new();
    let publishers: Vec<Mailbox<publish::Publisher>> = Source::ALL
        .iter()
        .map(|&source| {
            let (log, metrics, window) = (log.clone(), metrics.clone(), config.log.duplicate_window);
            let make = move || publish::Publisher::new(source, log.clone(), metrics.clone(), window);
            supervise(&actors, spec(&format!("publish.{source}"), PUBLISH_BOUND), &home.handle(), make)
        })
        .collect();
    let dead_letters = dead_letters::DeadLetters::new(log, &metrics, |make| {
        let spec = spec("publish.dead_letters", dead_letters::BOUND);
        supervise(&actors, spec, &home.handle(), make)
    });
    let mut arbiters = vec![];
    let validators: Vec<Mailbox<validate::Validator>> = (1..=VALIDATORS)
        .map(|n| {
            let arbiter = Arbiter::new();
            let spec = spec(&format!("validate.{n}"), VALIDATE_BOUND);
            let redactor = redactor.clone();
            let make = move || validate::Validator { redactor: redactor.clone() };
            let mailbox = supervise(&actors, spec, &arbiter.handle(), make);
            arbiters.push(arbiter);
            mailbox
        })
        .collect();
    let ingest = {
        let parts = ingest::Parts {
            validators: validators.clone(),
            publishers: publishers.clone(),
            dead_letters: dead_letters.clone(),
            metrics: metrics.clone(),
            redactor: redactor.clone(),
            max_events: config.max_events,
        };
        supervise(&actors, spec("ingest", INGEST_BOUND), &home.handle(), move || {
            ingest::Ingestor::new(parts.clone())
        })
    };
    arbiters.push(home);

    let probes = probe::start(log, &readiness, &metrics);
    let shared = actix_web::web::Data::new(Shared {
        ingest: ingest.clone(),
        dead_letters: dead_letters.clone(),
        answers: answer::Answers::new(),
        budget: body::Budget::new(config.max_inflight, metrics.inflight_bytes.clone()),
        max_body: config.max_body,
        max_events: config.max_events,
        body_timeout: config.body_timeout,
        publishers: known,
        redactor,
        metrics,
        facebook_secrets: config.facebook_app_secrets.clone(),
        facebook_verify_token: config.facebook_verify_token.clone(),
        tiktok_secrets: config.tiktok_client_secrets.clone(),
        tokens: config.webhook_tokens.clone(),
        drain: drain.clone(),
        lines: Sampler::per_second(LINES_PER_SECOND),
    });
    let view = ServiceView {
        name: NAME,
        actors: actors.clone(),
        metrics: service_metrics,
        readiness,
        drain: drain.clone(),
        admin_token: config.admin_token.clone(),
        requests: Requests::default(),
        tokens: Vec::new(),
        settings: config.http.clone(),
    };
    let requests = view.requests.clone();
    let workers = std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 8);
    let (server, address) = serve(view, port, workers, move |routes| {
        http::routes(routes, shared.clone());
    })?;

    // Sources first when it ends: the listener has finished its requests before this runs.
    let idle = Box::pin(async move {
        ingest.idle().await;
        for publisher in &publishers {
            publisher.idle().await;
        }
        dead_letters.idle().await;
        format!("{} requests", ingest.stats().handled())
    });
    Ok(Running {
        name: NAME,
        address,
        server,
        requests,
        actors,
        idle,
        works_over_http: true,
        probes,
        arbiters,
    })
}

/// The events of a body that are accepted, as they go into the log.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz_body(body: &[u8], redactor: Option<&Redactor>) -> Vec<(Source, Vec<u8>)> {
    validate::all(bytes::Bytes::copy_from_slice(body), redactor)
}

/// Checks a signature of each provider; behind the first line stands the body.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz_signature(bytes: &[u8], secrets: &[Secret]) {
    let at = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let (header, body) = bytes.split_at(at);
    if let Ok(header) = std::str::from_utf8(header) {
        let _ = signature::facebook(secrets, Some(header), body);
        let _ = signature::tiktok(secrets, Some(header), body, 1_764_000_000);
    }
}
