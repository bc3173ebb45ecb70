//! Mistakes of a filter's author.

/// A mistake in a filter's text, with its place in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    pub at: usize,
    pub length: usize,
    pub message: String,
}

/// Place of a part of the filter's text; the whole begins at 0 for a part of another text.
fn place(text: &str, part: &str) -> (usize, usize) {
    let (from, at) = (text.as_ptr().addr(), part.as_ptr().addr());
    match at.checked_sub(from).filter(|at| *at <= text.len()) {
        Some(at) => (at, part.chars().take_while(|char| !char.is_whitespace()).count().max(1)),
        None => (0, 1),
    }
}

/// A mistake at a part of the text.
pub(super) fn mistake(text: &str, part: &str, message: String) -> Mistake {
    let (at, length) = place(text, part);
    Mistake { at, length, message }
}
