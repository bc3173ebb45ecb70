//! Refusals of the gateway: the reasons for which a request with events is not answered 202.
//!
//! Answers, dead letters, `ess_gateway_requests_total` and the OpenAPI document follow from the tables of this file. A new
//! reason does not compile before it has a row in [`RequestRefusal::rules`] and its members in the problem body; a new
//! outcome, before it has a [`response`].

use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::error::PayloadError;
use actix_web::http::StatusCode;

use super::bounds::MAX_CODINGS;
use crate::log::Origin;
use crate::ops::http::Problem;
use crate::ops::metrics::RequestOutcome;
use crate::source::declared::Unverified;
use crate::source::{SignatureError, Source};

/// Time after which a client that was told to wait may send again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Reason for which a request is refused. The message is the `detail` of the problem body.
#[derive(Debug, thiserror::Error)]
pub(super) enum RequestRefusal {
    /// The gateway drains.
    #[error("the gateway is stopping; send the whole again")]
    Draining,
    /// No token, or an unknown one.
    #[error("a bearer token is asked for, and it is missing or wrong")]
    Token,
    /// No signature, or a wrong one.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// A declared source's signature or secret is missing or wrong.
    #[error(transparent)]
    Unverified(#[from] Unverified),
    /// The client is over its limit of requests.
    #[error("more requests a second than this publisher may send (ESS_RATE_LIMIT); send it again")]
    OverLimit {
        /// Time until the next request is allowed.
        wait: Duration,
    },
    /// The Content-Type is not JSON.
    #[error("Content-Type `{0}` is not supported: it must be application/json")]
    ContentType(String),
    /// The type or form of the body is none that a declared source takes.
    #[error("{0}")]
    Media(String),
    /// A Content-Encoding is unknown.
    #[error("Content-Encoding `{0}` is not supported: it must be gzip or zstd")]
    ContentEncoding(String),
    /// The body is encoded too many times.
    #[error("more than {} codings one over the other are not supported", MAX_CODINGS)]
    TooManyCodings,
    /// The body is too large, as sent or decoded.
    #[error("the body is larger than {limit} bytes (ESS_MAX_BODY)")]
    TooLarge {
        /// In bytes.
        limit: usize,
    },
    /// The body has too many events.
    #[error("the body has more than {limit} events (ESS_MAX_EVENTS)")]
    TooManyEvents {
        /// Number of events.
        limit: usize,
    },
    /// The body did not arrive within `ESS_BODY_TIMEOUT`.
    #[error("the body did not come in time")]
    BodyTimeout,
    /// The connection failed within the body, or the body breaks HTTP.
    #[error("the body could not be read: {0}")]
    BodyLost(#[source] PayloadError),
    /// The body gave its bytes of `ESS_MAX_INFLIGHT` up to others.
    #[error("the body came too slowly while others waited for room (ESS_MAX_INFLIGHT); send the whole again")]
    TooSlow,
    /// `ESS_MAX_INFLIGHT` is used up.
    #[error("too many bytes are in flight (ESS_MAX_INFLIGHT); send the whole again")]
    NoRoom,
    /// The thread that decodes bodies ended.
    #[error("the body could not be unpacked now")]
    NotUnpacked,
    /// The body is not encoded as its Content-Encoding says.
    #[error("the body could not be unpacked: {0}")]
    BrokenEncoding(String),
    /// The body of a declared source is neither JSON nor a form that can be taken.
    #[error("the body cannot be read: {0}")]
    Unreadable(String),
    /// The body is not JSON, or neither object nor array.
    #[error("the body is no JSON object or array: {0}")]
    NotJson(String),
    /// Not all valid events are known to be in the log.
    #[error("{why}; send the whole again")]
    NotDurable {
        /// Number of events that are known to be.
        accepted: usize,
        /// The reason, without details that are not for clients.
        why: String,
    },
    /// Not all refused events are known to be kept as dead letters, on a source's own path.
    #[error("the refused events could not be kept; send the whole again")]
    NotKept {
        /// Number of accepted events, which are in the log.
        accepted: usize,
    },
    /// Every event is invalid. Each is a dead letter already.
    #[error("every event was rejected")]
    AllRejected {
        /// Number of events.
        rejected: usize,
        /// Errors by event, a JSON array.
        errors: String,
        /// True if errors are left out.
        truncated: bool,
    },
}

/// The end of a connection with the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Closing {
    Always,
    /// If the rest of the body would have to be read before another request.
    BeforeBody,
    Never,
}

/// One row of the table of refusals.
struct Rules<'a> {
    /// Label of the metric; the status follows from it by [`response`].
    outcome: RequestOutcome,
    closing: Closing,
    /// Value of `Retry-After`.
    retry_after: Option<Duration>,
    /// Error of the dead letter that the body becomes; `None` if nothing of the body is kept.
    dead_letter: Option<&'a str>,
}

const fn rules(
    outcome: RequestOutcome,
    closing: Closing,
    retry_after: Option<Duration>,
    dead_letter: Option<&str>,
) -> Rules<'_> {
    Rules { outcome, closing, retry_after, dead_letter }
}

/// Address to which a request came: the last column of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Address {
    /// `/webhook`, for clients that read answers.
    Shared,
    /// The path of one source. Its platform takes anything but 200 for a failure, and some never send again after a 4xx:
    /// refused events that are kept are success, and all that passes by itself is 503.
    Own,
}

impl Address {
    /// The address of requests that came to the path of `only`, or to the shared one.
    pub const fn of(only: Option<Source>) -> Self {
        match only {
            Some(_) => Self::Own,
            None => Self::Shared,
        }
    }
}

/// Status of an outcome at an address, and its description in the OpenAPI document.
pub(super) const fn response(outcome: RequestOutcome, address: Address) -> (StatusCode, &'static str) {
    match (address, outcome) {
        (Address::Own, RequestOutcome::Accepted | RequestOutcome::Rejected) => {
            (StatusCode::OK, "What was accepted is stored, and what was refused is kept as a dead letter")
        }
        (Address::Own, RequestOutcome::Limited | RequestOutcome::TimedOut | RequestOutcome::Unavailable) => (
            StatusCode::SERVICE_UNAVAILABLE,
            "Saturated, draining, over a limit, or the log is away: send the whole again",
        ),
        (_, outcome) => shared_response(outcome),
    }
}

/// Status of an outcome on the shared path, and wherever it is the same.
const fn shared_response(outcome: RequestOutcome) -> (StatusCode, &'static str) {
    match outcome {
        RequestOutcome::Accepted => (
            StatusCode::ACCEPTED,
            "At least one event was accepted, or there was none; what was accepted is stored",
        ),
        RequestOutcome::Rejected => (StatusCode::UNPROCESSABLE_ENTITY, "Every event was rejected"),
        RequestOutcome::Unreadable => (StatusCode::BAD_REQUEST, "Not JSON, or neither object nor array"),
        RequestOutcome::Unauthorized => (StatusCode::UNAUTHORIZED, "Signature or token"),
        RequestOutcome::TimedOut => (StatusCode::REQUEST_TIMEOUT, "The body did not come in time"),
        RequestOutcome::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "Too large, or too many events"),
        RequestOutcome::Unsupported => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "Unsupported type or encoding"),
        RequestOutcome::Limited => (
            StatusCode::TOO_MANY_REQUESTS,
            "More requests a second than the client may send: send it again later",
        ),
        RequestOutcome::Unavailable => {
            (StatusCode::SERVICE_UNAVAILABLE, "Saturated, draining, or the log is away: send the whole again")
        }
    }
}

impl RequestRefusal {
    const fn rules(&self) -> Rules<'_> {
        use Closing::{Always, BeforeBody, Never};
        use RequestOutcome::{
            Limited, Rejected, TimedOut, TooLarge, Unauthorized, Unavailable, Unreadable, Unsupported,
        };
        match self {
            Self::Draining => rules(Unavailable, Always, Some(RETRY_AFTER), None),
            Self::Token => rules(Unauthorized, BeforeBody, None, None),
            Self::Signature(_) => rules(Unauthorized, BeforeBody, None, None),
            Self::Unverified(_) => rules(Unauthorized, BeforeBody, None, None),
            Self::OverLimit { wait } => rules(Limited, BeforeBody, Some(*wait), None),
            Self::ContentType(_) => rules(Unsupported, BeforeBody, None, None),
            Self::Media(_) => rules(Unsupported, BeforeBody, None, None),
            Self::ContentEncoding(_) => rules(Unsupported, BeforeBody, None, None),
            Self::TooManyCodings => rules(Unsupported, BeforeBody, None, None),
            Self::TooLarge { .. } => rules(TooLarge, Always, None, None),
            Self::TooManyEvents { .. } => rules(TooLarge, Never, None, None),
            Self::BodyTimeout => rules(TimedOut, Always, None, None),
            Self::BodyLost(_) => rules(Unreadable, Always, None, None),
            Self::TooSlow => rules(Unavailable, Always, Some(RETRY_AFTER), None),
            Self::NoRoom => rules(Unavailable, Never, Some(RETRY_AFTER), None),
            Self::NotUnpacked => rules(Unavailable, Never, Some(RETRY_AFTER), None),
            Self::BrokenEncoding(why) => rules(Unreadable, Never, None, Some(why.as_str())),
            Self::Unreadable(why) => rules(Unreadable, Never, None, Some(why.as_str())),
            Self::NotJson(why) => rules(Unreadable, Never, None, Some(why.as_str())),
            Self::NotDurable { .. } => rules(Unavailable, Never, Some(RETRY_AFTER), None),
            Self::NotKept { .. } => rules(Unavailable, Never, Some(RETRY_AFTER), None),
            Self::AllRejected { .. } => rules(Rejected, Never, None, None),
        }
    }

    /// Label of the metric.
    pub const fn outcome(&self) -> RequestOutcome {
        self.rules().outcome
    }

    /// Error of the dead letter that the body becomes; `None` if nothing of the body is kept.
    pub const fn dead_letter(&self) -> Option<&str> {
        self.rules().dead_letter
    }

    /// The answer at an address. `body_read` is true once the whole body has arrived.
    pub fn respond(self, address: Address, body_read: bool, origin: &Origin) -> HttpResponse {
        let Rules { outcome, closing, retry_after, .. } = self.rules();
        let (status, _) = response(outcome, address);
        let mut problem = Problem::new(status, self.to_string());
        // Every 503 says when to come again, also one that is another status on the shared path.
        let is_unavailable = status == StatusCode::SERVICE_UNAVAILABLE;
        if let Some(wait) = retry_after.or(is_unavailable.then_some(RETRY_AFTER)) {
            // The header has whole seconds.
            let whole = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            problem = problem.retry_after(Duration::from_secs(whole));
        }
        if closing == Closing::Always || (closing == Closing::BeforeBody && !body_read) {
            problem = problem.close();
        }
        self.add_members(problem).respond_to(origin)
    }

    /// Adds the members of the problem body that not every problem has.
    fn add_members(self, problem: Problem) -> Problem {
        match self {
            Self::TooLarge { limit } | Self::TooManyEvents { limit } => problem.with("limit", limit),
            Self::Draining | Self::OverLimit { .. } | Self::TooSlow | Self::NoRoom | Self::NotUnpacked => {
                problem.with("accepted", 0)
            }
            Self::NotDurable { accepted, .. } | Self::NotKept { accepted } => {
                problem.with("accepted", accepted)
            }
            Self::AllRejected { rejected, errors, truncated } => problem
                .with("accepted", 0)
                .with("rejected", rejected)
                .with_json("errors", errors)
                .with("errorsTruncated", truncated),
            Self::Token
            | Self::Signature(_)
            | Self::Unverified(_)
            | Self::Media(_)
            | Self::Unreadable(_)
            | Self::ContentType(_)
            | Self::ContentEncoding(_)
            | Self::TooManyCodings
            | Self::BodyTimeout
            | Self::BodyLost(_)
            | Self::BrokenEncoding(_)
            | Self::NotJson(_) => problem,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use actix_web::body::to_bytes;
    use actix_web::http::header;
    use serde_json::Value;

    use super::*;

    fn refusals() -> Vec<RequestRefusal> {
        let text = || "x".to_owned();
        vec![
            RequestRefusal::Draining,
            RequestRefusal::Token,
            RequestRefusal::Signature(SignatureError::Missing("X-Signature")),
            RequestRefusal::Unverified(Unverified(text())),
            RequestRefusal::Media(text()),
            RequestRefusal::Unreadable(text()),
            RequestRefusal::OverLimit { wait: Duration::from_millis(1_001) },
            RequestRefusal::ContentType(text()),
            RequestRefusal::ContentEncoding(text()),
            RequestRefusal::TooManyCodings,
            RequestRefusal::TooLarge { limit: 1 },
            RequestRefusal::TooManyEvents { limit: 1 },
            RequestRefusal::BodyTimeout,
            RequestRefusal::BodyLost(PayloadError::Overflow),
            RequestRefusal::TooSlow,
            RequestRefusal::NoRoom,
            RequestRefusal::NotUnpacked,
            RequestRefusal::BrokenEncoding(text()),
            RequestRefusal::NotJson(text()),
            RequestRefusal::NotDurable { accepted: 3, why: text() },
            RequestRefusal::NotKept { accepted: 4 },
            RequestRefusal::AllRejected { rejected: 2, errors: "[]".to_owned(), truncated: false },
        ]
    }

    fn origin() -> Origin {
        Origin { correlation_id: "c".to_owned(), traceparent: None, accepted_at: 0 }
    }

    #[test]
    fn each_outcome_has_a_status_of_its_own_on_the_shared_path() {
        let statuses: BTreeSet<_> = RequestOutcome::ALL
            .iter()
            .map(|outcome| response(*outcome, Address::Shared).0.as_u16())
            .collect();
        assert_eq!(statuses.len(), RequestOutcome::ALL.len());
    }

    #[actix_web::test]
    async fn on_a_sources_own_path_only_what_never_passes_is_4xx() {
        let statuses: BTreeSet<_> =
            RequestOutcome::ALL.iter().map(|outcome| response(*outcome, Address::Own).0.as_u16()).collect();
        assert_eq!(statuses, BTreeSet::from([200, 400, 401, 413, 415, 503]));
        for refusal in refusals().into_iter().filter(|refusal| refusal.outcome() != RequestOutcome::Rejected)
        {
            let name = format!("{refusal:?}");
            let answer = refusal.respond(Address::Own, true, &origin());
            let again = answer.headers().contains_key(header::RETRY_AFTER);
            assert_eq!(again, answer.status().as_u16() == 503, "{name}");
        }
    }

    #[test]
    fn every_outcome_but_accepted_comes_from_a_refusal() {
        let refused: BTreeSet<_> = refusals()
            .iter()
            .map(|refusal| response(refusal.outcome(), Address::Shared).0.as_u16())
            .collect();
        let described = RequestOutcome::ALL.iter().filter(|outcome| **outcome != RequestOutcome::Accepted);
        assert_eq!(
            refused,
            described.map(|outcome| response(*outcome, Address::Shared).0.as_u16()).collect()
        );
    }

    #[actix_web::test]
    async fn a_client_that_may_send_again_learns_when_and_how_many_events_are_in_the_log() {
        for refusal in refusals() {
            let name = format!("{refusal:?}");
            let (status, _) = response(refusal.outcome(), Address::Shared);
            let answer = refusal.respond(Address::Shared, true, &origin());
            assert_eq!(answer.status(), status, "{name}");
            let again = matches!(status.as_u16(), 429 | 503);
            assert_eq!(answer.headers().contains_key(header::RETRY_AFTER), again, "{name}");
            let body = to_bytes(answer.into_body()).await.unwrap();
            let body: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(body["accepted"].is_u64(), again || status == 422, "{name}: {body}");
            assert_eq!(body["limit"].is_u64(), status == 413, "{name}: {body}");
        }
    }

    #[test]
    fn the_time_to_wait_is_rounded_up_to_whole_seconds() {
        let answer = RequestRefusal::OverLimit { wait: Duration::from_millis(1_001) }.respond(
            Address::Own,
            true,
            &origin(),
        );
        assert_eq!(answer.headers().get(header::RETRY_AFTER).unwrap(), "2");
    }

    #[test]
    fn a_refusal_before_the_body_closes_the_connection_and_one_after_it_does_not() {
        let closes = |refusal: RequestRefusal, body_read| {
            refusal.respond(Address::Shared, body_read, &origin()).head().connection_type()
                == actix_web::http::ConnectionType::Close
        };
        let signature = || RequestRefusal::Signature(SignatureError::Missing("X-Signature"));
        assert!(closes(signature(), false) && !closes(signature(), true));
        assert!(closes(RequestRefusal::TooLarge { limit: 1 }, true));
        assert!(!closes(RequestRefusal::NotJson(String::new()), false));
    }

    #[test]
    fn only_a_body_that_cannot_be_read_becomes_a_dead_letter() {
        let kept = refusals().into_iter().filter(|refusal| refusal.dead_letter().is_some());
        let kept: Vec<_> = kept.map(|refusal| refusal.to_string()).collect();
        let expected = [
            "the body cannot be read: x",
            "the body could not be unpacked: x",
            "the body is no JSON object or array: x",
        ];
        assert_eq!(kept, expected);
    }
}
