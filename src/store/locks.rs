//! Numbers of PostgreSQL's advisory locks. Each is the first of the two keys of a lock; the second says which shard
//! or which source.

/// Number of shards of a source's rollups: so many transactions count at one time without waiting for each other.
pub(in crate::store) const SHARDS: i32 = 32;
/// Excludes writers of the same shard of the rollups from each other.
pub(in crate::store) const SHARD_LOCKS: i32 = 0x0e55_0001;
/// Excludes two collectors of a source from folding its ledger at the same time.
pub(in crate::store) const FOLD_LOCKS: i32 = 0x0e55_0002;
/// Excludes two collectors of a source from folding its summaries at the same time.
pub(in crate::store) const SUMMARY_LOCKS: i32 = 0x0e55_0003;
/// Held in shared mode by each writer of a source, so that folding its ledger can wait for all of them.
pub(in crate::store) const WRITER_LOCKS: i32 = 0x0e55_0004;
