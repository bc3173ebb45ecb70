//! A walk through JSON that is known to be well formed: one pass, each byte once, however deep it nests.

use std::borrow::Cow;
use std::fmt;

use serde::Deserializer;
use serde::de::{self, Visitor};
use serde_json::value::RawValue;

/// A JSON string: text, or bytes that are no Unicode text (a lone surrogate).
pub(crate) type Text<'a> = Result<Cow<'a, str>, ()>;

/// Kinds of JSON value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Object,
    Array,
    Text,
    /// A number, true, false or null.
    Scalar,
}

#[cfg(test)]
thread_local! {
    /// Number of times that walks of this thread looked at a byte: the measure of their cost.
    static LOOKS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Number of looks that `work` takes.
#[cfg(test)]
pub(crate) fn count_looks(work: impl FnOnce()) -> usize {
    let before = LOOKS.get();
    work();
    LOOKS.get() - before
}

/// A position in a JSON text.
#[derive(Clone)]
pub(crate) struct Walk<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Walk<'a> {
    pub fn new(raw: &'a RawValue) -> Self {
        Self { text: raw.get(), at: 0 }
    }

    /// The next byte that is no space.
    fn peek(&mut self) -> Option<u8> {
        #[cfg(test)]
        LOOKS.set(LOOKS.get() + 1);
        let bytes = self.text.as_bytes();
        while matches!(bytes.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
        bytes.get(self.at).copied()
    }

    /// The kind of the next value.
    pub fn kind(&mut self) -> Kind {
        match self.peek() {
            Some(b'{') => Kind::Object,
            Some(b'[') => Kind::Array,
            Some(b'"') => Kind::Text,
            _ => Kind::Scalar,
        }
    }

    /// Enters the object or array that comes next.
    pub fn enter(&mut self) {
        if matches!(self.peek(), Some(b'{' | b'[')) {
            self.at += 1;
        }
    }

    /// True if the object or array has another entry; its end is passed.
    pub fn more(&mut self) -> bool {
        match self.peek() {
            Some(b',') => self.at += 1,
            Some(b'}' | b']') => {
                self.at += 1;
                return false;
            }
            Some(_) => {}
            None => return false,
        }
        true
    }

    /// Passes an object's key and its colon.
    pub fn key(&mut self) -> Text<'a> {
        let key = self.string();
        if self.peek() == Some(b':') {
            self.at += 1;
        }
        key
    }

    /// Passes the string that comes next.
    pub fn string(&mut self) -> Text<'a> {
        self.peek();
        let from = self.at;
        let escaped = self.pass_string();
        let quoted = self.text.get(from..self.at).unwrap_or_default();
        if !escaped {
            let inner = quoted.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
            return Ok(Cow::Borrowed(inner.unwrap_or_default()));
        }
        let bytes = serde_json::Deserializer::from_str(quoted).deserialize_bytes(BytesVisitor);
        let bytes = bytes.map(Cow::into_owned).map_err(drop)?;
        String::from_utf8(bytes).map(Cow::Owned).map_err(drop)
    }

    /// Passes a string; true if it holds an escape.
    fn pass_string(&mut self) -> bool {
        let bytes = self.text.as_bytes();
        let mut escaped = false;
        self.at += 1;
        while let Some(next) = bytes.get(self.at..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) {
            self.at += next;
            if bytes[self.at] == b'"' {
                self.at += 1;
                return escaped;
            }
            escaped = true;
            self.at += 2;
        }
        self.at = bytes.len();
        escaped
    }

    /// Passes the next value whole; gives its text.
    pub fn value(&mut self) -> &'a str {
        self.peek();
        let (bytes, from) = (self.text.as_bytes(), self.at);
        let mut depth = 0_usize;
        while let Some(byte) = self.peek() {
            match byte {
                b'"' => drop(self.pass_string()),
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                }
                b'}' | b']' => {
                    depth = depth.saturating_sub(1);
                    self.at += 1;
                }
                b',' | b':' => self.at += 1,
                _ => {
                    let ends = |byte: &u8| matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r');
                    self.at += bytes[self.at..].iter().take_while(|byte| !ends(byte)).count();
                }
            }
            if depth == 0 {
                break;
            }
        }
        self.text.get(from..self.at).unwrap_or_default()
    }

    /// Goes to the value of an object's key, the first of this name; false if there is none.
    pub fn seek(&mut self, key: &str) -> bool {
        if self.kind() != Kind::Object {
            return false;
        }
        self.enter();
        while self.more() {
            if self.key().as_deref() == Ok(key) {
                return true;
            }
            self.value();
        }
        false
    }
}

/// Reads the bytes of a string, borrowed if it has no escapes.
pub(crate) struct BytesVisitor;

impl<'de> Visitor<'de> for BytesVisitor {
    type Value = Cow<'de, [u8]>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }
    fn visit_borrowed_bytes<E: de::Error>(self, bytes: &'de [u8]) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(bytes))
    }
    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
        Ok(Cow::Owned(bytes.to_vec()))
    }
    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.as_bytes().to_vec()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    /// The value as the walk sees it.
    fn read(walk: &mut Walk<'_>) -> Value {
        match walk.kind() {
            Kind::Object => {
                walk.enter();
                let mut object = serde_json::Map::new();
                while walk.more() {
                    let key = walk.key().unwrap().into_owned();
                    object.insert(key, read(walk));
                }
                object.into()
            }
            Kind::Array => {
                walk.enter();
                let mut items = Vec::new();
                while walk.more() {
                    items.push(read(walk));
                }
                items.into()
            }
            Kind::Text => walk.string().unwrap().into(),
            Kind::Scalar => serde_json::from_str(walk.value()).unwrap(),
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[a\"\\\\\\x00-\\x1fé😀{}\\[\\],: ]{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 40, 6, |inner| {
            let key = "[a\"\\\\\\x01é]{0,3}";
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                proptest::collection::btree_map(key, inner, 0..5)
                    .prop_map(|entries| entries.into_iter().collect::<serde_json::Map<_, _>>().into()),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_walk_sees_what_serde_json_reads(value in any_json(), pretty in any::<bool>()) {
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
            let raw = RawValue::from_string(text.unwrap()).unwrap();
            prop_assert_eq!(read(&mut Walk::new(&raw)), value);
            prop_assert_eq!(Walk::new(&raw).value(), raw.get());
        }
    }

    #[test]
    fn a_key_is_found_however_it_is_written_and_a_lone_surrogate_is_no_text() {
        let raw =
            RawValue::from_string(r#" {"a":{"b":"}"},"\u0062" : [1, 2] ,"c":"\ud800"} "#.to_owned()).unwrap();
        let mut walk = Walk::new(&raw);
        assert!(walk.seek("b"));
        assert_eq!(read(&mut walk), json!([1, 2]));
        let mut walk = Walk::new(&raw);
        assert!(walk.seek("c"));
        assert_eq!(walk.string(), Err(()));
        assert!(!Walk::new(&raw).seek("d"));
    }
}
