//! TikTok's types of event and code tables: numbers 200 to 299.

use crate::source::codes::{Code, code_table};
use crate::source::event_type::EventType;
use crate::source::stage::FunnelStage;

pub(super) const EVENT_TYPES: &[EventType] = &[
    EventType::new(200, "video.view", FunnelStage::TOP),
    EventType::new(201, "like", FunnelStage::TOP),
    EventType::new(202, "share", FunnelStage::TOP),
    EventType::new(203, "comment", FunnelStage::TOP),
    EventType::new(204, "profile.visit", FunnelStage::BOTTOM),
    EventType::with_revenue(205, "purchase", FunnelStage::BOTTOM),
    EventType::new(206, "follow", FunnelStage::BOTTOM),
];

pub(super) const CODES: &[&[Code]] = &[Device::CODES];

code_table! {
    /// The device that a video was watched on.
    Device { Android = 210 => "Android", Ios = 211 => "iOS", Desktop = 212 => "Desktop" }
}
