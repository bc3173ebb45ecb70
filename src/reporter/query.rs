//! Query parameters of the reporter's routes: parsing, and the filter of a report.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::event::{
    EventType, FunnelStage, MICROS_PER_MINUTE as MINUTE, Source, format_micros, parse_point_in_time,
};
use crate::fleet::Outcome;
use crate::money::Currency;
use crate::store::report::Filter;

/// Maximum number of entries of a list.
pub(super) const MAX_LIMIT: u16 = 1_000;
/// Number of entries of a list if `limit` is absent.
pub(super) const DEFAULT_LIMIT: u16 = 50;
/// Maximum number of types of events that an error names.
const MAX_NAMES: usize = 60;
/// Maximum number of buckets of a series.
pub(super) const MAX_BUCKETS: i64 = 10_000;

/// Parameter that is unknown, repeated or invalid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BadParameter {
    pub name: String,
    pub message: String,
}

/// Range that a report covers; an open side is null.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct Range {
    #[schema(required = true)]
    pub from: Option<String>,
    #[schema(required = true)]
    pub to: Option<String>,
}

/// Width of a series' buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Interval {
    Minute,
    Hour,
    Day,
}

impl Interval {
    /// Width in minutes.
    pub const fn minutes(self) -> i64 {
        match self {
            Self::Minute => 1,
            Self::Hour => 60,
            Self::Day => 1_440,
        }
    }

    /// Start of a bucket, in RFC 3339. Buckets are numbered from 1970.
    pub fn at(self, bucket: i64) -> String {
        format_micros(bucket * self.minutes() * MINUTE)
    }
}

/// Parameters of a request, by name, and the names that the route allows.
pub(super) struct Parameters {
    values: BTreeMap<String, String>,
    allowed: &'static [&'static str],
}

fn bad(name: &str, message: impl Into<String>) -> BadParameter {
    BadParameter { name: name.to_owned(), message: message.into() }
}

impl Parameters {
    /// Parses a query string.
    ///
    /// # Errors
    ///
    /// If it is not percent-encoded UTF-8, or a name is not allowed or occurs twice.
    pub fn read(query: &str, allowed: &'static [&'static str]) -> Result<Self, BadParameter> {
        if !is_encoded(query) {
            return Err(bad("query", "must be percent-encoded UTF-8"));
        }
        let pairs = actix_web::web::Query::<Vec<(String, String)>>::from_query(query)
            .map_err(|error| bad("query", error.to_string()))?;
        let mut values = BTreeMap::new();
        for (name, value) in pairs.into_inner() {
            if !allowed.contains(&name.as_str()) {
                return Err(bad(&name, format!("is not known: allowed are {}", allowed.join(", "))));
            }
            if values.insert(name.clone(), value).is_some() {
                return Err(bad(&name, "comes twice"));
            }
        }
        Ok(Self { values, allowed })
    }

    /// Takes parameters from the members of a JSON object: `limit` is a number, all others are text.
    ///
    /// # Errors
    ///
    /// If a name is not allowed, or a value is of another type.
    pub fn from_json(
        members: BTreeMap<String, Value>,
        allowed: &'static [&'static str],
    ) -> Result<Self, BadParameter> {
        let mut values = BTreeMap::new();
        for (name, value) in members {
            if !allowed.contains(&name.as_str()) {
                return Err(bad(&name, format!("is not known: allowed are {}", allowed.join(", "))));
            }
            let text = match value {
                Value::String(text) if name != "limit" => text,
                Value::Number(number) if name == "limit" => number.to_string(),
                _ => {
                    return Err(bad(
                        &name,
                        if name == "limit" { "must be a number" } else { "must be text" },
                    ));
                }
            };
            values.insert(name, text);
        }
        Ok(Self { values, allowed })
    }

    fn take<T>(
        &self,
        name: &'static str,
        allowed: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, BadParameter> {
        debug_assert!(self.allowed.contains(&name));
        let Some(text) = self.values.get(name) else { return Ok(None) };
        parse(text).map(Some).ok_or_else(|| bad(name, format!("must be {allowed}")))
    }

    /// True if a source or a type of event is named that this process does not know.
    pub fn has_unknown_names(&self) -> bool {
        let unknown =
            |name, is_known: fn(&str) -> bool| self.values.get(name).is_some_and(|text| !is_known(text));
        unknown("source", |name| Source::parse(name).is_some())
            || unknown("eventType", |name| {
                Source::all().flat_map(Source::event_types).any(|kind| kind.name() == name)
            })
    }

    pub fn source(&self) -> Result<Option<Source>, BadParameter> {
        self.take("source", &names(Source::all().map(Source::name)), Source::parse)
    }

    pub fn stage(&self) -> Result<Option<FunnelStage>, BadParameter> {
        self.take("funnelStage", &names(FunnelStage::all().map(FunnelStage::name)), FunnelStage::parse)
    }

    /// Codes of the event types with the given name, one for each source that has it.
    pub fn event_types(&self) -> Result<Option<Vec<i16>>, BadParameter> {
        let all = || Source::all().flat_map(Source::event_types);
        let allowed: std::collections::BTreeSet<_> = all().map(EventType::name).collect();
        let (shown, more) = (MAX_NAMES.min(allowed.len()), allowed.len() > MAX_NAMES);
        let allowed = allowed.into_iter().take(shown).collect::<Vec<_>>().join(", ");
        let allowed = format!("one of {allowed}{}", if more { ", …" } else { "" });
        self.take("eventType", &allowed, |text| {
            let codes: Vec<i16> = all().filter(|kind| kind.name() == text).map(EventType::code).collect();
            (!codes.is_empty()).then_some(codes)
        })
    }

    /// The name of a type of event, of any source.
    pub fn event_type_name(&self) -> Result<Option<String>, BadParameter> {
        self.event_types()?;
        Ok(self.values.get("eventType").cloned())
    }

    /// Result of validating an event.
    pub fn outcome(&self) -> Result<Option<Outcome>, BadParameter> {
        self.take("outcome", "accepted or refused", |text| match text {
            "accepted" => Some(Outcome::Accepted),
            "refused" => Some(Outcome::Refused),
            _ => None,
        })
    }

    pub fn interval(&self) -> Result<Option<Interval>, BadParameter> {
        self.take("interval", "one of minute, hour, day", |text| match text {
            "minute" => Some(Interval::Minute),
            "hour" => Some(Interval::Hour),
            "day" => Some(Interval::Day),
            _ => None,
        })
    }

    pub fn campaign_id(&self) -> Result<Option<String>, BadParameter> {
        self.take("campaignId", "1 to 256 characters without U+0000", |text| {
            ((1..=256).contains(&text.chars().count()) && !text.contains('\0')).then(|| text.to_owned())
        })
    }

    /// A currency's code.
    pub fn currency(&self) -> Result<Option<Currency>, BadParameter> {
        self.take("currency", "a currency's code of ISO 4217 in upper case, such as EUR", Currency::parse)
    }

    pub fn by_campaign(&self) -> Result<bool, BadParameter> {
        let by = self.take("groupBy", "campaign", |text| (text == "campaign").then_some(()))?;
        Ok(by.is_some())
    }

    pub fn limit(&self) -> Result<u16, BadParameter> {
        let allowed = format!("a whole number from 1 to {MAX_LIMIT}");
        let limit = self.take("limit", &allowed, |text| {
            // `parse` accepts a plus sign and leading zeros, which numbers in JSON cannot have.
            let number = text.starts_with(|first: char| matches!(first, '1'..='9'));
            text.parse().ok().filter(|limit| number && (1..=MAX_LIMIT).contains(limit))
        })?;
        Ok(limit.unwrap_or(DEFAULT_LIMIT))
    }

    pub fn text(&self, name: &'static str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    fn point(&self, name: &'static str) -> Result<Option<Point>, BadParameter> {
        self.take(
            name,
            "an RFC 3339 instant or a date, such as 2026-01-31T12:00:00Z or 2026-01-31",
            Point::parse,
        )
    }

    /// `from`, rounded down, and `to`, rounded up, in microseconds since 1970.
    ///
    /// # Errors
    ///
    /// If one is invalid, or `from` is after `to`.
    pub fn instants(&self) -> Result<(Option<i64>, Option<i64>), BadParameter> {
        let (from, to) = (self.point("from")?, self.point("to")?);
        if let (Some(from), Some(to)) = (&from, &to)
            && from > to
        {
            return Err(bad("from", "must not be after `to`"));
        }
        Ok((from.map(|from| from.micros), to.map(|to| to.micros + i64::from(!to.finer.is_empty()))))
    }

    /// `from` and `to` in minutes since 1970, widened to multiples of `unit` minutes. Both are clamped to the years 0 to
    /// 9999 of RFC 3339; no event has a time outside of them.
    pub fn range(&self, unit: i64) -> Result<(Option<i64>, Option<i64>), BadParameter> {
        let (from, to) = self.instants()?;
        let width = unit * MINUTE;
        let from = from.map(|from| from.clamp(FIRST, END - 1).div_euclid(width) * unit);
        let to = to.map(|to| (-(-to.max(FIRST)).div_euclid(width)).min((END - 1).div_euclid(width)) * unit);
        Ok((from, to))
    }

    /// Filter by these parameters, its range widened to multiples of `unit` minutes. Its currency is `currency` unless
    /// another one is asked for.
    pub fn filter(&self, unit: i64, currency: Currency) -> Result<Filter, BadParameter> {
        let (from, to) = self.range(unit)?;
        let has = |name| self.allowed.contains(&name);
        Ok(Filter {
            from,
            to,
            source: self.source()?,
            stage: if has("funnelStage") { self.stage()? } else { None },
            event_types: if has("eventType") { self.event_types()? } else { None },
            campaign_id: if has("campaignId") { self.campaign_id()? } else { None },
            currency: if has("currency") { self.currency()? } else { None }.unwrap_or(currency),
        })
    }

    /// Interval of the series.
    ///
    /// # Errors
    ///
    /// If it is invalid, or the filter's range has more than [`MAX_BUCKETS`] buckets.
    pub fn interval_within(&self, filter: &Filter) -> Result<Option<Interval>, BadParameter> {
        let Some(interval) = self.interval()? else { return Ok(None) };
        if let (Some(from), Some(to)) = (filter.from, filter.to)
            && buckets(from, to, interval) > MAX_BUCKETS
        {
            return Err(too_many_buckets());
        }
        Ok(Some(interval))
    }
}

/// Number of buckets that overlap the minutes from `from` (inclusive) to `to` (exclusive).
fn buckets(from: i64, to: i64, interval: Interval) -> i64 {
    let width = interval.minutes();
    if from < to { (to - 1).div_euclid(width) - from.div_euclid(width) + 1 } else { 0 }
}

/// Error for a series of more than [`MAX_BUCKETS`] buckets.
pub(super) fn too_many_buckets() -> BadParameter {
    bad(
        "interval",
        format!("would give more than {MAX_BUCKETS} buckets: ask for a shorter range or a wider interval"),
    )
}

/// Range of a filter, for the answer.
pub(super) fn range_of(filter: &Filter) -> Range {
    let shown = |minute: Option<i64>| minute.map(|minute| format_micros(minute.saturating_mul(MINUTE)));
    Range { from: shown(filter.from), to: shown(filter.to) }
}

fn names(names: impl Iterator<Item = &'static str>) -> String {
    format!("one of {}", names.collect::<Vec<_>>().join(", "))
}

/// 0000-01-01T00:00:00Z and 10000-01-01T00:00:00Z, in microseconds since 1970.
const FIRST: i64 = -62_167_219_200_000_000;
const END: i64 = 253_402_300_800_000_000;

/// Instant of a parameter, with any number of fractional digits.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Point {
    /// Microseconds since 1970, rounded down.
    micros: i64,
    /// Fractional digits beyond microseconds, without trailing zeros.
    finer: String,
}

impl Point {
    fn parse(text: &str) -> Option<Self> {
        // A plus sign that was not percent-encoded is decoded to a space.
        let at = text.len().checked_sub(6)?;
        let text = if text.is_ascii() && text.as_bytes()[at] == b' ' {
            format!("{}+{}", &text[..at], &text[at + 1..])
        } else {
            text.to_owned()
        };
        let micros = parse_point_in_time(&text)?;
        let fraction = text.split_once('.').map_or("", |(_, fraction)| fraction);
        let finer: String = fraction.chars().take_while(char::is_ascii_digit).skip(6).collect();
        Some(Self { micros, finer: finer.trim_end_matches('0').to_owned() })
    }
}

/// True if all percent escapes of a query are complete, and decode to UTF-8.
fn is_encoded(query: &str) -> bool {
    let whole = query
        .split('%')
        .skip(1)
        .all(|rest| rest.as_bytes().get(..2).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)));
    whole && percent_encoding::percent_decode_str(query).decode_utf8().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWED: &[&str] =
        &["from", "to", "source", "interval", "limit", "eventType", "funnelStage", "currency"];

    fn read(query: &str) -> Result<Filter, BadParameter> {
        let parameters = Parameters::read(query, ALLOWED)?;
        parameters.limit()?;
        let filter = parameters.filter(1, Currency::USD)?;
        parameters.interval_within(&filter)?;
        Ok(filter)
    }

    #[test]
    fn a_range_is_widened_to_whole_minutes() {
        let filter = read("from=2026-11-24T12:00:30Z&to=2026-11-24T14:01:30%2B02:00").unwrap();
        let range = range_of(&filter);
        assert_eq!(range.from.as_deref(), Some("2026-11-24T12:00:00Z"));
        assert_eq!(range.to.as_deref(), Some("2026-11-24T12:02:00Z"));
        let range = range_of(&read("from=2026-11-24&to=2026-11-24T00:00:00 02:00").unwrap_or_default());
        assert_eq!(range, Range { from: None, to: None }, "from is after to");
        let range = range_of(&read("to=2026-11-24").unwrap());
        assert_eq!((range.from, range.to.as_deref()), (None, Some("2026-11-24T00:00:00Z")));
    }

    #[test]
    fn fractions_of_a_microsecond_are_rounded_too() {
        let range = |query: &str| {
            let range = range_of(&read(query).unwrap());
            (range.from.unwrap_or_default(), range.to.unwrap_or_default())
        };
        let both = ("2026-01-31T12:00:00Z".to_owned(), "2026-01-31T12:01:00Z".to_owned());
        assert_eq!(range("from=2026-01-31T12:00:00.0000001Z&to=2026-01-31T12:00:00.0000002Z"), both);
        assert_eq!(range("to=2026-01-31T12:00:00.0000000000010Z").1, both.1);
        assert_eq!(range("to=2026-01-31T12:01:00.0000000000000Z").1, both.1);
    }

    #[test]
    fn a_range_is_valid_rfc_3339_at_the_bounds_of_time() {
        for unit in [1, 60] {
            for query in [
                "to=9999-12-31T23:59:59Z",
                "to=9999-12-31T23:59:59-23:59",
                "from=0000-01-01T00:00:00%2B01:00",
                "from=9999-12-31T23:59:59-23:59",
                "to=0000-01-01T00:00:00%2B01:00",
            ] {
                let filter = Parameters::read(query, ALLOWED)
                    .and_then(|read| read.filter(unit, Currency::USD))
                    .unwrap();
                let range = range_of(&filter);
                let shown = range.from.or(range.to).unwrap();
                assert!(
                    chrono::DateTime::parse_from_rfc3339(&shown).is_ok() && shown.len() == 20,
                    "{query}: {shown}"
                );
            }
        }
    }

    #[test]
    fn buckets_that_overlap_the_range_are_counted() {
        assert_eq!(buckets(59, 61, Interval::Hour), 2);
        assert_eq!(buckets(60, 120, Interval::Hour), 1);
        assert_eq!(buckets(60, 60, Interval::Hour), 0);
        assert_eq!(buckets(0, 10_000, Interval::Minute), MAX_BUCKETS);
        let hours = "interval=hour&from=2026-01-01T00:30:00Z&to=";
        // The range ends in the 10,001st hour.
        assert!(read(&format!("{hours}2027-02-21T16:30:00Z")).is_err());
        assert!(read(&format!("{hours}2027-02-21T16:00:00Z")).is_ok());
    }

    #[test]
    fn the_currency_is_the_reporters_unless_another_one_is_asked_for() {
        let euro = Currency::parse("EUR").unwrap();
        let of = |query| Parameters::read(query, ALLOWED).unwrap().filter(1, euro).unwrap().currency;
        assert_eq!((of(""), of("currency=JPY").to_string()), (euro, "JPY".to_owned()));
    }

    #[test]
    fn an_invalid_parameter_is_refused_by_name() {
        for (query, name) in [
            ("form=2026-11-24", "form"),
            ("from=yesterday", "from"),
            ("to=2026-11-24T25:00:00Z", "to"),
            ("from=2026-11-25&to=2026-11-24", "from"),
            ("source=myspace", "source"),
            ("source=facebook&source=tiktok", "source"),
            ("interval=week", "interval"),
            ("interval=minute&from=2026-01-01&to=2026-02-01", "interval"),
            ("limit=0", "limit"),
            ("limit=1001", "limit"),
            ("limit=%2B5", "limit"),
            ("limit=05", "limit"),
            ("limit=%205", "limit"),
            ("limit=", "limit"),
            ("source=", "source"),
            ("from=", "from"),
            ("from=%FF", "query"),
            ("source=face%62ook%", "query"),
            ("source=%zz", "query"),
            ("from=2026-01-31T12:00:00.0000002Z&to=2026-01-31T12:00:00.0000001Z", "from"),
            ("eventType=ad", "eventType"),
            ("funnelStage=middle", "funnelStage"),
            ("currency=XXX", "currency"),
            ("currency=eur", "currency"),
            ("currency=", "currency"),
        ] {
            assert_eq!(read(query).err().map(|error| error.name).as_deref(), Some(name), "{query}");
        }
    }
}
