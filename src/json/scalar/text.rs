//! Strings that the store can keep.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// A string without NUL, borrowed from the event's bytes where it holds no escapes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text<'a>(pub Cow<'a, str>);

/// Why a string that holds U+0000 is refused.
pub(crate) const NUL: &str = "must not contain U+0000";

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        struct Visit;
        fn checked<E: Error>(text: Cow<'_, str>) -> Result<Text<'_>, E> {
            match memchr::memchr(0, text.as_bytes()) {
                None => Ok(Text(text)),
                Some(_) => Err(E::custom(NUL)),
            }
        }
        impl<'de> Visitor<'de> for Visit {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Text<'de>, E> {
                checked(Cow::Borrowed(text))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Text<'de>, E> {
                checked(Cow::Owned(text.to_owned()))
            }
        }
        de.deserialize_str(Visit)
    }
}

impl garde::rules::length::chars::HasChars for Text<'_> {
    fn num_chars(&self) -> usize {
        self.0.chars().count()
    }
}

impl std::ops::Deref for Text<'_> {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}
