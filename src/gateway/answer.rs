//! Answers that list refused events. The size of each is bounded, and so is the size of all that clients have not read.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::{HttpResponse, error::Error};
use bytes::Bytes;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use utoipa::ToSchema;

use super::refusal::{Address, RequestRefusal, response};
use crate::event::{FieldError, Refusal};
use crate::log::Origin;
use crate::ops::metrics::RequestOutcome;

/// Maximum refused events that an answer lists; all are counted.
const MAX_EVENTS: usize = 100;
/// Maximum bytes of the list.
const MAX_BYTES: usize = 256 * 1_024;
/// Size of all answers that clients have not read, in units of [`UNIT`] bytes; beyond it answers list no events.
const UNREAD: usize = 16 * 1_024;
const UNIT: usize = 1_024;
/// Bytes of an answer that are handed to its connection at one time. Shorter answers are not counted: each connection
/// buffers as much in any case.
const PIECE: usize = 16 * 1_024;

/// A refused event in an answer.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct EventErrors<'a> {
    /// Index in the body's array; 0 for a single object.
    index: usize,
    /// The event's id; null if it could not be read.
    #[schema(required = true)]
    event_id: Option<&'a str>,
    #[schema(value_type = Vec<FieldError>)]
    errors: &'a [FieldError],
}

/// The list of refused events of an answer.
#[derive(Debug, Default)]
pub(super) struct Errors {
    /// Elements of a JSON array.
    json: String,
    /// Number of events in `json`.
    events: usize,
    /// True if events, or errors of one, are not listed.
    truncated: bool,
    /// True if no more events are listed.
    full: bool,
}

impl Errors {
    /// Lists another event if there is room.
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

/// Outcome of a request's events. Accepted events are durable.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub accepted: usize,
    pub rejected: usize,
    pub errors: Errors,
}

/// Makes answers, and bounds the size of all that clients have not read.
#[derive(Clone)]
pub(super) struct Answers {
    units: Arc<Semaphore>,
}

impl Answers {
    pub fn new() -> Self {
        Self { units: Arc::new(Semaphore::new(UNREAD)) }
    }

    /// The answer to a request whose events were validated, and its outcome. On a source's own path all refused events
    /// are dead letters by now.
    pub fn answer(
        &self,
        outcome: Outcome,
        address: Address,
        origin: &Origin,
    ) -> (HttpResponse, RequestOutcome) {
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
        let truncated = errors.truncated;
        let all_rejected = accepted == 0 && rejected > 0;
        let outcome = if all_rejected { RequestOutcome::Rejected } else { RequestOutcome::Accepted };
        let (status, _) = response(outcome, address);
        let response = if status.is_client_error() {
            let refusal = RequestRefusal::AllRejected { rejected, errors: list, truncated };
            refusal.respond(address, true, origin)
        } else {
            let id = serde_json::to_string(&origin.correlation_id).unwrap_or_default();
            let body = format!(
                r#"{{"accepted":{accepted},"rejected":{rejected},"correlationId":{id},"errors":{list},"errorsTruncated":{truncated}}}"#
            );
            HttpResponse::build(status).content_type("application/json").body(body)
        };
        let response = response.map_body(|_, body| match (held, body.try_into_bytes()) {
            (None, Ok(bytes)) => BoxBody::new(bytes),
            (Some(held), Ok(bytes)) => BoxBody::new(Unread { bytes, _held: held }),
            (_, Err(body)) => body,
        });
        (response, outcome)
    }
}

/// Part of an answer that its client has not read, and its share of the bound.
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
    async fn an_answer_lists_events_up_to_its_bounds_and_says_if_some_are_missing() {
        let answers = Answers::new();
        let origin = Origin { correlation_id: "\"c\"".to_owned(), traceparent: None, accepted_at: 0 };
        for (events, errors, named, truncated) in
            [(1, 2, 1, false), (100, 2, 100, false), (101, 2, 100, true), (100, 90, 7, true)]
        {
            for accepted in [0, 5] {
                let outcome = Outcome { accepted, ..outcome(events, errors) };
                let body = read(answers.answer(outcome, Address::Shared, &origin).0).await;
                assert_eq!(body["errors"].as_array().unwrap().len(), named, "{events} {errors}");
                assert_eq!(
                    (&body["errorsTruncated"], &body["rejected"]),
                    (&truncated.into(), &events.into())
                );
                assert_eq!(body["correlationId"], "\"c\"");
            }
        }
        assert_eq!(answers.units.available_permits(), UNREAD, "answers that were read are not counted");
    }

    #[actix_web::test]
    async fn unread_answers_together_stay_within_their_bound() {
        let answers = Answers::new();
        let origin = Origin { correlation_id: "c".to_owned(), traceparent: None, accepted_at: 0 };
        let unread: Vec<_> =
            (0..200).map(|_| answers.answer(outcome(100, 90), Address::Shared, &origin).0).collect();
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
            read(answers.answer(outcome(1, 90), Address::Shared, &origin).0).await["errors"]
                .as_array()
                .unwrap()
                .len(),
            1
        );
    }
}
