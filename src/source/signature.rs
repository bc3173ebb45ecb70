//! Signatures of webhook requests: HMAC-SHA256 over the bytes on the wire.

use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::setting::SourceSetting;

/// A platform's signature, described.
#[derive(Debug, Clone, Copy)]
pub struct Signature {
    /// The header that carries it.
    pub header: &'static str,
    /// The secrets, several while one is rotated. Unset: requests are not signed.
    pub setting: SourceSetting,
    /// Checks the header's value.
    pub check: fn(&SignedRequest<'_>) -> Result<(), SignatureError>,
}

/// A request whose signature is to be checked.
#[derive(Clone, Copy)]
pub struct SignedRequest<'a> {
    /// The secrets, any of which may have signed.
    pub secrets: &'a [&'a [u8]],
    /// The value of the signature's header.
    pub signature: &'a str,
    /// The body as it is on the wire.
    pub body: &'a [u8],
    /// The time of this machine, in seconds since 1970.
    pub now: i64,
}

/// The reason that a signature is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The request has no such header.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// The header's value does not have the platform's form.
    #[error("{header} {form}")]
    Malformed {
        /// The header.
        header: &'static str,
        /// The form that is asked for.
        form: &'static str,
    },
    /// None of the secrets makes this signature of this body.
    #[error("{0} does not match the body")]
    Mismatch(&'static str),
    /// The signed time is too far from this machine's, which may be a replay.
    #[error("{0} is older or newer than five minutes")]
    Expired(&'static str),
}

impl SignedRequest<'_> {
    /// True if one of the secrets signed these parts, one after the other. The comparison takes the same time wherever
    /// the two differ.
    pub(super) fn matches(&self, parts: &[&[u8]], hex_signature: &str) -> bool {
        let Ok(signature) = hex::decode(hex_signature) else { return false };
        self.secrets.iter().fold(false, |found, secret| {
            // HMAC takes keys of any length.
            let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret) else { return found };
            parts.iter().for_each(|part| mac.update(part));
            found | mac.verify_slice(&signature).is_ok()
        })
    }
}
