//! Operations of jq on values, each counted against the run's budget.

use std::ops::{Add, Div, Mul, Neg, Rem, Sub};
use std::rc::Rc;

use jaq_core::box_iter::BoxIter;
use jaq_core::path::Opt;
use jaq_core::val::Range;
use jaq_core::{Exn, ValT, ValX};

use super::budget;
use super::value::{ITEM_BYTES, MEMBER_BYTES, Members, Value};

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

impl Value {
    /// A whole number, of a float too.
    pub(super) fn as_index(&self) -> Option<i64> {
        match self {
            Self::Int(number) => Some(*number),
            Self::Float(number) => Some(number.floor() as i64),
            Self::Number(_) => self.as_f64().map(|number| number.floor() as i64),
            _ => None,
        }
    }

    /// Positions of a slice in a sequence of this length.
    fn slice(length: usize, range: &Range<&Self>) -> Result<std::ops::Range<usize>, Error> {
        let position = |bound: Option<&Self>, default: usize| match bound {
            None | Some(Self::Null) => Ok(default),
            Some(bound) => {
                let index = bound.as_index().ok_or_else(|| Error::typ(brief(bound.clone()), "integer"))?;
                let from_end = if index < 0 { index.saturating_add(length as i64).max(0) } else { index };
                Ok(usize::try_from(from_end).unwrap_or(length).min(length))
            }
        };
        let (start, end) = (position(range.start, 0)?, position(range.end, length)?);
        Ok(start..end.max(start))
    }

    /// The slice of an array or of a text's characters.
    fn sliced(&self, range: &Range<&Self>) -> ValR {
        match self {
            Self::Null => Ok(Self::Null),
            Self::Array(array) => {
                let range = Self::slice(array.items.len(), range)?;
                Ok(array.items[range].iter().cloned().collect())
            }
            Self::Text(text) => {
                budget::read(text.len());
                let range = Self::slice(text.chars().count(), range)?;
                let part: String = text.chars().skip(range.start).take(range.len()).collect();
                Ok(Self::text(&part))
            }
            other => Err(Error::typ(brief(other.clone()), "array or string")),
        }
    }

    fn position(length: usize, index: i64) -> Option<usize> {
        let index = if index < 0 { index.checked_add(i64::try_from(length).ok()?)? } else { index };
        usize::try_from(index).ok().filter(|index| *index < length)
    }
}

impl ValT for Value {
    fn from_num(text: &str) -> ValR {
        Self::number(text)
            .or_else(|| text.parse().ok().map(Self::Float))
            .ok_or_else(|| Error::str("not a number"))
    }

    fn from_map<I: IntoIterator<Item = (Self, Self)>>(members: I) -> ValR {
        let mut object = Members::new();
        for (key, value) in members {
            match key {
                Self::Text(key) => drop(object.insert(key, value)),
                other => return Err(Error::typ(brief(other), "key of an object, which is a string")),
            }
        }
        Ok(Self::object(object))
    }

    fn key_values(self) -> BoxIter<'static, Result<(Self, Self), Error>> {
        match self {
            Self::Array(array) => {
                budget::make(array.items.len() * ITEM_BYTES);
                let items = Rc::try_unwrap(array).map_or_else(|shared| shared.items.clone(), |own| own.items);
                Box::new(
                    items.into_iter().enumerate().map(|(index, item)| Ok((Self::Int(index as i64), item))),
                )
            }
            Self::Object(object) => {
                budget::make(object.members.len() * MEMBER_BYTES);
                let members =
                    Rc::try_unwrap(object).map_or_else(|shared| shared.members.clone(), |own| own.members);
                Box::new(members.into_iter().map(|(key, value)| Ok((Self::Text(key), value))))
            }
            other => Box::new(std::iter::once(Err(Error::typ(brief(other), "array or object")))),
        }
    }

    fn values(self) -> Box<dyn Iterator<Item = ValR>> {
        Box::new(self.key_values().map(|entry| entry.map(|(_, value)| value)))
    }

    fn index(self, index: &Self) -> ValR {
        match (&self, index) {
            (Self::Object(object), Self::Text(key)) => {
                Ok(object.members.get(key).cloned().unwrap_or_default())
            }
            (Self::Null, Self::Text(_) | Self::Int(_) | Self::Float(_) | Self::Null) => Ok(Self::Null),
            (Self::Null | Self::Array(_) | Self::Text(_), Self::Object(range)) => {
                self.sliced(&(range.members.get("start")..range.members.get("end")))
            }
            (Self::Array(array), number) if number.as_index().is_some() => {
                let position = number.as_index().and_then(|index| Self::position(array.items.len(), index));
                Ok(position.and_then(|position| array.items.get(position)).cloned().unwrap_or_default())
            }
            _ => Err(Error::index(brief(self), brief(index.clone()))),
        }
    }

    fn range(self, range: Range<&Self>) -> ValR {
        self.sliced(&range)
    }

    fn map_values<'a, I: Iterator<Item = ValX<'a, Self>>>(
        self,
        opt: Opt,
        f: impl Fn(Self) -> I,
    ) -> ValX<'a, Self> {
        match self {
            Self::Array(array) => {
                budget::make(array.items.len() * ITEM_BYTES);
                array.items.iter().cloned().flat_map(f).collect()
            }
            Self::Object(object) => {
                budget::make(object.members.len() * MEMBER_BYTES);
                let mut members = Members::new();
                for (key, value) in &object.members {
                    if let Some(value) = f(value.clone()).next() {
                        members.insert(key.clone(), value?);
                    }
                }
                Ok(Self::object(members))
            }
            other => opt.fail(other, |other| Exn::from(Error::typ(brief(other), "array or object"))),
        }
    }

    fn map_index<'a, I: Iterator<Item = ValX<'a, Self>>>(
        self,
        index: &Self,
        opt: Opt,
        f: impl Fn(Self) -> I,
    ) -> ValX<'a, Self> {
        match (self, index) {
            (Self::Object(object), Self::Text(key)) => {
                budget::make(object.members.len() * MEMBER_BYTES);
                let mut members =
                    Rc::try_unwrap(object).map_or_else(|shared| shared.members.clone(), |own| own.members);
                let old = members.get(key).cloned().unwrap_or_default();
                match f(old).next().transpose()? {
                    Some(new) => members.insert(key.clone(), new),
                    None => members.remove(key),
                };
                Ok(Self::object(members))
            }
            (Self::Null, Self::Text(key)) => {
                let new = f(Self::Null).next().transpose()?;
                Ok(Self::object(new.map(|new| (key.clone(), new)).into_iter().collect()))
            }
            (value @ (Self::Array(_) | Self::Text(_)), Self::Object(range)) => {
                value.map_range(range.members.get("start")..range.members.get("end"), opt, f)
            }
            (Self::Array(array), number) if number.as_index().is_some() => {
                let position = number.as_index().and_then(|index| Self::position(array.items.len(), index));
                let Some(position) = position else {
                    return opt
                        .fail(Self::Array(array), |_| Exn::from(Error::str("the index is out of bounds")));
                };
                budget::make(array.items.len() * ITEM_BYTES);
                let mut items =
                    Rc::try_unwrap(array).map_or_else(|shared| shared.items.clone(), |own| own.items);
                match f(items[position].clone()).next().transpose()? {
                    Some(new) => items[position] = new,
                    None => drop(items.remove(position)),
                }
                Ok(Self::array(items))
            }
            (other, index) => {
                opt.fail(other, |other| Exn::from(Error::index(brief(other), brief(index.clone()))))
            }
        }
    }

    fn map_range<'a, I: Iterator<Item = ValX<'a, Self>>>(
        self,
        range: Range<&Self>,
        opt: Opt,
        f: impl Fn(Self) -> I,
    ) -> ValX<'a, Self> {
        let Self::Array(array) = self else {
            return opt.fail(self, |other| Exn::from(Error::typ(brief(other), "array")));
        };
        budget::make(array.items.len() * ITEM_BYTES);
        let range = Self::slice(array.items.len(), &range)?;
        let part: Self = array.items[range.clone()].iter().cloned().collect();
        let new = match f(part).next().transpose()? {
            Some(Self::Array(new)) => new.items.clone(),
            Some(other) => return Err(Exn::from(Error::typ(brief(other), "array"))),
            None => Vec::new(),
        };
        let mut items = array.items.clone();
        items.splice(range, new);
        Ok(Self::array(items))
    }

    fn as_bool(&self) -> bool {
        !matches!(self, Self::Null | Self::Bool(false))
    }

    fn into_string(self) -> Self {
        match self {
            Self::Text(_) => self,
            other => Self::text(&other.to_json()),
        }
    }
}
