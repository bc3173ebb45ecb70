//! Paths of declared sources: challenges, and events by POST or in the query of a GET.
//!
//! ```text
//! request ─▶ challenge: answered, also while the gateway drains
//!         ─▶ head: draining, token or secret, type
//!         ─▶ body: read, verified as it is on the wire, decompressed
//!         ─▶ ingest ─Convert─▶ convert.N: filter, schema, map ─▶ canonical events and dead letters
//! ```

mod convert;
mod incoming;
pub(super) mod paths;

pub(super) use self::convert::{Convert, Converter};
pub(super) use self::incoming::Incoming;
