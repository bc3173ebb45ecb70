//! The canonical event: the one form that events of declared sources are brought to.
//!
//! A frame of a declared source holds canonical events, each as one compact JSON object of the members of [`Member`].
//! Only gateways read source files; collectors and reporters learn sources, types and stages from these events. An
//! event that is in the log is therefore never read differently later. Readers ignore members that they do not know.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{FunnelStage, MAX_EVENT_BYTES};
use crate::json::scalar::{END_OF_2199, Text};

/// Version of the form that is written. Higher ones are not read.
const VERSION: u32 = 1;
/// Maximum bytes of a canonical event: `raw`, and twelve columns of 1,024 characters with each one escaped.
pub const MAX_CANONICAL_BYTES: usize = MAX_EVENT_BYTES + 128 * 1024;
/// Maximum characters of an event's id.
pub(super) const MAX_EVENT_ID: usize = 128;
/// Maximum characters of the id of a user, campaign, ad or video.
pub(super) const MAX_ID: usize = 256;
/// Maximum characters of another text.
pub(super) const MAX_TEXT: usize = 1_024;
/// Maximum amount in millionths, as for the built-in sources.
pub(super) const MAX_AMOUNT: i64 = 999_999_999_999_999_999;
/// Maximum number of followers: 2^53 - 1.
pub(super) const MAX_FOLLOWERS: i64 = 9_007_199_254_740_991;
/// Maximum age in years.
pub(super) const MAX_AGE: i16 = 150;

/// An event of a declared source, as the log keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CanonicalEvent<'a> {
    /// Key of the event within its source, 1 to 128 characters.
    pub id: Cow<'a, str>,
    /// Event time, in microseconds since 1970.
    pub timestamp: i64,
    /// True if the platform told no time, and the arrival stands for it.
    pub is_arrival: bool,
    /// Name of the source.
    pub source: Cow<'a, str>,
    /// Type of the event, one of the source's.
    pub event_type: Cow<'a, str>,
    /// Stage of the funnel.
    pub stage: FunnelStage,
    /// Id of the user, if it is told.
    pub user: Option<Cow<'a, str>>,
    /// Optional columns.
    pub columns: CanonicalColumns<'a>,
    /// Amount in millionths of the currency's unit.
    pub amount: Option<i64>,
    /// ISO 4217 code of the amount in upper case, if it is told; else the amount is in the setting's currency.
    pub currency: Option<Cow<'a, str>>,
    /// True if the amount is revenue.
    pub is_revenue: bool,
    /// The event as a compact JSON object, secrets removed.
    pub raw: Cow<'a, str>,
}

/// Optional columns of a canonical event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CanonicalColumns<'a> {
    /// Id of the campaign.
    pub campaign: Option<Cow<'a, str>>,
    /// Id of the ad.
    pub ad: Option<Cow<'a, str>>,
    /// Country as it was sent.
    pub country: Option<Cow<'a, str>>,
    /// City as it was sent.
    pub city: Option<Cow<'a, str>>,
    /// Device.
    pub device: Option<Cow<'a, str>>,
    /// Browser.
    pub browser: Option<Cow<'a, str>>,
    /// Age in years, 0 to 150.
    pub age: Option<i16>,
    /// Gender.
    pub gender: Option<Cow<'a, str>>,
    /// Number of followers.
    pub followers: Option<i64>,
    /// Name of the user.
    pub name: Option<Cow<'a, str>>,
    /// Place that led to the event.
    pub referrer: Option<Cow<'a, str>>,
    /// Id of the video.
    pub video: Option<Cow<'a, str>>,
}

/// The reason that bytes are no canonical event. Each message names the member.
#[derive(Debug, thiserror::Error)]
pub enum NotCanonical {
    /// More bytes than any canonical event has.
    #[error("it is larger than {MAX_CANONICAL_BYTES} bytes")]
    TooLarge,
    /// A newer version of ESS wrote it.
    #[error("`version` is {0}, and this version of ESS reads {VERSION}")]
    Newer(u32),
    /// It is no JSON object, or a member has another type than it must have.
    #[error("it is no canonical event: {0}")]
    Malformed(#[source] serde_json::Error),
    /// A member is missing or out of its bounds.
    #[error("`{member}` {reason}")]
    Member {
        /// Name of the member.
        member: &'static str,
        /// Rest of the sentence.
        reason: &'static str,
    },
}

impl<'a> CanonicalEvent<'a> {
    /// Appends the event as one compact JSON object.
    pub fn write(&self, to: &mut Vec<u8>) {
        let columns = &self.columns;
        let mut members = Writer { to, separator: b'{' };
        members.number(Member::Version, Some(i64::from(VERSION)));
        members.text(Member::Id, Some(&self.id));
        members.number(Member::Timestamp, Some(self.timestamp));
        members.flag(Member::Arrival, self.is_arrival);
        members.text(Member::Source, Some(&self.source));
        members.text(Member::Type, Some(&self.event_type));
        members.text(Member::Stage, Some(self.stage.name()));
        members.text(Member::User, self.user.as_deref());
        members.text(Member::Campaign, columns.campaign.as_deref());
        members.text(Member::Ad, columns.ad.as_deref());
        members.text(Member::Country, columns.country.as_deref());
        members.text(Member::City, columns.city.as_deref());
        members.text(Member::Device, columns.device.as_deref());
        members.text(Member::Browser, columns.browser.as_deref());
        members.number(Member::Age, columns.age.map(i64::from));
        members.text(Member::Gender, columns.gender.as_deref());
        members.number(Member::Followers, columns.followers);
        members.text(Member::Name, columns.name.as_deref());
        members.text(Member::Referrer, columns.referrer.as_deref());
        members.text(Member::Video, columns.video.as_deref());
        members.number(Member::Amount, self.amount);
        members.text(Member::Currency, self.currency.as_deref());
        members.flag(Member::Revenue, self.is_revenue);
        members.key(Member::Raw).extend_from_slice(self.raw.as_bytes());
        to.push(b'}');
    }

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

/// True for a name of a source: a letter of a-z, then up to 31 of a-z, 0-9 and `_`.
pub(super) fn is_source_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    let begins = name.bytes().next().is_some_and(|first| first.is_ascii_lowercase());
    begins && name.len() <= 32 && name.bytes().all(plain)
}

/// True for a name of a type: up to 64 of a-z, 0-9, `.`, `_` and `-`, the first a letter or a digit.
pub(super) fn is_type_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
    let begins =
        name.bytes().next().is_some_and(|first| first.is_ascii_lowercase() || first.is_ascii_digit());
    begins && name.len() <= 64 && name.bytes().all(plain)
}

/// Declares the members of a canonical event with their names.
macro_rules! members {
    ($($(#[$doc:meta])* $member:ident => $name:literal,)+) => {
        /// A member of the JSON object. Those that are optional are absent, never null.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        enum Member {
            $($(#[$doc])* $member),+
        }

        impl Member {
            const fn name(self) -> &'static str {
                match self { $(Self::$member => $name),+ }
            }

            fn parse(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$member),)+ _ => None }
            }
        }
    };
}

members! {
    /// Version of the form.
    Version => "version",
    /// Id of the event.
    Id => "id",
    /// Microseconds since 1970.
    Timestamp => "timestamp",
    /// True if `timestamp` is the arrival; else absent.
    Arrival => "arrival",
    /// Name of the source.
    Source => "source",
    /// Type of the event.
    Type => "type",
    /// Stage of the funnel.
    Stage => "stage",
    /// Id of the user.
    User => "user",
    /// Id of the campaign.
    Campaign => "campaign",
    /// Id of the ad.
    Ad => "ad",
    /// Country.
    Country => "country",
    /// City.
    City => "city",
    /// Device.
    Device => "device",
    /// Browser.
    Browser => "browser",
    /// Age in years.
    Age => "age",
    /// Gender.
    Gender => "gender",
    /// Number of followers.
    Followers => "followers",
    /// Name of the user.
    Name => "name",
    /// Place that led to the event.
    Referrer => "referrer",
    /// Id of the video.
    Video => "video",
    /// Amount in millionths.
    Amount => "amount",
    /// ISO 4217 code.
    Currency => "currency",
    /// True if the amount is revenue; else absent.
    Revenue => "revenue",
    /// The event as it came.
    Raw => "raw",
}

/// Writes members of an object.
struct Writer<'t> {
    to: &'t mut Vec<u8>,
    /// Byte before the next member.
    separator: u8,
}

impl Writer<'_> {
    fn key(&mut self, member: Member) -> &mut Vec<u8> {
        self.to.push(self.separator);
        self.separator = b',';
        self.to.push(b'"');
        self.to.extend_from_slice(member.name().as_bytes());
        self.to.extend_from_slice(b"\":");
        self.to
    }

    fn text(&mut self, member: Member, text: Option<&str>) {
        if let Some(text) = text {
            // Writing to memory does not fail.
            let _ = serde_json::to_writer(self.key(member), text);
        }
    }

    fn number(&mut self, member: Member, number: Option<i64>) {
        if let Some(number) = number {
            let _ = serde_json::to_writer(self.key(member), &number);
        }
    }

    fn flag(&mut self, member: Member, flag: bool) {
        if flag {
            self.key(member).extend_from_slice(b"true");
        }
    }
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

#[cfg(test)]
mod tests {
    use proptest::option;
    use proptest::prelude::*;

    use super::*;

    /// An event of the required members alone.
    const SMALLEST: &str =
        r#"{"version":1,"id":"1","timestamp":0,"source":"s","type":"t","stage":"top","raw":{}}"#;

    fn read(text: &str) -> Result<CanonicalEvent<'_>, String> {
        CanonicalEvent::read(text.as_bytes()).map_err(|error| error.to_string())
    }

    fn text(most: usize) -> impl Strategy<Value = Option<Cow<'static, str>>> {
        option::of(proptest::collection::vec(any::<char>(), 1..most.min(40))).prop_map(|chars| {
            chars
                .map(|chars| Cow::Owned(chars.into_iter().map(|c| if c == '\0' { 'x' } else { c }).collect()))
        })
    }

    prop_compose! {
        fn columns()(
            ids in [text(MAX_ID), text(MAX_ID), text(MAX_ID)],
            texts in [text(MAX_TEXT), text(MAX_TEXT), text(MAX_TEXT), text(MAX_TEXT), text(MAX_TEXT), text(MAX_TEXT),
                text(MAX_TEXT)],
            age in option::of(0..=MAX_AGE),
            followers in option::of(0..=MAX_FOLLOWERS),
        ) -> CanonicalColumns<'static> {
            let ([campaign, ad, video], [country, city, device, browser, gender, name, referrer]) = (ids, texts);
            CanonicalColumns {
                campaign, ad, country, city, device, browser, age, gender, followers, name, referrer, video,
            }
        }
    }

    prop_compose! {
        fn events()(
            id in text(MAX_EVENT_ID), user in text(MAX_ID), columns in columns(),
            (timestamp, is_arrival) in (0..END_OF_2199, any::<bool>()),
            source in "[a-z][a-z0-9_]{0,31}", event_type in "[a-z0-9][a-z0-9._-]{0,63}",
            stage in any::<bool>(), is_revenue in any::<bool>(),
            amount in option::of(0..=MAX_AMOUNT), currency in option::of("[A-Z]{3}"),
            raw in proptest::collection::btree_map(any::<String>(), any::<String>(), 0..4),
        ) -> CanonicalEvent<'static> {
            CanonicalEvent {
                id: id.unwrap_or(Cow::Borrowed("7400000000000000777")),
                timestamp,
                is_arrival,
                source: source.into(),
                event_type: event_type.into(),
                stage: if stage { FunnelStage::TOP } else { FunnelStage::BOTTOM },
                user,
                columns,
                is_revenue: is_revenue && amount.is_some(),
                currency: currency.filter(|_| amount.is_some()).map(Cow::Owned),
                amount,
                raw: serde_json::to_string(&raw).unwrap().into(),
            }
        }
    }

    proptest! {
        #[test]
        fn an_event_is_read_as_it_was_written(event in events()) {
            let mut bytes = Vec::new();
            event.write(&mut bytes);
            prop_assert!(serde_json::from_slice::<serde_json::Value>(&bytes).is_ok());
            let again = CanonicalEvent::read(&bytes).unwrap();
            prop_assert_eq!(&again, &event);
            let mut second = Vec::new();
            again.write(&mut second);
            prop_assert_eq!(second, bytes);
        }

        #[test]
        fn no_bytes_make_the_reader_fail_otherwise_than_with_an_error(
            event in events(), at in any::<proptest::sample::Index>(), byte in any::<u8>(), cut in any::<bool>(),
        ) {
            let mut bytes = Vec::new();
            event.write(&mut bytes);
            let at = at.index(bytes.len());
            if cut { bytes.truncate(at) } else { bytes[at] = byte }
            if let Ok(event) = CanonicalEvent::read(&bytes) {
                let mut again = Vec::new();
                event.write(&mut again);
                prop_assert_eq!(CanonicalEvent::read(&again).unwrap(), event);
            }
        }
    }

    #[test]
    fn texts_without_escapes_are_borrowed() {
        let event = read(SMALLEST).unwrap();
        assert!(matches!((&event.id, &event.raw), (Cow::Borrowed("1"), Cow::Borrowed("{}"))));
    }

    #[test]
    fn a_wrong_member_is_named() {
        let with = |from: &str, to: &str| SMALLEST.replace(from, to);
        for (text, part) in [
            (with(r#""id":"1","#, ""), "`id` is missing"),
            (with(r#""id":"1""#, r#""id":1"#), "`id`: invalid type: integer"),
            (with(r#""id":"1""#, r#""id":"""#), "`id` is empty"),
            (with(r#""id":"1""#, &format!(r#""id":"{}""#, "x".repeat(129))), "`id` has too many characters"),
            (with(r#""id":"1""#, r#""id":"\u0000""#), "`id`: must not contain U+0000"),
            (with(r#""id":"1""#, r#""id":"1","id":"2""#), "`id` comes twice"),
            (with(r#""timestamp":0"#, r#""timestamp":-1"#), "`timestamp` is out of range"),
            (with(r#""timestamp":0"#, r#""timestamp":1.5"#), "`timestamp`: invalid type"),
            (with(r#""source":"s""#, r#""source":"S""#), "`source` is no name of a source"),
            (with(r#""type":"t""#, r#""type":"a b""#), "`type` is no name of a type"),
            (with(r#""stage":"top""#, r#""stage":"middle""#), "`stage`: must be one of top, bottom"),
            (with(r#""raw":{}"#, r#""raw":[]"#), "`raw` must be an object"),
            (with(r#""raw":{}"#, r#""revenue":true,"raw":{}"#), "`amount` is missing"),
            (with(r#""raw":{}"#, r#""currency":"EUR","raw":{}"#), "`amount` is missing"),
            (with(r#""raw":{}"#, r#""amount":-1,"raw":{}"#), "`amount` is out of range"),
            (with(r#""raw":{}"#, r#""amount":1,"currency":"eur","raw":{}"#), "`currency` must be a code"),
            (with(r#""raw":{}"#, r#""age":151,"raw":{}"#), "`age` is out of range"),
            (with(r#""version":1"#, r#""version":0"#), "`version` is no version"),
            (with(r#""version":1,"#, ""), "`version` is missing"),
            (with(r#""version":1"#, r#""version":2"#), "`version` is 2, and this version of ESS reads 1"),
            (r#"{"id":[],"version":2}"#.to_owned(), "`version` is 2"),
            ("[]".to_owned(), "expected an object"),
            ("{".to_owned(), "EOF"),
            (format!("{SMALLEST}{}", " ".repeat(MAX_CANONICAL_BYTES)), "larger than"),
        ] {
            let error = read(&text).expect_err(&text);
            assert!(error.contains(part), "{text}: {error}");
        }
        assert!(
            read(&with(r#""raw":{}"#, r#""later":{"a":[1]},"raw":{}"#)).is_ok(),
            "members of later versions"
        );
    }

    #[test]
    fn the_largest_event_is_within_the_bound() {
        let long = |most: usize| Some(Cow::Owned("\u{1}".repeat(most)));
        let (id, text) = (long(MAX_ID), long(MAX_TEXT));
        let event = CanonicalEvent {
            id: "\u{1}".repeat(MAX_EVENT_ID).into(),
            timestamp: END_OF_2199 - 1,
            is_arrival: true,
            source: "s".repeat(32).into(),
            event_type: "t".repeat(64).into(),
            stage: FunnelStage::BOTTOM,
            user: id.clone(),
            columns: CanonicalColumns {
                campaign: id.clone(),
                ad: id.clone(),
                country: text.clone(),
                city: text.clone(),
                device: text.clone(),
                browser: text.clone(),
                age: Some(MAX_AGE),
                gender: text.clone(),
                followers: Some(MAX_FOLLOWERS),
                name: text.clone(),
                referrer: text,
                video: id,
            },
            amount: Some(MAX_AMOUNT),
            currency: Some("EUR".into()),
            is_revenue: true,
            raw: format!(r#"{{"a":"{}"}}"#, "x".repeat(MAX_EVENT_BYTES - 8)).into(),
        };
        let mut bytes = Vec::new();
        event.write(&mut bytes);
        assert_eq!(event.raw.len(), MAX_EVENT_BYTES);
        assert_eq!(CanonicalEvent::read(&bytes).unwrap(), event);
    }
}
