//! Reading JSON in typed shapes, with every error at its own path.
//!
//! - [`scalar`]: the values of the contract (text, integers, instants, money, numbers), each read in its exact form.
//! - [`object`]: derived structs from JSON objects alone.
//! - [`lenient`]: a deserializer that goes on after an error and keeps unknown keys.
//! - [`walk`]: one pass over JSON that is known to be well formed.

mod bounded;
mod field_error;
pub(crate) mod lenient;
pub(crate) mod object;
pub(crate) mod scalar;
pub(crate) mod walk;

pub use field_error::FieldError;
