//! The actor that sets refused events aside, on their way to the store through a topic of their own.
//!
//! Good events never wait for it: when it has no room, letters are dropped and counted.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, Message, WrapFuture};
use uuid::Uuid;

use crate::log::{AppendError, DeadLetter, SharedLog, Topic};
use crate::ops::metrics::GatewayMetrics;
use crate::runtime::{Held, Room};

/// Letters that wait at one time, in kibibytes of payload.
pub(super) const BOUND: usize = 16 * 1_024;
/// Payload of one message of the log; base64 makes it a third larger.
const MESSAGE_BYTES: usize = 256 * 1_024;
/// Letters of one message of the log.
const MESSAGE_LETTERS: usize = 500;
/// How long letters are sent again.
const RESEND: Duration = Duration::from_secs(30);

/// Set these events aside.
pub(super) struct SetAside(pub Vec<DeadLetter>);

impl Message for SetAside {
    type Result = ();
}

impl SetAside {
    /// The room that it takes, in the mailbox's unit.
    pub fn weight(&self) -> u32 {
        let bytes: usize = self.0.iter().map(|letter| letter.payload.len()).sum();
        u32::try_from(bytes.div_ceil(1_024).clamp(1, BOUND)).unwrap_or(u32::MAX)
    }
}

/// The actor.
pub(super) struct DeadLetterPublisher {
    log: SharedLog,
    metrics: GatewayMetrics,
    waiting: VecDeque<(Vec<DeadLetter>, Room)>,
    busy: bool,
}

impl DeadLetterPublisher {
    pub fn new(log: SharedLog, metrics: GatewayMetrics) -> Self {
        Self { log, metrics, waiting: VecDeque::new(), busy: false }
    }

    fn pump(&mut self, context: &mut Context<Self>) {
        if self.busy {
            return;
        }
        let Some((letters, room)) = self.waiting.pop_front() else { return };
        self.busy = true;
        let (log, metrics) = (self.log.clone(), self.metrics.clone());
        let work = async move {
            let _room = room;
            for message in messages(letters) {
                let letters = message.len() as u64;
                if let Err(error) = send(&log, &message).await {
                    tracing::warn!(letters, %error, "refused events could not be set aside");
                    metrics.dead_letters_dropped.inc_by(letters);
                }
            }
        };
        context.spawn(work.into_actor(self).map(|(), actor, context| {
            actor.busy = false;
            actor.pump(context);
        }));
    }
}

/// Letters in portions that fit into one message of the log.
fn messages(letters: Vec<DeadLetter>) -> Vec<Vec<DeadLetter>> {
    let mut messages: Vec<Vec<DeadLetter>> = Vec::new();
    let mut bytes = 0;
    for letter in letters {
        let size = letter.payload.len();
        match messages.last_mut() {
            Some(last) if last.len() < MESSAGE_LETTERS && bytes + size <= MESSAGE_BYTES => {
                bytes += size;
                last.push(letter);
            }
            _ => {
                bytes = size;
                messages.push(vec![letter]);
            }
        }
    }
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
    type Result = ();

    fn handle(&mut self, held: Held<SetAside>, context: &mut Self::Context) {
        let (SetAside(letters), room) = held.open();
        self.waiting.push_back((letters, room));
        self.pump(context);
    }
}
