//! Answers that name refused events: bounded each by itself, and all that are not read yet together.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::{HttpResponse, error::Error};
use bytes::Bytes;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use utoipa::ToSchema;

use super::refusal::RequestRefusal;
use crate::event::{FieldError, Refusal};
use crate::log::Origin;
use crate::ops::metrics::RequestOutcome;

/// Refused events that an answer names; the others are counted.
const MAX_EVENTS: usize = 100;
/// Bytes of their errors in an answer.
const MAX_BYTES: usize = 256 * 1_024;
/// Bytes of all answers that are not read yet, in [`UNIT`]s; beyond them answers name no events.
const UNREAD: usize = 16 * 1_024;
const UNIT: usize = 1_024;
/// Bytes of an answer that are handed to its connection at one time. An answer that is no longer is not counted:
/// each connection has so much of its own.
const PIECE: usize = 16 * 1_024;

/// A refused event, as an answer names it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct EventErrors<'a> {
    /// Its place in the body; 0 for a single object.
    index: usize,
    /// Its id, where that could be read.
    #[schema(required = true)]
    event_id: Option<&'a str>,
    #[schema(value_type = Vec<FieldError>)]
    errors: &'a [FieldError],
}

/// The refused events that an answer names, as JSON.
#[derive(Debug, Default)]
pub(super) struct Errors {
    json: String,
    events: usize,
    /// True if there are events or errors that are not named.
    truncated: bool,
    full: bool,
}

impl Errors {
    /// Names another event, if there is room.
    pub fn add(&mut self, index: usize, refusal: &Refusal) {
        self.truncated |= refusal.truncated;
        if !self.full && self.events < MAX_EVENTS {
            let Refusal { event_id, errors, .. } = refusal;
            let event = EventErrors { index, event_id: event_id.as_deref(), errors };
            let event = serde_json::to_string(&event).unwrap_or_default();
            if self.json.len() + event.len() < MAX_BYTES {
                if self.events > 0 {
                    self.json.push(',');
                }
                self.json += &event;
                self.events += 1;
                return;
            }
        }
        (self.full, self.truncated) = (true, true);
    }
}

/// The validated events of a request. Accepted ones are durable.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub accepted: usize,
    pub rejected: usize,
    pub errors: Errors,
}

/// The answers that are not read yet.
#[derive(Clone)]
pub(super) struct Answers {
    units: Arc<Semaphore>,
}

impl Answers {
    pub fn new() -> Self {
        Self { units: Arc::new(Semaphore::new(UNREAD)) }
    }

    /// The answer to a request whose events were validated, and its outcome.
    pub fn answer(&self, outcome: Outcome, origin: &Origin) -> (HttpResponse, RequestOutcome) {
        let Outcome { accepted, rejected, mut errors } = outcome;
        let mut held = None;
        if errors.json.len() > PIECE {
            let units = u32::try_from(errors.json.len().div_ceil(UNIT)).unwrap_or(u32::MAX);
            held = self.units.clone().try_acquire_many_owned(units).ok();
            if held.is_none() {
                errors = Errors { truncated: true, ..Errors::default() };
            }
        }
        let list = format!("[{}]", errors.json);
        drop(errors.json);
        let (response, outcome) = if accepted == 0 && rejected > 0 {
            let truncated = errors.truncated;
            let refusal = RequestRefusal::AllRejected { rejected, errors: list, truncated };
            let outcome = refusal.outcome();
            (refusal.respond(true, origin), outcome)
        } else {
            let id = serde_json::to_string(&origin.correlation_id).unwrap_or_default();
            let truncated = errors.truncated;
            let body = format!(
                r#"{{"accepted":{accepted},"rejected":{rejected},"correlationId":{id},"errors":{list},"errorsTruncated":{truncated}}}"#
            );
            let response = HttpResponse::Accepted().content_type("application/json").body(body);
            (response, RequestOutcome::Accepted)
        };
        let response = response.map_body(|_, body| match (held, body.try_into_bytes()) {
            (None, Ok(bytes)) => BoxBody::new(bytes),
            (Some(held), Ok(bytes)) => BoxBody::new(Unread { bytes, _held: held }),
            (_, Err(body)) => body,
        });
        (response, outcome)
    }
}

/// The rest of an answer that its client has not read yet, and the room that it takes until then.
struct Unread {
    bytes: Bytes,
    _held: OwnedSemaphorePermit,
}

impl MessageBody for Unread {
    type Error = Error;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.bytes.len() as u64)
    }

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        let bytes = &mut self.get_mut().bytes;
        let piece = bytes.split_to(bytes.len().min(PIECE));
        Poll::Ready((!piece.is_empty()).then_some(Ok(piece)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(errors: usize) -> Refusal {
        let error = FieldError { path: "\u{1}".repeat(40), message: "m".repeat(100) };
        Refusal { event_id: Some("é".repeat(128)), errors: vec![error; errors], ..Refusal::default() }
    }

    fn outcome(events: usize, errors: usize) -> Outcome {
        let mut outcome = Outcome { rejected: events, ..Outcome::default() };
        (0..events).for_each(|index| outcome.errors.add(index, &refusal(errors)));
        outcome
    }

    async fn read(response: HttpResponse) -> serde_json::Value {
        let bytes = actix_web::body::to_bytes(response.into_body()).await.unwrap();
        assert!(bytes.len() <= MAX_BYTES + 1_024, "{}", bytes.len());
        serde_json::from_slice(&bytes).unwrap()
    }

    #[actix_web::test]
    async fn an_answer_is_bounded_and_says_that_it_is_cut() {
        let answers = Answers::new();
        let origin = Origin { correlation_id: "\"c\"".to_owned(), traceparent: None, accepted_at: 0 };
        for (events, errors, named, truncated) in
            [(1, 2, 1, false), (100, 2, 100, false), (101, 2, 100, true), (100, 90, 7, true)]
        {
            for accepted in [0, 5] {
                let outcome = Outcome { accepted, ..outcome(events, errors) };
                let body = read(answers.answer(outcome, &origin).0).await;
                assert_eq!(body["errors"].as_array().unwrap().len(), named, "{events} {errors}");
                assert_eq!(
                    (&body["errorsTruncated"], &body["rejected"]),
                    (&truncated.into(), &events.into())
                );
                assert_eq!(body["correlationId"], "\"c\"");
            }
        }
        assert_eq!(answers.units.available_permits(), UNREAD, "what is read is counted no more");
    }

    #[actix_web::test]
    async fn answers_that_nobody_reads_take_no_more_than_their_bound() {
        let answers = Answers::new();
        let origin = Origin { correlation_id: "c".to_owned(), traceparent: None, accepted_at: 0 };
        let unread: Vec<_> = (0..200).map(|_| answers.answer(outcome(100, 90), &origin).0).collect();
        let bytes: u64 = unread
            .iter()
            .map(|response| match response.body().size() {
                BodySize::Sized(bytes) => bytes,
                _ => 0,
            })
            .sum();
        assert!(bytes < 17 << 20, "{bytes}");
        let last = read(unread.into_iter().last().unwrap()).await;
        assert_eq!((&last["errors"], &last["errorsTruncated"]), (&serde_json::json!([]), &true.into()));
        assert_eq!(
            read(answers.answer(outcome(1, 90), &origin).0).await["errors"].as_array().unwrap().len(),
            1
        );
    }
}
