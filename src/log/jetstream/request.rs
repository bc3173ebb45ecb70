//! Requests to the server: their time limit and their error.

use std::time::Duration;

use crate::log::LogError;

/// Time limit of one request to the server.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// The error of a request that failed.
pub(super) fn unavailable(error: impl std::fmt::Display) -> LogError {
    LogError::Unavailable(error.to_string())
}
