//! The elements of a body: of an array each, else the one value.

use std::ops::Range;

use serde::Deserialize;
use serde_json::value::RawValue;

/// The position at which a slice of a body begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Cursor {
    /// In bytes.
    offset: usize,
    /// Events before it.
    index: usize,
    /// True within an array.
    in_array: bool,
}

impl Cursor {
    /// Position in the body, in bytes.
    pub fn offset(self) -> usize {
        self.offset
    }

    /// Number of events before it.
    pub fn index(self) -> usize {
        self.index
    }

    /// The next element of a body; `None` at the body's end. The cursor goes behind it.
    pub fn next_element(&mut self, body: &[u8]) -> Result<Option<Range<usize>>, String> {
        let element = element(body, self)?;
        self.index += usize::from(element.is_some());
        Ok(element)
    }
}

/// The next element; `None` at the body's end. The cursor goes behind it.
fn element(body: &[u8], cursor: &mut Cursor) -> Result<Option<Range<usize>>, String> {
    let mut at = skip_space(body, if cursor.index == 0 { begin(body)? } else { cursor.offset });
    if cursor.index == 0 {
        match body.get(at) {
            Some(b'{') => {}
            Some(b'[') => {
                cursor.in_array = true;
                at = skip_space(body, at + 1);
                if body.get(at) == Some(&b']') {
                    return end(body, at + 1).map(|()| None);
                }
            }
            Some(_) => return Err(format!("neither an object nor an array: at byte {at}")),
            None => return Err("the body is empty".to_owned()),
        }
    } else if cursor.in_array {
        match body.get(at) {
            Some(b',') => at = skip_space(body, at + 1),
            Some(b']') => return end(body, at + 1).map(|()| None),
            Some(_) => return Err(format!("unexpected character at byte {at}")),
            None => return Err("the array does not end".to_owned()),
        }
    } else {
        // After a single object nothing may follow.
        return end(body, at).map(|()| None);
    }
    let mut reader = serde_json::Deserializer::from_slice(&body[at..]);
    let raw = <&RawValue>::deserialize(&mut reader).map_err(|error| describe(&error, at))?;
    let element = at..at + raw.get().len();
    cursor.offset = element.end;
    if !cursor.in_array {
        // Whatever follows a single object makes the body something else, and it counts for nothing.
        end(body, element.end)?;
    }
    Ok(Some(element))
}

/// The beginning of the JSON: a byte order mark before it is passed over, as RFC 8259 allows (8.1).
fn begin(body: &[u8]) -> Result<usize, String> {
    let first = &body[..body.len().min(4)];
    if first.starts_with(b"\xef\xbb\xbf") {
        return Ok(3);
    }
    // No text in UTF-8 has these; each in UTF-16 or UTF-32 does, for JSON begins with an ASCII character.
    if first.contains(&0) || first.starts_with(b"\xff\xfe") || first.starts_with(b"\xfe\xff") {
        return Err("it is in UTF-16 or UTF-32, and must be in UTF-8 (RFC 8259, 8.1)".to_owned());
    }
    Ok(0)
}

/// Nothing but space may follow.
fn end(body: &[u8], at: usize) -> Result<(), String> {
    let at = skip_space(body, at);
    if at < body.len() { Err(format!("something follows the value at byte {at}")) } else { Ok(()) }
}

fn skip_space(body: &[u8], from: usize) -> usize {
    let space = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
    from + body[from.min(body.len())..].iter().take_while(|byte| space(byte)).count()
}

fn describe(error: &serde_json::Error, at: usize) -> String {
    let text = error.to_string();
    let what = text.rfind(" at line ").map_or(text.as_str(), |end| &text[..end]);
    if error.line() == 1 {
        format!("{what} at byte {}", at + error.column())
    } else {
        format!("{what} after byte {at}")
    }
}
