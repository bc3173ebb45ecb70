//! Instants by RFC 3339.

use chrono::{DateTime, Datelike, SecondsFormat, Timelike, Utc};
use serde::de::{Deserialize, Deserializer};

use super::from_text;

/// Microseconds, which an [`Instant`] counts, of a minute.
pub const MICROS_PER_MINUTE: i64 = 60_000_000;

/// An RFC 3339 instant between 1970 and 2199 (UTC), in microseconds since 1970.
///
/// Digits finer than a microsecond are cut off; [`Instant::exact`] is then false and the
/// event's unknown part keeps the string as it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant {
    /// Microseconds since 1970-01-01T00:00:00Z.
    pub micros: i64,
    /// True if `micros` is exactly the instant that was sent.
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
pub(crate) const END_OF_2199: i64 = 7_258_118_400_000_000;

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

#[cfg(test)]
mod tests {
    use super::*;

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
}
