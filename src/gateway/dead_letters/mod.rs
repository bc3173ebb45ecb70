//! Dead letters of the gateway: refused events, sent to the log through a topic of their own.
//!
//! ```text
//! ingest ──letters──▶ outbox ──one message at a time──▶ publisher (actor) ──▶ log
//! ```
//!
//! Valid events never wait for refused ones. An answer that calls refused events kept, on a source's own path, waits for
//! their letters. Letters wait in the [`outbox`], which outlives the actor that sends it;
//! while one message is under way, the letters of all requests gather for the next. A letter without room is counted
//! instead of kept, and the next message has the number of such events by source: the ledger's `rejected` grows by every
//! refused event.

mod outbox;
mod publisher;

use std::sync::{Arc, Mutex};

use tokio::sync::oneshot;

use self::outbox::{Outbox, Pending, Unkept, Waiting, lock};
pub(super) use self::publisher::DeadLetterPublisher;
use self::publisher::Wake;
use super::refusal::RequestRefusal;
use crate::event::{FieldError, Redactor, Refusal, Source};
use crate::log::{DeadLetter, Origin, Reason, SharedLog};
use crate::ops::metrics::{GatewayFailure, GatewayMetrics};
use crate::runtime::{Mailbox, Room};

/// Maximum size of all letters that wait, in kibibytes: the units of the mailbox.
pub(super) const BOUND: usize = 32 * 1_024;
/// The mailbox's unit, in bytes.
const UNIT: usize = 1_024;
/// Bytes that a request reserves at a time, if there is so much room.
const STEP: usize = 64 * UNIT;

/// Refused events of one request and source whose bytes are not kept.
pub(super) struct Uncounted {
    pub source: Option<Source>,
    pub events: u64,
    pub why: &'static str,
}

/// Access to the dead letters for the gateway's requests.
#[derive(Clone)]
pub(super) struct DeadLetters {
    outbox: Arc<Mutex<Outbox>>,
    mailbox: Mailbox<DeadLetterPublisher>,
    metrics: GatewayMetrics,
}

impl DeadLetters {
    /// Creates the outbox; `start` starts its actor.
    pub fn new(
        log: &SharedLog,
        metrics: &GatewayMetrics,
        start: impl FnOnce(Box<dyn Fn() -> DeadLetterPublisher + Send>) -> Mailbox<DeadLetterPublisher>,
    ) -> Self {
        let outbox = Arc::<Mutex<Outbox>>::default();
        let make = {
            let (log, metrics, outbox) = (log.clone(), metrics.clone(), outbox.clone());
            move || DeadLetterPublisher::new(log.clone(), metrics.clone(), outbox.clone())
        };
        Self { outbox, mailbox: start(Box::new(make)), metrics: metrics.clone() }
    }

    /// Room for the letters of one request.
    pub fn room(&self) -> LetterRoom {
        LetterRoom { mailbox: self.mailbox.clone(), room: None, reserved: 0, used: 0 }
    }

    /// Puts letters into the outbox, and counts events whose bytes are not kept. The request's answer does not wait for
    /// the log to take them.
    pub fn set_aside(
        &self,
        letters: Vec<DeadLetter>,
        room: LetterRoom,
        uncounted: Vec<Uncounted>,
        origin: &Origin,
    ) {
        self.set_aside_for(letters, room, uncounted, origin, None);
    }

    /// As [`set_aside`](Self::set_aside), for a request that calls its refused events kept: it awaits the receiver, which
    /// gives an error if the log did not take all of them.
    pub fn keep(
        &self,
        letters: Vec<DeadLetter>,
        room: LetterRoom,
        uncounted: Vec<Uncounted>,
        origin: &Origin,
    ) -> oneshot::Receiver<()> {
        let (pending, confirmed) = Pending::new(letters.len() + uncounted.len());
        self.set_aside_for(letters, room, uncounted, origin, Some(pending));
        confirmed
    }

    fn set_aside_for(
        &self,
        letters: Vec<DeadLetter>,
        room: LetterRoom,
        uncounted: Vec<Uncounted>,
        origin: &Origin,
        pending: Option<Arc<Pending>>,
    ) {
        let pending = || Vec::from_iter(pending.clone());
        for Uncounted { source, events, why } in uncounted {
            self.count(source, Reason::Invalid, events, why, origin, pending());
        }
        if letters.is_empty() {
            return;
        }
        let room = room.room.map(Arc::new);
        let letters =
            letters.into_iter().map(|letter| Waiting { letter, pending: pending(), room: room.clone() });
        lock(&self.outbox).extend(letters);
        self.wake();
    }

    /// Keeps the body of a refused request as a dead letter if the refusal says so; without personal data if there is a
    /// `redactor`.
    pub fn keep_body(
        &self,
        refusal: &RequestRefusal,
        origin: &Origin,
        only: Option<Source>,
        body: &[u8],
        redactor: Option<&Redactor>,
    ) {
        let Some(why) = refusal.dead_letter() else { return };
        let error = FieldError { path: String::new(), message: why.to_owned() };
        let refusal = Refusal { source: only, errors: vec![error], ..Refusal::default() };
        let mut letter =
            DeadLetter::new(origin.accepted_at, &origin.correlation_id, Reason::NotJson, body, refusal);
        if let Some(redactor) = redactor {
            letter.withhold(redactor);
        }
        self.metrics.fail(only, GatewayFailure::NotJson, 1);
        let mut room = self.room();
        if room.take(letter.size()) {
            self.set_aside(vec![letter], room, Vec::new(), origin);
        } else {
            self.count(only, Reason::NotJson, 1, "too many wait to be kept", origin, Vec::new());
        }
    }

    /// Counts refused events whose bytes are not kept; the next message has their number.
    fn count(
        &self,
        source: Option<Source>,
        reason: Reason,
        events: u64,
        why: &'static str,
        origin: &Origin,
        pending: Vec<Arc<Pending>>,
    ) {
        let Origin { correlation_id, accepted_at, .. } = origin;
        tracing::warn!(
            correlation_id,
            events,
            why,
            "refused events are counted, and their bytes are not kept"
        );
        self.metrics.dead_letters_dropped.inc_by(events);
        let (correlation_id, received_at) = (correlation_id.clone(), *accepted_at);
        lock(&self.outbox).count(Unkept {
            source,
            reason,
            events,
            received_at,
            correlation_id,
            why,
            pending,
        });
        self.wake();
    }

    /// Wakes the actor. If its mailbox is full it is at work, and checks the outbox again afterwards.
    fn wake(&self) {
        if let Some(room) = self.mailbox.try_reserve(1) {
            let mailbox = self.mailbox.clone();
            // An actor that was restarted meanwhile checks the outbox when it starts.
            actix::spawn(async move { mailbox.send_in(room, Wake).await.unwrap_or_default() });
        }
    }

    /// Waits until all letters are in the log. Logs the number of events that no message counts yet.
    pub async fn idle(&self) {
        self.mailbox.idle().await;
        let events = lock(&self.outbox).uncounted();
        if events > 0 {
            tracing::error!(
                events,
                "refused events are missing in the ledger: the log did not take their number"
            );
        }
    }
}

/// Room for the letters of one request, reserved as they are made.
pub(super) struct LetterRoom {
    mailbox: Mailbox<DeadLetterPublisher>,
    room: Option<Room>,
    /// Bytes that `room` stands for.
    reserved: usize,
    /// Bytes of the letters so far.
    used: usize,
}

impl LetterRoom {
    /// Reserves room for another letter of so many bytes; false if there is none.
    pub fn take(&mut self, bytes: usize) -> bool {
        let lacking = (self.used + bytes).saturating_sub(self.reserved);
        if lacking > 0 {
            let units = [STEP.max(lacking), lacking].map(|bytes| u32::try_from(bytes.div_ceil(UNIT)));
            let room =
                units.into_iter().flatten().find_map(|units| Some((units, self.mailbox.try_reserve(units)?)));
            let Some((units, more)) = room else { return false };
            self.reserved += units as usize * UNIT;
            match &mut self.room {
                Some(room) => room.merge(more),
                None => self.room = Some(more),
            }
        }
        self.used += bytes;
        true
    }
}
