//! Registers of 4 bits, as the HLL4 of DataSketches has them: offsets from the lowest register.

use serde::{Deserialize, Serialize};

use super::sparse::SparseRegisters;
use super::{ALLOCATION, REGISTERS};

/// Largest offset that 4 bits hold.
pub(super) const MAX_OFFSET: u8 = 15;

/// Dense registers, 4 bits each, as offsets from `lowest`; larger offsets are in `overflow`.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Dense4 {
    /// Value of the lowest register.
    pub(super) lowest: u8,
    /// Offsets: those of the first half of the registers are the low 4 bits of each byte, those of the second half the
    /// high 4 bits.
    #[serde(with = "serde_bytes")]
    offsets: Vec<u8>,
    /// Registers whose offset is above [`MAX_OFFSET`], with their whole value. There are few.
    pub(super) overflow: SparseRegisters,
}

impl Dense4 {
    /// Packs registers. `overflow` has those that are more than [`MAX_OFFSET`] above `lowest`.
    pub(super) fn pack(values: &[u8; REGISTERS], lowest: u8, overflow: SparseRegisters) -> Self {
        let offset = |value: u8| (value - lowest).min(MAX_OFFSET);
        let (first, second) = values.split_at(REGISTERS / 2);
        let offsets = first.iter().zip(second).map(|(first, second)| offset(*first) | offset(*second) << 4);
        Self { lowest, offsets: offsets.collect(), overflow }
    }

    /// Raises registers to the values of this set, but for its overflow.
    pub(super) fn raise_all(&self, values: &mut [u8; REGISTERS]) {
        let (first, second) = values.split_at_mut(REGISTERS / 2);
        for ((first, second), offsets) in first.iter_mut().zip(second).zip(self.offsets.iter()) {
            *first = (*first).max(self.lowest.wrapping_add(offsets & MAX_OFFSET));
            *second = (*second).max(self.lowest.wrapping_add(offsets >> 4));
        }
    }

    /// False if the decoded bytes were corrupt.
    pub(super) fn is_valid(&self) -> bool {
        self.offsets.len() == REGISTERS / 2
    }

    /// The offsets as bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.offsets
    }

    /// Approximate bytes on the heap.
    pub(super) fn heap_size(&self) -> usize {
        self.offsets.len() + self.overflow.bytes().len() + size_of::<Self>() + 3 * ALLOCATION
    }
}
