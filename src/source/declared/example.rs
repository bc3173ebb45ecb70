//! Examples of a source's file: requests, and what becomes of them.

use std::fmt;

use super::decimal::Decimal;
use super::event::Outcome;
use super::fault::Place;
use super::reader::{Faults, Fields, list, text};
use super::request::{Method, Request};
use super::secrets::{SecretName, Secrets};
use super::value::Value;
use super::yaml::{Kind, Node};
use super::{Answer, Declared};
use crate::json::scalar::{Instant, format_micros};
use crate::source::CanonicalEvent;

/// Arrival of examples that tell none: 2026-11-26T10:00:03Z.
const RECEIVED: i64 = 1_795_687_203_000_000;

/// An example.
#[derive(Debug)]
pub(super) struct Example {
    name: Option<String>,
    place: Place,
    given: Given,
    expect: Option<Vec<Vec<(String, Value)>>>,
    /// Paths that are refused, each with a part of its message.
    refused: Option<Vec<(String, Option<String>)>>,
    answer: Option<Expected>,
}

#[derive(Debug)]
struct Given {
    /// A file beside the source's.
    file: Option<String>,
    body: Option<String>,
    query: Option<String>,
    headers: Vec<(String, String)>,
    secrets: Option<Vec<(String, String)>>,
    received: i64,
}

#[derive(Debug)]
struct Expected {
    status: u16,
    body: Option<String>,
    content_type: Option<String>,
}

/// An example that did not come out as it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The example's name, or its number.
    pub example: String,
    /// Line of the example.
    pub line: usize,
    /// Differences.
    pub differences: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.example)?;
        self.differences.iter().try_for_each(|difference| write!(f, "\n  {difference}"))
    }
}

impl Example {
    /// Reads `examples`.
    pub fn read_all(node: &Node, faults: &mut Faults<'_>) -> Vec<Self> {
        let items = list(node, faults).unwrap_or_default();
        items.iter().filter_map(|item| Self::read(item, faults)).collect()
    }

    fn read(node: &Node, faults: &mut Faults<'_>) -> Option<Self> {
        let fields =
            Fields::read(node, "an example", &["name", "given", "expect", "refused", "answer"], faults)?;
        let name = fields.optional_text("name", faults);
        let given = fields.required("given", faults).and_then(|node| Given::read(node, faults));
        let expect = fields.get("expect").and_then(|node| expect(node, faults));
        let refused = fields.get("refused").and_then(|node| refused(node, faults));
        let answer = fields.get("answer").and_then(|node| Expected::read(node, faults));
        if ["expect", "refused", "answer"].iter().all(|key| fields.get(key).is_none()) {
            faults
                .add(node.place, "an example expects something: `expect`, `refused` or `answer` is missing");
        }
        Some(Self { name, place: node.place, given: given?, expect, refused, answer })
    }

    /// Runs the example; `file` returns a file beside the source's. The error has the differences.
    pub fn run(
        &self,
        number: usize,
        source: &Declared,
        file: &dyn Fn(&str) -> std::io::Result<Vec<u8>>,
    ) -> Result<(), Failure> {
        let mut differences = Vec::new();
        match self.given.with_file(file) {
            Ok((method, query, body)) => self.compare(source, method, &query, &body, &mut differences),
            Err(message) => differences.push(message),
        }
        if differences.is_empty() {
            return Ok(());
        }
        let example = self.name.clone().unwrap_or_else(|| format!("example {number}"));
        Err(Failure { example, line: self.place.line, differences })
    }

    fn compare(
        &self,
        source: &Declared,
        method: Method,
        query: &str,
        body: &[u8],
        differences: &mut Vec<String>,
    ) {
        let headers: Vec<(&str, &str)> =
            self.given.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let request = Request { method, headers: &headers, query, body, received: self.given.received };
        let (answer, outcomes) = match &self.given.secrets {
            None => self.judged(source, &request),
            Some(values) => {
                let lookup = |name: &str| {
                    values.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
                };
                let named: Vec<&SecretName> =
                    source.secrets().into_iter().filter(|name| lookup(name.as_str()).is_some()).collect();
                match Secrets::load(named, lookup) {
                    Err(names) => {
                        let names: Vec<&str> = names.iter().map(SecretName::as_str).collect();
                        differences.push(format!("the secret {} is empty", names.join(", ")));
                        return;
                    }
                    Ok(secrets) => match source.challenge(&request, &secrets) {
                        Some(reply) => (
                            Answer {
                                status: reply.status,
                                body: Some(reply.body),
                                content_type: reply.content_type,
                            },
                            Vec::new(),
                        ),
                        None => match source.verify(&request, &secrets) {
                            Err(unverified) => (
                                Answer { status: 401, body: Some(unverified.to_string()), content_type: "" },
                                Vec::new(),
                            ),
                            Ok(()) => self.judged(source, &request),
                        },
                    },
                }
            }
        };
        if let Some(expected) = &self.answer {
            expected.compare(&answer, differences);
        } else if answer.status >= 400 {
            let body = answer.body.unwrap_or_default();
            differences.push(format!("the answer is {}, not success: {body}", answer.status));
        }
        self.compare_outcomes(&outcomes, differences);
    }

    fn judged<'s>(&self, source: &'s Declared, request: &Request<'_>) -> (Answer, Vec<Outcome<'s>>) {
        match source.events(request) {
            Ok(outcomes) => (source.answer().clone(), outcomes),
            Err(refused) => refused.into_outcome(source.answer()),
        }
    }

    fn compare_outcomes(&self, outcomes: &[Outcome<'_>], differences: &mut Vec<String>) {
        let events: Vec<&CanonicalEvent<'_>> = outcomes
            .iter()
            .filter_map(|outcome| match outcome {
                Outcome::Event(event) => Some(&**event),
                Outcome::Refused(_) => None,
            })
            .collect();
        let errors: Vec<_> = outcomes
            .iter()
            .filter_map(|outcome| match outcome {
                Outcome::Refused(refused) => Some(&refused.errors),
                Outcome::Event(_) => None,
            })
            .flatten()
            .collect();
        if let Some(expect) = &self.expect {
            if events.len() != expect.len() {
                differences.push(format!(
                    "{} events are expected, but there are {}",
                    expect.len(),
                    events.len()
                ));
            }
            for (index, (expected, event)) in expect.iter().zip(&events).enumerate() {
                for (name, value) in expected {
                    let found = member(event, name);
                    if found.as_ref() != Some(value) {
                        let found = found.unwrap_or_default();
                        differences
                            .push(format!("event {}: {name} is {found}, but {value} is expected", index + 1));
                    }
                }
            }
        }
        match &self.refused {
            None if self.expect.is_some() => differences
                .extend(errors.iter().map(|error| format!("refused at `{}`: {}", error.path, error.message))),
            None => {}
            Some(refused) => {
                for (path, part) in refused {
                    let found = errors.iter().find(|error| error.path == *path);
                    match (found, part) {
                        (None, _) => differences.push(format!("nothing is refused at `{path}`")),
                        (Some(error), Some(part)) if !error.message.contains(part.as_str()) => differences
                            .push(format!(
                                "the message at `{path}` is \"{}\", without \"{part}\"",
                                error.message
                            )),
                        _ => {}
                    }
                }
                let others =
                    errors.iter().filter(|error| !refused.iter().any(|(path, _)| *path == error.path));
                differences.extend(
                    others.map(|error| format!("refused at `{}` too: {}", error.path, error.message)),
                );
                if self.expect.is_none() && !events.is_empty() {
                    differences.push(format!("{} events are not refused", events.len()));
                }
            }
        }
    }
}

impl Given {
    fn read(node: &Node, faults: &mut Faults<'_>) -> Option<Self> {
        let known = ["file", "body", "text", "query", "headers", "secrets", "at"];
        let fields = Fields::read(node, "given", &known, faults)?;
        let bodies: Vec<&str> =
            ["file", "body", "text"].into_iter().filter(|key| fields.get(key).is_some()).collect();
        if bodies.len() > 1 {
            faults.add(node.place, format!("given has one body, but {} are there", bodies.join(" and ")));
        }
        let body = match fields.get("body") {
            None => fields.optional_text("text", faults),
            Some(node) => match node.json() {
                Ok(value) => Some(value.to_json()),
                Err((place, message)) => {
                    faults.add(place, message);
                    None
                }
            },
        };
        let query = match fields.get("query") {
            None => None,
            Some(node) if matches!(node.kind, Kind::Mapping(_)) => {
                Some(encoded(&pairs(node, "query", faults)))
            }
            Some(node) => text(node, faults).map(str::to_owned),
        };
        if bodies.is_empty() && query.is_none() {
            faults.add(node.place, "given has one of file, body, text, query");
        }
        let received = match fields.get("at") {
            None => RECEIVED,
            Some(node) => match Instant::parse(text(node, faults)?) {
                Ok(at) => at.micros,
                Err(message) => {
                    faults.add(node.place, message);
                    RECEIVED
                }
            },
        };
        Some(Self {
            file: fields.optional_text("file", faults),
            body,
            query,
            headers: fields.get("headers").map(|node| pairs(node, "headers", faults)).unwrap_or_default(),
            secrets: fields.get("secrets").map(|node| pairs(node, "secrets", faults)),
            received,
        })
    }

    /// Method, query and body, with the file's bytes.
    fn with_file(
        &self,
        file: &dyn Fn(&str) -> std::io::Result<Vec<u8>>,
    ) -> Result<(Method, String, Vec<u8>), String> {
        let mut query = self.query.clone();
        let mut body = self.body.clone().map(String::into_bytes);
        if let Some(name) = &self.file {
            let bytes = file(name).map_err(|error| format!("the file {name}: {error}"))?;
            if name.ends_with(".query") {
                query = Some(String::from_utf8_lossy(&bytes).trim_end().to_owned());
            } else {
                body = Some(bytes);
            }
        }
        let method = if body.is_some() { Method::Post } else { Method::Get };
        Ok((method, query.unwrap_or_default(), body.unwrap_or_default()))
    }
}

impl Expected {
    fn read(node: &Node, faults: &mut Faults<'_>) -> Option<Self> {
        let (status, fields) = match &node.kind {
            Kind::Mapping(_) => {
                let fields = Fields::read(node, "answer", &["status", "body", "type"], faults)?;
                (fields.required("status", faults)?, Some(fields))
            }
            _ => (node, None),
        };
        let Some(code) = text(status, faults).and_then(|text| text.parse().ok()) else {
            faults.expected(status, "an HTTP status");
            return None;
        };
        let body = fields.as_ref().and_then(|fields| fields.get("body")).and_then(|node| match &node.kind {
            Kind::Scalar(scalar) => Some(scalar.text.clone()),
            _ => node.json().ok().map(|value| value.to_json()),
        });
        let content_type = fields.and_then(|fields| fields.optional_text("type", faults));
        Some(Self { status: code, body, content_type })
    }

    fn compare(&self, answer: &Answer, differences: &mut Vec<String>) {
        let shown = answer.body.as_deref().unwrap_or_default();
        if self.status != answer.status {
            differences
                .push(format!("the answer is {}, but {} is expected: {shown}", answer.status, self.status));
        }
        if let Some(body) = self.body.as_deref().filter(|body| *body != shown && !same_json(body, shown)) {
            differences.push(format!("the answer's body is `{shown}`, but `{body}` is expected"));
        }
        if let Some(expected) =
            self.content_type.as_deref().filter(|expected| !answer.content_type.starts_with(expected))
        {
            differences
                .push(format!("the answer's type is {}, but {expected} is expected", answer.content_type));
        }
    }
}

fn same_json(left: &str, right: &str) -> bool {
    let read = |text: &str| super::json::parse(text.as_bytes()).ok();
    matches!((read(left), read(right)), (Some(left), Some(right)) if left == right)
}

fn pairs(node: &Node, name: &'static str, faults: &mut Faults<'_>) -> Vec<(String, String)> {
    let Some(fields) = Fields::read_open(node, name, faults) else { return Vec::new() };
    let pairs = fields.entries().filter_map(|(key, node)| match &node.kind {
        Kind::Scalar(scalar) => Some((key.text.clone(), scalar.text.clone())),
        _ => {
            faults.expected(node, "a text");
            None
        }
    });
    pairs.collect()
}

/// Form text of names and values.
fn encoded(pairs: &[(String, String)]) -> String {
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    let pair = |(name, value): &(String, String)| {
        format!(
            "{}={}",
            utf8_percent_encode(name, NON_ALPHANUMERIC),
            utf8_percent_encode(value, NON_ALPHANUMERIC)
        )
    };
    pairs.iter().map(pair).collect::<Vec<_>>().join("&")
}

/// Members of an event that examples can name.
const MEMBERS: [&str; 20] = [
    "id",
    "timestamp",
    "type",
    "stage",
    "user",
    "amount",
    "currency",
    "revenue",
    "received",
    "campaign",
    "ad",
    "country",
    "city",
    "device",
    "browser",
    "age",
    "gender",
    "followers",
    "name",
    "referrer",
];

fn expect(node: &Node, faults: &mut Faults<'_>) -> Option<Vec<Vec<(String, Value)>>> {
    let mut events = Vec::new();
    for item in list(node, faults)? {
        let mut known = MEMBERS.to_vec();
        known.extend(["video", "raw"]);
        let fields = Fields::read(item, "an expected event", &known, faults)?;
        let mut members = Vec::new();
        for (key, node) in fields.entries() {
            let value = match node.json() {
                Ok(value @ (Value::Null | Value::Bool(_))) => value,
                Ok(Value::Object(_) | Value::Array(_)) if key.text == "raw" => {
                    node.json().unwrap_or_default()
                }
                _ => Value::Text(text(node, faults)?.into()),
            };
            let value = match key.text.as_str() {
                "timestamp" => same_instant(value),
                "amount" => same_amount(value),
                _ => value,
            };
            members.push((key.text.clone(), value));
        }
        events.push(members);
    }
    Some(events)
}

/// A time in the form that events show it in.
fn same_instant(value: Value) -> Value {
    match value.as_str().map(Instant::parse) {
        Some(Ok(at)) => Value::text(&format_micros(at.micros)),
        _ => value,
    }
}

/// An amount in the form that events show it in.
fn same_amount(value: Value) -> Value {
    match Decimal::read(&value).and_then(|amount| amount.shifted(6)) {
        Some((micros, true)) => Value::text(&decimal(micros)),
        _ => value,
    }
}

fn refused(node: &Node, faults: &mut Faults<'_>) -> Option<Vec<(String, Option<String>)>> {
    if let Kind::Mapping(_) = node.kind {
        let pairs = pairs(node, "refused", faults);
        return Some(pairs.into_iter().map(|(path, part)| (path, Some(part))).collect());
    }
    let items = list(node, faults)?;
    Some(
        items
            .iter()
            .filter_map(|item| match &item.kind {
                Kind::Scalar(scalar) => Some((scalar.text.clone(), None)),
                _ => {
                    faults.expected(item, "a path");
                    None
                }
            })
            .collect(),
    )
}

/// A member of an event, as examples and commands show it: texts, null where it is not told.
fn member(event: &CanonicalEvent<'_>, name: &str) -> Option<Value> {
    event.members().into_iter().find(|(known, _)| *known == name).map(|(_, value)| value)
}

impl CanonicalEvent<'_> {
    /// All members with their names, for people: times as RFC 3339, amounts as decimals.
    pub(super) fn members(&self) -> Vec<(&'static str, Value)> {
        let text = |text: Option<&str>| text.map_or(Value::Null, |text| Value::Text(text.into()));
        let columns = &self.columns;
        vec![
            ("id", text(Some(&self.id))),
            ("timestamp", text(Some(&format_micros(self.timestamp)))),
            ("received", Value::Bool(self.is_arrival)),
            ("type", text(Some(&self.event_type))),
            ("stage", text(Some(self.stage.name()))),
            ("user", text(self.user.as_deref())),
            ("name", text(columns.name.as_deref())),
            ("campaign", text(columns.campaign.as_deref())),
            ("ad", text(columns.ad.as_deref())),
            ("country", text(columns.country.as_deref())),
            ("city", text(columns.city.as_deref())),
            ("device", text(columns.device.as_deref())),
            ("browser", text(columns.browser.as_deref())),
            ("age", text(columns.age.map(|age| age.to_string()).as_deref())),
            ("gender", text(columns.gender.as_deref())),
            ("followers", text(columns.followers.map(|followers| followers.to_string()).as_deref())),
            ("referrer", text(columns.referrer.as_deref())),
            ("video", text(columns.video.as_deref())),
            ("amount", text(self.amount.map(decimal).as_deref())),
            ("currency", text(self.currency.as_deref())),
            ("revenue", Value::Bool(self.is_revenue)),
            ("raw", super::json::parse(self.raw.as_bytes()).unwrap_or_default()),
        ]
    }
}

impl Outcome<'_> {
    /// The outcome as JSON for people: on one line, or a member a line without those that are null.
    pub fn to_json(&self, is_one_line: bool) -> String {
        let event = match self {
            Self::Event(event) => event,
            Self::Refused(refused) => {
                let errors = refused.errors.iter().map(|error| {
                    let member = |key: &str, text: &str| (key.into(), Value::Text(text.into()));
                    Value::object([member("path", &error.path), member("message", &error.message)].into())
                });
                let raw = super::json::parse(refused.raw.as_bytes()).unwrap_or_default();
                let members = [("refused".into(), errors.collect()), ("raw".into(), raw)];
                return Value::object(members.into()).to_json();
            }
        };
        let members = event.members().into_iter().filter(|(_, value)| *value != Value::Null);
        if is_one_line {
            let members = members.map(|(key, value)| (key.into(), value));
            return Value::object(members.collect()).to_json();
        }
        members.map(|(key, value)| format!("  {key}: {value}")).collect::<Vec<_>>().join("\n")
    }
}

/// Millionths as a decimal with at least two decimals.
fn decimal(micros: i64) -> String {
    let (whole, fraction) = (micros / 1_000_000, micros.rem_euclid(1_000_000));
    let digits = format!("{fraction:06}");
    let kept = digits.trim_end_matches('0').len().max(2);
    format!("{whole}.{}", &digits[..kept])
}
