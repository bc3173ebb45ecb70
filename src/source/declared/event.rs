//! Results of a body: events, refused events, or a body that is refused whole.

use crate::json::FieldError;
use crate::source::CanonicalEvent;

/// An event that is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The event's id, if it can be read.
    pub id: Option<String>,
    /// All errors, each at its path.
    pub errors: Vec<FieldError>,
    /// The event as compact JSON, secrets removed; empty if nothing of it may be kept.
    pub raw: String,
}

/// An event of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// An event to be stored.
    Event(Box<CanonicalEvent<'a>>),
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
    #[error("{message}")]
    Filter {
        /// The filter's own message, or the bound.
        message: String,
        /// The body as compact JSON, secrets removed; empty where personal data is not kept.
        body: String,
    },
}
