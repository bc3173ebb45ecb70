//! Operations of jq on values, each counted against the run's budget.

use std::ops::{Add, Div, Mul, Neg, Rem, Sub};
use std::rc::Rc;

use jaq_core::val::Range;

use super::budget;
use super::value::{ITEM_BYTES, MEMBER_BYTES, Value};

/// Error of a filter.
pub(super) type Error = jaq_core::Error<Value>;
/// Value or error of a filter.
pub(super) type ValR = Result<Value, Error>;

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<isize> for Value {
    fn from(number: isize) -> Self {
        Self::Int(number as i64)
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::text(&text)
    }
}

impl From<Range<Value>> for Value {
    /// The key of a slice: `{start, end}`.
    fn from(range: Range<Value>) -> Self {
        let bounds = [("start", range.start), ("end", range.end)];
        let members = bounds.into_iter().map(|(key, bound)| (Rc::from(key), bound.unwrap_or_default()));
        Self::object(members.collect())
    }
}

impl FromIterator<Value> for Value {
    fn from_iter<I: IntoIterator<Item = Value>>(values: I) -> Self {
        let mut items = Vec::new();
        for value in values {
            // Counted one by one: the iterator may never end.
            budget::make(ITEM_BYTES);
            items.push(value);
        }
        Self::array(items)
    }
}

/// Result of arithmetic on floats and whole numbers alike.
fn arithmetic(
    left: &Value,
    right: &Value,
    whole: fn(i64, i64) -> Option<i64>,
    float: fn(f64, f64) -> f64,
) -> Option<Value> {
    // jaq's own loops, such as range, count with arithmetic alone.
    budget::read(budget::BYTES_PER_STEP);
    if let (Value::Int(left), Value::Int(right)) = (left, right)
        && let Some(number) = whole(*left, *right)
    {
        return Some(Value::Int(number));
    }
    Some(Value::Float(float(left.as_f64()?, right.as_f64()?)))
}

fn wrong(left: Value, operation: jaq_core::ops::Math, right: Value) -> ValR {
    Err(Error::math(brief(left), operation, brief(right)))
}

/// A value as it is shown in messages: one that is long is not.
pub(super) fn brief(value: Value) -> Value {
    match &value {
        Value::Text(text) if text.len() > 100 => Value::text("a long text"),
        Value::Array(_) => Value::text("an array"),
        Value::Object(_) => Value::text("an object"),
        _ => value,
    }
}

impl Add for Value {
    type Output = ValR;
    fn add(self, other: Self) -> ValR {
        match (self, other) {
            (Self::Null, value) | (value, Self::Null) => Ok(value),
            (Self::Text(left), Self::Text(right)) => {
                budget::make(left.len() + right.len());
                Ok(Self::Text([&*left, &*right].concat().into()))
            }
            (Self::Array(left), Self::Array(right)) => {
                budget::make((left.items.len() + right.items.len()) * ITEM_BYTES);
                let mut items =
                    Rc::try_unwrap(left).map_or_else(|shared| shared.items.clone(), |own| own.items);
                items.extend(right.items.iter().cloned());
                Ok(Self::array(items))
            }
            (Self::Object(left), Self::Object(right)) => {
                budget::make((left.members.len() + right.members.len()) * MEMBER_BYTES);
                let mut members =
                    Rc::try_unwrap(left).map_or_else(|shared| shared.members.clone(), |own| own.members);
                members.extend(right.members.iter().map(|(key, value)| (key.clone(), value.clone())));
                Ok(Self::object(members))
            }
            (left, right) => arithmetic(&left, &right, i64::checked_add, |left, right| left + right)
                .map_or_else(|| wrong(left, jaq_core::ops::Math::Add, right), Ok),
        }
    }
}

impl Sub for Value {
    type Output = ValR;
    fn sub(self, other: Self) -> ValR {
        match (self, other) {
            (Self::Array(left), Self::Array(right)) => {
                budget::read(left.items.len().saturating_mul(right.items.len()).saturating_mul(ITEM_BYTES));
                Ok(left.items.iter().filter(|item| !right.items.contains(item)).cloned().collect())
            }
            (left, right) => arithmetic(&left, &right, i64::checked_sub, |left, right| left - right)
                .map_or_else(|| wrong(left, jaq_core::ops::Math::Sub, right), Ok),
        }
    }
}

impl Mul for Value {
    type Output = ValR;
    fn mul(self, other: Self) -> ValR {
        match (self, other) {
            (Self::Text(text), count) | (count, Self::Text(text)) if count.as_f64().is_some() => {
                let times = count.as_f64().unwrap_or_default();
                if times.is_nan() || times <= 0.0 {
                    return Ok(Self::Null);
                }
                let times = times.ceil() as usize;
                budget::make(text.len().saturating_mul(times));
                // Without a budget a text is repeated this often at most.
                Ok(Self::Text(text.repeat(times.min(1_000_000)).into()))
            }
            (Self::Object(left), Self::Object(right)) => {
                budget::make((left.members.len() + right.members.len()) * MEMBER_BYTES);
                let mut members = left.members.clone();
                for (key, value) in &right.members {
                    let merged = match (members.get(key), value) {
                        (Some(old @ Self::Object(_)), Self::Object(_)) => (old.clone() * value.clone())?,
                        _ => value.clone(),
                    };
                    members.insert(key.clone(), merged);
                }
                Ok(Self::object(members))
            }
            (left, right) => arithmetic(&left, &right, i64::checked_mul, |left, right| left * right)
                .map_or_else(|| wrong(left, jaq_core::ops::Math::Mul, right), Ok),
        }
    }
}

/// A float that is whole as an integer, where it is exact.
pub(super) fn whole(number: f64) -> Value {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if number.fract() == 0.0 && number.abs() <= EXACT {
        Value::Int(number as i64)
    } else {
        Value::Float(number)
    }
}

impl Div for Value {
    type Output = ValR;
    fn div(self, other: Self) -> ValR {
        if let (Self::Text(text), Self::Text(separator)) = (&self, &other) {
            return Ok(split(text, separator));
        }
        match (self.as_f64(), other.as_f64()) {
            (Some(_), Some(0.0)) | (None, _) | (_, None) => wrong(self, jaq_core::ops::Math::Div, other),
            (Some(left), Some(right)) => match (&self, &other) {
                (Self::Int(left), Self::Int(right)) if left.checked_rem(*right) == Some(0) => {
                    Ok(Self::Int(left / right))
                }
                _ => Ok(whole(left / right)),
            },
        }
    }
}

/// Parts of a text between separators; its characters, if the separator is empty.
pub(super) fn split(text: &str, separator: &str) -> Value {
    budget::read(text.len());
    if text.is_empty() {
        return Value::array(Vec::new());
    }
    let mut letter = [0; 4];
    if separator.is_empty() {
        return text.chars().map(|char| Value::text(char.encode_utf8(&mut letter))).collect();
    }
    text.split(separator).map(Value::text).collect()
}

impl Rem for Value {
    type Output = ValR;
    fn rem(self, other: Self) -> ValR {
        let found = match (self.as_f64(), other.as_f64()) {
            (Some(_), Some(0.0)) => None,
            _ => arithmetic(&self, &other, i64::checked_rem, |left, right| left % right),
        };
        found.map_or_else(|| wrong(self, jaq_core::ops::Math::Rem, other), Ok)
    }
}

impl Neg for Value {
    type Output = ValR;
    fn neg(self) -> ValR {
        match &self {
            Self::Int(number) if *number != i64::MIN => Ok(Self::Int(-number)),
            _ => match self.as_f64() {
                Some(number) => Ok(Self::Float(-number)),
                None => Err(Error::typ(brief(self), "number")),
            },
        }
    }
}
