//! Facebook: the webhooks of Meta's ad platform.

mod codes;
mod contract;
mod sample;
mod signature;

use super::codes::Code;
use super::description::{Breakdown, Contract, Handshake};
use super::registry::Source;
use super::setting::SourceSetting;
use super::stage::FunnelStage;

const NAME: &str = "facebook";

impl Source {
    /// The handle of Facebook, for tests and benches: the services know sources by the registry alone.
    pub const FACEBOOK: Self = Self::constant(NAME);
}

pub(super) const CONTRACT: Contract = Contract {
    entry: Code { number: 1, name: NAME },
    title: "Facebook",
    event_types: codes::EVENT_TYPES,
    codes: codes::CODES,
    user: |reading, raw| reading.shape::<contract::User<'_>>(raw),
    engagements: &[
        (FunnelStage::TOP, |reading, raw| reading.shape::<contract::Top<'_>>(raw)),
        (FunnelStage::BOTTOM, |reading, raw| reading.shape::<contract::Bottom<'_>>(raw)),
    ],
    schemas: include_str!("schemas.json"),
    signature: Some(signature::SIGNATURE),
    handshake: Some(Handshake {
        mode: ("hub.mode", "subscribe"),
        challenge: "hub.challenge",
        token: "hub.verify_token",
        setting: SourceSetting {
            name: "ESS_FACEBOOK_VERIFY_TOKEN",
            default: "",
            about: "Verify token of Meta's handshake (GET /webhook/facebook).",
        },
        about: "Meta's handshake: returns the challenge if the token is the configured one, or none is configured.",
    }),
    collector_port: SourceSetting {
        name: "ESS_FACEBOOK_COLLECTOR_PORT",
        default: "3001",
        about: "Port of the Facebook collector.",
    },
    demographics: &[Breakdown::AgeGroups, Breakdown::Genders, Breakdown::Countries, Breakdown::Cities],
    samples: sample::SAMPLES,
};
