//! Sends generated events to a gateway at a pace, and counts the answers.

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;
use std::time::{Duration, Instant};

use awc::http::StatusCode;
use awc::{Client, Connector};
use serde::Deserialize;
use tokio::sync::Semaphore;

use super::feed::{Feed, Post};
use super::tally::Tally;
use crate::ops::tls::{self, TlsConfigError};
use crate::source::declared::Unsigned;

/// Maximum time for an answer.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Maximum bytes of an answer.
const MAX_ANSWER: usize = 16 * 1024 * 1024;

/// Pace of the POSTs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// One POST a second, without waiting for answers, as the real publisher.
    EverySecond,
    /// Events a second.
    Rate(f64),
    /// The next POST as soon as a connection is free.
    Closed,
}

/// Target, size and pace of the POSTs.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The webhook's URL.
    pub target: String,
    /// File of authorities that are trusted beside the public ones, for an https:// target.
    pub authorities: Option<std::path::PathBuf>,
    /// A bearer token.
    pub token: Option<String>,
    /// Minimum and maximum events of one POST. A single event is sent as an object, not as an array.
    pub sizes: (usize, usize),
    /// The pace.
    pub pace: Pace,
    /// Maximum POSTs under way at one time.
    pub connections: usize,
    /// Time after which sending ends; `None` for never.
    pub duration: Option<Duration>,
    /// True if one POST in ten has an extra, corrupted event.
    pub corrupt_posts: bool,
}

/// Reason that nothing, or nothing more, can be sent.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The file of authorities cannot be read.
    #[error(transparent)]
    Tls(#[from] TlsConfigError),
    /// A request of a declared source cannot be signed.
    #[error(transparent)]
    Unsigned(#[from] Unsigned),
}

#[derive(Default, Deserialize)]
struct Answer {
    accepted: Option<u64>,
    #[serde(default)]
    rejected: u64,
    #[serde(default)]
    detail: String,
}

/// Sends until the plan's duration is over or `stop` is ready, then waits for the answers. Calls `progress` about five
/// times a second.
///
/// # Errors
///
/// If the file of authorities cannot be read, or a request cannot be signed.
pub async fn publish(
    plan: &Plan,
    mut feed: Feed,
    stop: impl Future<Output = ()>,
    progress: impl Fn(&Tally),
) -> Result<Tally, PublishError> {
    let client = client(plan)?;
    let tally = Rc::new(RefCell::new(Tally::default()));
    let slots = std::sync::Arc::new(Semaphore::new(plan.connections));
    let started = Instant::now();
    let mut due = started;
    let mut shown = started;
    let mut stop = std::pin::pin!(stop);
    let is_over = |at: Instant| plan.duration.is_some_and(|duration| at.duration_since(started) >= duration);
    while !is_over(due) && !is_over(Instant::now()) {
        let slot = tokio::select! {
            slot = slots.clone().acquire_owned() => slot,
            () = &mut stop => break,
        };
        let Ok(slot) = slot else { break };
        // The real publisher does not pause after failures.
        let turn = if plan.pace == Pace::EverySecond { None } else { tally.borrow_mut().failing.turn() };
        if let Some(turn) = turn {
            let until = plan.duration.map_or(turn, |duration| turn.min(started + duration));
            if !wait_until(until, &mut stop).await || is_over(Instant::now()) {
                break;
            }
            // Events that were due during the pause are not sent later.
            due = due.max(Instant::now());
        }
        let post = feed.next(plan.sizes, plan.corrupt_posts)?;
        let events = post.events;
        // Timers have a resolution of a millisecond, so a POST that is due already does not wait for one.
        if due > Instant::now() && !wait_until(due, &mut stop).await {
            break;
        }
        tally.borrow_mut().sent += events;
        tally.borrow_mut().posts += 1;
        let post = send(client.clone(), plan.clone(), post, tally.clone());
        actix::spawn(async move {
            post.await;
            drop(slot);
        });
        due = plan.pace.next(due, events);
        if shown.elapsed() >= Duration::from_millis(200) {
            shown = Instant::now();
            progress(&tally.borrow());
        }
        if plan.pace != Pace::EverySecond {
            tokio::task::yield_now().await;
        }
    }
    // The rest of the answers.
    let all = u32::try_from(plan.connections).unwrap_or(u32::MAX);
    let _ = tokio::time::timeout(TIMEOUT, slots.acquire_many(all)).await;
    progress(&tally.borrow());
    Ok(tally.take())
}

/// Waits; false if `stop` was ready first.
async fn wait_until(at: Instant, stop: &mut (impl Future<Output = ()> + Unpin)) -> bool {
    tokio::select! {
        () = tokio::time::sleep_until(at.into()) => true,
        () = stop => false,
    }
}

impl Pace {
    /// Time of the POST after one of `events` events that was due at `due`.
    fn next(self, due: Instant, events: u64) -> Instant {
        match self {
            Self::EverySecond => due + Duration::from_secs(1),
            Self::Rate(rate) => due + Duration::from_secs_f64(events as f64 / rate),
            Self::Closed => Instant::now(),
        }
    }
}

/// The HTTP client of all POSTs.
fn client(plan: &Plan) -> Result<Client, TlsConfigError> {
    let mut connector = Connector::new().limit(plan.connections).timeout(Duration::from_secs(5));
    if plan.target.starts_with("https://") {
        connector = connector.rustls_0_23(tls::client_config(plan.authorities.as_deref())?.into());
    }
    Ok(Client::builder().connector(connector).timeout(TIMEOUT).no_default_headers().finish())
}

async fn send(client: Client, plan: Plan, post: Post, tally: Rc<RefCell<Tally>>) {
    let started = Instant::now();
    let Post { method, query, headers, body, events, is_declared } = post;
    let url = if query.is_empty() { plan.target } else { format!("{}?{query}", plan.target) };
    let mut request = client.request(method, url);
    for header in &headers {
        request = request.append_header((header.0.as_str(), header.1.as_str()));
    }
    if let Some(token) = &plan.token {
        request = request.bearer_auth(token);
    }
    let mut response = match request.send_body(body).await {
        Ok(response) => response,
        Err(error) => return tally.borrow_mut().failed(events, error.to_string()),
    };
    let status = response.status();
    let answer = match response.body().limit(MAX_ANSWER).await {
        Ok(answer) => answer,
        Err(error) => return tally.borrow_mut().failed(events, error.to_string()),
    };
    let is_taken = match is_declared {
        true => status.is_success(),
        false => status == StatusCode::ACCEPTED || status == StatusCode::UNPROCESSABLE_ENTITY,
    };
    let answer: Answer = match serde_json::from_slice(&answer) {
        Ok(answer) => answer,
        // The file of a declared source can ask for any answer.
        Err(_) if is_declared && is_taken => Answer::default(),
        Err(error) => return tally.borrow_mut().failed(events, format!("{status}: {error}")),
    };
    let mut tally = tally.borrow_mut();
    if is_taken {
        let untold = if is_declared { events.saturating_sub(answer.rejected) } else { 0 };
        tally.answered(started.elapsed(), answer.accepted.unwrap_or(untold), answer.rejected);
    } else {
        tally.failed(events, format!("{status}: {}", answer.detail));
    }
}
