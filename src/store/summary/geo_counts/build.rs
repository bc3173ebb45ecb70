//! Building counts by location: of distinct locations, and of parts.

use std::ops::Range;
use std::sync::Arc;

use super::{BYTES_MAX, Columns, GeoCounts, LOCATIONS_MAX, Name, name_hash};
use crate::sketch::{UserHash, UserSet, UserSetBuilder};

/// Parts, and their bytes, that a [`GeoCountsMerger`] collects before it merges them.
const PARTS_MAX: usize = 1_024;
const PARTS_BYTES_MAX: usize = 8 * BYTES_MAX;

/// Counts of locations that are added in any order, each once.
#[derive(Default)]
pub(in crate::store::summary) struct GeoCountsBuilder {
    records: Vec<u8>,
    /// Hash of the name, events, and the record's range.
    locations: Vec<(u64, u64, Range<usize>)>,
}

/// Appends a text as postcard encodes it: its length as a variable-length integer, then its bytes.
fn push_text(records: &mut Vec<u8>, text: &str) {
    let mut length = text.len();
    while length > 0x7f {
        records.push(length as u8 | 0x80);
        length >>= 7;
    }
    records.push(length as u8);
    records.extend_from_slice(text.as_bytes());
}

impl GeoCountsBuilder {
    /// Adds a location.
    pub(in crate::store::summary) fn add(&mut self, (country, city): Name<'_>, events: u64, users: &UserSet) {
        let begin = self.records.len();
        push_text(&mut self.records, country);
        push_text(&mut self.records, city);
        let hash = name_hash(&self.records[begin..]);
        users.encode(&mut self.records);
        self.locations.push((hash, events, begin..self.records.len()));
    }

    /// Adds a location by the user of each of its events, in any order.
    pub(in crate::store::summary) fn add_users(&mut self, name: Name<'_>, users: &mut Vec<UserHash>) {
        let events = users.len() as u64;
        let mut set = UserSetBuilder::default();
        set.add_hashes(users);
        self.add(name, events, &set.finish());
    }

    pub(in crate::store::summary) fn finish(mut self) -> GeoCounts {
        self.locations.sort_unstable_by_key(|location| location.0);
        let mut columns = Columns::default();
        columns.reserve(self.locations.len(), self.records.len());
        for (hash, events, record) in self.locations {
            columns.push(hash, events, &self.records[record]);
        }
        GeoCounts(Arc::new(columns))
    }
}

/// Sum of counts, within the bound on the number of locations.
#[derive(Clone, Default)]
pub(in crate::store::summary) struct GeoCountsMerger {
    parts: Vec<GeoCounts>,
    bytes: usize,
}

impl GeoCountsMerger {
    pub(in crate::store::summary) fn add(&mut self, part: &GeoCounts) {
        if part.len() == 0 && part.error_bound() == 0 {
            return;
        }
        self.bytes += part.size();
        self.parts.push(part.clone());
        if self.parts.len() >= PARTS_MAX || self.bytes > PARTS_BYTES_MAX {
            let merged = self.merge();
            self.bytes = merged.size();
            self.parts = vec![merged];
        }
    }

    fn merge(&mut self) -> GeoCounts {
        let merged = GeoCounts::merge(&std::mem::take(&mut self.parts));
        GeoCounts(match Arc::try_unwrap(merged.0) {
            Ok(columns) => Arc::new(columns.bounded()),
            Err(shared) if shared.len() <= LOCATIONS_MAX && shared.records.len() <= BYTES_MAX => shared,
            Err(shared) => Arc::new((*shared).clone().bounded()),
        })
    }

    pub(in crate::store::summary) fn finish(mut self) -> GeoCounts {
        self.merge()
    }
}
