//! Texts of a bounded length, as JSON writes them.

use std::fmt;

/// A text that ends at a bound: `…` then stands for the rest, and writing more is an error, so that nothing
/// is formatted in vain.
pub(crate) struct Bounded {
    pub text: String,
    /// Bytes that are left, as JSON writes them.
    left: usize,
    cut: bool,
}

/// Bytes of the mark that a text was cut.
const ELLIPSIS: char = '…';

impl Bounded {
    /// A text of at most `most` bytes, escapes counted.
    pub fn new(most: usize) -> Self {
        Self { text: String::new(), left: most.saturating_sub(ELLIPSIS.len_utf8()), cut: false }
    }
}

impl fmt::Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for char in text.chars() {
            let bytes = char_bytes(char);
            if self.cut || bytes > self.left {
                if !self.cut {
                    self.cut = true;
                    self.text.push(ELLIPSIS);
                }
                return Err(fmt::Error);
            }
            self.left -= bytes;
            self.text.push(char);
        }
        Ok(())
    }
}

/// Bytes of a character in a JSON string.
fn char_bytes(char: char) -> usize {
    match char {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        '\0'..='\u{1f}' => 6,
        _ => char.len_utf8(),
    }
}

/// Bytes of a text in a JSON string, without its quotes.
pub(crate) fn json_bytes(text: &str) -> usize {
    text.chars().map(char_bytes).sum()
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_text_is_longer_in_json_than_its_bound(text in any::<String>(), most in 3_usize..200) {
            let mut bounded = Bounded::new(most);
            let whole = bounded.write_str(&text).is_ok();
            let written = serde_json::to_string(&bounded.text).unwrap().len() - 2;
            prop_assert!(written <= most, "{written}");
            prop_assert_eq!(written, json_bytes(&bounded.text));
            prop_assert_eq!(whole, bounded.text == text);
        }
    }
}
