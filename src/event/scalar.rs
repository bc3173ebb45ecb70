//! The scalar values of the contract: text, integers, instants, money and plain numbers.
//!
//! Each type reads itself from JSON and exists only if its form is right; ranges and lengths are
//! garde's, where the field is declared.

use std::borrow::Cow;
use std::fmt;

use chrono::{DateTime, Datelike, SecondsFormat, Timelike, Utc};
use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde_json::value::RawValue;

/// A string without NUL, borrowed from the event's bytes where it holds no escapes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text<'a>(pub Cow<'a, str>);

/// Why a string that holds U+0000 is refused.
pub(super) const NUL: &str = "must not contain U+0000";

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        struct Visit;
        fn checked<E: Error>(text: Cow<'_, str>) -> Result<Text<'_>, E> {
            match memchr::memchr(0, text.as_bytes()) {
                None => Ok(Text(text)),
                Some(_) => Err(E::custom(NUL)),
            }
        }
        impl<'de> Visitor<'de> for Visit {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Text<'de>, E> {
                checked(Cow::Borrowed(text))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Text<'de>, E> {
                checked(Cow::Owned(text.to_owned()))
            }
        }
        de.deserialize_str(Visit)
    }
}

impl garde::rules::length::chars::HasChars for Text<'_> {
    fn num_chars(&self) -> usize {
        self.0.chars().count()
    }
}

impl std::ops::Deref for Text<'_> {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

/// A whole JSON number. `45.0` is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
pub struct Integer(pub i64);

impl<'de> Deserialize<'de> for Integer {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        struct Visit;
        impl Visitor<'_> for Visit {
            type Value = Integer;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an integer")
            }
            fn visit_i64<E: Error>(self, value: i64) -> Result<Integer, E> {
                Ok(Integer(value))
            }
            fn visit_u64<E: Error>(self, value: u64) -> Result<Integer, E> {
                // Beyond i64 it is beyond every range too; the range names the limit.
                Ok(Integer(i64::try_from(value).unwrap_or(i64::MAX)))
            }
        }
        de.deserialize_i64(Visit)
    }
}

impl garde::rules::range::Bounds for Integer {
    type Size = i64;
    const MIN: i64 = i64::MIN;
    const MAX: i64 = i64::MAX;
    fn validate_bounds(&self, low: i64, high: i64) -> Result<(), garde::rules::range::OutOfBounds> {
        self.0.validate_bounds(low, high)
    }
}

/// Microseconds, which an [`Instant`] counts, of a minute.
pub const MICROS_PER_MINUTE: i64 = 60_000_000;

/// An RFC 3339 instant between 1970 and 2199 (UTC), in microseconds since 1970.
///
/// What is finer than a microsecond is cut off here; [`Instant::exact`] is then false and the
/// event's unknown part keeps the string as it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant {
    /// Microseconds since 1970-01-01T00:00:00Z.
    pub micros: i64,
    /// Whether `micros` is all that was sent.
    pub exact: bool,
}

impl Instant {
    /// Reads an RFC 3339 instant; the error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const FORM: &str = "must be an RFC 3339 instant, such as 2026-01-31T12:00:00Z";
        let instant = rfc_3339(text).ok_or(FORM)?;
        if !(0..END_OF_2199).contains(&instant.timestamp_micros()) {
            return Err("must lie in the years 1970 to 2199");
        }
        let bytes = text.as_bytes();
        // A leap second's microseconds are those of the second after it: only the text tells the two apart.
        let exact = instant.timestamp_subsec_nanos() % 1_000 == 0
            && digits_after_dot(bytes) <= 9
            && !in_leap_second(&instant);
        Ok(Self { micros: instant.timestamp_micros(), exact })
    }
}

/// 2200-01-01T00:00:00Z, in microseconds since 1970.
const END_OF_2199: i64 = 7_258_118_400_000_000;

/// Reads what RFC 3339 allows and no more: chrono also takes a space between date and time, other signs
/// of minus, and years of more or less than four digits.
fn rfc_3339(text: &str) -> Option<DateTime<Utc>> {
    let bytes = text.as_bytes();
    let strict = text.is_ascii()
        && bytes.len() >= 20
        && bytes[..4].iter().all(u8::is_ascii_digit)
        && matches!(bytes[10], b'T' | b't');
    if !strict {
        return None;
    }
    let at = DateTime::parse_from_rfc3339(text).ok()?.with_timezone(&Utc);
    (!in_leap_second(&at) || has_leap_second(&at)).then_some(at)
}

/// True for a second 60.
fn in_leap_second(at: &DateTime<Utc>) -> bool {
    at.timestamp_subsec_nanos() >= 1_000_000_000
}

/// Leap seconds up to [`LEAP_SECONDS_KNOWN`], each at the end of that month in UTC (IERS Bulletin C).
const LEAP_SECONDS: [(i32, u32); 27] = [
    (1972, 6),
    (1972, 12),
    (1973, 12),
    (1974, 12),
    (1975, 12),
    (1976, 12),
    (1977, 12),
    (1978, 12),
    (1979, 12),
    (1981, 6),
    (1982, 6),
    (1983, 6),
    (1985, 6),
    (1987, 12),
    (1989, 12),
    (1990, 12),
    (1992, 6),
    (1993, 6),
    (1994, 6),
    (1995, 12),
    (1997, 6),
    (1998, 12),
    (2005, 12),
    (2008, 12),
    (2012, 6),
    (2015, 6),
    (2016, 12),
];

/// The last year whose leap seconds are known here. Later ones may be announced for the end of June and December.
const LEAP_SECONDS_KNOWN: i32 = 2025;

/// True if the UTC minute of an instant has a second 60: the last one of a month in which one was announced.
fn has_leap_second(at: &DateTime<Utc>) -> bool {
    let ends = matches!((at.month(), at.day()), (6, 30) | (12, 31)) && (at.hour(), at.minute()) == (23, 59);
    ends && (at.year() > LEAP_SECONDS_KNOWN || LEAP_SECONDS.contains(&(at.year(), at.month())))
}

/// Digits of a second's fraction; chrono drops those after the ninth.
fn digits_after_dot(bytes: &[u8]) -> usize {
    memchr::memchr(b'.', bytes)
        .map_or(0, |dot| bytes[dot + 1..].iter().take_while(|byte| byte.is_ascii_digit()).count())
}

/// A point in time as people write it: an RFC 3339 instant, or a date for its midnight in UTC; in
/// microseconds since 1970.
pub fn parse_point_in_time(text: &str) -> Option<i64> {
    if text.len() == 10 && text.as_bytes()[0].is_ascii_digit() {
        let date = chrono::NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
        return Some(date.and_hms_opt(0, 0, 0)?.and_utc().timestamp_micros());
    }
    rfc_3339(text).map(|at| at.timestamp_micros())
}

/// `micros` since 1970 as an RFC 3339 string in UTC.
pub fn format_micros(micros: i64) -> String {
    DateTime::<Utc>::from_timestamp_micros(micros)
        .unwrap_or_default()
        .to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

impl<'de> Deserialize<'de> for Instant {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        from_text(de, "an RFC 3339 instant in a string", Instant::parse)
    }
}

/// An amount of money in millionths of its unit, never negative, at most 999,999,999,999.999999.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Money(pub i64);

/// Millionths in one unit of money.
pub const MICROS_PER_UNIT: i64 = 1_000_000;

impl Money {
    /// Reads `[0-9]{1,12}(\.[0-9]{1,6})?`, exactly.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const FORM: &str = "must be a decimal of 1 to 12 digits with at most 6 decimals, such as \"261.96\"";
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |part: &str, most: usize| {
            (1..=most).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
        };
        if !digits(whole, 12) || !digits(fraction, 6) {
            return Err(FORM);
        }
        let number = |part: &str| part.bytes().fold(0, |sum, byte| sum * 10 + i64::from(byte - b'0'));
        let scale = 10_i64.pow(6 - u32::try_from(fraction.len()).unwrap_or(6));
        Ok(Self(number(whole) * MICROS_PER_UNIT + number(fraction) * scale))
    }
}

impl<'de> Deserialize<'de> for Money {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        from_text(de, "a decimal in a string", Money::parse)
    }
}

/// Reads a value that is written as a JSON string.
fn from_text<'de, D: Deserializer<'de>, T>(
    de: D,
    expected: &'static str,
    parse: fn(&str) -> Result<T, &'static str>,
) -> Result<T, D::Error> {
    struct Visit<T>(&'static str, fn(&str) -> Result<T, &'static str>);
    impl<T> Visitor<'_> for Visit<T> {
        type Value = T;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
        fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
            (self.1)(text).map_err(E::custom)
        }
    }
    de.deserialize_str(Visit(expected, parse))
}

/// A JSON number in billionths, for sums that must be exact.
///
/// Up to 9,223,372,036 with nine decimals; what is larger or finer is held at the nearest such
/// value, [`Number::exact`] is then false, and the event's unknown part keeps it as it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Number {
    /// The value times 1,000,000,000.
    pub nanos: i64,
    /// The value as a float, for ranges alone.
    approximate: ordered::Finite,
    /// Whether `nanos` is all that was sent.
    pub exact: bool,
}

/// The longest number that is read, in characters; PostgreSQL's numerics have limits of their own.
const MAX_LITERAL: usize = 1_000;

/// Billionths in one.
pub const NANOS_PER_ONE: i64 = 1_000_000_000;

mod ordered {
    /// A float that is no NaN, so that it has an equality.
    #[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
    pub struct Finite(pub f64);
    impl Eq for Finite {}
}

impl Number {
    /// Reads a JSON number literal; `None` if it is none or beyond a double's range.
    pub fn parse(literal: &str) -> Option<Self> {
        if !literal.starts_with(|first: char| first.is_ascii_digit() || first == '-')
            || literal.len() > MAX_LITERAL
        {
            return None;
        }
        let float: f64 = literal.parse().ok().filter(|float: &f64| float.is_finite())?;
        let mantissa = literal.split(['e', 'E']).next().unwrap_or_default();
        if float == 0.0 && mantissa.bytes().any(|byte| matches!(byte, b'1'..=b'9')) {
            return None;
        }
        let (nanos, exact) = decimal_nanos(literal).map_or_else(
            // `as` holds a float at the integer's ends, which is what is wanted here.
            || ((float * NANOS_PER_ONE as f64) as i64, false),
            |nanos| (nanos, true),
        );
        Some(Self { nanos, approximate: ordered::Finite(float), exact })
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        self.approximate.partial_cmp(&other.approximate)
    }
}

/// The literal times 1,000,000,000, if that is a whole number within an `i64`.
fn decimal_nanos(literal: &str) -> Option<i64> {
    let (mantissa, exponent) = match literal.find(['e', 'E']) {
        Some(at) => (&literal[..at], literal[at + 1..].parse::<i32>().ok()?),
        None => (literal, 0),
    };
    let (negative, mantissa) = mantissa.strip_prefix('-').map_or((false, mantissa), |rest| (true, rest));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let fraction = fraction.trim_end_matches('0');
    let mut value: i64 = 0;
    for digit in whole.bytes().chain(fraction.bytes()) {
        value = value.checked_mul(10)?.checked_add(i64::from(digit.checked_sub(b'0')?))?;
    }
    let mut shift = exponent.checked_add(9)?.checked_sub(i32::try_from(fraction.len()).ok()?)?;
    while shift < 0 && value % 10 == 0 && value != 0 {
        value /= 10;
        shift += 1;
    }
    if value != 0 {
        value = value.checked_mul(10_i64.checked_pow(u32::try_from(shift).ok()?)?)?;
    }
    Some(if negative { -value } else { value })
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = Number;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number")
            }
            fn visit_newtype_struct<D: Deserializer<'de>>(self, de: D) -> Result<Number, D::Error> {
                let raw = <&RawValue>::deserialize(de)?;
                Number::parse(raw.get())
                    .ok_or_else(|| D::Error::custom("must be a number within a double's range"))
            }
        }
        de.deserialize_newtype_struct("Number", Visit)
    }
}

impl garde::rules::range::Bounds for Number {
    type Size = f64;
    const MIN: f64 = f64::MIN;
    const MAX: f64 = f64::MAX;
    fn validate_bounds(&self, low: f64, high: f64) -> Result<(), garde::rules::range::OutOfBounds> {
        self.approximate.0.validate_bounds(low, high)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_exact_and_strict() {
        assert_eq!(Money::parse("261.96"), Ok(Money(261_960_000)));
        assert_eq!(Money::parse("0.000001"), Ok(Money(1)));
        assert_eq!(Money::parse("999999999999.999999"), Ok(Money(999_999_999_999_999_999)));
        assert_eq!(Money::parse("007"), Ok(Money(7_000_000)));
        for bad in [
            "",
            ".",
            "1.",
            ".5",
            "-1",
            "+1",
            "1e3",
            " 1",
            "1 ",
            "12,50",
            "1.2.3",
            "1234567890123",
            "0.1234567",
            "١",
        ] {
            assert!(Money::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn instants_follow_rfc_3339() {
        let noon = Instant::parse("2026-11-24T12:00:00Z").map(|at| at.micros);
        for same in [
            "2026-11-24T12:00:00.000+00:00",
            "2026-11-24t12:00:00z",
            "2026-11-24T14:30:00+02:30",
            "2026-11-24T12:00:00-00:00",
        ] {
            assert_eq!(Instant::parse(same).map(|at| at.micros), noon, "{same}");
        }
        for bad in [
            "",
            "2026-11-24",
            "2026-11-24 12:00:00Z",
            "2026-11-24T12:00:00",
            "2026-02-30T12:00:00Z",
            "2026-11-24T25:00:00Z",
            "1969-12-31T23:59:59Z",
            "2200-01-01T00:00:00Z",
            "invalid-timestamp",
            "2026-11-24T02:37:52\u{2212}02:00",
            "+026-11-24T02:37:52Z",
            "2199-12-31T23:59:60Z",
            "2026-11-24T12:00:00+0000",
            " 2026-11-24T12:00:00Z",
            "2026-01-31T12:30:60Z",
            "2026-01-31T23:59:60Z",
            "2015-12-31T23:59:60Z",
            "2016-12-31T23:59:61Z",
            "2016-12-31T23:59:60+01:00",
            "2016-12-30T23:59:60Z",
        ] {
            assert!(Instant::parse(bad).is_err(), "{bad}");
        }
        assert!(Instant::parse("2026-11-24T12:00:00.123456Z").is_ok_and(|at| at.exact));
        assert!(Instant::parse("2026-11-24T12:00:00.1234567Z").is_ok_and(|at| !at.exact));
        assert!(Instant::parse("2026-11-24T12:00:00.1234560000001Z").is_ok_and(|at| !at.exact));
    }

    #[test]
    fn a_leap_second_is_taken_where_there_was_one_and_kept_as_it_was_sent() {
        let after = Instant::parse("2017-01-01T00:00:00Z").map(|at| at.micros);
        for leap in ["2016-12-31T23:59:60Z", "2017-01-01T01:29:60+01:30", "2016-12-31T15:59:60-08:00"] {
            let at = Instant::parse(leap);
            assert_eq!(at.map(|at| (Ok(at.micros), at.exact)), Ok((after, false)), "{leap}");
        }
        assert!(Instant::parse("1972-06-30T23:59:60.5Z").is_ok());
        assert!(Instant::parse("2035-06-30T23:59:60Z").is_ok(), "nobody knows yet");
        assert!(parse_point_in_time("2016-12-31T23:59:60Z").is_some());
        assert!(parse_point_in_time("2026-01-31T12:30:60Z").is_none());
    }

    proptest::proptest! {
        #[test]
        fn every_form_of_rfc_3339_is_read(
            text in "(19[89][0-9]|20[0-9]{2})-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])[Tt]([01][0-9]|2[0-3])(:[0-5][0-9]){2}(\\.[0-9]{1,20})?([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
        ) {
            proptest::prop_assert!(Instant::parse(&text).is_ok(), "{}", text);
        }
    }

    #[test]
    fn numbers_are_exact_to_nine_decimals() {
        let nanos = |literal| Number::parse(literal).map(|number| (number.nanos, number.exact));
        assert_eq!(nanos("45"), Some((45_000_000_000, true)));
        assert_eq!(nanos("45.0"), Some((45_000_000_000, true)));
        assert_eq!(nanos("0.1"), Some((100_000_000, true)));
        assert_eq!(nanos("1.5e2"), Some((150_000_000_000, true)));
        assert_eq!(nanos("150e-1"), Some((15_000_000_000, true)));
        assert_eq!(nanos("-1"), Some((-1_000_000_000, true)));
        assert_eq!(nanos("0e999"), Some((0, true)));
        assert_eq!(nanos("0.0000000001").map(|(_, exact)| exact), Some(false));
        assert_eq!(nanos("1e300"), Some((i64::MAX, false)));
        assert_eq!(nanos("1e999"), None);
        assert_eq!(nanos("1e-999"), None, "beyond a double's range on the other side");
        assert_eq!(Number::parse(&format!("1.{}", "0".repeat(2_000))), None);
        assert_eq!(nanos("\"1\""), None);
    }
}
