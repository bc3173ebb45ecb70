//! Requests that wait for the log, and their answers.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use actix::Message;
use bytes::Bytes;
use tokio::sync::oneshot;

use crate::gateway::body::Reservation;
use crate::log::Origin;
use crate::runtime::Room;

/// Make these events of one request durable.
#[derive(Clone)]
pub(in crate::gateway) struct Publish {
    pub origin: Arc<Origin>,
    pub body: Bytes,
    /// Places in the body; never empty.
    pub events: Arc<Vec<Range<usize>>>,
    /// Number of them that are known to be durable, for an answer at the deadline: the highest count of any instance
    /// of the actor, because a restarted one counts from 0.
    pub durable: Arc<AtomicUsize>,
    /// When the request is answered in any case: what is in no frame by then is let go.
    pub deadline: Instant,
    /// The bytes that the request may hold, as long as any of them wait here.
    #[allow(dead_code, reason = "held, not read")]
    pub reservation: Arc<Reservation>,
}

/// The reason that a request's events are not all durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::gateway) enum PublishError {
    Full(String),
    Unavailable(String),
    /// The actor was restarted under it: what is in the log already will be recognised.
    Restarted,
}

impl Message for Publish {
    type Result = Result<(), PublishError>;
}

/// Bytes of the bodies that requests hold here.
#[derive(Clone, Default)]
pub(super) struct HeldBytes(Arc<AtomicUsize>);

/// The bytes of one body, until this is dropped.
pub(super) struct BodyBytes(HeldBytes, usize);

/// The answer that a request waits for: the last frame that holds some of its events gives it.
pub(super) struct Ticket {
    publish: Publish,
    _bytes: BodyBytes,
    open: AtomicUsize,
    reply: Mutex<Option<Reply>>,
}

/// The way back to a request, and the room that it takes until then.
struct Reply {
    answer: oneshot::Sender<Result<(), PublishError>>,
    _room: Room,
}

/// A request, and the number of its events that the frame holds.
pub(super) type Part = (Arc<Ticket>, usize);

impl HeldBytes {
    /// The number of bytes now.
    pub fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Counts the bytes of a body until the result is dropped.
    pub fn take(&self, bytes: usize) -> BodyBytes {
        self.0.fetch_add(bytes, Ordering::Relaxed);
        BodyBytes(self.clone(), bytes)
    }
}

impl Drop for BodyBytes {
    fn drop(&mut self) {
        self.0.0.fetch_sub(self.1, Ordering::Relaxed);
    }
}

impl Ticket {
    /// The ticket of a request, and its answer. The request keeps its room until then.
    pub fn new(
        publish: Publish,
        bytes: BodyBytes,
        room: Room,
    ) -> (Arc<Self>, oneshot::Receiver<Result<(), PublishError>>) {
        let (reply, answer) = oneshot::channel();
        let ticket = Self {
            _bytes: bytes,
            open: AtomicUsize::new(publish.events.len()),
            publish,
            reply: Mutex::new(Some(Reply { answer: reply, _room: room })),
        };
        (Arc::new(ticket), answer)
    }

    /// Answers the request, unless it is answered already.
    pub fn answer(&self, answer: Result<(), PublishError>) {
        let mut slot = self.reply.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reply) = slot.take() {
            // A request that gave up has been answered already.
            let _ = reply.answer.send(answer);
        }
    }

    /// True if nobody waits for the answer any more.
    pub fn given_up(&self) -> bool {
        let slot = self.reply.lock().unwrap_or_else(PoisonError::into_inner);
        Instant::now() >= self.publish.deadline || slot.as_ref().is_none_or(|reply| reply.answer.is_closed())
    }

    /// Counts events that became durable.
    pub fn settle(&self, events: usize) {
        let open = self.open.fetch_sub(events, Ordering::Relaxed).saturating_sub(events);
        let durable = self.publish.events.len().saturating_sub(open);
        self.publish.durable.fetch_max(durable, Ordering::Relaxed);
        if open == 0 {
            self.answer(Ok(()));
        }
    }
}
