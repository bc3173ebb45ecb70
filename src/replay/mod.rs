//! Replay of dead letters: their bytes are validated again, and those that are valid now are appended to the log.
//!
//! The command and the reporter replay by the same function. A letter is replayed once; if its event was stored
//! meanwhile, the store recognises the replayed one as a duplicate.

use bytes::Bytes;
use serde::Serialize;
use uuid::Uuid;

use crate::event::{FieldError, Redactor, Source, decode};
use crate::log::{AppendError, FrameWriter, Origin, Piece, SharedLog, Topic, redact_errors};
use crate::store::{DeadLetterFilter, LetterSize, Store, StoreError, StoredLetter};

/// Maximum number of letters whose bytes are held at one time.
const PAGE: usize = 100;
/// Maximum size of these letters, in bytes; a single letter is smaller.
const PAGE_BYTES: u64 = 4 << 20;

/// Reason for which a replay ended before its last letter.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The letters could not be read.
    #[error("the dead letters could not be read: {0}")]
    Read(#[from] StoreError),
    /// The log did not take an event.
    #[error("letter {letter} was not put into the log: {error}")]
    Log {
        /// The letter.
        letter: Uuid,
        /// The log's error.
        #[source]
        error: AppendError,
    },
    /// The result for a letter could not be recorded.
    #[error("letter {letter} {done}, but that could not be recorded: {error}")]
    Record {
        /// The letter.
        letter: Uuid,
        /// What happened to the letter.
        done: &'static str,
        /// The store's error.
        #[source]
        error: StoreError,
    },
}

/// Result for a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum ReplayOutcome {
    /// The event is valid: it is in the log, or would be.
    Accepted,
    /// The event is refused again.
    Refused,
    /// The letter was replayed before.
    Replayed,
    /// There is no such letter.
    Unknown,
}

/// A letter after its replay.
#[derive(Debug, Clone)]
pub struct ReplayedLetter {
    /// Id of the letter.
    pub id: Uuid,
    /// Result.
    pub outcome: ReplayOutcome,
    /// Source and type of the event, if it is valid.
    pub kind: Option<(Source, String)>,
    /// The event's id, if it could be read.
    pub event_id: Option<String>,
    /// Errors of an event that is refused again.
    pub errors: Vec<FieldError>,
}

/// Letters that a filter selects for a replay.
#[derive(Debug, Default)]
pub struct Selection {
    /// Letters to replay, the newest first.
    letters: Vec<LetterSize>,
    /// Ids of the filter that no letter has, or whose letter was replayed before.
    pub others: Vec<ReplayedLetter>,
    /// True if the filter takes more letters than these.
    pub more: bool,
}

impl Selection {
    /// Selects the letters of a filter that were not replayed yet, up to its limit and to so many bytes. At least one
    /// letter is selected, if there is any.
    ///
    /// # Errors
    ///
    /// If the store is unavailable.
    pub async fn new(store: &Store, filter: &DeadLetterFilter, max_bytes: u64) -> Result<Self, StoreError> {
        let by_id = !filter.ids.is_empty();
        let limit = filter.limit.saturating_add(1);
        let found =
            store.letter_sizes(&DeadLetterFilter { replayed: by_id, limit, ..filter.clone() }).await?;
        let none =
            |id, outcome| ReplayedLetter { id, outcome, kind: None, event_id: None, errors: Vec::new() };
        let mut selection = Self::default();
        for id in &filter.ids {
            if !found.iter().any(|letter| letter.id == *id) {
                selection.others.push(none(*id, ReplayOutcome::Unknown));
            }
        }
        let mut bytes = 0;
        for letter in found {
            if letter.replayed {
                selection.others.push(none(letter.id, ReplayOutcome::Replayed));
                continue;
            }
            bytes += letter.bytes;
            let full = !selection.letters.is_empty() && bytes > max_bytes;
            if full || selection.letters.len() as u64 == filter.limit {
                selection.more = true;
                break;
            }
            selection.letters.push(letter);
        }
        Ok(selection)
    }

    /// Number of letters to replay.
    pub fn len(&self) -> usize {
        self.letters.len()
    }

    /// True if there is no letter to replay.
    pub fn is_empty(&self) -> bool {
        self.letters.is_empty()
    }

    /// Ids of letters to replay, in parts whose letters fit into memory.
    fn pages(&self) -> Vec<Vec<Uuid>> {
        let mut pages: Vec<Vec<Uuid>> = Vec::new();
        let mut bytes = 0;
        for letter in &self.letters {
            bytes += letter.bytes;
            match pages.last_mut() {
                Some(page) if page.len() < PAGE && bytes <= PAGE_BYTES => page.push(letter.id),
                _ => {
                    bytes = letter.bytes;
                    pages.push(vec![letter.id]);
                }
            }
        }
        pages
    }
}

/// A replay.
pub struct Replay<'a> {
    /// The store that has the letters.
    pub store: &'a Store,
    /// The log that takes valid events; `None` for a dry run, which changes nothing.
    pub log: Option<&'a SharedLog>,
    /// Replaces personal data of letters that were set aside before `ESS_PII` was set.
    pub redactor: Option<&'a Redactor>,
}

impl Replay<'_> {
    /// Replays the selected letters one by one; `each` is called after each of them.
    ///
    /// # Errors
    ///
    /// If the log or the store fails. Letters for which `each` was called stay replayed.
    pub async fn run(
        &self,
        selection: &Selection,
        mut each: impl FnMut(ReplayedLetter),
    ) -> Result<(), ReplayError> {
        for ids in selection.pages() {
            let limit = ids.len() as u64;
            let page = DeadLetterFilter { ids, limit, ..DeadLetterFilter::default() };
            for letter in &self.store.letters(&page).await? {
                each(self.replay(letter).await?);
            }
        }
        Ok(())
    }

    async fn replay(&self, letter: &StoredLetter) -> Result<ReplayedLetter, ReplayError> {
        let source = letter.source.and_then(Source::parse);
        if let Some(source) = source.filter(|source| !source.is_built_in()) {
            let message = format!("{source} is declared by a file: its letters are not replayed");
            let errors = vec![FieldError { path: String::new(), message }];
            let (id, event_id) = (letter.id, letter.event_id.clone());
            return Ok(ReplayedLetter { id, outcome: ReplayOutcome::Refused, kind: None, event_id, errors });
        }
        let payload = shown_payload(letter, self.redactor);
        let replayed = |outcome, kind, event_id, errors| ReplayedLetter {
            id: letter.id,
            outcome,
            kind,
            event_id,
            errors,
        };
        let mut errors = match validate(letter, &payload) {
            Ok((source, kind, id)) => {
                if let Some(log) = self.log {
                    self.append(log, source, letter, &payload).await?;
                }
                return Ok(replayed(ReplayOutcome::Accepted, Some((source, kind)), Some(id), Vec::new()));
            }
            Err(errors) => errors,
        };
        if self.redactor.is_some() {
            redact_errors(&mut errors);
        }
        if self.log.is_some() {
            let kept = self.store.letter_failed_again(letter, &errors).await;
            let failed = |error| ReplayError::Record { letter: letter.id, done: "was refused again", error };
            kept.map_err(failed)?;
        }
        Ok(replayed(ReplayOutcome::Refused, None, letter.event_id.clone(), errors))
    }

    /// Appends a letter's event to the log, in a frame of a new writer: the log must not take it for a frame that it
    /// had before.
    async fn append(
        &self,
        log: &SharedLog,
        source: Source,
        letter: &StoredLetter,
        payload: &[u8],
    ) -> Result<(), ReplayError> {
        let origin = Origin {
            correlation_id: letter.correlation_id.clone(),
            traceparent: None,
            accepted_at: chrono::Utc::now().timestamp_micros(),
        };
        let whole = 0..payload.len();
        let piece = Piece { origin: &origin, body: payload, events: std::slice::from_ref(&whole) };
        let (id, frame): (String, Bytes) = FrameWriter::default().write(&[piece]);
        let letter = letter.id;
        log.append(Topic::Events(source), id, frame)
            .await
            .map_err(|error| ReplayError::Log { letter, error })?;
        let kept = self.store.letter_replayed(letter).await;
        kept.map_err(|error| ReplayError::Record { letter, done: "is in the log", error })
    }
}

/// Bytes of a letter as they may be shown and stored: without the personal data that `ESS_PII` takes out.
pub fn shown_payload(letter: &StoredLetter, redactor: Option<&Redactor>) -> Vec<u8> {
    match redactor {
        Some(redactor) => {
            let mut payload = Vec::new();
            redactor.redact(&letter.payload, &mut payload);
            payload
        }
        None => letter.payload.clone(),
    }
}

/// Validates a letter by today's contract; gives source, type and id of its event.
fn validate(letter: &StoredLetter, payload: &[u8]) -> Result<(Source, String, String), Vec<FieldError>> {
    if !letter.is_whole() {
        let message = "only the beginning of its bytes was kept, so that it cannot be replayed".to_owned();
        return Err(vec![FieldError { path: String::new(), message }]);
    }
    let event = decode(payload, None).map_err(|refusal| refusal.errors)?;
    Ok((event.source, event.kind.name().to_owned(), event.id.into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_read_in_pages_of_bounded_number_and_size() {
        let letter = |bytes| LetterSize { id: Uuid::new_v4(), bytes, replayed: false };
        let pages = |letters: Vec<LetterSize>| {
            let selection = Selection { letters, ..Selection::default() };
            let pages = selection.pages();
            let ids: Vec<_> = selection.letters.iter().map(|letter| letter.id).collect();
            assert_eq!(pages.concat(), ids, "each letter once and in order");
            pages.iter().map(Vec::len).collect::<Vec<_>>()
        };
        assert_eq!(pages((0..250).map(|_| letter(10)).collect()), [100, 100, 50]);
        assert_eq!(pages((0..5).map(|_| letter(PAGE_BYTES / 2)).collect()), [2, 2, 1]);
        assert_eq!(pages(vec![letter(PAGE_BYTES * 2), letter(1)]), [1, 1]);
        assert_eq!(pages(Vec::new()), [0; 0]);
    }
}
