//! The load generator: events as the real publisher makes them, sent as it sends them.

pub mod generate;
mod send;
mod tally;

pub use send::{Pace, Plan, publish};
pub use tally::Tally;
