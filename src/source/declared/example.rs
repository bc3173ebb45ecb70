//! Examples of a source's file: requests, and what becomes of them.

use super::decimal::Decimal;
use super::draft::encoded;
use super::fault::Place;
use super::reader::{Faults, Fields, list, text};
use super::shown::decimal;
use super::value::Value;
use super::yaml::{Kind, Node};
use crate::json::scalar::{Instant, format_micros};

/// Arrival of examples that tell none: 2026-11-26T10:00:03Z.
const RECEIVED: i64 = 1_795_687_203_000_000;

/// An example.
#[derive(Debug)]
pub(super) struct Example {
    pub(super) name: Option<String>,
    pub(super) place: Place,
    pub(super) given: Given,
    /// Members of each event, with their values as JSON.
    pub(super) expect: Option<Vec<Vec<(String, String)>>>,
    /// Paths that are refused, each with a part of its message.
    pub(super) refused: Option<Vec<(String, Option<String>)>>,
    pub(super) answer: Option<Expected>,
}

#[derive(Debug)]
pub(super) struct Given {
    /// A file beside the source's.
    pub(super) file: Option<String>,
    pub(super) body: Option<String>,
    pub(super) query: Option<String>,
    pub(super) headers: Vec<(String, String)>,
    pub(super) secrets: Option<Vec<(String, String)>>,
    pub(super) received: i64,
}

#[derive(Debug)]
pub(super) struct Expected {
    pub(super) status: u16,
    pub(super) body: Option<String>,
    pub(super) content_type: Option<String>,
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

fn expect(node: &Node, faults: &mut Faults<'_>) -> Option<Vec<Vec<(String, String)>>> {
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
            members.push((key.text.clone(), value.to_json()));
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
