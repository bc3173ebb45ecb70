//! The actor that carries a request through: judge, publish, set aside, answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use actix::{Actor, Context, Handler, Message, ResponseFuture};
use bytes::Bytes;
use futures::future;
use serde::Serialize;

use super::DEADLINE;
use super::body::Share;
use super::dead_letters::{DeadLetterPublisher, SetAside};
use super::publish::{Publish, PublishError, Publisher};
use super::validate::{Cursor, Judge, Next, Rejected, Validator};
use crate::event::{FieldError, Refusal, Source};
use crate::log::{DeadLetter, Origin, Reason};
use crate::ops::metrics::{GatewayFailure, GatewayMetrics};
use crate::runtime::{Held, Mailbox, Undelivered};

/// Refused events that an answer names; the others are counted.
const MAX_REPORTED: usize = 100;

/// Take a request's events in.
#[derive(Clone)]
pub(super) struct Ingest {
    pub body: Bytes,
    /// The bytes that the request may hold, until it is answered.
    #[allow(dead_code, reason = "held, not read")]
    pub share: Arc<Share>,
    pub origin: Arc<Origin>,
    /// The source whose own address the request came to.
    pub only: Option<Source>,
    /// When the request must be answered.
    pub deadline: Instant,
}

/// A refused event, as an answer names it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EventErrors {
    index: usize,
    event_id: Option<String>,
    errors: Vec<FieldError>,
}

/// What became of a request's events, all of which were judged and, if good, are durable.
#[derive(Debug, Clone, Default)]
pub(super) struct Outcome {
    pub accepted: usize,
    pub rejected: usize,
    pub errors: Vec<EventErrors>,
}

impl Outcome {
    pub fn truncated(&self) -> bool {
        self.errors.len() < self.rejected
    }
}

/// Why a request was not taken.
#[derive(Debug, Clone)]
pub(super) enum IngestError {
    /// The body is no JSON, or neither object nor array.
    NotJson(String),
    /// Not all good events are durable; so many are known to be.
    NotDurable { accepted: usize, why: String },
}

impl Message for Ingest {
    type Result = Result<Outcome, IngestError>;
}

/// The actors that ingest hands on to.
#[derive(Clone)]
pub(super) struct Parts {
    pub validators: Vec<Mailbox<Validator>>,
    pub publishers: Vec<Mailbox<Publisher>>,
    pub dead_letters: Mailbox<DeadLetterPublisher>,
    pub metrics: GatewayMetrics,
}

/// The actor.
pub(super) struct Ingestor {
    parts: Parts,
    /// Which validator is next.
    turn: Arc<AtomicUsize>,
}

impl Ingestor {
    pub fn new(parts: Parts) -> Self {
        Self { parts, turn: Arc::default() }
    }
}

impl Actor for Ingestor {
    type Context = Context<Self>;
}

impl Handler<Held<Ingest>> for Ingestor {
    // A task of its own for each request: the actor's context would poll all its futures whenever one
    // of them is woken. It also lives on when the actor is restarted.
    type Result = ResponseFuture<Result<Outcome, IngestError>>;

    fn handle(&mut self, held: Held<Ingest>, _: &mut Self::Context) -> Self::Result {
        let (ingest, room) = held.open();
        let (parts, turn) = (self.parts.clone(), self.turn.clone());
        Box::pin(async move {
            let _room = room;
            take(&ingest, &parts, &turn).await
        })
    }
}

/// The events of a body, judged.
struct Sorted {
    accepted: Vec<Vec<std::ops::Range<usize>>>,
    rejected: Vec<Rejected>,
}

async fn take(ingest: &Ingest, parts: &Parts, turn: &AtomicUsize) -> Result<Outcome, IngestError> {
    let sorted = match judge(ingest, parts, turn).await {
        Ok(sorted) => sorted,
        Err(IngestError::NotJson(why)) => {
            let Origin { correlation_id, accepted_at, .. } = &*ingest.origin;
            let refusal = Refusal {
                source: ingest.only,
                errors: vec![FieldError { path: String::new(), message: why.clone() }],
                ..Refusal::default()
            };
            let letter =
                DeadLetter::new(*accepted_at, correlation_id, Reason::NotJson, &ingest.body, refusal);
            set_aside(vec![letter], parts).await;
            parts.metrics.fail(ingest.only, GatewayFailure::NotJson, 1);
            return Err(IngestError::NotJson(why));
        }
        Err(error) => return Err(error),
    };
    let mut outcome = Outcome { rejected: sorted.rejected.len(), ..Outcome::default() };
    for (&source, events) in Source::ALL.iter().zip(&sorted.accepted) {
        outcome.accepted += events.len();
        parts.metrics.accepted.of(source).inc_by(events.len() as u64);
    }
    outcome.errors = sorted.rejected.iter().take(MAX_REPORTED).map(report).collect();
    refuse(ingest, sorted.rejected, parts).await;
    publish(ingest, sorted.accepted, parts).await?;
    Ok(outcome)
}

fn report(rejected: &Rejected) -> EventErrors {
    let event_id = rejected.refusal.event_id.clone();
    EventErrors { index: rejected.index, event_id, errors: rejected.refusal.errors.clone() }
}

/// Has the whole body judged, slice by slice.
async fn judge(ingest: &Ingest, parts: &Parts, turn: &AtomicUsize) -> Result<Sorted, IngestError> {
    let mut sorted = Sorted { accepted: vec![Vec::new(); Source::ALL.len()], rejected: Vec::new() };
    let validator = &parts.validators[turn.fetch_add(1, Ordering::Relaxed) % parts.validators.len()];
    let mut from = Cursor::default();
    loop {
        let slice = Judge { body: ingest.body.clone(), from, only: ingest.only };
        let left = ingest.deadline.saturating_duration_since(Instant::now());
        let judged = validator
            .ask(slice, left)
            .await
            .map_err(|error: Undelivered| IngestError::NotDurable { accepted: 0, why: error.to_string() })?;
        for (all, more) in sorted.accepted.iter_mut().zip(judged.accepted) {
            if all.is_empty() {
                *all = more;
            } else {
                all.extend(more);
            }
        }
        sorted.rejected.extend(judged.rejected);
        match judged.next {
            Next::More(next) => from = next,
            Next::End => return Ok(sorted),
            Next::NotJson(why) => return Err(IngestError::NotJson(why)),
        }
    }
}

/// Counts refused events and sets them aside.
async fn refuse(ingest: &Ingest, rejected: Vec<Rejected>, parts: &Parts) {
    if rejected.is_empty() {
        return;
    }
    let Origin { correlation_id, accepted_at, .. } = &*ingest.origin;
    let mut letters = Vec::with_capacity(rejected.len());
    for Rejected { bytes, refusal, .. } in rejected {
        parts.metrics.fail(refusal.source, GatewayFailure::Invalid, 1);
        letters.push(DeadLetter::new(
            *accepted_at,
            correlation_id,
            Reason::Invalid,
            &ingest.body[bytes],
            refusal,
        ));
    }
    set_aside(letters, parts).await;
}

/// Hands letters on if there is room; else they are dropped, and counted.
async fn set_aside(letters: Vec<DeadLetter>, parts: &Parts) {
    let count = letters.len() as u64;
    let message = SetAside(letters);
    let handed = match parts.dead_letters.try_reserve(message.weight()) {
        Some(room) => parts.dead_letters.send_in(room, message).await,
        None => Err(Undelivered::Full),
    };
    if let Err(error) = handed {
        tracing::warn!(letters = count, %error, "refused events could not be set aside");
        parts.metrics.dead_letters_dropped.inc_by(count);
    }
}

/// Makes the good events durable, each source's by its own publisher.
async fn publish(
    ingest: &Ingest,
    accepted: Vec<Vec<std::ops::Range<usize>>>,
    parts: &Parts,
) -> Result<(), IngestError> {
    let durable = Arc::new(AtomicUsize::new(0));
    let sends = parts.publishers.iter().zip(accepted).filter(|(_, events)| !events.is_empty());
    let sends = sends.map(|(publisher, events)| {
        let (origin, body) = (ingest.origin.clone(), ingest.body.clone());
        publisher.send(Publish { origin, body, events: Arc::new(events), durable: durable.clone() })
    });
    let failed = |why: String| IngestError::NotDurable { accepted: durable.load(Ordering::Relaxed), why };
    let answers = tokio::time::timeout_at(ingest.deadline.into(), future::join_all(sends)).await;
    for answer in answers.map_err(|_| failed("the log did not confirm in time".to_owned()))? {
        match answer {
            Ok(Ok(())) => {}
            Ok(Err(PublishError::Full(why) | PublishError::Unavailable(why))) => return Err(failed(why)),
            Err(error) => return Err(failed(error.to_string())),
        }
    }
    Ok(())
}

/// How long a request may take from now.
pub(super) fn deadline() -> Instant {
    Instant::now() + DEADLINE
}
