//! The actor that brings bodies of declared sources to canonical events. It has threads of its own, so that filters take
//! no time from the events of built-in sources.

use std::sync::Arc;

use actix::{Actor, Context, Handler, Message, MessageResult};

use super::incoming::Incoming;
use crate::event::{FieldError, Redactor, Refusal, Source, SourceMap};
use crate::gateway::elements::Cursor;
use crate::gateway::samples::Samples;
use crate::gateway::validate::{SLICE, SLICE_BYTES};
use crate::gateway::validated::{Next, Rejected, Validated};
use crate::log::Reason;
use crate::runtime::Held;
use crate::source::declared::{Outcome, Privacy, RefusedBody};

/// Maximum errors of a refused event.
const MAX_ERRORS: usize = 100;
/// Maximum bytes of them.
const MAX_ERROR_BYTES: usize = 8 * 1_024;
/// Maximum bytes of an error's path.
const MAX_PATH: usize = 256;

/// Convert the next events of a body: a slice of a body whose elements are events, else the whole body.
#[derive(Clone)]
pub(in crate::gateway) struct Convert {
    pub incoming: Arc<Incoming>,
    pub from: Cursor,
}

impl Message for Convert {
    type Result = Validated;
}

/// The actor. It holds nothing between slices.
pub(in crate::gateway) struct Converter {
    /// Removes personal data, if that is configured.
    pub redactor: Option<Arc<Redactor>>,
    /// Sends samples to those who look.
    pub samples: Samples,
}

impl Actor for Converter {
    type Context = Context<Self>;
}

impl Handler<Held<Convert>> for Converter {
    type Result = MessageResult<Held<Convert>>;

    fn handle(&mut self, held: Held<Convert>, _: &mut Self::Context) -> Self::Result {
        let (convert, _room) = held.open();
        let privacy = self.redactor.as_deref().map(|redactor| redactor as &dyn Privacy);
        let converted = convert.run(privacy);
        self.samples.offer(&convert.incoming.body, &converted);
        MessageResult(converted)
    }
}

impl Convert {
    /// Converts a slice, or the whole body.
    pub fn run(&self, privacy: Option<&dyn Privacy>) -> Validated {
        let mut converted = Converted {
            source: self.incoming.served.source,
            canonical: Vec::new(),
            validated: Validated {
                accepted: SourceMap::default(),
                rejected: Vec::new(),
                redacted: None,
                next: Next::End,
            },
        };
        let next = if self.incoming.takes_elements() {
            self.run_slice(privacy, &mut converted)
        } else {
            self.run_whole(privacy, &mut converted)
        };
        let mut validated = converted.validated;
        validated.next = next;
        validated.redacted = Some(converted.canonical);
        validated
    }

    fn run_whole(&self, privacy: Option<&dyn Privacy>, converted: &mut Converted) -> Next {
        let file = &self.incoming.served.file;
        match self.incoming.with_request(|request| file.events_with(request, privacy)) {
            Ok(outcomes) => {
                for (index, outcome) in outcomes.into_iter().enumerate() {
                    converted.add(index, outcome);
                }
            }
            Err(RefusedBody::Filter { message, body }) => {
                let errors = vec![FieldError { path: String::new(), message }];
                converted.refuse(0, None, errors, body, Reason::Filter);
            }
            Err(refused) => return Next::Refused(refused),
        }
        Next::End
    }

    fn run_slice(&self, privacy: Option<&dyn Privacy>, converted: &mut Converted) -> Next {
        let Incoming { served, body, received, .. } = &*self.incoming;
        let mut at = self.from;
        loop {
            match at.next_element(body) {
                Ok(None) => return Next::End,
                Err(why) => return Next::NotJson(why),
                Ok(Some(element)) => match served.file.event(&body[element], *received, privacy) {
                    Ok(outcome) => converted.add(at.index() - 1, outcome),
                    Err(refused) => return Next::Refused(refused),
                },
            }
            if at.index() - self.from.index() == SLICE || at.offset() - self.from.offset() >= SLICE_BYTES {
                return Next::More(at);
            }
        }
    }
}

/// The outcomes of a slice.
struct Converted {
    source: Source,
    /// Canonical events, end to end.
    canonical: Vec<u8>,
    validated: Validated,
}

impl Converted {
    fn add(&mut self, index: usize, outcome: Outcome<'_>) {
        match outcome {
            Outcome::Event(event) => {
                let from = self.canonical.len();
                event.write(&mut self.canonical);
                self.validated.accepted.of_mut(self.source).push(from..self.canonical.len());
            }
            Outcome::Refused(refused) => {
                self.refuse(index, refused.id, refused.errors, refused.raw, Reason::Invalid);
            }
        }
    }

    fn refuse(
        &mut self,
        index: usize,
        id: Option<String>,
        errors: Vec<FieldError>,
        kept: String,
        reason: Reason,
    ) {
        let (errors, truncated) = bounded(errors);
        let refusal = Refusal { event_id: id, source: Some(self.source), errors, truncated };
        let kept = Some(kept.into_bytes());
        self.validated.rejected.push(Rejected { index, bytes: 0..0, redacted: kept, reason, refusal });
    }
}

/// The first errors, as many as an answer and a letter have; true if there are more.
fn bounded(mut errors: Vec<FieldError>) -> (Vec<FieldError>, bool) {
    let (mut bytes, mut kept) = (0, 0);
    for error in &mut errors {
        cut(&mut error.path, MAX_PATH);
        cut(&mut error.message, MAX_ERROR_BYTES / 2);
        bytes += error.path.len() + error.message.len();
        if kept == MAX_ERRORS - 1 || bytes > MAX_ERROR_BYTES {
            break;
        }
        kept += 1;
    }
    let more = errors.len() - kept;
    if more <= 1 && bytes <= MAX_ERROR_BYTES {
        return (errors, false);
    }
    errors.truncate(kept);
    errors.push(FieldError { path: String::new(), message: format!("there are {more} more errors") });
    (errors, true)
}

/// Cuts a text to so many bytes, at a character.
fn cut(text: &mut String, most: usize) {
    if text.len() > most {
        let end = (0..=most).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(count: usize, length: usize) -> Vec<FieldError> {
        (0..count).map(|n| FieldError { path: format!("p.{n}"), message: "é".repeat(length) }).collect()
    }

    #[test]
    fn errors_are_bounded_in_number_and_in_bytes() {
        for (count, length, expected, truncated) in [
            (1, 3, 1, false),
            (100, 3, 100, false),
            (101, 3, 100, true),
            (5_000, 3, 100, true),
            (1, 9_000, 1, false),
        ] {
            let (kept, more) = bounded(errors(count, length));
            assert_eq!((kept.len(), more), (expected, truncated), "{count} of {length}");
        }
        let (kept, more) = bounded(errors(50, 1_000));
        let bytes: usize = kept.iter().map(|error| error.path.len() + error.message.len()).sum();
        assert!(more && bytes <= MAX_ERROR_BYTES + 64, "{bytes}");
        assert_eq!(kept.last().unwrap().message, format!("there are {} more errors", 50 - (kept.len() - 1)));
    }
}
