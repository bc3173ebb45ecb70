//! One row of `event_rows`.

use uuid::Uuid;

use crate::event::Event;
use crate::log::Origin;

/// An event that is to be stored, and where it came from.
#[derive(Debug)]
pub struct Row<'a> {
    /// The deduplication key.
    pub key: Uuid,
    /// The event.
    pub event: Event<'a>,
    /// The event as sent, for the case that the database refuses it.
    pub bytes: &'a [u8],
    /// The request that brought it.
    pub origin: &'a Origin,
    /// When the log took it, in microseconds since 1970.
    pub logged_at: i64,
    /// When the collector took it, in microseconds since 1970.
    pub collected_at: i64,
}

/// The columns of `event_rows` that a row fills, in the order in which they are bound, with their
/// PostgreSQL types.
pub(super) const COLUMNS: [(&str, &str); 31] = [
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
pub(super) fn column_names() -> String {
    COLUMNS.map(|(name, _)| name).join(", ")
}
