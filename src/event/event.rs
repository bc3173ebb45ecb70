//! An event that keeps the contract, and its key.

use std::borrow::Cow;

use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::money::Currency;
use crate::source::{Columns, EventType, Source};

/// An event that keeps the contract. Only [`decode`](super::decode()) and
/// [`decode_canonical`](super::decode_canonical()) make one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event<'a> {
    /// The publisher's id, as sent.
    pub id: Cow<'a, str>,
    /// The event time, in microseconds since 1970.
    pub occurred_at: i64,
    /// The platform that sent it.
    pub source: Source,
    /// The type, and with it the funnel stage.
    pub kind: &'static EventType,
    /// True if its amount is revenue.
    pub is_revenue: bool,
    /// The fields of user and engagement.
    pub columns: Columns<'a>,
    /// The part that no column holds exactly, as a JSON object in the event's own shape: unknown keys, and
    /// known values that are finer than their columns. The whole event as it came, if its source is declared.
    pub rest: Option<Cow<'a, str>>,
}

impl Event<'_> {
    /// The revenue that it makes, in millionths.
    pub fn revenue(&self) -> Option<i64> {
        self.columns.amount.filter(|_| self.is_revenue).map(|amount| amount.0)
    }

    /// The currency of its amount; the default currency if none is told.
    pub fn currency(&self) -> Currency {
        self.columns.currency.unwrap_or_default()
    }

    /// The key by which duplicates are found.
    pub fn key(&self) -> Uuid {
        event_key(self.source, &self.id)
    }
}

/// The key of (source, eventId): the first 16 bytes of SHA-256 over `source`, NUL, `eventId`.
pub fn event_key(source: Source, event_id: &str) -> Uuid {
    let mut hash = Sha256::new_with_prefix(source.name());
    hash.update([0]);
    hash.update(event_id);
    let mut key = [0; 16];
    key.copy_from_slice(&hash.finalize()[..16]);
    Uuid::from_bytes(key)
}
