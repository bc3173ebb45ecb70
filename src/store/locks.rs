//! Keys of PostgreSQL's advisory locks.
//!
//! The locks of the migration and the dictionary have one key of 64 bits. All others have two keys of 32 bits: a constant of this file, and the
//! code of the source (`code * SHARDS + shard` for [`SHARD_LOCKS`]).

/// Held while migrations run, so that only one process migrates. "ess" in ASCII, and a number.
pub(in crate::store) const MIGRATION_LOCK: i64 = 0x0065_7373_0000_0001;
/// Held while numbers are given to names, so that each name has one number and each number one name.
pub(in crate::store) const DICTIONARY_LOCK: i64 = 0x0065_7373_0000_0002;
/// Shards of a source's rollups: the number of transactions that can add to them without waiting for each other.
pub(in crate::store) const SHARDS: i32 = 32;
/// Held exclusively by the transaction that adds to a shard of the rollups.
pub(in crate::store) const SHARD_LOCKS: i32 = 0x0e55_0001;
/// Held exclusively by the collector that folds the source's ledger.
pub(in crate::store) const FOLD_LOCKS: i32 = 0x0e55_0002;
/// Held exclusively by the collector that folds the source's summaries.
pub(in crate::store) const SUMMARY_LOCKS: i32 = 0x0e55_0003;
/// Held in shared mode by every transaction that writes rows or folds the ledger of a source. It excludes nobody: it
/// marks these transactions in `pg_locks`, so that stuck ones can be found and ended.
pub(in crate::store) const WRITER_LOCKS: i32 = 0x0e55_0004;
