//! Functions of filters beside jaq-core's own.
//!
//! jaq's own library also has clocks, the environment, input and output, and an exit of the process; a filter over
//! bodies of others has none of these. Regular expressions are regex-lite's, whose time is linear in the text.

use base64::Engine;
use jaq_core::box_iter::box_once;
use jaq_core::native::{self, bome, unary, v};
use jaq_core::{Bind, Ctx, Exn, Native, RunPtr, ValX, ValXs};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::budget;
use super::builtins::{contains, flatten, implode, indices, items, length, matches, rounded, text, trimmed};
use super::hmac_key::BASE64;
use super::json;
use super::operations::{Error, ValR, brief, split};
use super::prelude::PRELUDE;
use super::program::Data;
use super::value::Value;

/// Functions of jaq-core that filters cannot call: the paths that they make are not bounded.
pub(super) const HIDDEN: &[&str] = &["path", "path_value", "combinations", "error_empty", "matches"];

/// Characters that stay as they are in a URL (RFC 3986, unreserved).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

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
