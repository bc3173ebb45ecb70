//! Registers as places and values: so they are kept while few of them are not zero.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes of a place and of a value.
const PLACE: usize = 2;
const ENTRY: usize = PLACE + 1;

/// Places and values. At rest each value follows its place; here all places (little endian) come first and as many
/// values behind them. Read from two arrays, registers are raised without a branch, which on values of chance costs
/// as much again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entries(Box<[u8]>);

impl Entries {
    /// Those of places and their values.
    pub fn of(entries: &[(u16, u8)]) -> Self {
        let places = entries.iter().flat_map(|(place, _)| place.to_le_bytes());
        Self(places.chain(entries.iter().map(|(_, value)| *value)).collect())
    }

    /// Places and their values.
    pub fn iter(&self) -> impl Iterator<Item = (u16, u8)> {
        let (places, values) = self.0.split_at(self.0.len() / ENTRY * PLACE);
        let places = places.as_chunks::<PLACE>().0.iter().map(|place| u16::from_le_bytes(*place));
        places.zip(values.iter().copied())
    }

    /// As they are kept.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Bytes that they take.
    pub fn size(&self) -> usize {
        self.0.len()
    }
}

impl Serialize for Entries {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let rest = |(place, value): (u16, u8)| {
            let [low, high] = place.to_le_bytes();
            [low, high, value]
        };
        to.serialize_bytes(&self.iter().flat_map(rest).collect::<Vec<u8>>())
    }
}

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let bytes: &[u8] = Deserialize::deserialize(from)?;
        let (entries, rest) = bytes.as_chunks::<ENTRY>();
        if !rest.is_empty() {
            return Err(serde::de::Error::custom("registers are 3 bytes each"));
        }
        let places = entries.iter().flat_map(|[low, high, _]| [*low, *high]);
        Ok(Self(places.chain(entries.iter().map(|[.., value]| *value)).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_follow_their_places_at_rest() {
        let entries = Entries::of(&[(0x0102, 3), (0x7fff, 60)]);
        let body = postcard::to_stdvec(&entries).unwrap();
        assert_eq!(body, [6, 2, 1, 3, 0xff, 0x7f, 60]);
        assert_eq!(postcard::from_bytes::<Entries>(&body).unwrap(), entries);
        assert!(postcard::from_bytes::<Entries>(&body[..6]).is_err());
        assert!(postcard::from_bytes::<Entries>(&[5, 2, 1, 3, 0xff, 0x7f]).is_err(), "half an entry");
    }
}
