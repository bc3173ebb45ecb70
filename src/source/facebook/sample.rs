//! Sample events of Facebook, in the real publisher's ranges.

use std::fmt::Write;

use crate::source::sample::{Corruption, Dice, MIXED, SampleEvent, Samples, UPPER};
use crate::source::stage::FunnelStage;

pub(super) const SAMPLES: Samples = Samples {
    write,
    without_name: Corruption::remove("/data/user", "name"),
    wrong_user: Corruption::set("/data/user", "gender", "\"alien\""),
    wrong_engagements: &[
        Corruption::set("/data/engagement", "actionTime", "-1"),
        Corruption::remove("/data/engagement", "adId"),
    ],
};

fn write(dice: &mut Dice, event: &SampleEvent<'_>) -> String {
    let SampleEvent { time, event_type } = event;
    let (stage, event_type) = (event_type.stage, event_type.name());
    let mut json = String::with_capacity(560);
    let (id, user, name) = (dice.uuid(), dice.uuid(), dice.name(' '));
    let age = dice.number(18, 65);
    let gender = dice.pick(&["male", "female", "non-binary"]);
    let (country, city) = (dice.country(), dice.city());
    // Writing into a String cannot fail.
    let _ = write!(
        json,
        "{{\"eventId\":\"fb-{id}\",\"timestamp\":\"{time}\",\"source\":\"facebook\",\"funnelStage\":\"{stage}\",\
         \"eventType\":\"{event_type}\",\"data\":{{\"user\":{{\"userId\":\"{user}\",\"name\":\"{name}\",\"age\":{age},\
         \"gender\":\"{gender}\",\"location\":{{\"country\":\"{country}\",\"city\":\"{city}\"}}}},\"engagement\":"
    );
    if stage == FunnelStage::TOP {
        let referrer = dice.pick(&["newsfeed", "marketplace", "groups"]);
        let video =
            if dice.chance(0.5) { format!("\"{}\"", dice.id("vid-", 8, MIXED)) } else { "null".to_owned() };
        let _ =
            write!(json, "{{\"actionTime\":\"{time}\",\"referrer\":\"{referrer}\",\"videoId\":{video}}}}}}}");
    } else {
        let (ad, campaign) = (dice.id("ad-", 8, MIXED), dice.id("camp-", 5, UPPER));
        let position = dice.pick(&["top_left", "bottom_right", "center"]);
        let device = dice.pick(&["mobile", "desktop"]);
        let browser = dice.pick(&["Chrome", "Firefox", "Safari"]);
        let amount = if dice.chance(0.4) { dice.amount(10, 1_000) } else { "null".to_owned() };
        let _ = write!(
            json,
            "{{\"adId\":\"{ad}\",\"campaignId\":\"{campaign}\",\"clickPosition\":\"{position}\",\
             \"device\":\"{device}\",\"browser\":\"{browser}\",\"purchaseAmount\":{amount}}}}}}}"
        );
    }
    json
}
