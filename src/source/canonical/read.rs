//! Reads an event from its JSON object.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::event::{
    CanonicalColumns, CanonicalEvent, MAX_AGE, MAX_AMOUNT, MAX_CANONICAL_BYTES, MAX_EVENT_ID, MAX_FOLLOWERS,
    MAX_ID, MAX_TEXT, NotCanonical, VERSION,
};
use super::member::Member;
use super::names::{is_source_name, is_type_name};
use crate::json::scalar::{END_OF_2199, Text};
use crate::source::FunnelStage;

impl<'a> CanonicalEvent<'a> {
    /// Reads an event that [`write`](Self::write) wrote. Texts are borrowed where they hold no escapes.
    ///
    /// # Errors
    ///
    /// If the bytes are no canonical event; the message names the member.
    pub fn read(bytes: &'a [u8]) -> Result<Self, NotCanonical> {
        if bytes.len() > MAX_CANONICAL_BYTES {
            return Err(NotCanonical::TooLarge);
        }
        let event =
            serde_json::from_slice::<Draft<'a>>(bytes).map_err(NotCanonical::Malformed).and_then(|draft| {
                match draft.version {
                    Some(VERSION) => draft.checked(),
                    Some(newer) if newer > VERSION => Err(NotCanonical::Newer(newer)),
                    Some(_) => Err(wrong(Member::Version, "is no version")),
                    None => Err(wrong(Member::Version, MISSING)),
                }
            });
        // Members of a newer version may have other types, which are found before its number is compared.
        event.map_err(|error| match newer(bytes).filter(|version| *version > VERSION) {
            Some(version) => NotCanonical::Newer(version),
            None => error,
        })
    }
}

/// The reason of a member that is not there.
const MISSING: &str = "is missing";

fn wrong(member: Member, reason: &'static str) -> NotCanonical {
    NotCanonical::Member { member: member.name(), reason }
}

/// The version of a JSON object, whatever else it holds.
fn newer(bytes: &[u8]) -> Option<u32> {
    #[derive(serde::Deserialize)]
    struct Versioned {
        version: u32,
    }
    serde_json::from_slice::<Versioned>(bytes).ok().map(|read| read.version)
}

/// Members as they were read.
#[derive(Default)]
struct Draft<'a> {
    version: Option<u32>,
    id: Option<Text<'a>>,
    timestamp: Option<i64>,
    arrival: Option<bool>,
    source: Option<Text<'a>>,
    event_type: Option<Text<'a>>,
    stage: Option<FunnelStage>,
    user: Option<Text<'a>>,
    campaign: Option<Text<'a>>,
    ad: Option<Text<'a>>,
    country: Option<Text<'a>>,
    city: Option<Text<'a>>,
    device: Option<Text<'a>>,
    browser: Option<Text<'a>>,
    age: Option<i16>,
    gender: Option<Text<'a>>,
    followers: Option<i64>,
    name: Option<Text<'a>>,
    referrer: Option<Text<'a>>,
    video: Option<Text<'a>>,
    amount: Option<i64>,
    currency: Option<Text<'a>>,
    revenue: Option<bool>,
    raw: Option<&'a RawValue>,
}

impl<'a> Draft<'a> {
    /// The event, if each member is within its bounds.
    fn checked(self) -> Result<CanonicalEvent<'a>, NotCanonical> {
        let currency = text(Member::Currency, self.currency, 3)?;
        if currency
            .as_ref()
            .is_some_and(|code| code.len() != 3 || !code.bytes().all(|b| b.is_ascii_uppercase()))
        {
            return Err(wrong(Member::Currency, "must be a code of ISO 4217 in upper case"));
        }
        if self.amount.is_none() && currency.is_some() {
            return Err(wrong(Member::Amount, MISSING));
        }
        let is_revenue = self.revenue.unwrap_or_default();
        if is_revenue && self.amount.is_none() {
            return Err(wrong(Member::Amount, MISSING));
        }
        let source = required(Member::Source, self.source)?.0;
        if !is_source_name(&source) {
            return Err(wrong(Member::Source, "is no name of a source"));
        }
        let event_type = required(Member::Type, self.event_type)?.0;
        if !is_type_name(&event_type) {
            return Err(wrong(Member::Type, "is no name of a type"));
        }
        let raw = required(Member::Raw, self.raw)?.get();
        if !raw.starts_with('{') {
            return Err(wrong(Member::Raw, "must be an object"));
        }
        let timestamp = required(Member::Timestamp, self.timestamp)?;
        Ok(CanonicalEvent {
            id: required(Member::Id, text(Member::Id, self.id, MAX_EVENT_ID)?)?,
            timestamp: within(Member::Timestamp, timestamp, END_OF_2199 - 1)?,
            is_arrival: self.arrival.unwrap_or_default(),
            source,
            event_type,
            stage: required(Member::Stage, self.stage)?,
            user: text(Member::User, self.user, MAX_ID)?,
            columns: CanonicalColumns {
                campaign: text(Member::Campaign, self.campaign, MAX_ID)?,
                ad: text(Member::Ad, self.ad, MAX_ID)?,
                country: text(Member::Country, self.country, MAX_TEXT)?,
                city: text(Member::City, self.city, MAX_TEXT)?,
                device: text(Member::Device, self.device, MAX_TEXT)?,
                browser: text(Member::Browser, self.browser, MAX_TEXT)?,
                age: self.age.map(|age| within(Member::Age, age, MAX_AGE)).transpose()?,
                gender: text(Member::Gender, self.gender, MAX_TEXT)?,
                followers: self.followers.map(|n| within(Member::Followers, n, MAX_FOLLOWERS)).transpose()?,
                name: text(Member::Name, self.name, MAX_TEXT)?,
                referrer: text(Member::Referrer, self.referrer, MAX_TEXT)?,
                video: text(Member::Video, self.video, MAX_ID)?,
            },
            amount: self.amount.map(|amount| within(Member::Amount, amount, MAX_AMOUNT)).transpose()?,
            currency,
            is_revenue,
            raw: Cow::Borrowed(raw),
        })
    }
}

fn required<T>(member: Member, value: Option<T>) -> Result<T, NotCanonical> {
    value.ok_or_else(|| wrong(member, MISSING))
}

/// A text of 1 to `most` characters. The empty one would be another than an absent one, and no gateway writes it.
fn text<'a>(
    member: Member,
    value: Option<Text<'a>>,
    most: usize,
) -> Result<Option<Cow<'a, str>>, NotCanonical> {
    match value {
        Some(Text(text)) if text.is_empty() => Err(wrong(member, "is empty")),
        // Bytes are no fewer than characters.
        Some(Text(text)) if text.len() > most && text.chars().count() > most => {
            Err(wrong(member, "has too many characters"))
        }
        other => Ok(other.map(|Text(text)| text)),
    }
}

fn within<N: PartialOrd + Default>(member: Member, number: N, most: N) -> Result<N, NotCanonical> {
    if N::default() <= number && number <= most { Ok(number) } else { Err(wrong(member, "is out of range")) }
}

impl<'de: 'a, 'a> Deserialize<'de> for Draft<'a> {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = Draft<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Draft<'de>, A::Error> {
                let mut draft = Draft::default();
                while let Some(key) = map.next_key::<Key>()? {
                    match key.0 {
                        Some(member) => draft.read(member, &mut map)?,
                        None => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(draft)
            }
        }
        de.deserialize_map(Visit)
    }
}

impl<'a> Draft<'a> {
    /// Reads the value of a member.
    fn read<'de: 'a, A: MapAccess<'de>>(&mut self, member: Member, map: &mut A) -> Result<(), A::Error> {
        fn value<'de, T: Deserialize<'de>, A: MapAccess<'de>>(
            slot: &mut Option<T>,
            member: Member,
            map: &mut A,
        ) -> Result<(), A::Error> {
            let name = member.name();
            if slot.is_some() {
                return Err(Error::custom(format_args!("`{name}` comes twice")));
            }
            let read = map.next_value::<T>();
            *slot = Some(read.map_err(|error| Error::custom(format_args!("`{name}`: {error}")))?);
            Ok(())
        }
        match member {
            Member::Version => value(&mut self.version, member, map),
            Member::Id => value(&mut self.id, member, map),
            Member::Timestamp => value(&mut self.timestamp, member, map),
            Member::Arrival => value(&mut self.arrival, member, map),
            Member::Source => value(&mut self.source, member, map),
            Member::Type => value(&mut self.event_type, member, map),
            Member::Stage => value(&mut self.stage, member, map),
            Member::User => value(&mut self.user, member, map),
            Member::Campaign => value(&mut self.campaign, member, map),
            Member::Ad => value(&mut self.ad, member, map),
            Member::Country => value(&mut self.country, member, map),
            Member::City => value(&mut self.city, member, map),
            Member::Device => value(&mut self.device, member, map),
            Member::Browser => value(&mut self.browser, member, map),
            Member::Age => value(&mut self.age, member, map),
            Member::Gender => value(&mut self.gender, member, map),
            Member::Followers => value(&mut self.followers, member, map),
            Member::Name => value(&mut self.name, member, map),
            Member::Referrer => value(&mut self.referrer, member, map),
            Member::Video => value(&mut self.video, member, map),
            Member::Amount => value(&mut self.amount, member, map),
            Member::Currency => value(&mut self.currency, member, map),
            Member::Revenue => value(&mut self.revenue, member, map),
            Member::Raw => value(&mut self.raw, member, map),
        }
    }
}

/// A key: a member, or a name that this version does not know.
struct Key(Option<Member>);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        struct Visit;
        impl Visitor<'_> for Visit {
            type Value = Key;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name of a member")
            }
            fn visit_str<E: Error>(self, name: &str) -> Result<Key, E> {
                Ok(Key(Member::parse(name)))
            }
        }
        de.deserialize_str(Visit)
    }
}
