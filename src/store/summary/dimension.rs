//! What users are grouped by, and what is added up beside them.

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

/// What users are grouped by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Dimension {
    /// The lower bound of an age range.
    Age(i16),
    /// The gender's number.
    Gender(i16),
    /// The lower bound of a range of followers.
    Followers(i64),
    /// The device's number.
    Device(i16),
    /// The country.
    Country(CompactString),
    /// The country and the city.
    City(CompactString, CompactString),
}

/// Lower bounds of the age ranges.
pub const AGE_BOUNDS: [i16; 7] = [0, 18, 25, 35, 45, 55, 65];
/// Lower bounds of the ranges of followers.
pub const FOLLOWER_BOUNDS: [i64; 5] = [0, 1_000, 10_000, 100_000, 1_000_000];

/// A count and a sum, both exact.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sum {
    /// How many.
    pub count: u64,
    /// What they add up to.
    pub sum: i128,
}

impl Sum {
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
