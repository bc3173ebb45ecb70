//! A refused event on its way to where it is kept.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

use crate::event::{FieldError, MAX_EVENT_BYTES, Redactor, Refusal, Source};

/// Of a body that is no JSON, or of something that is larger than an event, so many bytes are kept.
pub const MAX_UNREADABLE_PAYLOAD: usize = 64 * 1024;

/// Why an event was set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// It breaks the contract.
    Invalid,
    /// The body is no JSON.
    NotJson,
    /// The database refused its row.
    Database,
    /// Collectors ended again and again while they had it.
    TooManyDeliveries,
    /// The log held something that is no frame.
    UnreadableFrame,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 5] =
        [Self::Invalid, Self::NotJson, Self::Database, Self::TooManyDeliveries, Self::UnreadableFrame];

    /// The reason as a label and in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::NotJson => "not_json",
            Self::Database => "database",
            Self::TooManyDeliveries => "too_many_deliveries",
            Self::UnreadableFrame => "unreadable_frame",
        }
    }

    /// The reason that is written so.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text)
    }

    /// Whether the gateway refused it; the others were accepted and set aside by a collector.
    pub const fn at_gateway(self) -> bool {
        matches!(self, Self::Invalid | Self::NotJson)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An event that was set aside, with all that is needed to look at it and to send it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetter {
    /// When it was received, in microseconds since 1970.
    pub received_at: i64,
    /// Its source, where that was valid; else the one whose own address it came to.
    #[serde(with = "source_name")]
    pub source: Option<Source>,
    /// Why it was set aside.
    pub reason: Reason,
    /// Its eventId, where that could be read.
    pub event_id: Option<String>,
    /// The request it came with.
    pub correlation_id: String,
    /// What is wrong with it, by field.
    pub errors: Vec<FieldError>,
    /// Its bytes as sent; the beginning of them if they are no JSON.
    #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
    pub payload: Vec<u8>,
    /// How many bytes were sent.
    pub payload_length: u64,
    /// Number of events that it stands for: over 1 where their bytes are not kept.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub events: u64,
    /// SHA-256 of all bytes that were sent.
    #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
    pub payload_sha256: Vec<u8>,
}

impl DeadLetter {
    /// A letter for bytes of a request.
    pub fn new(
        received_at: i64,
        correlation_id: &str,
        reason: Reason,
        payload: &[u8],
        refusal: Refusal,
    ) -> Self {
        let kept = match reason {
            Reason::NotJson => payload.len().min(MAX_UNREADABLE_PAYLOAD),
            // Larger than any event: the same is kept of it.
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
    /// Takes all bytes out, for they could tell of a person; their digest can be tried only by who has the key.
    pub fn withhold(&mut self, redactor: &Redactor) {
        self.payload.clear();
        self.payload_sha256 = redactor.keyed(&self.payload_sha256);
        self.redact_errors();
    }

    /// Takes out what errors say of the user's fields: a message may say what it found.
    pub fn redact_errors(&mut self) {
        for error in self.errors.iter_mut().filter(|error| error.path.starts_with("data.user")) {
            "is not what the contract asks for".clone_into(&mut error.message);
        }
    }

    /// A letter for refused events whose bytes are not kept: their number, and the reason.
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

    /// About how many bytes it takes in memory.
    pub fn size(&self) -> usize {
        Self::size_of(self.payload.len(), &self.errors)
    }

    /// About how many bytes a letter of these parts takes in memory.
    pub fn size_of(payload: usize, errors: &[FieldError]) -> usize {
        let errors: usize = errors.iter().map(|error| error.path.len() + error.message.len() + 96).sum();
        768 + payload + errors
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
        Ok(Option::<String>::deserialize(de)?.and_then(|name| Source::parse(&name)))
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
    fn a_letter_comes_back_as_it_was_sent() {
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
    fn of_a_body_that_is_no_json_the_beginning_is_kept() {
        let body = vec![b'x'; 100_000];
        let letter = DeadLetter::new(7, "c", Reason::NotJson, &body, Refusal::default());
        assert_eq!((letter.payload.len(), letter.payload_length), (65_536, 100_000));
        assert_eq!(letter.payload_sha256, Sha256::digest(&body).to_vec());
    }
}
