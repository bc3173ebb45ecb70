//! Letters of declared sources: judged by the file of today.

use std::ops::Range;
use std::path::Path;
use std::sync::OnceLock;

use crate::event::{FieldError, Redactor, Source, parse_point_in_time};
use crate::log::Reason;
use crate::source::CanonicalEvent;
use crate::source::declared::{Declared, Outcome, Privacy, RefusedBody, files_of, read_files};
use crate::store::StoredLetter;

/// Maximum errors of a letter whose events are refused again.
const MAX_ERRORS: usize = 100;

/// Canonical events of a letter.
#[derive(Debug, Default)]
pub(super) struct Converted {
    /// The events, end to end.
    pub bytes: Vec<u8>,
    /// Their places.
    pub events: Vec<Range<usize>>,
    /// Type and id of the first event.
    pub first: (String, String),
}

/// Converts a letter of a declared source. A letter that a collector set aside holds a canonical event, one of a filter
/// the whole body, and each other one the event behind the filter.
///
/// # Errors
///
/// The errors of all events of the letter that are refused again.
pub(super) fn convert(
    letter: &StoredLetter,
    file: &Declared,
    redactor: Option<&Redactor>,
) -> Result<Converted, Vec<FieldError>> {
    let privacy = redactor.map(|redactor| redactor as &dyn Privacy);
    let (payload, now) = (&letter.payload, || chrono::Utc::now().timestamp_micros());
    let received = parse_point_in_time(&letter.received_at).unwrap_or_else(now);
    let outcomes = match Reason::parse(&letter.reason) {
        Some(Reason::Filter | Reason::NotJson) => file.events_of_body(payload, received, privacy),
        Some(Reason::Invalid) => file.event(payload, received, privacy).map(|outcome| vec![outcome]),
        Some(Reason::Database | Reason::TooManyDeliveries | Reason::UnreadableFrame) | None => {
            let event = CanonicalEvent::read(payload).map_err(|error| one(error.to_string()))?;
            let received = if event.is_arrival { event.timestamp } else { received };
            file.event(event.raw.as_bytes(), received, privacy).map(|outcome| vec![outcome])
        }
    };
    let outcomes = outcomes.map_err(|refused: RefusedBody| one(refused.to_string()))?;
    let (mut converted, mut errors) = (Converted::default(), Vec::new());
    for outcome in outcomes {
        match outcome {
            Outcome::Refused(refused) => errors.extend(refused.errors),
            Outcome::Event(event) => {
                let from = converted.bytes.len();
                event.write(&mut converted.bytes);
                converted.events.push(from..converted.bytes.len());
                if from == 0 {
                    converted.first = (event.event_type.to_string(), event.id.to_string());
                }
            }
        }
    }
    errors.truncate(MAX_ERRORS);
    match (errors.is_empty(), converted.events.is_empty()) {
        (false, _) => Err(errors),
        (true, true) => Err(one("the source's file makes no event of it".to_owned())),
        (true, false) => Ok(converted),
    }
}

/// Bytes of a letter as they may be shown where personal data is not kept: its event without the places that the file
/// of today names as personal. Nothing of a letter that holds a whole body, or whose source no file declares.
pub(super) fn shown(
    letter: &StoredLetter,
    source: Source,
    files: &Files<'_>,
    redactor: &Redactor,
) -> Vec<u8> {
    // A letter that was refused again may hold anything: its first reason is in its history.
    let holds_event = Reason::parse(&letter.reason) == Some(Reason::Invalid) && letter.history.is_none();
    let Some(file) = files.find(source).ok().filter(|_| holds_event) else { return Vec::new() };
    let now = chrono::Utc::now().timestamp_micros();
    match file.event(&letter.payload, now, Some(redactor as &dyn Privacy)) {
        Ok(Outcome::Event(event)) => event.raw.as_bytes().to_vec(),
        Ok(Outcome::Refused(refused)) => refused.raw.into_bytes(),
        Err(_) => Vec::new(),
    }
}

/// The source files of today, read when the first letter needs one. A file that is wrong declares nothing.
pub(super) struct Files<'a> {
    folder: &'a Path,
    read: OnceLock<Vec<Declared>>,
}

impl<'a> Files<'a> {
    /// The files of a folder.
    pub fn of(folder: &'a Path) -> Self {
        Self { folder, read: OnceLock::new() }
    }

    /// The file of a declared source; the error says that there is none.
    pub fn find(&self, source: Source) -> Result<&Declared, Vec<FieldError>> {
        let files = self.read.get_or_init(|| {
            let files = files_of(self.folder).unwrap_or_default();
            let read = files.iter().filter_map(|file| read_files(std::slice::from_ref(file)).ok());
            read.flatten().map(|(_, file)| file).collect()
        });
        files.iter().find(|file| file.name() == source.name()).ok_or_else(|| {
            let folder = self.folder.display();
            one(format!("no file of ESS_SOURCES ({folder}) declares {source} without a mistake: run \"ess sources lint\""))
        })
    }
}

fn one(message: String) -> Vec<FieldError> {
    vec![FieldError { path: String::new(), message }]
}
