//! Requests that do not show that they come from their platform.

/// A request that shows no valid signature or token: 401.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unverified(pub String);
