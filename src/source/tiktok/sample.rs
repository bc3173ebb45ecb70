//! Sample events of TikTok, in the real publisher's ranges.

use std::fmt::Write;

use crate::source::sample::{Corruption, Dice, MIXED, SampleEvent, Samples, UPPER};
use crate::source::stage::FunnelStage;

const ITEMS: [&str; 12] = [
    "Marble Bike",
    "Oak Table",
    "Wool Hat",
    "Steel Lamp",
    "Cotton Shirt",
    "Glass Bowl",
    "Silk Scarf",
    "Bamboo Chair",
    "Granite Clock",
    "Leather Shoes",
    "Paper Kite",
    "Copper Kettle",
];

pub(super) const SAMPLES: Samples = Samples {
    write,
    without_name: Corruption::remove("/data/user", "username"),
    wrong_user: Corruption::set("/data/user", "followers", "\"not-a-number\""),
    wrong_engagements: &[
        Corruption::set("/data/engagement", "watchTime", "-1"),
        Corruption::remove("/data/engagement", "purchasedItem"),
    ],
};

fn write(dice: &mut Dice, event: &SampleEvent<'_>) -> String {
    let SampleEvent { time, event_type } = event;
    let (stage, event_type) = (event_type.stage, event_type.name());
    let mut json = String::with_capacity(520);
    let (id, user, name) = (dice.uuid(), dice.uuid(), dice.name('_'));
    let followers = dice.number(0, 1_000_000);
    // Writing into a String cannot fail.
    let _ = write!(
        json,
        "{{\"eventId\":\"ttk-{id}\",\"timestamp\":\"{time}\",\"source\":\"tiktok\",\"funnelStage\":\"{stage}\",\
         \"eventType\":\"{event_type}\",\"data\":{{\"user\":{{\"userId\":\"{user}\",\"username\":\"{name}\",\
         \"followers\":{followers}}},\"engagement\":"
    );
    if stage == FunnelStage::TOP {
        let (watched, percentage) = (dice.number(1, 300), dice.number(0, 100));
        let device = dice.pick(&["Android", "iOS", "Desktop"]);
        let country = dice.country();
        let video = dice.id("vid-", 8, MIXED);
        let _ = write!(
            json,
            "{{\"watchTime\":{watched},\"percentageWatched\":{percentage},\"device\":\"{device}\",\
             \"country\":\"{country}\",\"videoId\":\"{video}\"}}}}}}"
        );
    } else {
        let profile = if dice.chance(0.5) {
            format!("\"{}\"", dice.id("profile-", 6, UPPER))
        } else {
            "null".to_owned()
        };
        let (item, amount) = if dice.chance(0.4) {
            (format!("\"{}\"", dice.pick(&ITEMS)), dice.amount(5, 500))
        } else {
            ("null".to_owned(), "null".to_owned())
        };
        let _ = write!(
            json,
            "{{\"actionTime\":\"{time}\",\"profileId\":{profile},\"purchasedItem\":{item},\
             \"purchaseAmount\":{amount}}}}}}}"
        );
    }
    json
}
