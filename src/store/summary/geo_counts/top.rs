//! The locations with the most users.
//!
//! A location has no more users than events, and events are merely added up. So users are counted from the location
//! with the most events downwards, until no other location can be among the first.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::{GeoCounts, Name, Occurrence, for_each_partition, to_u32};
use crate::sketch::{UserSet, UserSetBuilder};

/// The first locations by users.
#[derive(Debug, Default)]
pub(in crate::store) struct TopLocations<N> {
    /// Names and users, the most users first, equal ones by name.
    pub(in crate::store::summary) locations: Vec<(N, u64)>,
    /// True if there are others.
    pub(in crate::store::summary) truncated: bool,
    /// Largest number of users that a location may have beyond its count, or without being listed; 0 if all is exact.
    pub(in crate::store::summary) error_bound: u64,
}

/// A location in the order of events: the most first, equal ones by name.
#[derive(PartialEq, Eq, PartialOrd, Ord, Clone, Copy)]
struct ByEvents<'p> {
    events: u64,
    name: Reverse<Name<'p>>,
    hash: u64,
}

impl GeoCounts {
    /// The first locations of the sum of some parts, by users.
    pub(in crate::store::summary) fn top(parts: &[Self], limit: usize) -> TopLocations<Name<'_>> {
        let error_bound = parts.iter().map(Self::error_bound).sum();
        let mut candidates = (2 * limit).max(64);
        loop {
            let (by_events, distinct) = Self::top_by_events(parts, candidates);
            let mut top: Vec<(Name<'_>, u64)> = Vec::with_capacity(limit + 1);
            let mut is_final = by_events.len() == distinct;
            for ByEvents { events, name: Reverse(name), hash } in by_events {
                // All further candidates have fewer events, or as many and a later name.
                let beats = |last: &(Name<'_>, u64)| last.1 > events || (last.1 == events && last.0 < name);
                if top.len() == limit && top.last().is_none_or(beats) {
                    is_final = true;
                    break;
                }
                let sets: Vec<UserSet> = parts.iter().filter_map(|part| part.users_of(hash)).collect();
                let counted = (name, UserSetBuilder::union(sets.iter()).count_of_events(events).0);
                let rank = top.partition_point(|known| (counted.1, known.0) < (known.1, counted.0));
                top.insert(rank, counted);
                top.truncate(limit);
            }
            if is_final {
                let truncated = distinct > limit || error_bound > 0;
                return TopLocations { locations: top, truncated, error_bound };
            }
            candidates *= 4;
        }
    }

    /// The first locations by events, and the number of distinct locations.
    fn top_by_events(parts: &[Self], limit: usize) -> (Vec<ByEvents<'_>>, usize) {
        let mut heap: BinaryHeap<Reverse<ByEvents<'_>>> = BinaryHeap::with_capacity(limit + 1);
        let mut distinct = 0;
        let mut sums = EventSums::default();
        for_each_partition(parts, |found| {
            sums.add_up(parts, found);
            distinct += sums.sums.len();
            for (found, events) in &sums.sums {
                let full = heap.len() == limit;
                if full && heap.peek().is_some_and(|Reverse(last)| *events < last.events) {
                    continue;
                }
                let name = parts[found.part as usize].0.name(found.index as usize);
                let candidate = ByEvents { events: *events, name: Reverse(name), hash: found.hash };
                if full && heap.peek().is_some_and(|Reverse(last)| candidate < *last) {
                    continue;
                }
                heap.push(Reverse(candidate));
                if full {
                    heap.pop();
                }
            }
        });
        (heap.into_sorted_vec().into_iter().map(|Reverse(candidate)| candidate).collect(), distinct)
    }

    fn users_of(&self, hash: u64) -> Option<UserSet> {
        self.0.hashes.binary_search(&hash).ok().map(|index| self.0.users(index))
    }
}

/// Events by location within one partition: an open-addressing hash table, whose keys are hashes already.
#[derive(Default)]
struct EventSums {
    /// One occurrence of each location, and the sum of its events.
    sums: Vec<(Occurrence, u64)>,
    /// Positions in `sums` from 1, or 0 for an empty slot.
    slots: Vec<u32>,
}

impl EventSums {
    /// Replaces the sums by those of other occurrences.
    fn add_up(&mut self, parts: &[GeoCounts], found: &[Occurrence]) {
        let mask = (2 * found.len()).next_power_of_two() - 1;
        self.sums.clear();
        self.slots.clear();
        self.slots.resize(mask + 1, 0);
        for found in found {
            let events = parts[found.part as usize].events_of(found);
            let mut slot = found.hash as usize & mask;
            loop {
                match self.slots[slot].checked_sub(1) {
                    None => {
                        self.sums.push((*found, events));
                        self.slots[slot] = to_u32(self.sums.len());
                        break;
                    }
                    Some(known) if self.sums[known as usize].0.hash == found.hash => {
                        self.sums[known as usize].1 += events;
                        break;
                    }
                    Some(_) => slot = (slot + 1) & mask,
                }
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::super::{GeoCountsBuilder, GeoCountsMerger, LOCATIONS_KEPT};
    use super::*;

    /// Random parts, and the users of each city.
    pub(in crate::store::summary::geo_counts) fn random_parts(
        count: u64,
        cities: u64,
    ) -> (Vec<GeoCounts>, BTreeMap<String, BTreeSet<u64>>) {
        let mut truth: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
        let mut random = count;
        let mut next = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % below
        };
        let parts = (0..count).map(|part| {
            let mut of_part: BTreeMap<String, Vec<u64>> = BTreeMap::new();
            for _ in 0..cities {
                let name = format!("city {}", next(cities) * next(cities) / cities);
                of_part.entry(name).or_default().push(next(1 + part % 3 * 1_000));
            }
            let mut builder = GeoCountsBuilder::default();
            for (name, mut users) in of_part {
                truth.entry(name.clone()).or_default().extend(&users);
                builder.add_users(("land", &name), &mut users);
            }
            builder.finish()
        });
        (parts.collect(), truth)
    }

    fn top(parts: &[GeoCounts], limit: usize) -> Vec<(String, u64)> {
        let top = GeoCounts::top(parts, limit);
        top.locations.into_iter().map(|((_, city), users)| (city.to_owned(), users)).collect()
    }

    fn expected(truth: &BTreeMap<String, BTreeSet<u64>>, limit: usize) -> Vec<(String, u64)> {
        let mut all: Vec<_> = truth.iter().map(|(name, users)| (name.clone(), users.len() as u64)).collect();
        all.sort_by(|left, right| right.1.cmp(&left.1).then_with(|| left.0.cmp(&right.0)));
        all.truncate(limit);
        all
    }

    #[test]
    fn the_cities_with_the_most_users_are_first_whether_parts_are_merged_or_not() {
        for (count, cities) in [(1, 10), (7, 300), (40, 2_000)] {
            let (parts, truth) = random_parts(count, cities);
            for limit in [1, 3, 50, 1_000] {
                assert_eq!(top(&parts, limit), expected(&truth, limit), "{count} parts");
                let (left, right) = parts.split_at(parts.len() / 2);
                let merged = [GeoCounts::merge(left), GeoCounts::merge(right)];
                assert_eq!(top(&merged, limit), expected(&truth, limit));
                let whole = GeoCounts::merge(&merged);
                let body = postcard::to_stdvec(&whole).unwrap();
                let read: GeoCounts = postcard::from_bytes(&body).unwrap();
                assert_eq!(top(std::slice::from_ref(&read), limit), expected(&truth, limit));
                assert!(read == whole && read.agrees(&GeoCounts::merge(&parts)));
            }
            let all = GeoCounts::top(&parts, truth.len());
            assert_eq!((all.truncated, all.error_bound), (false, 0));
            assert!(GeoCounts::top(&parts, truth.len() - 1).truncated);
        }
    }

    #[test]
    fn counts_beyond_the_bound_are_off_by_at_most_the_error_bound() {
        let mut merger = GeoCountsMerger::default();
        let mut truth = BTreeMap::new();
        for part in 0..5_u64 {
            let mut builder = GeoCountsBuilder::default();
            for city in 0..90_000_u64 {
                // Some have many events, most have one. The latter are others in each part.
                let events = 1 + 200 / (city + 1);
                let name = if city < 1_000 { city } else { part * 1_000_000 + city };
                *truth.entry(name).or_insert(0) += events;
                builder.add_users(
                    ("", &name.to_string()),
                    &mut (0..events).map(|user| part << 32 | user).collect(),
                );
            }
            merger.add(&builder.finish());
        }
        let bounded = merger.finish();
        assert_eq!((bounded.len(), bounded.error_bound()), (LOCATIONS_KEPT, 1));
        let bounded = [bounded];
        let found = GeoCounts::top(&bounded, 50);
        assert_eq!((found.truncated, found.error_bound), (true, 1));
        let mut expected: Vec<u64> = truth.values().copied().collect();
        expected.sort_unstable_by_key(|users| Reverse(*users));
        for ((_, users), expected) in found.locations.iter().zip(expected) {
            assert!(*users <= expected && users + found.error_bound >= expected, "{users} of {expected}");
        }
    }
}
