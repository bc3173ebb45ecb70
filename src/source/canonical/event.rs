//! The event itself, and the bounds of its members.

use std::borrow::Cow;

use crate::source::{FunnelStage, MAX_EVENT_BYTES};

/// Version of the form that is written. Higher ones are not read.
pub(super) const VERSION: u32 = 1;
/// Maximum bytes of a canonical event: `raw`, and twelve columns of 1,024 characters with each one escaped.
pub const MAX_CANONICAL_BYTES: usize = MAX_EVENT_BYTES + 128 * 1024;
/// Maximum characters of an event's id.
pub(in crate::source) const MAX_EVENT_ID: usize = 128;
/// Maximum characters of the id of a user, campaign, ad or video.
pub(in crate::source) const MAX_ID: usize = 256;
/// Maximum characters of another text.
pub(in crate::source) const MAX_TEXT: usize = 1_024;
/// Maximum amount in millionths, as for the built-in sources.
pub(in crate::source) const MAX_AMOUNT: i64 = 999_999_999_999_999_999;
/// Maximum number of followers: 2^53 - 1.
pub(in crate::source) const MAX_FOLLOWERS: i64 = 9_007_199_254_740_991;
/// Maximum age in years.
pub(in crate::source) const MAX_AGE: i16 = 150;

/// An event of a declared source, as the log keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CanonicalEvent<'a> {
    /// Key of the event within its source, 1 to 128 characters.
    pub id: Cow<'a, str>,
    /// Event time, in microseconds since 1970.
    pub timestamp: i64,
    /// True if the platform told no time, and the arrival stands for it.
    pub is_arrival: bool,
    /// Name of the source.
    pub source: Cow<'a, str>,
    /// Type of the event, one of the source's.
    pub event_type: Cow<'a, str>,
    /// Stage of the funnel.
    pub stage: FunnelStage,
    /// Id of the user, if it is told.
    pub user: Option<Cow<'a, str>>,
    /// Optional columns.
    pub columns: CanonicalColumns<'a>,
    /// Amount in millionths of the currency's unit.
    pub amount: Option<i64>,
    /// ISO 4217 code of the amount in upper case, if it is told; else the amount is in the setting's currency.
    pub currency: Option<Cow<'a, str>>,
    /// True if the amount is revenue.
    pub is_revenue: bool,
    /// The event as a compact JSON object, secrets removed.
    pub raw: Cow<'a, str>,
}

/// Optional columns of a canonical event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CanonicalColumns<'a> {
    /// Id of the campaign.
    pub campaign: Option<Cow<'a, str>>,
    /// Id of the ad.
    pub ad: Option<Cow<'a, str>>,
    /// Country as it was sent.
    pub country: Option<Cow<'a, str>>,
    /// City as it was sent.
    pub city: Option<Cow<'a, str>>,
    /// Device.
    pub device: Option<Cow<'a, str>>,
    /// Browser.
    pub browser: Option<Cow<'a, str>>,
    /// Age in years, 0 to 150.
    pub age: Option<i16>,
    /// Gender.
    pub gender: Option<Cow<'a, str>>,
    /// Number of followers.
    pub followers: Option<i64>,
    /// Name of the user.
    pub name: Option<Cow<'a, str>>,
    /// Place that led to the event.
    pub referrer: Option<Cow<'a, str>>,
    /// Id of the video.
    pub video: Option<Cow<'a, str>>,
}

/// The reason that bytes are no canonical event. Each message names the member.
#[derive(Debug, thiserror::Error)]
pub enum NotCanonical {
    /// More bytes than any canonical event has.
    #[error("it is larger than {MAX_CANONICAL_BYTES} bytes")]
    TooLarge,
    /// A newer version of ESS wrote it.
    #[error("`version` is {0}, and this version of ESS reads {VERSION}")]
    Newer(u32),
    /// The bytes are no JSON object, or a member has another type than it must have.
    #[error("it is no canonical event: {0}")]
    Malformed(#[source] serde_json::Error),
    /// A member is missing or out of its bounds.
    #[error("`{member}` {reason}")]
    Member {
        /// Name of the member.
        member: &'static str,
        /// Rest of the sentence.
        reason: &'static str,
    },
}
