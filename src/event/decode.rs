//! From bytes to an event, or to every error in them.
//!
//! Two passes: a fast one for an event with every field as declared and nothing else, and a thorough one, which goes on
//! after an error and keeps unknown keys, for all others.

use std::borrow::Cow;
use std::cell::RefCell;

use garde::Validate;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::envelope::Envelope;
use super::rest::rest;
use super::{Event, MAX_EVENT_BYTES, Refusal};
use crate::json::FieldError;
use crate::json::lenient::Notes;
use crate::json::object::object;
use crate::source::{Reading, Source};

/// The longest eventId, 128 characters, in bytes.
const MAX_ID_BYTES: usize = 128 * 4;

/// Validates one event: `bytes` is one JSON value.
///
/// `only` is the source whose own path the event came to: another one is an error at `source`.
///
/// # Errors
///
/// If the event breaks the contract, with every error at its own path.
pub fn decode(bytes: &[u8], only: Option<Source>) -> Result<Event<'_>, Refusal> {
    match read_fast(bytes, only) {
        Some(event) => Ok(event),
        None => read_thoroughly(bytes, only),
    }
}

/// The fast pass. It borrows from the bytes, and gives up at anything that is not as declared.
fn read_fast<'a>(bytes: &'a [u8], only: Option<Source>) -> Option<Event<'a>> {
    if bytes.len() > MAX_EVENT_BYTES {
        return None;
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let envelope: Envelope<'a> = object(&mut json).ok()?;
    json.end().ok()?;
    envelope.validate().ok()?;
    if only.is_some() && only != envelope.source {
        return None;
    }
    let mut reading = Reading::new(None);
    envelope.read_data(&mut reading);
    let event = envelope.event(&mut reading)?;
    (!reading.failed && reading.inexact.is_empty()).then_some(event)
}

/// The thorough pass: field by field, to the end.
fn read_thoroughly(bytes: &[u8], only: Option<Source>) -> Result<Event<'_>, Refusal> {
    let refuse = |path: &str, message: String| Refusal {
        errors: vec![FieldError { path: path.to_owned(), message }],
        ..Refusal::default()
    };
    let raw: &RawValue =
        serde_json::from_slice(bytes).map_err(|error| refuse("", format!("is no JSON: {error}")))?;
    if bytes.len() > MAX_EVENT_BYTES {
        let (event_id, source) = identify(raw);
        return Err(Refusal {
            event_id,
            source,
            ..refuse("", format!("is larger than {MAX_EVENT_BYTES} bytes"))
        });
    }
    let mut reading = Reading::new(Some(RefCell::default()));
    let envelope: Option<Envelope<'_>> = reading.read(raw, &[]);
    let (mut event_id, mut source) = (None, None);
    let mut event = None;
    if let Some(envelope) = envelope {
        event_id =
            envelope.event_id.as_ref().filter(|id| id.len() <= MAX_ID_BYTES).map(|id| id.0.to_string());
        source = envelope.source;
        if let (Some(only), Some(notes)) = (only, &reading.notes)
            && source.is_some_and(|source| source != only)
        {
            let message = format!("must be {only} at this address");
            notes.borrow_mut().error("source", message);
        }
        envelope.read_data(&mut reading);
        event = envelope.event(&mut reading);
    }
    let Notes { errors, truncated, unknown, .. } =
        reading.notes.take().map(RefCell::into_inner).unwrap_or_default();
    match event {
        Some(mut event) if errors.is_empty() && !reading.failed => {
            event.rest = rest(raw, unknown, &reading.inexact).map(Cow::Owned);
            Ok(event)
        }
        _ if errors.is_empty() => {
            Err(Refusal { event_id, source, ..refuse("", "could not be read".to_owned()) })
        }
        _ => Err(Refusal { event_id, source, errors, truncated }),
    }
}

/// The id and the source of an event that is too large to be read, where they can be read.
fn identify(raw: &RawValue) -> (Option<String>, Option<Source>) {
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase")]
    struct Identity<'a> {
        #[serde(borrow, default)]
        event_id: Option<&'a RawValue>,
        #[serde(borrow, default)]
        source: Option<&'a RawValue>,
    }
    let mut json = serde_json::Deserializer::from_str(raw.get());
    let Identity { event_id, source } = object(&mut json).unwrap_or_default();
    let text = |value: Option<&RawValue>, most: usize| {
        let value = value.filter(|value| value.get().len() <= most)?;
        serde_json::from_str::<String>(value.get()).ok()
    };
    (
        text(event_id, 6 * MAX_ID_BYTES).filter(|id| id.len() <= MAX_ID_BYTES),
        text(source, MAX_ID_BYTES).and_then(|name| Source::parse(&name)),
    )
}

#[cfg(test)]
mod tests;
