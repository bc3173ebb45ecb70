//! One reading of an event: its parts are deserialized, validated and moved into columns.

use std::cell::RefCell;

use garde::Validate;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::columns::Columns;
use crate::json::lenient::{Lenient, Notes, Path};
use crate::json::object::object;
use crate::json::scalar::{Instant, Number};

/// A part of an event that a source declares: the user, or the engagement of a stage.
pub(crate) trait Shape<'a>: Deserialize<'a> + Validate<Context = ()> {
    /// The path of the part in the event.
    const AT: &'static [&'static str];

    /// Moves the fields into the columns; `None` if one is missing.
    fn fill(self, reading: &mut Reading<'a>) -> Option<()>;
}

/// One reading of an event, with its results up to now.
pub(crate) struct Reading<'a> {
    pub columns: Columns<'a>,
    /// Paths of fields that are finer than their columns.
    pub inexact: Vec<&'static str>,
    /// Errors and unknown keys: present in the thorough pass alone, which goes on after an error.
    pub notes: Option<RefCell<Notes<'a>>>,
    /// True if a part is missing or wrong.
    pub failed: bool,
}

impl<'a> Reading<'a> {
    pub fn new(notes: Option<RefCell<Notes<'a>>>) -> Self {
        Self { columns: Columns::default(), inexact: Vec::new(), notes, failed: false }
    }

    /// Reads a part and fills its columns.
    pub fn shape<S: Shape<'a>>(&mut self, raw: &'a RawValue) {
        let shape: Option<S> = self.read(raw, S::AT);
        self.failed |= shape.and_then(|shape| shape.fill(self)).is_none();
    }

    /// An instant as its column keeps it.
    pub fn instant(&mut self, path: &'static str, at: Instant) -> i64 {
        if !at.exact {
            self.inexact.push(path);
        }
        at.micros
    }

    /// A number as its column keeps it.
    pub fn number(&mut self, path: &'static str, number: Number) -> i64 {
        if !number.exact {
            self.inexact.push(path);
        }
        number.nanos
    }

    /// Reads a typed value and validates it.
    pub fn read<S: Deserialize<'a> + Validate<Context = ()>>(
        &mut self,
        raw: &'a RawValue,
        at: &'static [&'static str],
    ) -> Option<S> {
        let Some(notes) = &self.notes else {
            let mut json = serde_json::Deserializer::from_str(raw.get());
            return object(&mut json).ok().filter(|value: &S| value.validate().is_ok());
        };
        let value: S = with_path(&Path::ROOT, at, |path| object(Lenient { raw, path, notes }).ok())?;
        if let Err(report) = value.validate() {
            let mut notes = notes.borrow_mut();
            for (below, error) in report.iter() {
                let path = at.iter().map(|segment| (*segment).to_owned());
                let below = below.to_string();
                let path = path.chain(below.split('.').map(camel_case)).collect::<Vec<_>>().join(".");
                notes.error(path, error);
            }
        }
        Some(value)
    }
}

fn with_path<T>(above: &Path<'_>, at: &[&str], run: impl FnOnce(Path<'_>) -> T) -> T {
    match at {
        [] => run(*above),
        [first, rest @ ..] => with_path(&above.join(first), rest, run),
    }
}

/// A field's name on the wire: `user_id` is `userId`.
fn camel_case(name: &str) -> String {
    let mut words = name.split('_');
    let mut camel = words.next().unwrap_or_default().to_owned();
    for word in words {
        let (first, rest) = word.split_at(word.len().min(1));
        camel.push_str(&first.to_ascii_uppercase());
        camel.push_str(rest);
    }
    camel
}
