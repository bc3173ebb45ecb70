//! The columns that the store has for an event's own fields, over all sources.

use std::borrow::Cow;

use crate::json::scalar::{Money, Text};
use crate::money::Currency;

/// The fields of user and engagement, as the store's columns. A source fills those that its events have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Columns<'a> {
    /// `data.user.userId`.
    pub user_id: Cow<'a, str>,
    /// The user's name or user name.
    pub user_name: Option<Cow<'a, str>>,
    /// Age in years.
    pub age: Option<i16>,
    /// Code of the gender.
    pub gender: Option<i16>,
    /// Number of the user's followers.
    pub followers: Option<i64>,
    /// The country's name as sent.
    pub country: Option<Cow<'a, str>>,
    /// The city's name as sent.
    pub city: Option<Cow<'a, str>>,
    /// The time of the engagement, in microseconds since 1970.
    pub action_time: Option<i64>,
    /// Code of the referrer.
    pub referrer: Option<i16>,
    /// The video's id.
    pub video_id: Option<Cow<'a, str>>,
    /// The ad's id.
    pub ad_id: Option<Cow<'a, str>>,
    /// The campaign's id.
    pub campaign_id: Option<Cow<'a, str>>,
    /// Code of the click's position.
    pub click_position: Option<i16>,
    /// Code of the device.
    pub device: Option<i16>,
    /// Code of the browser.
    pub browser: Option<i16>,
    /// `purchaseAmount`, revenue or not.
    pub amount: Option<Money>,
    /// Currency of the amount; `None` if the event tells none.
    pub currency: Option<Currency>,
    /// Watch time in billionths of a second.
    pub watch_time: Option<i64>,
    /// Percentage watched in billionths of a percent.
    pub percentage_watched: Option<i64>,
    /// The profile's id.
    pub profile_id: Option<Cow<'a, str>>,
    /// The item that was bought.
    pub purchased_item: Option<Cow<'a, str>>,
}

/// The text of a nullable field.
pub(super) fn nullable<'a>(text: Option<Text<'a>>) -> Option<Cow<'a, str>> {
    text.map(|text| text.0)
}
