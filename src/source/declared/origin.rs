//! Origins of values: where a file says that they stand in an event, and what is found there.

use sha2::{Digest, Sha256};

use super::decimal::Decimal;
use super::json;
use super::pointer::Pointer;
use super::reader::{Faults, Fields, list, pointer, text};
use super::reason::MISSING;
use super::value::Value;
use super::yaml::{Kind, Node};
use crate::json::FieldError;

/// Origin of a value. Of several the first one that is there counts.
#[derive(Debug)]
pub(super) enum Origin {
    At(Pointer),
    Constant(Constant),
    /// SHA-256 of several values.
    Hash(Vec<Pointer>),
}

/// A constant of the file: a text, or the digits of a number.
#[derive(Debug)]
pub(super) struct Constant(String);

/// Errors of an event.
pub(super) struct Errors(pub Vec<FieldError>);

impl Errors {
    pub fn add(&mut self, path: String, message: impl Into<String>) {
        self.0.push(FieldError { path, message: message.into() });
    }

    pub fn missing<T>(&mut self, origins: &[Origin], name: &str) -> Option<T> {
        self.add(path_of(origins.iter().flat_map(Origin::pointers), name), MISSING);
        None
    }

    pub fn take<T>(&mut self, origins: &[Origin], result: Result<T, (Option<String>, String)>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err((path, message)) => {
                let path = path.unwrap_or_else(|| path_of(origins.iter().flat_map(Origin::pointers), ""));
                self.add(path, message);
                None
            }
        }
    }

    /// A text of at most so many characters, if it is there.
    pub fn optional(&mut self, origins: &[Origin], event: &Value, most: usize) -> Option<String> {
        let found = first(origins, event, is_there)?;
        self.take(origins, found.text(most))
    }
}

/// Path of errors of a value: of several pointers the first one that a platform sends; the names of a filter's own
/// members begin with an underscore.
pub(super) fn path_of<'p>(pointers: impl Iterator<Item = &'p Pointer>, name: &str) -> String {
    let paths: Vec<String> = pointers.map(Pointer::to_string).collect();
    let sent = paths.iter().find(|path| !path.starts_with('_'));
    sent.or(paths.first()).cloned().unwrap_or_else(|| name.to_owned())
}

/// A value that was found, with its pointer.
pub(super) struct Found<'o> {
    pub value: Value,
    at: Option<&'o Pointer>,
}

impl Found<'_> {
    pub fn wrong(&self, message: impl Into<String>) -> (Option<String>, String) {
        (self.at.map(Pointer::to_string), message.into())
    }

    /// A text, or a number's digits.
    pub fn text(&self, most: usize) -> Result<String, (Option<String>, String)> {
        let text = match &self.value {
            Value::Text(text) => text.to_string(),
            Value::Int(_) | Value::Float(_) | Value::Number(_) => self.value.to_json(),
            _ => return Err(self.wrong("must be a string or a number")),
        };
        // Bytes are no fewer than characters.
        if text.len() > most && text.chars().count() > most {
            return Err(self.wrong(format!("must have at most {most} characters")));
        }
        Ok(text)
    }

    /// A whole number in a range.
    pub fn integer(&self, most: i64) -> Result<i64, (Option<String>, String)> {
        let decimal = Decimal::read(&self.value).filter(|decimal| !decimal.is_negative);
        match decimal.and_then(|decimal| decimal.shifted(0)) {
            Some((number, true)) if number <= most => Ok(number),
            _ => Err(self.wrong(format!("must be a whole number from 0 to {most}"))),
        }
    }
}

impl Origin {
    pub fn pointers(&self) -> &[Pointer] {
        match self {
            Self::At(pointer) => std::slice::from_ref(pointer),
            Self::Hash(pointers) => pointers.as_slice(),
            Self::Constant(_) => &[],
        }
    }
}

/// The first value that is there.
pub(super) fn first<'o>(
    origins: &'o [Origin],
    event: &Value,
    counts: impl Fn(&Value) -> bool,
) -> Option<Found<'o>> {
    origins.iter().find_map(|origin| match origin {
        Origin::At(pointer) => {
            find(event, pointer).filter(&counts).map(|value| Found { value, at: Some(pointer) })
        }
        Origin::Constant(Constant(text)) if text.is_empty() => None,
        Origin::Constant(Constant(text)) => {
            Some(Found { value: Value::Text(text.as_str().into()), at: None })
        }
        Origin::Hash(pointers) => {
            hash(event, pointers).map(|hash| Found { value: Value::Text(hash.into()), at: None })
        }
    })
}

/// The value at a pointer, also within JSON in a string.
pub(super) fn find(event: &Value, pointer: &Pointer) -> Option<Value> {
    pointer.find_through(event, |text| json::parse(text.as_bytes()).ok())
}

/// Absent, null and "" all mean that nothing is told.
pub(super) fn is_there(value: &Value) -> bool {
    !matches!(value, Value::Null) && value.as_str() != Some("")
}

/// For campaigns and ads 0 and "0" mean the same.
pub(super) fn is_known(value: &Value) -> bool {
    is_there(value) && !matches!(value, Value::Int(0)) && value.as_str() != Some("0")
}

/// SHA-256 in hex of values, each behind its length in bytes, so that "ab", "c" is another than "a", "bc"; a number is
/// the string of its digits. `None` if none of them is there.
fn hash(event: &Value, pointers: &[Pointer]) -> Option<String> {
    let mut hash = Sha256::new();
    let mut is_any = false;
    for pointer in pointers {
        let text = match find(event, pointer).filter(is_there) {
            None => String::new(),
            Some(Value::Text(text)) => text.to_string(),
            Some(other) => other.to_json(),
        };
        is_any |= !text.is_empty();
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text.as_bytes());
    }
    is_any.then(|| hex::encode(hash.finalize()))
}

/// Origins of a value: a pointer, a constant, a hash, or a list of these.
pub(super) fn origins(node: &Node, faults: &mut Faults<'_>) -> Option<Vec<Origin>> {
    match &node.kind {
        Kind::Sequence(items) if items.is_empty() => {
            faults.expected(node, "a pointer or a list with at least one");
            None
        }
        Kind::Sequence(items) => {
            let read: Vec<_> = items.iter().map(|item| origin(item, faults)).collect();
            read.into_iter().collect()
        }
        _ => Some(vec![origin(node, faults)?]),
    }
}

fn origin(node: &Node, faults: &mut Faults<'_>) -> Option<Origin> {
    if !matches!(node.kind, Kind::Mapping(_)) {
        return pointer(node, faults).map(Origin::At);
    }
    let fields = Fields::read(node, "a value", &["at", "value", "hash"], faults)?;
    match (fields.get("at"), fields.get("value"), fields.get("hash")) {
        (Some(node), None, None) => pointer(node, faults).map(Origin::At),
        (None, Some(node), None) => {
            text(node, faults).map(|text| Origin::Constant(Constant(text.to_owned())))
        }
        (None, None, Some(node)) => {
            let items = list(node, faults)?;
            if items.is_empty() {
                faults.expected(node, "a list with at least one pointer");
            }
            let read: Vec<_> = items.iter().map(|item| pointer(item, faults)).collect();
            read.into_iter().collect::<Option<_>>().map(Origin::Hash)
        }
        _ => {
            faults.add(node.place, "a value has exactly one of at, value, hash");
            None
        }
    }
}
