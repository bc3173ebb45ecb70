//! Counting users, each once: exactly while they are few, by HyperLogLog when they are many.
//!
//! The sketch is `datasketches`': it says which register a user's mark goes to, and what registers amount to.
//! Between those two, registers are bytes here, of which two sets have the greater one of each: reports put
//! thousands of sets together, and this is what makes that cheap.

use std::hash::{Hash, Hasher};

use datasketches::hll::{Coupon, HllSketch};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

/// Up to so many users are counted exactly.
const EXACT: usize = 1_024;
/// 2^15 registers: a standard error of 1.04 / √32768 = 0.57 %.
const LG_REGISTERS: u8 = 15;
const REGISTERS: usize = 1 << LG_REGISTERS;
/// Registers up to this many are kept as places and values: 3 bytes each.
const SPARSE: usize = REGISTERS / 4;

/// What stands for a user: equal ids have equal marks.
pub type Mark = u64;
/// Marks. Most cities have one or two.
pub type Marks = SmallVec<[Mark; 2]>;

/// The mark of a user's id.
pub fn mark(user_id: &str) -> Mark {
    xxhash_rust::xxh3::xxh3_64(user_id.as_bytes())
}

/// A set of users, as it rests and is read.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Users {
    /// The marks, ascending.
    Few(#[serde(with = "marks")] Marks),
    /// The registers that are not zero: place (two bytes, little endian) and value of each, ascending.
    Some(#[serde(with = "serde_bytes")] Vec<u8>),
    /// All registers.
    Many(#[serde(with = "serde_bytes")] Vec<u8>),
}

impl Default for Users {
    fn default() -> Self {
        Self::Few(SmallVec::new())
    }
}

impl Users {
    /// How many, and whether that is an estimate.
    pub fn count(&self) -> (u64, bool) {
        let mut growing = GrowingUsers::default();
        match self {
            Self::Few(marks) => return (marks.len() as u64, false),
            more => growing.add(more),
        }
        growing.count()
    }

    /// Bytes that it takes in memory, about.
    pub fn size(&self) -> usize {
        32 + match self {
            Self::Few(marks) => marks.len() * size_of::<Mark>(),
            Self::Some(bytes) | Self::Many(bytes) => bytes.len(),
        }
    }
}

impl std::fmt::Debug for Users {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (users, estimated) = self.count();
        write!(f, "{}{users} users", if estimated { "about " } else { "" })
    }
}

/// A set of users that grows.
#[derive(Clone, Default)]
pub(super) struct GrowingUsers {
    /// While they are few: ascending.
    few: Vec<Mark>,
    /// When they are many.
    many: Option<Box<Registers>>,
}

impl GrowingUsers {
    /// Adds marks, in any order and as often as they come; they are taken out of `marks`.
    pub fn add_marks(&mut self, marks: &mut Vec<Mark>) {
        if let Some(many) = &mut self.many {
            many.add_marks(marks);
            marks.clear();
            return;
        }
        marks.sort_unstable();
        marks.dedup();
        self.add_ascending(marks);
        marks.clear();
    }

    fn add_ascending(&mut self, more: &[Mark]) {
        if let Some(many) = &mut self.many {
            many.add_marks(more);
            return;
        }
        let had_some = !self.few.is_empty();
        self.few.extend_from_slice(more);
        if had_some {
            // Two ascending runs: the stable sort merges them.
            self.few.sort();
            self.few.dedup();
        }
        if self.few.len() > EXACT {
            self.registers();
        }
    }

    /// The registers, to which those that were few go.
    fn registers(&mut self) -> &mut Registers {
        let few = std::mem::take(&mut self.few);
        let many = self.many.get_or_insert_with(Box::default);
        many.add_marks(&few);
        many
    }

    /// Adds the users of a set.
    pub fn add(&mut self, users: &Users) {
        match users {
            Users::Few(marks) => self.add_ascending(marks),
            Users::Some(entries) => self.registers().add_entries(entries),
            Users::Many(all) => self.registers().add_all(all),
        }
    }

    /// How many, and whether that is an estimate.
    pub fn count(&self) -> (u64, bool) {
        match &self.many {
            None => (self.few.len() as u64, false),
            Some(many) => (many.estimate(), true),
        }
    }

    pub fn finish(self) -> Users {
        match self.many {
            None => Users::Few(SmallVec::from_slice(&self.few)),
            Some(many) => many.finish(),
        }
    }
}

/// How many registers have which value.
type Values = [u32; 64];

/// The registers of a set.
#[derive(Clone)]
struct Registers {
    values: Vec<u8>,
    /// Kept up while registers are raised one by one; `None` after many were at once.
    of_value: Option<Values>,
}

impl Default for Registers {
    fn default() -> Self {
        let mut of_value = [0; 64];
        of_value[0] = REGISTERS as u32;
        Self { values: vec![0; REGISTERS], of_value: Some(of_value) }
    }
}

impl Registers {
    fn add_marks(&mut self, marks: &[Mark]) {
        for mark in marks {
            let coupon = coupon(*mark);
            let value = (coupon >> PLACE_BITS) as u8;
            self.raise((coupon & ((1 << PLACE_BITS) - 1)) as usize, value);
        }
    }

    fn raise(&mut self, place: usize, value: u8) {
        let Some(known) = self.values.get_mut(place % REGISTERS) else { return };
        if value > *known {
            if let Some(of_value) = &mut self.of_value {
                of_value[usize::from(*known % 64)] -= 1;
                of_value[usize::from(value % 64)] += 1;
            }
            *known = value;
        }
    }

    fn add_entries(&mut self, entries: &[u8]) {
        for [low, high, value] in entries.as_chunks::<3>().0 {
            self.raise(u16::from_le_bytes([*low, *high]).into(), *value);
        }
    }

    fn add_all(&mut self, all: &[u8]) {
        self.of_value = None;
        self.values.iter_mut().zip(all).for_each(|(known, value)| *known = (*known).max(*value));
    }

    fn finish(self) -> Users {
        let zero = self.of_value()[0] as usize;
        if REGISTERS - zero > SPARSE {
            return Users::Many(self.values);
        }
        let mut entries = Vec::with_capacity(3 * (REGISTERS - zero));
        for (value, place) in self.values.iter().zip(0_u16..=u16::MAX).filter(|(value, _)| **value > 0) {
            let [low, high] = place.to_le_bytes();
            entries.extend([low, high, *value]);
        }
        Users::Some(entries)
    }

    fn of_value(&self) -> Values {
        self.of_value.unwrap_or_else(|| {
            // Four counts at a time do not wait for each other.
            let mut lanes = [[0_u32; 64]; 4];
            for four in self.values.as_chunks::<4>().0 {
                for (lane, value) in lanes.iter_mut().zip(four) {
                    lane[usize::from(*value % 64)] += 1;
                }
            }
            std::array::from_fn(|value| lanes.iter().map(|lane| lane[value]).sum())
        })
    }

    /// What the registers amount to.
    fn estimate(&self) -> u64 {
        let of_value = self.of_value();
        // The sums of 2^-value that the estimator goes by, of small values and of large ones apart.
        let sum = |values: std::ops::Range<usize>| -> f64 {
            values.map(|value| f64::from(of_value[value]) * (-(value as f64)).exp2()).sum()
        };
        // The library's image of a sketch. Of its registers the estimator asks nothing else.
        let mut image = vec![0; ARRAY + REGISTERS];
        image[..8].copy_from_slice(&[ARRAY as u8 / 4, 1, 7, LG_REGISTERS, 0, 16, 0, 0b1010]);
        for (part, sum) in image[8..32].as_chunks_mut::<8>().0.iter_mut().zip([0.0, sum(0..32), sum(32..64)])
        {
            *part = sum.to_le_bytes();
        }
        image[32..36].copy_from_slice(&of_value[0].to_le_bytes());
        match HllSketch::deserialize(&image) {
            // A small positive number: the cast saturates and does not wrap.
            Ok(sketch) => sketch.estimate().max(0.0).round() as u64,
            Err(error) => {
                tracing::error!(%error, "registers were not estimated");
                0
            }
        }
    }
}

/// Where the registers begin in a sketch's image.
const ARRAY: usize = 40;
/// Bits of a coupon that tell the place; those above tell the value.
const PLACE_BITS: u32 = 26;

/// The library's coupon of a mark, as the number that it is: which register, and what value.
fn coupon(mark: Mark) -> u32 {
    /// A coupon shows its number to hashers alone.
    #[derive(Default)]
    struct Number(u32);

    impl Hasher for Number {
        fn write(&mut self, _: &[u8]) {}

        fn write_u32(&mut self, number: u32) {
            self.0 = number;
        }

        fn finish(&self) -> u64 {
            self.0.into()
        }
    }

    let mut number = Number::default();
    Coupon::from_value(mark).hash(&mut number);
    debug_assert_ne!(number.0, 0, "the library's coupons are hashed as something else by now");
    number.0
}

pub(super) mod marks {
    use serde::{Deserialize, Deserializer, Serializer};

    use super::Marks;

    pub fn serialize<S: Serializer>(marks: &[u64], to: S) -> Result<S::Ok, S::Error> {
        let bytes: Vec<u8> = marks.iter().flat_map(|mark| mark.to_le_bytes()).collect();
        to.serialize_bytes(&bytes)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Marks, D::Error> {
        let bytes: &[u8] = Deserialize::deserialize(from)?;
        let (words, rest) = bytes.as_chunks::<8>();
        if !rest.is_empty() {
            return Err(serde::de::Error::custom("marks of users are 8 bytes each"));
        }
        // Room for as many and no more: caches are full of them.
        let mut marks = Marks::with_capacity(words.len());
        marks.extend(words.iter().map(|word| u64::from_le_bytes(*word)));
        Ok(marks)
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
    fn marks_find_the_registers_that_they_found_before() {
        // Sets that rest were made with these: others would count every user twice.
        let found = ["", "a", "user-1"].map(|id| (mark(id), coupon(mark(id))));
        let known = [
            (3_244_421_341_483_603_138, 74_914_329),
            (16_629_034_431_890_738_719, 67_296_344),
            (8_968_379_626_967_066_057, 67_916_110),
        ];
        assert_eq!(found, known);
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
    fn registers_are_the_librarys_own_and_amount_to_what_it_says() {
        use datasketches::hll::{HllType, HllUnion};
        let empty = || HllSketch::new(LG_REGISTERS, HllType::Hll8).unwrap();
        for users in [1_100, 2_500, 3_200, 9_000, 60_000] {
            let mut union = HllUnion::new(LG_REGISTERS).unwrap();
            let mut whole = empty();
            let mut growing = GrowingUsers::default();
            for part in 0..3 {
                let range = part * users / 4..(part + 2) * users / 4;
                let mut sketch = empty();
                range.clone().for_each(|id| sketch.update(mark(&format!("user-{id}"))));
                range.clone().for_each(|id| whole.update(mark(&format!("user-{id}"))));
                union.update(&sketch);
                growing.add(&of(range));
            }
            let ours = growing.count().0 as f64;
            let theirs = union.estimate();
            // While the library has coupons it knows users apart that share a register.
            let near = if users < 4_000 { theirs * 0.01 } else { 0.51 };
            assert!((ours - theirs).abs() <= near, "{users}: {ours} {theirs}");
            // From some thousand users on the library, too, has registers and nothing else.
            let image = whole.serialize();
            if users >= 9_000 {
                let mut registers = Registers::default();
                registers.add_marks(&(0..users).map(|id| mark(&format!("user-{id}"))).collect::<Vec<_>>());
                assert_eq!(registers.values, image[ARRAY..]);
            }
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
