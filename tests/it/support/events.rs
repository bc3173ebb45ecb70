//! Events made independently of the publisher, which is tested itself.

use serde_json::{Value, json};

/// A generator of pseudo-random numbers, determined by its seed.
#[derive(Debug, Clone)]
pub struct Chance(pub u64);

impl Chance {
    pub fn next(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len() as u64) as usize]
    }
}

pub const FACEBOOK_TOP: [&str; 4] = ["ad.view", "page.like", "comment", "video.view"];
pub const FACEBOOK_BOTTOM: [&str; 3] = ["ad.click", "form.submission", "checkout.complete"];
pub const TIKTOK_TOP: [&str; 4] = ["video.view", "like", "share", "comment"];
pub const TIKTOK_BOTTOM: [&str; 3] = ["profile.visit", "purchase", "follow"];

/// A valid event of this id, of either source, at a time in 2026-03 (in seconds of that month).
pub fn event(id: &str, chance: &mut Chance) -> Value {
    let second = chance.below(31 * 86_400);
    let time = chrono::DateTime::from_timestamp(1_772_323_200 + second as i64, 250_000_000).unwrap();
    let time = time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
    let user = format!("user-{}", chance.below(5_000));
    let country = chance.pick(&["Kenya", "Perú", "Åland Islands", "Côte d'Ivoire"]);
    let cents = chance.below(100_000);
    let amount = match chance.below(3) {
        0 => Value::Null,
        1 => json!(format!("{}.{:02}", cents / 100, cents % 100)),
        _ => json!(format!("{cents}")),
    };
    let top = chance.below(2) == 0;
    if chance.below(2) == 0 {
        let kind = if top { chance.pick(&FACEBOOK_TOP) } else { chance.pick(&FACEBOOK_BOTTOM) };
        let engagement = if top {
            json!({"actionTime": time, "referrer": chance.pick(&["newsfeed", "marketplace", "groups"]),
                   "videoId": null})
        } else {
            json!({"adId": "ad-1", "campaignId": format!("camp-{}", chance.below(40)),
                   "clickPosition": chance.pick(&["top_left", "bottom_right", "center"]), "device": "mobile",
                   "browser": "Firefox", "purchaseAmount": amount})
        };
        return json!({"eventId": id, "timestamp": time, "source": "facebook",
            "funnelStage": if top { "top" } else { "bottom" }, "eventType": kind,
            "data": {"user": {"userId": user, "name": "N", "age": chance.below(151),
                     "gender": chance.pick(&["male", "female", "non-binary"]),
                     "location": {"country": country, "city": format!("City {}", chance.below(30))}},
                     "engagement": engagement}});
    }
    let kind = if top { chance.pick(&TIKTOK_TOP) } else { chance.pick(&TIKTOK_BOTTOM) };
    let engagement = if top {
        json!({"watchTime": chance.below(30_000) as f64 / 100.0, "percentageWatched": chance.below(101),
               "device": chance.pick(&["Android", "iOS", "Desktop"]), "country": country, "videoId": "v"})
    } else {
        json!({"actionTime": time, "profileId": null, "purchasedItem": "Bowl", "purchaseAmount": amount})
    };
    json!({"eventId": id, "timestamp": time, "source": "tiktok",
        "funnelStage": if top { "top" } else { "bottom" }, "eventType": kind,
        "data": {"user": {"userId": user, "username": "u", "followers": chance.below(2_000_000)},
                 "engagement": engagement}})
}

/// A minimal valid event of a source.
pub fn simple(id: &str, source: &str) -> Value {
    let mut chance = Chance(7);
    loop {
        let event = event(id, &mut chance);
        if event["source"] == source {
            return event;
        }
    }
}
