//! The actor that sets refused events aside, on their way to the store through a topic of their own.
//!
//! Good events never wait for it: when it has no room, letters are dropped and counted.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, Context, Handler, Message, ResponseActFuture, WrapFuture};
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::log::{AppendError, DeadLetter, SharedLog, Topic};
use crate::ops::metrics::GatewayMetrics;
use crate::runtime::Held;

/// Letters that wait at one time, in kibibytes.
pub(super) const BOUND: usize = 32 * 1_024;
/// Bytes of one message of the log, a single letter apart: the largest is an event of 256 KiB in base64
/// and its errors.
const MESSAGE_BYTES: usize = 384 * 1_024;
/// Letters of one message of the log.
const MESSAGE_LETTERS: usize = 500;
/// How long letters are sent again.
const RESEND: Duration = Duration::from_secs(30);

/// Set these events aside; the answer comes when they are in the log, or were given up and counted.
#[derive(Clone)]
pub(super) struct SetAside(pub Arc<Vec<DeadLetter>>);

impl Message for SetAside {
    type Result = ();
}

impl SetAside {
    /// The room that it takes, in the mailbox's unit.
    pub fn weight(&self) -> u32 {
        let bytes: usize = self.0.iter().map(DeadLetter::size).sum();
        u32::try_from(bytes.div_ceil(1_024).clamp(1, BOUND)).unwrap_or(u32::MAX)
    }
}

/// The actor.
pub(super) struct DeadLetterPublisher {
    log: SharedLog,
    metrics: GatewayMetrics,
    /// One after the other: refused events may wait.
    turn: Arc<Semaphore>,
}

impl DeadLetterPublisher {
    pub fn new(log: SharedLog, metrics: GatewayMetrics) -> Self {
        Self { log, metrics, turn: Arc::new(Semaphore::new(1)) }
    }
}

/// Letters in portions that fit into one message of the log.
fn messages(letters: &[DeadLetter]) -> Vec<&[DeadLetter]> {
    let mut messages = Vec::new();
    let (mut from, mut bytes) = (0, 0);
    for (at, letter) in letters.iter().enumerate() {
        if at > from && (at - from == MESSAGE_LETTERS || bytes + letter.size() > MESSAGE_BYTES) {
            messages.push(&letters[from..at]);
            (from, bytes) = (at, 0);
        }
        bytes += letter.size();
    }
    messages.push(&letters[from..]);
    messages
}

async fn send(log: &SharedLog, letters: &[DeadLetter]) -> Result<(), AppendError> {
    let id = Uuid::new_v4().simple().to_string();
    let message = serde_json::to_vec(letters).map_err(|error| AppendError::Refused(error.to_string()))?;
    let message = bytes::Bytes::from(message);
    let since = Instant::now();
    loop {
        match log.append(Topic::DeadLetters, id.clone(), message.clone()).await {
            Ok(_) => return Ok(()),
            Err(AppendError::Unavailable(_)) if since.elapsed() < RESEND => {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            Err(error) => return Err(error),
        }
    }
}

impl Actor for DeadLetterPublisher {
    type Context = Context<Self>;
}

impl Handler<Held<SetAside>> for DeadLetterPublisher {
    type Result = ResponseActFuture<Self, ()>;

    fn handle(&mut self, held: Held<SetAside>, _: &mut Self::Context) -> Self::Result {
        let (SetAside(letters), room) = held.open();
        let (log, metrics, turn) = (self.log.clone(), self.metrics.clone(), self.turn.clone());
        let work = async move {
            let _room = room;
            let _turn = turn.acquire().await;
            for message in messages(&letters) {
                if let Err(error) = send(&log, message).await {
                    let letters = message.len() as u64;
                    tracing::warn!(letters, %error, "refused events could not be set aside");
                    metrics.dead_letters_dropped.inc_by(letters);
                }
            }
        };
        Box::pin(work.into_actor(self))
    }
}
