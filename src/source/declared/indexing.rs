//! Parts of values: members, items, slices, and changes of them, as jq asks for them.

use std::rc::Rc;

use jaq_core::box_iter::BoxIter;
use jaq_core::path::Opt;
use jaq_core::val::Range;
use jaq_core::{Exn, ValT, ValX};

use super::budget;
use super::operations::{Error, ValR, brief};
use super::value::{ITEM_BYTES, MEMBER_BYTES, Members, Value};

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
