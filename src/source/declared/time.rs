//! Times in the forms that platforms send.

use chrono::{DateTime, FixedOffset, NaiveDateTime};

use super::decimal::Decimal;
use super::reader::{Faults, text};
use super::value::Value;
use super::yaml::Node;
use crate::json::scalar::{END_OF_2199, Instant};

/// Form of a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TimeForm {
    /// RFC 3339 with its offset.
    Rfc3339,
    /// Seconds since 1970, as a number or a text, with or without decimals.
    UnixSeconds,
    /// Milliseconds since 1970, likewise.
    UnixMillis,
    /// A pattern of strftime; with an offset of its own, or in this zone.
    Pattern(String, FixedOffset),
}

impl TimeForm {
    /// Reads `as` and `zone`.
    pub fn read(form: Option<&Node>, zone: Option<&Node>, faults: &mut Faults<'_>) -> Option<Self> {
        let Some(node) = form else { return Some(Self::Rfc3339) };
        let found = text(node, faults)?;
        let form = match found {
            "rfc3339" => Self::Rfc3339,
            "unix_seconds" => Self::UnixSeconds,
            "unix_millis" => Self::UnixMillis,
            pattern if pattern.contains('%') => {
                if chrono::format::StrftimeItems::new(pattern).parse().is_err() {
                    faults.add(node.place, format!("`{pattern}` is no pattern of strftime"));
                    return None;
                }
                if zone.is_none()
                    && !pattern.contains("%z")
                    && !pattern.contains("%:z")
                    && !pattern.contains("%#z")
                {
                    faults.add(
                        node.place,
                        "the pattern tells no offset (%z): `zone: UTC` is missing beside it",
                    );
                    return None;
                }
                let zone = match zone.map(|node| text(node, faults).map(|zone| (node, zone))) {
                    None => FixedOffset::east_opt(0),
                    Some(None) => return None,
                    Some(Some((_, "UTC" | "Z"))) => FixedOffset::east_opt(0),
                    Some(Some((node, zone))) => {
                        let offset = zone.parse().ok();
                        if offset.is_none() {
                            faults.add(
                                node.place,
                                format!("`{zone}` is no zone: expected UTC or an offset such as +02:00"),
                            );
                        }
                        offset
                    }
                };
                return Some(Self::Pattern(pattern.to_owned(), zone?));
            }
            other => {
                let hint = super::fault::nearest(other, ["rfc3339", "unix_seconds", "unix_millis"]);
                let hint = hint.map_or_else(String::new, |near| format!("did you mean `{near}`? "));
                faults.add(node.place, format!(
                    "unknown form of time `{other}`: {hint}expected rfc3339, unix_seconds, unix_millis or a pattern of strftime"
                ));
                return None;
            }
        };
        if let Some(node) = zone {
            faults.add(node.place, "a zone belongs to a pattern: the other forms tell their own");
        }
        Some(form)
    }

    /// Microseconds since 1970; finer parts are cut off. The error says what is expected.
    pub fn parse(&self, value: &Value) -> Result<i64, String> {
        let micros = match self {
            Self::Rfc3339 => {
                let text = value.as_str().ok_or("must be an RFC 3339 instant in a string")?;
                return Instant::parse(text).map(|at| at.micros).map_err(str::to_owned);
            }
            Self::UnixSeconds => unix(value, 6).ok_or("must be a number of seconds since 1970")?,
            Self::UnixMillis => unix(value, 3).ok_or("must be a number of milliseconds since 1970")?,
            Self::Pattern(pattern, zone) => {
                let text = value
                    .as_str()
                    .ok_or_else(|| format!("must be a time of the form {pattern} in a string"))?;
                let with_offset = DateTime::parse_from_str(text, pattern).map(|at| at.timestamp_micros());
                let found = with_offset.or_else(|_| {
                    let local = NaiveDateTime::parse_from_str(text, pattern)?;
                    Ok::<_, chrono::ParseError>(
                        local.and_utc().timestamp_micros() - i64::from(zone.local_minus_utc()) * 1_000_000,
                    )
                });
                found.map_err(|_| format!("must be a time of the form {pattern}"))?
            }
        };
        if (0..END_OF_2199).contains(&micros) {
            Ok(micros)
        } else {
            Err("must lie in the years 1970 to 2199".to_owned())
        }
    }
}

fn unix(value: &Value, shift: i32) -> Option<i64> {
    let decimal = Decimal::read(value)?;
    let (micros, _) = decimal.shifted(shift)?;
    Some(if decimal.is_negative { micros.checked_neg()? } else { micros })
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: i64 = 1_795_687_201_000_000;

    fn number(text: &str) -> Value {
        Value::number(text).unwrap()
    }

    #[test]
    fn seconds_and_milliseconds_come_as_numbers_and_texts() {
        for value in
            [number("1795687201"), Value::text("1795687201"), number("1795687201.0"), number("1.795687201e9")]
        {
            assert_eq!(TimeForm::UnixSeconds.parse(&value), Ok(AT));
        }
        assert_eq!(TimeForm::UnixSeconds.parse(&Value::text("1795687201.1234567")), Ok(AT + 123_456));
        assert_eq!(TimeForm::UnixMillis.parse(&Value::text("1795687201123")), Ok(AT + 123_000));
        for wrong in [Value::text("soon"), number("-1"), number("1e12"), Value::Null, Value::text("")] {
            assert!(TimeForm::UnixSeconds.parse(&wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn patterns_have_a_zone_or_an_offset() {
        let utc = FixedOffset::east_opt(0).unwrap();
        let form = TimeForm::Pattern("%Y-%m-%d %H:%M:%S%.f".to_owned(), utc);
        assert_eq!(form.parse(&Value::text("2026-11-26 10:00:01.250")), Ok(AT + 250_000));
        assert_eq!(form.parse(&Value::text("2026-11-26 10:00:01")), Ok(AT));
        assert!(form.parse(&Value::text("2026-11-26T10:00:01")).is_err());
        let east = TimeForm::Pattern("%Y-%m-%d %H:%M:%S".to_owned(), FixedOffset::east_opt(7_200).unwrap());
        assert_eq!(east.parse(&Value::text("2026-11-26 12:00:01")), Ok(AT));
        let offset = TimeForm::Pattern("%Y-%m-%d %H:%M:%S%z".to_owned(), utc);
        assert_eq!(offset.parse(&Value::text("2026-11-26 12:00:01+0200")), Ok(AT));
    }
}
