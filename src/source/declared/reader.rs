//! Reading of a file's parts, with all mistakes noted on the way.

use super::fault::{Fault, Place, nearest};
use super::pointer::Pointer;
use super::yaml::{Key, Kind, Node, Scalar};

/// Mistakes that were found.
pub(super) struct Faults<'a> {
    file: &'a str,
    text: &'a str,
    found: Vec<Fault>,
}

impl<'a> Faults<'a> {
    pub fn new(file: &'a str, text: &'a str) -> Self {
        Self { file, text, found: Vec::new() }
    }

    pub fn add(&mut self, place: Place, message: impl Into<String>) {
        let source_line = self.text.lines().nth(place.line.saturating_sub(1)).unwrap_or_default();
        self.found.push(Fault {
            file: self.file.to_owned(),
            line: place.line,
            column: place.column,
            length: place.length.max(1),
            message: message.into(),
            source_line: source_line.to_owned(),
        });
    }

    /// Adds a mistake inside a text of the file, at `offset` bytes of the text that was read.
    pub fn add_within(&mut self, node: &Node, offset: usize, length: usize, message: impl Into<String>) {
        let place = self.place_within(node, offset, length);
        self.add(place, message);
    }

    /// Place of a part of a text, where the file writes the text's line as it is; else the text's own place.
    fn place_within(&self, node: &Node, offset: usize, length: usize) -> Place {
        let Kind::Scalar(Scalar { text, .. }) = &node.kind else { return node.place };
        let offset = (0..=offset.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        let before = &text[..offset];
        let begin = before.rfind('\n').map_or(0, |at| at + 1);
        let (lines_before, column) = (before.matches('\n').count(), before[begin..].chars().count());
        let line_text = text[begin..].lines().next().unwrap_or_default();
        if line_text.trim().is_empty() {
            return node.place;
        }
        let from = node.place.line - 1;
        // A block begins one line below its sign, and keeps its lines.
        let candidates = [from + lines_before, from + 1 + lines_before];
        for line in candidates {
            let Some(of_file) = self.text.lines().nth(line) else { continue };
            let skip = if line == from { node.place.column - 1 } else { 0 };
            let skip_bytes: usize = of_file.chars().take(skip).map(char::len_utf8).sum();
            if let Some(at) = of_file[skip_bytes..].find(line_text) {
                let at = of_file[..skip_bytes + at].chars().count();
                return Place { line: line + 1, column: at + column + 1, length: length.max(1) };
            }
        }
        node.place
    }

    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// The mistakes in the order of the file.
    pub fn into_found(mut self) -> Vec<Fault> {
        self.found.sort_by_key(|fault| (fault.line, fault.column));
        self.found.dedup();
        self.found
    }

    /// Notes that a value is another than expected.
    pub fn expected(&mut self, node: &Node, expected: &str) {
        self.add(node.place, format!("{} stands where {expected} is expected", node.describe()));
    }
}

/// Entries of a mapping of the file.
pub(super) struct Fields<'n> {
    place: Place,
    /// The mapping's name in messages.
    name: &'static str,
    entries: Vec<(&'n Key, &'n Node)>,
}

impl<'n> Fields<'n> {
    /// Reads a mapping with these keys; others, and a key that comes twice, are noted.
    pub fn read(node: &'n Node, name: &'static str, known: &[&str], faults: &mut Faults<'_>) -> Option<Self> {
        let fields = Self::read_open(node, name, faults)?;
        for (key, _) in &fields.entries {
            if known.contains(&key.text.as_str()) {
                continue;
            }
            let hint = match nearest(&key.text, known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("expected one of {}", known.join(", ")),
            };
            faults.add(key.place, format!("unknown key `{}` in {name}: {hint}", key.text));
        }
        Some(fields)
    }

    /// Reads a mapping with keys of the author's own.
    pub fn read_open(node: &'n Node, name: &'static str, faults: &mut Faults<'_>) -> Option<Self> {
        let Kind::Mapping(entries) = &node.kind else {
            faults.expected(node, &format!("a mapping for {name}"));
            return None;
        };
        let mut kept: Vec<(&Key, &Node)> = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            match kept.iter().find(|(other, _)| other.text == key.text) {
                Some((first, _)) => {
                    let line = first.place.line;
                    faults.add(
                        key.place,
                        format!("the key `{}` comes twice: it stands in line {line}", key.text),
                    );
                }
                None => kept.push((key, value)),
            }
        }
        Some(Self { place: node.place, name, entries: kept })
    }

    pub fn entries(&self) -> impl Iterator<Item = (&'n Key, &'n Node)> + '_ {
        self.entries.iter().copied()
    }

    pub fn get(&self, name: &str) -> Option<&'n Node> {
        self.entries.iter().find(|(key, _)| key.text == name).map(|(_, node)| *node)
    }

    pub fn required(&self, name: &str, faults: &mut Faults<'_>) -> Option<&'n Node> {
        let found = self.get(name);
        if found.is_none() {
            faults.add(self.place, format!("`{name}` is missing in {}", self.name));
        }
        found
    }

    /// The text of a key that must be there.
    pub fn text(&self, name: &str, faults: &mut Faults<'_>) -> Option<String> {
        let node = self.required(name, faults)?;
        text(node, faults).map(str::to_owned)
    }

    /// The text of a key that may be there.
    pub fn optional_text(&self, name: &str, faults: &mut Faults<'_>) -> Option<String> {
        text(self.get(name)?, faults).map(str::to_owned)
    }
}

/// A text, a number or a word as text; anything else is noted.
pub(super) fn text<'n>(node: &'n Node, faults: &mut Faults<'_>) -> Option<&'n str> {
    match &node.kind {
        Kind::Scalar(scalar) if !matches!(scalar.json(), super::value::Value::Null) => Some(&scalar.text),
        _ => {
            faults.expected(node, "a text");
            None
        }
    }
}

/// Items of a list; anything else is noted.
pub(super) fn list<'n>(node: &'n Node, faults: &mut Faults<'_>) -> Option<&'n [Node]> {
    match &node.kind {
        Kind::Sequence(items) => Some(items),
        _ => {
            faults.expected(node, "a list");
            None
        }
    }
}

/// One of several words; anything else is noted, with the nearest word.
pub(super) fn word<T: Copy>(node: &Node, words: &[(&str, T)], faults: &mut Faults<'_>) -> Option<T> {
    let found = text(node, faults)?;
    if let Some((_, value)) = words.iter().find(|(word, _)| *word == found) {
        return Some(*value);
    }
    let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    let hint = match nearest(found, names.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("expected one of {}", names.join(", ")),
    };
    faults.add(node.place, format!("unknown word `{found}`: {hint}"));
    None
}

/// A JSON Pointer (RFC 6901); anything else is noted.
pub(super) fn pointer(node: &Node, faults: &mut Faults<'_>) -> Option<Pointer> {
    let found = text(node, faults)?;
    match Pointer::parse(found) {
        Ok(pointer) => Some(pointer),
        Err(message) => {
            faults.add(node.place, format!("`{found}` is no JSON Pointer: {message}"));
            None
        }
    }
}
