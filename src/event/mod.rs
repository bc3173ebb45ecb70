//! What an event is.
//!
//! ```text
//! bytes ──decode──▶ Event { id, time, source, stage, type, columns, rest }
//!              └──▶ Refusal { every error at its own path }
//! ```
//!
//! [`decode`] judges one event by itself. A good event takes one typed pass that borrows from the
//! bytes; whatever that pass does not take, a second look reads field by field, to find every
//! error or to keep the keys that the contract does not know. What a source's events look like is
//! known by that source's module alone ([`facebook`], [`tiktok`]); [`source`] registers them. [`redact`] takes
//! personal data out of an event's bytes.

mod bounded;
mod by_source;
mod columns;
mod decode;
mod facebook;
mod field_error;
mod lenient;
mod object;
mod reading;
mod redact;
mod refusal;
mod scalar;
mod source;
mod spec;
mod tiktok;
mod walk;
mod words;

pub use by_source::BySource;
pub use columns::Columns;
pub use decode::{Event, decode, event_key};
pub use field_error::FieldError;
pub use redact::{Redactor, names_user};
pub use refusal::Refusal;
pub use scalar::{
    Instant, MICROS_PER_MINUTE, MICROS_PER_UNIT, Money, NANOS_PER_ONE, Number, format_micros,
    parse_point_in_time,
};
pub use source::{Source, all_words, word_of};
pub use spec::{EventType, FunnelStage};
pub use words::Word;

/// The largest event, in bytes as sent: 256 KiB.
pub const MAX_EVENT_BYTES: usize = 256 * 1024;
