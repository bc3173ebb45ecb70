//! TikTok: the webhooks of TikTok's ad platform.

mod codes;
mod contract;
mod sample;
mod signature;

use super::codes::Code;
use super::description::{Breakdown, Contract};
use super::registry::Source;
use super::setting::SourceSetting;
use super::stage::FunnelStage;

const NAME: &str = "tiktok";

impl Source {
    /// The handle of TikTok, for tests and benches: the services know sources by the registry alone.
    pub const TIKTOK: Self = Self::constant(NAME);
}

pub(super) const CONTRACT: Contract = Contract {
    entry: Code { number: 2, name: NAME },
    title: "TikTok",
    event_types: codes::EVENT_TYPES,
    codes: codes::CODES,
    user: |reading, raw| reading.shape::<contract::User<'_>>(raw),
    engagements: &[
        (FunnelStage::TOP, |reading, raw| reading.shape::<contract::Top<'_>>(raw)),
        (FunnelStage::BOTTOM, |reading, raw| reading.shape::<contract::Bottom<'_>>(raw)),
    ],
    schemas: include_str!("schemas.json"),
    signature: Some(signature::SIGNATURE),
    handshake: None,
    collector_port: SourceSetting {
        name: "ESS_TIKTOK_COLLECTOR_PORT",
        default: "3002",
        about: "Port of the TikTok collector.",
    },
    demographics: &[
        Breakdown::Followers,
        Breakdown::Countries,
        Breakdown::Devices,
        Breakdown::AverageWatchTime,
        Breakdown::AveragePercentageWatched,
    ],
    samples: sample::SAMPLES,
};
