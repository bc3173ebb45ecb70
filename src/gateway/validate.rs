//! The actor that validates events. A body comes to it slice by slice, so that big bodies take turns
//! with small ones.

use std::ops::Range;
use std::sync::Arc;

use actix::{Actor, Context, Handler, Message, MessageResult};
use bytes::Bytes;

use super::elements::Cursor;
use super::samples::Samples;
use super::validated::{Next, Rejected, Validated};
use crate::event::{FieldError, MAX_EVENT_BYTES, Redactor, Refusal, Source, SourceMap, decode};
use crate::log::Reason;
use crate::runtime::Held;

/// Events of one slice: a few milliseconds of work.
pub(super) const SLICE: usize = 1_000;
/// Bytes after which a slice ends as well.
pub(super) const SLICE_BYTES: usize = 512 * 1_024;

/// Validate the next events of a body.
#[derive(Debug, Clone)]
pub(super) struct Validate {
    pub body: Bytes,
    pub from: Cursor,
    /// The source whose own address the body came to.
    pub only: Option<Source>,
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
                Ok(Some(bytes)) => self.validate_one(at.index() - 1, bytes, redactor, &mut validated),
            }
            if at.index() - self.from.index() == SLICE || at.offset() - self.from.offset() >= SLICE_BYTES {
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
