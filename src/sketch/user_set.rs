//! A finished set of users, as it is stored and read.

use once_cell::race::OnceBox;
use serde::{Deserialize, Serialize};

use super::dense4::{Dense4, MAX_OFFSET};
use super::hash::{UserHash, UserHashes, coupon, hash_bytes};
use super::registers::Registers;
use super::sparse::SparseRegisters;
use super::{ALLOCATION, REGISTERS, SPARSE_MAX};

/// Number of hashes from which cached coupons are cheaper than computing them on every read.
const CACHED_COUPONS_MIN: usize = 65;

/// A set of users. The order of the variants is part of the stored format.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) enum UserSet {
    /// Hashes of at most 1,024 users.
    Exact(Exact),
    /// The registers above zero, with their indices.
    Sparse(SparseRegisters),
    /// All registers, 8 bits each. Earlier versions stored this; it is only read.
    Dense8(#[serde(with = "serde_bytes")] Vec<u8>),
    /// All registers, 4 bits each.
    Dense4(Box<Dense4>),
}

/// Hashes of few users.
#[derive(Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Exact {
    /// Ascending.
    #[serde(with = "hash_bytes")]
    hashes: UserHashes,
    /// Lazily computed HLL coupons; cached sets are merged often.
    #[serde(skip)]
    coupons: OnceBox<Vec<u32>>,
}

impl PartialEq for UserSet {
    /// True if the same users make both, in whatever form: more than 1,024 users are always registers, fewer never.
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(one), Self::Exact(other)) => one.hashes == other.hashes,
            (Self::Exact(_), _) | (_, Self::Exact(_)) => false,
            _ => Registers::of(self) == Registers::of(other),
        }
    }
}

impl Eq for UserSet {}

impl Registers {
    /// The registers of a set.
    pub(super) fn of(set: &UserSet) -> Box<Self> {
        let mut registers = Box::<Self>::default();
        registers.add(set);
        registers
    }

    /// Unites with a set.
    pub(super) fn add(&mut self, set: &UserSet) {
        match set {
            UserSet::Exact(exact) => self.add_hashes(exact.hashes()),
            UserSet::Sparse(sparse) => self.add_sparse(sparse),
            UserSet::Dense8(all) => {
                self.values.iter_mut().zip(all).for_each(|(known, value)| *known = (*known).max(*value));
            }
            UserSet::Dense4(dense) => {
                dense.raise_all(&mut self.values);
                self.add_sparse(&dense.overflow);
            }
        }
    }

    /// The shortest form of the registers.
    pub(super) fn finish(&self) -> UserSet {
        if REGISTERS - self.count_zeros() <= SPARSE_MAX {
            return UserSet::Sparse(self.above(0));
        }
        let lowest = self.values.iter().copied().min().unwrap_or(0);
        let overflow = self.above(lowest.saturating_add(MAX_OFFSET));
        UserSet::Dense4(Box::new(Dense4::pack(&self.values, lowest, overflow)))
    }
}

impl Default for UserSet {
    fn default() -> Self {
        Self::Exact(Exact::default())
    }
}

impl Exact {
    /// A set of ascending hashes.
    pub(crate) fn new(hashes: UserHashes) -> Self {
        Self { hashes, coupons: OnceBox::new() }
    }

    pub(super) fn hashes(&self) -> &[UserHash] {
        &self.hashes
    }

    /// A byte of the data that a merge into registers reads, for [`UserSet::prefetch`].
    fn first_byte(&self) -> u8 {
        let coupon = self.coupons.get().and_then(|all| all.first()).map(|coupon| *coupon as u8);
        coupon.or_else(|| self.hashes.first().map(|hash| *hash as u8)).unwrap_or_default()
    }

    /// True if coupons are computed once and kept.
    pub(super) fn caches_coupons(&self) -> bool {
        self.hashes.len() >= CACHED_COUPONS_MIN
    }

    pub(super) fn coupons(&self) -> &[u32] {
        self.coupons.get_or_init(|| Box::new(self.hashes.iter().map(|hash| coupon(*hash)).collect()))
    }

    /// Approximate bytes on the heap.
    fn heap_size(&self) -> usize {
        if self.caches_coupons() {
            let each = size_of::<UserHash>() + size_of::<u32>();
            self.hashes.len() * each + size_of::<Vec<u32>>() + 3 * ALLOCATION
        } else if self.hashes.spilled() {
            size_of_val(self.hashes.as_slice()) + ALLOCATION
        } else {
            0
        }
    }
}

impl Clone for Exact {
    fn clone(&self) -> Self {
        Self::new(self.hashes.clone())
    }
}

impl UserSet {
    /// Number of users, and true if it is an estimate.
    pub(crate) fn count(&self) -> (u64, bool) {
        match self {
            Self::Exact(exact) => (exact.hashes.len() as u64, false),
            registers => (Registers::of(registers).estimate(), true),
        }
    }

    /// False if the decoded bytes were corrupt.
    pub(crate) fn is_valid(&self) -> bool {
        match self {
            Self::Exact(_) | Self::Sparse(_) => true,
            Self::Dense8(all) => all.len() == REGISTERS,
            Self::Dense4(dense) => dense.is_valid(),
        }
    }

    /// Appends the encoded set.
    pub(crate) fn encode(&self, to: &mut Vec<u8>) {
        match postcard::to_extend(self, std::mem::take(to)) {
            Ok(written) => *to = written,
            // Writing to a vector cannot fail.
            Err(error) => tracing::error!(%error, "encoding a set of users failed"),
        }
    }

    /// Decodes a set; `None` if the bytes are none.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        postcard::from_bytes(bytes).ok()
    }

    /// True if bytes are one encoded set and nothing else.
    pub(crate) fn is_encoded_in(bytes: &[u8]) -> bool {
        match bytes {
            // Few users, which most cities have, are checked without decoding: variant, length in bytes, hashes.
            [0, length, hashes @ ..] if *length < 0x80 => {
                usize::from(*length) == hashes.len() && hashes.len().is_multiple_of(size_of::<UserHash>())
            }
            _ => postcard::take_from_bytes::<Self>(bytes)
                .is_ok_and(|(set, rest)| rest.is_empty() && set.is_valid()),
        }
    }

    /// Approximate bytes on the heap.
    pub(crate) fn heap_size(&self) -> usize {
        match self {
            Self::Exact(exact) => exact.heap_size(),
            Self::Sparse(sparse) => sparse.bytes().len() + ALLOCATION,
            Self::Dense8(all) => all.len() + ALLOCATION,
            Self::Dense4(dense) => dense.heap_size(),
        }
    }

    /// Touches the data of several sets, so that the CPU fetches them side by side. Merged one after another, each
    /// would wait for memory: some 5 % of the time of a report whose sets are in no CPU cache.
    pub(super) fn prefetch<'s>(sets: impl Iterator<Item = &'s Self>) {
        /// A page of memory: finding one costs as much as fetching from it.
        const PAGE: usize = 4_096;
        let touch = |bytes: &[u8]| bytes.iter().step_by(PAGE).fold(0, |touched, byte| touched ^ byte);
        let touched = sets.fold(0, |touched, set| {
            touched
                ^ match set {
                    Self::Exact(exact) => exact.first_byte(),
                    Self::Sparse(sparse) => touch(sparse.bytes()),
                    Self::Dense8(all) => touch(all),
                    Self::Dense4(dense) => touch(dense.bytes()),
                }
        });
        std::hint::black_box(touched);
    }
}

impl std::fmt::Debug for UserSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (users, estimated) = self.count();
        write!(f, "{}{users} users", if estimated { "about " } else { "" })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::hash::user_hash;
    use super::super::{EXACT_MAX, UserSetBuilder};
    use super::*;

    pub(in crate::sketch) fn set_of(ids: std::ops::Range<u32>) -> UserSet {
        let mut builder = UserSetBuilder::default();
        builder.add_hashes(&mut ids.map(|id| user_hash(&format!("user-{id}"))).collect());
        builder.finish()
    }

    #[test]
    fn the_stored_bytes_of_few_users_stay_the_same() {
        // The variant, the length in bytes, two hashes in little endian.
        let body = [0, 16, 1, 0, 0, 0, 0, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0];
        let set = UserSet::decode(&body).unwrap();
        assert_eq!(set, UserSet::Exact(Exact::new(UserHashes::from_slice(&[1, 0x0102]))));
        let mut encoded = Vec::new();
        set.encode(&mut encoded);
        assert_eq!(encoded, body);
        // Earlier versions stored 8 bits a register, as variant 2.
        let mut body = vec![2, 0x80, 0x80, 2];
        body.extend(vec![3; REGISTERS]);
        assert_eq!(UserSet::decode(&body), Some(UserSet::Dense8(vec![3; REGISTERS])));
    }

    #[test]
    fn corrupt_bytes_of_a_set_are_noticed() {
        for users in [0, 2, 40, 1_024, 2_000, 60_000] {
            let mut body = Vec::new();
            set_of(0..users).encode(&mut body);
            assert!(UserSet::is_encoded_in(&body), "{users}");
            assert!(!UserSet::is_encoded_in(&body[..body.len() - 1]), "{users}: cut");
            body.push(0);
            assert!(!UserSet::is_encoded_in(&body), "{users}: a byte too many");
        }
        assert!(!UserSet::Dense8(vec![0; REGISTERS - 1]).is_valid());
    }

    #[test]
    fn coupons_are_cached_without_changing_the_set() {
        let UserSet::Exact(exact) = set_of(0..EXACT_MAX as u32) else { panic!("1,024 users are exact") };
        assert!(exact.caches_coupons());
        assert_eq!(exact.coupons().len(), EXACT_MAX);
        assert_eq!(UserSet::Exact(exact.clone()), UserSet::Exact(exact));
    }
}
