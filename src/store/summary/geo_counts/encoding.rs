//! Stored format of counts by location. Hashes are computed again on reading, which also checks the names.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Columns, GeoCounts, name_hash, split_record, to_u32};
use crate::sketch::UserSet;

/// Columns as they are stored. The order of the fields is part of the format.
#[derive(Serialize, Deserialize)]
struct StoredColumns<'c> {
    error_bound: u64,
    events: Vec<u32>,
    lengths: Vec<u32>,
    #[serde(borrow, with = "serde_bytes")]
    records: &'c [u8],
}

impl Serialize for GeoCounts {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Columns { events, ends, records, error_bound, .. } = &*self.0;
        let begins = std::iter::once(&0).chain(ends);
        let lengths = ends.iter().zip(begins).map(|(end, begin)| end - begin).collect();
        StoredColumns { error_bound: *error_bound, events: events.clone(), lengths, records }.serialize(to)
    }
}

impl<'de> Deserialize<'de> for GeoCounts {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let StoredColumns { error_bound, events, lengths, records } = Deserialize::deserialize(from)?;
        let corrupt = || serde::de::Error::custom("counts by location are corrupt");
        if events.len() != lengths.len() {
            return Err(corrupt());
        }
        let mut hashes = Vec::with_capacity(lengths.len());
        let mut ends = lengths;
        let mut begin = 0_usize;
        for end in &mut ends {
            let length = *end as usize;
            let record =
                begin.checked_add(length).and_then(|end| records.get(begin..end)).ok_or_else(corrupt)?;
            let (_, users) = split_record(record).ok_or_else(corrupt)?;
            let hash = name_hash(&record[..length - users.len()]);
            // Hashes that do not ascend are those of other names than were written.
            if !UserSet::is_encoded_in(users) || hashes.last().is_some_and(|last| *last >= hash) {
                return Err(corrupt());
            }
            hashes.push(hash);
            begin += length;
            *end = to_u32(begin);
        }
        if begin != records.len() {
            return Err(corrupt());
        }
        Ok(Self(Arc::new(Columns { hashes, events, ends, records: records.to_vec(), error_bound })))
    }
}

#[cfg(test)]
mod tests {
    use super::super::top::tests::random_parts;
    use super::*;

    #[test]
    fn corrupt_counts_are_refused() {
        let (parts, _) = random_parts(1, 20);
        let body = postcard::to_stdvec(&parts[0]).unwrap();
        assert_eq!(postcard::from_bytes::<GeoCounts>(&body).unwrap(), parts[0]);
        for cut in 1..body.len() {
            assert!(postcard::from_bytes::<GeoCounts>(&body[..cut]).is_err(), "{cut} of {}", body.len());
        }
        // A flipped bit in a name changes its hash: the order of the hashes shows it in most cases.
        let mut refused = 0;
        for index in 0..body.len() {
            let mut other = body.clone();
            other[index] ^= 0x15;
            refused += usize::from(postcard::from_bytes::<GeoCounts>(&other).is_err());
        }
        assert!(refused > body.len() / 4, "{refused} of {}", body.len());
    }
}
