//! The contract of TikTok's events: their fields with the rules of each, and the columns that these fill.

use garde::Validate;
use serde::Deserialize;

use super::codes::Device;
use crate::json::lenient::leaf;
use crate::json::scalar::{Instant, Integer, Money, Number, Text};
use crate::source::columns::nullable;
use crate::source::reading::{Reading, Shape};

/// `data.user`.
#[derive(Deserialize, Validate)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct User<'a> {
    #[serde(default, borrow, deserialize_with = "leaf")]
    #[garde(length(chars, min = 1, max = 256))]
    user_id: Option<Text<'a>>,
    #[serde(default, borrow, deserialize_with = "leaf")]
    #[garde(length(chars, max = 1024))]
    username: Option<Text<'a>>,
    #[serde(default, deserialize_with = "leaf")]
    #[garde(range(min = 0, max = 9_007_199_254_740_991))]
    followers: Option<Integer>,
}

impl<'a> Shape<'a> for User<'a> {
    const AT: &'static [&'static str] = &["data", "user"];

    fn fill(self, reading: &mut Reading<'a>) -> Option<()> {
        let columns = &mut reading.columns;
        columns.user_id = self.user_id?.0;
        columns.user_name = Some(self.username?.0);
        columns.followers = Some(self.followers?.0);
        Some(())
    }
}

/// `data.engagement` of the top of the funnel.
#[derive(Deserialize, Validate)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Top<'a> {
    #[serde(default, deserialize_with = "leaf")]
    #[garde(range(min = 0.0))]
    watch_time: Option<Number>,
    #[serde(default, deserialize_with = "leaf")]
    #[garde(range(min = 0.0, max = 100.0))]
    percentage_watched: Option<Number>,
    #[serde(default, deserialize_with = "leaf")]
    #[garde(skip)]
    device: Option<Device>,
    #[serde(default, borrow, deserialize_with = "leaf")]
    #[garde(length(chars, max = 1024))]
    country: Option<Text<'a>>,
    #[serde(default, borrow, deserialize_with = "leaf")]
    #[garde(length(chars, min = 1, max = 256))]
    video_id: Option<Text<'a>>,
}

impl<'a> Shape<'a> for Top<'a> {
    const AT: &'static [&'static str] = &["data", "engagement"];

    fn fill(self, reading: &mut Reading<'a>) -> Option<()> {
        let watched = reading.number("data.engagement.watchTime", self.watch_time?);
        let percentage = reading.number("data.engagement.percentageWatched", self.percentage_watched?);
        let columns = &mut reading.columns;
        columns.watch_time = Some(watched);
        columns.percentage_watched = Some(percentage);
        columns.device = Some(self.device?.number());
        columns.country = Some(self.country?.0);
        columns.video_id = Some(self.video_id?.0);
        Some(())
    }
}

/// `data.engagement` of the bottom of the funnel.
#[derive(Deserialize, Validate)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Bottom<'a> {
    #[serde(default, deserialize_with = "leaf")]
    #[garde(skip)]
    action_time: Option<Instant>,
    #[serde(default, borrow, deserialize_with = "leaf")]
    #[garde(length(chars, min = 1, max = 256))]
    profile_id: Option<Option<Text<'a>>>,
    #[serde(default, borrow, deserialize_with = "leaf")]
    #[garde(length(chars, max = 1024))]
    purchased_item: Option<Option<Text<'a>>>,
    #[serde(default, deserialize_with = "leaf")]
    #[garde(skip)]
    purchase_amount: Option<Option<Money>>,
}

impl<'a> Shape<'a> for Bottom<'a> {
    const AT: &'static [&'static str] = &["data", "engagement"];

    fn fill(self, reading: &mut Reading<'a>) -> Option<()> {
        reading.columns.action_time = Some(reading.instant("data.engagement.actionTime", self.action_time?));
        let columns = &mut reading.columns;
        columns.profile_id = nullable(self.profile_id?);
        columns.purchased_item = nullable(self.purchased_item?);
        columns.amount = self.purchase_amount?;
        Some(())
    }
}
