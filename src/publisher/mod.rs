//! The load generator: events as the real publisher makes them, sent as it sends them, and events of declared sources.

mod examples;
mod feed;
pub mod generate;
mod send;
mod tally;

pub use examples::{Examples, ExamplesError};
pub use feed::Feed;
pub use send::{Pace, Plan, PublishError, publish};
pub use tally::Tally;
