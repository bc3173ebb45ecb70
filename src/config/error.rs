//! Faults of the configuration.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::env_file::EnvFileError;

/// A fault of one setting. Its text names the setting, what is wrong with its value, and what is allowed.
#[derive(Debug, Clone)]
pub struct ConfigError {
    /// The setting, or the file of settings.
    pub name: String,
    /// The fault.
    pub fault: ConfigFault,
}

/// A fault of a setting's value. No fault quotes a secret.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConfigFault {
    /// The value is not among those that are allowed.
    #[error("`{value}` is not allowed: it must be {allowed}")]
    NotAllowed {
        /// The value.
        value: String,
        /// Description of the values that are allowed.
        allowed: String,
    },
    /// The value of a secret is not among those that are allowed.
    #[error("must {allowed}")]
    SecretNotAllowed {
        /// Description of the values that are allowed.
        allowed: String,
    },
    /// The value contradicts another setting.
    #[error("`{value}` is not allowed: {why}")]
    Conflict {
        /// The value.
        value: String,
        /// The other setting and its value, and why the two exclude each other.
        why: String,
    },
    /// Another setting is set, and needs this one.
    #[error("is not set, but {other} is: set both, or neither")]
    Incomplete {
        /// The other setting.
        other: String,
    },
    /// Another setting gives the same value.
    #[error("{other} is set as well: set one of them")]
    SetTwice {
        /// The other setting.
        other: String,
    },
    /// A list of secrets is malformed.
    #[error(transparent)]
    List(#[from] ListError),
    /// A file of settings is malformed.
    #[error(transparent)]
    EnvFile(#[from] EnvFileError),
    /// A file that the setting names does not exist.
    #[error("the file {} does not exist", .0.display())]
    NoFile(PathBuf),
    /// A file that the setting names is empty.
    #[error("the file {} is empty", .0.display())]
    EmptyFile(PathBuf),
    /// A file that the setting names cannot be read.
    #[error("the file {} cannot be read: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: Arc<std::io::Error>,
    },
}

/// A fault of a list of secrets or tokens.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// An element is empty: an empty token would let in clients that show none.
    #[error("element {0} of the list is empty: remove its comma, or fill it in")]
    Empty(usize),
    /// A name has no token.
    #[error("the token of {0} is empty: write NAME:TOKEN")]
    NoToken(String),
    /// A token holds a character that no HTTP header can carry.
    #[error(
        "{0} has a character that no HTTP header can carry: a token must be of printable ASCII characters"
    )]
    NotAscii(String),
}

impl ConfigError {
    pub(super) fn new(name: &str, fault: impl Into<ConfigFault>) -> Self {
        Self { name: name.to_owned(), fault: fault.into() }
    }

    pub(super) fn not_allowed(name: &str, value: impl Into<String>, allowed: impl Into<String>) -> Self {
        Self::new(name, ConfigFault::NotAllowed { value: value.into(), allowed: allowed.into() })
    }

    pub(super) fn secret_not_allowed(name: &str, allowed: impl Into<String>) -> Self {
        Self::new(name, ConfigFault::SecretNotAllowed { allowed: allowed.into() })
    }

    pub(super) fn conflict(name: &str, value: impl Into<String>, why: impl Into<String>) -> Self {
        Self::new(name, ConfigFault::Conflict { value: value.into(), why: why.into() })
    }

    pub(super) fn file(name: &str, path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::new(name, ConfigFault::File { path: path.into(), source: Arc::new(source) })
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.fault)
    }
}

impl std::error::Error for ConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&self.fault)
    }
}
