//! The refusal of an event.

use crate::json::FieldError;
use crate::source::Source;

/// The refusal of an event that breaks the contract.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refusal {
    /// The eventId, where it could be read.
    pub event_id: Option<String>,
    /// The source, where it is valid.
    pub source: Option<Source>,
    /// Every error, each at its own path, up to 100 and 8 KiB of them; never empty.
    pub errors: Vec<FieldError>,
    /// True if there are more errors than these; then the last one says so.
    pub truncated: bool,
}
