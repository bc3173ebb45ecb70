//! TikTok's events.

use garde::Validate;
use serde::Deserialize;

use super::columns::nullable;
use super::lenient::leaf;
use super::reading::{Reading, Shape};
use super::scalar::{Instant, Integer, Money, Number, Text};
use super::spec::{EventType, FunnelStage, SourceSpec};
use super::words::{Word, words};

/// What TikTok's events are.
pub(super) const SPEC: SourceSpec = SourceSpec {
    event_types: &[
        kind(200, "video.view", FunnelStage::Top, false),
        kind(201, "like", FunnelStage::Top, false),
        kind(202, "share", FunnelStage::Top, false),
        kind(203, "comment", FunnelStage::Top, false),
        kind(204, "profile.visit", FunnelStage::Bottom, false),
        kind(205, "purchase", FunnelStage::Bottom, true),
        kind(206, "follow", FunnelStage::Bottom, false),
    ],
    words: &[Device::WORDS],
    user: |reading, raw| reading.shape::<User<'_>>(raw),
    top: |reading, raw| reading.shape::<Top<'_>>(raw),
    bottom: |reading, raw| reading.shape::<Bottom<'_>>(raw),
};

const fn kind(code: i16, text: &'static str, stage: FunnelStage, makes_revenue: bool) -> EventType {
    EventType { word: Word { code, text }, stage, makes_revenue }
}

words! {
    /// The device that a video was watched on.
    Device { Android = 210 => "Android", Ios = 211 => "iOS", Desktop = 212 => "Desktop" }
}

#[derive(Deserialize, Validate)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct User<'a> {
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

#[derive(Deserialize, Validate)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Top<'a> {
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
        columns.device = Some(self.device?.code());
        columns.country = Some(self.country?.0);
        columns.video_id = Some(self.video_id?.0);
        Some(())
    }
}

#[derive(Deserialize, Validate)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Bottom<'a> {
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
