//! Dead letters of the gateway: refused events, sent to the log through a topic of their own.
//!
//! ```text
//! ingest ──letters──▶ outbox ──one message at a time──▶ publisher (actor) ──▶ log
//! ```
//!
//! Valid events never wait for refused ones. Letters wait in the [`outbox`], which outlives the actor that sends it;
//! while one message is under way, the letters of all requests gather for the next. A letter without room is counted
//! instead of kept, and the next message has the number of such events by source: the ledger's `rejected` grows by every
//! refused event.

mod outbox;
mod publisher;

use std::sync::{Arc, Mutex};

use self::outbox::{Outbox, Unkept, Waiting, lock};
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

    /// Puts letters into the outbox. The request's answer does not wait for the log to take them.
    pub fn set_aside(&self, letters: Vec<DeadLetter>, room: LetterRoom) {
        if letters.is_empty() {
            return;
        }
        let room = room.room.map(Arc::new);
        let letters = letters.into_iter().map(|letter| Waiting { letter, room: room.clone() });
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
        self.set_one_aside(letter);
    }

    /// Puts one letter into the outbox, or counts it if there is no room.
    fn set_one_aside(&self, letter: DeadLetter) {
        let mut room = self.room();
        if room.take(letter.size()) {
            return self.set_aside(vec![letter], room);
        }
        let DeadLetter { source, reason, received_at, correlation_id, .. } = letter;
        self.count(source, reason, 1, received_at, &correlation_id, "too many wait to be kept");
    }

    /// Counts refused events whose bytes are not kept; the next message has their number.
    pub fn count(
        &self,
        source: Option<Source>,
        reason: Reason,
        events: u64,
        received_at: i64,
        correlation_id: &str,
        why: &'static str,
    ) {
        tracing::warn!(
            correlation_id,
            events,
            why,
            "refused events are counted, and their bytes are not kept"
        );
        self.metrics.dead_letters_dropped.inc_by(events);
        let correlation_id = correlation_id.to_owned();
        lock(&self.outbox).count(Unkept { source, reason, events, received_at, correlation_id, why });
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
