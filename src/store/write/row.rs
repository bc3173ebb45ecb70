//! One row of `event_rows`, and its columns.

use uuid::Uuid;

use crate::event::Event;
use crate::log::Origin;
use crate::sketch::{UserHash, user_hash};

/// An event to be stored, with its origin.
#[derive(Debug)]
pub struct Row<'a> {
    /// Deduplication key: a hash of source and eventId.
    pub key: Uuid,
    /// Hash of its user id, by which users are counted.
    pub user: UserHash,
    /// The event.
    pub event: Event<'a>,
    /// Bytes of the event as sent, for its dead letter if the database refuses the row.
    pub bytes: &'a [u8],
    /// The request that brought it.
    pub origin: &'a Origin,
    /// Instant at which the log took it, in microseconds since 1970.
    pub logged_at: i64,
    /// Instant at which the collector took it, in microseconds since 1970.
    pub collected_at: i64,
}

impl<'a> Row<'a> {
    /// Makes a row, and computes its key and the hash of its user while its bytes are in the processor's cache.
    pub fn new(
        event: Event<'a>,
        bytes: &'a [u8],
        origin: &'a Origin,
        logged_at: i64,
        collected_at: i64,
    ) -> Self {
        let (key, user) = (event.key(), user_hash(&event.columns.user_id));
        Self { key, user, event, bytes, origin, logged_at, collected_at }
    }
}

/// A receiver of a row's columns, such as an encoder, in the order of [`COLUMNS`].
pub(in crate::store) trait Columns<'r>: Sized {
    /// The deduplication key.
    fn key(self, key: Uuid) -> Self;
    /// Microseconds since 1970.
    fn time(self, micros: Option<i64>) -> Self;
    /// A large number.
    fn int8(self, value: Option<i64>) -> Self;
    /// A small number, or the code of an enum's value.
    fn int2(self, value: Option<i16>) -> Self;
    /// A text.
    fn text(self, value: Option<&'r str>) -> Self;
}

impl Row<'_> {
    /// Passes the row's values, in the order of [`COLUMNS`].
    pub(in crate::store) fn columns<'r, C: Columns<'r>>(&'r self, to: C) -> C {
        let (event, columns) = (&self.event, &self.event.columns);
        to.key(self.key)
            .time(Some(event.occurred_at))
            .time(Some(self.origin.accepted_at))
            .time(Some(self.logged_at))
            .time(Some(self.collected_at))
            .time(columns.action_time)
            .int8(columns.amount.map(|amount| amount.0))
            .int8(event.revenue())
            .int8(columns.followers)
            .int8(columns.watch_time)
            .int8(columns.percentage_watched)
            .int2(Some(event.source.code()))
            .int2(Some(event.kind.stage.code()))
            .int2(Some(event.kind.code()))
            .int2(columns.age)
            .int2(columns.gender)
            .int2(columns.referrer)
            .int2(columns.click_position)
            .int2(columns.device)
            .int2(columns.browser)
            .int2(Some(event.currency().number()))
            .text(Some(&event.id))
            .text(Some(&columns.user_id))
            .text(columns.user_name.as_deref())
            .text(columns.country.as_deref())
            .text(columns.city.as_deref())
            .text(columns.video_id.as_deref())
            .text(columns.ad_id.as_deref())
            .text(columns.campaign_id.as_deref())
            .text(columns.profile_id.as_deref())
            .text(columns.purchased_item.as_deref())
            .text(event.rest.as_deref())
    }
}

/// Columns of `event_rows` that a row fills, with their PostgreSQL types.
pub(in crate::store) const COLUMNS: [(&str, &str); 32] = [
    ("key", "uuid"),
    ("occurred_at", "timestamptz"),
    ("accepted_at", "timestamptz"),
    ("logged_at", "timestamptz"),
    ("collected_at", "timestamptz"),
    ("action_time", "timestamptz"),
    ("amount", "int8"),
    ("revenue", "int8"),
    ("followers", "int8"),
    ("watch_time", "int8"),
    ("percentage_watched", "int8"),
    ("source", "int2"),
    ("funnel_stage", "int2"),
    ("event_type", "int2"),
    ("age", "int2"),
    ("gender", "int2"),
    ("referrer", "int2"),
    ("click_position", "int2"),
    ("device", "int2"),
    ("browser", "int2"),
    ("currency", "int2"),
    ("event_id", "text"),
    ("user_id", "text"),
    ("user_name", "text"),
    ("country", "text"),
    ("city", "text"),
    ("video_id", "text"),
    ("ad_id", "text"),
    ("campaign_id", "text"),
    ("profile_id", "text"),
    ("purchased_item", "text"),
    ("rest", "text"),
];

/// The names of the columns, comma-separated.
pub(in crate::store) fn column_names() -> String {
    COLUMNS.map(|(name, _)| name).join(", ")
}
