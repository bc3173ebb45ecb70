//! TikTok's signature: `TikTok-Signature: t=<unix>,s=<hex>`, HMAC-SHA256 of `<t>.<body>` under the client secret.

use crate::source::setting::SourceSetting;
use crate::source::signature::{Signature, SignatureError, SignedRequest};

const HEADER: &str = "TikTok-Signature";

/// Largest difference of the signed time from this machine's, in seconds, against replays.
const TOLERANCE: i64 = 300;

pub(super) const SIGNATURE: Signature = Signature {
    header: HEADER,
    setting: SourceSetting {
        name: "ESS_TIKTOK_CLIENT_SECRET",
        default: "",
        about: "TikTok's client secret. If it is set, TikTok-Signature is checked on /webhook/tiktok. Two secrets, comma-separated, while one is rotated.",
    },
    check,
};

fn check(request: &SignedRequest<'_>) -> Result<(), SignatureError> {
    let malformed = |form| SignatureError::Malformed { header: HEADER, form };
    let (mut time, mut signature) = (None, None);
    for part in request.signature.split(',') {
        match part.trim().split_once('=') {
            Some(("t", value)) => time = Some(value),
            Some(("s", value)) => signature = Some(value),
            _ => {}
        }
    }
    let (Some(time), Some(signature)) = (time, signature) else {
        return Err(malformed("must be t=<unix>,s=<hex>"));
    };
    let sent: i64 = time.parse().map_err(|_| malformed("must have a time in seconds since 1970 as t"))?;
    if !request.matches(&[time.as_bytes(), b".", request.body], signature) {
        return Err(SignatureError::Mismatch(HEADER));
    }
    if request.now.saturating_sub(sent).saturating_abs() > TOLERANCE {
        return Err(SignatureError::Expired(HEADER));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    // Made with: printf '1764000000.{"a":1}' | openssl dgst -sha256 -hmac two
    const SIGNED: &str = "t=1764000000,s=cb52d1eb820459e3beb0d4a73708797ac820fcb610bcd59f4357f24555cda3a7";

    fn checked(secrets: &[&[u8]], signature: &str, now: i64) -> Result<(), SignatureError> {
        check(&SignedRequest { secrets, signature, body: b"{\"a\":1}", now })
    }

    #[test]
    fn a_signature_under_any_of_the_secrets_is_accepted_for_five_minutes() {
        for secrets in [&[b"two" as &[u8]] as &[&[u8]], &[b"one", b"two"], &[b"two", b"one"]] {
            assert_eq!(checked(secrets, SIGNED, 1_764_000_299), Ok(()));
        }
        let expired = Err(SignatureError::Expired(HEADER));
        assert_eq!(checked(&[b"two"], SIGNED, 1_764_000_301), expired);
        assert_eq!(checked(&[b"two"], SIGNED, 1_763_999_699), expired);
    }

    #[test]
    fn a_signature_of_another_secret_or_time_or_form_is_refused() {
        let mismatch = Err(SignatureError::Mismatch(HEADER));
        assert_eq!(checked(&[b"one"], SIGNED, 1_764_000_000), mismatch);
        let later = SIGNED.replace("t=1764000000", "t=1764000001");
        assert_eq!(checked(&[b"two"], &later, 1_764_000_000), mismatch);
        for malformed in ["t=1", "s=00", "t=x,s=00", ""] {
            let error = checked(&[b"two"], malformed, 1).expect_err(malformed);
            assert!(matches!(error, SignatureError::Malformed { .. }), "{malformed}: {error}");
        }
        assert_eq!(checked(&[b"two"], "t=1,s=00", 1), mismatch);
    }
}
