//! From a request to canonical events and refusals.

use super::budget::{Bound, Limits};
use super::event::{Outcome, Refused, RefusedBody};
use super::file::{Answer, Declared};
use super::filter::{Failed, Variables};
use super::json;
use super::privacy::Privacy;
use super::reason::{MISSING, NOT_OBJECT, TOO_LARGE};
use super::request::{Method, Request};
use super::value::{Members, Value};
use super::verify::Check;
use crate::json::FieldError;
use crate::json::scalar::format_micros;
use crate::source::MAX_EVENT_BYTES;

/// Most events of one body.
const MAX_EVENTS: usize = 100_000;

/// Member with which a filter refuses one event: a message, or messages by path.
const REFUSE: &str = "_refuse";

/// The reason that a text is refused which the database cannot hold.
const NUL: &str = "must not contain U+0000 or a lone surrogate";

/// Message of a filter's error where it could quote personal data.
const FAILED: &str = "the filter fails on the body";

impl Declared {
    /// Makes events of a request: each is an event or refused by itself, in the order of the body. A body that holds
    /// nothing, as a platform's ping, makes none.
    pub fn events(&self, request: &Request<'_>) -> Result<Vec<Outcome<'_>>, RefusedBody> {
        self.events_with(request, None)
    }

    /// As [`events`](Self::events), without personal data where its treatment is given.
    pub fn events_with(
        &self,
        request: &Request<'_>,
        privacy: Option<&dyn Privacy>,
    ) -> Result<Vec<Outcome<'_>>, RefusedBody> {
        let Some(body) = self.body(request)? else { return Ok(Vec::new()) };
        let query = match &self.filter {
            Some(filter) if filter.uses_query => self.query(request)?,
            _ => Value::Null,
        };
        let values = match self.values(&body, request, query) {
            Ok(values) => values,
            Err((message, quotes)) => {
                let (message, body) = match privacy {
                    None => (message, body.to_json()),
                    // Pointers to personal data are into events, which there are none of.
                    Some(_) if quotes => (FAILED.to_owned(), String::new()),
                    Some(_) => (message, String::new()),
                };
                return Err(RefusedBody::Filter { message, body });
            }
        };
        Ok(values.into_iter().map(|event| self.judge(event, request.received, privacy)).collect())
    }

    /// The events of a body, not judged yet. The error is a message, and true if it can quote the body.
    fn values(
        &self,
        body: &Value,
        request: &Request<'_>,
        query: Value,
    ) -> Result<Vec<Value>, (String, bool)> {
        let Some(filter) = &self.filter else {
            let events = match body {
                Value::Array(array) => array.items.as_slice(),
                one => std::slice::from_ref(one),
            };
            if events.len() > MAX_EVENTS {
                return Err((format!("the body holds more than {MAX_EVENTS} events"), false));
            }
            return Ok(events.to_vec());
        };
        let variables = Variables {
            headers: if filter.uses_headers { self.headers(request) } else { Value::Null },
            query,
            received: Value::text(&format_micros(request.received)),
        };
        let limits = Limits::for_body(request.body.len() + request.query.len());
        let mut is_over = false;
        let mut values = Vec::new();
        let ended = filter.run(body.clone(), variables, limits, |value| {
            is_over = values.len() >= MAX_EVENTS;
            values.push(value);
            !is_over
        });
        if is_over {
            return Err((Bound::Outputs(MAX_EVENTS).to_string(), false));
        }
        match ended {
            Ok(()) => Ok(values),
            Err(Failed::Bound(bound)) => Err((bound.to_string(), false)),
            Err(Failed::Error(message)) => Err((message, true)),
        }
    }

    /// Makes events of a body that was set aside whole: the JSON of [`RefusedBody::Filter`]. Filters see neither headers
    /// nor query.
    pub fn events_of_body(
        &self,
        json: &[u8],
        received: i64,
        privacy: Option<&dyn Privacy>,
    ) -> Result<Vec<Outcome<'_>>, RefusedBody> {
        let body =
            json::parse(json).map_err(|error| RefusedBody::Unreadable(format!("not JSON: {error}")))?;
        let request = Request { method: Method::Post, headers: &[], query: "", body: json, received };
        let values =
            self.values(&body, &request, Value::object(Members::new())).map_err(|(message, quotes)| {
                let message = if privacy.is_some() && quotes { FAILED.to_owned() } else { message };
                RefusedBody::Filter { message, body: String::new() }
            })?;
        Ok(values.into_iter().map(|event| self.judge(event, received, privacy)).collect())
    }

    /// True if each element of a body of JSON is an event by itself, so that a large body can be judged in parts.
    pub fn takes_elements(&self) -> bool {
        self.filter.is_none() && !matches!(self.check, Some(Check::JsonField(..)))
    }

    /// Judges one event as it is behind the filter: an element of a body, or a dead letter.
    pub fn event(
        &self,
        json: &[u8],
        received: i64,
        privacy: Option<&dyn Privacy>,
    ) -> Result<Outcome<'_>, RefusedBody> {
        let event =
            json::parse(json).map_err(|error| RefusedBody::Unreadable(format!("not JSON: {error}")))?;
        Ok(self.judge(event, received, privacy))
    }

    /// Judges one event.
    fn judge(&self, mut event: Value, received: i64, privacy: Option<&dyn Privacy>) -> Outcome<'_> {
        let Value::Object(object) = &event else {
            // What is no object has no place that a pointer of the file could name.
            let raw = if privacy.is_some() { String::new() } else { event.to_json() };
            return Outcome::Refused(Refused { id: None, errors: vec![error("", NOT_OBJECT)], raw });
        };
        if let Some(reason) = object.members.get(REFUSE).filter(|reason| **reason != Value::Null) {
            let errors = reasons(reason);
            let mut members = object.members.clone();
            members.remove(REFUSE);
            return self.refused(Value::object(members), errors, privacy);
        }
        let raw = event.to_json();
        let mut errors = self.schema.as_ref().map(|schema| schema.errors(&event)).unwrap_or_default();
        if raw.len() > MAX_EVENT_BYTES {
            errors.push(error("", TOO_LARGE));
        }
        if raw.contains("\\u0000") {
            unstorable(&event, &mut Vec::new(), &mut errors);
        }
        match self.map.apply(&event, &self.name, received) {
            Ok(mut canonical) if errors.is_empty() => {
                let mut raw = raw;
                if let Some(privacy) = privacy {
                    self.hide(&mut event, Some(&mut canonical), privacy);
                    raw = event.to_json();
                    if raw.len() > MAX_EVENT_BYTES {
                        let errors = vec![error("", TOO_LARGE)];
                        let id = Some(canonical.id.into_owned());
                        return Outcome::Refused(Refused { id, errors, raw: String::new() });
                    }
                }
                raw.shrink_to_fit();
                canonical.raw = raw.into();
                return Outcome::Event(Box::new(canonical));
            }
            Ok(_) => {}
            Err(of_map) => {
                // Where a schema finds mistakes, it also says what is missing.
                let by_schema = errors.len();
                for error in of_map {
                    let is_known = errors.iter().any(|known| known.path == error.path);
                    if !is_known && (by_schema == 0 || error.message != MISSING) {
                        errors.push(error);
                    }
                }
            }
        }
        self.refused(event, errors, privacy)
    }

    /// A refused event, without personal data where its treatment is given.
    fn refused(
        &self,
        mut event: Value,
        mut errors: Vec<FieldError>,
        privacy: Option<&dyn Privacy>,
    ) -> Outcome<'_> {
        let mut id = self.map.id(&event);
        if let Some(privacy) = privacy {
            id = id.map(|id| self.hide_id(id, &event, privacy));
            self.hide(&mut event, None, privacy);
            self.hide_errors(&mut errors);
        }
        let mut raw = event.to_json();
        if privacy.is_some() && raw.len() > MAX_EVENT_BYTES {
            raw.clear();
        }
        Outcome::Refused(Refused { id, errors, raw })
    }
}

fn error(path: &str, message: &str) -> FieldError {
    FieldError { path: path.to_owned(), message: message.to_owned() }
}

/// Errors that a filter tells: a text for the whole event, or texts by path.
fn reasons(reason: &Value) -> Vec<FieldError> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_json(), str::to_owned);
    match reason {
        Value::Object(object) if !object.members.is_empty() => {
            object.members.iter().map(|(path, message)| error(path, &text(message))).collect()
        }
        other => vec![error("", &text(other))],
    }
}

/// Finds texts and keys with U+0000, which also stands for a lone surrogate.
fn unstorable(value: &Value, path: &mut Vec<String>, errors: &mut Vec<FieldError>) {
    match value {
        Value::Text(text) if text.contains('\0') => errors.push(error(&path.join("."), NUL)),
        Value::Array(array) => {
            for (index, item) in array.items.iter().enumerate() {
                path.push(index.to_string());
                unstorable(item, path, errors);
                path.pop();
            }
        }
        Value::Object(object) => {
            for (key, value) in &object.members {
                path.push(key.replace('\0', "\u{fffd}"));
                if key.contains('\0') {
                    errors.push(error(&path.join("."), NUL));
                }
                unstorable(value, path, errors);
                path.pop();
            }
        }
        _ => {}
    }
}

impl RefusedBody {
    /// The answer to a request with such a body, and its refusal where it is set aside.
    pub(super) fn into_outcome(self, success: &Answer) -> (Answer, Vec<Outcome<'static>>) {
        let message = self.to_string();
        let status = match self {
            Self::Method(_) => 405,
            Self::ContentType(_) => 415,
            Self::Unreadable(_) => 400,
            Self::Filter { body, .. } => {
                let refused = Refused { id: None, errors: vec![error("", &message)], raw: body };
                return (success.clone(), vec![Outcome::Refused(refused)]);
            }
        };
        (Answer { status, body: Some(message), content_type: "text/plain; charset=utf-8" }, Vec::new())
    }
}
