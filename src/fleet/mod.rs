//! The processes of a system as they tell of themselves, and samples of events as they are validated.
//!
//! ```text
//! gateway, collector, reporter ──Status──▶ bus ──▶ reporter: board ──▶ /fleet, /live
//! gateway                      ◀──lease, while somebody looks──
//!                              ──Sample, up to 20 a second──▶
//! ```
//!
//! A [`Bus`](crate::log::Bus) carries these messages: plain subjects of NATS between processes, a channel within one.
//! Nothing depends on it: a message that is lost is followed by the next one, and no promise about events needs any of
//! them.

mod board;
mod latency;
mod restart;
mod sample;
mod status;

pub use board::{Board, Flow, KnownInstance, SourceFlow};
pub use latency::Latency;
pub use restart::{Restart, obey};
pub use sample::{Lease, Outcome, Sample, SampleError, SampleFilter, Sampling};
pub use status::{Counters, Instance, Service, Status, tell};
