//! YAML with the place of every key and value.
//!
//! Source files use mappings, sequences, scalars, anchors and aliases of YAML 1.2. Tags and several documents are
//! faults.

use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span};

use super::fault::Place;
use super::value::{Members, Value};

/// A value of the file, with its place.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub place: Place,
    pub kind: Kind,
}

#[derive(Debug, Clone)]
pub(super) enum Kind {
    Scalar(Scalar),
    Sequence(Vec<Node>),
    /// Entries in the order of the file. A key is always a scalar.
    Mapping(Vec<(Key, Node)>),
}

#[derive(Debug, Clone)]
pub(super) struct Scalar {
    pub text: String,
    pub style: Style,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// Without quotes: a number, a word or null where it looks like one.
    Plain,
    Quoted,
    /// `|` or `>`.
    Block,
}

#[derive(Debug, Clone)]
pub(super) struct Key {
    pub place: Place,
    pub text: String,
}

/// Deepest nesting of a file.
const MAX_DEPTH: usize = 64;

/// Most values of a file, those that aliases stand for included.
const MAX_NODES: usize = 100_000;

/// Reads a file, or returns the place where it is no YAML and the reason.
pub(super) fn read(text: &str) -> Result<Node, (Place, String)> {
    let mut parser = Parser::new_from_str(text);
    let mut reader = Reader { parser: &mut parser, anchors: HashMap::new(), nodes: 0 };
    let node = reader.document()?;
    Ok(node)
}

struct Reader<'p, 'i> {
    parser: &'p mut Parser<'i, saphyr_parser::StrInput<'i>>,
    /// Values with an anchor, by its number.
    anchors: HashMap<usize, Node>,
    nodes: usize,
}

type Found<T> = Result<T, (Place, String)>;

fn at(marker: &Marker) -> Place {
    Place { line: marker.line().max(1), column: marker.col() + 1, length: 1 }
}

fn place(span: &Span) -> Place {
    let on_one_line = span.start.line() == span.end.line();
    let length = if on_one_line { span.len().max(1) } else { 1 };
    Place { length, ..at(&span.start) }
}

impl<'i> Reader<'_, 'i> {
    fn next(&mut self) -> Found<(Event<'i>, Span)> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err((at(error.marker()), format!("no YAML: {}", error.info()))),
            None => Err((Place { line: 1, column: 1, length: 1 }, "the file ends too early".to_owned())),
        }
    }

    fn document(&mut self) -> Found<Node> {
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamStart | Event::DocumentEnd | Event::Nothing => {}
                Event::DocumentStart(_) if root.is_none() => {
                    let (event, span) = self.next()?;
                    root = Some(self.node(event, &span, 0)?);
                }
                Event::StreamEnd => {
                    let empty = || (Place { line: 1, column: 1, length: 1 }, "the file is empty".to_owned());
                    return root.ok_or_else(empty);
                }
                _ => {
                    return Err((
                        place(&span),
                        "a source file is one document, but another begins".to_owned(),
                    ));
                }
            }
        }
    }

    /// The items of a sequence at a depth, up to its end.
    fn items(&mut self, depth: usize) -> Found<Vec<Node>> {
        let mut items = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::SequenceEnd) {
                return Ok(items);
            }
            items.push(self.node(event, &span, depth + 1)?);
        }
    }

    /// The entries of a mapping at a depth, up to its end.
    fn entries(&mut self, depth: usize) -> Found<Vec<(Key, Node)>> {
        let mut entries = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::MappingEnd) {
                return Ok(entries);
            }
            let key = self.node(event, &span, depth + 1)?;
            let Kind::Scalar(Scalar { text, .. }) = key.kind else {
                return Err((key.place, "a key must be a name".to_owned()));
            };
            let (event, span) = self.next()?;
            let value = self.node(event, &span, depth + 1)?;
            entries.push((Key { place: key.place, text }, value));
        }
    }

    fn node(&mut self, event: Event<'i>, span: &Span, depth: usize) -> Found<Node> {
        let refuse = |message: &str| Err((place(span), message.to_owned()));
        if depth > MAX_DEPTH {
            return refuse("values nest too deep");
        }
        self.nodes += 1;
        let anchor = match &event {
            Event::Scalar(_, _, anchor, _)
            | Event::SequenceStart(anchor, _)
            | Event::MappingStart(anchor, _) => *anchor,
            _ => 0,
        };
        let node = match event {
            Event::Scalar(.., Some(_))
            | Event::SequenceStart(_, Some(_))
            | Event::MappingStart(_, Some(_)) => {
                return refuse("tags (!) are not supported");
            }
            Event::Scalar(text, style, ..) => {
                let style = match style {
                    ScalarStyle::Plain => Style::Plain,
                    ScalarStyle::Literal | ScalarStyle::Folded => Style::Block,
                    ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => Style::Quoted,
                };
                let scalar = Scalar { text: text.into_owned(), style };
                Node { place: place(span), kind: Kind::Scalar(scalar) }
            }
            Event::SequenceStart(..) => {
                Node { place: at(&span.start), kind: Kind::Sequence(self.items(depth)?) }
            }
            Event::MappingStart(..) => {
                Node { place: at(&span.start), kind: Kind::Mapping(self.entries(depth)?) }
            }
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor) else { return refuse("the anchor is not known") };
                self.nodes += node.count();
                Node { place: place(span), kind: node.kind.clone() }
            }
            _ => return refuse("a value is expected"),
        };
        if self.nodes > MAX_NODES {
            return refuse("the file holds more than 100,000 values");
        }
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }
}

impl Node {
    /// Number of values, this one included.
    fn count(&self) -> usize {
        1 + match &self.kind {
            Kind::Scalar(_) => 0,
            Kind::Sequence(items) => items.iter().map(Self::count).sum(),
            Kind::Mapping(entries) => entries.iter().map(|(_, value)| value.count()).sum(),
        }
    }

    /// Words for the value in messages, such as ``the text `abc` ``.
    pub fn describe(&self) -> String {
        match &self.kind {
            Kind::Mapping(_) => "a mapping".to_owned(),
            Kind::Sequence(_) => "a list".to_owned(),
            Kind::Scalar(scalar) => match scalar.json() {
                Value::Null => "nothing".to_owned(),
                Value::Text(text) => format!("the text `{}`", shortened(&text)),
                other => format!("`{other}`"),
            },
        }
    }

    /// The value as JSON. The error is the place of a key that comes twice.
    pub fn json(&self) -> Result<Value, (Place, String)> {
        Ok(match &self.kind {
            Kind::Scalar(scalar) => scalar.json(),
            Kind::Sequence(items) => Value::array(items.iter().map(Self::json).collect::<Result<_, _>>()?),
            Kind::Mapping(entries) => {
                let mut members = Members::new();
                for (key, value) in entries {
                    if members.insert(key.text.as_str().into(), value.json()?).is_some() {
                        return Err((key.place, format!("the key `{}` comes twice", key.text)));
                    }
                }
                Value::object(members)
            }
        })
    }
}

impl Scalar {
    /// The value by the core schema of YAML 1.2.
    pub fn json(&self) -> Value {
        if self.style != Style::Plain {
            return Value::text(&self.text);
        }
        match self.text.as_str() {
            "" | "~" | "null" | "Null" | "NULL" => Value::Null,
            "true" | "True" | "TRUE" => Value::Bool(true),
            "false" | "False" | "FALSE" => Value::Bool(false),
            text => Value::number(text).unwrap_or_else(|| Value::text(text)),
        }
    }
}

/// At most 40 characters of a text, on one line.
pub(super) fn shortened(text: &str) -> String {
    const MOST: usize = 40;
    let line: String = text.chars().take(MOST).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().count() > MOST { format!("{line}…") } else { line }
}
