//! Sample events: the pseudo-random values that sources make theirs of, and the corruptions that a source's events
//! can have.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::event_type::EventType;

const COUNTRIES: &str = include_str!("countries.txt");

const GIVEN_NAMES: [&str; 20] = [
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
const CITY_ENDINGS: [&str; 18] = [
    "berg", "borough", "burgh", "bury", "chester", "dale", "field", "ford", "fort", "furt", "haven", "mouth",
    "port", "shire", "side", "stad", "ton", "ville",
];

/// Capital letters and digits, for [`Dice::id`].
pub(super) const UPPER: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
/// Letters and digits, for [`Dice::id`].
pub(super) const MIXED: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// Sample events of one source.
pub(crate) struct Samples {
    /// Writes a valid event as JSON.
    pub write: fn(&mut Dice, &SampleEvent<'_>) -> String,
    /// The removal of the user's name.
    pub without_name: Corruption,
    /// A value of the user that is not allowed.
    pub wrong_user: Corruption,
    /// Engagements that are broken, each in another way.
    pub wrong_engagements: &'static [Corruption],
}

/// The envelope of a sample event.
pub(crate) struct SampleEvent<'a> {
    /// The event time, as RFC 3339.
    pub time: &'a str,
    /// The type, one of the source's.
    pub event_type: &'static EventType,
}

/// A change that breaks the contract of the source that declares it. In an event of another source it is an unknown
/// key, or nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Corruption {
    /// The JSON Pointer of the object that is changed.
    pub object: &'static str,
    /// The key in that object.
    pub key: &'static str,
    /// The new value as JSON; none removes the key.
    pub value: Option<&'static str>,
}

impl Corruption {
    /// The removal of a key.
    pub const fn remove(object: &'static str, key: &'static str) -> Self {
        Self { object, key, value: None }
    }

    /// Another value, as JSON, at a key.
    pub const fn set(object: &'static str, key: &'static str, value: &'static str) -> Self {
        Self { object, key, value: Some(value) }
    }
}

/// Pseudo-random values; the same seed gives the same values.
#[derive(Debug)]
pub(crate) struct Dice {
    rng: StdRng,
    countries: Vec<&'static str>,
}

impl Dice {
    /// Dice of a seed, or of one by chance.
    pub fn new(seed: Option<u64>) -> Self {
        let rng = StdRng::seed_from_u64(seed.unwrap_or_else(|| rand::rng().random()));
        Self { rng, countries: COUNTRIES.lines().collect() }
    }

    /// The generator itself.
    pub fn rng(&mut self) -> &mut StdRng {
        &mut self.rng
    }

    /// True in this fraction of calls.
    pub fn chance(&mut self, fraction: f64) -> bool {
        fraction > 0.0 && self.rng.random_bool(fraction.min(1.0))
    }

    /// A number of a range, both ends included.
    pub fn number(&mut self, low: u32, high: u32) -> u32 {
        self.rng.random_range(low..=high)
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.rng.random_range(0..from.len())]
    }

    /// A version 4 UUID.
    pub fn uuid(&mut self) -> uuid::Uuid {
        uuid::Builder::from_random_bytes(self.rng.random()).into_uuid()
    }

    /// A prefix with this many letters behind it.
    pub fn id(&mut self, prefix: &str, length: usize, letters: &[u8]) -> String {
        let mut id = prefix.to_owned();
        for _ in 0..length {
            id.push(char::from(self.pick(letters)));
        }
        id
    }

    /// A given name, a separator and a family name.
    pub fn name(&mut self, separator: char) -> String {
        format!("{}{separator}{}{}", self.pick(&GIVEN_NAMES), self.pick(&ONSETS), self.pick(&MIDDLES))
    }

    /// A country's name.
    pub fn country(&mut self) -> &'static str {
        self.countries[self.rng.random_range(0..self.countries.len())]
    }

    /// A city's name, one of about 10,000.
    pub fn city(&mut self) -> String {
        format!("{}{}{}", self.pick(&ONSETS), self.pick(&MIDDLES), self.pick(&CITY_ENDINGS))
    }

    /// An amount with two decimals, as a JSON string.
    pub fn amount(&mut self, low: u32, high: u32) -> String {
        let cents = self.number(low * 100, high * 100);
        format!("\"{}.{:02}\"", cents / 100, cents % 100)
    }
}
