//! The canonical event: the one form that sources of all platforms are brought to.

use std::sync::Arc;

use serde::Serialize;

use crate::json::FieldError;

/// Stage of the funnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Awareness.
    Top,
    /// Action.
    Bottom,
}

/// An event of a declared source, as the log keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CanonicalEvent {
    /// Key of the event within its source, 1 to 128 characters.
    pub id: String,
    /// Event time, in microseconds since 1970.
    pub timestamp: i64,
    /// True if the platform told no time, and the arrival stands for it.
    pub is_arrival: bool,
    /// Name of the source.
    pub source: Arc<str>,
    /// Type of the event, one of the source's.
    pub event_type: Arc<str>,
    /// Stage of the funnel.
    pub stage: Stage,
    /// Id of the user, if it is told.
    pub user: Option<String>,
    /// Optional columns.
    pub columns: Columns,
    /// Amount in millionths of the currency's unit.
    pub amount: Option<i64>,
    /// ISO 4217 code of the amount in upper case, if it is told.
    pub currency: Option<String>,
    /// True if the amount is revenue.
    pub is_revenue: bool,
    /// The event as compact JSON, secrets removed.
    pub raw: String,
}

/// Optional columns of an event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Columns {
    /// Id of the campaign.
    pub campaign: Option<String>,
    /// Id of the ad.
    pub ad: Option<String>,
    /// Country as it was sent.
    pub country: Option<String>,
    /// City as it was sent.
    pub city: Option<String>,
    /// Device.
    pub device: Option<String>,
    /// Browser.
    pub browser: Option<String>,
    /// Age in years, 0 to 150.
    pub age: Option<i16>,
    /// Gender.
    pub gender: Option<String>,
    /// Number of followers.
    pub followers: Option<i64>,
    /// Name of the user.
    pub name: Option<String>,
    /// Place that led to the event.
    pub referrer: Option<String>,
    /// Id of the video.
    pub video: Option<String>,
}

/// An event that is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// All errors, each at its path.
    pub errors: Vec<FieldError>,
    /// The event as compact JSON, secrets removed.
    pub raw: String,
}

/// An event of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// An event to be stored.
    Event(Box<CanonicalEvent>),
    /// An event to be set aside.
    Refused(Refused),
}

/// A body that no events can be made of.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RefusedBody {
    /// The content type is none that the source accepts: 415.
    #[error("{0}")]
    ContentType(String),
    /// The method is none that the source accepts: 405.
    #[error("the source takes no events by {0}")]
    Method(&'static str),
    /// The body is no JSON, or a form that cannot be taken: 400.
    #[error("{0}")]
    Unreadable(String),
    /// The filter failed on the body, or exceeded a bound: the whole is set aside.
    #[error("{0}")]
    Filter(String),
}
