//! Checks that a request comes from its platform, over the bytes on the wire and in constant time.

use base64::Engine;

use super::hmac_key::{BASE64, is_secret};
use super::json;
use super::pointer::Pointer;
use super::reader::{Faults, Fields, pointer};
use super::request::Request;
use super::secrets::{SecretName, Secrets, secret};
use super::signature::Signature;
use super::unverified::Unverified;
use super::value::Value;
use super::yaml::Node;

/// Part of a request that a check is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// Nothing of the file's own: `ESS_WEBHOOK_TOKEN`, if that is set.
    Token,
    /// Headers and query.
    Head,
    /// The body as it is on the wire.
    Wire,
    /// The body, decompressed.
    Body,
}

/// The check of a source.
#[derive(Debug, Clone)]
pub(super) enum Check {
    Hmac(Box<Signature>),
    /// A secret in the body, at a pointer.
    JsonField(Pointer, SecretName),
    /// `Authorization: Basic`; the variable holds `user:password`.
    Basic(SecretName),
    /// `Authorization: Bearer`.
    Bearer(SecretName),
    /// A header that holds the secret alone, or after `Bearer `.
    Header(String, SecretName),
    /// A parameter of the query.
    Query(String, SecretName),
}

const KINDS: &[&str] = &["hmac", "json_field", "basic", "bearer", "header", "query"];

impl Check {
    /// Reads `verify`.
    pub fn read(node: &Node, faults: &mut Faults<'_>) -> Option<Self> {
        let fields = Fields::read(node, "verify", KINDS, faults)?;
        let mut kinds = fields.entries().filter(|(key, _)| KINDS.contains(&key.text.as_str()));
        let Some((kind, node)) = kinds.next() else {
            faults.add(node.place, format!("verify has exactly one of {}", KINDS.join(", ")));
            return None;
        };
        if let Some((other, _)) = kinds.next() {
            faults.add(
                other.place,
                format!("verify has exactly one check, and `{}` is a second one", other.text),
            );
        }
        match kind.text.as_str() {
            "hmac" => Signature::read(node, faults).map(|signature| Self::Hmac(Box::new(signature))),
            "json_field" => {
                let fields = Fields::read(node, "json_field", &["at", "secret"], faults)?;
                let at = fields.required("at", faults).and_then(|node| pointer(node, faults));
                let secret = secret(&fields, faults);
                Some(Self::JsonField(at?, secret?))
            }
            "basic" => Some(Self::Basic(secret(&Fields::read(node, "basic", &["secret"], faults)?, faults)?)),
            "bearer" => {
                Some(Self::Bearer(secret(&Fields::read(node, "bearer", &["secret"], faults)?, faults)?))
            }
            "header" => {
                let fields = Fields::read(node, "header", &["name", "secret"], faults)?;
                let (name, secret) = (fields.text("name", faults), secret(&fields, faults));
                Some(Self::Header(name?, secret?))
            }
            _ => {
                let fields = Fields::read(node, "query", &["parameter", "secret"], faults)?;
                let (parameter, secret) = (fields.text("parameter", faults), secret(&fields, faults));
                Some(Self::Query(parameter?, secret?))
            }
        }
    }

    /// The secret that the check asks for.
    pub fn secret(&self) -> &SecretName {
        match self {
            Self::Hmac(signature) => &signature.secret,
            Self::JsonField(_, secret)
            | Self::Basic(secret)
            | Self::Bearer(secret)
            | Self::Header(_, secret)
            | Self::Query(_, secret) => secret,
        }
    }

    /// True for a header that carries the check's secret or signature: filters never see it.
    pub fn uses_header(&self, name: &str) -> bool {
        match self {
            Self::Hmac(signature) => signature.headers.iter().any(|header| header.eq_ignore_ascii_case(name)),
            Self::Header(header, _) => header.eq_ignore_ascii_case(name),
            _ => false,
        }
    }

    /// Checks what the head of a request shows, before its body is there.
    pub fn check_head(&self, request: &Request<'_>, secrets: &Secrets) -> Result<(), Unverified> {
        match self {
            Self::Hmac(signature) => signature.shown(request).map(drop),
            Self::JsonField(..) => Ok(()),
            _ => self.check(request, secrets),
        }
    }

    /// The bytes that the check is over.
    pub fn subject(&self) -> Subject {
        match self {
            Self::Hmac(_) => Subject::Wire,
            Self::JsonField(..) => Subject::Body,
            _ => Subject::Head,
        }
    }

    pub fn check(&self, request: &Request<'_>, secrets: &Secrets) -> Result<(), Unverified> {
        let shown = match self {
            Self::Hmac(signature) => return signature.check(request, secrets),
            Self::JsonField(at, _) => {
                let body = json::parse(request.body)
                    .map_err(|error| Unverified(format!("the body is no JSON: {error}")))?;
                at.find(&body).and_then(|value| match value {
                    Value::Text(text) => Some(text.as_bytes().to_vec()),
                    Value::Int(_) | Value::Number(_) => Some(value.to_json().into_bytes()),
                    _ => None,
                })
            }
            Self::Basic(_) => authorization(request, "Basic").and_then(|shown| BASE64.decode(shown).ok()),
            Self::Bearer(_) => authorization(request, "Bearer").map(|shown| shown.as_bytes().to_vec()),
            Self::Header(name, _) => request
                .header(name)
                .map(|shown| shown.strip_prefix("Bearer ").unwrap_or(shown).trim().as_bytes().to_vec()),
            Self::Query(name, _) => request.parameter(name).map(String::into_bytes),
        };
        let shown = shown.ok_or_else(|| Unverified(format!("{} is missing", self.place())))?;
        // All secrets are compared, so that the time does not tell which of them it is.
        let known = secrets
            .of(self.secret())
            .iter()
            .fold(false, |found, secret| found | is_secret(secret.expose(), &shown));
        known.then_some(()).ok_or_else(|| Unverified(format!("{} is another than the secret", self.place())))
    }

    /// Words for the secret's place in messages.
    fn place(&self) -> String {
        match self {
            Self::Hmac(signature) => signature.name(),
            Self::JsonField(at, _) => format!("the body's {at}"),
            Self::Basic(_) => "Authorization: Basic".to_owned(),
            Self::Bearer(_) => "Authorization: Bearer".to_owned(),
            Self::Header(name, _) => name.clone(),
            Self::Query(name, _) => format!("the parameter {name}"),
        }
    }
}

/// The rest of `Authorization` behind its scheme, which is matched without regard to case.
fn authorization<'r>(request: &'r Request<'_>, scheme: &str) -> Option<&'r str> {
    let (found, shown) = request.header("authorization")?.trim().split_once(' ')?;
    found.eq_ignore_ascii_case(scheme).then_some(shown.trim())
}
