//! Results of validation: the events of a slice of a body, sorted into valid and refused ones.

use std::ops::Range;

use super::elements::Cursor;
use crate::event::{Refusal, SourceMap};
use crate::log::Reason;
use crate::source::declared::RefusedBody;

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
