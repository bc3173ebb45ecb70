//! Registers as pairs of index and value, for sets that have few registers above zero.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes of an index, and of an index with its value.
const INDEX_BYTES: usize = 2;
const ENTRY_BYTES: usize = INDEX_BYTES + 1;

/// Indices and values of registers.
///
/// In memory all indices (little endian) come first, and as many values behind them: read from two arrays, registers
/// are raised without a branch, which takes half the time on random values. Stored, each value follows its index.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SparseRegisters(Box<[u8]>);

impl SparseRegisters {
    pub(super) fn new(entries: &[(u16, u8)]) -> Self {
        let indices = entries.iter().flat_map(|(index, _)| index.to_le_bytes());
        Self(indices.chain(entries.iter().map(|(_, value)| *value)).collect())
    }

    /// Indices and their values.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u16, u8)> {
        let (indices, values) = self.0.split_at(self.0.len() / ENTRY_BYTES * INDEX_BYTES);
        let indices = indices.as_chunks::<INDEX_BYTES>().0.iter().map(|index| u16::from_le_bytes(*index));
        indices.zip(values.iter().copied())
    }

    /// The bytes in memory.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Serialize for SparseRegisters {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let entry = |(index, value): (u16, u8)| {
            let [low, high] = index.to_le_bytes();
            [low, high, value]
        };
        to.serialize_bytes(&self.iter().flat_map(entry).collect::<Vec<u8>>())
    }
}

impl<'de> Deserialize<'de> for SparseRegisters {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let bytes: &[u8] = Deserialize::deserialize(from)?;
        let (entries, rest) = bytes.as_chunks::<ENTRY_BYTES>();
        if !rest.is_empty() {
            return Err(serde::de::Error::custom("sparse registers are 3 bytes each"));
        }
        let indices = entries.iter().flat_map(|[low, high, _]| [*low, *high]);
        Ok(Self(indices.chain(entries.iter().map(|[.., value]| *value)).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_is_stored_behind_its_index() {
        let registers = SparseRegisters::new(&[(0x0102, 3), (0x7fff, 60)]);
        let body = postcard::to_stdvec(&registers).unwrap();
        assert_eq!(body, [6, 2, 1, 3, 0xff, 0x7f, 60]);
        assert_eq!(postcard::from_bytes::<SparseRegisters>(&body).unwrap(), registers);
        assert!(postcard::from_bytes::<SparseRegisters>(&body[..6]).is_err(), "the body is cut");
        assert!(postcard::from_bytes::<SparseRegisters>(&[5, 2, 1, 3, 0xff, 0x7f]).is_err(), "half an entry");
    }
}
