//! The actor that carries a request through: validate, publish, set aside, answer.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Instant, SystemTime};

use actix::{Actor, Context, Handler, Message, ResponseFuture};
use bytes::Bytes;
use futures::future;
use opentelemetry::KeyValue;
use opentelemetry::trace::SpanKind;

use super::DEADLINE;
use super::answer::{Errors, Outcome};
use super::body::Reservation;
use super::dead_letters::{DeadLetters, LetterRoom, Uncounted};
use super::declared::{Convert, Converter, Incoming};
use super::elements::Cursor;
use super::publish::{FramePublisher, Publish, PublishError};
use super::refusal::RequestRefusal;
use super::validate::{Validate, Validator};
use super::validated::{Next, Rejected};
use crate::event::{BySource, Redactor, Source, SourceMap};
use crate::log::{DeadLetter, Origin};
use crate::ops::metrics::{GatewayFailure, GatewayMetrics};
use crate::ops::trace;
use crate::runtime::{Held, Mailbox, Undelivered};

/// Refused events of one request that are kept with their bytes; of the others their number is kept.
const MAX_LETTERS: usize = 10_000;
/// Bytes of them, payloads and errors.
const MAX_LETTER_BYTES: usize = 16 * 1_024 * 1_024;
/// Reasons that a refused event's bytes are not kept.
const TOO_MANY: &str = "more than 10,000 or 16 MiB of one request";
const NO_ROOM: &str = "too many wait to be kept";
/// Restarts of a publisher that a request survives.
const RESTARTS: usize = 5;

/// Validate and publish a request's events.
#[derive(Clone)]
pub(super) struct Ingest {
    pub body: Bytes,
    /// The bytes that the request may hold, until it is answered.
    #[allow(dead_code, reason = "held, not read")]
    pub reservation: Arc<Reservation>,
    pub origin: Arc<Origin>,
    /// The source whose own address the request came to.
    pub only: Option<Source>,
    /// When the request must be answered.
    pub deadline: Instant,
    /// The request itself, if it came to the path of a declared source.
    pub declared: Option<Arc<Incoming>>,
}

impl Message for Ingest {
    type Result = Result<Outcome, RequestRefusal>;
}

/// The actors that ingest hands on to.
#[derive(Clone)]
pub(super) struct Parts {
    pub validators: Vec<Mailbox<Validator>>,
    /// Empty if no source is declared.
    pub converters: Vec<Mailbox<Converter>>,
    pub publishers: BySource<Mailbox<FramePublisher>>,
    pub dead_letters: DeadLetters,
    pub metrics: GatewayMetrics,
    /// Takes personal data out of events, if `ESS_PII` asks for it.
    pub redactor: Option<Arc<Redactor>>,
    /// Events of one body.
    pub max_events: usize,
}

/// The actor.
pub(super) struct Ingestor {
    parts: Parts,
    /// Number of the next validator.
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
    type Result = ResponseFuture<Result<Outcome, RequestRefusal>>;

    fn handle(&mut self, held: Held<Ingest>, _: &mut Self::Context) -> Self::Result {
        let (ingest, room) = held.open();
        let (parts, turn) = (self.parts.clone(), self.turn.clone());
        Box::pin(async move {
            let _room = room;
            take(&ingest, &parts, &turn).await
        })
    }
}

/// The events of a body, validated.
struct Sorted {
    /// Valid events, as ranges of the body, or of `redacted`.
    accepted: SourceMap<Vec<Range<usize>>>,
    /// The valid events without personal data, where that is not kept.
    redacted: Option<Vec<u8>>,
    rejected: usize,
    /// Refused events of each source, the last for those without a source.
    rejected_by_source: Vec<(Option<Source>, u64)>,
    /// Refused events that have no letter.
    uncounted: Vec<Uncounted>,
    /// The first that were refused, for the answer.
    errors: Errors,
    letters: Vec<DeadLetter>,
    letter_bytes: usize,
    /// Room for the letters.
    room: LetterRoom,
}

impl Sorted {
    fn new(dead_letters: &DeadLetters) -> Self {
        Self {
            accepted: SourceMap::default(),
            redacted: None,
            rejected: 0,
            rejected_by_source: Vec::new(),
            uncounted: Vec::new(),
            errors: Errors::default(),
            letters: Vec::new(),
            letter_bytes: 0,
            room: dead_letters.room(),
        }
    }

    fn count_accepted(&self) -> usize {
        self.accepted.iter().map(|(_, events)| events.len()).sum()
    }

    fn refuse(&mut self, ingest: &Ingest, rejected: Rejected) {
        let Rejected { index, bytes, redacted, reason, mut refusal } = rejected;
        self.rejected += 1;
        self.errors.add(index, &refusal);
        refusal.source = refusal.source.or(ingest.only);
        let source = refusal.source;
        let Origin { correlation_id, accepted_at, .. } = &*ingest.origin;
        let kept = redacted.as_deref().unwrap_or(&ingest.body[bytes]);
        let size = DeadLetter::size_of(kept.len(), &refusal.errors);
        let why = if self.letters.len() >= MAX_LETTERS || self.letter_bytes + size > MAX_LETTER_BYTES {
            Some(TOO_MANY)
        } else {
            (!self.room.take(size)).then_some(NO_ROOM)
        };
        if why.is_none() {
            let mut letter = DeadLetter::new(*accepted_at, correlation_id, reason, kept, refusal);
            if redacted.is_some() && ingest.declared.is_none() {
                letter.redact_errors();
            }
            self.letter_bytes += size;
            self.letters.push(letter);
        }
        match self.rejected_by_source.iter_mut().find(|(known, _)| *known == source) {
            Some((_, all)) => *all += 1,
            None => self.rejected_by_source.push((source, 1)),
        }
        let Some(why) = why else { return };
        match self.uncounted.iter_mut().find(|known| known.source == source && known.why == why) {
            Some(known) => known.events += 1,
            None => self.uncounted.push(Uncounted { source, events: 1, why }),
        }
    }
}

async fn take(ingest: &Ingest, parts: &Parts, turn: &AtomicUsize) -> Result<Outcome, RequestRefusal> {
    let sorted = validate(ingest, parts, turn).await.inspect_err(|refusal| {
        let redactor = parts.redactor.as_deref();
        parts.dead_letters.keep_body(refusal, &ingest.origin, ingest.only, &ingest.body, redactor);
    })?;
    let accepted = sorted.count_accepted();
    for (source, events) in sorted.accepted.iter() {
        parts.metrics.accepted.of(source).inc_by(events.len() as u64);
    }
    let body = sorted.redacted.map_or_else(|| ingest.body.clone(), Bytes::from);
    let is_full = sorted.uncounted.iter().any(|uncounted| uncounted.why == NO_ROOM);
    let is_own = ingest.only.is_some();
    if is_own && is_full {
        // The sender comes again with the whole: letters of the part that has room would be there twice then.
        publish(ingest, body, sorted.accepted, parts).await?;
        return Err(RequestRefusal::NotKept { accepted });
    }
    for (source, count) in sorted.rejected_by_source {
        parts.metrics.fail(source, GatewayFailure::Invalid, count);
    }
    let Sorted { letters, room, uncounted, .. } = sorted;
    if !is_own || sorted.rejected == 0 {
        parts.dead_letters.set_aside(letters, room, uncounted, &ingest.origin);
        publish(ingest, body, sorted.accepted, parts).await?;
    } else {
        let kept = parts.dead_letters.keep(letters, room, uncounted, &ingest.origin);
        let kept = tokio::time::timeout_at(ingest.deadline.into(), kept);
        let (published, kept) = future::join(publish(ingest, body, sorted.accepted, parts), kept).await;
        published?;
        if !matches!(kept, Ok(Ok(()))) {
            return Err(RequestRefusal::NotKept { accepted });
        }
    }
    Ok(Outcome { accepted, rejected: sorted.rejected, errors: sorted.errors })
}

/// Validates the whole body, slice by slice.
async fn validate(ingest: &Ingest, parts: &Parts, turn: &AtomicUsize) -> Result<Sorted, RequestRefusal> {
    let mut sorted = Sorted::new(&parts.dead_letters);
    let turn = turn.fetch_add(1, Ordering::Relaxed);
    let mut from = Cursor::default();
    loop {
        let left = ingest.deadline.saturating_duration_since(Instant::now());
        let validated = match &ingest.declared {
            None => {
                let slice = Validate { body: ingest.body.clone(), from, only: ingest.only };
                parts.validators[turn % parts.validators.len()].ask(slice, left).await
            }
            Some(incoming) => {
                let slice = Convert { incoming: incoming.clone(), from };
                parts.converters[turn % parts.converters.len()].ask(slice, left).await
            }
        };
        let validated =
            validated.map_err(|error| RequestRefusal::NotDurable { accepted: 0, why: error.to_string() })?;
        let behind = sorted.redacted.as_ref().map_or(0, Vec::len);
        if let Some(redacted) = validated.redacted {
            sorted.redacted.get_or_insert_default().extend_from_slice(&redacted);
        }
        for (source, mut more) in validated.accepted {
            more.iter_mut().for_each(|range| *range = range.start + behind..range.end + behind);
            let all = sorted.accepted.of_mut(source);
            if all.is_empty() {
                *all = more;
            } else {
                all.extend(more);
            }
        }
        for rejected in validated.rejected {
            sorted.refuse(ingest, rejected);
        }
        if sorted.count_accepted() + sorted.rejected > parts.max_events {
            return Err(RequestRefusal::TooManyEvents { limit: parts.max_events });
        }
        match validated.next {
            Next::More(next) => from = next,
            Next::End => return Ok(sorted),
            Next::NotJson(why) => return Err(RequestRefusal::NotJson(why)),
            Next::Refused(refused) => return Err(refused.into()),
        }
    }
}

/// Makes the good events durable, each source's by its own publisher.
async fn publish(
    ingest: &Ingest,
    body: Bytes,
    accepted: SourceMap<Vec<Range<usize>>>,
    parts: &Parts,
) -> Result<(), RequestRefusal> {
    let mut durable = SourceMap::<Arc<AtomicUsize>>::default();
    let sends: Vec<_> = accepted.into_iter().filter(|(_, events)| !events.is_empty()).collect();
    let sends: Vec<_> =
        sends.into_iter().map(|(source, events)| (source, events, durable.of_mut(source).clone())).collect();
    let sends = sends.into_iter().map(|(source, events, durable)| {
        let began = SystemTime::now();
        let count = events.len();
        let publish = Publish {
            origin: ingest.origin.clone(),
            body: body.clone(),
            events: Arc::new(events),
            durable,
            deadline: ingest.deadline,
            reservation: ingest.reservation.clone(),
        };
        let origin = ingest.origin.clone();
        async move {
            let done = publish_one(parts.publishers.of(source), publish).await;
            trace::export_child(&origin, || trace::SpanRecord {
                name: format!("append {source}"),
                kind: SpanKind::Producer,
                began,
                error: done.as_ref().err().cloned(),
                attributes: vec![
                    KeyValue::new("messaging.destination.name", source.name()),
                    KeyValue::new("messaging.batch.message_count", i64::try_from(count).unwrap_or(i64::MAX)),
                ],
            });
            done
        }
    });
    let failed = |why: String| {
        let accepted = durable.iter().map(|(_, events)| events.load(Ordering::Relaxed)).sum();
        RequestRefusal::NotDurable { accepted, why }
    };
    let answers = tokio::time::timeout_at(ingest.deadline.into(), future::join_all(sends)).await;
    for answer in answers.map_err(|_| failed("the log did not confirm in time".to_owned()))? {
        answer.map_err(failed)?;
    }
    Ok(())
}

/// Publishes a request's events of one source; again, if the publisher was restarted under them: the
/// publisher's client would not come again, and the store knows a duplicate by its key.
async fn publish_one(publisher: &Mailbox<FramePublisher>, publish: Publish) -> Result<(), String> {
    for _ in 0..RESTARTS {
        match publisher.send(publish.clone()).await {
            Ok(Ok(())) => return Ok(()),
            // Log lines have the details, which are not for clients.
            Ok(Err(PublishError::Full(_))) => return Err("the log is full".to_owned()),
            Ok(Err(PublishError::Unavailable(_))) => {
                return Err("the log is away, or did not confirm in time".to_owned());
            }
            Ok(Err(PublishError::Restarted)) | Err(Undelivered::Lost) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    Err("the publisher was restarted again and again".to_owned())
}

/// The deadline of a request that begins now.
pub(super) fn deadline() -> Instant {
    Instant::now() + DEADLINE
}

#[cfg(test)]
mod tests;
