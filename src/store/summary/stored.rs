//! Reading stored summaries of any version.

use super::earlier::{SummaryV2, V1, V2};
use super::encoding::{Encoded, assign_currencies, decode};
use super::summary::{SEVERAL_CURRENCIES, Summary, VERSION};
use crate::store::error::StoreError;

impl Summary {
    /// Decodes a stored summary.
    pub(super) fn decode(stored: &Encoded) -> Result<Self, StoreError> {
        let body = &stored.body;
        let mut summary = match body.first() {
            Some(&version @ (V1 | V2)) => decode::<SummaryV2>(body, version)?.upgrade()?,
            Some(&SEVERAL_CURRENCIES) => {
                let (mut summary, list): (Self, Vec<i16>) = decode(body, SEVERAL_CURRENCIES)?;
                assign_currencies(summary.currencies_mut(), list)?;
                return summary.validate();
            }
            _ => decode::<Self>(body, VERSION)?.validate()?,
        };
        summary.currencies_mut().for_each(|currency| *currency = stored.currency);
        Ok(summary)
    }
}
