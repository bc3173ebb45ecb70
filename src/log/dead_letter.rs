//! Dead letters: refused events, and accepted events that could not be stored.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

use crate::event::{FieldError, MAX_EVENT_BYTES, Redactor, Refusal, Source};

/// Maximum number of payload bytes that are kept of a body that is not JSON, or of a value larger than an event.
pub const MAX_UNREADABLE_PAYLOAD: usize = 64 * 1024;

/// Reason of a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The event does not match the contract.
    Invalid,
    /// The body is not JSON.
    NotJson,
    /// The filter of a declared source fails on the body, or exceeds a bound: the body is set aside whole.
    Filter,
    /// The database refused its row.
    Database,
    /// Collectors crashed repeatedly while they processed it.
    TooManyDeliveries,
    /// The log has a message that is not a frame.
    UnreadableFrame,
}

impl Reason {
    /// All reasons.
    pub const ALL: [Self; 6] = [
        Self::Invalid,
        Self::NotJson,
        Self::Filter,
        Self::Database,
        Self::TooManyDeliveries,
        Self::UnreadableFrame,
    ];

    /// The name in metrics, queries and the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::NotJson => "not_json",
            Self::Filter => "filter",
            Self::Database => "database",
            Self::TooManyDeliveries => "too_many_deliveries",
            Self::UnreadableFrame => "unreadable_frame",
        }
    }

    /// The reason with this name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text)
    }

    /// True if the gateway refused the event; else it was accepted, and a collector set it aside.
    pub const fn at_gateway(self) -> bool {
        matches!(self, Self::Invalid | Self::NotJson | Self::Filter)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A dead letter, with the data that inspection and replay need.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetter {
    /// Time of receipt, in microseconds since 1970.
    pub received_at: i64,
    /// The event's source if valid, else the source of the address that received it.
    #[serde(with = "source_name")]
    pub source: Option<Source>,
    /// Reason.
    pub reason: Reason,
    /// The event's `eventId`, if readable.
    pub event_id: Option<String>,
    /// Correlation id of its request.
    pub correlation_id: String,
    /// Errors by field.
    pub errors: Vec<FieldError>,
    /// Payload as sent, or its first [`MAX_UNREADABLE_PAYLOAD`] bytes.
    #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
    pub payload: Vec<u8>,
    /// Length of the payload as sent, in bytes.
    pub payload_length: u64,
    /// Number of events; more than 1 only if their bytes are not kept.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub events: u64,
    /// SHA-256 of the payload as sent, or its keyed hash after [`DeadLetter::withhold`].
    #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
    pub payload_sha256: Vec<u8>,
}

impl DeadLetter {
    /// A dead letter with a payload.
    pub fn new(
        received_at: i64,
        correlation_id: &str,
        reason: Reason,
        payload: &[u8],
        refusal: Refusal,
    ) -> Self {
        let kept = match reason {
            Reason::NotJson => payload.len().min(MAX_UNREADABLE_PAYLOAD),
            // No event is this large, so it gets the limit of unreadable bodies.
            _ if payload.len() > MAX_EVENT_BYTES => MAX_UNREADABLE_PAYLOAD,
            _ => payload.len(),
        };
        Self {
            received_at,
            source: refusal.source,
            reason,
            event_id: refusal.event_id.map(|id| id.replace('\0', "\u{fffd}")),
            correlation_id: correlation_id.to_owned(),
            errors: refusal
                .errors
                .into_iter()
                .map(|error| FieldError {
                    path: error.path.replace('\0', "\u{fffd}"),
                    message: error.message,
                })
                .collect(),
            payload: payload[..kept].to_vec(),
            payload_length: payload.len() as u64,
            events: 1,
            payload_sha256: Sha256::digest(payload).to_vec(),
        }
    }
}

impl DeadLetter {
    /// Removes the payload, which may hold personal data, and replaces its hash by a keyed one: a plain hash could be
    /// matched against guessed payloads.
    pub fn withhold(&mut self, redactor: &Redactor) {
        self.payload.clear();
        self.payload_sha256 = redactor.keyed(&self.payload_sha256);
        self.redact_errors();
    }

    /// Replaces the messages of errors in the user's fields, because a message may quote a value.
    pub fn redact_errors(&mut self) {
        redact_errors(&mut self.errors);
    }

    /// A dead letter that counts refused events without their payloads.
    pub fn unkept(
        received_at: i64,
        correlation_id: &str,
        source: Option<Source>,
        reason: Reason,
        events: u64,
        why: &str,
    ) -> Self {
        let message = format!("{events} more events were refused whose bytes are not kept: {why}");
        let errors = vec![FieldError { path: String::new(), message }];
        let refusal = Refusal { source, errors, ..Refusal::default() };
        Self { events, ..Self::new(received_at, correlation_id, reason, b"", refusal) }
    }

    /// Approximate size in memory, in bytes.
    pub fn size(&self) -> usize {
        Self::size_of(self.payload.len(), &self.errors)
    }

    /// Approximate size in memory of a dead letter with these parts, in bytes.
    pub fn size_of(payload: usize, errors: &[FieldError]) -> usize {
        let errors: usize = errors.iter().map(|error| error.path.len() + error.message.len() + 96).sum();
        768 + payload + errors
    }
}

/// Replaces the messages of errors in the user's fields, because a message may quote a value.
pub fn redact_errors(errors: &mut [FieldError]) {
    for error in errors.iter_mut().filter(|error| error.path.starts_with("data.user")) {
        "is not what the contract asks for".clone_into(&mut error.message);
    }
}

const fn one() -> u64 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
const fn is_one(events: &u64) -> bool {
    *events == 1
}

mod source_name {
    use super::{Deserialize, Deserializer, Serializer, Source};

    pub fn serialize<S: Serializer>(source: &Option<Source>, ser: S) -> Result<S::Ok, S::Error> {
        match source {
            Some(source) => ser.serialize_some(source.name()),
            None => ser.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(de: D) -> Result<Option<Source>, D::Error> {
        Ok(Option::<String>::deserialize(de)?.and_then(|name| Source::declare(&name, "").ok()))
    }
}

fn to_base64<S: Serializer>(bytes: &[u8], ser: S) -> Result<S::Ok, S::Error> {
    ser.serialize_str(&STANDARD.encode(bytes))
}

fn from_base64<'de, D: Deserializer<'de>>(de: D) -> Result<Vec<u8>, D::Error> {
    STANDARD.decode(String::deserialize(de)?).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_letter_survives_serialization() {
        let refusal =
            Refusal { event_id: Some("a\0b".to_owned()), source: Some(Source::TIKTOK), ..Refusal::default() };
        let letter = DeadLetter::new(7, "c", Reason::Invalid, b"\xff\x00{}", refusal);
        let read: DeadLetter = serde_json::from_str(&serde_json::to_string(&letter).unwrap()).unwrap();
        assert_eq!(read, letter);
        assert_eq!(read.event_id.as_deref(), Some("a\u{fffd}b"));
        let letter = DeadLetter::unkept(7, "c", None, Reason::Invalid, 12, "no room");
        let read: DeadLetter = serde_json::from_str(&serde_json::to_string(&letter).unwrap()).unwrap();
        assert_eq!((&read, read.events), (&letter, 12));
    }

    #[test]
    fn only_the_start_of_a_body_that_is_not_json_is_kept() {
        let body = vec![b'x'; 100_000];
        let letter = DeadLetter::new(7, "c", Reason::NotJson, &body, Refusal::default());
        assert_eq!((letter.payload.len(), letter.payload_length), (65_536, 100_000));
        assert_eq!(letter.payload_sha256, Sha256::digest(&body).to_vec());
    }
}
