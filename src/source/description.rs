//! The contract of a built-in source: everything that the system has to know about a platform.
//!
//! A built-in source is one constant of this type. The compiler names each member that is missing.

use serde_json::value::RawValue;

use super::codes::Code;
use super::reading::Reading;
use super::sample::Samples;
use super::signature::Signature;
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

/// Reads one part of an event (the user, or an engagement) from its JSON.
pub(crate) type ReadShape = for<'a> fn(&mut Reading<'a>, &'a RawValue);

/// An environment variable that one source has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceSetting {
    /// The variable.
    pub name: &'static str,
    /// The default as it would be written; empty for none.
    pub default: &'static str,
    /// The help text.
    pub about: &'static str,
}

/// A handshake in which the platform asks for an echo of its challenge before it sends events (`GET`).
#[derive(Debug, Clone, Copy)]
pub struct Handshake {
    /// The query parameter that marks a handshake, and its value.
    pub mode: (&'static str, &'static str),
    /// The query parameter whose value is the answer.
    pub challenge: &'static str,
    /// The query parameter that must be the secret of `setting`, where that is set.
    pub token: &'static str,
    /// The token of the handshake.
    pub setting: SourceSetting,
    /// The summary of the route for `/openapi.json`.
    pub about: &'static str,
}

/// A member of a source's part of `/reports/demographics`, in the order of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Breakdown {
    /// Users by range of age.
    AgeGroups,
    /// Users by gender.
    Genders,
    /// Users by range of followers, and the mean of followers over events.
    Followers,
    /// Users by country.
    Countries,
    /// Users by city.
    Cities,
    /// Users by device.
    Devices,
    /// Mean of the watch time over events, in seconds.
    AverageWatchTime,
    /// Mean of the percentage watched over events.
    AveragePercentageWatched,
}

/// The contract of a platform whose events are read by Rust types.
pub(crate) struct Contract {
    /// The name on the wire, in routes, settings, metrics and logs, and its number.
    pub entry: Code,
    /// The name for people.
    pub title: &'static str,
    /// The types of its events.
    pub event_types: &'static [EventType],
    /// The code tables of its fields.
    pub codes: &'static [&'static [Code]],
    /// Reads `data.user`.
    pub user: ReadShape,
    /// Reads `data.engagement`, by funnel stage. An event's stage is one of these.
    pub engagements: &'static [(FunnelStage, ReadShape)],
    /// JSON Schemas (an object) of the user, `User`, and of each stage's engagement, such as `TopEngagement`.
    pub schemas: &'static str,
    /// The signature of its webhook requests, where the platform signs.
    pub signature: Option<Signature>,
    /// The handshake, where the platform has one.
    pub handshake: Option<Handshake>,
    /// The port of its collector.
    pub collector_port: SourceSetting,
    /// Its part of `/reports/demographics`.
    pub demographics: &'static [Breakdown],
    /// Sample events for the built-in publisher.
    pub samples: Samples,
}

impl Contract {
    /// The reader of a stage's engagement.
    pub fn engagement(&self, stage: FunnelStage) -> Option<ReadShape> {
        self.engagements.iter().find(|(known, _)| *known == stage).map(|(_, read)| *read)
    }
}
