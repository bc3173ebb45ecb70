//! Requests to the server: their time limit and their error.

use std::error::Error;
use std::time::Duration;

use crate::log::{AppendError, Cause, LogError};

/// Time limit of one request to the server.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// The error of a request that failed.
pub(super) fn unavailable(cause: impl Into<Box<dyn Error + Send + Sync>>) -> LogError {
    LogError::Unavailable(Cause::of(cause))
}

/// The error of a frame without an answer.
pub(super) fn not_appended(cause: impl Into<Box<dyn Error + Send + Sync>>) -> AppendError {
    AppendError::Unavailable(Cause::of(cause))
}
