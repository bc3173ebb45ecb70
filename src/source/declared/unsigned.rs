//! Requests that cannot be signed.

use super::secrets::SecretName;
use super::unverified::Unverified;

/// Reason that a request cannot be signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unsigned {
    /// The variable of the secret is not set.
    #[error("the secret {} is not set", .0.as_str())]
    NoSecret(SecretName),
    /// The secret is not in the form that the file tells.
    #[error("the secret {} is no key in base64", .0.as_str())]
    MalformedSecret(SecretName),
    /// The body has no place for a secret.
    #[error("the body has no place for the secret at {0}")]
    NoPlace(String),
    /// A part that is signed is missing.
    #[error(transparent)]
    MissingPart(#[from] Unverified),
}
