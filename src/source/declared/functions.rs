//! Functions of filters beside jaq-core's own.
//!
//! jaq's own library also has clocks, the environment, input and output, and an exit of the process; a filter over
//! bodies of others has none of these. Regular expressions are regex-lite's, whose time is linear in the text.

use std::rc::Rc;

use base64::Engine;
use jaq_core::box_iter::box_once;
use jaq_core::native::{self, bome, unary, v};
use jaq_core::{Bind, Ctx, Exn, Native, RunPtr, ValX, ValXs};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use regex_lite::RegexBuilder;

use super::budget;
use super::hmac_key::BASE64;
use super::json;
use super::operations::{Error, ValR, brief, split, whole};
use super::program::Data;
use super::value::{Members, Value};

/// Functions that are written in jq.
pub(super) const PRELUDE: &str = r#"
def null: [][0];
def values: select(. != null);
def nulls: select(. == null);
def booleans: select(type == "boolean");
def numbers: select(type == "number");
def strings: select(type == "string");
def arrays: select(type == "array");
def objects: select(type == "object");
def iterables: select(type == "array" or type == "object");
def scalars: select(type != "array" and type != "object");
def add(f): reduce f as $x (null; . + $x);
def add: add(.[]);
def keys: keys_unsorted;
def in(xs): . as $x | xs | has($x);
def inside(xs): . as $x | xs | contains($x);
def index($i): indices($i)[0];
def rindex($i): indices($i)[-1];
def unique: unique_by(.);
def min: min_by(.);
def max: max_by(.);
def sort: sort_by(.);
def abs: if . < 0 then - . else . end;
def flatten: flatten(1000);
def match(re; flags): matches(re; flags)[];
def test(re; flags): matches(re; flags) | length > 0;
def capture(re; flags): match(re; flags) | [.captures[] | select(.name != null) | {(.name): .string}] | add(.[]) // {};
def scan(re; flags): match(re; "g" + flags) | if .captures == [] then .string else [.captures[].string] end;
def sub(re; f; flags): . as $in
  | [matches(re; flags)[]] as $found
  | reduce $found[] as $m ({at: 0, out: ""};
      ($m | [.captures[] | select(.name != null) | {(.name): .string}] | add(.[]) // {} | f) as $new
      | {at: ($m.offset + $m.length), out: (.out + $in[.at:$m.offset] + $new)})
  | .out + $in[.at:];
def gsub(re; f; flags): sub(re; f; "g" + flags);
def test(re): test(re; "");
def match(re): match(re; "");
def capture(re): capture(re; "");
def scan(re): scan(re; "");
def sub(re; f): sub(re; f; "");
def gsub(re; f): sub(re; f; "g");
def @text: tostring;
def @json: tojson;
def @uri: tostring | encode_uri;
def @urid: tostring | decode_uri;
def @base64: tostring | encode_base64;
def @base64d: tostring | decode_base64;
"#;

/// Functions of jaq-core that filters cannot call: the paths that they make are not bounded.
pub(super) const HIDDEN: &[&str] = &["path", "path_value", "combinations", "error_empty", "matches"];

/// Characters that stay as they are in a URL (RFC 3986, unreserved).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Largest compiled regular expression, in bytes.
const MAX_REGEX: usize = 64 * 1024;

fn text(value: &Value) -> Result<&Rc<str>, Error> {
    match value {
        Value::Text(text) => {
            budget::read(text.len());
            Ok(text)
        }
        other => Err(Error::typ(brief(other.clone()), "string")),
    }
}

fn items(value: &Value) -> Result<&[Value], Error> {
    match value {
        Value::Array(array) => {
            budget::read(array.items.len() * super::value::ITEM_BYTES);
            Ok(&array.items)
        }
        other => Err(Error::typ(brief(other.clone()), "array")),
    }
}

/// A function that takes the input alone.
fn plain<'a>(cv: (Ctx<'a, Data>, Value), f: impl FnOnce(&Value) -> ValR) -> ValXs<'a, Value> {
    bome(f(&cv.1))
}

/// Functions that are written in Rust.
pub(super) fn functions() -> impl Iterator<Item = native::Fun<Data>> {
    on_texts()
        .into_iter()
        .chain(on_values())
        .chain(on_arrays())
        .map(|(name, arguments, run)| (name, arguments, Native::<Data>::new(run)))
}

type Function = (&'static str, Box<[Bind]>, RunPtr<Data>);

fn on_texts() -> Vec<Function> {
    vec![
        ("utf8bytelength", v(0), |cv| plain(cv, |value| Ok(Value::Int(text(value)?.len() as i64)))),
        ("startswith", v(1), |cv| {
            unary(cv, |value, with| Ok(Value::Bool(text(&value)?.starts_with(&**text(&with)?))))
        }),
        ("endswith", v(1), |cv| {
            unary(cv, |value, with| Ok(Value::Bool(text(&value)?.ends_with(&**text(&with)?))))
        }),
        ("ltrimstr", v(1), |cv| {
            unary(cv, |value, with| Ok(trimmed(value, &with, |text, with| text.strip_prefix(with))))
        }),
        ("rtrimstr", v(1), |cv| {
            unary(cv, |value, with| Ok(trimmed(value, &with, |text, with| text.strip_suffix(with))))
        }),
        ("trim", v(0), |cv| plain(cv, |value| Ok(Value::text(text(value)?.trim())))),
        ("ltrim", v(0), |cv| plain(cv, |value| Ok(Value::text(text(value)?.trim_start())))),
        ("rtrim", v(0), |cv| plain(cv, |value| Ok(Value::text(text(value)?.trim_end())))),
        ("ascii_downcase", v(0), |cv| plain(cv, |value| Ok(Value::text(&text(value)?.to_ascii_lowercase())))),
        ("ascii_upcase", v(0), |cv| plain(cv, |value| Ok(Value::text(&text(value)?.to_ascii_uppercase())))),
        ("explode", v(0), |cv| {
            plain(cv, |value| {
                Ok(text(value)?.chars().map(|char| Value::Int(i64::from(u32::from(char)))).collect())
            })
        }),
        ("implode", v(0), |cv| plain(cv, implode)),
        ("split", v(1), |cv| unary(cv, |value, with| Ok(split(text(&value)?, text(&with)?)))),
        ("encode_uri", v(0), |cv| {
            plain(cv, |value| Ok(Value::text(&utf8_percent_encode(text(value)?, RESERVED).to_string())))
        }),
        ("decode_uri", v(0), |cv| {
            plain(cv, |value| Ok(Value::text(&percent_decode_str(text(value)?).decode_utf8_lossy())))
        }),
        ("encode_base64", v(0), |cv| {
            plain(cv, |value| Ok(Value::text(&BASE64.encode(text(value)?.as_bytes()))))
        }),
        ("decode_base64", v(0), |cv| {
            plain(cv, |value| {
                let bytes = BASE64.decode(text(value)?.as_bytes()).map_err(|_| Error::str("not base64"))?;
                Ok(Value::text(&String::from_utf8_lossy(&bytes)))
            })
        }),
        ("matches", v(2), |mut cv| {
            let flags = cv.0.pop_var();
            let pattern = cv.0.pop_var();
            bome(matches(&cv.1, &pattern, &flags))
        }),
    ]
}

fn on_values() -> Vec<Function> {
    vec![
        ("type", v(0), |cv| {
            plain(cv, |value| {
                Ok(Value::text(match value {
                    Value::Null => "null",
                    Value::Bool(_) => "boolean",
                    Value::Int(_) | Value::Float(_) | Value::Number(_) => "number",
                    Value::Text(_) => "string",
                    Value::Array(_) => "array",
                    Value::Object(_) => "object",
                }))
            })
        }),
        ("length", v(0), |cv| plain(cv, length)),
        ("tojson", v(0), |cv| plain(cv, |value| Ok(Value::text(&value.to_json())))),
        ("fromjson", v(0), |cv| {
            plain(cv, |value| {
                json::parse(text(value)?.as_bytes()).map_err(|error| Error::str(format!("not JSON: {error}")))
            })
        }),
        ("tonumber", v(0), |cv| {
            plain(cv, |value| match value {
                Value::Int(_) | Value::Float(_) | Value::Number(_) => Ok(value.clone()),
                other => Value::number(text(other)?.trim()).ok_or_else(|| Error::str("not a number")),
            })
        }),
        ("has", v(1), |cv| {
            unary(cv, |value, key| match (&value, &key) {
                (Value::Object(object), Value::Text(key)) => Ok(object.members.contains_key(key).into()),
                (Value::Array(array), Value::Int(index)) => {
                    Ok(usize::try_from(*index).is_ok_and(|index| index < array.items.len()).into())
                }
                _ => Err(Error::index(brief(value), brief(key))),
            })
        }),
        ("contains", v(1), |cv| unary(cv, |value, part| Ok(contains(&value, &part).into()))),
        ("floor", v(0), |cv| plain(cv, |value| rounded(value, f64::floor))),
        ("ceil", v(0), |cv| plain(cv, |value| rounded(value, f64::ceil))),
        ("round", v(0), |cv| plain(cv, |value| rounded(value, f64::round))),
    ]
}

fn on_arrays() -> Vec<Function> {
    let filter = || -> Box<[Bind]> { [Bind::Fun(())].into() };
    vec![
        ("reverse", v(0), |cv| {
            plain(cv, |value| match value {
                Value::Text(_) => Ok(Value::text(&text(value)?.chars().rev().collect::<String>())),
                Value::Null => Ok(Value::array(Vec::new())),
                other => Ok(items(other)?.iter().rev().cloned().collect()),
            })
        }),
        ("indices", v(1), |cv| unary(cv, |value, part| indices(&value, &part))),
        ("flatten", v(1), |cv| {
            unary(cv, |value, depth| {
                let mut flat = Vec::new();
                flatten(items(&value)?, depth.as_index().unwrap_or(0), &mut flat);
                Ok(Value::array(flat))
            })
        }),
        ("sort_by", filter(), |cv| {
            box_once(keyed(cv).map(|keyed| keyed.into_iter().map(|(_, item)| item).collect()))
        }),
        ("group_by", filter(), |cv| {
            box_once(keyed(cv).map(|keyed| {
                let groups = keyed.chunk_by(|left, right| left.0 == right.0);
                groups.map(|group| group.iter().map(|(_, item)| item.clone()).collect()).collect()
            }))
        }),
        ("unique_by", filter(), |cv| {
            box_once(keyed(cv).map(|keyed| {
                keyed.chunk_by(|left, right| left.0 == right.0).map(|group| group[0].1.clone()).collect()
            }))
        }),
        ("min_by", filter(), |cv| {
            box_once(
                keyed(cv).map(|keyed| keyed.into_iter().next().map(|(_, item)| item).unwrap_or_default()),
            )
        }),
        ("max_by", filter(), |cv| {
            box_once(
                keyed(cv)
                    .map(|keyed| keyed.into_iter().next_back().map(|(_, item)| item).unwrap_or_default()),
            )
        }),
    ]
}

/// Items of an array with the key that a filter makes of each, in the order of the keys.
fn keyed<'a>(mut cv: (Ctx<'a, Data>, Value)) -> Result<Vec<(Value, Value)>, Exn<'a, Value>> {
    let (filter, context) = cv.0.pop_fun();
    let mut keyed = Vec::new();
    for item in items(&cv.1)? {
        let key: ValX<'a, Value> = filter.run::<Data>((context.clone(), item.clone())).collect();
        keyed.push((key?, item.clone()));
    }
    keyed.sort_by(|left, right| {
        budget::read(budget::BYTES_PER_STEP);
        left.0.cmp(&right.0)
    });
    Ok(keyed)
}

fn trimmed(value: Value, with: &Value, strip: impl for<'t> Fn(&'t str, &str) -> Option<&'t str>) -> Value {
    match (value.as_str(), with.as_str()) {
        (Some(text), Some(with)) => strip(text, with).map_or_else(|| value.clone(), Value::text),
        _ => value,
    }
}

fn implode(value: &Value) -> ValR {
    let char = |item: &Value| match item {
        Value::Int(code) => u32::try_from(*code).ok().and_then(char::from_u32),
        _ => None,
    };
    let text: Option<String> = items(value)?.iter().map(char).collect();
    text.map(|text| Value::text(&text)).ok_or_else(|| Error::str("not a list of code points"))
}

fn length(value: &Value) -> ValR {
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

fn rounded(value: &Value, round: fn(f64) -> f64) -> ValR {
    match value {
        Value::Int(_) => Ok(value.clone()),
        other => match other.as_f64() {
            Some(number) => Ok(whole(round(number))),
            None => Err(Error::typ(brief(other.clone()), "number")),
        },
    }
}

fn contains(value: &Value, part: &Value) -> bool {
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

fn indices(value: &Value, part: &Value) -> ValR {
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
fn flatten(items: &[Value], depth: i64, flat: &mut Vec<Value>) {
    for item in items {
        match item {
            Value::Array(array) if depth > 0 => flatten(&array.items, depth - 1, flat),
            other => {
                budget::make(super::value::ITEM_BYTES);
                flat.push(other.clone());
            }
        }
    }
}

/// Matches of a regular expression, as jq's `match` has them, in an array.
fn matches(value: &Value, pattern: &Value, flags: &Value) -> ValR {
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

/// Names and numbers of arguments of all functions, for messages.
pub(super) fn names() -> Vec<&'static str> {
    let mut names: Vec<&str> =
        functions().map(|(name, ..)| name).filter(|name| !HIDDEN.contains(name)).collect();
    let defined = |text: &'static str| {
        text.split("def ").skip(1).map(|rest| rest.split([':', '(', ' ']).next().unwrap_or_default())
    };
    names.extend(defined(PRELUDE));
    names.extend([
        "map",
        "select",
        "to_entries",
        "from_entries",
        "with_entries",
        "range",
        "limit",
        "first",
        "last",
        "until",
        "any",
        "all",
        "paths",
        "getpath",
        "setpath",
        "del",
        "join",
        "tostring",
        "walk",
        "isempty",
        "empty",
        "error",
        "not",
        "recurse",
        "map_values",
        "nth",
        "while",
        "repeat",
        "skip",
        "true",
        "false",
    ]);
    names.sort_unstable();
    names.dedup();
    names
}
