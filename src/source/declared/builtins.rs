//! Functions of filters on values, as [`super::functions`] lists them.

use std::rc::Rc;

use regex_lite::RegexBuilder;

use super::budget;
use super::operations::{Error, ValR, brief, whole};
use super::value::{ITEM_BYTES, Members, Value};

/// Largest compiled regular expression, in bytes.
const MAX_REGEX: usize = 64 * 1024;

pub(super) fn text(value: &Value) -> Result<&Rc<str>, Error> {
    match value {
        Value::Text(text) => {
            budget::read(text.len());
            Ok(text)
        }
        other => Err(Error::typ(brief(other.clone()), "string")),
    }
}

pub(super) fn items(value: &Value) -> Result<&[Value], Error> {
    match value {
        Value::Array(array) => {
            budget::read(array.items.len() * ITEM_BYTES);
            Ok(&array.items)
        }
        other => Err(Error::typ(brief(other.clone()), "array")),
    }
}

pub(super) fn trimmed(
    value: Value,
    with: &Value,
    strip: impl for<'t> Fn(&'t str, &str) -> Option<&'t str>,
) -> Value {
    match (value.as_str(), with.as_str()) {
        (Some(text), Some(with)) => strip(text, with).map_or_else(|| value.clone(), Value::text),
        _ => value,
    }
}

pub(super) fn implode(value: &Value) -> ValR {
    let char = |item: &Value| match item {
        Value::Int(code) => u32::try_from(*code).ok().and_then(char::from_u32),
        _ => None,
    };
    let text: Option<String> = items(value)?.iter().map(char).collect();
    text.map(|text| Value::text(&text)).ok_or_else(|| Error::str("not a list of code points"))
}

pub(super) fn length(value: &Value) -> ValR {
    match value {
        Value::Null => Ok(Value::Int(0)),
        Value::Text(_) => Ok(Value::Int(text(value)?.chars().count() as i64)),
        Value::Array(array) => Ok(Value::Int(array.items.len() as i64)),
        Value::Object(object) => Ok(Value::Int(object.members.len() as i64)),
        Value::Bool(_) => Err(Error::str("a boolean has no length")),
        number if *number < Value::Int(0) => -number.clone(),
        number => Ok(number.clone()),
    }
}

pub(super) fn rounded(value: &Value, round: fn(f64) -> f64) -> ValR {
    match value {
        Value::Int(_) => Ok(value.clone()),
        other => match other.as_f64() {
            Some(number) => Ok(whole(round(number))),
            None => Err(Error::typ(brief(other.clone()), "number")),
        },
    }
}

pub(super) fn contains(value: &Value, part: &Value) -> bool {
    match (value, part) {
        (Value::Text(text), Value::Text(part)) => {
            budget::read(text.len());
            text.contains(&**part)
        }
        (Value::Array(array), Value::Array(part)) => {
            let found = |part: &Value| {
                array.items.iter().any(|item| {
                    budget::read(budget::BYTES_PER_STEP);
                    contains(item, part)
                })
            };
            part.items.iter().all(found)
        }
        (Value::Object(object), Value::Object(part)) => part
            .members
            .iter()
            .all(|(key, part)| object.members.get(key).is_some_and(|value| contains(value, part))),
        _ => value == part,
    }
}

pub(super) fn indices(value: &Value, part: &Value) -> ValR {
    match (value, part) {
        (Value::Null, _) => Ok(Value::Null),
        (Value::Text(_), Value::Text(part)) => {
            let text = text(value)?;
            let mut at =
                text.char_indices().enumerate().filter(|(_, (byte, _))| text[*byte..].starts_with(&**part));
            if part.is_empty() {
                Ok(Value::Null)
            } else {
                Ok(at.by_ref().map(|(index, _)| Value::Int(index as i64)).collect())
            }
        }
        (Value::Array(_), part) => {
            let items = items(value)?;
            let equal = |index: &usize| match part {
                Value::Array(part) => !part.items.is_empty() && items[*index..].starts_with(&part.items),
                other => items[*index] == *other,
            };
            Ok((0..items.len()).filter(equal).map(|index| Value::Int(index as i64)).collect())
        }
        _ => Err(Error::index(brief(value.clone()), brief(part.clone()))),
    }
}

/// Appends items, those of nested arrays in their place. Values nest at most `MAX_DEPTH` levels.
pub(super) fn flatten(items: &[Value], depth: i64, flat: &mut Vec<Value>) {
    for item in items {
        match item {
            Value::Array(array) if depth > 0 => flatten(&array.items, depth - 1, flat),
            other => {
                budget::make(ITEM_BYTES);
                flat.push(other.clone());
            }
        }
    }
}

/// Matches of a regular expression, as jq's `match` has them, in an array.
pub(super) fn matches(value: &Value, pattern: &Value, flags: &Value) -> ValR {
    let (text, pattern) = (text(value)?, text(pattern)?);
    let mut builder = RegexBuilder::new(pattern);
    builder.size_limit(MAX_REGEX);
    let mut is_global = false;
    for flag in flags.as_str().unwrap_or_default().chars() {
        match flag {
            'g' => is_global = true,
            'i' => drop(builder.case_insensitive(true)),
            'x' => drop(builder.ignore_whitespace(true)),
            's' => drop(builder.dot_matches_new_line(true)),
            'n' => {}
            _ => {
                return Err(Error::str(format!(
                    "unknown flag {flag} of a regular expression: expected g, i, n, s, x"
                )));
            }
        }
    }
    // regex-lite takes time in proportion to both.
    budget::read(pattern.len().saturating_mul(text.len() + budget::BYTES_PER_STEP));
    let regex = builder.build().map_err(|error| Error::str(format!("not a regular expression: {error}")))?;
    let most = if is_global { usize::MAX } else { 1 };
    let mut found = Vec::new();
    // Offsets are in characters.
    let (mut last_byte, mut last_char) = (0, 0);
    for captures in regex.captures_iter(text).take(most) {
        let Some(whole) = captures.get(0) else { continue };
        last_char += text[last_byte..whole.start()].chars().count();
        last_byte = whole.start();
        let groups = regex.capture_names().zip(captures.iter()).skip(1).map(|(name, group)| {
            object([
                ("string", group.map_or(Value::Null, |group| Value::text(group.as_str()))),
                ("name", name.map_or(Value::Null, Value::text)),
            ])
        });
        found.push(object([
            ("offset", Value::Int(last_char as i64)),
            ("length", Value::Int(whole.as_str().chars().count() as i64)),
            ("string", Value::text(whole.as_str())),
            ("captures", groups.collect()),
        ]));
    }
    Ok(Value::array(found))
}

fn object<const N: usize>(members: [(&str, Value); N]) -> Value {
    let members: Members = members.into_iter().map(|(key, value)| (key.into(), value)).collect();
    Value::object(members)
}
