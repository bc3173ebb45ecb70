//! What a source's hours add up to: users by group, means, campaigns.
//!
//! ```text
//! writer ──Delta, one a transaction──▶ summary_deltas ──fold──▶ summaries, level 0 (hours) ──refresh──▶ levels 1 to 8
//! reader ◀── the widest summaries that cover the range, and the deltas that were not folded yet ──────────┘
//! ```
//!
//! A delta is written in the transaction of its rows, and leaves in the transaction that folds it, so that
//! rows, summaries and deltas agree in every snapshot. [`block`] is how a reader keeps many deltas few. [`seen`] is what a delta holds, [`body`] what a summary
//! holds, [`group`] by what users are grouped and [`places`] where they are, [`users`] how they are counted, [`span`]
//! how a range is covered by few of them, [`audience`] what a report is told.

mod audience;
mod block;
mod body;
mod damaged;
mod delta;
mod dimension;
mod fold;
mod places;
mod read;
mod seen;
mod span;

pub use audience::Audience;
pub(super) use damaged::COUNT as COUNT_DAMAGED;
pub use damaged::DamagedDelta;
pub(super) use delta::{CampaignRevenue, Delta};
pub use dimension::{AGE_BOUNDS, Dimension, FOLLOWER_BOUNDS, Sum};
pub(super) use fold::fold_all;
pub(super) use read::{Asked, Reading, SummaryCache};

use std::collections::HashMap;

use crate::store::error::StoreError;

/// A map for what is looked up once an event, or once a place of a report. Its hash is quick, and seeded by
/// chance; whoever finds keys that meet all the same slows down one batch, whose groups are few thousands.
pub(super) type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// Encodes what rests in a `body` column: a version, and so many bytes, about.
fn encode<T: serde::Serialize>(value: &T, version: u8, size: usize) -> Result<Vec<u8>, StoreError> {
    let mut body = Vec::with_capacity(size);
    body.push(version);
    postcard::to_extend(value, body)
        .map_err(|error| StoreError::unavailable(format!("a summary was not encoded: {error}")))
}

/// A version that no program writes.
const BEYOND: u8 = 64;

/// Decodes a `body` column of a version.
fn decode<'b, T: serde::Deserialize<'b>>(body: &'b [u8], version: u8) -> Result<T, StoreError> {
    match body.split_first() {
        Some((known, rest)) if *known == version => postcard::from_bytes(rest)
            .map_err(|error| StoreError::corrupt(format!("a summary is not readable: {error}"))),
        Some((0 | BEYOND.., _)) => Err(StoreError::corrupt("a summary has no version")),
        Some((version, _)) => Err(StoreError::schema(format!(
            "a summary has version {version}, which this program does not know"
        ))),
        None => Err(StoreError::corrupt("a summary is empty")),
    }
}
