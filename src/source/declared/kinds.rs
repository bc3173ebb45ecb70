//! Types of events and their stages, as a file declares them.

use std::collections::HashMap;
use std::sync::Arc;

use super::fault::{Place, nearest};
use super::origin::{Errors, Origin, first, is_there, origins};
use super::reader::{Faults, Fields, list, text, word};
use super::value::Value;
use super::yaml::{Kind, Node};
use crate::source::FunnelStage;
use crate::source::canonical::is_type_name;

#[derive(Debug)]
pub(super) enum TypeRule {
    Constant(Arc<str>),
    /// A closed set of words; others are of the type `otherwise`, or refused.
    Words {
        at: Vec<Origin>,
        words: HashMap<String, Arc<str>>,
        otherwise: Option<Arc<str>>,
    },
}

#[derive(Debug)]
pub(super) struct StageRule {
    by_type: HashMap<Arc<str>, FunnelStage>,
    otherwise: Option<FunnelStage>,
}

const STAGES: [(&str, FunnelStage); 2] = [("top", FunnelStage::TOP), ("bottom", FunnelStage::BOTTOM)];

impl TypeRule {
    pub fn read(node: &Node, faults: &mut Faults<'_>) -> Option<Self> {
        if !matches!(node.kind, Kind::Mapping(_)) {
            faults.expected(node, "{value: NAME}, or {at: POINTER, words: {…}, else: other | refuse},");
            return None;
        }
        let fields = Fields::read(node, "type", &["value", "at", "words", "else"], faults)?;
        match (fields.get("value"), fields.get("at")) {
            (Some(node), None) => {
                let name = type_name(node, faults)?;
                for (key, _) in fields.entries().filter(|(key, _)| key.text != "value") {
                    faults.add(key.place, format!("`{}` has no use beside `value`", key.text));
                }
                Some(Self::Constant(name))
            }
            (None, Some(at)) => {
                let at = origins(at, faults);
                let words = fields.required("words", faults).and_then(|node| words(node, faults));
                let otherwise = match fields.get("else") {
                    None => None,
                    Some(node) => match text(node, faults)? {
                        "other" => Some("other".into()),
                        "refuse" => None,
                        found => {
                            faults.add(
                                node.place,
                                format!("unknown word `{found}`: expected one of other, refuse"),
                            );
                            None
                        }
                    },
                };
                Some(Self::Words { at: at?, words: words?, otherwise })
            }
            _ => {
                faults.add(node.place, "type has exactly one of value, at");
                None
            }
        }
    }

    pub fn types(&self) -> Vec<Arc<str>> {
        let mut types: Vec<Arc<str>> = match self {
            Self::Constant(name) => vec![name.clone()],
            Self::Words { words, otherwise, .. } => words.values().chain(otherwise).cloned().collect(),
        };
        types.sort_unstable();
        types.dedup();
        types
    }

    pub fn of(&self, event: &Value, errors: &mut Errors) -> Option<&Arc<str>> {
        let (at, words, otherwise) = match self {
            Self::Constant(name) => return Some(name),
            Self::Words { at, words, otherwise } => (at, words, otherwise),
        };
        let Some(found) = first(at, event, is_there) else {
            return otherwise.as_ref().or_else(|| errors.missing(at, "type"));
        };
        let known = match &found.value {
            Value::Text(text) => words.get(&**text),
            Value::Array(_) | Value::Object(_) => None,
            other => words.get(&other.to_json()),
        };
        known
            .or(otherwise.as_ref())
            .or_else(|| errors.take(at, Err(found.wrong("is a word that the source does not know"))))
    }
}

impl StageRule {
    pub fn read(node: &Node, types: Option<&[Arc<str>]>, faults: &mut Faults<'_>) -> Option<Self> {
        if !matches!(node.kind, Kind::Mapping(_)) {
            faults.expected(node, "{value: top | bottom}, or {by_type: {…}, else: top | bottom},");
            return None;
        }
        let fields = Fields::read(node, "stage", &["value", "by_type", "else"], faults)?;
        if let Some(node) = fields.get("value") {
            for (key, _) in fields.entries().filter(|(key, _)| key.text != "value") {
                faults.add(key.place, format!("`{}` has no use beside `value`", key.text));
            }
            return Some(Self { by_type: HashMap::new(), otherwise: Some(word(node, &STAGES, faults)?) });
        }
        let otherwise = match fields.get("else") {
            None => None,
            Some(node) => Some(word(node, &STAGES, faults)?),
        };
        let by_type_node = fields.required("by_type", faults)?;
        let mut by_type: HashMap<Arc<str>, FunnelStage> = HashMap::new();
        for (key, node) in Fields::read_open(by_type_node, "by_type", faults)?.entries() {
            if let Some(types) = types {
                is_type(&key.text, key.place, types, faults);
            }
            if let Some(stage) = word(node, &STAGES, faults) {
                by_type.insert(key.text.as_str().into(), stage);
            }
        }
        if otherwise.is_none() {
            for name in types.unwrap_or_default().iter().filter(|name| !by_type.contains_key(*name)) {
                faults.add(
                    by_type_node.place,
                    format!("the type `{name}` has no stage: name it here, or add `else`"),
                );
            }
        }
        Some(Self { by_type, otherwise })
    }

    pub fn of(&self, event_type: &Arc<str>) -> Option<FunnelStage> {
        self.by_type.get(event_type).copied().or(self.otherwise)
    }
}

/// Words of a closed set: a mapping to types, or a list of words that stand for themselves.
fn words(node: &Node, faults: &mut Faults<'_>) -> Option<HashMap<String, Arc<str>>> {
    if let Kind::Sequence(items) = &node.kind {
        let read: Vec<_> = items.iter().map(|item| type_name(item, faults)).collect();
        return read.into_iter().map(|name| name.map(|name| (name.to_string(), name))).collect();
    }
    let mut words = HashMap::new();
    for (key, node) in Fields::read_open(node, "words", faults)?.entries() {
        if let Some(name) = type_name(node, faults) {
            words.insert(key.text.clone(), name);
        }
    }
    if words.is_empty() {
        faults.add(node.place, "a closed set has at least one word");
        return None;
    }
    Some(words)
}

/// Name of a type: it becomes a word of reports.
fn type_name(node: &Node, faults: &mut Faults<'_>) -> Option<Arc<str>> {
    let name = text(node, faults)?;
    if is_type_name(name) {
        return Some(name.into());
    }
    faults.add(
        node.place,
        format!("`{name}` is no name of a type: expected up to 64 of a-z, 0-9, `.`, `_`, `-`"),
    );
    None
}

fn is_type(name: &str, place: Place, types: &[Arc<str>], faults: &mut Faults<'_>) -> bool {
    let known = types.iter().any(|known| **known == *name);
    if !known {
        let names: Vec<&str> = types.iter().map(|name| &**name).collect();
        let hint = match nearest(name, names.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("expected one of {}", names.join(", ")),
        };
        faults.add(place, format!("`{name}` is no type of this source: {hint}"));
    }
    known
}

pub(super) fn revenue_types(
    node: &Node,
    types: Option<&[Arc<str>]>,
    faults: &mut Faults<'_>,
) -> Option<Vec<Arc<str>>> {
    let mut revenue = Vec::new();
    for item in list(node, faults)? {
        let name = text(item, faults)?;
        if types.is_none_or(|types| is_type(name, item.place, types, faults)) {
            revenue.push(name.into());
        }
    }
    Some(revenue)
}
