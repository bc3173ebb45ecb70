//! The providers' signatures, over the bytes on the wire.
//!
//! - Meta: `X-Hub-Signature-256: sha256=<hex>`, HMAC-SHA256 of the body under the app secret.
//! - TikTok: `TikTok-Signature: t=<unix>,s=<hex>`, HMAC-SHA256 of `<t>.<body>` under the client
//!   secret; `t` may be five minutes off, against replays.

use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::config::Secret;

/// How far TikTok's time may be from ours, in seconds.
const TOLERANCE: i64 = 300;

/// Whether one of the secrets signed these parts, end to end. The comparison takes the same time
/// wherever the two differ.
fn signed(secrets: &[Secret], parts: &[&[u8]], signature: &str) -> bool {
    let Ok(signature) = hex::decode(signature) else { return false };
    secrets.iter().fold(false, |found, secret| {
        // HMAC takes keys of any length.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes()) else { return found };
        parts.iter().for_each(|part| mac.update(part));
        found | mac.verify_slice(&signature).is_ok()
    })
}

/// Checks Meta's signature; the error says what is wrong with it.
pub(super) fn facebook(secrets: &[Secret], header: Option<&str>, body: &[u8]) -> Result<(), &'static str> {
    let header = header.ok_or("X-Hub-Signature-256 is missing")?;
    let signature = header.strip_prefix("sha256=").ok_or("X-Hub-Signature-256 must begin with sha256=")?;
    signed(secrets, &[body], signature).then_some(()).ok_or("X-Hub-Signature-256 does not match the body")
}

/// Checks TikTok's signature at the time `now`, in seconds since 1970.
pub(super) fn tiktok(
    secrets: &[Secret],
    header: Option<&str>,
    body: &[u8],
    now: i64,
) -> Result<(), &'static str> {
    let header = header.ok_or("TikTok-Signature is missing")?;
    let (mut time, mut signature) = (None, None);
    for part in header.split(',') {
        match part.trim().split_once('=') {
            Some(("t", value)) => time = Some(value),
            Some(("s", value)) => signature = Some(value),
            _ => {}
        }
    }
    let (Some(time), Some(signature)) = (time, signature) else {
        return Err("TikTok-Signature must be t=<unix>,s=<hex>");
    };
    let sent: i64 = time.parse().map_err(|_| "TikTok-Signature's t is no time")?;
    if !signed(secrets, &[time.as_bytes(), b".", body], signature) {
        return Err("TikTok-Signature does not match the body");
    }
    if now.saturating_sub(sent).saturating_abs() > TOLERANCE {
        return Err("TikTok-Signature is older or newer than five minutes");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Variables};

    fn secrets(text: &str) -> Vec<Secret> {
        let variables = Variables::from_pairs([("ESS_FACEBOOK_APP_SECRET", text)]).unwrap();
        Config::from_variables(&variables).unwrap().facebook_app_secrets
    }

    // Made with: printf '{"a":1}' | openssl dgst -sha256 -hmac two
    const FACEBOOK: &str = "sha256=8fb84cd0f727f5dda4da05cc68cd62200b48578a621f31478ed566c5327a34cf";
    // Made with: printf '1764000000.{"a":1}' | openssl dgst -sha256 -hmac two
    const TIKTOK: &str = "t=1764000000,s=cb52d1eb820459e3beb0d4a73708797ac820fcb610bcd59f4357f24555cda3a7";
    const BODY: &[u8] = br#"{"a":1}"#;

    #[test]
    fn a_signature_under_any_of_the_secrets_is_taken() {
        for keys in ["two", "one,two", "two,one"] {
            assert_eq!(facebook(&secrets(keys), Some(FACEBOOK), BODY), Ok(()));
            assert_eq!(tiktok(&secrets(keys), Some(TIKTOK), BODY, 1_764_000_299), Ok(()));
        }
        assert!(facebook(&secrets("one"), Some(FACEBOOK), BODY).is_err());
        assert!(facebook(&secrets("two"), Some(FACEBOOK), b"{\"a\": 1}").is_err());
        assert!(tiktok(&secrets("two"), Some(TIKTOK), BODY, 1_764_000_301).is_err(), "a replay");
        assert!(
            tiktok(
                &secrets("two"),
                Some(&TIKTOK.replace("t=1764000000", "t=1764000001")),
                BODY,
                1_764_000_000
            )
            .is_err()
        );
    }

    #[test]
    fn what_is_malformed_or_another_s_is_refused() {
        let keys = secrets("one,two");
        assert!(facebook(&keys, None, b"{}").is_err());
        assert!(facebook(&keys, Some("sha1=00"), b"{}").is_err());
        assert!(facebook(&keys, Some("sha256=zz"), b"{}").is_err());
        assert!(facebook(&keys, Some(FACEBOOK), b"{}").is_err());
        assert!(tiktok(&keys, Some("t=1"), b"{}", 1).is_err());
        assert!(tiktok(&keys, Some("t=x,s=00"), b"{}", 1).is_err());
        assert!(tiktok(&keys, Some("t=1,s=00"), b"{}", 1).is_err());
    }
}
