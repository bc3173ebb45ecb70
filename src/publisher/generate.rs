//! Makes events: valid by the contract, in the real publisher's ranges, and its eight corruptions.
//!
//! With a seed everything follows from it, times included: the same seed makes the same events.

use std::fmt::Write;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::Value;

use crate::event::{FunnelStage, Source, format_micros};

const COUNTRIES: &str = include_str!("countries.txt");
/// The first event of a seed is of this time: 2026-01-01T00:00:00Z.
const SEEDED_START: i64 = 1_767_225_600_000_000;
/// Late events are up to so late.
const LATEST: Duration = Duration::from_secs(3 * 86_400);
/// Ids that may be sent again.
const REMEMBERED: usize = 10_000;

const GIVEN: [&str; 20] = [
    "Ada", "Bela", "Chidi", "Dana", "Emre", "Fatou", "Gita", "Hugo", "Ines", "Jun", "Kofi", "Lena", "Mateo",
    "Nia", "Olek", "Priya", "Quinn", "Rosa", "Sven", "Zoë",
];
const ONSETS: [&str; 24] = [
    "Ald", "Bram", "Cal", "Dor", "Eller", "Fair", "Gran", "Hart", "Ing", "Jess", "Kel", "Lang", "Mar", "Nor",
    "Os", "Pem", "Quar", "Rad", "Sel", "Thorn", "Ul", "Ver", "Wex", "Yar",
];
const MIDDLES: [&str; 25] = [
    "a", "ber", "ch", "den", "er", "fold", "gate", "ham", "ing", "ker", "ley", "mer", "nor", "or", "per",
    "ring", "sen", "ten", "um", "ver", "wick", "wood", "yard", "low", "stead",
];
const PLACES: [&str; 18] = [
    "berg", "borough", "burgh", "bury", "chester", "dale", "field", "ford", "fort", "furt", "haven", "mouth",
    "port", "shire", "side", "stad", "ton", "ville",
];
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

/// How often events are something else than new, valid and in time; fractions from 0 to 1.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Mix {
    /// An event that was made before, again.
    pub duplicates: f64,
    /// One of the corruptions; most of them are no event by the contract.
    pub invalid: f64,
    /// An event time up to three days ago.
    pub late: f64,
}

/// Makes events one after another.
#[derive(Debug)]
pub struct Generator {
    rng: StdRng,
    mix: Mix,
    seeded: bool,
    made: u64,
    countries: Vec<&'static str>,
    remembered: Vec<String>,
}

impl Generator {
    /// A generator from a seed, or from chance.
    pub fn new(seed: Option<u64>, mix: Mix) -> Self {
        Self {
            rng: StdRng::seed_from_u64(seed.unwrap_or_else(|| rand::rng().random())),
            mix,
            seeded: seed.is_some(),
            made: 0,
            countries: COUNTRIES.lines().collect(),
            remembered: Vec::new(),
        }
    }

    /// The next event's JSON.
    pub fn event(&mut self) -> String {
        if self.chance(self.mix.duplicates)
            && let Some(again) = self.remembered.choose(&mut self.rng)
        {
            return again.clone();
        }
        if self.chance(self.mix.invalid) {
            return self.corrupted();
        }
        let event = self.valid();
        if self.mix.duplicates > 0.0 {
            if self.remembered.len() < REMEMBERED {
                self.remembered.push(event.clone());
            } else {
                let at = self.rng.random_range(0..REMEMBERED);
                self.remembered[at].clone_from(&event);
            }
        }
        event
    }

    /// An array of so many events.
    pub fn batch(&mut self, events: usize) -> String {
        let mut body = String::with_capacity(events * 440 + 2);
        body.push('[');
        for index in 0..events {
            if index > 0 {
                body.push(',');
            }
            let event = self.event();
            body.push_str(&event);
        }
        body.push(']');
        body
    }

    /// A number of events of one POST.
    pub fn size(&mut self, sizes: (usize, usize)) -> usize {
        self.rng.random_range(sizes.0..=sizes.1)
    }

    /// True so often.
    pub fn chance(&mut self, fraction: f64) -> bool {
        fraction > 0.0 && self.rng.random_bool(fraction.min(1.0))
    }

    fn uuid(&mut self) -> uuid::Uuid {
        uuid::Builder::from_random_bytes(self.rng.random()).into_uuid()
    }

    fn code(&mut self, prefix: &str, length: usize, letters: &[u8]) -> String {
        let mut code = prefix.to_owned();
        for _ in 0..length {
            code.push(char::from(letters[self.rng.random_range(0..letters.len())]));
        }
        code
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.rng.random_range(0..from.len())]
    }

    fn place(&mut self) -> String {
        format!("{}{}{}", self.pick(&ONSETS), self.pick(&MIDDLES), self.pick(&PLACES))
    }

    fn amount(&mut self, low: u32, high: u32) -> String {
        let cents = self.rng.random_range(low * 100..=high * 100);
        format!("\"{}.{:02}\"", cents / 100, cents % 100)
    }

    /// A valid event of either source.
    pub fn valid(&mut self) -> String {
        let now = if self.seeded {
            SEEDED_START + i64::try_from(self.made).unwrap_or(0) * 1_000
        } else {
            chrono::Utc::now().timestamp_millis() * 1_000
        };
        self.made += 1;
        let late = if self.chance(self.mix.late) {
            let most = i64::try_from(LATEST.as_millis()).unwrap_or(0);
            self.rng.random_range(0..most) * 1_000
        } else {
            0
        };
        let time = format_micros(now - late);
        let source = if self.rng.random_bool(0.5) { Source::Facebook } else { Source::Tiktok };
        let kinds = source.event_types();
        let kind = &kinds[self.rng.random_range(0..kinds.len())];
        let (text, stage) = (kind.word.text, kind.stage);
        match source {
            Source::Facebook => self.facebook(&time, text, stage),
            Source::Tiktok => self.tiktok(&time, text, stage),
        }
    }

    fn facebook(&mut self, time: &str, kind: &str, stage: FunnelStage) -> String {
        const UPPER: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
        const MIXED: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
        let mut event = String::with_capacity(560);
        let (id, user) = (self.uuid(), self.uuid());
        let name = format!("{} {}{}", self.pick(&GIVEN), self.pick(&ONSETS), self.pick(&MIDDLES));
        let age = self.rng.random_range(18..=65);
        let gender = self.pick(&["male", "female", "non-binary"]);
        let country = self.countries[self.rng.random_range(0..self.countries.len())];
        let city = self.place();
        // Writing into a String cannot fail.
        let _ = write!(
            event,
            "{{\"eventId\":\"fb-{id}\",\"timestamp\":\"{time}\",\"source\":\"facebook\",\"funnelStage\":\"{stage}\",\
             \"eventType\":\"{kind}\",\"data\":{{\"user\":{{\"userId\":\"{user}\",\"name\":\"{name}\",\"age\":{age},\
             \"gender\":\"{gender}\",\"location\":{{\"country\":\"{country}\",\"city\":\"{city}\"}}}},\"engagement\":"
        );
        if stage == FunnelStage::Top {
            let referrer = self.pick(&["newsfeed", "marketplace", "groups"]);
            let video = if self.rng.random_bool(0.5) {
                format!("\"{}\"", self.code("vid-", 8, MIXED))
            } else {
                "null".to_owned()
            };
            let _ = write!(
                event,
                "{{\"actionTime\":\"{time}\",\"referrer\":\"{referrer}\",\"videoId\":{video}}}}}}}"
            );
        } else {
            let (ad, campaign) = (self.code("ad-", 8, MIXED), self.code("camp-", 5, UPPER));
            let position = self.pick(&["top_left", "bottom_right", "center"]);
            let device = self.pick(&["mobile", "desktop"]);
            let browser = self.pick(&["Chrome", "Firefox", "Safari"]);
            let amount = if self.rng.random_bool(0.4) { self.amount(10, 1_000) } else { "null".to_owned() };
            let _ = write!(
                event,
                "{{\"adId\":\"{ad}\",\"campaignId\":\"{campaign}\",\"clickPosition\":\"{position}\",\
                 \"device\":\"{device}\",\"browser\":\"{browser}\",\"purchaseAmount\":{amount}}}}}}}"
            );
        }
        event
    }

    fn tiktok(&mut self, time: &str, kind: &str, stage: FunnelStage) -> String {
        const UPPER: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
        const MIXED: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
        let mut event = String::with_capacity(520);
        let (id, user) = (self.uuid(), self.uuid());
        let name = format!("{}_{}{}", self.pick(&GIVEN), self.pick(&ONSETS), self.pick(&MIDDLES));
        let followers = self.rng.random_range(0..=1_000_000);
        let _ = write!(
            event,
            "{{\"eventId\":\"ttk-{id}\",\"timestamp\":\"{time}\",\"source\":\"tiktok\",\"funnelStage\":\"{stage}\",\
             \"eventType\":\"{kind}\",\"data\":{{\"user\":{{\"userId\":\"{user}\",\"username\":\"{name}\",\
             \"followers\":{followers}}},\"engagement\":"
        );
        if stage == FunnelStage::Top {
            let (watched, percentage) = (self.rng.random_range(1..=300), self.rng.random_range(0..=100));
            let device = self.pick(&["Android", "iOS", "Desktop"]);
            let country = self.countries[self.rng.random_range(0..self.countries.len())];
            let video = self.code("vid-", 8, MIXED);
            let _ = write!(
                event,
                "{{\"watchTime\":{watched},\"percentageWatched\":{percentage},\"device\":\"{device}\",\
                 \"country\":\"{country}\",\"videoId\":\"{video}\"}}}}}}"
            );
        } else {
            let profile = if self.rng.random_bool(0.5) {
                format!("\"{}\"", self.code("profile-", 6, UPPER))
            } else {
                "null".to_owned()
            };
            let (item, amount) = if self.rng.random_bool(0.4) {
                (format!("\"{}\"", self.pick(&ITEMS)), self.amount(5, 500))
            } else {
                ("null".to_owned(), "null".to_owned())
            };
            let _ = write!(
                event,
                "{{\"actionTime\":\"{time}\",\"profileId\":{profile},\"purchasedItem\":{item},\
                 \"purchaseAmount\":{amount}}}}}}}"
            );
        }
        event
    }

    /// An event with one of the eight corruptions. On the other source's event some of them are only an
    /// unknown key, and the event stays valid.
    pub fn corrupted(&mut self) -> String {
        let mut event: Value = serde_json::from_str(&self.valid()).unwrap_or_default();
        match self.rng.random_range(0..8) {
            0 => event["timestamp"] = "invalid-timestamp".into(),
            1 => remove(&mut event, "", "eventId"),
            2 => {
                remove(&mut event, "/data/user", "name");
                remove(&mut event, "/data/user", "username");
            }
            3 => remove(&mut event, "/data", "user"),
            4 => event["funnelStage"] = "invalid-stage".into(),
            5 => event["eventType"] = serde_json::json!(["unknown", "event"]),
            6 => match self.rng.random_range(0..4) {
                0 => event["data"]["engagement"]["actionTime"] = (-1).into(),
                1 => remove(&mut event, "/data/engagement", "adId"),
                2 => event["data"]["engagement"]["watchTime"] = (-1).into(),
                _ => remove(&mut event, "/data/engagement", "purchasedItem"),
            },
            _ if self.rng.random_bool(0.5) => event["data"]["user"]["gender"] = "alien".into(),
            _ => event["data"]["user"]["followers"] = "not-a-number".into(),
        }
        event.to_string()
    }
}

fn remove(event: &mut Value, at: &str, key: &str) {
    if let Some(Value::Object(object)) = event.pointer_mut(at) {
        object.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::decode;

    #[test]
    fn the_same_seed_makes_the_same_events() {
        let mix = Mix { duplicates: 0.1, invalid: 0.1, late: 0.1 };
        let make = |seed| Generator::new(Some(seed), mix).batch(500);
        assert_eq!(make(7), make(7));
        assert_ne!(make(7), make(8));
    }

    #[test]
    fn its_events_keep_the_contract_and_the_documented_sizes() {
        let mut generator = Generator::new(Some(1), Mix::default());
        let mut bytes = 0;
        let mut cities = std::collections::HashSet::new();
        let (mut amounts, mut kinds) = (0, std::collections::HashSet::new());
        for _ in 0..20_000 {
            let text = generator.valid();
            bytes += text.len();
            assert!(text.len() <= 543, "{text}");
            let event = decode(text.as_bytes(), None).unwrap_or_else(|refusal| panic!("{refusal:?}: {text}"));
            assert_eq!(event.rest, None);
            kinds.insert(event.kind.word.code);
            amounts += usize::from(event.columns.amount.is_some());
            cities.extend(event.columns.city.map(|city| city.into_owned()));
        }
        assert_eq!(kinds.len(), 14);
        assert!((380..460).contains(&(bytes / 20_000)), "{} bytes on average", bytes / 20_000);
        assert!((2_900..3_800).contains(&amounts), "one in six: {amounts}");
        assert!((5_000..10_000).contains(&cities.len()), "{} cities", cities.len());
    }

    #[test]
    fn corruptions_are_mostly_refused_and_some_are_only_an_unknown_key() {
        let mut generator = Generator::new(Some(2), Mix::default());
        let (mut refused, mut kept) = (0, 0);
        for _ in 0..2_000 {
            match decode(generator.corrupted().as_bytes(), None) {
                Ok(event) => kept += usize::from(event.rest.is_some()),
                Err(_) => refused += 1,
            }
        }
        assert!(refused > 1_300 && kept > 100, "{refused} refused, {kept} kept");
    }
}
