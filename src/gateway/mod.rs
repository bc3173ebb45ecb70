//! The gateway: from a publisher's POST to a frame in the log.
//!
//! ```text
//! http ──Ingest──▶ ingest ─Validate─▶ validate.N      (slices of the body, so that big ones take turns)
//!                    │ ├─Convert──▶ convert.N        (bodies of declared sources, by their files)
//!                    │ ├─────Publish──▶ publish.<source> ──frame──▶ log
//!                    │ └───letters───▶ publish.dead_letters ─────▶ log
//!                    ▼
//!                 202, after the log has acknowledged every accepted event
//! ```
//!
//! [`http`] reads a request under the bounds of [`body`] and checks who sent it (by its signature or token) and how often
//! ([`publishers`]).
//! `ingest` carries the request through: it asks `validate` to validate the body slice by slice, hands
//! the good events to their source's `publish` and the bad ones to the dead letters, and answers. [`refusal`] has the
//! reasons for any other answer than 202.

mod answer;
mod body;
mod bounds;
mod dead_letters;
mod declared;
mod elements;
mod handshake;
mod http;
mod ingest;
mod openapi;
mod probe;
mod publish;
mod publishers;
mod refusal;
mod samples;
mod taking;
#[cfg(test)]
mod testing;
mod unverified;
mod validate;
mod validated;

use std::sync::Arc;
use std::time::Duration;

use actix_web::web::Data;

use crate::config::{Config, SourceSettings, Token};
use crate::event::{BySource, Redactor, Source};
use crate::log::SharedLog;
use crate::ops::Sampler;
use crate::ops::metrics::GatewayMetrics;
use crate::runtime::{DrainHandle, Mailbox};
use crate::service::{Builder, Listener, Running, StartError};
use crate::source::declared::Served;

/// Name of the service.
pub const NAME: &str = "gateway";
/// Name of the log in readiness.
const LOG: &str = "log";
/// Time limit of a request: events that are not durable by then are answered with 503.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);
/// Threads that validate events.
const VALIDATORS: usize = 2;
/// Threads that convert events of declared sources, if there are such sources.
const CONVERTERS: usize = 2;
/// Bodies, or slices of them, that wait for one converter.
const CONVERT_BOUND: usize = 16_384;
/// Requests that ingest holds; their bytes are bounded by `ESS_MAX_INFLIGHT`.
const INGEST_BOUND: usize = 16_384;
/// Slices of bodies that wait for one validator.
const VALIDATE_BOUND: usize = 16_384;
/// Requests that wait for one source's publisher; their bytes are bounded by `ESS_MAX_INFLIGHT`.
const PUBLISH_BOUND: usize = 16_384;
/// Maximum log lines a second about requests that were accepted.
const LINES_PER_SECOND: u32 = 50;

/// State that the handlers of the gateway's routes share.
struct Shared {
    ingest: Mailbox<ingest::Ingestor>,
    dead_letters: dead_letters::DeadLetters,
    answers: answer::Answers,
    budget: body::Budget,
    max_body: usize,
    body_timeout: Duration,
    clients: publishers::Clients,
    redactor: Option<Arc<Redactor>>,
    metrics: GatewayMetrics,
    sources: BySource<SourceSettings>,
    tokens: Vec<Token>,
    /// Declared sources.
    served: Arc<[Arc<Served>]>,
    drain: DrainHandle,
    lines: Sampler,
}

/// The gateway's actors, for its routes and its end.
struct Actors {
    ingest: Mailbox<ingest::Ingestor>,
    publishers: BySource<Mailbox<publish::FramePublisher>>,
    dead_letters: dead_letters::DeadLetters,
}

/// Starts a gateway that serves the built-in sources and these declared ones.
///
/// # Errors
///
/// If a setting cannot be, or the listener cannot be started.
pub fn start(
    config: &Config,
    port: u16,
    log: &SharedLog,
    served: Vec<Arc<Served>>,
    drain: &DrainHandle,
) -> Result<Running, StartError> {
    let mut service = Builder::new(NAME, NAME, &[LOG], drain);
    let clients = publishers::Clients::new(&config.webhook_tokens, config.rate_limit)?;
    let metrics = GatewayMetrics::new(&service.metrics, clients.names());
    let redactor = Redactor::new(&config.pii).map(Arc::new);
    let Actors { ingest, publishers, dead_letters } =
        start_actors(&mut service, config, log, &metrics, redactor.as_ref(), !served.is_empty());
    probe::start(&service, log, &metrics);
    service.tell(log.bus(), config.admin_token.clone());
    let shared = Data::new(Shared {
        ingest: ingest.clone(),
        dead_letters: dead_letters.clone(),
        answers: answer::Answers::new(),
        budget: body::Budget::new(config.max_inflight, metrics.inflight_bytes.clone()),
        max_body: config.max_body,
        body_timeout: config.body_timeout,
        clients,
        redactor,
        metrics,
        sources: config.sources.clone(),
        tokens: config.webhook_tokens.clone(),
        served: served.into(),
        drain: drain.clone(),
        lines: Sampler::per_second(LINES_PER_SECOND),
    });
    let listener = Listener {
        port,
        workers: std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 8),
        works_over_http: true,
        tokens: Vec::new(),
        routes: move |routes: &mut _| http::routes(routes, shared.clone()),
    };
    // The listener has finished its requests before this runs.
    service.start(config, listener, async move {
        ingest.idle().await;
        for (_, publisher) in publishers.iter() {
            publisher.idle().await;
        }
        dead_letters.idle().await;
        format!("{} requests", ingest.node().handled())
    })
}

/// Starts the actors, the sinks first: an actor is started after those that it sends to.
fn start_actors(
    service: &mut Builder,
    config: &Config,
    log: &SharedLog,
    metrics: &GatewayMetrics,
    redactor: Option<&Arc<Redactor>>,
    converts: bool,
) -> Actors {
    let requests = service.group("requests");
    let publish = service.group("publish");
    let thread = service.thread();
    let publishers = {
        let (publish, thread, window) = (publish.clone(), thread.clone(), config.log.duplicate_window);
        let (log, metrics, inflight) = (log.clone(), metrics.clone(), config.max_inflight);
        BySource::new(move |source| {
            let (log, metrics) = (log.clone(), metrics.clone());
            // Even if the logs of all other sources are away, one has room for as much.
            let share = inflight / (Source::all().count() + 1);
            publish.actor(&format!("publish.{source}"), PUBLISH_BOUND, &thread, move || {
                publish::FramePublisher::new(source, log.clone(), metrics.clone(), window, share)
            })
        })
    };
    let dead_letters = dead_letters::DeadLetters::new(log, metrics, |make| {
        publish.actor("publish.dead_letters", dead_letters::BOUND, &thread, make)
    });
    let samples = samples::Samples::new(log.bus());
    let listening = samples.clone();
    service
        .group("live")
        .task("samples", &thread, move |node| listening.clone().listen(move || node.count_handled()));
    let validators = (1..=VALIDATORS).map(|number| {
        let (redactor, samples) = (redactor.cloned(), samples.clone());
        requests.actor(&format!("validate.{number}"), VALIDATE_BOUND, &service.thread(), move || {
            validate::Validator { redactor: redactor.clone(), samples: samples.clone() }
        })
    });
    let validators = validators.collect();
    let converters = (1..=if converts { CONVERTERS } else { 0 }).map(|number| {
        let (redactor, samples) = (redactor.cloned(), samples.clone());
        requests.actor(&format!("convert.{number}"), CONVERT_BOUND, &service.thread(), move || {
            declared::Converter { redactor: redactor.clone(), samples: samples.clone() }
        })
    });
    let parts = ingest::Parts {
        validators,
        converters: converters.collect(),
        publishers: publishers.clone(),
        dead_letters: dead_letters.clone(),
        metrics: metrics.clone(),
        redactor: redactor.cloned(),
        max_events: config.max_events,
    };
    let ingest =
        requests.actor("ingest", INGEST_BOUND, &thread, move || ingest::Ingestor::new(parts.clone()));
    Actors { ingest, publishers, dead_letters }
}

/// Accepted events of a body, as they are written into the log.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz_body(body: &[u8], redactor: Option<&Redactor>) -> Vec<(crate::event::Source, Vec<u8>)> {
    validate::all(bytes::Bytes::copy_from_slice(body), redactor)
}

/// Checks the signature of every source: the first line is the header, the rest is the body.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz_signature(bytes: &[u8], secrets: &[&[u8]]) {
    let at = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let (signature, body) = bytes.split_at(at);
    if let Ok(signature) = std::str::from_utf8(signature) {
        let request = crate::source::SignedRequest { secrets, signature, body, now: 1_764_000_000 };
        for known in crate::event::Source::all().filter_map(crate::event::Source::signature) {
            let _ = (known.check)(&request);
        }
    }
}
