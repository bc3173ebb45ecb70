//! Handshakes: a platform asks whether the receiver is the one that it was told of.

use super::hmac_key::{Encoding, Hash, is_secret};
use super::reader::{Faults, Fields, text, word};
use super::request::{Method, Request};
use super::secrets::{SecretName, Secrets, secret};
use super::signature::ENCODINGS;
use super::template::{Part, Template};
use super::value::{Members, Value};
use super::yaml::Node;

/// The answer to a challenge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status: 200, or 403 for another token.
    pub status: u16,
    /// Content type of the body.
    pub content_type: &'static str,
    /// The body.
    pub body: String,
}

/// The challenge of a source.
#[derive(Debug, Clone)]
pub(super) enum Challenge {
    /// A parameter that is sent back, if another holds the token.
    Echo { parameter: String, token: (String, SecretName) },
    /// A parameter that is signed, in a JSON object.
    Signed {
        parameter: String,
        secret: SecretName,
        encoding: Encoding,
        reply: Vec<(String, Template<Place>)>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// The parameter's value.
    Value,
    /// Its HMAC-SHA256.
    Hmac,
}

impl Challenge {
    /// Reads `challenge`.
    pub fn read(node: &Node, faults: &mut Faults<'_>) -> Option<Self> {
        let fields = Fields::read(node, "challenge", &["echo", "signed"], faults)?;
        match (fields.get("echo"), fields.get("signed")) {
            (Some(node), None) => {
                let fields = Fields::read(node, "echo", &["parameter", "token"], faults)?;
                let parameter = fields.text("parameter", faults);
                let node = fields.required("token", faults)?;
                let fields = Fields::read(node, "token", &["parameter", "secret"], faults)?;
                let (name, secret) = (fields.text("parameter", faults), secret(&fields, faults));
                Some(Self::Echo { parameter: parameter?, token: (name?, secret?) })
            }
            (None, Some(node)) => {
                let fields =
                    Fields::read(node, "signed", &["parameter", "secret", "encoding", "reply"], faults)?;
                let (parameter, secret) = (fields.text("parameter", faults), secret(&fields, faults));
                let encoding =
                    fields.get("encoding").map_or(Some(Encoding::Hex), |node| word(node, ENCODINGS, faults));
                let reply = fields.required("reply", faults).and_then(|node| reply(node, faults));
                Some(Self::Signed {
                    parameter: parameter?,
                    secret: secret?,
                    encoding: encoding?,
                    reply: reply?,
                })
            }
            _ => {
                faults.add(node.place, "challenge has exactly one of echo, signed");
                None
            }
        }
    }

    /// The secret that the challenge asks for.
    pub fn secret(&self) -> &SecretName {
        match self {
            Self::Echo { token: (_, secret), .. } | Self::Signed { secret, .. } => secret,
        }
    }

    /// The answer to a challenge; `None` if the request is none.
    pub fn answer(&self, request: &Request<'_>, secrets: &Secrets) -> Option<Reply> {
        if request.method != Method::Get {
            return None;
        }
        match self {
            Self::Echo { parameter, token: (name, secret) } => {
                let value = request.parameter(parameter)?;
                let shown = request.parameter(name).unwrap_or_default();
                let known = secrets
                    .of(secret)
                    .iter()
                    .fold(false, |found, secret| found | is_secret(secret.expose(), shown.as_bytes()));
                let text = "text/plain; charset=utf-8";
                Some(match known {
                    true => Reply { status: 200, content_type: text, body: value },
                    false => {
                        Reply { status: 403, content_type: text, body: format!("{name} is another token\n") }
                    }
                })
            }
            Self::Signed { parameter, secret, encoding, reply } => {
                let value = request.parameter(parameter)?;
                // While a secret is rotated the first one signs: a platform knows one at a time.
                let key = secrets.of(secret).first()?;
                let mac = encoding.encode(&Hash::Sha256.of(key.expose().as_bytes(), &[value.as_bytes()]));
                let filled = |template: &Template<Place>| -> String {
                    let part = |part: &Part<Place>| match part {
                        Part::Text(text) => text.clone(),
                        Part::Place(Place::Value) => value.clone(),
                        Part::Place(Place::Hmac) => mac.clone(),
                    };
                    template.0.iter().map(part).collect()
                };
                let members: Members = reply
                    .iter()
                    .map(|(key, template)| (key.as_str().into(), Value::text(&filled(template))))
                    .collect();
                Some(Reply {
                    status: 200,
                    content_type: "application/json",
                    body: Value::object(members).to_json(),
                })
            }
        }
    }
}

fn reply(node: &Node, faults: &mut Faults<'_>) -> Option<Vec<(String, Template<Place>)>> {
    let place = |name: &str| match name {
        "value" => Some(Place::Value),
        "hmac:value" => Some(Place::Hmac),
        _ => None,
    };
    let mut members = Vec::new();
    for (key, node) in Fields::read_open(node, "reply", faults)?.entries() {
        match Template::parse(text(node, faults)?, place, "{value} or {hmac:value}") {
            Ok(template) => members.push((key.text.clone(), template)),
            Err(message) => faults.add(node.place, message),
        }
    }
    Some(members)
}
