//! Amounts of money, exact.

use serde::de::{Deserialize, Deserializer};

use super::from_text;

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
}
