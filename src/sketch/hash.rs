//! Hashes that stand for users, and the HyperLogLog coupons of hashes.

use std::hash::{Hash, Hasher};

use datasketches::hll::Coupon;
use smallvec::SmallVec;

/// Hash of a user's id. Equal ids have equal hashes.
pub type UserHash = u64;

/// Hashes of users. Most cities have one or two, which need no allocation.
pub(crate) type UserHashes = SmallVec<[UserHash; 2]>;

/// Hash of a user's id.
pub(crate) fn user_hash(user_id: &str) -> UserHash {
    xxhash_rust::xxh3::xxh3_64(user_id.as_bytes())
}

/// Number of a coupon's low bits that hold the register's index; the bits above hold the value.
const INDEX_BITS: u32 = 26;

/// Coupon of a hash as `datasketches` encodes it: the index of a register, and a value for it.
pub(super) fn coupon(hash: UserHash) -> u32 {
    /// Reads the number inside a coupon, which the library shows to hashers alone.
    #[derive(Default)]
    struct NumberReader(u32);

    impl Hasher for NumberReader {
        fn write(&mut self, _: &[u8]) {}

        fn write_u32(&mut self, number: u32) {
            self.0 = number;
        }

        fn finish(&self) -> u64 {
            self.0.into()
        }
    }

    let mut number = NumberReader::default();
    Coupon::from_value(hash).hash(&mut number);
    debug_assert_ne!(number.0, 0, "the library hashes its coupons in another way now");
    number.0
}

/// Value of a coupon.
pub(super) fn coupon_value(coupon: u32) -> u8 {
    (coupon >> INDEX_BITS) as u8
}

/// Serde of hashes as little-endian bytes, 8 each.
pub(crate) mod hash_bytes {
    use serde::{Deserialize, Deserializer, Serializer};

    use super::{UserHash, UserHashes};

    pub(crate) fn serialize<S: Serializer>(hashes: &[UserHash], to: S) -> Result<S::Ok, S::Error> {
        let mut bytes = vec![0; size_of_val(hashes)];
        for (word, hash) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(hashes) {
            *word = hash.to_le_bytes();
        }
        to.serialize_bytes(&bytes)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<UserHashes, D::Error> {
        let bytes: &[u8] = Deserialize::deserialize(from)?;
        let (words, rest) = bytes.as_chunks::<8>();
        if !rest.is_empty() {
            return Err(serde::de::Error::custom("hashes of users are 8 bytes each"));
        }
        // The exact capacity: caches hold very many of these.
        let mut hashes = UserHashes::with_capacity(words.len());
        hashes.extend(words.iter().map(|word| UserHash::from_le_bytes(*word)));
        Ok(hashes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_and_coupons_are_those_of_stored_sets() {
        // With other ones, every user of a stored set would be counted a second time.
        let found = ["", "a", "user-1"].map(|id| (user_hash(id), coupon(user_hash(id))));
        let known = [
            (3_244_421_341_483_603_138, 74_914_329),
            (16_629_034_431_890_738_719, 67_296_344),
            (8_968_379_626_967_066_057, 67_916_110),
        ];
        assert_eq!(found, known);
    }
}
