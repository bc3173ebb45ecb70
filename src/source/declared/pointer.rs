//! JSON Pointers (RFC 6901) and dotted paths.

use std::fmt;

use super::value::{Members, Value};

/// A JSON Pointer into an event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pointer(Vec<String>);

impl Pointer {
    /// Reads a pointer, the empty one for the whole; the error says what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        if text.is_empty() {
            return Ok(Self(Vec::new()));
        }
        let Some(rest) = text.strip_prefix('/') else {
            return Err("it begins with /, as in /user/id");
        };
        rest.split('/').map(unescaped).collect::<Result<_, _>>().map(Self)
    }

    /// The value at the pointer.
    pub(super) fn find<'v>(&self, value: &'v Value) -> Option<&'v Value> {
        self.0.iter().try_fold(value, |value, part| child(value, part))
    }

    /// The value at the pointer, also within a string: `parse` reads the JSON that it holds.
    pub(super) fn find_through(&self, value: &Value, parse: impl Fn(&str) -> Option<Value>) -> Option<Value> {
        let mut found = value.clone();
        for part in &self.0 {
            if let Some(text) = found.as_str() {
                found = parse(text)?;
            }
            found = child(&found, part)?.clone();
        }
        Some(found)
    }

    /// The pointer to a member or an item of the value at this one.
    pub(super) fn child(&self, part: &str) -> Self {
        Self(self.0.iter().cloned().chain([part.to_owned()]).collect())
    }

    /// Puts a value at the pointer, in objects that are made where there are none. False if something else is on the way.
    pub(super) fn put(&self, value: &mut Value, new: Value) -> bool {
        fn inner(value: &Value, parts: &[String], new: Value) -> Option<Value> {
            let Some((part, rest)) = parts.split_first() else { return Some(new) };
            let mut members = match value {
                Value::Object(object) => object.members.clone(),
                Value::Null => Members::new(),
                _ => return None,
            };
            let below = inner(members.get(part.as_str()).unwrap_or(&Value::Null), rest, new)?;
            members.insert(part.as_str().into(), below);
            Some(Value::object(members))
        }
        let changed = inner(value, &self.0, new);
        let is_put = changed.is_some();
        *value = changed.unwrap_or_else(|| value.clone());
        is_put
    }

    /// Removes the value at the pointer; true if there was one.
    pub(super) fn remove(&self, value: &mut Value) -> bool {
        self.replace(value, |_| None)
    }

    /// Replaces the value at the pointer by what `change` makes of it, or removes it; true if there was one.
    pub(super) fn replace(&self, value: &mut Value, change: impl FnOnce(&Value) -> Option<Value>) -> bool {
        self.replace_at(value, false, change)
    }

    /// As [`replace`](Self::replace); a text on the way, which can hold the value as JSON, is changed whole.
    pub(super) fn replace_through(
        &self,
        value: &mut Value,
        change: impl FnOnce(&Value) -> Option<Value>,
    ) -> bool {
        self.replace_at(value, true, change)
    }

    fn replace_at(
        &self,
        value: &mut Value,
        through: bool,
        change: impl FnOnce(&Value) -> Option<Value>,
    ) -> bool {
        fn inner(
            value: &Value,
            parts: &[String],
            through: bool,
            change: impl FnOnce(&Value) -> Option<Value>,
        ) -> Option<Option<Value>> {
            let Some((part, rest)) = parts.split_first() else { return Some(change(value)) };
            if through && matches!(value, Value::Text(_)) {
                return Some(change(value));
            }
            let changed = inner(child(value, part)?, rest, through, change)?;
            match value {
                Value::Object(object) => {
                    let mut members = object.members.clone();
                    match changed {
                        Some(changed) => members.insert(part.as_str().into(), changed),
                        None => members.remove(part.as_str()),
                    };
                    Some(Some(Value::object(members)))
                }
                Value::Array(array) => {
                    let (mut items, index) = (array.items.clone(), part.parse::<usize>().ok()?);
                    match changed {
                        Some(changed) => items[index] = changed,
                        None => drop(items.remove(index)),
                    }
                    Some(Some(Value::array(items)))
                }
                _ => None,
            }
        }
        match inner(value, &self.0, through, change) {
            Some(changed) => {
                *value = changed.unwrap_or_default();
                true
            }
            None => false,
        }
    }
}

/// A member by its key, or an item by its index without a leading zero.
fn child<'v>(value: &'v Value, part: &str) -> Option<&'v Value> {
    match value {
        Value::Object(object) => object.members.get(part),
        Value::Array(array) => {
            let plain =
                part == "0" || (!part.starts_with('0') && part.bytes().all(|byte| byte.is_ascii_digit()));
            array.items.get(part.parse::<usize>().ok().filter(|_| plain)?)
        }
        _ => None,
    }
}

fn unescaped(part: &str) -> Result<String, &'static str> {
    let mut text = String::with_capacity(part.len());
    let mut chars = part.chars();
    while let Some(char) = chars.next() {
        match char {
            '~' => match chars.next() {
                Some('0') => text.push('~'),
                Some('1') => text.push('/'),
                _ => return Err("~ is followed by 0 (for ~) or 1 (for /)"),
            },
            char => text.push(char),
        }
    }
    Ok(text)
}

impl fmt::Display for Pointer {
    /// The dotted path, as errors of the built-in sources have it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("."))
    }
}

/// The dotted path of a JSON Pointer's text.
pub(super) fn dotted(pointer: &str) -> String {
    match Pointer::parse(pointer) {
        Ok(pointer) => pointer.to_string(),
        Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::json::parse;
    use super::*;

    #[test]
    fn pointers_find_members_and_items() {
        let value = parse(br#"{"a":[{"b/c":1},{"~":2}],"":3}"#).unwrap();
        for (pointer, found) in [
            ("/a/0/b~1c", Some("1")),
            ("/a/1/~0", Some("2")),
            ("/", Some("3")),
            ("/a/2", None),
            ("/a/00", None),
            ("/a/x", None),
            ("/b/0", None),
        ] {
            let found_here = Pointer::parse(pointer).unwrap().find(&value).map(Value::to_json);
            assert_eq!(found_here.as_deref(), found, "{pointer}");
        }
        assert_eq!(Pointer::parse("").map(|whole| whole.find(&value).is_some()), Ok(true));
        for wrong in ["a", "/~", "/~2", "$.a"] {
            assert!(Pointer::parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(dotted("/a/0/b~1c"), "a.0.b/c");
    }

    #[test]
    fn a_value_is_put_into_objects_that_are_made_for_it() {
        let mut value = parse(br#"{"a":{"b":1}}"#).unwrap();
        assert!(Pointer::parse("/a/b").unwrap().put(&mut value, Value::Int(2)));
        assert!(Pointer::parse("/c/d").unwrap().put(&mut value, Value::Int(3)));
        assert!(!Pointer::parse("/a/b/c").unwrap().put(&mut value, Value::Int(4)));
        assert_eq!(value.to_json(), r#"{"a":{"b":2},"c":{"d":3}}"#);
    }

    #[test]
    fn a_value_is_removed_where_it_stands() {
        let mut value = parse(br#"{"a":[{"b":1,"c":2},3]}"#).unwrap();
        assert!(Pointer::parse("/a/0/b").unwrap().remove(&mut value));
        assert!(Pointer::parse("/a/1").unwrap().remove(&mut value));
        assert!(!Pointer::parse("/x/y").unwrap().remove(&mut value));
        assert_eq!(value.to_json(), r#"{"a":[{"c":2}]}"#);
    }
}
