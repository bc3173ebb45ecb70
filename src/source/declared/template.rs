//! Templates such as `{timestamp}.{body}`: texts with places in braces.

/// A template of texts and places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template<P>(pub Vec<Part<P>>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part<P> {
    Text(String),
    Place(P),
}

impl<P> Template<P> {
    /// Reads a template; `place` reads what stands in braces. The error says what is wrong.
    pub fn parse(text: &str, place: impl Fn(&str) -> Option<P>, places: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find('{') {
            if at > 0 {
                parts.push(Part::Text(rest[..at].to_owned()));
            }
            let Some(end) = rest[at..].find('}') else { return Err("a { has no }".to_owned()) };
            let name = &rest[at + 1..at + end];
            match place(name) {
                Some(place) => parts.push(Part::Place(place)),
                None => return Err(format!("{{{name}}} is unknown: expected {places}")),
            }
            rest = &rest[at + end + 1..];
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Self(parts))
    }
}
