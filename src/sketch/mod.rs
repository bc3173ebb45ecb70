//! Counting users, each once: exactly while they are few, by HyperLogLog when they are many.
//!
//! The sketch is `datasketches`': it says which register a user's mark goes to, and what registers amount to.
//! Between those two, registers are bytes here, of which two sets have the greater one of each: reports put
//! thousands of sets together, and this is what makes that cheap. At rest, many registers take half a byte each.

use std::hash::{Hash, Hasher};

mod sparse;

use datasketches::hll::{Coupon, HllSketch};
use once_cell::race::OnceBox;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use sparse::Entries;

/// Up to so many users are counted exactly.
const EXACT: usize = 1_024;
/// 2^15 registers: a standard error of 1.04 / √32768 = 0.57 %.
const LG_REGISTERS: u8 = 15;
const REGISTERS: usize = 1 << LG_REGISTERS;
/// Registers that are compared at once.
const PART: usize = 64;
/// Registers up to this many are kept as places and values, 3 bytes each: more are shorter packed.
const SPARSE: usize = REGISTERS / 6;

/// Bytes that an allocation takes beside what was asked for, about.
const ALLOCATION: usize = 16;

/// What stands for a user: equal ids have equal marks.
pub type UserHash = u64;
/// UserHashes. Most cities have one or two.
pub type UserHashes = SmallVec<[UserHash; 2]>;

/// The mark of a user's id.
pub fn user_hash(user_id: &str) -> UserHash {
    xxhash_rust::xxh3::xxh3_64(user_id.as_bytes())
}

/// A set of users, as it rests and is read.
#[derive(Clone, Serialize, Deserialize)]
pub enum Users {
    /// Their marks.
    Few(Few),
    /// The registers that are not zero.
    Some(Entries),
    /// All registers, a byte each: so they rest since versions before this one.
    Many(#[serde(with = "serde_bytes")] Vec<u8>),
    /// All registers, half a byte each.
    Packed(Box<Packed>),
}

/// Few users.
#[derive(Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Few {
    /// Ascending.
    #[serde(with = "marks")]
    marks: UserHashes,
    /// What they raise in registers, once that was asked: who is kept in a cache is asked again and again.
    #[serde(skip)]
    coupons: OnceBox<Vec<u32>>,
}

/// All registers, as what they are above the lowest.
#[derive(Clone, Serialize, Deserialize)]
pub struct Packed {
    /// The value of the lowest.
    lowest: u8,
    /// The first half of the registers in the low halves of bytes, the second in the high ones.
    #[serde(with = "serde_bytes")]
    halves: Vec<u8>,
    /// Registers that are more above the lowest than half a byte tells: there are few.
    beyond: Entries,
}

impl PartialEq for Users {
    /// Whether the same users would make them, however they are kept: more than [`EXACT`] are registers always,
    /// and fewer never are.
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Few(few), Self::Few(others)) => few.marks == others.marks,
            (Self::Few(_), _) | (_, Self::Few(_)) => false,
            _ => Registers::of(self) == Registers::of(other),
        }
    }
}

impl Eq for Users {}

impl Default for Users {
    fn default() -> Self {
        Self::Few(Few::default())
    }
}

impl Few {
    /// Those with these marks, which ascend.
    pub fn of(marks: UserHashes) -> Self {
        Self { marks, coupons: OnceBox::new() }
    }

    /// Some byte of what is read to put them into registers.
    fn first(&self) -> u8 {
        let coupon = self.coupons.get().and_then(|all| all.first()).map(|coupon| *coupon as u8);
        coupon.or_else(|| self.marks.first().map(|mark| *mark as u8)).unwrap_or_default()
    }

    /// Whether finding its coupons out each time costs more than to fetch them.
    fn keeps_coupons(&self) -> bool {
        self.marks.len() > 64
    }

    fn coupons(&self) -> &[u32] {
        self.coupons.get_or_init(|| Box::new(self.marks.iter().map(|mark| coupon(*mark)).collect()))
    }
}

impl Clone for Few {
    fn clone(&self) -> Self {
        Self::of(self.marks.clone())
    }
}

impl Users {
    /// How many, and whether that is an estimate.
    pub fn count(&self) -> (u64, bool) {
        match self {
            Self::Few(few) => (few.marks.len() as u64, false),
            more => (Registers::of(more).estimate(), true),
        }
    }

    /// Whether it is as long as it has to be: anything else was damaged.
    pub fn is_whole(&self) -> bool {
        match self {
            Self::Few(_) | Self::Some(_) => true,
            Self::Many(all) => all.len() == REGISTERS,
            Self::Packed(packed) => packed.halves.len() == REGISTERS / 2,
        }
    }

    /// Writes it behind what is there, as it rests.
    pub fn write(&self, to: &mut Vec<u8>) {
        match postcard::to_extend(self, std::mem::take(to)) {
            Ok(written) => *to = written,
            // A vector takes whatever is written to it.
            Err(error) => tracing::error!(%error, "a set of users was not encoded"),
        }
    }

    /// Reads what was written.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        postcard::from_bytes(bytes).ok()
    }

    /// True if bytes are a set, and nothing else.
    pub fn is_whole_in(bytes: &[u8]) -> bool {
        match bytes {
            // Few, which is what most places have: the marks, and how many bytes they are.
            [0, length, marks @ ..] if *length < 0x80 => {
                usize::from(*length) == marks.len() && marks.len().is_multiple_of(size_of::<UserHash>())
            }
            _ => postcard::take_from_bytes::<Self>(bytes)
                .is_ok_and(|(users, rest)| rest.is_empty() && users.is_whole()),
        }
    }

    /// Bytes that it takes in memory beside itself, about.
    pub fn size(&self) -> usize {
        match self {
            Self::Few(few) if few.keeps_coupons() => {
                let each = size_of::<UserHash>() + size_of::<u32>();
                few.marks.len() * each + size_of::<Vec<u32>>() + 3 * ALLOCATION
            }
            Self::Few(few) if few.marks.spilled() => size_of_val(few.marks.as_slice()) + ALLOCATION,
            Self::Few(_) => 0,
            Self::Some(entries) => entries.size() + ALLOCATION,
            Self::Many(bytes) => bytes.len() + ALLOCATION,
            Self::Packed(packed) => {
                packed.halves.len() + packed.beyond.size() + size_of::<Packed>() + 3 * ALLOCATION
            }
        }
    }
}

impl std::fmt::Debug for Users {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (users, estimated) = self.count();
        write!(f, "{}{users} users", if estimated { "about " } else { "" })
    }
}

/// A page of memory: to find one costs as much as to fetch from it.
const PAGE: usize = 4_096;

/// Begins to fetch what sets hold, of all at once: put together one after another, each would be waited for. That
/// is some twentieth of the time of a report over sets that no cache of the CPU holds.
fn fetch<'s>(sets: impl Iterator<Item = &'s Users>) {
    let begin = |bytes: &[u8]| bytes.iter().step_by(PAGE).fold(0, |begun, byte| begun ^ byte);
    let begun = sets.fold(0, |begun, set| {
        begun
            ^ match set {
                Users::Few(few) => few.first(),
                Users::Some(entries) => begin(entries.bytes()),
                Users::Many(all) => begin(all),
                Users::Packed(packed) => begin(&packed.halves),
            }
    });
    std::hint::black_box(begun);
}

/// A set of users that grows.
#[derive(Clone, Default)]
pub struct GrowingUsers {
    /// While they are few: ascending.
    few: Vec<UserHash>,
    /// When they are many.
    many: Option<Box<Registers>>,
}

impl GrowingUsers {
    /// The users of sets that are kept in a cache: put together at once, which costs less than one after another.
    pub fn of<'s>(sets: impl Iterator<Item = &'s Users> + Clone) -> Self {
        fetch(sets.clone());
        let mut growing = Self::default();
        if sets.clone().any(|set| !matches!(set, Users::Few(_))) {
            growing.registers();
        }
        for set in sets {
            match (set, &mut growing.many) {
                (Users::Few(few), Some(many)) if few.keeps_coupons() => many.add_coupons(few.coupons()),
                (Users::Few(few), None) => {
                    growing.few.extend_from_slice(&few.marks);
                    // Very many sets of few do not wait to be found to be many.
                    if growing.few.len() > 16 * EXACT {
                        growing.settle();
                    }
                }
                _ => growing.add(set),
            }
        }
        growing.settle();
        growing
    }

    /// Adds marks, in any order and as often as they come; they are taken out of `marks`.
    pub fn add_marks(&mut self, marks: &mut Vec<UserHash>) {
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

    fn add_ascending(&mut self, more: &[UserHash]) {
        if let Some(many) = &mut self.many {
            many.add_marks(more);
            return;
        }
        self.few.extend_from_slice(more);
        self.settle();
    }

    /// Puts those that are few in order, or in registers when they are not any more.
    fn settle(&mut self) {
        // Ascending runs: the stable sort merges them, and leaves a single one as it is.
        self.few.sort();
        self.few.dedup();
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
            Users::Few(few) => self.add_ascending(&few.marks),
            more => self.registers().add(more),
        }
    }

    /// How many, and whether that is an estimate.
    pub fn count(&self) -> (u64, bool) {
        match &self.many {
            None => (self.few.len() as u64, false),
            Some(many) => (many.estimate(), true),
        }
    }

    /// How many, where each made at least one of so many events, and whether that is an estimate.
    pub fn among(&self, events: u64) -> (u64, bool) {
        let (users, estimated) = self.count();
        (users.min(events), estimated)
    }

    pub fn finish(self) -> Users {
        match self.many {
            None => Users::Few(Few::of(SmallVec::from_slice(&self.few))),
            Some(many) => many.finish(),
        }
    }
}

/// The registers of a set.
#[derive(Clone, PartialEq, Eq)]
struct Registers {
    values: [u8; REGISTERS],
}

impl Default for Registers {
    fn default() -> Self {
        Self { values: [0; REGISTERS] }
    }
}

impl Registers {
    /// Those of a set.
    fn of(set: &Users) -> Box<Self> {
        let mut registers = Box::<Self>::default();
        registers.add(set);
        registers
    }

    fn add(&mut self, set: &Users) {
        match set {
            Users::Few(few) => self.add_marks(&few.marks),
            Users::Some(entries) => self.add_entries(entries),
            Users::Many(all) => self.add_all(all),
            Users::Packed(packed) => self.add_packed(packed),
        }
    }

    fn add_marks(&mut self, marks: &[UserHash]) {
        marks.iter().for_each(|mark| self.add_coupon(coupon(*mark)));
    }

    fn add_coupons(&mut self, coupons: &[u32]) {
        coupons.iter().for_each(|coupon| self.add_coupon(*coupon));
    }

    fn add_coupon(&mut self, coupon: u32) {
        self.raise(coupon as usize, (coupon >> PLACE_BITS) as u8);
    }

    /// Raises the register that a number's lowest bits tell.
    fn raise(&mut self, place: usize, value: u8) {
        let known = &mut self.values[place % REGISTERS];
        *known = (*known).max(value);
    }

    fn add_entries(&mut self, entries: &Entries) {
        entries.iter().for_each(|(place, value)| self.raise(place.into(), value));
    }

    fn add_all(&mut self, all: &[u8]) {
        self.values.iter_mut().zip(all).for_each(|(known, value)| *known = (*known).max(*value));
    }

    fn add_packed(&mut self, Packed { lowest, halves, beyond }: &Packed) {
        let (first, second) = self.values.split_at_mut(REGISTERS / 2);
        for ((first, second), halves) in first.iter_mut().zip(second).zip(halves.iter()) {
            *first = (*first).max(lowest.wrapping_add(halves & HALF));
            *second = (*second).max(lowest.wrapping_add(halves >> 4));
        }
        self.add_entries(beyond);
    }

    fn finish(&self) -> Users {
        if REGISTERS - self.zero() <= SPARSE {
            return Users::Some(self.above(0));
        }
        let lowest = self.values.iter().copied().min().unwrap_or(0);
        let half = |value: u8| (value - lowest).min(HALF);
        let (first, second) = self.values.split_at(REGISTERS / 2);
        let halves = first.iter().zip(second).map(|(first, second)| half(*first) | half(*second) << 4);
        let halves = halves.collect();
        Users::Packed(Box::new(Packed { lowest, halves, beyond: self.above(lowest.saturating_add(HALF)) }))
    }

    /// The registers with a greater value.
    fn above(&self, value: u8) -> Entries {
        let mut above = Vec::new();
        for (begin, part) in (0_u16..).step_by(PART).zip(self.values.as_chunks::<PART>().0) {
            // As a whole first, which is compared at once: mostly there are few.
            if part.iter().fold(0_u8, |most, known| most.max(*known)) > value {
                let places = (begin..).zip(part).filter(|(_, known)| **known > value);
                above.extend(places.map(|(place, known)| (place, *known)));
            }
        }
        Entries::of(&above)
    }

    /// How many registers are zero.
    fn zero(&self) -> usize {
        // As many at a time as a byte can count: that many are compared at once.
        let part = |part: &[u8]| part.iter().map(|value| u8::from(*value == 0)).sum::<u8>();
        self.values.chunks(128).map(|values| usize::from(part(values))).sum()
    }

    /// The sum of 2^-value.
    fn sum(&self) -> f64 {
        self.values
            .chunks(2_048)
            .map(|values| {
                // Sums beside each other are added to at once; each is of few and stays all but exact.
                let mut sums = [0_f32; 16];
                for values in values.as_chunks::<16>().0 {
                    for (sum, value) in sums.iter_mut().zip(values) {
                        // The bits of 2^-value.
                        *sum += f32::from_bits((127 - u32::from(*value % 64)) << 23);
                    }
                }
                sums.map(f64::from).iter().sum::<f64>()
            })
            .sum()
    }

    /// What the registers amount to.
    fn estimate(&self) -> u64 {
        // The library's image of a sketch, of the kind that is the shortest. Of its registers the estimator asks
        // their sum and how many are zero, and nothing else.
        let mut image = [0; ARRAY + REGISTERS / 2];
        image[..8].copy_from_slice(&[ARRAY as u8 / 4, 1, 7, LG_REGISTERS, 0, 16, 0, 0b0010]);
        image[16..24].copy_from_slice(&self.sum().to_le_bytes());
        image[32..36].copy_from_slice(&(self.zero() as u32).to_le_bytes());
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

/// What half a byte tells at most.
const HALF: u8 = 15;
/// Where the registers begin in a sketch's image.
const ARRAY: usize = 40;
/// Bits of a coupon that tell the place; those above tell the value.
const PLACE_BITS: u32 = 26;

/// The library's coupon of a mark, as the number that it is: which register, and what value.
fn coupon(mark: UserHash) -> u32 {
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

pub mod marks {
    use serde::{Deserialize, Deserializer, Serializer};

    use super::UserHashes;

    pub fn serialize<S: Serializer>(marks: &[u64], to: S) -> Result<S::Ok, S::Error> {
        let mut bytes = vec![0; size_of_val(marks)];
        for (word, mark) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(marks) {
            *word = mark.to_le_bytes();
        }
        to.serialize_bytes(&bytes)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<UserHashes, D::Error> {
        let bytes: &[u8] = Deserialize::deserialize(from)?;
        let (words, rest) = bytes.as_chunks::<8>();
        if !rest.is_empty() {
            return Err(serde::de::Error::custom("marks of users are 8 bytes each"));
        }
        // Room for as many and no more: caches are full of them.
        let mut marks = UserHashes::with_capacity(words.len());
        marks.extend(words.iter().map(|word| u64::from_le_bytes(*word)));
        Ok(marks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(ids: std::ops::Range<u32>) -> Users {
        let mut growing = GrowingUsers::default();
        growing.add_marks(&mut ids.map(|id| user_hash(&format!("user-{id}"))).collect());
        growing.finish()
    }

    #[test]
    fn marks_find_the_registers_that_they_found_before() {
        // Sets that rest were made with these: others would count every user twice.
        let found = ["", "a", "user-1"].map(|id| (user_hash(id), coupon(user_hash(id))));
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
                range.clone().for_each(|id| sketch.update(user_hash(&format!("user-{id}"))));
                range.clone().for_each(|id| whole.update(user_hash(&format!("user-{id}"))));
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
                registers
                    .add_marks(&(0..users).map(|id| user_hash(&format!("user-{id}"))).collect::<Vec<_>>());
                assert_eq!(registers.values, image[ARRAY..]);
            }
        }
    }

    #[test]
    fn registers_are_the_same_however_they_are_kept() {
        for users in [2_000, 6_000, 60_000, 1_000_000] {
            let mut marks: Vec<UserHash> = (0..users).map(|id| user_hash(&format!("user-{id}"))).collect();
            let mut registers = Registers::default();
            registers.add_marks(&marks);
            let mut growing = GrowingUsers::default();
            growing.add_marks(&mut marks);
            let kept = growing.finish();
            let whole = Users::Many(registers.values.to_vec());
            assert_eq!(kept, whole, "{users}");
            assert!(
                *Registers::of(&kept) == registers && kept.size() <= REGISTERS / 2 + 1_000,
                "{}",
                kept.size()
            );
            match kept {
                Users::Some(_) => assert!(users < 6_000),
                Users::Packed(packed) => {
                    assert_eq!(packed.lowest, registers.values.iter().copied().min().unwrap());
                    assert_eq!(packed.lowest > 0, users == 1_000_000);
                    assert!(packed.beyond.size() > 0 || users == 6_000, "some are beyond half a byte");
                }
                other => panic!("{other:?} is neither"),
            }
            // With one register raised it is another set.
            let mut other = registers.clone();
            other.values[7] += 1;
            assert_ne!(Users::Many(other.values.to_vec()), whole);
        }
    }

    #[test]
    fn packed_registers_rest_as_they_rested_before() {
        let mut registers = Registers { values: [9; REGISTERS] };
        registers.values[1] = 10;
        registers.values[REGISTERS / 2 + 1] = 12;
        registers.values[REGISTERS - 1] = 60;
        let body = postcard::to_stdvec(&registers.finish()).unwrap();
        // The variant, the lowest, 2^14 halves; the last is beyond, by 15 at most in its half.
        let mut known = vec![3, 9, 0x80, 0x80, 1, 0, 0x31];
        known.extend(vec![0; REGISTERS / 2 - 3]);
        known.extend([0xf0, 3, 0xff, 0x7f, 60]);
        assert!(body == known, "{:?} … {:?}", &body[..8], &body[body.len() - 6..]);
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
