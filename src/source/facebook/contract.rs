//! The contract of Facebook's events: their fields with the rules of each, and the columns that these fill.

use garde::Validate;
use serde::Deserialize;

use super::codes::{Browser, ClickPosition, Device, Gender, Referrer};
use crate::json::lenient::leaf;
use crate::json::object::branch;
use crate::json::scalar::{Instant, Integer, Money, Text};
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
    name: Option<Text<'a>>,
    #[serde(default, deserialize_with = "leaf")]
    #[garde(range(min = 0, max = 150))]
    age: Option<Integer>,
    #[serde(default, deserialize_with = "leaf")]
    #[garde(skip)]
    gender: Option<Gender>,
    #[serde(default, borrow, deserialize_with = "branch")]
    #[garde(dive)]
    location: Option<Location<'a>>,
}

#[derive(Deserialize, Validate)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Location<'a> {
    #[serde(default, borrow, deserialize_with = "leaf")]
    #[garde(length(chars, max = 1024))]
    country: Option<Text<'a>>,
    #[serde(default, borrow, deserialize_with = "leaf")]
    #[garde(length(chars, max = 1024))]
    city: Option<Text<'a>>,
}

impl<'a> Shape<'a> for User<'a> {
    const AT: &'static [&'static str] = &["data", "user"];

    fn fill(self, reading: &mut Reading<'a>) -> Option<()> {
        let location = self.location?;
        let columns = &mut reading.columns;
        columns.user_id = self.user_id?.0;
        columns.user_name = Some(self.name?.0);
        columns.age = Some(i16::try_from(self.age?.0).ok()?);
        columns.gender = Some(self.gender?.number());
        columns.country = Some(location.country?.0);
        columns.city = Some(location.city?.0);
        Some(())
    }
}

/// `data.engagement` of the top of the funnel.
#[derive(Deserialize, Validate)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Top<'a> {
    #[serde(default, deserialize_with = "leaf")]
    #[garde(skip)]
    action_time: Option<Instant>,
    #[serde(default, deserialize_with = "leaf")]
    #[garde(skip)]
    referrer: Option<Referrer>,
    #[serde(default, borrow, deserialize_with = "leaf")]
    #[garde(length(chars, min = 1, max = 256))]
    video_id: Option<Option<Text<'a>>>,
}

impl<'a> Shape<'a> for Top<'a> {
    const AT: &'static [&'static str] = &["data", "engagement"];

    fn fill(self, reading: &mut Reading<'a>) -> Option<()> {
        reading.columns.action_time = Some(reading.instant("data.engagement.actionTime", self.action_time?));
        reading.columns.referrer = Some(self.referrer?.number());
        reading.columns.video_id = nullable(self.video_id?);
        Some(())
    }
}

/// `data.engagement` of the bottom of the funnel.
#[derive(Deserialize, Validate)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Bottom<'a> {
    #[serde(default, borrow, deserialize_with = "leaf")]
    #[garde(length(chars, min = 1, max = 256))]
    ad_id: Option<Text<'a>>,
    #[serde(default, borrow, deserialize_with = "leaf")]
    #[garde(length(chars, min = 1, max = 256))]
    campaign_id: Option<Text<'a>>,
    #[serde(default, deserialize_with = "leaf")]
    #[garde(skip)]
    click_position: Option<ClickPosition>,
    #[serde(default, deserialize_with = "leaf")]
    #[garde(skip)]
    device: Option<Device>,
    #[serde(default, deserialize_with = "leaf")]
    #[garde(skip)]
    browser: Option<Browser>,
    #[serde(default, deserialize_with = "leaf")]
    #[garde(skip)]
    purchase_amount: Option<Option<Money>>,
}

impl<'a> Shape<'a> for Bottom<'a> {
    const AT: &'static [&'static str] = &["data", "engagement"];

    fn fill(self, reading: &mut Reading<'a>) -> Option<()> {
        let columns = &mut reading.columns;
        columns.ad_id = Some(self.ad_id?.0);
        columns.campaign_id = Some(self.campaign_id?.0);
        columns.click_position = Some(self.click_position?.number());
        columns.device = Some(self.device?.number());
        columns.browser = Some(self.browser?.number());
        columns.amount = self.purchase_amount?;
        Some(())
    }
}
