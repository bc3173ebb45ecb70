//! Reading stored summaries of any version.

use super::earlier::{SummaryV2, V1, V2};
use super::encoding::decode;
use super::summary::{Summary, VERSION};
use crate::store::error::StoreError;

impl Summary {
    /// Decodes a `body` column.
    pub(super) fn decode(body: &[u8]) -> Result<Self, StoreError> {
        match body.first() {
            Some(&version @ (V1 | V2)) => decode::<SummaryV2>(body, version)?.upgrade(),
            _ => decode::<Self>(body, VERSION)?.validate(),
        }
    }
}
