//! Summaries: events, users by dimension, means and campaigns of spans of hours, from which reports are answered.
//!
//! ```text
//! writer ──Delta, one per transaction──▶ summary_deltas ──fold──▶ summaries, level 0 (hours) ──refresh──▶ levels 1 to 8
//! reader ◀── the widest summaries that cover the range, and the deltas that are not folded yet ─────────────┘
//! ```
//!
//! A delta is inserted in the transaction of its rows, and deleted in the transaction that folds it: rows, summaries
//! and deltas agree in every snapshot. A summary without a body is *stale*: its children, or at level 0 its rows, are
//! read instead, until it is refreshed.
//!
//! - Content: [`summary`], its [`builder`], [`dimension`], [`geo_counts`], [`campaign_revenue`]; stored by
//!   [`encoding`], and read by [`stored`], with the formats of [`earlier`] versions.
//! - Writing: [`delta`] of [`hour_input`], [`fold`], [`refresh`], [`table`], [`damaged`].
//! - Reading: [`read`] through the [`cache`], with [`block_plan`] and [`unfolded`] for deltas; a [`view`] is what a
//!   report gets, an [`audience`] what it shows. [`span`] covers ranges, [`rows`] sums up rows.

mod audience;
mod block_plan;
mod builder;
mod cache;
mod campaign_revenue;
mod damaged;
mod delta;
mod dimension;
mod earlier;
mod encoding;
mod fold;
mod geo_counts;
mod hour_input;
mod read;
mod refresh;
mod rows;
mod span;
mod stored;
#[expect(clippy::module_inception, reason = "the file of the type Summary")]
mod summary;
mod table;
mod unfolded;
mod view;

use std::collections::HashMap;

pub use audience::Audience;
pub(super) use cache::SummaryCache;
pub(super) use campaign_revenue::CampaignRevenue;
pub(super) use damaged::COUNT_DAMAGED;
pub use damaged::DamagedDelta;
pub(super) use delta::{Delta, Summarized};
pub use dimension::{AGE_BOUNDS, Dimension, FOLLOWER_BOUNDS, Sum};
pub(super) use encoding::Encoded;
pub(super) use fold::fold_all;
pub(super) use hour_input::EventInput;
pub(super) use span::to_i32;
pub(super) use view::{Sections, SummaryView};

/// A map for lookups per event or per city. Its hash is fast and randomly seeded; colliding keys would slow down one
/// batch, whose groups are few thousands.
pub(super) type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;
