//! Requests of a file's examples, with new ids and times each time.
//!
//! A file can compute ids and times of its events by any filter, so the values that they come from are found by trial:
//! each value of the request is changed, and the events tell if their ids or times follow.

use std::cmp::Reverse;

use super::draft::Draft;
use super::event::Outcome;
use super::example::Example;
use super::file::{Accept, Declared};
use super::json;
use super::leaf::{Body, Content, Leaf, Serial};
use super::request::{Method, pairs};
use super::verify::Check;

/// Largest distance of a value that counts as a time from the event's own time: 400 days.
const NEAR: i64 = 400 * 86_400 * 1_000_000;
/// Most values of a request that are tried; an example with more is no example to send.
const MAX_LEAVES: usize = 2_000;

/// The request of an example whose events are all taken.
#[derive(Debug)]
pub struct ExampleRequest {
    content: Content,
    ids: Vec<Leaf>,
    times: Vec<Leaf>,
    /// Time of the newest event, in microseconds since 1970.
    newest: i64,
    events: usize,
}

/// Parts of an event that a change of the request can touch.
#[derive(Debug, PartialEq, Eq)]
struct Facts {
    id: String,
    timestamp: i64,
    user: Option<String>,
    /// Type, stage and amount: what the example is an example of.
    kind: String,
    /// All other columns.
    columns: String,
}

impl Declared {
    /// Requests of the examples that expect events; `file` returns the bytes of a file that they name.
    pub fn example_requests(&self, file: &dyn Fn(&str) -> std::io::Result<Vec<u8>>) -> Vec<ExampleRequest> {
        let (mut seen, mut requests) = (Vec::new(), Vec::new());
        for example in self.examples.iter().filter(|example| example.expects_events()) {
            let Some(content) = self.content(example, file) else { continue };
            let draft = content.draft();
            if seen.contains(&draft) {
                continue;
            }
            requests.extend(ExampleRequest::of(self, content, example.given.received));
            seen.push(draft);
        }
        requests
    }

    /// The request of an example, without the headers that signing makes.
    fn content(&self, example: &Example, file: &dyn Fn(&str) -> std::io::Result<Vec<u8>>) -> Option<Content> {
        let (method, query, body) = example.given.with_file(file).ok()?;
        let is_made = |name: &str| self.check.as_ref().is_some_and(|check| check.makes_header(name));
        let mut headers = example.given.headers.clone();
        headers.retain(|(name, _)| !is_made(name));
        let mut draft = Draft { method, headers, query, body };
        let media = draft.with_request(0, |request| self.media(request));
        let body = match (method, media) {
            (Method::Get, _) => Body::Empty,
            (Method::Post, Ok(Accept::Json)) => Body::Json(json::parse(&draft.body).ok()?),
            (Method::Post, Ok(_)) => Body::Form(pairs(std::str::from_utf8(&draft.body).ok()?).collect()),
            (Method::Post, Err(_)) => return None,
        };
        match body {
            Body::Empty => {}
            Body::Json(_) => draft.set_header("Content-Type", "application/json".to_owned()),
            Body::Form(_) => draft.set_header("Content-Type", "application/x-www-form-urlencoded".to_owned()),
        }
        let mut query: Vec<_> = pairs(&draft.query).collect();
        if let Some(Check::Query(parameter, _)) = &self.check {
            query.retain(|(name, _)| name != parameter);
        }
        Some(Content { method, headers: draft.headers, query, body })
    }

    /// The events of a request; `None` if there are none, or one is refused.
    fn facts(&self, content: &Content, received: i64) -> Option<Vec<Facts>> {
        let draft = content.draft();
        let facts = draft.with_request(received, |request| {
            let outcomes = self.events(request).ok()?;
            outcomes.iter().map(Facts::of).collect::<Option<Vec<Facts>>>()
        });
        facts.filter(|facts| !facts.is_empty())
    }
}

impl Example {
    fn expects_events(&self) -> bool {
        self.expect.as_ref().is_some_and(|events| !events.is_empty())
            && self.refused.is_none()
            && self.answer.as_ref().is_none_or(|answer| answer.status < 400)
    }
}

impl Facts {
    fn of(outcome: &Outcome<'_>) -> Option<Self> {
        let Outcome::Event(event) = outcome else { return None };
        let (mut kind, mut columns) = (String::new(), String::new());
        for (name, value) in event.members() {
            let text = match name {
                "id" | "timestamp" | "user" | "raw" => continue,
                "type" | "stage" | "amount" | "currency" | "revenue" | "received" => &mut kind,
                _ => &mut columns,
            };
            text.push_str(name);
            value.write(text);
        }
        Some(Self {
            id: event.id.to_string(),
            timestamp: event.timestamp,
            user: event.user.as_ref().map(ToString::to_string),
            kind,
            columns,
        })
    }
}

impl ExampleRequest {
    /// Finds the values that ids and times come from; `None` if an event's id cannot be made another.
    fn of(source: &Declared, content: Content, received: i64) -> Option<Self> {
        let before = source.facts(&content, received)?;
        let newest = before.iter().map(|event| event.timestamp).max()?;
        let leaves = content.leaves();
        if leaves.len() > MAX_LEAVES {
            return None;
        }
        let is_near =
            |leaf: &Leaf| leaf.time().is_some_and(|time| time.abs_diff(newest) < NEAR.unsigned_abs());
        let (times, others): (Vec<Leaf>, Vec<Leaf>) = leaves.into_iter().partition(is_near);
        let changed = |leaf: &Leaf, text: &str| {
            let mut changed = content.clone();
            changed.set(leaf, text);
            let after = source.facts(&changed, received)?;
            let is_same = after.len() == before.len()
                && after.iter().zip(&before).all(|(after, before)| after.kind == before.kind);
            is_same.then_some(after)
        };
        // A value that only looks like a time can be one that the example depends on.
        let times = times
            .into_iter()
            .filter(|leaf| leaf.later(1_000_000).is_some_and(|later| changed(leaf, &later).is_some()))
            .collect();
        let mut serial = Serial::new(0);
        let mut found = Vec::new();
        for leaf in others {
            let Some(after) = changed(&leaf, &serial.id_like(&leaf.text)) else { continue };
            let pairs = || after.iter().zip(&before);
            let ids: Vec<bool> = pairs().map(|(after, before)| after.id != before.id).collect();
            if ids.contains(&true) {
                let columns = pairs().filter(|(after, before)| after.columns != before.columns).count();
                let users = pairs().filter(|(after, before)| after.user != before.user).count();
                // An id of its own comes before a text with JSON, a column and the user.
                let rank = (leaf.is_structured(), columns, users, Reverse(leaf.digits()));
                found.push((rank, ids, leaf));
            }
        }
        found.sort_by_key(|(rank, ..)| *rank);
        let (mut ids, mut is_new) = (Vec::new(), vec![false; before.len()]);
        for (_, changes, leaf) in found {
            if changes.iter().zip(&is_new).any(|(change, is_new)| *change && !is_new) {
                changes.iter().zip(&mut is_new).for_each(|(change, is_new)| *is_new |= change);
                ids.push(leaf);
            }
        }
        let request = Self { content, ids, times, newest, events: before.len() };
        let (renewed, again) =
            (request.content_at(&mut serial, received), request.content_at(&mut serial, received));
        let (renewed, again) = (source.facts(&renewed, received)?, source.facts(&again, received)?);
        let is_new = is_new.iter().all(|is_new| *is_new)
            && renewed.len() == before.len()
            && again.len() == before.len()
            && renewed.iter().zip(&again).all(|(renewed, again)| renewed.id != again.id);
        is_new.then_some(request)
    }

    /// Number of events.
    pub fn events(&self) -> usize {
        self.events
    }

    /// The request with new ids, and with times as if its newest event were at `at`, in microseconds since 1970.
    pub fn renewed(&self, serial: &mut Serial, at: i64) -> Draft {
        self.content_at(serial, at).draft()
    }

    fn content_at(&self, serial: &mut Serial, at: i64) -> Content {
        let mut content = self.content.clone();
        for leaf in &self.ids {
            content.set(leaf, &serial.id_like(&leaf.text));
        }
        for leaf in &self.times {
            if let Some(later) = leaf.later(at - self.newest) {
                content.set(leaf, &later);
            }
        }
        content
    }
}

#[cfg(test)]
mod tests {
    use super::super::Request;
    use super::super::secrets::Secrets;
    use super::*;
    use crate::source::shipped;

    const NOW: i64 = 1_798_765_432_000_000;

    /// Each shipped file with its requests.
    fn all() -> impl Iterator<Item = (Declared, Vec<ExampleRequest>)> {
        shipped::ALL.iter().map(|shipped| {
            let source = Declared::parse(&format!("{}.yaml", shipped.name), shipped.file).unwrap();
            let requests = source.example_requests(&shipped.reader());
            (source, requests)
        })
    }

    #[test]
    fn every_shipped_file_has_requests_whose_events_are_new_and_in_time() {
        let (mut sources, mut tried) = (0, 0);
        for (source, requests) in all() {
            sources += 1;
            assert!(!requests.is_empty(), "{} has nothing to send", source.name());
            let mut serial = Serial::new(77);
            let mut ids = std::collections::HashSet::new();
            for request in &requests {
                for round in 0..20 {
                    let at = NOW + round * 1_000_000;
                    let draft = request.renewed(&mut serial, at);
                    let events = draft.with_request(at, |request| {
                        let outcomes = source.events(request).unwrap();
                        outcomes.iter().map(Facts::of).collect::<Option<Vec<_>>>().unwrap()
                    });
                    assert_eq!(events.len(), request.events(), "{}", source.name());
                    let newest = events.iter().map(|event| event.timestamp).max().unwrap();
                    assert!(newest.abs_diff(at) < 1_000_000, "{}: {draft:?}", source.name());
                    for event in events {
                        tried += 1;
                        assert!(ids.insert(event.id), "{} sends an event twice: {draft:?}", source.name());
                    }
                }
            }
        }
        assert!(sources >= 12 && tried > 500, "{sources} sources, {tried} events");
    }

    #[test]
    fn every_request_that_is_signed_is_verified_with_its_secret_and_with_no_other() {
        let (mut signed, mut sources) = (0, 0);
        for (source, requests) in all() {
            let secret = "whsec_aW52ZW50ZWQtMjQtYnl0ZS1zZWNyZXQh";
            let secrets = |value: &str| Secrets::load(source.secrets(), |_| Some(value.to_owned())).unwrap();
            assert!(source.signing_secret().is_some(), "{} verifies nothing", source.name());
            sources += 1;
            let mut serial = Serial::new(5);
            for request in requests {
                let mut draft = request.renewed(&mut serial, NOW);
                source.sign(&mut draft, &secrets(secret), NOW / 1_000_000).unwrap();
                let verify = |value: &str| {
                    let check = |request: &Request<'_>| source.verify(request, &secrets(value));
                    draft.with_request(NOW + 2_000_000, check)
                };
                assert_eq!(verify(secret), Ok(()), "{}: {draft:?}", source.name());
                // While the secret is rotated, the new one comes first.
                assert_eq!(verify(&format!("another,{secret}")), Ok(()), "{}", source.name());
                assert!(verify("whsec_YW5vdGhlcg==").is_err(), "{}", source.name());
                signed += 1;
            }
            let mut draft =
                Draft { method: Method::Post, headers: vec![], query: String::new(), body: b"{}".into() };
            let error = source.sign(&mut draft, &Secrets::default(), 0).unwrap_err().to_string();
            assert!(error.contains(source.signing_secret().unwrap().as_str()), "{error}");
        }
        assert!(sources >= 12 && signed > 20, "{sources} sources, {signed} requests");
    }

    #[test]
    fn an_event_whose_id_is_a_constant_is_not_sent() {
        let text = "source: fixed\ntitle: Fixed\nmap:\n  id: {value: one}\n  timestamp: {value: received}\n  type: {value: a}\n\
                    \u{20} stage: {value: top}\nexamples:\n  - given: {body: {a: 1}}\n    expect: [{id: one}]\n";
        let source = Declared::parse("fixed.yaml", text).unwrap();
        assert!(source.example_requests(&|_| Err(std::io::ErrorKind::NotFound.into())).is_empty());
    }
}
