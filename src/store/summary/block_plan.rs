//! Plan of blocks: groups of deltas whose sums a reader caches, so that a report reads few of them.
//!
//! A backfill leaves hundreds of deltas of hundreds of hours each, and a report that read each of them would take
//! longer the more there are. Deltas whose ids have the same upper bits make a block, of 8 and of 64 ids.
//!
//! A block is identified by the ids and tags of its deltas. With one delta more, or one folded, it is another block:
//! so a report uses the blocks of its own snapshot and no others.

use std::hash::{BuildHasher, Hasher};

/// Low bits in which the ids of a block's deltas differ: of large blocks and of small ones.
const BLOCK_BITS: [u32; 2] = [6, 3];

/// Identity of a delta: its id and its tag. After a failover a sequence may give an id a second time; the tag is
/// random.
pub(super) type DeltaKey = (i64, i64);

/// Deltas that make a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BlockPlan {
    /// Hash of the keys of the deltas.
    pub(super) key: u64,
    pub(super) deltas: Vec<DeltaKey>,
    /// Smaller blocks within this one.
    pub(super) smaller: Vec<BlockPlan>,
}

/// Plans the blocks of one source's deltas, which ascend by id. `newest` is the newest id of all sources: a block
/// whose range of ids it has not passed can still grow, and is not planned.
pub(super) fn plan_blocks(deltas: &[DeltaKey], newest: i64) -> Vec<BlockPlan> {
    plan(deltas, newest, &BLOCK_BITS)
}

fn plan(deltas: &[DeltaKey], newest: i64, bits: &[u32]) -> Vec<BlockPlan> {
    let Some((bits, smaller)) = bits.split_first() else { return Vec::new() };
    let mut plans = Vec::new();
    for deltas in deltas.chunk_by(|left, right| left.0 >> bits == right.0 >> bits) {
        let smaller = plan(deltas, newest, smaller);
        let complete = deltas.first().is_some_and(|first| first.0 >> bits < newest >> bits);
        if complete && deltas.len() > 1 {
            plans.push(BlockPlan { key: hash_of(deltas), deltas: deltas.to_vec(), smaller });
        } else {
            plans.extend(smaller);
        }
    }
    plans
}

fn hash_of(deltas: &[DeltaKey]) -> u64 {
    let mut hasher = foldhash::fast::FixedState::default().build_hasher();
    for (id, tag) in deltas {
        hasher.write_i64(*id);
        hasher.write_i64(*tag);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_planned_once_no_id_can_join_it() {
        let keys = |ids: std::ops::Range<i64>| ids.map(|id| (id, 7 * id)).collect::<Vec<_>>();
        let lengths = |plans: &[BlockPlan]| plans.iter().map(|plan| plan.deltas.len()).collect::<Vec<_>>();
        let plans = plan_blocks(&keys(1..70), 69);
        assert_eq!(lengths(&plans), [63]);
        assert_eq!(lengths(&plans[0].smaller), [7, 8, 8, 8, 8, 8, 8, 8]);
        // Later deltas leave earlier blocks as they are.
        assert_eq!(plan_blocks(&keys(1..72), 71), plans);
        assert_eq!(lengths(&plan_blocks(&keys(1..73), 72)), [63, 8]);
        assert!(plan_blocks(&keys(64..65), 200).is_empty(), "a single delta needs no block");
    }

    #[test]
    fn a_block_of_other_deltas_has_another_key() {
        let keys: Vec<DeltaKey> = (1..70).map(|id| (id, 7 * id)).collect();
        let plans = plan_blocks(&keys, 69);
        let mut without_one = keys.clone();
        without_one.remove(4);
        assert_ne!(plan_blocks(&without_one, 69)[0].key, plans[0].key);
        let mut other_tag = keys;
        other_tag[4].1 += 1;
        assert_ne!(plan_blocks(&other_tag, 69)[0].key, plans[0].key);
        assert_eq!(plan_blocks(&other_tag, 69)[0].smaller[1..], plans[0].smaller[1..]);
    }
}
