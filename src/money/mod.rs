//! Currencies by ISO 4217.

mod iso_4217;

use std::fmt;

use iso_4217::{REPLACED, TABLE};

/// A currency, as the number of ISO 4217 that rows keep.
///
/// A number that this version's table lacks comes from a row of a newer version; it is shown as three digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Currency(i16);

impl Currency {
    /// The US dollar, the default of `ESS_CURRENCY`.
    pub const USD: Self = Self(840);

    /// The currency of a code, compared exactly; codes are in upper case.
    pub fn parse(code: &str) -> Option<Self> {
        let code = REPLACED.iter().find(|(old, _)| *old == code).map_or(code, |(_, new)| *new);
        let at = TABLE.binary_search_by(|(known, _, _)| (*known).cmp(code)).ok()?;
        TABLE.get(at).map(|(_, number, _)| Self(*number))
    }

    /// The currency of a number, as rows keep it.
    pub const fn from_number(number: i16) -> Self {
        Self(number)
    }

    /// The number of ISO 4217.
    pub const fn number(self) -> i16 {
        self.0
    }

    /// Decimals of the minor unit; 2 for a number that the table lacks.
    pub fn decimals(self) -> u8 {
        self.entry().map_or(2, |(_, _, decimals)| *decimals)
    }

    /// Code and number of every currency, ascending by code.
    pub fn all() -> impl Iterator<Item = (&'static str, Self)> {
        TABLE.iter().map(|(code, number, _)| (*code, Self(*number)))
    }

    fn entry(self) -> Option<&'static (&'static str, i16, u8)> {
        TABLE.iter().find(|(_, number, _)| *number == self.0)
    }
}

impl Default for Currency {
    fn default() -> Self {
        Self::USD
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.entry() {
            Some((code, _, _)) => f.write_str(code),
            None => write!(f, "{:03}", self.0),
        }
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_currency_has_the_number_and_the_decimals_of_iso_4217() {
        for (code, number, decimals) in [
            ("EUR", 978, 2),
            ("USD", 840, 2),
            ("JPY", 392, 0),
            ("KWD", 414, 3),
            ("CLF", 990, 4),
            ("ALL", 8, 2),
        ] {
            let currency = Currency::parse(code).unwrap();
            assert_eq!((currency.number(), currency.decimals()), (number, decimals), "{code}");
            assert_eq!(Currency::from_number(number), currency);
            assert_eq!(currency.to_string(), code);
        }
        for unknown in ["eur", "EU", "XXX", "", "EURO", "\u{20ac}"] {
            assert_eq!(Currency::parse(unknown), None, "{unknown}");
        }
        assert_eq!(Currency::default(), Currency::parse("USD").unwrap());
    }

    #[test]
    fn the_table_is_sorted_and_each_number_has_one_code() {
        assert!(TABLE.is_sorted_by(|(left, _, _), (right, _, _)| left < right));
        assert!(TABLE.iter().all(|(code, number, decimals)| code.len() == 3
            && (1..1_000).contains(number)
            && *decimals <= 4));
        let all: Vec<_> = Currency::all().collect();
        let numbers: HashSet<i16> = all.iter().map(|(_, currency)| currency.number()).collect();
        assert_eq!((all.len(), numbers.len()), (167, 167));
        for (code, currency) in all {
            assert_eq!(currency.to_string(), code);
        }
        let [old, new] = ["ANG", "XCG"].map(|code| Currency::parse(code).unwrap());
        assert_eq!((old, old.to_string().as_str()), (new, "XCG"));
    }

    #[test]
    fn a_number_that_the_table_lacks_is_shown_as_digits() {
        assert_eq!(Currency::from_number(7).to_string(), "007");
        assert_eq!(Currency::from_number(7).decimals(), 2);
    }
}
