//! A deserializer that does not stop at the first error.
//!
//! The deserializer reads the same typed structs as serde_json, from raw values that are cut out before. A field that is
//! missing, repeated or malformed becomes an error at its own path, and reading goes on; keys that a struct does not
//! declare are kept as they were sent.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt::{self, Write};

use serde::de::value::MapDeserializer;
use serde::de::{self, Deserialize, Deserializer, IntoDeserializer, MapAccess, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::value::RawValue;

use super::bounded::{Bounded, json_bytes};
use super::field_error::FieldError;
use super::scalar::NUL;
use super::walk::{BytesVisitor, Kind, Text, Walk};

/// Name by which serde_json recognises raw values.
const RAW_VALUE: &str = "$serde_json::private::RawValue";

/// Message for a key that its object has already.
const TWICE: &str = "comes twice";

/// Maximum errors of one event; one more says that there are others.
const MAX_ERRORS: usize = 100;

/// Maximum bytes of the errors of one event, as JSON.
const MAX_ERROR_BYTES: usize = 8 * 1_024;

/// Bytes of an error as JSON, without its path and message.
const FRAME_BYTES: usize = r#"{"path":"","message":""},"#.len();

/// Maximum bytes of a path, as JSON. Paths of the contract have at most 40.
const MAX_PATH: usize = 256;

/// Maximum depth of unknown values: PostgreSQL limits the depth of JSON by its stack.
const MAX_DEPTH: usize = 64;

/// Maximum bytes of a message, as JSON.
const MAX_MESSAGE: usize = 512;

/// Reads a field; `None` if it is malformed. The lenient deserializer notes the error; after any other deserializer the
/// thorough pass that follows finds it.
pub(crate) fn leaf<'de, D: Deserializer<'de>, T: Deserialize<'de>>(de: D) -> Result<Option<T>, D::Error> {
    Ok(T::deserialize(de).ok())
}

/// Unknown keys of one object, with the object's path.
pub(crate) type Unknown<'a> = (Vec<String>, Vec<(Cow<'a, str>, &'a RawValue)>);

/// Findings of a lenient reading, beside the values.
#[derive(Default)]
pub(crate) struct Notes<'a> {
    pub errors: Vec<FieldError>,
    /// Bytes of `errors` as JSON.
    bytes: usize,
    /// True if there are more errors than were noted.
    pub truncated: bool,
    /// Keys that no struct declares, with their values.
    pub unknown: Vec<Unknown<'a>>,
}

impl Notes<'_> {
    /// Notes an error. Beyond the bounds an error is not formatted.
    pub fn error(&mut self, path: impl fmt::Display, message: impl fmt::Display) {
        if self.truncated {
            return;
        }
        if self.errors.len() < MAX_ERRORS {
            let (path, mut message) = (bounded(path, MAX_PATH), bounded(message, MAX_MESSAGE));
            if let Some(at) = message.rfind(" at line ") {
                message.truncate(at);
            }
            let bytes = FRAME_BYTES + json_bytes(&path) + json_bytes(&message);
            if self.bytes + bytes <= MAX_ERROR_BYTES {
                self.bytes += bytes;
                return self.errors.push(FieldError { path, message });
            }
        }
        self.truncated = true;
        let message = format!("has more errors than these {}", self.errors.len());
        self.errors.push(FieldError { path: String::new(), message });
    }
}

/// Formats a value up to a bound, at which formatting stops.
fn bounded(value: impl fmt::Display, most: usize) -> String {
    let mut text = Bounded::new(most);
    // The error only says that the bound was reached.
    let _ = write!(text, "{value}");
    text.text
}

/// Path of a value in the event, as a list from the value up to the root.
#[derive(Clone, Copy)]
pub(crate) struct Path<'p> {
    above: Option<&'p Path<'p>>,
    segment: Segment<'p>,
    depth: usize,
}

#[derive(Clone, Copy)]
enum Segment<'p> {
    Key(&'p str),
    Index(usize),
}

impl<'p> Path<'p> {
    pub const ROOT: Path<'static> = Path { above: None, segment: Segment::Key(""), depth: 0 };

    pub fn join(&'p self, key: &'p str) -> Path<'p> {
        Path { above: Some(self), segment: Segment::Key(key), depth: self.depth + 1 }
    }

    fn item(&'p self, index: usize) -> Path<'p> {
        Path { above: Some(self), segment: Segment::Index(index), depth: self.depth + 1 }
    }

    fn segments(&self) -> Vec<String> {
        let Some(above) = self.above else { return Vec::new() };
        let mut segments = above.segments();
        segments.push(match self.segment {
            Segment::Key(key) => key.to_owned(),
            Segment::Index(index) => index.to_string(),
        });
        segments
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(above) = self.above else { return Ok(()) };
        fmt::Display::fmt(above, f)?;
        if above.above.is_some() {
            f.write_str(".")?;
        }
        match self.segment {
            Segment::Key(key) => f.write_str(key),
            Segment::Index(index) => fmt::Display::fmt(&index, f),
        }
    }
}

/// The lenient deserializer of one value.
pub(crate) struct Lenient<'de, 'n> {
    pub raw: &'de RawValue,
    pub path: Path<'n>,
    pub notes: &'n RefCell<Notes<'de>>,
}

impl<'de> Lenient<'de, '_> {
    fn note<T>(&self, result: Result<T, serde_json::Error>) -> Result<T, serde_json::Error> {
        result.inspect_err(|error| self.notes.borrow_mut().error(self.path, error))
    }
}

impl<'de> Deserializer<'de> for Lenient<'de, '_> {
    type Error = serde_json::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        // `-0` is an integer by RFC 8259; serde_json reads it as a float.
        if self.raw.get() == "-0" {
            return self.note(visitor.visit_i64(0));
        }
        self.note(self.raw.deserialize_any(visitor))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        match self.raw.get() {
            "null" => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        if name == RAW_VALUE {
            return self.note(self.raw.deserialize_newtype_struct(name, visitor));
        }
        self.note(visitor.visit_newtype_struct(self.raw))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        let Some(entries) = entries(self.raw) else {
            return self.note(Err(de::Error::custom("must be an object")));
        };
        let mut known: Vec<(&'static str, &'de RawValue)> = Vec::with_capacity(fields.len());
        let (mut unknown, mut names) = (Vec::new(), HashSet::<Cow<'de, str>>::new());
        let mut notes = self.notes.borrow_mut();
        for (key, value) in entries {
            let Ok(key) = key else {
                notes.error(self.path, "has a key that is no Unicode text");
                continue;
            };
            let path = self.path.join(&key);
            match fields.iter().find(|field| **field == key) {
                Some(field) if known.iter().any(|(name, _)| name == field) => notes.error(path, TWICE),
                Some(field) => known.push((field, value)),
                None if !names.insert(key.clone()) => notes.error(path, TWICE),
                None => {
                    inspect(&mut Walk::new(value), path, &mut notes);
                    unknown.push((key, value));
                }
            }
        }
        for field in fields {
            if !known.iter().any(|(name, _)| name == field) {
                notes.error(self.path.join(field), "is missing");
            }
        }
        if !unknown.is_empty() {
            notes.unknown.push((self.path.segments(), unknown));
        }
        drop(notes);
        let (path, notes) = (&self.path, self.notes);
        let values = known.into_iter().map(|(field, raw)| (field, Field { raw, field, above: path, notes }));
        visitor.visit_map(MapDeserializer::new(values))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
        unit unit_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// A field of a struct, not read yet.
struct Field<'de, 'n> {
    raw: &'de RawValue,
    field: &'static str,
    above: &'n Path<'n>,
    notes: &'n RefCell<Notes<'de>>,
}

impl<'de, 'n> IntoDeserializer<'de, serde_json::Error> for Field<'de, 'n> {
    type Deserializer = Lenient<'de, 'n>;
    fn into_deserializer(self) -> Lenient<'de, 'n> {
        Lenient { raw: self.raw, path: self.above.join(self.field), notes: self.notes }
    }
}

/// The entries of an object in their order, repeated keys included; `None` if the value is no object.
fn entries(raw: &RawValue) -> Option<Vec<(Text<'_>, &RawValue)>> {
    struct Entries;
    impl<'de> Visitor<'de> for Entries {
        type Value = Vec<(Text<'de>, &'de RawValue)>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut entries = Vec::new();
            while let Some((Bytes(key), value)) = map.next_entry()? {
                let key = match key {
                    Cow::Borrowed(key) => std::str::from_utf8(key).map(Cow::Borrowed).map_err(drop),
                    Cow::Owned(key) => String::from_utf8(key).map(Cow::Owned).map_err(drop),
                };
                entries.push((key, value));
            }
            Ok(entries)
        }
    }
    raw.deserialize_map(Entries).ok()
}

/// Bytes of a JSON string; lone surrogates are not valid UTF-8 in them.
struct Bytes<'a>(Cow<'a, [u8]>);

impl<'de: 'a, 'a> Deserialize<'de> for Bytes<'a> {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        de.deserialize_bytes(BytesVisitor).map(Bytes)
    }
}

/// Notes an error for each part of an unknown value that the store cannot keep. Stops once no more errors are noted.
fn inspect(walk: &mut Walk<'_>, path: Path<'_>, notes: &mut Notes<'_>) {
    if notes.truncated {
        return;
    }
    if matches!(path.segment, Segment::Key(key) if key.contains('\0')) {
        notes.error(path, NUL);
    }
    if path.depth > MAX_DEPTH {
        notes.error(path, format_args!("nests deeper than {MAX_DEPTH} levels"));
        walk.value();
        return;
    }
    match walk.kind() {
        Kind::Text => match walk.string() {
            Ok(text) if text.contains('\0') => notes.error(path, NUL),
            Ok(_) => {}
            Err(()) => notes.error(path, "has a lone surrogate"),
        },
        Kind::Object => {
            walk.enter();
            let mut seen = HashSet::new();
            while walk.more() && !notes.truncated {
                let Ok(key) = walk.key() else {
                    notes.error(path, "has a key that is no Unicode text");
                    walk.value();
                    continue;
                };
                let below = path.join(&key);
                if seen.contains(&key) {
                    notes.error(below, TWICE);
                    walk.value();
                    continue;
                }
                inspect(walk, below, notes);
                seen.insert(key);
            }
        }
        Kind::Array => {
            walk.enter();
            let mut index = 0;
            while walk.more() && !notes.truncated {
                inspect(walk, path.item(index), notes);
                index += 1;
            }
        }
        Kind::Scalar => drop(walk.value()),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// A path that counts how often it is formatted, and its pieces that are written.
    struct Counted<'c> {
        formats: &'c Cell<usize>,
        pieces: &'c Cell<usize>,
    }

    impl fmt::Display for Counted<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.formats.set(self.formats.get() + 1);
            for _ in 0..10_000 {
                f.write_str("key.")?;
                self.pieces.set(self.pieces.get() + 1);
            }
            Ok(())
        }
    }

    #[test]
    fn errors_beyond_the_bounds_are_not_formatted_and_long_paths_only_up_to_theirs() {
        let (formats, pieces) = (Cell::new(0), Cell::new(0));
        let mut notes = Notes::default();
        for _ in 0..20_000 {
            notes.error(Counted { formats: &formats, pieces: &pieces }, "is wrong");
        }
        assert!(notes.truncated && notes.errors.len() > 10, "{}", notes.errors.len());
        // One error was formatted and then exceeded the bound; the last error of the list says that there are more.
        assert_eq!(formats.get(), notes.errors.len());
        assert!(pieces.get() <= formats.get() * MAX_PATH / 4, "{} pieces", pieces.get());
    }
}
