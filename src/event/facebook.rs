//! Facebook's events.

use garde::Validate;
use serde::Deserialize;

use super::columns::nullable;
use super::lenient::leaf;
use super::object::branch;
use super::reading::{Reading, Shape};
use super::scalar::{Instant, Integer, Money, Text};
use super::spec::{EventType, FunnelStage, SourceSpec};
use super::words::{Word, words};

/// What Facebook's events are.
pub(super) const SPEC: SourceSpec = SourceSpec {
    event_types: &[
        kind(100, "ad.view", FunnelStage::Top, false),
        kind(101, "page.like", FunnelStage::Top, false),
        kind(102, "comment", FunnelStage::Top, false),
        kind(103, "video.view", FunnelStage::Top, false),
        kind(104, "ad.click", FunnelStage::Bottom, false),
        kind(105, "form.submission", FunnelStage::Bottom, false),
        kind(106, "checkout.complete", FunnelStage::Bottom, true),
    ],
    words: &[Gender::WORDS, Referrer::WORDS, ClickPosition::WORDS, Device::WORDS, Browser::WORDS],
    user: |reading, raw| reading.shape::<User<'_>>(raw),
    top: |reading, raw| reading.shape::<Top<'_>>(raw),
    bottom: |reading, raw| reading.shape::<Bottom<'_>>(raw),
};

const fn kind(code: i16, text: &'static str, stage: FunnelStage, makes_revenue: bool) -> EventType {
    EventType { word: Word { code, text }, stage, makes_revenue }
}

words! {
    /// A user's gender.
    Gender { Male = 110 => "male", Female = 111 => "female", NonBinary = 112 => "non-binary" }
}
words! {
    /// Where an engagement came from.
    Referrer { Newsfeed = 120 => "newsfeed", Marketplace = 121 => "marketplace", Groups = 122 => "groups" }
}
words! {
    /// Where on the ad the click was.
    ClickPosition { TopLeft = 130 => "top_left", BottomRight = 131 => "bottom_right", Center = 132 => "center" }
}
words! {
    /// The device of a click.
    Device { Mobile = 140 => "mobile", Desktop = 141 => "desktop" }
}
words! {
    /// The browser of a click.
    Browser { Chrome = 150 => "Chrome", Firefox = 151 => "Firefox", Safari = 152 => "Safari" }
}

#[derive(Deserialize, Validate)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct User<'a> {
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
        columns.gender = Some(self.gender?.code());
        columns.country = Some(location.country?.0);
        columns.city = Some(location.city?.0);
        Some(())
    }
}

#[derive(Deserialize, Validate)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Top<'a> {
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
        reading.columns.referrer = Some(self.referrer?.code());
        reading.columns.video_id = nullable(self.video_id?);
        Some(())
    }
}

#[derive(Deserialize, Validate)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Bottom<'a> {
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
        columns.click_position = Some(self.click_position?.code());
        columns.device = Some(self.device?.code());
        columns.browser = Some(self.browser?.code());
        columns.amount = self.purchase_amount?;
        Some(())
    }
}
