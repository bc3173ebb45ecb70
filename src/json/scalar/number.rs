//! Whole numbers, and decimals that sums keep exact.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde_json::value::RawValue;

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
    /// True if `nanos` is exactly the number that was sent.
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
