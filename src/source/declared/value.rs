//! JSON values that keep the digits of numbers.
//!
//! Ids of platforms lie beyond 2^53 and amounts have decimals that no float has, so a number is an `i64` or the text
//! that was sent; a float is only made by arithmetic of a filter. Values are cheap to clone. Their nesting is bounded,
//! so that freeing one takes no deep stack.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::rc::Rc;

use super::budget::{self, Bound, MAX_DEPTH};

/// Longest number, in characters.
const MAX_NUMBER: usize = 1_000;

/// Members of an object, in the order of their keys.
pub(super) type Members = BTreeMap<Rc<str>, Value>;

/// A JSON value.
#[derive(Clone, Debug, Default)]
pub enum Value {
    /// `null`.
    #[default]
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number that a filter computed.
    Float(f64),
    /// A number as it was sent, where it is no `i64`.
    Number(Rc<str>),
    /// A string.
    Text(Rc<str>),
    /// An array.
    Array(Rc<Array>),
    /// An object.
    Object(Rc<Object>),
}

/// Items of an array.
#[derive(Debug, Clone)]
pub struct Array {
    pub(super) items: Vec<Value>,
    depth: u16,
}

/// Members of an object.
#[derive(Debug, Clone)]
pub struct Object {
    pub(super) members: Members,
    depth: u16,
}

/// Bytes of an item in memory.
pub(super) const ITEM_BYTES: usize = size_of::<Value>();

/// Bytes of a member in memory, its key's bytes aside.
pub(super) const MEMBER_BYTES: usize = 3 * ITEM_BYTES;

impl Value {
    pub(super) fn text(text: &str) -> Self {
        budget::make(text.len());
        Self::Text(text.into())
    }

    /// An array. Where it nests too deep, the run of a filter ends, and null stands for it otherwise.
    pub(super) fn array(items: Vec<Self>) -> Self {
        budget::make(items.len() * ITEM_BYTES);
        match depth(items.iter()) {
            Some(depth) => Self::Array(Rc::new(Array { items, depth })),
            None => Self::too_deep(),
        }
    }

    /// An object. Where it nests too deep, the run of a filter ends, and null stands for it otherwise.
    pub(super) fn object(members: Members) -> Self {
        budget::make(members.len() * MEMBER_BYTES);
        match depth(members.values()) {
            Some(depth) => Self::Object(Rc::new(Object { members, depth })),
            None => Self::too_deep(),
        }
    }

    fn too_deep() -> Self {
        budget::exceeded(Bound::Depth);
        Self::Null
    }

    /// A number by the grammar of JSON; `None` for any other text.
    pub(super) fn number(text: &str) -> Option<Self> {
        let (_, whole) = is_number(text)?;
        if whole
            && text != "-0"
            && text.len() < 20
            && let Ok(number) = text.parse()
        {
            return Some(Self::Int(number));
        }
        Some(Self::Number(text.into()))
    }

    /// The text of a string.
    pub(super) fn as_str(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A number as a float, rounded.
    pub(super) fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Int(number) => Some(*number as f64),
            Self::Float(number) => Some(*number),
            Self::Number(text) => text.parse().ok(),
            _ => None,
        }
    }

    /// Appends the value as compact JSON.
    pub(super) fn write(&self, out: &mut String) {
        // A string takes every write.
        let _ = write!(out, "{self}");
    }

    /// The value as compact JSON.
    pub(super) fn to_json(&self) -> String {
        let mut out = String::new();
        self.write(&mut out);
        out
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Null => 0,
            Self::Bool(false) => 1,
            Self::Bool(true) => 2,
            Self::Int(_) | Self::Float(_) | Self::Number(_) => 3,
            Self::Text(_) => 4,
            Self::Array(_) => 5,
            Self::Object(_) => 6,
        }
    }
}

/// Nesting of a value that holds these; `None` beyond [`MAX_DEPTH`].
fn depth<'a>(values: impl Iterator<Item = &'a Value>) -> Option<u16> {
    let below = values.map(|value| match value {
        Value::Array(array) => array.depth,
        Value::Object(object) => object.depth,
        _ => 0,
    });
    let depth = below.max().unwrap_or(0) + 1;
    (depth <= MAX_DEPTH).then_some(depth)
}

/// Bytes of the number that a text begins with, by the grammar of JSON, and true if it has neither fraction nor
/// exponent. `None` if the text is none, or goes on.
fn is_number(text: &str) -> Option<(usize, bool)> {
    let (bytes, whole) = number_length(text.as_bytes())?;
    (bytes == text.len()).then_some((bytes, whole))
}

/// Bytes of the JSON number at the start, and true if it has neither fraction nor exponent.
pub(super) fn number_length(bytes: &[u8]) -> Option<(usize, bool)> {
    let digits = |from: usize| bytes[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let mut at = usize::from(bytes.first() == Some(&b'-'));
    let whole = digits(at);
    if whole == 0 || (whole > 1 && bytes[at] == b'0') {
        return None;
    }
    at += whole;
    let mut is_whole = true;
    if bytes.get(at) == Some(&b'.') {
        let fraction = digits(at + 1);
        if fraction == 0 {
            return None;
        }
        at += 1 + fraction;
        is_whole = false;
    }
    if matches!(bytes.get(at), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
        let exponent = digits(at + 1 + sign);
        if exponent == 0 {
            return None;
        }
        at += 1 + sign + exponent;
        is_whole = false;
    }
    (at <= MAX_NUMBER).then_some((at, is_whole))
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Int(number) => write!(f, "{number}"),
            Self::Float(number) if number.is_nan() => f.write_str("null"),
            // JSON has no infinity: the largest float stands for it, as in jq.
            Self::Float(number) => write!(f, "{:?}", number.clamp(f64::MIN, f64::MAX)),
            Self::Number(text) => f.write_str(text),
            Self::Text(text) => write_text(text, f),
            Self::Array(array) => {
                budget::read(array.items.len() * ITEM_BYTES);
                f.write_char('[')?;
                for (index, item) in array.items.iter().enumerate() {
                    if index > 0 {
                        f.write_char(',')?;
                    }
                    item.fmt(f)?;
                }
                f.write_char(']')
            }
            Self::Object(object) => {
                budget::read(object.members.len() * MEMBER_BYTES);
                f.write_char('{')?;
                for (index, (key, value)) in object.members.iter().enumerate() {
                    if index > 0 {
                        f.write_char(',')?;
                    }
                    write_text(key, f)?;
                    f.write_char(':')?;
                    value.fmt(f)?;
                }
                f.write_char('}')
            }
        }
    }
}

/// Writes a JSON string; pieces without escapes are written whole.
fn write_text(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    budget::make(text.len());
    f.write_char('"')?;
    let mut from = 0;
    for (at, byte) in text.bytes().enumerate() {
        if byte >= b' ' && byte != b'"' && byte != b'\\' {
            continue;
        }
        f.write_str(&text[from..at])?;
        from = at + 1;
        match byte {
            b'"' => f.write_str("\\\"")?,
            b'\\' => f.write_str("\\\\")?,
            b'\n' => f.write_str("\\n")?,
            b'\r' => f.write_str("\\r")?,
            b'\t' => f.write_str("\\t")?,
            _ => write!(f, "\\u{byte:04x}")?,
        }
    }
    f.write_str(&text[from..])?;
    f.write_char('"')
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Value {}

impl PartialOrd for Value {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Value {
    /// The order of jq: null, false, true, numbers, strings, arrays, objects.
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Int(left), Self::Int(right)) => left.cmp(right),
            (Self::Text(left), Self::Text(right)) => {
                budget::read(left.len().min(right.len()));
                left.cmp(right)
            }
            (Self::Array(left), Self::Array(right)) => {
                budget::read(left.items.len().min(right.items.len()) * ITEM_BYTES);
                left.items.cmp(&right.items)
            }
            (Self::Object(left), Self::Object(right)) => {
                budget::read(left.members.len().min(right.members.len()) * MEMBER_BYTES);
                let keys = left.members.keys().cmp(right.members.keys());
                keys.then_with(|| left.members.values().cmp(right.members.values()))
            }
            (left, right) => left.rank().cmp(&right.rank()).then_with(|| compare_numbers(left, right)),
        }
    }
}

/// Compares numbers as floats, and whole numbers that are the same float by their digits.
fn compare_numbers(left: &Value, right: &Value) -> Ordering {
    let (Some(left_float), Some(right_float)) = (left.as_f64(), right.as_f64()) else {
        return Ordering::Equal;
    };
    // Adding 0 makes 0 of -0.
    (left_float + 0.0).total_cmp(&(right_float + 0.0)).then_with(|| {
        match (whole_digits(left), whole_digits(right)) {
            (Some(left), Some(right)) if left != right => {
                let negative = left_float < 0.0;
                let order = left.len().cmp(&right.len()).then_with(|| left.cmp(&right));
                if negative { order.reverse() } else { order }
            }
            _ => Ordering::Equal,
        }
    })
}

/// Digits of a whole number, the sign aside.
fn whole_digits(value: &Value) -> Option<String> {
    match value {
        Value::Int(number) => Some(number.unsigned_abs().to_string()),
        Value::Number(text) => {
            let digits = text.strip_prefix('-').unwrap_or(text);
            digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.to_owned())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_digits() {
        for text in [
            "0",
            "-1",
            "9223372036854775807",
            "9223372036854775808",
            "0.10",
            "-0",
            "1e400",
            "1E+2",
            "123456789012345678901234567890",
            "0.00020000000000000001",
        ] {
            assert_eq!(Value::number(text).map(|number| number.to_json()).as_deref(), Some(text));
        }
        for text in ["", "-", "01", "1.", ".5", "1e", "+1", "1 ", "0x1", "NaN", "1_000"] {
            assert!(Value::number(text).is_none(), "{text}");
        }
        assert!(Value::number(&"9".repeat(1_001)).is_none());
    }

    #[test]
    fn numbers_are_equal_by_value_and_whole_ones_by_their_digits() {
        let number = |text| Value::number(text).unwrap();
        assert_eq!(number("1.0"), number("1.00"));
        assert_eq!(number("1"), number("1.0"));
        assert_eq!(number("0"), number("-0"));
        assert_eq!(number("1e2"), Value::Int(100));
        assert!(number("9007199254740993") > number("9007199254740992"));
        assert!(number("18446744073709551617") > number("18446744073709551616"));
        assert!(number("-18446744073709551617") < number("-18446744073709551616"));
    }

    #[test]
    fn values_are_ordered_as_in_jq() {
        let ordered = [
            Value::Null,
            Value::Bool(false),
            Value::Bool(true),
            Value::Int(-1),
            Value::Float(0.5),
            Value::text(""),
            Value::text("a"),
            Value::array(vec![]),
            Value::array(vec![Value::Null]),
            Value::object(Members::new()),
        ];
        assert!(ordered.is_sorted());
        assert!(ordered.windows(2).all(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn a_value_has_a_deepest_level() {
        let mut value = Value::Null;
        for _ in 0..MAX_DEPTH {
            value = Value::array(vec![value]);
        }
        assert!(matches!(value, Value::Array(_)));
        assert!(matches!(Value::array(vec![value]), Value::Null));
    }
}
