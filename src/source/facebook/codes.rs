//! Facebook's types of event and code tables: numbers 100 to 199.

use crate::source::codes::{Code, code_table};
use crate::source::event_type::EventType;
use crate::source::stage::FunnelStage;

pub(super) const EVENT_TYPES: &[EventType] = &[
    EventType::new(100, "ad.view", FunnelStage::TOP),
    EventType::new(101, "page.like", FunnelStage::TOP),
    EventType::new(102, "comment", FunnelStage::TOP),
    EventType::new(103, "video.view", FunnelStage::TOP),
    EventType::new(104, "ad.click", FunnelStage::BOTTOM),
    EventType::new(105, "form.submission", FunnelStage::BOTTOM),
    EventType::with_revenue(106, "checkout.complete", FunnelStage::BOTTOM),
];

pub(super) const CODES: &[&[Code]] =
    &[Gender::CODES, Referrer::CODES, ClickPosition::CODES, Device::CODES, Browser::CODES];

code_table! {
    /// A user's gender.
    Gender { Male = 110 => "male", Female = 111 => "female", NonBinary = 112 => "non-binary" }
}

code_table! {
    /// The part of the platform that led to an engagement.
    Referrer { Newsfeed = 120 => "newsfeed", Marketplace = 121 => "marketplace", Groups = 122 => "groups" }
}

code_table! {
    /// The position of a click on the ad.
    ClickPosition { TopLeft = 130 => "top_left", BottomRight = 131 => "bottom_right", Center = 132 => "center" }
}

code_table! {
    /// The device of a click.
    Device { Mobile = 140 => "mobile", Desktop = 141 => "desktop" }
}

code_table! {
    /// The browser of a click.
    Browser { Chrome = 150 => "Chrome", Firefox = 151 => "Firefox", Safari = 152 => "Safari" }
}
