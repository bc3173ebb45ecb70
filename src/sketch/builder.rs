//! A set of users that grows by hashes and by other sets.

use smallvec::SmallVec;

use super::EXACT_MAX;
use super::hash::UserHash;
use super::registers::Registers;
use super::user_set::{Exact, UserSet};

/// Hashes that [`UserSetBuilder::union`] collects before it checks whether they are too many to stay exact.
const UNSORTED_MAX: usize = 16 * EXACT_MAX;

/// A set of users that grows.
#[derive(Clone, Default)]
pub(crate) struct UserSetBuilder {
    /// Hashes, ascending, while there are no registers.
    hashes: Vec<UserHash>,
    /// Registers, once there were more than [`EXACT_MAX`] users.
    registers: Option<Box<Registers>>,
}

impl UserSetBuilder {
    /// Union of cached sets. Costs less than adding one after another.
    pub(crate) fn union<'s>(sets: impl Iterator<Item = &'s UserSet> + Clone) -> Self {
        UserSet::prefetch(sets.clone());
        let mut union = Self::default();
        if sets.clone().any(|set| !matches!(set, UserSet::Exact(_))) {
            union.use_registers();
        }
        for set in sets {
            match (set, &mut union.registers) {
                (UserSet::Exact(exact), Some(registers)) if exact.caches_coupons() => {
                    registers.add_coupons(exact.coupons());
                }
                (UserSet::Exact(exact), None) => {
                    union.hashes.extend_from_slice(exact.hashes());
                    if union.hashes.len() > UNSORTED_MAX {
                        union.settle();
                    }
                }
                _ => union.add(set),
            }
        }
        union.settle();
        union
    }

    /// Adds hashes in any order, duplicates included, and empties the vector.
    pub(crate) fn add_hashes(&mut self, hashes: &mut Vec<UserHash>) {
        if let Some(registers) = &mut self.registers {
            registers.add_hashes(hashes);
            hashes.clear();
            return;
        }
        hashes.sort_unstable();
        hashes.dedup();
        self.add_ascending(hashes);
        hashes.clear();
    }

    fn add_ascending(&mut self, hashes: &[UserHash]) {
        if let Some(registers) = &mut self.registers {
            registers.add_hashes(hashes);
            return;
        }
        self.hashes.extend_from_slice(hashes);
        self.settle();
    }

    /// Sorts and deduplicates the hashes; turns them into registers if they are too many.
    fn settle(&mut self) {
        // Ascending runs: the stable sort merges them, and leaves a single run as it is.
        self.hashes.sort();
        self.hashes.dedup();
        if self.hashes.len() > EXACT_MAX {
            self.use_registers();
        }
    }

    /// Turns hashes into registers.
    fn use_registers(&mut self) -> &mut Registers {
        let hashes = std::mem::take(&mut self.hashes);
        let registers = self.registers.get_or_insert_with(Box::default);
        registers.add_hashes(&hashes);
        registers
    }

    /// Adds the users of a set.
    pub(crate) fn add(&mut self, set: &UserSet) {
        match set {
            UserSet::Exact(exact) => self.add_ascending(exact.hashes()),
            registers => self.use_registers().add(registers),
        }
    }

    /// Number of users, and true if it is an estimate.
    pub(crate) fn count(&self) -> (u64, bool) {
        match &self.registers {
            None => (self.hashes.len() as u64, false),
            Some(registers) => (registers.estimate(), true),
        }
    }

    /// Number of users that made a number of events, which bounds an estimate; and true if it is an estimate.
    pub(crate) fn count_of_events(&self, events: u64) -> (u64, bool) {
        let (users, estimated) = self.count();
        (users.min(events), estimated)
    }

    pub(crate) fn finish(self) -> UserSet {
        match self.registers {
            None => UserSet::Exact(Exact::new(SmallVec::from_slice(&self.hashes))),
            Some(registers) => registers.finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::user_set::tests::set_of;
    use super::*;

    #[test]
    fn up_to_1024_users_are_counted_exactly_in_any_order() {
        for users in [0, 1, 999, 1_000, 1_024] {
            let mut builder = UserSetBuilder::default();
            for part in 0..7 {
                builder.add(&set_of(part * users / 7..users));
            }
            assert_eq!(builder.count(), (u64::from(users), false));
            let bytes = postcard::to_stdvec(&builder.finish()).unwrap();
            let read: UserSet = postcard::from_bytes(&bytes).unwrap();
            assert_eq!(read.count(), (u64::from(users), false));
        }
    }

    #[test]
    fn more_users_are_estimated_within_two_percent() {
        for users in [1_025, 3_000, 10_000, 50_000, 200_000, 1_000_000] {
            let mut builder = UserSetBuilder::default();
            for part in 0..10 {
                let bytes = postcard::to_stdvec(&set_of(part * users / 10..(part + 2) * users / 11)).unwrap();
                builder.add(&postcard::from_bytes::<UserSet>(&bytes).unwrap());
            }
            builder.add(&set_of(0..users));
            let (counted, estimated) = builder.count();
            let error = (counted as f64 - f64::from(users)).abs() / f64::from(users);
            assert!(estimated && error < 0.02, "{users} users counted as {counted}");
        }
    }

    #[test]
    fn a_union_equals_sets_added_one_after_another() {
        for users in [10, 700, 20_000, 300_000] {
            let sets: Vec<UserSet> =
                (0..9).map(|part| set_of(part * users / 20..(part * users / 20) + users / 3)).collect();
            let mut builder = UserSetBuilder::default();
            sets.iter().for_each(|set| builder.add(set));
            assert_eq!(UserSetBuilder::union(sets.iter()).finish(), builder.finish(), "{users}");
        }
    }

    #[test]
    fn an_estimate_is_never_above_the_number_of_events() {
        let mut builder = UserSetBuilder::default();
        builder.add(&set_of(0..5_000));
        assert_eq!(builder.count_of_events(4_000), (4_000, true));
        assert_eq!(builder.count_of_events(u64::MAX), builder.count());
    }

    #[test]
    fn the_standard_error_is_at_most_0_7_percent() {
        // Root mean square over 60 sets of distinct users; it is within a fifth of the true standard error.
        let users = 40_000;
        let squares = (0..60).map(|set| {
            let mut builder = UserSetBuilder::default();
            builder.add(&set_of(set * users..set * users + users / 2));
            builder.add(&set_of(set * users + users / 2..(set + 1) * users));
            let error = builder.count().0 as f64 / f64::from(users) - 1.0;
            error * error
        });
        let deviation = (squares.sum::<f64>() / 60.0).sqrt();
        assert!(deviation <= 0.007, "standard error {deviation}");
    }
}
