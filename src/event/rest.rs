//! The part of an event that no column holds exactly, as a JSON object in the event's own shape.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::json::lenient::Unknown;
use crate::json::walk::Walk;

/// Unknown keys, and values that are finer than their columns; `None` if there are neither.
pub(super) fn rest<'a>(
    raw: &'a RawValue,
    unknown: Vec<Unknown<'a>>,
    inexact: &[&'static str],
) -> Option<String> {
    let mut root = Tree::default();
    for path in inexact {
        let mut walk = Walk::new(raw);
        if path.split('.').all(|segment| walk.seek(segment)) {
            let (above, key) = path.rsplit_once('.').unwrap_or(("", path));
            let above = above.split('.').filter(|segment| !segment.is_empty());
            root.at(above).values.push((Cow::Borrowed(key), walk.value()));
        }
    }
    for (path, entries) in unknown {
        let values = entries.into_iter().map(|(key, value)| (key, value.get()));
        root.at(path.iter().map(String::as_str)).values.extend(values);
    }
    if root.values.is_empty() && root.trees.is_empty() {
        return None;
    }
    let mut text = String::new();
    root.write(&mut text);
    Some(text)
}

/// Values by path, to be written as one object. Only the objects of the contract become trees, five at most.
#[derive(Default)]
struct Tree<'a> {
    values: Vec<(Cow<'a, str>, &'a str)>,
    trees: Vec<(String, Tree<'a>)>,
}

impl<'a> Tree<'a> {
    /// The tree at a path, made where it is missing.
    fn at<'p>(&mut self, path: impl Iterator<Item = &'p str>) -> &mut Self {
        path.fold(self, |tree, key| {
            let known = tree.trees.iter().position(|(name, _)| name == key);
            let at = known.unwrap_or_else(|| {
                tree.trees.push((key.to_owned(), Self::default()));
                tree.trees.len() - 1
            });
            &mut tree.trees[at].1
        })
    }

    fn write(&self, to: &mut String) {
        let mut first = '{';
        let mut key = |key: &str, to: &mut String| {
            to.push(first);
            first = ',';
            to.push_str(&serde_json::to_string(key).unwrap_or_default());
            to.push(':');
        };
        for (name, value) in &self.values {
            key(name, to);
            to.push_str(value);
        }
        for (name, tree) in &self.trees {
            key(name, to);
            tree.write(to);
        }
        to.push_str(if first == '{' { "{}" } else { "}" });
    }
}
