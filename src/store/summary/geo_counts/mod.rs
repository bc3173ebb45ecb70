//! Events and users by country or by city, for very many of them.
//!
//! A span can have as many cities as events. So they are kept in columns, ascending by the hash of their names, and
//! merged one partition of the hashes at a time, each small enough for the CPU's caches: some nanoseconds a city,
//! where a map by name takes a hundred.
//!
//! Up to [`LOCATIONS_MAX`] locations, or [`BYTES_MAX`], all are kept. Beyond that those with the most events stay, and
//! `error_bound` bounds the events of any other, as in Space-Saving (Metwally et al., 2005).

mod build;
mod encoding;
mod top;

use std::sync::Arc;

pub(super) use build::{GeoCountsBuilder, GeoCountsMerger};
pub(super) use top::TopLocations;

use crate::sketch::{UserSet, UserSetBuilder};

/// Locations that are kept without an error.
const LOCATIONS_MAX: usize = 1 << 18;
/// Bytes of names and users that are kept without an error.
const BYTES_MAX: usize = 64 << 20;
/// Locations that stay of more than [`LOCATIONS_MAX`]. The rest is room for the next ones.
const LOCATIONS_KEPT: usize = 1 << 14;
/// Bytes that stay of more than [`BYTES_MAX`].
const BYTES_KEPT: usize = 32 << 20;
/// Mean number of locations in a partition of the hashes.
const PARTITION: usize = 2_048;
/// Approximate overhead of one heap allocation, in bytes.
const ALLOCATION: usize = 16;

/// Country and city. The city is empty where countries are counted.
pub(super) type Name<'p> = (&'p str, &'p str);

/// Events and users by location. Clones share the columns.
#[derive(Clone, Default)]
pub(super) struct GeoCounts(Arc<Columns>);

#[derive(Clone, Default)]
struct Columns {
    /// Hash of each name, ascending. Two names of the same hash would count as one location: the chance of that is
    /// 1 in 10^8 for 2^18 locations.
    hashes: Vec<u64>,
    /// Events of each location, at most 2^32 - 1.
    events: Vec<u32>,
    /// End of each record in `records`.
    ends: Vec<u32>,
    /// Per location country, city and users, encoded.
    records: Vec<u8>,
    /// Largest number of events of a location that is not here, or by which the events of one here are too few.
    error_bound: u64,
}

/// A location in one of several parts.
#[derive(Clone, Copy)]
struct Occurrence {
    hash: u64,
    part: u32,
    /// Position in the part's columns.
    index: u32,
}

/// Splits a record into the name and the encoded users.
fn split_record(record: &[u8]) -> Option<(Name<'_>, &[u8])> {
    postcard::take_from_bytes(record).ok()
}

/// Hash of an encoded name.
fn name_hash(name: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(name)
}

/// A length or position in the columns, which are far shorter than 4 GiB.
fn to_u32(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

impl Columns {
    fn len(&self) -> usize {
        self.hashes.len()
    }

    fn record(&self, index: usize) -> &[u8] {
        let end = |index: usize| self.ends.get(index).map_or(0, |end| *end as usize);
        let begin = index.checked_sub(1).map_or(0, end);
        self.records.get(begin..end(index)).unwrap_or_default()
    }

    fn name(&self, index: usize) -> Name<'_> {
        split_record(self.record(index)).map_or(("", ""), |(name, _)| name)
    }

    fn users(&self, index: usize) -> UserSet {
        split_record(self.record(index)).and_then(|(_, users)| UserSet::decode(users)).unwrap_or_default()
    }

    fn reserve(&mut self, locations: usize, bytes: usize) {
        self.hashes.reserve_exact(locations);
        self.events.reserve_exact(locations);
        self.ends.reserve_exact(locations);
        self.records.reserve_exact(bytes);
    }

    fn shrink_to_fit(&mut self) {
        self.hashes.shrink_to_fit();
        self.events.shrink_to_fit();
        self.ends.shrink_to_fit();
        self.records.shrink_to_fit();
    }

    fn push(&mut self, hash: u64, events: u64, record: &[u8]) {
        self.hashes.push(hash);
        self.events.push(u32::try_from(events).unwrap_or(u32::MAX));
        self.records.extend_from_slice(record);
        self.ends.push(to_u32(self.records.len()));
    }

    /// Appends the sum of the occurrences of one location.
    fn push_sum(&mut self, parts: &[GeoCounts], same: &[Occurrence]) {
        let columns = |found: &Occurrence| &*parts[found.part as usize].0;
        if let [one] = same {
            let (columns, index) = (columns(one), one.index as usize);
            self.push(one.hash, columns.events[index].into(), columns.record(index));
            return;
        }
        let events = same.iter().map(|found| parts[found.part as usize].events_of(found)).sum();
        let sets: Vec<UserSet> =
            same.iter().map(|found| columns(found).users(found.index as usize)).collect();
        let Some(first) = same.first() else { return };
        let record = columns(first).record(first.index as usize);
        let users = split_record(record).map_or(0, |(_, users)| users.len());
        let mut record = record[..record.len() - users].to_vec();
        UserSetBuilder::union(sets.iter()).finish().encode(&mut record);
        self.push(first.hash, events, &record);
    }

    /// Drops the locations with the fewest events if there are too many.
    fn bounded(self) -> Self {
        if self.len() <= LOCATIONS_MAX && self.records.len() <= BYTES_MAX {
            return self;
        }
        let mut order: Vec<usize> = (0..self.len()).collect();
        order.sort_unstable_by_key(|index| (std::cmp::Reverse(self.events[*index]), self.hashes[*index]));
        let mut bytes = 0;
        let kept = order.iter().take(LOCATIONS_KEPT).take_while(|index| {
            bytes += self.record(**index).len();
            bytes <= BYTES_KEPT
        });
        let kept = kept.count();
        let dropped_events = order.get(kept).map_or(0, |index| u64::from(self.events[*index]));
        order.truncate(kept);
        order.sort_unstable();
        let error_bound = self.error_bound.saturating_add(dropped_events);
        let mut bounded = Self { error_bound, ..Self::default() };
        bounded.reserve(kept, bytes.min(BYTES_KEPT));
        for index in order {
            bounded.push(self.hashes[index], self.events[index].into(), self.record(index));
        }
        bounded
    }
}

/// Calls `visit` with the locations of all parts, one partition of the hashes after another, ascending. Within a
/// partition the occurrences are in the order of the parts.
fn for_each_partition(parts: &[GeoCounts], mut visit: impl FnMut(&mut Vec<Occurrence>)) {
    let total: usize = parts.iter().map(GeoCounts::len).sum();
    let bits = (total / PARTITION).max(1).ilog2();
    let partition_of = |hash: u64| if bits == 0 { 0 } else { hash >> (64 - bits) };
    let mut next = vec![0_usize; parts.len()];
    let mut found = Vec::with_capacity(2 * PARTITION);
    for partition in 0..1_u64 << bits {
        found.clear();
        for ((part, counts), next) in (0..).zip(parts).zip(&mut next) {
            let hashes = &counts.0.hashes[*next..];
            let of_partition = hashes.iter().take_while(|hash| partition_of(**hash) <= partition);
            let begin = found.len();
            found.extend((to_u32(*next)..).zip(of_partition).map(|(index, hash)| Occurrence {
                hash: *hash,
                part,
                index,
            }));
            *next += found.len() - begin;
        }
        visit(&mut found);
    }
}

impl GeoCounts {
    /// Number of locations.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Approximate bytes in memory.
    pub(super) fn size(&self) -> usize {
        size_of::<Columns>() + self.len() * (8 + 4 + 4) + self.0.records.len() + 5 * ALLOCATION
    }

    /// Largest number of events of a location that is not here, or by which the events of one here are too few.
    pub(super) fn error_bound(&self) -> u64 {
        self.0.error_bound
    }

    /// Sum of the events of all locations.
    pub(super) fn events(&self) -> u64 {
        self.0.events.iter().map(|events| u64::from(*events)).sum()
    }

    fn events_of(&self, found: &Occurrence) -> u64 {
        u64::from(self.0.events[found.index as usize])
    }

    /// The same counts with an error bound that is larger by `events`.
    pub(super) fn with_error(&self, events: u64) -> Self {
        let error_bound = self.0.error_bound.saturating_add(events);
        Self(Arc::new(Columns { error_bound, ..(*self.0).clone() }))
    }

    /// Sum of parts, without a bound on the number of locations.
    fn merge(parts: &[Self]) -> Self {
        if let [one] = parts {
            return one.clone();
        }
        let error_bound = parts.iter().map(Self::error_bound).sum();
        let mut merged = Columns { error_bound, ..Columns::default() };
        let bytes = parts.iter().map(|part| part.0.records.len()).sum();
        merged.reserve(parts.iter().map(Self::len).sum(), bytes);
        for_each_partition(parts, |found| {
            found.sort_unstable_by_key(|found| found.hash);
            for same in found.chunk_by(|left, right| left.hash == right.hash) {
                merged.push_sum(parts, same);
            }
        });
        merged.shrink_to_fit();
        Self(Arc::new(merged))
    }

    /// True if both can be of the same events: equal within their error bounds.
    pub(super) fn agrees(&self, other: &Self) -> bool {
        let error_bound = self.error_bound().max(other.error_bound());
        let mut agrees = true;
        for_each_partition(&[self.clone(), other.clone()], |found| {
            found.sort_unstable_by_key(|found| (found.hash, found.part));
            for same in found.chunk_by(|left, right| left.hash == right.hash) {
                let pair = [self, other];
                let events = |found: &Occurrence| pair[found.part as usize].events_of(found);
                agrees &= match same {
                    [one] => events(one) <= error_bound,
                    [left, right] if error_bound > 0 => events(left).abs_diff(events(right)) <= error_bound,
                    [left, right] => {
                        let users =
                            |found: &Occurrence| pair[found.part as usize].0.users(found.index as usize);
                        events(left) == events(right) && users(left) == users(right)
                    }
                    _ => false,
                };
            }
        });
        agrees
    }
}

impl std::fmt::Debug for GeoCounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let columns = &*self.0;
        let entry = |index| (columns.name(index), columns.events[index], columns.users(index));
        let mut entries: Vec<_> = (0..self.len()).map(entry).collect();
        entries.sort_by_key(|entry| entry.0);
        f.debug_list().entries(entries).finish()
    }
}

impl PartialEq for GeoCounts {
    fn eq(&self, other: &Self) -> bool {
        self.error_bound() == other.error_bound() && self.len() == other.len() && self.agrees(other)
    }
}

impl Eq for GeoCounts {}
