//! What a source's module declares: its types of event, its words, and how its parts are read.

use serde_json::value::RawValue;

use super::reading::Reading;
use super::words::{Word, words};

words! {
    /// Where in the funnel an event lies.
    FunnelStage { Top = 10 => "top", Bottom = 11 => "bottom" }
}

/// A type of event of one source.
#[derive(Debug, PartialEq, Eq)]
pub struct EventType {
    /// The word and its number.
    pub word: Word,
    /// The stage it belongs to.
    pub stage: FunnelStage,
    /// Whether its amount is revenue.
    pub makes_revenue: bool,
}

/// Reads one part of an event (the user, or an engagement) from its JSON.
pub(super) type ReadShape = for<'a> fn(&mut Reading<'a>, &'a RawValue);

/// What a source's module declares.
pub(super) struct SourceSpec {
    pub event_types: &'static [EventType],
    pub words: &'static [&'static [Word]],
    pub user: ReadShape,
    pub top: ReadShape,
    pub bottom: ReadShape,
}
