//! A source's file as a whole.

use std::sync::Arc;

use super::challenge::{Challenge, Reply};
use super::example::Example;
use super::fault::{Fault, Place};
use super::filter::Filter;
use super::map::Map;
use super::pointer::Pointer;
use super::reader::{Faults, Fields, list, pointer, text, word};
use super::request::Request;
use super::schema::Schema;
use super::secrets::{SecretName, Secrets};
use super::unverified::Unverified;
use super::verify::{Check, Subject};
use super::yaml::{self, Kind, Node};
use crate::source::Source;
use crate::source::canonical::is_source_name;
use crate::source::learnt::RESERVED;

/// A source that a file declares.
#[derive(Debug)]
pub struct Declared {
    pub(super) name: Arc<str>,
    title: String,
    pub(super) accept: Vec<Accept>,
    pub(super) check: Option<Check>,
    pub(super) challenge: Option<Challenge>,
    answer: Answer,
    pub(super) filter: Option<Filter>,
    pub(super) schema: Option<Schema>,
    pub(super) map: Map,
    pub(super) personal: Vec<Pointer>,
    pub(super) examples: Vec<Example>,
}

/// Form in which a source takes events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accept {
    /// A body of JSON.
    Json,
    /// A body of `application/x-www-form-urlencoded`.
    Form,
    /// The query of a GET.
    Query,
}

/// An answer of success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The body; `None` for the gateway's own.
    pub body: Option<String>,
    /// Content type of the body.
    pub content_type: &'static str,
}

const KEYS: &[&str] = &[
    "source",
    "title",
    "accept",
    "verify",
    "challenge",
    "answer",
    "events",
    "schema",
    "map",
    "revenue",
    "personal",
    "examples",
];

/// Largest file, in bytes.
const MAX_FILE: usize = 1024 * 1024;

impl Declared {
    /// Reads a file. The error has every mistake, each with its line and column; `file` is the file's path in them.
    pub fn parse(file: &str, text: &str) -> Result<Self, Vec<Fault>> {
        let mut faults = Faults::new(file, text);
        let begin = Place { line: 1, column: 1, length: 1 };
        if text.len() > MAX_FILE {
            faults.add(begin, "a source file has at most 1 MiB");
            return Err(faults.into_found());
        }
        let declared = match yaml::read(text) {
            Ok(node) => Self::read(file, &node, &mut faults),
            Err((place, message)) => {
                faults.add(place, message);
                None
            }
        };
        match declared {
            Some(declared) if faults.is_empty() => Ok(declared),
            _ => Err(faults.into_found()),
        }
    }

    fn read(file: &str, node: &Node, faults: &mut Faults<'_>) -> Option<Self> {
        let fields = Fields::read(node, "a source file", KEYS, faults)?;
        let name = fields.required("source", faults).and_then(|node| name(file, node, faults));
        let title = fields.text("title", faults);
        let accept = fields.get("accept").map_or(Some(vec![Accept::Json]), |node| accept(node, faults));
        let check = fields.get("verify").map_or(Some(None), |node| Check::read(node, faults).map(Some));
        let challenge =
            fields.get("challenge").map_or(Some(None), |node| Challenge::read(node, faults).map(Some));
        let answer =
            fields.get("answer").map_or(Some(Answer::status(200)), |node| Answer::read(node, faults));
        let filter = fields.get("events").map_or(Some(None), |node| filter(node, faults).map(Some));
        let schema = fields.get("schema").map_or(Some(None), |node| Schema::read(node, faults).map(Some));
        let revenue = fields.get("revenue");
        let map = fields.required("map", faults).and_then(|node| Map::read(node, revenue, faults));
        let personal = fields.get("personal").map_or(Some(Vec::new()), |node| {
            let read: Vec<_> = list(node, faults)?.iter().map(|item| pointer(item, faults)).collect();
            read.into_iter().collect()
        });
        let examples = fields.get("examples").map(|node| Example::read_all(node, faults)).unwrap_or_default();
        Some(Self {
            name: name?,
            title: title?,
            accept: accept?,
            check: check?,
            challenge: challenge?,
            answer: answer?,
            filter: filter?,
            schema: schema?,
            map: map?,
            personal: personal?,
            examples,
        })
    }

    /// Name of the source.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Title for people.
    pub fn title(&self) -> &str {
        &self.title
    }

    /// Forms in which the source takes events.
    pub fn accept(&self) -> &[Accept] {
        &self.accept
    }

    /// Types that its events can have.
    pub fn types(&self) -> Vec<Arc<str>> {
        self.map.types()
    }

    /// The answer to a request whose events are durable.
    pub fn answer(&self) -> &Answer {
        &self.answer
    }

    /// Number of examples.
    pub fn examples(&self) -> usize {
        self.examples.len()
    }

    /// Part of a request that shows where it comes from.
    pub fn subject(&self) -> Subject {
        self.check.as_ref().map_or(Subject::Token, Check::subject)
    }

    /// True if the source has a challenge.
    pub fn has_challenge(&self) -> bool {
        self.challenge.is_some()
    }

    /// True if the source answers a GET: a challenge, or events in the query.
    pub fn takes_get(&self) -> bool {
        self.challenge.is_some() || self.accept.contains(&Accept::Query)
    }

    /// Pointers to the personal data of an event: the user, the user's name, and the file's own list. A pointer to an
    /// object or array stands for all that is in it.
    pub fn personal(&self) -> impl Iterator<Item = &Pointer> {
        self.map.user_pointers().chain(self.map.name_pointers()).chain(&self.personal)
    }

    /// Variables of the secrets that the file names, each once.
    pub fn secrets(&self) -> Vec<&SecretName> {
        let check = self.check.as_ref().map(Check::secret);
        let challenge = self.challenge.as_ref().map(Challenge::secret);
        let mut names: Vec<&SecretName> = check.into_iter().chain(challenge).collect();
        names.dedup();
        names
    }

    /// Checks what the head of a request shows, before its body is read: the whole check, unless that is over the body.
    pub fn verify_head(&self, request: &Request<'_>, secrets: &Secrets) -> Result<(), Unverified> {
        self.check.as_ref().map_or(Ok(()), |check| check.check_head(request, secrets))
    }

    /// Checks that a request comes from the platform. Without `verify` every request passes here.
    pub fn verify(&self, request: &Request<'_>, secrets: &Secrets) -> Result<(), Unverified> {
        self.check.as_ref().map_or(Ok(()), |check| check.check(request, secrets))
    }

    /// The answer to a challenge of the platform; `None` if the request is none.
    pub fn challenge(&self, request: &Request<'_>, secrets: &Secrets) -> Option<Reply> {
        self.challenge.as_ref().and_then(|challenge| challenge.answer(request, secrets))
    }
}

impl Answer {
    fn status(status: u16) -> Self {
        Self { status, body: None, content_type: "" }
    }

    fn read(node: &Node, faults: &mut Faults<'_>) -> Option<Self> {
        let (status, body) = match &node.kind {
            Kind::Mapping(_) => {
                let fields = Fields::read(node, "answer", &["status", "body"], faults)?;
                (fields.required("status", faults)?, fields.get("body"))
            }
            _ => (node, None),
        };
        let found = text(status, faults)?;
        let Some(code) = found.parse().ok().filter(|code| (200..300).contains(code)) else {
            faults.add(status.place, format!("`{found}` is no HTTP status of success: expected 200 to 299"));
            return None;
        };
        let body = match body.map(|node| (node, &node.kind)) {
            None => return Some(Self::status(code)),
            Some((_, Kind::Scalar(scalar))) => scalar.text.clone(),
            Some((node, _)) => {
                faults.expected(node, "a text");
                return None;
            }
        };
        let is_json = super::json::parse(body.as_bytes()).is_ok();
        let content_type = if is_json { "application/json" } else { "text/plain; charset=utf-8" };
        Some(Self { status: code, body: Some(body), content_type })
    }
}

fn name(file: &str, node: &Node, faults: &mut Faults<'_>) -> Option<Arc<str>> {
    let name = text(node, faults)?;
    if !is_source_name(name) {
        faults.add(
            node.place,
            format!(
                "`{name}` is no name of a source: expected a letter of a-z, then up to 31 of a-z, 0-9, _"
            ),
        );
        return None;
    }
    if RESERVED.contains(&name) || Source::parse(name).is_some_and(Source::is_built_in) {
        faults.add(node.place, format!("the name `{name}` is taken by the system"));
        return None;
    }
    let stem = std::path::Path::new(file)
        .file_name()
        .and_then(|name| name.to_str())
        .and_then(|name| name.strip_suffix(".yaml"));
    if let Some(stem) = stem.filter(|stem| *stem != name) {
        faults.add(
            node.place,
            format!("the source `{name}` belongs into {name}.yaml, but the file is {stem}.yaml"),
        );
    }
    Some(name.into())
}

fn accept(node: &Node, faults: &mut Faults<'_>) -> Option<Vec<Accept>> {
    let words = [("json", Accept::Json), ("form", Accept::Form), ("query", Accept::Query)];
    let items = list(node, faults)?;
    if items.is_empty() {
        faults.expected(node, "a list of json, form, query");
    }
    let read: Vec<_> = items.iter().map(|item| word(item, &words, faults)).collect();
    read.into_iter().collect()
}

fn filter(node: &Node, faults: &mut Faults<'_>) -> Option<Filter> {
    match Filter::compile(text(node, faults)?) {
        Ok(filter) => Some(filter),
        Err(mistakes) => {
            for mistake in mistakes {
                faults.add_within(node, mistake.at, mistake.length, mistake.message);
            }
            None
        }
    }
}
