//! Decimals of numbers and texts, exactly.

use super::value::Value;

/// A decimal: `digits` times ten to the power of minus `scale`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Decimal {
    pub is_negative: bool,
    digits: u128,
    scale: i32,
}

/// Most digits of a decimal.
const MAX_DIGITS: usize = 36;

/// Largest exponent of a number in scientific notation.
const MAX_EXPONENT: i32 = 40;

impl Decimal {
    /// Reads a JSON number or a text of one; `None` for anything else, and for more than 36 significant digits.
    pub fn read(value: &Value) -> Option<Self> {
        match value {
            Value::Int(number) => {
                Some(Self { is_negative: *number < 0, digits: u128::from(number.unsigned_abs()), scale: 0 })
            }
            Value::Number(text) | Value::Text(text) => Self::parse(text),
            Value::Float(number) if number.is_finite() => Self::parse(&format!("{number:?}")),
            _ => None,
        }
    }

    /// Reads `-?digits(.digits)?(e±digits)?`; leading zeros are allowed.
    pub fn parse(text: &str) -> Option<Self> {
        let (is_negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
            None => (text, 0),
        };
        let (whole, fraction) = match mantissa.split_once('.') {
            Some((_, "")) => return None,
            Some(parts) => parts,
            None => (mantissa, ""),
        };
        let are_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !are_digits(whole) || !are_digits(fraction) || exponent.abs() > MAX_EXPONENT {
            return None;
        }
        let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
        if whole.len() + fraction.len() > MAX_DIGITS {
            return None;
        }
        let digits = whole.bytes().chain(fraction.bytes());
        let digits = digits.fold(0, |sum: u128, byte| sum * 10 + u128::from(byte - b'0'));
        Some(Self { is_negative, digits, scale: i32::try_from(fraction.len()).ok()? - exponent })
    }

    /// The absolute value times ten to the power of `shift`: its whole part, and true if that is all. `None` beyond
    /// the range of an `i64`.
    pub fn shifted(self, shift: i32) -> Option<(i64, bool)> {
        let power = shift - self.scale;
        let factor = 10_u128.checked_pow(power.unsigned_abs());
        let (whole, is_all) = match factor {
            Some(factor) if power >= 0 => (self.digits.checked_mul(factor)?, true),
            Some(factor) => (self.digits / factor, self.digits.is_multiple_of(factor)),
            None if self.digits == 0 => (0, true),
            None if power >= 0 => return None,
            None => (0, false),
        };
        Some((i64::try_from(whole).ok()?, is_all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_exact() {
        let micros = |text| Decimal::parse(text).and_then(|decimal| decimal.shifted(6));
        assert_eq!(micros("19.90"), Some((19_900_000, true)));
        assert_eq!(micros("1.99e1"), Some((19_900_000, true)));
        assert_eq!(micros("0.0000001"), Some((0, false)));
        assert_eq!(micros("0.00020000000000000001"), Some((200, false)));
        assert_eq!(micros("1e-39"), Some((0, false)));
        assert_eq!(micros("0e40"), Some((0, true)));
        assert_eq!(micros("9223372036854.775807"), Some((i64::MAX, true)));
        assert_eq!(micros("9223372036854.775808"), None);
        assert_eq!(micros("1e40"), None);
        assert_eq!(micros("007"), Some((7_000_000, true)));
        for wrong in ["", "-", ".5", "1.", "+1", "1e", "1e99", "1,5", " 1", "0x1", "١"] {
            assert_eq!(Decimal::parse(wrong), None, "{wrong}");
        }
        assert!(Decimal::parse("-0.5").is_some_and(|decimal| decimal.is_negative));
    }
}
