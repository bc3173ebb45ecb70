//! A deserializer that does not stop at the first error.
//!
//! It reads the same typed shapes as serde_json does, but from values that are cut out before:
//! a field that is missing, comes twice or has the wrong form is noted at its own path, reading
//! goes on, and keys that a shape does not know are kept as they were sent.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;

use serde::de::value::MapDeserializer;
use serde::de::{self, Deserialize, Deserializer, IntoDeserializer, MapAccess, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::value::RawValue;

use super::field_error::FieldError;
use super::scalar::NUL;

/// The name under which serde_json hands out raw values.
const RAW_VALUE: &str = "$serde_json::private::RawValue";

/// Errors of one event that are noted; a last one says that there are more.
const MAX_ERRORS: usize = 100;

/// The longest path that is reported, in bytes.
const MAX_PATH: usize = 1_024;

/// How deep unknown values may nest; PostgreSQL's own JSON reader has a limit of its own.
const MAX_DEPTH: usize = 64;

/// The longest reason that is reported, in bytes.
const MAX_MESSAGE: usize = 512;

/// Reads a field, or leaves it empty: what was wrong is noted by the deserializer, or found by the
/// second look that follows an empty field.
pub(super) fn leaf<'de, D: Deserializer<'de>, T: Deserialize<'de>>(de: D) -> Result<Option<T>, D::Error> {
    Ok(T::deserialize(de).ok())
}

/// What a lenient reading found beside the values.
#[derive(Default)]
pub(super) struct Notes<'a> {
    pub errors: Vec<FieldError>,
    /// Keys that no shape knows, with their paths from the event's root.
    pub unknown: Vec<(Vec<String>, &'a RawValue)>,
}

impl Notes<'_> {
    fn error(&mut self, mut path: String, message: impl fmt::Display) {
        match self.errors.len() {
            ..MAX_ERRORS => {}
            MAX_ERRORS => {
                let message = format!("has more than {MAX_ERRORS} errors");
                return self.errors.push(FieldError { path: String::new(), message });
            }
            _ => return,
        }
        cut(&mut path, MAX_PATH);
        let mut message = message.to_string();
        if let Some(at) = message.rfind(" at line ") {
            message.truncate(at);
        }
        cut(&mut message, MAX_MESSAGE);
        self.errors.push(FieldError { path, message });
    }
}

/// Shortens a text to so many bytes at most.
fn cut(text: &mut String, most: usize) {
    if text.len() > most {
        let end = (0..=most).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        text.truncate(end);
    }
}

/// A place in the event, from the root down.
#[derive(Clone, Copy)]
pub(super) struct Path<'p> {
    above: Option<&'p Path<'p>>,
    segment: &'p str,
}

impl<'p> Path<'p> {
    pub const ROOT: Path<'static> = Path { above: None, segment: "" };

    pub fn join(&'p self, segment: &'p str) -> Path<'p> {
        Path { above: Some(self), segment }
    }

    fn segments(&self) -> Vec<String> {
        let mut segments = self.above.map(Path::segments).unwrap_or_default();
        if self.above.is_some() {
            segments.push(self.segment.to_owned());
        }
        segments
    }

    fn depth(&self) -> usize {
        self.above.map_or(0, |above| above.depth() + 1)
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.segments().join("."))
    }
}

/// The lenient deserializer of one value.
pub(super) struct Lenient<'de, 'n> {
    pub raw: &'de RawValue,
    pub path: Path<'n>,
    pub notes: &'n RefCell<Notes<'de>>,
}

impl<'de> Lenient<'de, '_> {
    fn note<T>(&self, result: Result<T, serde_json::Error>) -> Result<T, serde_json::Error> {
        result.inspect_err(|error| self.notes.borrow_mut().error(self.path.to_string(), error))
    }
}

impl<'de> Deserializer<'de> for Lenient<'de, '_> {
    type Error = serde_json::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
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
        let mut unknown: HashSet<&str> = HashSet::new();
        for (key, value) in &entries {
            let Ok(key) = key else {
                self.notes.borrow_mut().error(self.path.to_string(), "has a key that is no Unicode text");
                continue;
            };
            let path = self.path.join(key);
            match fields.iter().find(|field| *field == key) {
                Some(field) if known.iter().any(|(name, _)| name == field) => {
                    self.notes.borrow_mut().error(path.to_string(), "comes twice");
                }
                Some(field) => known.push((field, value)),
                None if !unknown.insert(key) => {
                    self.notes.borrow_mut().error(path.to_string(), "comes twice");
                }
                None => {
                    inspect(value, path, &mut self.notes.borrow_mut());
                    self.notes.borrow_mut().unknown.push((path.segments(), value));
                }
            }
        }
        for field in fields {
            if !known.iter().any(|(name, _)| name == field) {
                self.notes.borrow_mut().error(self.path.join(field).to_string(), "is missing");
            }
        }
        let (path, notes) = (&self.path, self.notes);
        let values = known.into_iter().map(|(field, raw)| (field, Field { raw, field, above: path, notes }));
        visitor.visit_map(MapDeserializer::new(values))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
        unit unit_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// A field of a shape that waits to be read.
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

/// A key of an object: text, or bytes that are no Unicode text (a lone surrogate).
type Key = Result<String, ()>;

/// The entries of an object in their order, keys that come twice included; `None` if it is none.
pub(super) fn entries(raw: &RawValue) -> Option<Vec<(Key, &RawValue)>> {
    struct Entries;
    impl<'de> Visitor<'de> for Entries {
        type Value = Vec<(Key, &'de RawValue)>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut entries = Vec::new();
            while let Some((Bytes(key), value)) = map.next_entry()? {
                entries.push((String::from_utf8(key).map_err(drop), value));
            }
            Ok(entries)
        }
    }
    raw.deserialize_map(Entries).ok()
}

/// A JSON string's bytes, lone surrogates in a form that is no UTF-8.
pub(super) struct Bytes(pub Vec<u8>);

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        de.deserialize_bytes(BytesVisitor).map(Bytes)
    }
}

/// Finds in an unknown value what the store could not keep.
fn inspect(raw: &RawValue, path: Path<'_>, notes: &mut Notes<'_>) {
    if path.segment.contains('\0') {
        notes.error(path.to_string(), NUL);
    }
    if path.depth() > MAX_DEPTH {
        notes.error(path.to_string(), format_args!("nests deeper than {MAX_DEPTH} levels"));
        return;
    }
    match raw.get().as_bytes().first() {
        Some(b'"') => match raw.deserialize_bytes(BytesVisitor) {
            Ok(bytes) if bytes.contains(&0) => notes.error(path.to_string(), NUL),
            Ok(bytes) if std::str::from_utf8(&bytes).is_err() => {
                notes.error(path.to_string(), "has a lone surrogate");
            }
            Ok(_) => {}
            Err(error) => notes.error(path.to_string(), error),
        },
        Some(b'{') => {
            let entries = entries(raw).unwrap_or_default();
            let mut seen = HashSet::with_capacity(entries.len());
            for (key, value) in &entries {
                match key {
                    Err(()) => notes.error(path.to_string(), "has a key that is no Unicode text"),
                    Ok(key) if !seen.insert(key) => notes.error(path.join(key).to_string(), "comes twice"),
                    Ok(key) => inspect(value, path.join(key), notes),
                }
            }
        }
        Some(b'[') => {
            let items: Vec<&RawValue> = serde_json::from_str(raw.get()).unwrap_or_default();
            for (index, item) in items.into_iter().enumerate() {
                inspect(item, path.join(&index.to_string()), notes);
            }
        }
        _ => {}
    }
}

struct BytesVisitor;

impl Visitor<'_> for BytesVisitor {
    type Value = Vec<u8>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }
    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
        Ok(bytes.to_vec())
    }
    fn visit_str<E: de::Error>(self, text: &str) -> Result<Vec<u8>, E> {
        Ok(text.as_bytes().to_vec())
    }
}
