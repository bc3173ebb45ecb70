//! Events: validation by the contract of their source.
//!
//! ```text
//! bytes ──decode──▶ Event { id, time, source, type, columns, rest }
//!              └──▶ Refusal { every error at its own path }
//! ```
//!
//! [`decode()`] validates one event by itself. A valid event takes one typed pass that borrows from the bytes; all others
//! take a second pass that reads field by field, to find every error or to keep the keys that the contract does not
//! know. [`Redactor`] takes personal data out of an event's bytes. The contract itself is declared by each source
//! ([`source`](crate::source)).

mod canonical;
mod decode;
mod envelope;
#[allow(clippy::module_inception, reason = "the room is named after its main type")]
mod event;
mod redact;
mod refusal;
mod rest;

pub use canonical::decode_canonical;
pub use decode::decode;
pub use event::{Event, event_key};
pub use redact::{Redactor, names_user};
pub use refusal::Refusal;

pub use crate::json::FieldError;
pub use crate::json::scalar::{
    Instant, MICROS_PER_MINUTE, MICROS_PER_UNIT, Money, NANOS_PER_ONE, Number, format_micros,
    parse_point_in_time,
};
pub use crate::source::{
    BySource, Code, Columns, EventType, FunnelStage, MAX_EVENT_BYTES, Source, SourceMap, all_codes, has_name,
    name_of_code,
};
