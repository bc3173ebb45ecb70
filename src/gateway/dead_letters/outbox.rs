//! The outbox: refused events that wait for the log, and the one message that is under way.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
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

/// Locks the outbox. A panic while it was locked left it valid: each change of it is whole.
pub(super) fn lock(outbox: &Mutex<Outbox>) -> MutexGuard<'_, Outbox> {
    outbox.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A letter, and its room in the mailbox, which the letters of one request share.
pub(super) struct Waiting {
    pub letter: DeadLetter,
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
                self.letters.clear();
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
            self.count(Unkept { source, reason, events: letter.events, received_at, correlation_id, why });
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

    fn outbox(letters: impl IntoIterator<Item = DeadLetter>) -> Outbox {
        let waiting = letters.into_iter().map(|letter| Waiting { letter, room: None }).collect();
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

    #[test]
    fn a_message_without_an_answer_is_sent_again_unchanged() {
        let mut outbox = outbox([letter(10, "a")]);
        let first = outbox.message().unwrap();
        outbox.settle(Err(AppendError::Unavailable("".into())));
        outbox.waiting.push_back(Waiting { letter: letter(10, "b"), room: None });
        let second = outbox.message().unwrap();
        assert_eq!((&first.id, &first.bytes), (&second.id, &second.bytes));
        outbox.settle(Ok(()));
        assert_ne!(outbox.message().unwrap().id, first.id);
    }
}
