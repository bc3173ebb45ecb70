//! Replay of dead letters: their bytes are validated again, and those that are valid now are appended to the log.
//!
//! The command and the reporter replay by the same function. A letter of a built-in source is validated by its contract,
//! one of a declared source converted by the file of today. A letter is replayed once; if its event was stored meanwhile,
//! the store recognises the replayed one as a duplicate.

mod declared;

use std::ops::Range;
use std::path::Path;

use bytes::Bytes;
use serde::Serialize;
use uuid::Uuid;

use self::declared::Converted;
use crate::event::{FieldError, Redactor, Source, decode};
use crate::log::{
    AppendError, FrameWriter, MAX_FRAME_BYTES, MAX_FRAME_EVENTS, Origin, Piece, SharedLog, Topic,
    redact_errors,
};
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
        /// Outcome of the letter's replay, before the store failed.
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
    /// Folder of source files (`ESS_SOURCES`), for letters of declared sources.
    pub source_folder: &'a Path,
}

/// The events of a letter that are valid now.
struct Valid {
    source: Source,
    /// Type and id of the first event.
    first: (String, String),
    bytes: Vec<u8>,
    events: Vec<Range<usize>>,
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
        let files = declared::Files::of(self.source_folder);
        for ids in selection.pages() {
            let limit = ids.len() as u64;
            let page = DeadLetterFilter { ids, limit, ..DeadLetterFilter::default() };
            for letter in &self.store.letters(&page).await? {
                each(self.replay(letter, &files).await?);
            }
        }
        Ok(())
    }

    async fn replay(
        &self,
        letter: &StoredLetter,
        files: &declared::Files<'_>,
    ) -> Result<ReplayedLetter, ReplayError> {
        let replayed = |outcome, kind, event_id, errors| ReplayedLetter {
            id: letter.id,
            outcome,
            kind,
            event_id,
            errors,
        };
        let errors = match validate(letter, self.redactor, files) {
            Ok(valid) => {
                if let Some(log) = self.log {
                    self.append(log, letter, &valid).await?;
                }
                let Valid { source, first: (kind, id), .. } = valid;
                return Ok(replayed(ReplayOutcome::Accepted, Some((source, kind)), Some(id), Vec::new()));
            }
            Err(errors) => errors,
        };
        if self.log.is_some() {
            let kept = self.store.letter_failed_again(letter, &errors).await;
            let failed = |error| ReplayError::Record { letter: letter.id, done: "was refused again", error };
            kept.map_err(failed)?;
        }
        Ok(replayed(ReplayOutcome::Refused, None, letter.event_id.clone(), errors))
    }

    /// Appends a letter's events to the log, in a frame of a new writer: the log must not take it for a frame that it
    /// had before.
    async fn append(
        &self,
        log: &SharedLog,
        letter: &StoredLetter,
        Valid { source, bytes, events, .. }: &Valid,
    ) -> Result<(), ReplayError> {
        let origin = Origin {
            correlation_id: letter.correlation_id.clone(),
            traceparent: None,
            accepted_at: chrono::Utc::now().timestamp_micros(),
        };
        let letter = letter.id;
        for part in parts(events) {
            let piece = Piece { origin: &origin, body: bytes, events: part };
            let (id, frame): (String, Bytes) = FrameWriter::default().write(&[piece]);
            log.append(Topic::Events(*source), id, frame)
                .await
                .map_err(|error| ReplayError::Log { letter, error })?;
        }
        let kept = self.store.letter_replayed(letter).await;
        kept.map_err(|error| ReplayError::Record { letter, done: "is in the log", error })
    }
}

/// Bytes of a letter as they may be shown: without the personal data that `ESS_PII` takes out. The file of a declared
/// source, in `source_folder`, says which these are; without that nothing is shown.
pub fn shown_payload(letter: &StoredLetter, redactor: Option<&Redactor>, source_folder: &Path) -> Vec<u8> {
    match (redactor, declared_source(letter)) {
        (Some(redactor), Some(source)) => {
            declared::shown(letter, source, &declared::Files::of(source_folder), redactor)
        }
        _ => redacted(letter, redactor),
    }
}

/// Bytes of a letter of a built-in source without the personal data that `ESS_PII` takes out.
fn redacted(letter: &StoredLetter, redactor: Option<&Redactor>) -> Vec<u8> {
    let Some(redactor) = redactor else { return letter.payload.clone() };
    let mut payload = Vec::new();
    redactor.redact(&letter.payload, &mut payload);
    payload
}

/// The source of a letter, if a file declares it.
fn declared_source(letter: &StoredLetter) -> Option<Source> {
    // A process that has not read the dictionary yet does not know the source.
    let source = letter.source.and_then(|name| Source::declare(name, "").ok());
    source.filter(|source| !source.is_built_in())
}

/// Events in parts that a frame holds.
fn parts(events: &[Range<usize>]) -> Vec<&[Range<usize>]> {
    let (mut parts, mut from, mut bytes) = (Vec::new(), 0, 0);
    for (index, event) in events.iter().enumerate() {
        if index > from && (index - from == MAX_FRAME_EVENTS || bytes + event.len() > MAX_FRAME_BYTES) {
            parts.push(&events[from..index]);
            (from, bytes) = (index, 0);
        }
        bytes += event.len();
    }
    parts.push(&events[from..]);
    parts
}

/// Validates a letter by today's contract, or converts it by today's source file.
fn validate(
    letter: &StoredLetter,
    redactor: Option<&Redactor>,
    files: &declared::Files<'_>,
) -> Result<Valid, Vec<FieldError>> {
    if !letter.is_whole() {
        let message = "only the beginning of its bytes was kept, so that it cannot be replayed".to_owned();
        return Err(vec![FieldError { path: String::new(), message }]);
    }
    if let Some(source) = declared_source(letter) {
        let Converted { bytes, events, first } = declared::convert(letter, files.find(source)?, redactor)?;
        return Ok(Valid { source, first, bytes, events });
    }
    let bytes = redacted(letter, redactor);
    let valid = decode(&bytes, None)
        .map(|event| (event.source, (event.kind.name().to_owned(), event.id.to_string())))
        .map_err(|refusal| refusal.errors);
    let (source, first) = valid.map_err(|mut errors| {
        if redactor.is_some() {
            redact_errors(&mut errors);
        }
        errors
    })?;
    let whole = 0..bytes.len();
    Ok(Valid { source, first, bytes, events: vec![whole] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_cut_into_parts_that_a_frame_holds() {
        let sizes = |lengths: Vec<usize>| {
            let mut from = 0;
            let place = |length: &usize| {
                from += length;
                from - length..from
            };
            let events: Vec<Range<usize>> = lengths.iter().map(place).collect();
            let parts = parts(&events);
            assert_eq!(parts.concat(), events, "each event once and in order");
            parts.iter().map(|part| part.len()).collect::<Vec<_>>()
        };
        assert_eq!(sizes(vec![1; 2_500]), [1_000, 1_000, 500]);
        assert_eq!(sizes(vec![MAX_FRAME_BYTES / 2; 5]), [2, 2, 1]);
        assert_eq!(sizes(vec![MAX_FRAME_BYTES + 1, 1]), [1, 1]);
        assert_eq!(sizes(vec![7]), [1]);
    }

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
