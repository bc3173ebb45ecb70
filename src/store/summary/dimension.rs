//! Dimensions by which users are counted, and sums beside the counts.

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

/// A value of a dimension, by which users are counted. The order of the variants is part of the stored format.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Dimension {
    /// Lower bound of an age range, of [`AGE_BOUNDS`].
    Age(i16),
    /// Code of a gender.
    Gender(i16),
    /// Lower bound of a range of followers, of [`FOLLOWER_BOUNDS`].
    Followers(i64),
    /// Code of a device.
    Device(i16),
    /// Country.
    Country(CompactString),
    /// Country and city.
    City(CompactString, CompactString),
}

impl Dimension {
    /// The number of its value in the code tables, if it has one.
    pub fn number(&self) -> Option<i16> {
        match self {
            Self::Gender(code) | Self::Device(code) => Some(*code),
            _ => None,
        }
    }
}

/// Lower bounds of the age ranges.
pub const AGE_BOUNDS: [i16; 7] = [0, 18, 25, 35, 45, 55, 65];
/// Lower bounds of the ranges of followers.
pub const FOLLOWER_BOUNDS: [i64; 5] = [0, 1_000, 10_000, 100_000, 1_000_000];

/// Number and sum of values, both exact, for a mean.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sum {
    /// Number of values.
    pub count: u64,
    /// Sum of the values.
    pub sum: i128,
}

impl Sum {
    /// Adds a value, if there is one.
    pub(super) fn add(&mut self, value: Option<i64>) {
        if let Some(value) = value {
            self.count += 1;
            self.sum += i128::from(value);
        }
    }

    pub(super) fn merge(&mut self, other: Self) {
        self.count += other.count;
        self.sum += other.sum;
    }
}
