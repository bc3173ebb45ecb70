//! Numbers of PostgreSQL's advisory locks. But for the migrations' lock, each is the first of a lock's two keys; the
//! second is a source or a shard.

/// Held by the migration that is under way: "ess" and a number.
pub(in crate::store) const MIGRATION_LOCK: i64 = 0x0065_7373_0000_0001;
/// Number of shards of a source's rollups: as many transactions can add to them without waiting for each other.
pub(in crate::store) const SHARDS: i32 = 32;
/// Excludes writers of the same shard of the rollups from each other.
pub(in crate::store) const SHARD_LOCKS: i32 = 0x0e55_0001;
/// Excludes two collectors of a source from folding its ledger at the same time.
pub(in crate::store) const FOLD_LOCKS: i32 = 0x0e55_0002;
/// Excludes two collectors of a source from folding its summaries at the same time.
pub(in crate::store) const SUMMARY_LOCKS: i32 = 0x0e55_0003;
/// Held in shared mode by each writer of a source, so that folding its ledger can tell them by it, and one that stands
/// still can be found.
pub(in crate::store) const WRITER_LOCKS: i32 = 0x0e55_0004;
