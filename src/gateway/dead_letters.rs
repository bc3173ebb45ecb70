//! Refused events on their way to the store, through a topic of their own.
//!
//! Good events never wait for them. Letters wait in an outbox that outlives its actor; one message is under way at
//! a time, and what comes meanwhile, from however many requests, goes together into the next. Where there is no room
//! for a letter's bytes it is counted, and the next message says how many more events of which source were refused:
//! the ledger's `rejected` grows by every one.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, Message, WrapFuture};
use bytes::Bytes;
use uuid::Uuid;

use super::refusal::RequestRefusal;
use crate::event::{FieldError, Redactor, Refusal, Source};
use crate::log::{AppendError, DeadLetter, Origin, Reason, SharedLog, Topic};
use crate::ops::metrics::{GatewayFailure, GatewayMetrics};
use crate::runtime::{Held, Mailbox, Room};

/// Letters that wait at one time, in kibibytes.
pub(super) const BOUND: usize = 32 * 1_024;
/// Bytes of one message of the log. A single letter is smaller: an event of 256 KiB in base64 and its errors.
const MESSAGE_BYTES: usize = 512 * 1_024;
/// Letters of one message of the log.
const MESSAGE_LETTERS: usize = 500;
/// The wait before a message is sent again.
const BACKOFF: Duration = Duration::from_millis(500);
/// Time for which letters wait for a log that is full, before they are counted and let go.
const FULL: Duration = Duration::from_secs(30);
/// Interval at which the outbox is looked at when nothing wakes it.
const SWEEP: Duration = Duration::from_secs(1);

/// A letter, and the room that it takes as long as it waits; letters of one request share theirs.
struct Waiting {
    letter: DeadLetter,
    #[expect(dead_code, reason = "held, not read")]
    room: Option<Arc<Room>>,
}

/// A message under way. It is sent again under the same id until the log has said something definite, by the next
/// instance of the actor too: the log recognises it.
#[derive(Clone)]
struct Sending {
    id: String,
    bytes: Bytes,
    /// Number of its letters.
    letters: usize,
    since: Instant,
}

/// Refused events whose bytes are not kept.
struct Unkept {
    source: Option<Source>,
    reason: Reason,
    events: u64,
    received_at: i64,
    /// Their request's, if it is one request.
    correlation_id: String,
    why: &'static str,
}

#[derive(Default)]
struct Outbox {
    waiting: VecDeque<Waiting>,
    sending: Option<Sending>,
    /// Letters that `sending` holds.
    letters: Vec<Waiting>,
    unkept: Vec<Unkept>,
    /// Letters of the next message, where the log refused one as too large.
    most: Option<usize>,
}

impl Outbox {
    /// The message to send: the one under way, else a new one from what waits.
    fn message(&mut self) -> Option<Sending> {
        if self.sending.is_none() && !(self.waiting.is_empty() && self.unkept.is_empty()) {
            let bytes = self.fill().into();
            let id = Uuid::new_v4().simple().to_string();
            self.sending = Some(Sending { id, bytes, letters: self.letters.len(), since: Instant::now() });
        }
        self.sending.clone()
    }

    /// Moves letters into a message, up to so many bytes as JSON.
    fn fill(&mut self) -> Vec<u8> {
        for unkept in self.unkept.drain(..) {
            let Unkept { source, reason, events, received_at, correlation_id, why } = unkept;
            let letter = DeadLetter::unkept(received_at, &correlation_id, source, reason, events, why);
            self.waiting.push_front(Waiting { letter, room: None });
        }
        let most = self.most.unwrap_or(MESSAGE_LETTERS);
        let mut bytes = vec![b'['];
        while let Some(next) = self.waiting.front()
            && self.letters.len() < most
        {
            let before = bytes.len();
            if !self.letters.is_empty() {
                bytes.push(b',');
            }
            // Writing to memory does not fail, and a letter has no map whose keys are no strings.
            let _ = serde_json::to_writer(&mut bytes, &next.letter);
            if bytes.len() >= MESSAGE_BYTES && !self.letters.is_empty() {
                bytes.truncate(before);
                break;
            }
            self.letters.extend(self.waiting.pop_front());
        }
        bytes.push(b']');
        bytes
    }

    /// Takes the log's word on the message under way; gives how many events' bytes were let go.
    fn settle(&mut self, result: Result<(), AppendError>) -> u64 {
        let error = match result {
            Ok(()) => {
                (self.sending, self.most) = (None, None);
                self.letters.clear();
                return 0;
            }
            Err(error) => error,
        };
        let since = self.sending.as_ref().map_or(Duration::ZERO, |sending| sending.since.elapsed());
        tracing::warn!(letters = self.letters.len(), %error, "refused events are not set aside yet");
        match error {
            // It may be in the log: only the same message is recognised there.
            AppendError::Unavailable(_) => 0,
            AppendError::Full(_) if since < FULL => 0,
            AppendError::Full(_) => self.let_go("the log is full"),
            AppendError::Refused(_) => self.split(),
        }
    }

    /// Puts the letters of a message that the log does not take back, to come in smaller ones; a letter that is too
    /// large by itself comes without its bytes.
    fn split(&mut self) -> u64 {
        self.sending = None;
        let mut letters = std::mem::take(&mut self.letters);
        self.most = Some((letters.len() / 2).max(1));
        let mut let_go = 0;
        if let [only] = &mut *letters {
            if only.letter.payload.is_empty() {
                only.letter.errors.clear();
            }
            let_go = u64::from(!only.letter.payload.is_empty());
            only.letter.payload.clear();
        }
        for letter in letters.into_iter().rev() {
            self.waiting.push_front(letter);
        }
        let_go
    }

    /// Lets the bytes of the message under way go, and counts its events.
    fn let_go(&mut self, why: &'static str) -> u64 {
        self.sending = None;
        let mut events = 0;
        for Waiting { letter, .. } in std::mem::take(&mut self.letters) {
            events += u64::from(!letter.payload.is_empty());
            let DeadLetter { source, reason, received_at, correlation_id, .. } = letter;
            self.count(Unkept { source, reason, events: letter.events, received_at, correlation_id, why });
        }
        events
    }

    /// Counts events whose bytes are not kept, until the next message.
    fn count(&mut self, more: Unkept) {
        let known =
            self.unkept.iter_mut().find(|known| (known.source, known.reason) == (more.source, more.reason));
        let Some(known) = known else { return self.unkept.push(more) };
        known.events = known.events.saturating_add(more.events);
        known.received_at = more.received_at;
        if known.correlation_id != more.correlation_id {
            known.correlation_id.clear();
        }
    }
}

/// The way to the dead letters.
#[derive(Clone)]
pub(super) struct DeadLetters {
    outbox: Arc<Mutex<Outbox>>,
    mailbox: Mailbox<DeadLetterPublisher>,
    metrics: GatewayMetrics,
}

impl DeadLetters {
    /// Makes an outbox and, by `start`, its actor.
    pub fn new(
        log: &SharedLog,
        metrics: &GatewayMetrics,
        start: impl FnOnce(Box<dyn Fn() -> DeadLetterPublisher + Send>) -> Mailbox<DeadLetterPublisher>,
    ) -> Self {
        let outbox = Arc::<Mutex<Outbox>>::default();
        let make = {
            let (log, metrics, outbox) = (log.clone(), metrics.clone(), outbox.clone());
            move || DeadLetterPublisher {
                log: log.clone(),
                metrics: metrics.clone(),
                outbox: outbox.clone(),
                busy: false,
            }
        };
        Self { outbox, mailbox: start(Box::new(make)), metrics: metrics.clone() }
    }

    /// Room for the letters of one request.
    pub fn room(&self) -> LetterRoom {
        LetterRoom { mailbox: self.mailbox.clone(), room: None, reserved: 0, used: 0 }
    }

    /// Sets letters aside, behind the answer's back: no event waits for one that was refused.
    pub fn set_aside(&self, letters: Vec<DeadLetter>, room: LetterRoom) {
        if letters.is_empty() {
            return;
        }
        let room = room.room.map(Arc::new);
        let letters = letters.into_iter().map(|letter| Waiting { letter, room: room.clone() });
        lock(&self.outbox).waiting.extend(letters);
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

    /// Sets one letter aside, or counts it where it has no room.
    fn set_one_aside(&self, letter: DeadLetter) {
        let mut room = self.room();
        if room.take(letter.size()) {
            return self.set_aside(vec![letter], room);
        }
        let DeadLetter { source, reason, received_at, correlation_id, .. } = letter;
        self.count(source, reason, 1, received_at, &correlation_id, "too many wait to be kept");
    }

    /// Counts refused events whose bytes are not kept: the next message says how many there were.
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

    /// Without room the actor is at work, and looks again by itself.
    fn wake(&self) {
        if let Some(room) = self.mailbox.try_reserve(1) {
            let mailbox = self.mailbox.clone();
            // An actor that ended meanwhile looks by itself when it begins anew.
            actix::spawn(async move { mailbox.send_in(room, Wake).await.unwrap_or_default() });
        }
    }

    /// Waits until all letters are in the log; what could only be counted and is in no message yet is told.
    pub async fn idle(&self) {
        self.mailbox.idle().await;
        let events: u64 = lock(&self.outbox).unkept.iter().map(|unkept| unkept.events).sum();
        if events > 0 {
            tracing::error!(
                events,
                "refused events are missing in the ledger: the log did not take their number"
            );
        }
    }
}

/// Room for letters, reserved as they are made.
pub(super) struct LetterRoom {
    mailbox: Mailbox<DeadLetterPublisher>,
    room: Option<Room>,
    /// In bytes.
    reserved: usize,
    used: usize,
}

/// The mailbox's unit, in bytes.
const UNIT: usize = 1_024;
/// Bytes that are reserved together, where there are so many.
const STEP: usize = 64 * UNIT;

impl LetterRoom {
    /// Takes room for so many bytes more; false if there is none.
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

/// The outbox has something.
pub(super) struct Wake;

impl Message for Wake {
    type Result = ();
}

/// The actor that sends what is in the outbox.
pub(super) struct DeadLetterPublisher {
    log: SharedLog,
    metrics: GatewayMetrics,
    outbox: Arc<Mutex<Outbox>>,
    busy: bool,
}

/// A panic elsewhere leaves the outbox as it is: each change of it is whole.
fn lock(outbox: &Mutex<Outbox>) -> MutexGuard<'_, Outbox> {
    outbox.lock().unwrap_or_else(PoisonError::into_inner)
}

impl DeadLetterPublisher {
    fn pump(&mut self, context: &mut Context<Self>) {
        if self.busy {
            return;
        }
        let Some(Sending { id, bytes, letters, .. }) = lock(&self.outbox).message() else { return };
        self.busy = true;
        let log = self.log.clone();
        let send = async move {
            let result = log.append(Topic::DeadLetters, id, bytes).await;
            // A message of several is split at once.
            match &result {
                Ok(_) => {}
                Err(AppendError::Refused(_)) if letters > 1 => {}
                Err(_) => tokio::time::sleep(BACKOFF).await,
            }
            result.map(drop)
        };
        context.spawn(send.into_actor(self).map(|result, actor, context| {
            let let_go = lock(&actor.outbox).settle(result);
            actor.metrics.dead_letters_dropped.inc_by(let_go);
            actor.busy = false;
            actor.pump(context);
        }));
    }
}

impl Actor for DeadLetterPublisher {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.run_interval(SWEEP, Self::pump);
        self.pump(context);
    }
}

impl Handler<Held<Wake>> for DeadLetterPublisher {
    type Result = ();

    fn handle(&mut self, held: Held<Wake>, context: &mut Self::Context) {
        let (Wake, _room) = held.open();
        self.pump(context);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(payload: usize, path: &str) -> DeadLetter {
        let error = FieldError { path: path.to_owned(), message: "is wrong".to_owned() };
        let refusal = Refusal { errors: vec![error; 20], ..Refusal::default() };
        DeadLetter::new(1, "c", Reason::Invalid, &vec![b'x'; payload], refusal)
    }

    fn outbox(letters: impl IntoIterator<Item = DeadLetter>) -> Outbox {
        let waiting = letters.into_iter().map(|letter| Waiting { letter, room: None }).collect();
        Outbox { waiting, ..Outbox::default() }
    }

    fn read(sending: &Sending) -> Vec<DeadLetter> {
        serde_json::from_slice(&sending.bytes).unwrap()
    }

    /// Sends all; `log` says what becomes of a message. Gives the letters of the messages that were taken.
    fn send(outbox: &mut Outbox, log: impl Fn(&Sending) -> Result<(), AppendError>) -> Vec<Vec<DeadLetter>> {
        let mut taken = Vec::new();
        for _ in 0..1_000 {
            let Some(sending) = outbox.message() else { return taken };
            let result = log(&sending);
            if result.is_ok() {
                taken.push(read(&sending));
            }
            outbox.settle(result);
        }
        panic!("no end");
    }

    #[test]
    fn a_message_is_cut_by_its_bytes_as_json() {
        // Each of them is written six times as long as it is.
        let mut outbox = outbox((0..40).map(|_| letter(60_000, &"\u{1}".repeat(40))));
        let messages = send(&mut outbox, |sending| {
            assert!(sending.bytes.len() <= MESSAGE_BYTES, "{}", sending.bytes.len());
            Ok(())
        });
        assert_eq!(messages.iter().map(Vec::len).sum::<usize>(), 40);
        assert!(messages.len() > 5);
    }

    #[test]
    fn a_message_that_the_log_refuses_is_split_and_nothing_is_dropped() {
        let sizes = (0..30).map(|n| if n == 17 { 200_000 } else { 1_000 });
        let mut outbox = outbox(sizes.map(|size| letter(size, "a")));
        let messages = send(&mut outbox, |sending| {
            let fits = sending.bytes.len() < 20_000;
            fits.then_some(()).ok_or(AppendError::Refused("too large".to_owned()))
        });
        let letters: Vec<_> = messages.into_iter().flatten().collect();
        assert_eq!(letters.len(), 30);
        let (kept, cut): (Vec<_>, Vec<_>) =
            letters.into_iter().partition(|letter| !letter.payload.is_empty());
        assert_eq!((kept.len(), cut.len(), cut[0].payload_length), (29, 1, 200_000));
    }

    #[test]
    fn what_a_full_log_does_not_take_is_counted_in_the_next_message() {
        let mut outbox = outbox((0..700).map(|_| letter(10, "a")));
        outbox.message();
        if let Some(sending) = &mut outbox.sending {
            sending.since -= FULL;
        }
        assert_eq!(outbox.settle(Err(AppendError::Full(String::new()))), 500);
        let messages = send(&mut outbox, |_| Ok(()));
        let events: u64 = messages.iter().flatten().map(|letter| letter.events).sum();
        assert_eq!((events, messages[0][0].events, messages[0].len()), (700, 500, 201));
        assert!(messages[0][0].errors[0].message.contains("500 more"), "{:?}", messages[0][0]);
    }

    #[test]
    fn a_message_whose_fate_is_not_known_is_sent_again_as_it_was() {
        let mut outbox = outbox([letter(10, "a")]);
        let first = outbox.message().unwrap();
        outbox.settle(Err(AppendError::Unavailable(String::new())));
        outbox.waiting.push_back(Waiting { letter: letter(10, "b"), room: None });
        let second = outbox.message().unwrap();
        assert_eq!((&first.id, &first.bytes), (&second.id, &second.bytes));
        outbox.settle(Ok(()));
        assert_ne!(outbox.message().unwrap().id, first.id);
    }
}
