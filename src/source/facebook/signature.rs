//! Meta's signature: `X-Hub-Signature-256: sha256=<hex>`, HMAC-SHA256 of the body under the app secret.

use crate::source::setting::SourceSetting;
use crate::source::signature::{Signature, SignatureError, SignedRequest};

const HEADER: &str = "X-Hub-Signature-256";

pub(super) const SIGNATURE: Signature = Signature {
    header: HEADER,
    setting: SourceSetting {
        name: "ESS_FACEBOOK_APP_SECRET",
        default: "",
        about: "Meta's app secret. If it is set, X-Hub-Signature-256 is checked on /webhook/facebook. Two secrets, comma-separated, while one is rotated.",
    },
    check,
};

fn check(request: &SignedRequest<'_>) -> Result<(), SignatureError> {
    let signature = request
        .signature
        .strip_prefix("sha256=")
        .ok_or(SignatureError::Malformed { header: HEADER, form: "must begin with sha256=" })?;
    if request.matches(&[request.body], signature) { Ok(()) } else { Err(SignatureError::Mismatch(HEADER)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Made with: printf '{"a":1}' | openssl dgst -sha256 -hmac two
    const SIGNED: &str = "sha256=8fb84cd0f727f5dda4da05cc68cd62200b48578a621f31478ed566c5327a34cf";

    fn checked(secrets: &[&[u8]], signature: &str, body: &[u8]) -> Result<(), SignatureError> {
        check(&SignedRequest { secrets, signature, body, now: 0 })
    }

    #[test]
    fn a_signature_under_any_of_the_secrets_is_accepted() {
        for secrets in [&[b"two" as &[u8]] as &[&[u8]], &[b"one", b"two"], &[b"two", b"one"]] {
            assert_eq!(checked(secrets, SIGNED, b"{\"a\":1}"), Ok(()));
        }
    }

    #[test]
    fn a_signature_of_another_secret_or_body_or_form_is_refused() {
        let mismatch = Err(SignatureError::Mismatch(HEADER));
        assert_eq!(checked(&[b"one"], SIGNED, b"{\"a\":1}"), mismatch);
        assert_eq!(checked(&[b"two"], SIGNED, b"{\"a\": 1}"), mismatch);
        assert_eq!(checked(&[b"two"], "sha256=zz", b"{\"a\":1}"), mismatch);
        assert!(matches!(checked(&[b"two"], "sha1=00", b"{}"), Err(SignatureError::Malformed { .. })));
    }
}
