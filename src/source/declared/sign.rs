//! Signing of requests as their platform does: the inverse of the check.

use base64::Engine;

use super::draft::{Draft, encoded};
use super::file::Declared;
use super::hmac_key::BASE64;
use super::json;
use super::request::pairs;
use super::secrets::{SecretName, Secrets};
use super::unsigned::Unsigned;
use super::value::Value;
use super::verify::Check;

impl Declared {
    /// Makes a request show that it comes from the platform, at a time in seconds since 1970. Without `verify` it stays as
    /// it is.
    ///
    /// # Errors
    ///
    /// If the secret is missing or malformed.
    pub fn sign(&self, draft: &mut Draft, secrets: &Secrets, now: i64) -> Result<(), Unsigned> {
        self.check.as_ref().map_or(Ok(()), |check| check.sign(draft, secrets, now))
    }

    /// Variable of the secret that requests show; `None` without `verify`.
    pub fn signing_secret(&self) -> Option<&SecretName> {
        self.check.as_ref().map(Check::secret)
    }
}

impl Check {
    fn sign(&self, draft: &mut Draft, secrets: &Secrets, now: i64) -> Result<(), Unsigned> {
        let name = self.secret();
        let secret = secrets.of(name).first().ok_or_else(|| Unsigned::NoSecret(name.clone()))?.expose();
        match self {
            Self::Hmac(signature) => signature.sign(draft, secrets, now)?,
            Self::JsonField(at, _) => {
                let no_place = || Unsigned::NoPlace(at.to_string());
                let mut body = json::parse(&draft.body).map_err(|_| no_place())?;
                if !at.put(&mut body, Value::text(secret)) {
                    return Err(no_place());
                }
                draft.body = body.to_json().into_bytes();
            }
            Self::Basic(_) => draft.set_header("Authorization", format!("Basic {}", BASE64.encode(secret))),
            Self::Bearer(_) => draft.set_header("Authorization", format!("Bearer {secret}")),
            Self::Header(name, _) => draft.set_header(name, secret.to_owned()),
            Self::Query(parameter, _) => {
                let mut all: Vec<_> = pairs(&draft.query).filter(|(name, _)| name != parameter).collect();
                all.push((parameter.clone(), secret.to_owned()));
                draft.query = encoded(&all);
            }
        }
        Ok(())
    }

    /// True for a header that signing makes anew.
    pub(super) fn makes_header(&self, name: &str) -> bool {
        match self {
            Self::Hmac(signature) => signature.makes_header(name),
            Self::Header(header, _) => header.eq_ignore_ascii_case(name),
            Self::Basic(_) | Self::Bearer(_) => name.eq_ignore_ascii_case("authorization"),
            Self::JsonField(..) | Self::Query(..) => false,
        }
    }
}
