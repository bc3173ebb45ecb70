//! What can be wrong with a field.

use serde::{Deserialize, Serialize};

/// What is wrong with one field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct FieldError {
    /// The field's full path, dotted; empty for the event itself.
    pub path: String,
    /// Why it is refused.
    pub message: String,
}
