//! The outbox: refused events that wait for the log, and the one message that is under way.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::event::Source;
use crate::log::{AppendError, DeadLetter, Reason};
use crate::runtime::Room;

/// Maximum bytes of one message of the log. A single letter is smaller: an event of 256 KiB in base64, and its errors.
const MESSAGE_BYTES: usize = 512 * 1_024;
/// Maximum letters of one message of the log.
const MESSAGE_LETTERS: usize = 500;
/// Time for which letters wait for a full log; then their bytes are dropped and they are counted.
const FULL: Duration = Duration::from_secs(30);

/// Locks the outbox, or a part of it. A panic while it was locked left it valid: each change of it is whole.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Confirms to a request that all its letters are in the log. Dropped before that, the request learns that they are not.
pub(super) struct Pending {
    /// Number of letters that are not confirmed yet.
    open: AtomicUsize,
    done: Mutex<Option<oneshot::Sender<()>>>,
}

impl Pending {
    /// Waits for so many letters, at least one.
    pub fn new(letters: usize) -> (Arc<Self>, oneshot::Receiver<()>) {
        let (done, confirmed) = oneshot::channel();
        (Arc::new(Self { open: AtomicUsize::new(letters), done: Mutex::new(Some(done)) }), confirmed)
    }

    /// Confirms one letter.
    fn confirm(&self) {
        if self.open.fetch_sub(1, Ordering::AcqRel) == 1
            && let Some(done) = lock(&self.done).take()
        {
            // A request that gave up has been answered already.
            let _ = done.send(());
        }
    }
}

/// A letter, and its room in the mailbox, which the letters of one request share.
pub(super) struct Waiting {
    pub letter: DeadLetter,
    /// Requests that wait for the letter: one, or several for a letter that counts events of several.
    pub pending: Vec<Arc<Pending>>,
    #[expect(dead_code, reason = "held, not read")]
    pub room: Option<Arc<Room>>,
}

/// A message under way. It is sent again under the same id, by a restarted actor too, until the log gives a definite
/// answer: the log recognises the id.
#[derive(Clone)]
pub(super) struct Sending {
    pub id: String,
    pub bytes: Bytes,
    /// Number of letters in it.
    pub letters: usize,
    since: Instant,
}

/// Refused events whose bytes are not kept.
pub(super) struct Unkept {
    pub source: Option<Source>,
    pub reason: Reason,
    pub events: u64,
    pub received_at: i64,
    /// Of the events' request; empty if they came with several.
    pub correlation_id: String,
    /// The reason that the bytes are not kept.
    pub why: &'static str,
    /// Requests that wait until the events are counted.
    pub pending: Vec<Arc<Pending>>,
}

/// Refused events that wait for the log.
#[derive(Default)]
pub(super) struct Outbox {
    waiting: VecDeque<Waiting>,
    sending: Option<Sending>,
    /// Letters that `sending` holds.
    letters: Vec<Waiting>,
    unkept: Vec<Unkept>,
    /// Maximum letters of the next message, after the log refused one as too large.
    most: Option<usize>,
}

impl Outbox {
    /// Adds letters to those that wait.
    pub fn extend(&mut self, letters: impl Iterator<Item = Waiting>) {
        self.waiting.extend(letters);
    }

    /// Number of events that no message counts yet.
    pub fn uncounted(&self) -> u64 {
        self.unkept.iter().map(|unkept| unkept.events).sum()
    }

    /// The message to send: the one under way, else a new one of waiting letters.
    pub fn message(&mut self) -> Option<Sending> {
        if self.sending.is_none() && !(self.waiting.is_empty() && self.unkept.is_empty()) {
            let bytes = self.fill().into();
            let id = Uuid::new_v4().simple().to_string();
            self.sending = Some(Sending { id, bytes, letters: self.letters.len(), since: Instant::now() });
        }
        self.sending.clone()
    }

    /// Moves letters into a message, up to its bounds.
    fn fill(&mut self) -> Vec<u8> {
        for unkept in self.unkept.drain(..) {
            let Unkept { source, reason, events, received_at, correlation_id, why, pending } = unkept;
            let letter = DeadLetter::unkept(received_at, &correlation_id, source, reason, events, why);
            self.waiting.push_front(Waiting { letter, pending, room: None });
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
            // A letter always has a JSON form, and writing to memory does not fail.
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

    /// Handles the log's answer to the message under way. Returns the number of events whose bytes were dropped.
    pub fn settle(&mut self, result: Result<(), AppendError>) -> u64 {
        let error = match result {
            Ok(()) => {
                (self.sending, self.most) = (None, None);
                for Waiting { pending, .. } in self.letters.drain(..) {
                    pending.iter().for_each(|pending| pending.confirm());
                }
                return 0;
            }
            Err(error) => error,
        };
        let since = self.sending.as_ref().map_or(Duration::ZERO, |sending| sending.since.elapsed());
        tracing::warn!(letters = self.letters.len(), %error, "refused events are not set aside yet");
        match error {
            // The message may be in the log, which recognises only the same message again.
            AppendError::Unavailable(_) => 0,
            AppendError::Full(_) if since < FULL => 0,
            AppendError::Full(_) => self.drop_bytes("the log is full"),
            AppendError::Refused(_) => self.split(),
        }
    }

    /// Returns the letters of a refused message to those that wait, to be sent in smaller messages. A letter that is too
    /// large by itself is sent without its bytes.
    fn split(&mut self) -> u64 {
        self.sending = None;
        let mut letters = std::mem::take(&mut self.letters);
        self.most = Some((letters.len() / 2).max(1));
        let mut dropped = 0;
        if let [only] = &mut *letters {
            if only.letter.payload.is_empty() {
                only.letter.errors.clear();
            }
            dropped = u64::from(!only.letter.payload.is_empty());
            only.letter.payload.clear();
        }
        for letter in letters.into_iter().rev() {
            self.waiting.push_front(letter);
        }
        dropped
    }

    /// Drops the bytes of the message under way, and counts its events.
    fn drop_bytes(&mut self, why: &'static str) -> u64 {
        self.sending = None;
        let mut events = 0;
        for Waiting { letter, .. } in std::mem::take(&mut self.letters) {
            events += u64::from(!letter.payload.is_empty());
            let DeadLetter { source, reason, received_at, correlation_id, .. } = letter;
            // A request that waits for the letter learns that it is not kept.
            let (events, pending) = (letter.events, Vec::new());
            self.count(Unkept { source, reason, events, received_at, correlation_id, why, pending });
        }
        events
    }

    /// Counts events whose bytes are not kept; the next message has their number.
    pub fn count(&mut self, more: Unkept) {
        let known =
            self.unkept.iter_mut().find(|known| (known.source, known.reason) == (more.source, more.reason));
        let Some(known) = known else { return self.unkept.push(more) };
        known.events = known.events.saturating_add(more.events);
        known.received_at = more.received_at;
        known.pending.extend(more.pending);
        if known.correlation_id != more.correlation_id {
            known.correlation_id.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{FieldError, Refusal};

    fn letter(payload: usize, path: &str) -> DeadLetter {
        let error = FieldError { path: path.to_owned(), message: "is wrong".to_owned() };
        let refusal = Refusal { errors: vec![error; 20], ..Refusal::default() };
        DeadLetter::new(1, "c", Reason::Invalid, &vec![b'x'; payload], refusal)
    }

    fn waiting(letter: DeadLetter) -> Waiting {
        Waiting { letter, pending: Vec::new(), room: None }
    }

    fn outbox(letters: impl IntoIterator<Item = DeadLetter>) -> Outbox {
        let waiting = letters.into_iter().map(waiting).collect();
        Outbox { waiting, ..Outbox::default() }
    }

    fn read(sending: &Sending) -> Vec<DeadLetter> {
        serde_json::from_slice(&sending.bytes).unwrap()
    }

    /// Sends all letters; `log` answers each message. Returns the letters of each message that was taken.
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
        // JSON writes each character of the path with six.
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
            fits.then_some(()).ok_or(AppendError::Refused("too large".into()))
        });
        let letters: Vec<_> = messages.into_iter().flatten().collect();
        assert_eq!(letters.len(), 30);
        let (kept, cut): (Vec<_>, Vec<_>) =
            letters.into_iter().partition(|letter| !letter.payload.is_empty());
        assert_eq!((kept.len(), cut.len(), cut[0].payload_length), (29, 1, 200_000));
    }

    #[test]
    fn letters_that_a_full_log_does_not_take_are_counted_in_the_next_message() {
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

    /// Letters for which one request waits.
    fn awaited(letters: usize) -> (Outbox, oneshot::Receiver<()>) {
        let (pending, confirmed) = Pending::new(letters);
        let mut outbox = outbox((0..letters).map(|_| letter(10, "a")));
        outbox.waiting.iter_mut().for_each(|waiting| waiting.pending.push(pending.clone()));
        (outbox, confirmed)
    }

    #[test]
    fn a_request_learns_that_all_its_letters_are_in_the_log_after_the_last_one() {
        let (mut outbox, mut confirmed) = awaited(MESSAGE_LETTERS + 1);
        outbox.message();
        outbox.settle(Ok(()));
        assert_eq!(confirmed.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        outbox.message();
        outbox.settle(Ok(()));
        assert_eq!(confirmed.try_recv(), Ok(()));
    }

    #[test]
    fn a_request_learns_that_a_full_log_took_no_letter_of_it() {
        let (mut outbox, mut confirmed) = awaited(3);
        outbox.message();
        if let Some(sending) = &mut outbox.sending {
            sending.since -= FULL;
        }
        outbox.settle(Err(AppendError::Full(String::new())));
        assert_eq!(confirmed.try_recv(), Err(oneshot::error::TryRecvError::Closed));
    }

    #[test]
    fn a_message_without_an_answer_is_sent_again_unchanged() {
        let mut outbox = outbox([letter(10, "a")]);
        let first = outbox.message().unwrap();
        outbox.settle(Err(AppendError::Unavailable("".into())));
        outbox.waiting.push_back(waiting(letter(10, "b")));
        let second = outbox.message().unwrap();
        assert_eq!((&first.id, &first.bytes), (&second.id, &second.bytes));
        outbox.settle(Ok(()));
        assert_ne!(outbox.message().unwrap().id, first.id);
    }
}
