//! Why an event is refused.

use super::field_error::FieldError;
use super::source::Source;

/// An event that breaks the contract: all that is wrong with it, and what could be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refusal {
    /// The eventId, where it could be read.
    pub event_id: Option<String>,
    /// The source, where it is one.
    pub source: Option<Source>,
    /// Every error, each at its own path, up to 100 and 8 KiB of them; never empty.
    pub errors: Vec<FieldError>,
    /// True if there are more errors than these; the last of them says so too.
    pub truncated: bool,
}
