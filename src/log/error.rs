//! Errors of the log, by the reaction that a caller needs.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

/// The error below an error of the log, or a sentence where there is none. Every request of a frame gets a clone.
#[derive(Clone)]
pub struct Cause(Arc<dyn Error + Send + Sync>);

impl Cause {
    /// The cause that an error or a sentence is.
    pub fn of(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(Arc::from(cause.into()))
    }
}

impl From<String> for Cause {
    fn from(sentence: String) -> Self {
        Self::of(sentence)
    }
}

impl From<&str> for Cause {
    fn from(sentence: &str) -> Self {
        Self::of(sentence)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Error for Cause {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

impl PartialEq for Cause {
    /// True if both have the same text: errors of libraries cannot be compared.
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

impl Eq for Cause {}

/// Error of an append.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The topic is full, in the server's words. The frame is not in the log.
    #[error("the log is full: {0}")]
    Full(String),
    /// The log does not accept this frame. It is not in the log.
    #[error("the log refused the frame: {0}")]
    Refused(#[source] Cause),
    /// No answer: the frame may be in the log or not.
    #[error("the log did not answer: {0}")]
    Unavailable(#[source] Cause),
}

/// Error of the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// The log cannot be reached, or has a temporary fault: try again.
    #[error("the log is away: {0}")]
    Unavailable(#[source] Cause),
    /// The log is set up in a way that this process cannot use or change. The sentence tells an operator what to do.
    #[error("{0}")]
    Misconfigured(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_keeps_the_errors_below_it() {
        let below = std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer");
        let error = LogError::Unavailable(Cause::of(below));
        assert_eq!(error.to_string(), "the log is away: no answer");
        let source = error.source().unwrap();
        assert_eq!(source.to_string(), "no answer");
        assert_eq!(error, LogError::Unavailable("no answer".into()));
        assert_ne!(error, LogError::Unavailable("another answer".into()));
    }
}
