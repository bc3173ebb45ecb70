//! The contract of a built-in source: everything that the system has to know about a platform.
//!
//! A built-in source is one constant of this type. The compiler names each member that is missing.

use serde_json::value::RawValue;

use super::codes::Code;
use super::event_type::EventType;
use super::reading::Reading;
use super::sample::Samples;
use super::setting::SourceSetting;
use super::signature::Signature;
use super::stage::FunnelStage;

/// Reads one part of an event (the user, or an engagement) from its JSON.
pub(crate) type ReadShape = for<'a> fn(&mut Reading<'a>, &'a RawValue);

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
