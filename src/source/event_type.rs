//! Types of event.

use super::codes::Code;
use super::stage::FunnelStage;

/// A type of event of one source. A declared source has a type of its own for each stage that a name was seen in.
#[derive(Debug, PartialEq, Eq)]
pub struct EventType {
    /// The name and its number.
    pub(super) entry: Code,
    /// The funnel stage of all events of this type.
    pub stage: FunnelStage,
    /// True if the amount of such an event is revenue. Events of declared sources tell it one by one.
    pub makes_revenue: bool,
}

impl EventType {
    /// A type of the given number.
    pub(super) const fn new(number: i16, name: &'static str, stage: FunnelStage) -> Self {
        Self { entry: Code { number, name }, stage, makes_revenue: false }
    }

    /// A type whose amount is revenue.
    pub(super) const fn with_revenue(number: i16, name: &'static str, stage: FunnelStage) -> Self {
        Self { entry: Code { number, name }, stage, makes_revenue: true }
    }

    /// The name as publishers send it.
    pub const fn name(&self) -> &'static str {
        self.entry.name
    }

    /// The number that rows keep.
    pub const fn code(&self) -> i16 {
        self.entry.number
    }
}
