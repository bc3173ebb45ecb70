//! The actor that validates events. A body comes to it slice by slice, so that big bodies take turns
//! with small ones.

use std::ops::Range;
use std::sync::Arc;

use actix::{Actor, Context, Handler, Message, MessageResult};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::samples::Samples;
use crate::event::{FieldError, MAX_EVENT_BYTES, Redactor, Refusal, Source, SourceMap, decode};
use crate::log::Reason;
use crate::runtime::Held;
use crate::source::declared::RefusedBody;

/// Events of one slice: a few milliseconds of work.
pub(super) const SLICE: usize = 1_000;
/// Bytes after which a slice ends as well.
pub(super) const SLICE_BYTES: usize = 512 * 1_024;

/// The position at which a slice of a body begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Cursor {
    /// In bytes.
    offset: usize,
    /// Events before it.
    index: usize,
    /// True within an array.
    in_array: bool,
}

impl Cursor {
    /// Position in the body, in bytes.
    pub fn offset(self) -> usize {
        self.offset
    }

    /// Number of events before it.
    pub fn index(self) -> usize {
        self.index
    }

    /// The next element of a body; `None` at the body's end. The cursor goes behind it.
    pub fn next_element(&mut self, body: &[u8]) -> Result<Option<Range<usize>>, String> {
        let element = element(body, self)?;
        self.index += usize::from(element.is_some());
        Ok(element)
    }
}

/// Validate the next events of a body.
#[derive(Debug, Clone)]
pub(super) struct Validate {
    pub body: Bytes,
    pub from: Cursor,
    /// The source whose own address the body came to.
    pub only: Option<Source>,
}

/// An event that was refused.
#[derive(Debug)]
pub(super) struct Rejected {
    /// Its place in the body's array.
    pub index: usize,
    /// Its bytes in the body.
    pub bytes: Range<usize>,
    /// The same without personal data, where that is not kept; the event itself of a declared source.
    pub redacted: Option<Vec<u8>>,
    pub reason: Reason,
    pub refusal: Refusal,
}

/// The continuation of a body after a slice.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    More(Cursor),
    End,
    /// The body as a whole is no JSON, or neither object nor array.
    NotJson(String),
    /// The body as a whole is none that the declared source takes.
    Refused(RefusedBody),
}

/// The result of a slice.
#[derive(Debug)]
pub(super) struct Validated {
    /// Valid events, as ranges of the body, or of `redacted`.
    pub accepted: SourceMap<Vec<Range<usize>>>,
    pub rejected: Vec<Rejected>,
    /// The valid events without personal data, where that is not kept; the canonical events of a declared source.
    pub redacted: Option<Vec<u8>>,
    pub next: Next,
}

impl Message for Validate {
    type Result = Validated;
}

/// The actor. It holds nothing between slices.
pub(super) struct Validator {
    /// Removes personal data, if that is configured.
    pub redactor: Option<Arc<Redactor>>,
    /// Sends samples to those who look.
    pub samples: Samples,
}

impl Actor for Validator {
    type Context = Context<Self>;
}

impl Handler<Held<Validate>> for Validator {
    type Result = MessageResult<Held<Validate>>;

    fn handle(&mut self, held: Held<Validate>, _: &mut Self::Context) -> Self::Result {
        let (validate, _room) = held.open();
        let validated = validate.run(self.redactor.as_deref());
        self.samples.offer(&validate.body, &validated);
        MessageResult(validated)
    }
}

impl Validate {
    fn run(&self, redactor: Option<&Redactor>) -> Validated {
        let mut validated = Validated {
            accepted: SourceMap::default(),
            rejected: Vec::new(),
            redacted: redactor.map(|_| Vec::new()),
            next: Next::End,
        };
        let mut at = self.from;
        validated.next = loop {
            match at.next_element(&self.body) {
                Ok(None) => break Next::End,
                Err(why) => break Next::NotJson(why),
                Ok(Some(bytes)) => self.validate_one(at.index - 1, bytes, redactor, &mut validated),
            }
            if at.index - self.from.index == SLICE || at.offset - self.from.offset >= SLICE_BYTES {
                break Next::More(at);
            }
        };
        validated
    }

    fn validate_one(
        &self,
        index: usize,
        bytes: Range<usize>,
        redactor: Option<&Redactor>,
        validated: &mut Validated,
    ) {
        let event = match decode(&self.body[bytes.clone()], self.only) {
            Ok(event) => event,
            Err(refusal) => {
                // Of what is larger than an event nothing is kept then.
                let redacted = redactor.map(|redactor| {
                    let mut kept = Vec::new();
                    if bytes.len() <= MAX_EVENT_BYTES {
                        redactor.redact(&self.body[bytes.clone()], &mut kept);
                    }
                    kept
                });
                let reason = Reason::Invalid;
                return validated.rejected.push(Rejected { index, bytes, redacted, reason, refusal });
            }
        };
        let range = match (redactor, &mut validated.redacted) {
            (Some(redactor), Some(redacted)) => {
                let from = redacted.len();
                redactor.redact(&self.body[bytes.clone()], redacted);
                if redacted.len() - from > MAX_EVENT_BYTES {
                    redacted.truncate(from);
                    let message = format!("is larger than {MAX_EVENT_BYTES} bytes once its user is hashed");
                    let refusal = Refusal {
                        event_id: Some(event.id.to_string()),
                        source: Some(event.source),
                        errors: vec![FieldError { path: String::new(), message }],
                        truncated: false,
                    };
                    let (redacted, reason) = (Some(Vec::new()), Reason::Invalid);
                    return validated.rejected.push(Rejected { index, bytes, redacted, reason, refusal });
                }
                from..redacted.len()
            }
            _ => bytes,
        };
        validated.accepted.of_mut(event.source).push(range);
    }
}

/// The next element; `None` at the body's end. The cursor goes behind it.
fn element(body: &[u8], cursor: &mut Cursor) -> Result<Option<Range<usize>>, String> {
    let mut at = skip_space(body, if cursor.index == 0 { begin(body)? } else { cursor.offset });
    if cursor.index == 0 {
        match body.get(at) {
            Some(b'{') => {}
            Some(b'[') => {
                cursor.in_array = true;
                at = skip_space(body, at + 1);
                if body.get(at) == Some(&b']') {
                    return end(body, at + 1).map(|()| None);
                }
            }
            Some(_) => return Err(format!("neither an object nor an array: at byte {at}")),
            None => return Err("the body is empty".to_owned()),
        }
    } else if cursor.in_array {
        match body.get(at) {
            Some(b',') => at = skip_space(body, at + 1),
            Some(b']') => return end(body, at + 1).map(|()| None),
            Some(_) => return Err(format!("unexpected character at byte {at}")),
            None => return Err("the array does not end".to_owned()),
        }
    } else {
        // After a single object nothing may follow.
        return end(body, at).map(|()| None);
    }
    let mut reader = serde_json::Deserializer::from_slice(&body[at..]);
    let raw = <&RawValue>::deserialize(&mut reader).map_err(|error| describe(&error, at))?;
    let element = at..at + raw.get().len();
    cursor.offset = element.end;
    if !cursor.in_array {
        // Whatever follows a single object makes the body something else, and it counts for nothing.
        end(body, element.end)?;
    }
    Ok(Some(element))
}

/// The beginning of the JSON: a byte order mark before it is passed over, as RFC 8259 allows (8.1).
fn begin(body: &[u8]) -> Result<usize, String> {
    let first = &body[..body.len().min(4)];
    if first.starts_with(b"\xef\xbb\xbf") {
        return Ok(3);
    }
    // No text in UTF-8 has these; each in UTF-16 or UTF-32 does, for JSON begins with an ASCII character.
    if first.contains(&0) || first.starts_with(b"\xff\xfe") || first.starts_with(b"\xfe\xff") {
        return Err("it is in UTF-16 or UTF-32, and must be in UTF-8 (RFC 8259, 8.1)".to_owned());
    }
    Ok(0)
}

/// Nothing but space may follow.
fn end(body: &[u8], at: usize) -> Result<(), String> {
    let at = skip_space(body, at);
    if at < body.len() { Err(format!("something follows the value at byte {at}")) } else { Ok(()) }
}

fn skip_space(body: &[u8], from: usize) -> usize {
    let space = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
    from + body[from.min(body.len())..].iter().take_while(|byte| space(byte)).count()
}

fn describe(error: &serde_json::Error, at: usize) -> String {
    let text = error.to_string();
    let what = text.rfind(" at line ").map_or(text.as_str(), |end| &text[..end]);
    if error.line() == 1 {
        format!("{what} at byte {}", at + error.column())
    } else {
        format!("{what} after byte {at}")
    }
}

/// All events of a body that are accepted.
#[cfg(feature = "fuzzing")]
pub(super) fn all(body: Bytes, redactor: Option<&Redactor>) -> Vec<(Source, Vec<u8>)> {
    let (mut from, mut all) = (Cursor::default(), Vec::new());
    loop {
        let validated = Validate { body: body.clone(), from, only: None }.run(redactor);
        let bytes = validated.redacted.as_deref().unwrap_or(&body);
        for (source, events) in validated.accepted.iter() {
            all.extend(events.iter().map(|event| (source, bytes[event.clone()].to_vec())));
        }
        match validated.next {
            Next::More(next) => from = next,
            Next::End | Next::NotJson(_) | Next::Refused(_) => return all,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The elements that a body is cut into, or why it is no JSON.
    fn cut(body: &str) -> Result<Vec<String>, String> {
        let body = Bytes::copy_from_slice(body.as_bytes());
        let (mut from, mut elements) = (Cursor::default(), Vec::new());
        loop {
            let validated = Validate { body: body.clone(), from, only: None }.run(None);
            elements.extend(
                validated
                    .rejected
                    .iter()
                    .map(|rejected| String::from_utf8_lossy(&body[rejected.bytes.clone()]).into_owned()),
            );
            match validated.next {
                Next::More(next) => from = next,
                Next::End => return Ok(elements),
                Next::NotJson(why) => return Err(why),
                Next::Refused(refused) => panic!("{refused}"),
            }
        }
    }

    #[test]
    fn an_array_is_cut_into_its_elements() {
        assert_eq!(cut("[]").unwrap(), Vec::<String>::new());
        assert_eq!(cut(" [ ] ").unwrap(), Vec::<String>::new());
        assert_eq!(cut("{\"a\":[1,2]}").unwrap(), ["{\"a\":[1,2]}"]);
        assert_eq!(cut(" {} ").unwrap(), ["{}"]);
        assert_eq!(cut("\u{feff} [{}, 1]").unwrap(), ["{}", "1"]);
        assert_eq!(cut("\u{feff}{}").unwrap(), ["{}"]);
        assert_eq!(
            cut("[1, null ,\"x,]\",{\"a\":[]} , [[]]]").unwrap(),
            ["1", "null", "\"x,]\"", "{\"a\":[]}", "[[]]"]
        );
    }

    #[test]
    fn a_body_that_is_not_json_is_refused_as_a_whole() {
        for body in [
            "",
            " ",
            "5",
            "\"x\"",
            "null",
            "{",
            "[",
            "[1",
            "[1,",
            "[1,]",
            "[,1]",
            "[1 2]",
            "[1}",
            "{}}",
            "{} {}",
            "{},{}",
            "[]]",
            "[] x",
            "[1]]",
            "{\"a\":}",
            "[{\"a\" 1}]",
            "[01]",
            "\u{feff}",
            "[\u{feff}]",
            "\u{feff}\u{feff}[]",
            "[nul]",
            "{}]",
        ] {
            assert!(cut(body).is_err(), "{body}: {:?}", cut(body));
        }
    }

    #[test]
    fn another_encoding_than_utf_8_is_named() {
        for utf_16 in
            [&b"[\0]\0"[..], b"\0[\0]", b"\xff\xfe[\0]\0", b"\xfe\xff\0[\0]", b"\0\0\0[", b"[\0\0\0"]
        {
            let validate = Validate { body: Bytes::from_static(utf_16), from: Cursor::default(), only: None };
            let Next::NotJson(why) = validate.run(None).next else { panic!("{utf_16:?}") };
            assert!(why.contains("must be in UTF-8"), "{why}");
        }
    }

    #[test]
    fn a_long_array_comes_in_slices() {
        let body = format!("[{}]", vec!["{}"; SLICE * 2 + 1].join(","));
        assert_eq!(cut(&body).unwrap().len(), SLICE * 2 + 1);
        let exact = format!("[{}]", vec!["{}"; SLICE].join(" , "));
        assert_eq!(cut(&exact).unwrap().len(), SLICE);
        let open = format!("[{}", vec!["{}"; SLICE].join(","));
        assert!(cut(&open).is_err());
    }

    proptest! {
        #[test]
        fn bodies_are_json_exactly_where_serde_json_reads_them(body in "[\\[\\]{},:\"a1 ]{0,12}") {
            let whole: Result<serde_json::Value, _> = serde_json::from_str(&body);
            let expected = match whole {
                Ok(serde_json::Value::Array(items)) => Some(items.len()),
                Ok(serde_json::Value::Object(_)) => Some(1),
                _ => None,
            };
            prop_assert_eq!(cut(&body).ok().map(|elements| elements.len()), expected);
        }
    }
}
