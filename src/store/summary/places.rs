//! Users by place, for very many places: countries, or cities.
//!
//! A span can have as many cities as events, so they are kept in columns, ascending by the hash of their names.
//! Several of them are merged partition by partition of the hashes, each small enough for the CPU's caches:
//! some nanoseconds a place, where a map of names would take a hundred.
//!
//! All places are kept up to [`MOST`] of them, or [`MOST_BYTES`]. Beyond that those with the most events stay,
//! and `missing` bounds the events of any other: the same as the error of Space-Saving (Metwally et al., 2005).

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::sketch::{GrowingUsers, UserHash, Users};

/// Places that are kept, all of them.
const MOST: usize = 1 << 18;
/// Bytes of names and users that are kept, of all of them.
const MOST_BYTES: usize = 64 << 20;
/// Places that stay of more than [`MOST`]: the next ones have room.
const STAY: usize = 1 << 14;
/// Bytes that stay of more than [`MOST_BYTES`].
const STAY_BYTES: usize = 32 << 20;
/// Places of one partition, on average.
const PARTITION: usize = 2_048;
/// Parts that are merged at a time while a summary grows.
const PARTS: usize = 1_024;
/// Bytes that an allocation takes beside what was asked for, about.
const ALLOCATION: usize = 16;

/// Country and city; the city is empty where places are countries.
pub type Name<'p> = (&'p str, &'p str);

/// Events and users by place. Clones share it.
#[derive(Clone, Default)]
pub struct Places(Arc<Columns>);

#[derive(Clone, Default)]
struct Columns {
    /// Hash of each name, ascending. Two names of one hash would be one place: at 2^18 places there is one chance
    /// in 10^8 for that.
    hashes: Vec<u64>,
    /// Events of each; 2^32 - 1 stands for more as well.
    events: Vec<u32>,
    /// End of each record.
    ends: Vec<u32>,
    /// Of each place country, city and users.
    records: Vec<u8>,
    /// The most events that a place may have had that are not counted here.
    missing: u64,
}

/// The columns in a summary's body.
#[derive(Serialize, Deserialize)]
struct AtRest<'c> {
    missing: u64,
    events: Vec<u32>,
    lengths: Vec<u32>,
    #[serde(borrow, with = "serde_bytes")]
    records: &'c [u8],
}

/// A place of one of several parts.
#[derive(Clone, Copy)]
struct Found {
    hash: u64,
    part: u32,
    at: u32,
}

/// A place by its rank: the most events first, and of equals the one whose name comes first.
#[derive(PartialEq, Eq, PartialOrd, Ord, Clone, Copy)]
struct Ranked<'p> {
    events: u64,
    name: Reverse<Name<'p>>,
    hash: u64,
}

/// The first places of several parts, by users.
#[derive(Debug, Default)]
pub struct First<N> {
    /// Names and users, the most users first, equals by name.
    pub places: Vec<(N, u64)>,
    /// True if there are others.
    pub truncated: bool,
    /// The most users that a place may have beyond what is told of it, or without being told; 0 if all is exact.
    pub missing: u64,
}

fn put_text(records: &mut Vec<u8>, text: &str) {
    let mut left = text.len();
    while left > 0x7f {
        records.push(left as u8 | 0x80);
        left >>= 7;
    }
    records.push(left as u8);
    records.extend_from_slice(text.as_bytes());
}

/// A record's name, and the users behind it.
fn split(record: &[u8]) -> Option<(Name<'_>, &[u8])> {
    postcard::take_from_bytes(record).ok()
}

fn hash(name: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(name)
}

fn small(number: usize) -> u32 {
    // Records are bounded by far less than 4 GiB, and places as well.
    u32::try_from(number).unwrap_or(u32::MAX)
}

impl Columns {
    fn len(&self) -> usize {
        self.hashes.len()
    }

    fn record(&self, at: usize) -> &[u8] {
        let end = |at: usize| self.ends.get(at).map_or(0, |end| *end as usize);
        let begin = at.checked_sub(1).map_or(0, end);
        self.records.get(begin..end(at)).unwrap_or_default()
    }

    fn name(&self, at: usize) -> Name<'_> {
        split(self.record(at)).map_or(("", ""), |(name, _)| name)
    }

    fn users(&self, at: usize) -> Users {
        split(self.record(at)).and_then(|(_, users)| Users::read(users)).unwrap_or_default()
    }

    fn reserve(&mut self, places: usize, bytes: usize) {
        self.hashes.reserve_exact(places);
        self.events.reserve_exact(places);
        self.ends.reserve_exact(places);
        self.records.reserve_exact(bytes);
    }

    fn push(&mut self, hash: u64, events: u64, record: &[u8]) {
        self.hashes.push(hash);
        self.events.push(u32::try_from(events).unwrap_or(u32::MAX));
        self.records.extend_from_slice(record);
        self.ends.push(small(self.records.len()));
    }

    /// The same with the places that have the most events alone, if these are too many.
    fn bounded(self) -> Self {
        if self.len() <= MOST && self.records.len() <= MOST_BYTES {
            return self;
        }
        let mut order: Vec<usize> = (0..self.len()).collect();
        order.sort_unstable_by_key(|at| (Reverse(self.events[*at]), self.hashes[*at]));
        let mut bytes = 0;
        let stay = order.iter().take(STAY).take_while(|at| {
            bytes += self.record(**at).len();
            bytes <= STAY_BYTES
        });
        let stay = stay.count();
        let cut = order.get(stay).map_or(0, |at| u64::from(self.events[*at]));
        order.truncate(stay);
        order.sort_unstable();
        let mut bounded = Self { missing: self.missing.saturating_add(cut), ..Self::default() };
        bounded.reserve(stay, bytes.min(STAY_BYTES));
        for at in order {
            bounded.push(self.hashes[at], self.events[at].into(), self.record(at));
        }
        bounded
    }
}

/// Gives all places of some parts, a partition of the hashes at a time.
fn partitions(parts: &[Places], mut give: impl FnMut(&mut Vec<Found>)) {
    let total: usize = parts.iter().map(Places::len).sum();
    let bits = (total / PARTITION).max(1).ilog2();
    let partition_of = |hash: u64| if bits == 0 { 0 } else { hash >> (64 - bits) };
    let mut next = vec![0_usize; parts.len()];
    let mut found = Vec::with_capacity(2 * PARTITION);
    for partition in 0..1_u64 << bits {
        found.clear();
        for ((part, places), next) in (0..).zip(parts).zip(&mut next) {
            let hashes = &places.0.hashes[*next..];
            let of_partition = hashes.iter().take_while(|hash| partition_of(**hash) <= partition);
            let begin = found.len();
            found.extend((small(*next)..).zip(of_partition).map(|(at, hash)| Found {
                hash: *hash,
                part,
                at,
            }));
            *next += found.len() - begin;
        }
        give(&mut found);
    }
}

impl Places {
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Bytes that they take in memory.
    pub fn size(&self) -> usize {
        size_of::<Columns>() + self.len() * (8 + 4 + 4) + self.0.records.len() + 5 * ALLOCATION
    }

    /// The most events that a place may have had that are not counted here.
    pub fn missing(&self) -> u64 {
        self.0.missing
    }

    /// Events of all of them.
    pub fn events(&self) -> u64 {
        self.0.events.iter().map(|events| u64::from(*events)).sum()
    }

    fn events_of(&self, found: &Found) -> u64 {
        u64::from(self.0.events[found.at as usize])
    }

    /// The same, with so many more events missing.
    pub fn lacking(&self, events: u64) -> Self {
        let missing = self.0.missing.saturating_add(events);
        Self(Arc::new(Columns { missing, ..(*self.0).clone() }))
    }

    /// Puts parts together.
    pub fn merge(parts: &[Self]) -> Self {
        if let [one] = parts {
            return one.clone();
        }
        let mut merged = Columns { missing: parts.iter().map(Self::missing).sum(), ..Columns::default() };
        merged
            .reserve(parts.iter().map(Self::len).sum(), parts.iter().map(|part| part.0.records.len()).sum());
        partitions(parts, |found| {
            found.sort_unstable_by_key(|found| found.hash);
            for same in found.chunk_by(|left, right| left.hash == right.hash) {
                merged.push_same(parts, same);
            }
        });
        merged.hashes.shrink_to_fit();
        merged.events.shrink_to_fit();
        merged.ends.shrink_to_fit();
        merged.records.shrink_to_fit();
        Self(Arc::new(merged))
    }

    /// The first places of some parts, by users. A place has no more users than events, and those are simply
    /// added up: users are counted from the place with the most events down, until no other can be among the
    /// first.
    pub fn first(parts: &[Self], limit: usize) -> First<Name<'_>> {
        let missing = parts.iter().map(Self::missing).sum();
        let mut looked = (2 * limit).max(64);
        loop {
            let (ranked, distinct) = Self::rank(parts, looked);
            let mut places: Vec<(Name<'_>, u64)> = Vec::with_capacity(limit + 1);
            let mut over = ranked.len() == distinct;
            for Ranked { events, name: Reverse(name), hash } in ranked {
                // Whoever follows has fewer events, or another name behind.
                let beaten = |last: &(Name<'_>, u64)| last.1 > events || (last.1 == events && last.0 < name);
                if places.len() == limit && places.last().is_none_or(beaten) {
                    over = true;
                    break;
                }
                let sets: Vec<Users> = parts.iter().filter_map(|part| part.users_of(hash)).collect();
                let counted = (name, GrowingUsers::of(sets.iter()).among(events).0);
                let at = places.partition_point(|known| (counted.1, known.0) < (known.1, counted.0));
                places.insert(at, counted);
                places.truncate(limit);
            }
            if over {
                return First { truncated: distinct > limit || missing > 0, places, missing };
            }
            looked *= 4;
        }
    }

    /// So many places with the most events, those first, and how many places there are.
    fn rank(parts: &[Self], limit: usize) -> (Vec<Ranked<'_>>, usize) {
        let mut heap: BinaryHeap<Reverse<Ranked<'_>>> = BinaryHeap::with_capacity(limit + 1);
        let mut distinct = 0;
        let (mut sums, mut slots): (Vec<(Found, u64)>, Vec<u32>) = (Vec::new(), Vec::new());
        partitions(parts, |found| {
            let mask = (2 * found.len()).next_power_of_two() - 1;
            sums.clear();
            slots.clear();
            slots.resize(mask + 1, 0);
            for found in found.iter() {
                let events = parts[found.part as usize].events_of(found);
                let mut slot = found.hash as usize & mask;
                loop {
                    match slots[slot].checked_sub(1) {
                        None => {
                            sums.push((*found, events));
                            slots[slot] = small(sums.len());
                            break;
                        }
                        Some(known) if sums[known as usize].0.hash == found.hash => {
                            sums[known as usize].1 += events;
                            break;
                        }
                        Some(_) => slot = (slot + 1) & mask,
                    }
                }
            }
            distinct += sums.len();
            for (found, events) in &sums {
                let full = heap.len() == limit;
                if full && heap.peek().is_some_and(|Reverse(last)| *events < last.events) {
                    continue;
                }
                let name = parts[found.part as usize].0.name(found.at as usize);
                let ranked = Ranked { events: *events, name: Reverse(name), hash: found.hash };
                if full && heap.peek().is_some_and(|Reverse(last)| ranked < *last) {
                    continue;
                }
                heap.push(Reverse(ranked));
                if full {
                    heap.pop();
                }
            }
        });
        (heap.into_sorted_vec().into_iter().map(|Reverse(ranked)| ranked).collect(), distinct)
    }

    fn users_of(&self, hash: u64) -> Option<Users> {
        self.0.hashes.binary_search(&hash).ok().map(|at| self.0.users(at))
    }

    /// True if two can be of the same events: equal, but for what is missing.
    pub fn agrees(&self, other: &Self) -> bool {
        let missing = self.missing().max(other.missing());
        let mut same = true;
        partitions(&[self.clone(), other.clone()], |found| {
            found.sort_unstable_by_key(|found| (found.hash, found.part));
            for places in found.chunk_by(|left, right| left.hash == right.hash) {
                let pair = [self, other];
                let events = |found: &Found| pair[found.part as usize].events_of(found);
                same &= match places {
                    [one] => events(one) <= missing,
                    [left, right] if missing > 0 => events(left).abs_diff(events(right)) <= missing,
                    [left, right] => {
                        let users = |found: &Found| pair[found.part as usize].0.users(found.at as usize);
                        events(left) == events(right) && users(left) == users(right)
                    }
                    _ => false,
                };
            }
        });
        same
    }
}

impl Columns {
    /// Adds what some parts have of one place.
    fn push_same(&mut self, parts: &[Places], same: &[Found]) {
        let columns = |found: &Found| &*parts[found.part as usize].0;
        if let [one] = same {
            let (columns, at) = (columns(one), one.at as usize);
            self.push(one.hash, columns.events[at].into(), columns.record(at));
            return;
        }
        let events = same.iter().map(|found| parts[found.part as usize].events_of(found)).sum();
        let sets: Vec<Users> = same.iter().map(|found| columns(found).users(found.at as usize)).collect();
        let Some(first) = same.first() else { return };
        let record = columns(first).record(first.at as usize);
        let users = split(record).map_or(0, |(_, users)| users.len());
        let mut record = record[..record.len() - users].to_vec();
        GrowingUsers::of(sets.iter()).finish().write(&mut record);
        self.push(first.hash, events, &record);
    }
}

impl Serialize for Places {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Columns { events, ends, records, missing, .. } = &*self.0;
        let begins = std::iter::once(&0).chain(ends);
        let lengths = ends.iter().zip(begins).map(|(end, begin)| end - begin).collect();
        AtRest { missing: *missing, events: events.clone(), lengths, records }.serialize(to)
    }
}

impl<'de> Deserialize<'de> for Places {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let AtRest { missing, events, lengths, records } = Deserialize::deserialize(from)?;
        let damaged = || serde::de::Error::custom("places are not whole");
        if events.len() != lengths.len() {
            return Err(damaged());
        }
        let mut hashes = Vec::with_capacity(lengths.len());
        let mut ends = lengths;
        let mut begin = 0_usize;
        for end in &mut ends {
            let length = *end as usize;
            let record =
                begin.checked_add(length).and_then(|end| records.get(begin..end)).ok_or_else(damaged)?;
            let (_, users) = split(record).ok_or_else(damaged)?;
            let hash = hash(&record[..length - users.len()]);
            if !Users::is_whole_in(users) || hashes.last().is_some_and(|last| *last >= hash) {
                return Err(damaged());
            }
            hashes.push(hash);
            begin += length;
            *end = small(begin);
        }
        if begin != records.len() {
            return Err(damaged());
        }
        Ok(Self(Arc::new(Columns { hashes, events, ends, records: records.to_vec(), missing })))
    }
}

impl std::fmt::Debug for Places {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let columns = &*self.0;
        let mut places: Vec<_> =
            (0..self.len()).map(|at| (columns.name(at), columns.events[at], columns.users(at))).collect();
        places.sort_by_key(|place| place.0);
        f.debug_list().entries(places).finish()
    }
}

impl PartialEq for Places {
    fn eq(&self, other: &Self) -> bool {
        self.missing() == other.missing() && self.len() == other.len() && self.agrees(other)
    }
}

impl Eq for Places {}

/// Places that are listed one after another, each once.
#[derive(Default)]
pub(super) struct Listing {
    records: Vec<u8>,
    /// Hash, events, and where the record is.
    places: Vec<(u64, u64, std::ops::Range<usize>)>,
}

impl Listing {
    pub fn add(&mut self, (country, city): Name<'_>, events: u64, users: &Users) {
        let begin = self.records.len();
        put_text(&mut self.records, country);
        put_text(&mut self.records, city);
        let hash = hash(&self.records[begin..]);
        users.write(&mut self.records);
        self.places.push((hash, events, begin..self.records.len()));
    }

    /// Adds a place by the user of each event, in any order.
    pub fn add_marks(&mut self, name: Name<'_>, marks: &mut Vec<UserHash>) {
        let events = marks.len() as u64;
        let mut growing = GrowingUsers::default();
        growing.add_marks(marks);
        self.add(name, events, &growing.finish());
    }

    pub fn finish(mut self) -> Places {
        self.places.sort_unstable_by_key(|place| place.0);
        let mut columns = Columns::default();
        columns.reserve(self.places.len(), self.records.len());
        for (hash, events, record) in self.places {
            columns.push(hash, events, &self.records[record]);
        }
        Places(Arc::new(columns))
    }
}

/// Places that grow by parts.
#[derive(Clone, Default)]
pub(super) struct GrowingPlaces {
    parts: Vec<Places>,
    bytes: usize,
}

impl GrowingPlaces {
    pub fn add(&mut self, part: &Places) {
        if part.len() == 0 && part.missing() == 0 {
            return;
        }
        self.bytes += part.size();
        self.parts.push(part.clone());
        if self.parts.len() >= PARTS || self.bytes > 8 * MOST_BYTES {
            let merged = self.merged();
            self.bytes = merged.size();
            self.parts = vec![merged];
        }
    }

    fn merged(&mut self) -> Places {
        let merged = Places::merge(&std::mem::take(&mut self.parts));
        Places(match Arc::try_unwrap(merged.0) {
            Ok(columns) => Arc::new(columns.bounded()),
            Err(shared) if shared.len() <= MOST && shared.records.len() <= MOST_BYTES => shared,
            Err(shared) => Arc::new((*shared).clone().bounded()),
        })
    }

    /// Puts them together: all, or those with the most events if they are too many.
    pub fn finish(mut self) -> Places {
        self.merged()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    /// Parts of chance, and the users of each place.
    fn parts(count: u64, places: u64) -> (Vec<Places>, BTreeMap<String, BTreeSet<u64>>) {
        let mut truth: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
        let mut chance = count;
        let mut next = |below: u64| {
            chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (chance >> 33) % below
        };
        let parts = (0..count).map(|part| {
            let mut of_part: BTreeMap<String, Vec<u64>> = BTreeMap::new();
            for _ in 0..places {
                let name = format!("city {}", next(places) * next(places) / places);
                of_part.entry(name).or_default().push(next(1 + part % 3 * 1_000));
            }
            let mut listing = Listing::default();
            for (name, mut users) in of_part {
                truth.entry(name.clone()).or_default().extend(&users);
                listing.add_marks(("land", &name), &mut users);
            }
            listing.finish()
        });
        (parts.collect(), truth)
    }

    fn first(parts: &[Places], limit: usize) -> Vec<(String, u64)> {
        let first = Places::first(parts, limit);
        first.places.into_iter().map(|((_, city), users)| (city.to_owned(), users)).collect()
    }

    fn expected(truth: &BTreeMap<String, BTreeSet<u64>>, limit: usize) -> Vec<(String, u64)> {
        let mut all: Vec<_> = truth.iter().map(|(name, users)| (name.clone(), users.len() as u64)).collect();
        all.sort_by(|left, right| right.1.cmp(&left.1).then_with(|| left.0.cmp(&right.0)));
        all.truncate(limit);
        all
    }

    #[test]
    fn the_first_places_are_those_with_the_most_users_merged_or_not() {
        for (count, places) in [(1, 10), (7, 300), (40, 2_000)] {
            let (parts, truth) = parts(count, places);
            for limit in [1, 3, 50, 1_000] {
                assert_eq!(first(&parts, limit), expected(&truth, limit), "{count} parts");
                let (left, right) = parts.split_at(parts.len() / 2);
                let merged = [Places::merge(left), Places::merge(right)];
                assert_eq!(first(&merged, limit), expected(&truth, limit));
                let whole = Places::merge(&merged);
                let body = postcard::to_stdvec(&whole).unwrap();
                let read: Places = postcard::from_bytes(&body).unwrap();
                assert_eq!(first(std::slice::from_ref(&read), limit), expected(&truth, limit));
                assert!(read == whole && read.agrees(&Places::merge(&parts)));
            }
            let told = Places::first(&parts, truth.len());
            assert_eq!((told.truncated, told.missing), (false, 0));
            assert!(Places::first(&parts, truth.len() - 1).truncated);
        }
    }

    #[test]
    fn what_is_beyond_the_bound_is_missing_by_no_more_than_is_said() {
        let mut growing = GrowingPlaces::default();
        let mut truth = BTreeMap::new();
        for part in 0..5_u64 {
            let mut listing = Listing::default();
            for place in 0..90_000_u64 {
                // Some have many, most have one, and each part has others.
                let events = 1 + 200 / (place + 1);
                let name = if place < 1_000 { place } else { part * 1_000_000 + place };
                *truth.entry(name).or_insert(0) += events;
                listing.add_marks(
                    ("", &name.to_string()),
                    &mut (0..events).map(|user| part << 32 | user).collect(),
                );
            }
            growing.add(&listing.finish());
        }
        let bounded = growing.finish();
        assert_eq!((bounded.len(), bounded.missing()), (STAY, 1));
        let bounded = [bounded];
        let told = Places::first(&bounded, 50);
        assert_eq!((told.truncated, told.missing), (true, 1));
        let mut expected: Vec<u64> = truth.values().copied().collect();
        expected.sort_unstable_by_key(|users| Reverse(*users));
        for ((_, users), expected) in told.places.iter().zip(expected) {
            assert!(*users <= expected && users + told.missing >= expected, "{users} of {expected}");
        }
    }

    #[test]
    fn damaged_places_are_refused() {
        let (parts, _) = parts(1, 20);
        let body = postcard::to_stdvec(&parts[0]).unwrap();
        assert!(postcard::from_bytes::<Places>(&body).is_ok());
        for cut in 1..body.len() {
            assert!(postcard::from_bytes::<Places>(&body[..cut]).is_err(), "{cut} of {}", body.len());
        }
        // The name of a place is another one: the order tells so, or nothing does.
        let mut refused = 0;
        for at in 0..body.len() {
            let mut other = body.clone();
            other[at] ^= 0x15;
            refused += usize::from(postcard::from_bytes::<Places>(&other).is_err());
        }
        assert!(refused > body.len() / 4, "{refused} of {}", body.len());
    }
}
