//! HMAC signatures in a header, over the bytes on the wire.

use base64::Engine;

use super::draft::Draft;
use super::hmac_key::{BASE64, Encoding, Hash, equal};
use super::reader::{Faults, Fields, text, word};
use super::request::Request;
use super::secrets::{SecretName, Secrets, secret};
use super::template::{Part, Template};
use super::unsigned::Unsigned;
use super::unverified::Unverified;
use super::yaml::{Kind, Node};

/// A signature in a header.
#[derive(Debug, Clone)]
pub(super) struct Signature {
    /// Names of the header, of which the first one that is there counts.
    pub(super) headers: Vec<String>,
    /// Texts before a signature, one of which it begins with; the empty one fits all.
    prefixes: Vec<String>,
    hash: Hash,
    encoding: Encoding,
    over: Template<Signed>,
    pub(super) secret: SecretName,
    key: KeyForm,
    timestamp: Option<Timestamp>,
    /// Largest distance of the timestamp from the arrival, in seconds; `None` for any.
    tolerance: Option<i64>,
    /// Text between several signatures in the header.
    separator: Option<String>,
}

/// Parts that a signature can be over.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Signed {
    Body,
    Timestamp,
    Header(String),
}

/// Place of the signature's time.
#[derive(Debug, Clone)]
enum Timestamp {
    /// A header of its own.
    Header(String),
    /// Fields of the signature's header, such as `t=1,v1=…`: the time's name and the signature's name.
    Fields(String, String),
}

/// Form of the key in the variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeyForm {
    Text,
    /// Base64 behind an optional `whsec_`, as in Standard Webhooks.
    Base64,
}

/// Seconds that a timestamp may differ from the arrival, unless the file says otherwise.
const TOLERANCE: i64 = 300;

/// Most signatures of one header that are compared.
const MAX_SIGNATURES: usize = 16;

const HASHES: &[(&str, Hash)] = &[("sha256", Hash::Sha256), ("sha512", Hash::Sha512)];
pub(super) const ENCODINGS: &[(&str, Encoding)] = &[("hex", Encoding::Hex), ("base64", Encoding::Base64)];
const KEY_FORMS: &[(&str, KeyForm)] = &[("text", KeyForm::Text), ("base64", KeyForm::Base64)];

impl Signature {
    /// Reads `hmac`.
    pub fn read(node: &Node, faults: &mut Faults<'_>) -> Option<Self> {
        let known = [
            "header",
            "prefix",
            "hash",
            "encoding",
            "over",
            "secret",
            "key",
            "timestamp",
            "fields",
            "tolerance",
            "separator",
        ];
        let fields = Fields::read(node, "hmac", &known, faults)?;
        let headers = fields.required("header", faults).and_then(|node| texts(node, faults));
        let secret = secret(&fields, faults);
        let prefixes = fields.get("prefix").map_or(Some(vec![String::new()]), |node| texts(node, faults));
        let hash = fields.get("hash").map_or(Some(Hash::Sha256), |node| word(node, HASHES, faults));
        let encoding =
            fields.get("encoding").map_or(Some(Encoding::Hex), |node| word(node, ENCODINGS, faults));
        let key = fields.get("key").map_or(Some(KeyForm::Text), |node| word(node, KEY_FORMS, faults));
        let (node_of_fields, nested) = match (fields.get("timestamp"), fields.get("fields")) {
            (Some(node), _) => (Some(node), true),
            (None, node) => (node, false),
        };
        let timestamp = match node_of_fields {
            None => None,
            Some(node) if nested => Some(Timestamp::read(node, faults)?),
            Some(node) => Some(Timestamp::read_fields(node, faults)?),
        };
        let over = match fields.get("over") {
            None => Some(Template(vec![Part::Place(Signed::Body)])),
            Some(node) => over(node, faults),
        };
        if let (Some(over), None, Some(node)) = (&over, &timestamp, fields.get("over"))
            && over.0.contains(&Part::Place(Signed::Timestamp))
        {
            faults.add(node.place, "{timestamp} is signed, but `timestamp` does not say where it stands");
        }
        let tolerance = match fields.get("tolerance") {
            None => timestamp.is_some().then_some(TOLERANCE),
            Some(node) => tolerance(node, faults)?,
        };
        if timestamp.is_none()
            && let Some(node) = fields.get("tolerance")
        {
            faults.add(node.place, "a tolerance needs `timestamp`, which says where the time stands");
        }
        let separator = fields.optional_text("separator", faults);
        Some(Self {
            headers: headers?,
            prefixes: prefixes?,
            hash: hash?,
            encoding: encoding?,
            over: over?,
            secret: secret?,
            key: key?,
            timestamp,
            tolerance,
            separator,
        })
    }

    /// Checks a request.
    pub fn check(&self, request: &Request<'_>, secrets: &Secrets) -> Result<(), Unverified> {
        let header = self.name();
        let (time, shown) = self.shown(request)?;
        let signatures: Vec<Vec<u8>> = shown
            .iter()
            .flat_map(|shown| self.prefixes.iter().filter_map(|prefix| shown.strip_prefix(prefix.as_str())))
            .filter_map(|shown| self.encoding.decode(shown.trim()))
            .take(MAX_SIGNATURES)
            .collect();
        if signatures.is_empty() {
            return Err(Unverified(format!("{header} holds no signature of the form that is expected")));
        }
        let is_signed = |body: &[u8]| -> Result<bool, Unverified> {
            let parts = self.signed(request, time, body)?;
            Ok(secrets.of(&self.secret).iter().fold(false, |found, secret| {
                let Some(key) = self.key.bytes(secret.expose()) else { return found };
                let mac = self.hash.of(&key, &parts);
                signatures.iter().fold(found, |found, signature| found | equal(&mac, signature))
            }))
        };
        // Some platforms describe a signature over the escaped form; what they send is escaped already.
        let signed = is_signed(request.body)? || {
            let over_body = self.over.0.contains(&Part::Place(Signed::Body));
            match escaped(request.body).filter(|_| over_body) {
                Some(escaped) => is_signed(escaped.as_bytes())?,
                None => false,
            }
        };
        if !signed {
            return Err(Unverified(format!("{header} does not match the request")));
        }
        self.in_time(time, request.received)
    }

    /// Signs a request as its platform does, with the first secret; the time is now, in seconds since 1970.
    pub fn sign(&self, draft: &mut Draft, secrets: &Secrets, now: i64) -> Result<(), Unsigned> {
        let secret =
            secrets.of(&self.secret).first().ok_or_else(|| Unsigned::NoSecret(self.secret.clone()))?;
        let key =
            self.key.bytes(secret.expose()).ok_or_else(|| Unsigned::MalformedSecret(self.secret.clone()))?;
        let time = now.to_string();
        draft.headers.retain(|(name, _)| !self.headers.iter().any(|own| own.eq_ignore_ascii_case(name)));
        if let Some(Timestamp::Header(name)) = &self.timestamp {
            draft.set_header(name, time.clone());
        }
        for part in &self.over.0 {
            if let Part::Place(Signed::Header(name)) = part
                && !draft.headers.iter().any(|(other, _)| other.eq_ignore_ascii_case(name))
            {
                draft.set_header(name, format!("sent_{time}"));
            }
        }
        let mac = draft.with_request(now.saturating_mul(1_000_000), |request| {
            self.signed(request, Some(&time), request.body).map(|parts| self.hash.of(&key, &parts))
        })?;
        let prefix = self.prefixes.first().map(String::as_str).unwrap_or_default();
        let signature = format!("{prefix}{}", self.encoding.encode(&mac));
        let shown = match &self.timestamp {
            Some(Timestamp::Fields(of_time, of_signature)) => {
                format!("{of_time}={time},{of_signature}={signature}")
            }
            _ => signature,
        };
        draft.set_header(self.headers.first().map(String::as_str).unwrap_or_default(), shown);
        Ok(())
    }

    /// True for a header that signing makes anew.
    pub fn makes_header(&self, name: &str) -> bool {
        let of_time = match &self.timestamp {
            Some(Timestamp::Header(header)) => header.eq_ignore_ascii_case(name),
            _ => false,
        };
        of_time || self.headers.iter().any(|header| header.eq_ignore_ascii_case(name))
    }

    /// Names of the header in messages.
    pub fn name(&self) -> String {
        self.headers.join(" or ")
    }

    /// The signature's time, if there is one, and the signatures of the header.
    pub fn shown<'r>(&self, request: &'r Request<'_>) -> Result<(Option<&'r str>, Vec<&'r str>), Unverified> {
        let missing = |name: &str| Unverified(format!("{name} is missing"));
        let name = self.headers.iter().find(|name| request.header(name).is_some());
        let name = name.ok_or_else(|| missing(&self.name()))?;
        let mut shown: Vec<&str> = request.headers(name).collect();
        if let Some(separator) = &self.separator {
            shown =
                shown.into_iter().flat_map(|value| value.split(separator.as_str())).map(str::trim).collect();
        }
        match &self.timestamp {
            None => Ok((None, shown)),
            Some(Timestamp::Header(name)) => {
                Ok((Some(request.header(name).ok_or_else(|| missing(name))?.trim()), shown))
            }
            Some(Timestamp::Fields(time_name, signature_name)) => {
                let pairs = shown
                    .iter()
                    .flat_map(|value| value.split(','))
                    .filter_map(|pair| pair.trim().split_once('='));
                let (mut time, mut signatures) = (None, Vec::new());
                for (name, value) in pairs {
                    if name == time_name {
                        time = Some(value);
                    } else if name == signature_name {
                        signatures.push(value);
                    }
                }
                let form = || Unverified(format!("{name} must be {time_name}=…,{signature_name}=…"));
                if signatures.is_empty() {
                    return Err(form());
                }
                Ok((Some(time.ok_or_else(form)?), signatures))
            }
        }
    }

    /// Parts that are signed, with this body.
    fn signed<'r>(
        &'r self,
        request: &'r Request<'_>,
        time: Option<&'r str>,
        body: &'r [u8],
    ) -> Result<Vec<&'r [u8]>, Unverified> {
        let part = |part: &'r Part<Signed>| match part {
            Part::Text(text) => Ok(text.as_bytes()),
            Part::Place(Signed::Body) => Ok(body),
            Part::Place(Signed::Timestamp) => Ok(time.unwrap_or_default().as_bytes()),
            Part::Place(Signed::Header(name)) => request
                .header(name)
                .map(str::as_bytes)
                .ok_or_else(|| Unverified(format!("{name} is missing"))),
        };
        self.over.0.iter().map(part).collect()
    }

    fn in_time(&self, time: Option<&str>, received: i64) -> Result<(), Unverified> {
        let (Some(tolerance), Some(time)) = (self.tolerance, time) else { return Ok(()) };
        let sent: i64 = time
            .parse()
            .map_err(|_| Unverified("the signature's time is no number of seconds".to_owned()))?;
        let distance = received.div_euclid(1_000_000).saturating_sub(sent).saturating_abs();
        if distance > tolerance {
            return Err(Unverified(format!(
                "the signature's time is {distance} s off, more than {tolerance} s"
            )));
        }
        Ok(())
    }
}

impl Timestamp {
    fn read(node: &Node, faults: &mut Faults<'_>) -> Option<Self> {
        let fields = Fields::read(node, "timestamp", &["header", "fields"], faults)?;
        match (fields.get("header"), fields.get("fields")) {
            (Some(node), None) => Some(Self::Header(text(node, faults)?.to_owned())),
            (None, Some(node)) => Self::read_fields(node, faults),
            _ => {
                faults.add(node.place, "timestamp has exactly one of header, fields");
                None
            }
        }
    }

    fn read_fields(node: &Node, faults: &mut Faults<'_>) -> Option<Self> {
        let fields = Fields::read(node, "fields", &["timestamp", "signature"], faults)?;
        let (time, signature) = (fields.text("timestamp", faults), fields.text("signature", faults));
        Some(Self::Fields(time?, signature?))
    }
}

impl KeyForm {
    /// Bytes of the key; `None` if it is no base64.
    fn bytes(self, secret: &str) -> Option<Vec<u8>> {
        match self {
            Self::Text => Some(secret.as_bytes().to_vec()),
            Self::Base64 => BASE64.decode(secret.strip_prefix("whsec_").unwrap_or(secret)).ok(),
        }
    }
}

/// A text, or a list of texts.
fn texts(node: &Node, faults: &mut Faults<'_>) -> Option<Vec<String>> {
    let Kind::Sequence(items) = &node.kind else {
        return text(node, faults).map(|text| vec![text.to_owned()]);
    };
    if items.is_empty() {
        faults.expected(node, "a text or a list with at least one");
        return None;
    }
    let read: Vec<_> = items.iter().map(|item| text(item, faults).map(str::to_owned)).collect();
    read.into_iter().collect()
}

fn over(node: &Node, faults: &mut Faults<'_>) -> Option<Template<Signed>> {
    let place = |name: &str| match name {
        "body" => Some(Signed::Body),
        "timestamp" => Some(Signed::Timestamp),
        _ => name.strip_prefix("header:").map(|name| Signed::Header(name.trim().to_owned())),
    };
    match Template::parse(text(node, faults)?, place, "{body}, {timestamp} or {header:Name}") {
        Ok(template) if template.0.contains(&Part::Place(Signed::Body)) => Some(template),
        Ok(_) => {
            faults.add(node.place, "a signature that is not over {body} proves nothing about it");
            None
        }
        Err(message) => {
            faults.add(node.place, message);
            None
        }
    }
}

/// A duration in seconds; `none` or 0 for no check.
fn tolerance(node: &Node, faults: &mut Faults<'_>) -> Option<Option<i64>> {
    let found = text(node, faults)?;
    if matches!(found, "none" | "off" | "0") {
        return Some(None);
    }
    match humantime::parse_duration(found) {
        Ok(duration) if duration.as_secs() > 0 => {
            Some(Some(i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)))
        }
        _ => {
            faults.add(
                node.place,
                format!("`{found}` is no duration: expected such as 5m or 72h, or none for no check"),
            );
            None
        }
    }
}

/// The body with each character beyond ASCII as `\uxxxx` (UTF-16 units in lower case); `None` if there is none.
fn escaped(body: &[u8]) -> Option<String> {
    if body.is_ascii() {
        return None;
    }
    let text = std::str::from_utf8(body).ok()?;
    let mut out = String::with_capacity(text.len() * 2);
    for char in text.chars() {
        if char.is_ascii() {
            out.push(char);
            continue;
        }
        for unit in char.encode_utf16(&mut [0; 2]) {
            out.push_str(&format!("\\u{unit:04x}"));
        }
    }
    Some(out)
}
