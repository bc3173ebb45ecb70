//! HyperLogLog registers of 8 bits each, in which sets are united.

use datasketches::hll::HllSketch;

use super::hash::{UserHash, coupon, coupon_value};
use super::sparse::SparseRegisters;
use super::{LG_REGISTERS, REGISTERS};

/// Registers that are compared with one vector operation.
const VECTOR: usize = 64;
/// Offset of the registers in the library's image of a sketch.
const IMAGE_HEADER: usize = 40;

/// The registers of a set.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Registers {
    pub(super) values: [u8; REGISTERS],
}

impl Default for Registers {
    fn default() -> Self {
        Self { values: [0; REGISTERS] }
    }
}

impl Registers {
    pub(super) fn add_hashes(&mut self, hashes: &[UserHash]) {
        hashes.iter().for_each(|hash| self.add_coupon(coupon(*hash)));
    }

    pub(super) fn add_coupons(&mut self, coupons: &[u32]) {
        coupons.iter().for_each(|coupon| self.add_coupon(*coupon));
    }

    fn add_coupon(&mut self, coupon: u32) {
        self.raise(coupon as usize, coupon_value(coupon));
    }

    pub(super) fn add_sparse(&mut self, sparse: &SparseRegisters) {
        sparse.iter().for_each(|(index, value)| self.raise(index.into(), value));
    }

    /// Raises the register of an index, of which the lowest bits count.
    fn raise(&mut self, index: usize, value: u8) {
        let known = &mut self.values[index % REGISTERS];
        *known = (*known).max(value);
    }

    /// The registers above a value.
    pub(super) fn above(&self, value: u8) -> SparseRegisters {
        let mut above = Vec::new();
        for (begin, part) in (0_u16..).step_by(VECTOR).zip(self.values.as_chunks::<VECTOR>().0) {
            // The maximum of a part is vectorised. Mostly no register of it is above the value.
            if part.iter().fold(0_u8, |most, known| most.max(*known)) > value {
                let entries = (begin..).zip(part).filter(|(_, known)| **known > value);
                above.extend(entries.map(|(index, known)| (index, *known)));
            }
        }
        SparseRegisters::new(&above)
    }

    /// Number of registers that are zero.
    pub(super) fn count_zeros(&self) -> usize {
        // In parts whose count fits into a byte: such a sum is vectorised.
        let part = |part: &[u8]| part.iter().map(|value| u8::from(*value == 0)).sum::<u8>();
        self.values.chunks(128).map(|values| usize::from(part(values))).sum()
    }

    /// Sum of 2^-value over all registers.
    fn sum_of_inverse_powers(&self) -> f64 {
        self.values
            .chunks(2_048)
            .map(|values| {
                // 16 sums side by side are vectorised; each has few terms, so that `f32` stays precise enough.
                let mut sums = [0_f32; 16];
                for values in values.as_chunks::<16>().0 {
                    for (sum, value) in sums.iter_mut().zip(values) {
                        // The bits of 2^-value as a float: its exponent alone.
                        *sum += f32::from_bits((127 - u32::from(*value % 64)) << 23);
                    }
                }
                sums.map(f64::from).iter().sum::<f64>()
            })
            .sum()
    }

    /// Estimated number of users.
    pub(super) fn estimate(&self) -> u64 {
        // The library's image of a sketch in HLL4, its shortest type. The estimator reads of the registers only the sum
        // of inverse powers and the number of zeros, both of which are fields of the header.
        let mut image = [0; IMAGE_HEADER + REGISTERS / 2];
        image[..8].copy_from_slice(&[IMAGE_HEADER as u8 / 4, 1, 7, LG_REGISTERS, 0, 16, 0, 0b0010]);
        image[16..24].copy_from_slice(&self.sum_of_inverse_powers().to_le_bytes());
        image[32..36].copy_from_slice(&(self.count_zeros() as u32).to_le_bytes());
        match HllSketch::deserialize(&image) {
            // A small positive number: the cast saturates and does not wrap.
            Ok(sketch) => sketch.estimate().max(0.0).round() as u64,
            Err(error) => {
                tracing::error!(%error, "estimating a number of users failed: datasketches refuses its own format");
                0
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use datasketches::hll::{HllType, HllUnion};

    use super::super::UserSetBuilder;
    use super::super::hash::user_hash;
    use super::super::user_set::UserSet;
    use super::super::user_set::tests::set_of;
    use super::*;

    fn hashes(users: u32) -> Vec<UserHash> {
        (0..users).map(|id| user_hash(&format!("user-{id}"))).collect()
    }

    #[test]
    fn registers_and_estimates_are_those_of_the_library() {
        let empty = || HllSketch::new(LG_REGISTERS, HllType::Hll8).unwrap();
        for users in [1_100, 2_500, 3_200, 9_000, 60_000] {
            let mut union = HllUnion::new(LG_REGISTERS).unwrap();
            let mut whole = empty();
            let mut builder = UserSetBuilder::default();
            for part in 0..3 {
                let range = part * users / 4..(part + 2) * users / 4;
                let mut sketch = empty();
                range.clone().for_each(|id| sketch.update(user_hash(&format!("user-{id}"))));
                range.clone().for_each(|id| whole.update(user_hash(&format!("user-{id}"))));
                union.update(&sketch);
                builder.add(&set_of(range));
            }
            let ours = builder.count().0 as f64;
            let theirs = union.estimate();
            // While the library keeps coupons, it distinguishes users that share a register.
            let tolerance = if users < 4_000 { theirs * 0.01 } else { 0.51 };
            assert!((ours - theirs).abs() <= tolerance, "{users}: {ours} {theirs}");
            // From some thousand users on, the library has registers only, too.
            let image = whole.serialize();
            if users >= 9_000 {
                let mut registers = Registers::default();
                registers.add_hashes(&hashes(users));
                assert_eq!(registers.values, image[IMAGE_HEADER..]);
            }
        }
    }

    #[test]
    fn registers_are_the_same_in_every_form() {
        for users in [2_000, 6_000, 60_000, 1_000_000] {
            let mut registers = Registers::default();
            registers.add_hashes(&hashes(users));
            let mut builder = UserSetBuilder::default();
            builder.add_hashes(&mut hashes(users));
            let built = builder.finish();
            let dense8 = UserSet::Dense8(registers.values.to_vec());
            assert_eq!(built, dense8, "{users}");
            assert!(*Registers::of(&built) == registers);
            assert!(built.heap_size() <= REGISTERS / 2 + 1_000, "{}", built.heap_size());
            match built {
                UserSet::Sparse(_) => assert!(users < 6_000),
                UserSet::Dense4(dense) => {
                    assert_eq!(dense.lowest, registers.values.iter().copied().min().unwrap());
                    assert_eq!(dense.lowest > 0, users == 1_000_000);
                    assert!(!dense.overflow.bytes().is_empty() || users == 6_000, "some overflow 4 bits");
                }
                other => panic!("{other:?} is in neither form"),
            }
            // With one register raised it is another set.
            let mut other = registers.clone();
            other.values[7] += 1;
            assert_ne!(UserSet::Dense8(other.values.to_vec()), dense8);
        }
    }

    #[test]
    fn the_stored_bytes_of_dense_registers_stay_the_same() {
        let mut registers = Registers { values: [9; REGISTERS] };
        registers.values[1] = 10;
        registers.values[REGISTERS / 2 + 1] = 12;
        registers.values[REGISTERS - 1] = 60;
        let body = postcard::to_stdvec(&registers.finish()).unwrap();
        // The variant, `lowest`, the length 2^14, the offsets; the last register overflows its 4 bits.
        let mut known = vec![3, 9, 0x80, 0x80, 1, 0, 0x31];
        known.extend(vec![0; REGISTERS / 2 - 3]);
        known.extend([0xf0, 3, 0xff, 0x7f, 60]);
        assert!(body == known, "{:?} … {:?}", &body[..8], &body[body.len() - 6..]);
    }
}
