//! Counting users, each once: exactly while they are few, by HyperLogLog when they are many.

use datasketches::hll::{HllSketch, HllType, HllUnion};
use serde::{Deserialize, Serialize};

/// Up to so many users are counted exactly.
const EXACT: usize = 1_024;
/// 2^15 registers: a standard error of 1.04 / √32768 = 0.57 %.
const LG_REGISTERS: u8 = 15;

/// What stands for a user: equal ids have equal marks.
pub type Mark = u64;

/// The mark of a user's id.
pub fn mark(user_id: &str) -> Mark {
    xxhash_rust::xxh3::xxh3_64(user_id.as_bytes())
}

/// A set of users, as it rests and is read.
#[derive(Clone, Serialize, Deserialize)]
pub enum Users {
    /// The marks, ascending.
    Few(#[serde(with = "marks")] Vec<Mark>),
    /// A sketch of them.
    Many(#[serde(with = "sketch")] Box<HllSketch>),
}

impl Default for Users {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl Users {
    /// How many, and whether that is an estimate.
    pub fn count(&self) -> (u64, bool) {
        match self {
            Self::Few(marks) => (marks.len() as u64, false),
            Self::Many(sketch) => (rounded(sketch.estimate()), true),
        }
    }

    /// Whether two are sets of the same users, as far as they tell.
    pub fn agrees(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Few(ours), Self::Few(theirs)) => ours == theirs,
            (Self::Many(ours), Self::Many(theirs)) => {
                // Unlike the estimate, this goes by the registers alone, and not by how they came to be.
                let (ours, theirs) = (ours.composite_estimate(), theirs.composite_estimate());
                (ours - theirs).abs() <= ours * 1e-9
            }
            _ => false,
        }
    }

    /// Bytes that it takes in memory, about.
    pub fn size(&self) -> usize {
        match self {
            Self::Few(marks) => marks.len() * size_of::<Mark>() + 32,
            Self::Many(sketch) => sketch.estimated_size() + 32,
        }
    }
}

impl std::fmt::Debug for Users {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (users, estimated) = self.count();
        write!(f, "{}{users} users", if estimated { "about " } else { "" })
    }
}

fn rounded(estimate: f64) -> u64 {
    // An estimate is a small positive number: the cast saturates and does not wrap.
    estimate.max(0.0).round() as u64
}

/// A set of users that grows.
#[derive(Clone)]
pub(super) enum GrowingUsers {
    Few(Vec<Mark>),
    Many(Box<HllUnion>),
}

impl Default for GrowingUsers {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl GrowingUsers {
    /// Adds marks, which are sorted and taken out of `marks`.
    pub fn add_marks(&mut self, marks: &mut Vec<Mark>) {
        marks.sort_unstable();
        marks.dedup();
        self.add_ascending(marks);
        marks.clear();
    }

    fn add_ascending(&mut self, more: &[Mark]) {
        match self {
            Self::Few(few) if few.is_empty() => few.extend_from_slice(more),
            Self::Few(few) => {
                few.extend_from_slice(more);
                // Two ascending runs: the stable sort merges them.
                few.sort();
                few.dedup();
            }
            Self::Many(union) => more.iter().for_each(|mark| union.update_value(*mark)),
        }
        if let Self::Few(few) = self
            && few.len() > EXACT
        {
            let mut union = empty();
            few.iter().for_each(|mark| union.update_value(*mark));
            *self = Self::Many(Box::new(union));
        }
    }

    /// Adds the users of a set.
    pub fn add(&mut self, users: &Users) {
        match (&mut *self, users) {
            (_, Users::Few(marks)) => self.add_ascending(marks),
            (Self::Many(union), Users::Many(sketch)) => union.update(sketch),
            (Self::Few(few), Users::Many(sketch)) => {
                let mut union = empty();
                union.update(sketch);
                few.iter().for_each(|mark| union.update_value(*mark));
                *self = Self::Many(Box::new(union));
            }
        }
    }

    /// How many, and whether that is an estimate.
    pub fn count(&self) -> (u64, bool) {
        match self {
            Self::Few(marks) => (marks.len() as u64, false),
            Self::Many(union) => (rounded(union.estimate()), true),
        }
    }

    pub fn finish(self) -> Users {
        match self {
            Self::Few(marks) => Users::Few(marks),
            Self::Many(union) => Users::Many(Box::new(union.to_sketch(HllType::Hll8))),
        }
    }
}

#[expect(clippy::expect_used, reason = "the number of registers is a constant that is allowed")]
fn empty() -> HllUnion {
    HllUnion::new(LG_REGISTERS).expect("4 to 21")
}

mod marks {
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(marks: &[u64], to: S) -> Result<S::Ok, S::Error> {
        let bytes: Vec<u8> = marks.iter().flat_map(|mark| mark.to_le_bytes()).collect();
        to.serialize_bytes(&bytes)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u64>, D::Error> {
        let bytes: &[u8] = Deserialize::deserialize(from)?;
        let (words, rest) = bytes.as_chunks::<8>();
        if !rest.is_empty() {
            return Err(serde::de::Error::custom("marks of users are 8 bytes each"));
        }
        Ok(words.iter().map(|word| u64::from_le_bytes(*word)).collect())
    }
}

mod sketch {
    use datasketches::hll::HllSketch;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(sketch: &HllSketch, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(&sketch.serialize())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Box<HllSketch>, D::Error> {
        let bytes: &[u8] = Deserialize::deserialize(from)?;
        HllSketch::deserialize(bytes).map(Box::new).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(ids: std::ops::Range<u32>) -> Users {
        let mut growing = GrowingUsers::default();
        growing.add_marks(&mut ids.map(|id| mark(&format!("user-{id}"))).collect());
        growing.finish()
    }

    #[test]
    fn few_users_are_counted_exactly_however_they_come() {
        for users in [0, 1, 999, 1_000, 1_024] {
            let mut growing = GrowingUsers::default();
            for part in 0..7 {
                growing.add(&of(part * users / 7..users));
            }
            assert_eq!(growing.count(), (u64::from(users), false));
            let bytes = postcard::to_stdvec(&growing.finish()).unwrap();
            let read: Users = postcard::from_bytes(&bytes).unwrap();
            assert_eq!(read.count(), (u64::from(users), false));
        }
    }

    #[test]
    fn many_users_are_estimated_within_three_standard_errors_of_seven_thousandths() {
        for users in [1_025, 3_000, 10_000, 50_000, 200_000, 1_000_000] {
            let mut growing = GrowingUsers::default();
            for part in 0..10 {
                let bytes = postcard::to_stdvec(&of(part * users / 10..(part + 2) * users / 11)).unwrap();
                growing.add(&postcard::from_bytes::<Users>(&bytes).unwrap());
            }
            growing.add(&of(0..users));
            let (counted, estimated) = growing.count();
            let error = (counted as f64 - f64::from(users)).abs() / f64::from(users);
            assert!(estimated && error < 0.02, "{users} users counted as {counted}");
        }
    }

    #[test]
    fn the_standard_error_is_at_most_seven_thousandths() {
        // Sixty sets of other users each: the root of the mean square is within a fifth of the truth.
        let users = 40_000;
        let squares = (0..60).map(|set| {
            let mut growing = GrowingUsers::default();
            growing.add(&of(set * users..set * users + users / 2));
            growing.add(&of(set * users + users / 2..(set + 1) * users));
            let error = growing.count().0 as f64 / f64::from(users) - 1.0;
            error * error
        });
        let deviation = (squares.sum::<f64>() / 60.0).sqrt();
        assert!(deviation <= 0.007, "standard error {deviation}");
    }
}
