//! Handling of a request that holds events, one function for each kind of route.

use std::time::{Duration, Instant};

use actix_web::HttpRequest;

use super::Shared;
use super::answer::Outcome;
use super::ingest::Ingest;
use super::publishers::Client;
use super::refusal::RequestRefusal;
use crate::log::Origin;
use crate::ops::http::token_index;
use crate::ops::metrics::RequestOutcome;
use crate::ops::trace_id;

/// Progress of a request, for its answer and its metrics.
pub(super) struct Progress {
    /// Known once the token or signature is checked.
    pub client: Client,
    /// True once the whole body has arrived.
    pub body_read: bool,
}

/// Counts an answered request.
pub(super) fn count(shared: &Shared, progress: &Progress, outcome: RequestOutcome, started: Instant) {
    shared.metrics.count_request(shared.clients.name(progress.client), outcome);
    shared.metrics.request_seconds.observe(started.elapsed().as_secs_f64());
}

/// The client of a request that shows a token, or none where none is asked for.
pub(super) fn by_token(request: &HttpRequest, shared: &Shared) -> Result<Client, RequestRefusal> {
    match token_index(request, &shared.tokens) {
        Some(index) => Ok(shared.clients.with_token(index)),
        None if shared.tokens.is_empty() => Ok(Client::ANONYMOUS),
        None => Err(RequestRefusal::Token),
    }
}

/// Hands a request's events to ingest, and logs their outcome.
pub(super) async fn hand_over(
    shared: &Shared,
    ingest: Ingest,
    client: Client,
    bytes: usize,
) -> Result<Outcome, RequestRefusal> {
    let origin = ingest.origin.clone();
    let left = ingest.deadline.saturating_duration_since(Instant::now()) + Duration::from_millis(500);
    let answer = shared.ingest.ask(ingest, left).await;
    let outcome =
        answer.map_err(|error| RequestRefusal::NotDurable { accepted: 0, why: error.to_string() })??;
    log_outcome(shared, shared.clients.name(client), &origin, bytes, &outcome);
    Ok(outcome)
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

/// Counts a request against its client's limit.
pub(super) fn pass(shared: &Shared, client: Client) -> Result<(), RequestRefusal> {
    shared.clients.pass(client).map_err(|wait| RequestRefusal::OverLimit { wait })
}
