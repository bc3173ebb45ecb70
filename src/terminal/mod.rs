//! The live system in a terminal: `ess top`, `ess tail`, and the demo's line of figures.
//!
//! ```text
//! reporter: /live ──feed──▶ follow ──┐
//!           /fleet, /ledger ──▶ poll ┴──updates──▶ model ──▶ screen (top) | lines (tail) | one line (demo)
//! ```
//!
//! All three are clients of a reporter's URL. Buffers are bounded: one message of the feed, 64 updates that wait, the
//! figures of the last 10 s. Text of events and of other processes passes [`text::printable`] before it is shown, so that
//! a terminal never obeys it.

mod feed;
mod follow;
mod model;
mod reporter;
pub mod status_line;
pub mod tail;
pub mod text;
pub mod top;

pub use feed::FeedMessage;
pub use follow::{Update, Watching, watch};
pub use reporter::{Reporter, ReporterError};
