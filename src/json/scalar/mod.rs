//! The scalar values of the contract: text, integers, instants, money and plain numbers.
//!
//! Each type reads itself from JSON and exists only if its form is right; ranges and lengths are declared with garde
//! beside the field.

mod instant;
mod money;
mod number;
mod text;

use std::fmt;

use serde::de::{Deserializer, Error, Visitor};

pub(crate) use instant::END_OF_2199;
pub use instant::{Instant, MICROS_PER_MINUTE, format_micros, parse_point_in_time};
pub use money::{MICROS_PER_UNIT, Money};
pub use number::{Integer, NANOS_PER_ONE, Number};
pub(crate) use text::NUL;
pub use text::Text;

/// Reads a value that is written as a JSON string.
fn from_text<'de, D: Deserializer<'de>, T>(
    de: D,
    expected: &'static str,
    parse: fn(&str) -> Result<T, &'static str>,
) -> Result<T, D::Error> {
    struct Visit<T>(&'static str, fn(&str) -> Result<T, &'static str>);
    impl<T> Visitor<'_> for Visit<T> {
        type Value = T;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
        fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
            (self.1)(text).map_err(E::custom)
        }
    }
    de.deserialize_str(Visit(expected, parse))
}
