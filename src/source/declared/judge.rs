//! From a request to canonical events and refusals.

use super::budget::{Bound, Limits};
use super::event::{Outcome, Refused, RefusedBody};
use super::file::{Answer, Declared};
use super::filter::{Failed, Variables};
use super::map::MISSING;
use super::request::Request;
use super::value::Value;
use crate::json::FieldError;
use crate::json::scalar::format_micros;
use crate::source::MAX_EVENT_BYTES;

/// Most events of one body.
const MAX_EVENTS: usize = 100_000;

/// Member with which a filter refuses one event: a message, or messages by path.
const REFUSE: &str = "_refuse";

/// The reason that a text is refused which the database cannot hold.
const NUL: &str = "must not contain U+0000 or a lone surrogate";

impl Declared {
    /// Makes events of a request: each is an event or refused by itself, in the order of the body. A body that holds
    /// nothing, as a platform's ping, makes none.
    pub fn events(&self, request: &Request<'_>) -> Result<Vec<Outcome<'_>>, RefusedBody> {
        let Some(body) = self.body(request)? else { return Ok(Vec::new()) };
        let mut outcomes = Vec::new();
        let Some(filter) = &self.filter else {
            let events = match &body {
                Value::Array(array) => array.items.as_slice(),
                one => std::slice::from_ref(one),
            };
            if events.len() > MAX_EVENTS {
                return Err(RefusedBody::Filter(format!("the body holds more than {MAX_EVENTS} events")));
            }
            outcomes.extend(events.iter().map(|event| self.judge(event.clone(), request.received)));
            return Ok(outcomes);
        };
        let variables = Variables {
            headers: if filter.uses_headers { self.headers(request) } else { Value::Null },
            query: if filter.uses_query { self.query(request)? } else { Value::Null },
            received: Value::text(&format_micros(request.received)),
        };
        let limits = Limits::for_body(request.body.len() + request.query.len());
        let mut is_over = false;
        let mut values = Vec::new();
        let ended = filter.run(body, variables, limits, |value| {
            is_over = values.len() >= MAX_EVENTS;
            values.push(value);
            !is_over
        });
        if is_over {
            return Err(RefusedBody::Filter(Bound::Outputs(MAX_EVENTS).to_string()));
        }
        match ended {
            Ok(()) => {}
            Err(Failed::Bound(bound)) => return Err(RefusedBody::Filter(bound.to_string())),
            Err(Failed::Error(message)) => return Err(RefusedBody::Filter(message)),
        }
        outcomes.extend(values.into_iter().map(|event| self.judge(event, request.received)));
        Ok(outcomes)
    }

    /// Judges one event.
    fn judge(&self, event: Value, received: i64) -> Outcome<'_> {
        let Value::Object(object) = &event else {
            return refused(&event, vec![error("", "must be an object")]);
        };
        if let Some(reason) = object.members.get(REFUSE).filter(|reason| **reason != Value::Null) {
            let errors = reasons(reason);
            let mut members = object.members.clone();
            members.remove(REFUSE);
            return refused(&Value::object(members), errors);
        }
        let mut raw = event.to_json();
        let mut errors = self.schema.as_ref().map(|schema| schema.errors(&event)).unwrap_or_default();
        if raw.len() > MAX_EVENT_BYTES {
            errors.push(error("", "is larger than 256 KiB"));
        }
        if raw.contains("\\u0000") {
            unstorable(&event, &mut Vec::new(), &mut errors);
        }
        match self.map.apply(&event, &self.name, received) {
            Ok(mut canonical) if errors.is_empty() => {
                raw.shrink_to_fit();
                canonical.raw = raw.into();
                Outcome::Event(Box::new(canonical))
            }
            Ok(_) => Outcome::Refused(Refused { errors, raw }),
            Err(of_map) => {
                // Where a schema finds mistakes, it also says what is missing.
                let by_schema = errors.len();
                for error in of_map {
                    let is_known = errors.iter().any(|known| known.path == error.path);
                    if !is_known && (by_schema == 0 || error.message != MISSING) {
                        errors.push(error);
                    }
                }
                Outcome::Refused(Refused { errors, raw })
            }
        }
    }
}

fn error(path: &str, message: &str) -> FieldError {
    FieldError { path: path.to_owned(), message: message.to_owned() }
}

fn refused(event: &Value, errors: Vec<FieldError>) -> Outcome<'static> {
    Outcome::Refused(Refused { errors, raw: event.to_json() })
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
            Self::Filter(_) => {
                let refused = Refused { errors: vec![error("", &message)], raw: String::new() };
                return (success.clone(), vec![Outcome::Refused(refused)]);
            }
        };
        (Answer { status, body: Some(message), content_type: "text/plain; charset=utf-8" }, Vec::new())
    }
}
