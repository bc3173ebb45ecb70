//! Counting distinct users: exactly up to 1,024, by HyperLogLog beyond that.
//!
//! ```text
//! user id ──user_hash──▶ UserHash ──UserSetBuilder──▶ UserSet: Exact │ Sparse │ Dense8 │ Dense4 ──postcard──▶ bytes
//! ```
//!
//! A set of at most 1,024 users holds their hashes. A larger one holds 2^15 registers, with a standard error of
//! 1.04 / √32768 = 0.57 % (Flajolet et al., 2007). The crate `datasketches` maps a hash to its register and value (a
//! *coupon*), and estimates a count from registers. In between, registers are plain bytes here, and the union of two
//! sets is the maximum of each register: reports unite thousands of sets, which this makes cheap.

mod builder;
mod dense4;
mod hash;
mod registers;
mod sparse;
mod user_set;

pub(crate) use builder::UserSetBuilder;
pub use hash::UserHash;
pub(crate) use hash::{UserHashes, hash_bytes, user_hash};
#[cfg(test)]
pub(crate) use user_set::Exact;
pub(crate) use user_set::UserSet;

/// Largest number of users that is counted exactly.
const EXACT_MAX: usize = 1_024;
/// Base-2 logarithm of the number of registers.
const LG_REGISTERS: u8 = 15;
const REGISTERS: usize = 1 << LG_REGISTERS;
/// Largest number of registers above zero that is stored sparsely, at 3 bytes each: more are shorter as [`dense4`].
const SPARSE_MAX: usize = REGISTERS / 6;

/// Approximate overhead of one heap allocation, in bytes.
const ALLOCATION: usize = 16;
