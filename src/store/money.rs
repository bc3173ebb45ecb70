//! Sums of money as the database holds them: in parts, so that no part exceeds 64 bits.
//!
//! A column group of a sum is `high` (10^18 units each), `units` (whole units, less than 10^18) and `micros`
//! (millionths of a unit). Queries that sum many rows return `millions` (10^6 units each), `units` and `micros`.

use crate::event::MICROS_PER_UNIT;

/// Whole units from which `units` carries over into `high`.
pub(in crate::store) const HIGH_UNITS: i64 = 1_000_000_000_000_000_000;

/// SQL: sum of the revenue of rollups, in whole millions of units.
pub(in crate::store) const REVENUE_MILLIONS: &str =
    "sum(revenue_high) * 1000000000000 + sum(revenue_units / 1000000)";
/// SQL: sum of the revenue of rollups, in the whole units beside [`REVENUE_MILLIONS`].
pub(in crate::store) const REVENUE_UNITS: &str = "sum(revenue_units % 1000000)";

/// A sum in millionths, of its parts: whole millions of units, units and millionths.
pub(in crate::store) fn total(millions: i64, units: i64, micros: i64) -> i128 {
    let units = i128::from(millions) * 1_000_000 + i128::from(units);
    units * i128::from(MICROS_PER_UNIT) + i128::from(micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_total_adds_up_parts_that_are_each_the_largest() {
        assert_eq!(total(0, 0, 0), 0);
        assert_eq!(total(2, 3, 4), 2_000_003_000_004);
        let largest = i128::from(i64::MAX);
        let expected = largest * 1_000_000 * 1_000_000 + largest * 1_000_000 + largest;
        assert_eq!(total(i64::MAX, i64::MAX, i64::MAX), expected);
        assert_eq!(total(0, 0, -5), -5);
    }
}
