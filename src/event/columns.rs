//! The columns that an event's own fields rest in, over all sources.

use std::borrow::Cow;

use super::scalar::{Money, Text};

/// The fields of user and engagement, as the store's columns. A source fills those it has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Columns<'a> {
    /// `data.user.userId`.
    pub user_id: Cow<'a, str>,
    /// Facebook's `name`, TikTok's `username`.
    pub user_name: Option<Cow<'a, str>>,
    /// Years.
    pub age: Option<i16>,
    /// A word's number.
    pub gender: Option<i16>,
    /// How many follow the user.
    pub followers: Option<i64>,
    /// The country's name as sent.
    pub country: Option<Cow<'a, str>>,
    /// The city's name as sent.
    pub city: Option<Cow<'a, str>>,
    /// Microseconds since 1970.
    pub action_time: Option<i64>,
    /// A word's number.
    pub referrer: Option<i16>,
    /// The video's id.
    pub video_id: Option<Cow<'a, str>>,
    /// The ad's id.
    pub ad_id: Option<Cow<'a, str>>,
    /// The campaign's id.
    pub campaign_id: Option<Cow<'a, str>>,
    /// A word's number.
    pub click_position: Option<i16>,
    /// A word's number.
    pub device: Option<i16>,
    /// A word's number.
    pub browser: Option<i16>,
    /// `purchaseAmount`, whether it is revenue or not.
    pub amount: Option<Money>,
    /// Billionths of a second.
    pub watch_time: Option<i64>,
    /// Billionths of a percent.
    pub percentage_watched: Option<i64>,
    /// The profile's id.
    pub profile_id: Option<Cow<'a, str>>,
    /// What was bought.
    pub purchased_item: Option<Cow<'a, str>>,
}

/// The text of a nullable field.
pub(super) fn nullable<'a>(text: Option<Text<'a>>) -> Option<Cow<'a, str>> {
    text.map(|text| text.0)
}
