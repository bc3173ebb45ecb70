//! The actor that sets refused events aside, on their way to the store through a topic of their own.
//!
//! Good events never wait for it: when it has no room, letters are dropped and counted. One message is under
//! way at a time; what comes meanwhile, from however many requests, goes together into the next.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, Message, ResponseFuture, WrapFuture};
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::log::{AppendError, DeadLetter, SharedLog, Topic};
use crate::ops::metrics::GatewayMetrics;
use crate::runtime::{Held, Room};

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

/// The actor was restarted with letters in hand.
#[derive(Debug)]
pub(super) struct Restarted;

impl Message for SetAside {
    type Result = Result<(), Restarted>;
}

impl SetAside {
    /// The room that it takes, in the mailbox's unit.
    pub fn weight(&self) -> u32 {
        let bytes: usize = self.0.iter().map(DeadLetter::size).sum();
        u32::try_from(bytes.div_ceil(1_024).clamp(1, BOUND)).unwrap_or(u32::MAX)
    }
}

/// A request's letters on their way.
struct Waiting {
    letters: Arc<Vec<DeadLetter>>,
    /// How many are in messages already.
    taken: usize,
    done: oneshot::Sender<()>,
    _room: Room,
}

/// The actor.
pub(super) struct DeadLetterPublisher {
    log: SharedLog,
    metrics: GatewayMetrics,
    waiting: VecDeque<Waiting>,
    busy: bool,
}

impl DeadLetterPublisher {
    pub fn new(log: SharedLog, metrics: GatewayMetrics) -> Self {
        Self { log, metrics, waiting: VecDeque::new(), busy: false }
    }

    /// Fills a message from what waits. With it, how many letters it holds, and the requests all of whose
    /// letters are on their way.
    fn next(&mut self) -> (Result<Vec<u8>, serde_json::Error>, u64, Vec<Waiting>) {
        let mut holders: Vec<(Arc<Vec<DeadLetter>>, usize)> = Vec::new();
        let mut finished = Vec::new();
        let mut bytes = 0;
        while let Some(first) = self.waiting.front_mut() {
            while let Some(letter) = first.letters.get(first.taken) {
                let full = holders.len() == MESSAGE_LETTERS || bytes + letter.size() > MESSAGE_BYTES;
                if full && !holders.is_empty() {
                    break;
                }
                bytes += letter.size();
                holders.push((first.letters.clone(), first.taken));
                first.taken += 1;
            }
            if first.taken < first.letters.len() {
                break;
            }
            finished.extend(self.waiting.pop_front());
        }
        let letters: Vec<&DeadLetter> = holders.iter().filter_map(|(letters, at)| letters.get(*at)).collect();
        (serde_json::to_vec(&letters), letters.len() as u64, finished)
    }

    fn pump(&mut self, context: &mut Context<Self>) {
        if self.busy || self.waiting.is_empty() {
            return;
        }
        self.busy = true;
        let (message, letters, finished) = self.next();
        let send = send(self.log.clone(), message);
        context.spawn(send.into_actor(self).map(move |sent, actor, context| {
            if let Err(error) = sent {
                tracing::warn!(letters, %error, "refused events could not be set aside");
                actor.metrics.dead_letters_dropped.inc_by(letters);
            }
            for waiting in finished {
                // A request does not wait for its letters.
                let _ = waiting.done.send(());
            }
            actor.busy = false;
            actor.pump(context);
        }));
    }
}

async fn send(log: SharedLog, message: Result<Vec<u8>, serde_json::Error>) -> Result<(), AppendError> {
    let id = Uuid::new_v4().simple().to_string();
    let message = bytes::Bytes::from(message.map_err(|error| AppendError::Refused(error.to_string()))?);
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
    type Result = ResponseFuture<Result<(), Restarted>>;

    fn handle(&mut self, held: Held<SetAside>, context: &mut Self::Context) -> Self::Result {
        let (SetAside(letters), room) = held.open();
        let (done, answer) = oneshot::channel();
        self.waiting.push_back(Waiting { letters, taken: 0, done, _room: room });
        self.pump(context);
        Box::pin(async { answer.await.map_err(|_| Restarted) })
    }
}
