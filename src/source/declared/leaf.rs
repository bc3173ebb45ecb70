//! Values of a request that can be changed, one by one.

use chrono::{DateTime, NaiveDateTime, SecondsFormat};

use super::draft::{Draft, encoded};
use super::pointer::Pointer;
use super::request::Method;
use super::value::Value;

/// Digits of a new id, where the old one ends in fewer.
const ID_DIGITS: u32 = 15;
/// Most digits of an id that are changed.
const MAX_DIGITS: usize = 18;
/// Fewest digits at the end of an id that new ones fit into.
const MIN_DIGITS: usize = 9;
/// Patterns of times, beside those of RFC 3339 and of seconds and milliseconds: with an offset, and in UTC.
const WITH_OFFSET: [&str; 2] = ["%Y-%m-%d %H:%M:%S%.f%z", "%Y-%m-%dT%H:%M:%S%.f%z"];
const WITHOUT_OFFSET: [&str; 2] = ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f"];

/// Numbers for new ids: all of them differ.
#[derive(Debug, Clone)]
pub struct Serial(u64);

impl Serial {
    /// Numbers from a start on.
    pub fn new(start: u64) -> Self {
        Self(start)
    }

    /// The next number, with so many digits.
    fn digits(&mut self, count: u32) -> String {
        let low = 10_u64.pow(count - 1);
        self.0 = self.0.wrapping_add(1);
        (low + self.0 % (9 * low)).to_string()
    }

    /// A new id in the form of an old one: its last digits are others, or digits are added.
    pub(super) fn id_like(&mut self, old: &str) -> String {
        let kept = old.trim_end_matches(|char: char| char.is_ascii_digit());
        let digits = old.len() - kept.len();
        if digits < MIN_DIGITS {
            return format!("{kept}{}", self.digits(ID_DIGITS));
        }
        let width = digits.min(MAX_DIGITS);
        #[allow(clippy::cast_possible_truncation, reason = "at most 18")]
        let new = self.digits(width as u32);
        format!("{}{new}", &old[..old.len() - width])
    }
}

/// A request with its parts apart.
#[derive(Debug, Clone)]
pub(super) struct Content {
    pub method: Method,
    pub headers: Vec<(String, String)>,
    pub query: Vec<(String, String)>,
    pub body: Body,
}

/// A body with its parts apart.
#[derive(Debug, Clone)]
pub(super) enum Body {
    Empty,
    Json(Value),
    Form(Vec<(String, String)>),
}

/// Place of a value in a request.
#[derive(Debug, Clone)]
enum Place {
    Header(usize),
    Query(usize),
    Form(usize),
    Json(Pointer),
}

/// A text or number in a request.
#[derive(Debug, Clone)]
pub(super) struct Leaf {
    place: Place,
    pub text: String,
    is_number: bool,
}

impl Content {
    pub fn draft(&self) -> Draft {
        let body = match &self.body {
            Body::Empty => Vec::new(),
            Body::Json(value) => value.to_json().into_bytes(),
            Body::Form(pairs) => encoded(pairs).into_bytes(),
        };
        Draft { method: self.method, headers: self.headers.clone(), query: encoded(&self.query), body }
    }

    /// All texts and numbers, in their order.
    pub fn leaves(&self) -> Vec<Leaf> {
        fn of_json(value: &Value, at: &Pointer, leaves: &mut Vec<Leaf>) {
            let mut leaf = |text: String, is_number| {
                leaves.push(Leaf { place: Place::Json(at.clone()), text, is_number });
            };
            match value {
                Value::Text(text) => leaf(text.to_string(), false),
                Value::Int(_) | Value::Number(_) => leaf(value.to_json(), true),
                Value::Array(array) => {
                    for (index, item) in array.items.iter().enumerate() {
                        of_json(item, &at.child(&index.to_string()), leaves);
                    }
                }
                Value::Object(object) => {
                    object.members.iter().for_each(|(key, item)| of_json(item, &at.child(key), leaves));
                }
                Value::Null | Value::Bool(_) | Value::Float(_) => {}
            }
        }
        let mut leaves = Vec::new();
        let mut of_pairs = |pairs: &[(String, String)], place: fn(usize) -> Place| {
            leaves.extend(pairs.iter().enumerate().map(|(index, (_, text))| Leaf {
                place: place(index),
                text: text.clone(),
                is_number: false,
            }));
        };
        of_pairs(&self.query, Place::Query);
        of_pairs(&self.headers, Place::Header);
        match &self.body {
            Body::Empty => {}
            Body::Form(pairs) => of_pairs(pairs, Place::Form),
            Body::Json(value) => of_json(value, &Pointer::default(), &mut leaves),
        }
        leaves
    }

    /// Changes a value to another text, or to a number of these digits.
    pub fn set(&mut self, leaf: &Leaf, text: &str) {
        match (&leaf.place, &mut self.body) {
            (Place::Header(index), _) => text.clone_into(&mut self.headers[*index].1),
            (Place::Query(index), _) => text.clone_into(&mut self.query[*index].1),
            (Place::Form(index), Body::Form(pairs)) => text.clone_into(&mut pairs[*index].1),
            (Place::Json(at), Body::Json(value)) => {
                let number = if leaf.is_number { Value::number(text) } else { None };
                at.replace(value, |_| Some(number.unwrap_or_else(|| Value::text(text))));
            }
            _ => {}
        }
    }
}

impl Leaf {
    /// True for JSON of its own in a text.
    pub fn is_structured(&self) -> bool {
        self.text.starts_with(['{', '['])
    }

    /// Number of digits.
    pub fn digits(&self) -> usize {
        self.text.bytes().filter(u8::is_ascii_digit).count()
    }

    /// The value's time, in microseconds since 1970, if it looks like one.
    pub fn time(&self) -> Option<i64> {
        Time::read(&self.text).map(|(micros, _)| micros)
    }

    /// The value later by some microseconds, in the form that it has.
    pub fn later(&self, by: i64) -> Option<String> {
        let (micros, form) = Time::read(&self.text)?;
        form.write(micros + by, self.text.contains('.'))
    }
}

/// Form of a time.
enum Time {
    Seconds,
    Millis,
    /// RFC 3339 with its offset, `Z` if the flag is set.
    Rfc3339(chrono::FixedOffset, bool),
    Offset(chrono::FixedOffset, &'static str),
    Local(&'static str),
}

impl Time {
    fn read(text: &str) -> Option<(i64, Self)> {
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            let number: i64 = text.parse().ok()?;
            return match text.len() {
                10 => Some((number * 1_000_000, Self::Seconds)),
                13 => Some((number * 1_000, Self::Millis)),
                _ => None,
            };
        }
        if let Ok(at) = DateTime::parse_from_rfc3339(text) {
            return Some((at.timestamp_micros(), Self::Rfc3339(*at.offset(), text.ends_with(['Z', 'z']))));
        }
        for pattern in WITH_OFFSET {
            if let Ok(at) = DateTime::parse_from_str(text, pattern) {
                return Some((at.timestamp_micros(), Self::Offset(*at.offset(), pattern)));
            }
        }
        WITHOUT_OFFSET.into_iter().find_map(|pattern| {
            let at = NaiveDateTime::parse_from_str(text, pattern).ok()?;
            Some((at.and_utc().timestamp_micros(), Self::Local(pattern)))
        })
    }

    /// The time's text; `has_fraction` for parts of a second.
    fn write(&self, micros: i64, has_fraction: bool) -> Option<String> {
        let at = DateTime::from_timestamp_micros(micros)?;
        let precision = |pattern: &str| pattern.replace("%.f", if has_fraction { "%.3f" } else { "" });
        let digits = if has_fraction { SecondsFormat::Millis } else { SecondsFormat::Secs };
        Some(match self {
            Self::Seconds => micros.div_euclid(1_000_000).to_string(),
            Self::Millis => micros.div_euclid(1_000).to_string(),
            Self::Rfc3339(offset, is_utc) => at.with_timezone(offset).to_rfc3339_opts(digits, *is_utc),
            Self::Offset(offset, pattern) => at.with_timezone(offset).format(&precision(pattern)).to_string(),
            Self::Local(pattern) => at.format(&precision(pattern)).to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(text: &str) -> Leaf {
        Leaf { place: Place::Header(0), text: text.to_owned(), is_number: false }
    }

    #[test]
    fn times_keep_their_form() {
        let day = 86_400_000_000;
        for (text, later) in [
            ("1795687201", "1795773601"),
            ("1795687201881", "1795773601881"),
            ("2026-11-26T05:00:00-05:00", "2026-11-27T05:00:00-05:00"),
            ("2026-11-26T10:00:01.344522Z", "2026-11-27T10:00:01.344Z"),
            ("2026-11-26 10:00:01.250", "2026-11-27 10:00:01.250"),
            ("2026-11-26 12:00:01.250+0200", "2026-11-27 12:00:01.250+0200"),
        ] {
            assert_eq!(leaf(text).later(day).as_deref(), Some(later));
        }
        for text in ["7400000000000000101", "ch_3Invented0001", "", "19.90", "2026"] {
            assert_eq!(leaf(text).time(), None, "{text}");
        }
    }

    #[test]
    fn new_ids_differ_and_keep_the_form_of_the_old_one() {
        let mut serial = Serial::new(u64::MAX - 500);
        for old in [
            "00000000-aaaa-4bbb-8ccc-000000000022",
            "820000000000000001",
            "ch_3Invented0001",
            "lead",
            "7",
            "",
        ] {
            let new: std::collections::HashSet<String> = (0..1_000).map(|_| serial.id_like(old)).collect();
            assert_eq!(new.len(), 1_000, "{old}");
            let kept = old.trim_end_matches(|char: char| char.is_ascii_digit());
            for new in new {
                let digits = new.strip_prefix(kept).unwrap();
                assert!(
                    digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0'),
                    "{new}"
                );
            }
        }
        assert_eq!(serial.id_like("18000000000000000000000000000001").len(), 32);
    }
}
