//! JSON Schema (2020-12) of one event.

use jsonschema::error::ValidationErrorKind;
use jsonschema::{Draft, PatternOptions, ValidationError, Validator};

use super::pointer::dotted;
use super::reader::Faults;
use super::value::Value;
use super::yaml::{Kind, Node};
use crate::json::FieldError;

/// A compiled schema.
pub(super) struct Schema(Validator);

impl std::fmt::Debug for Schema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Schema").finish_non_exhaustive()
    }
}

/// Most errors of one event that are told.
const MAX_ERRORS: usize = 100;

/// Largest compiled pattern, in bytes.
const MAX_PATTERN: usize = 1024 * 1024;

impl Schema {
    /// Compiles `schema`. References lead to the schema's own parts alone.
    pub fn read(node: &Node, faults: &mut Faults<'_>) -> Option<Self> {
        let value = match node.json() {
            Ok(value) => value,
            Err((place, message)) => {
                faults.add(place, message);
                return None;
            }
        };
        // Patterns are matched in linear time: bodies are others'.
        let patterns = PatternOptions::regex().size_limit(MAX_PATTERN);
        let options =
            jsonschema::options().with_draft(Draft::Draft202012).offline().should_validate_formats(true);
        match options.with_pattern_options(patterns).build(&to_serde(&value)) {
            Ok(validator) => Some(Self(validator)),
            Err(error) => {
                let at = error.instance_path().to_string();
                let node =
                    at.split('/').skip(1).try_fold(node, |node, part| step(node, part)).unwrap_or(node);
                let path = if at.is_empty() { String::new() } else { format!(" at {at}") };
                faults.add(node.place, format!("no JSON Schema{path}: {}", message(&error)));
                None
            }
        }
    }

    /// Errors of an event, each at its path; none if it is valid.
    pub fn errors(&self, event: &Value) -> Vec<FieldError> {
        let event = to_serde(event);
        if self.0.is_valid(&event) {
            return Vec::new();
        }
        let mut errors: Vec<FieldError> =
            self.0.iter_errors(&event).take(MAX_ERRORS).flat_map(at_paths).collect();
        errors.dedup();
        errors
    }
}

/// Value of the file at a part of a pointer.
fn step<'n>(node: &'n Node, part: &str) -> Option<&'n Node> {
    match &node.kind {
        Kind::Mapping(entries) => entries.iter().find(|(key, _)| key.text == part).map(|(_, node)| node),
        Kind::Sequence(items) => items.get(part.parse::<usize>().ok()?),
        Kind::Scalar(_) => None,
    }
}

/// An error of the schema at the path of what is wrong: a missing member's own, not its object's.
fn at_paths(error: ValidationError<'_>) -> Vec<FieldError> {
    let path = dotted(&error.instance_path().to_string());
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match error.kind() {
        ValidationErrorKind::Required { property } => {
            let name = property.as_str().unwrap_or_default();
            vec![FieldError { path: below(name), message: super::reason::MISSING.to_owned() }]
        }
        ValidationErrorKind::AdditionalProperties { unexpected }
        | ValidationErrorKind::UnevaluatedProperties { unexpected } => unexpected
            .iter()
            .map(|name| FieldError { path: below(name), message: "is not expected".to_owned() })
            .collect(),
        _ => vec![FieldError { message: message(&error), path }],
    }
}

/// The reason, without the value that it is about: that can be long, and personal.
fn message(error: &ValidationError<'_>) -> String {
    let message = error.masked_with("the value").to_string();
    message.chars().take(300).collect()
}

/// The value as serde_json's. Numbers beyond an `i64` become floats, which is enough to compare them with bounds.
fn to_serde(value: &Value) -> serde_json::Value {
    use serde_json::Value as Serde;
    match value {
        Value::Null => Serde::Null,
        Value::Bool(value) => Serde::Bool(*value),
        Value::Int(number) => Serde::Number((*number).into()),
        Value::Float(_) | Value::Number(_) => {
            let whole = match value {
                Value::Number(text) => text.parse::<u64>().ok(),
                _ => None,
            };
            match whole {
                Some(number) => Serde::Number(number.into()),
                None => {
                    value.as_f64().and_then(serde_json::Number::from_f64).map_or(Serde::Null, Serde::Number)
                }
            }
        }
        Value::Text(text) => Serde::String(text.to_string()),
        Value::Array(array) => Serde::Array(array.items.iter().map(to_serde).collect()),
        Value::Object(object) => Serde::Object(
            object.members.iter().map(|(key, value)| (key.to_string(), to_serde(value))).collect(),
        ),
    }
}
