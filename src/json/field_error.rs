//! A fault of one field of an event.

use serde::{Deserialize, Serialize};

/// A fault of one field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct FieldError {
    /// The field's full path, dotted; empty for the event itself.
    pub path: String,
    /// Why it is refused.
    pub message: String,
}
