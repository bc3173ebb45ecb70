//! Sums of money as the database keeps them: in parts, none of which exceeds 64 bits.

use crate::event::MICROS_PER_UNIT;

/// A sum of three parts, in millionths: whole millions of units, units and millionths.
pub(in crate::store) fn total(millions: i64, units: i64, micros: i64) -> i128 {
    let units = i128::from(millions) * 1_000_000 + i128::from(units);
    units * i128::from(MICROS_PER_UNIT) + i128::from(micros)
}
