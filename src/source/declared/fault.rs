//! Mistakes of a source file, shown as a compiler shows them.

use std::fmt;

/// A mistake of a source file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Path of the file as it was given.
    pub file: String,
    /// Line, starting at 1.
    pub line: usize,
    /// Column in characters, starting at 1.
    pub column: usize,
    /// Number of characters that are marked, at least 1.
    pub length: usize,
    /// Text that was found and text that is expected.
    pub message: String,
    /// Text of the line.
    pub source_line: String,
}

/// Place in a file, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Place {
    /// Starting at 1.
    pub line: usize,
    /// Starting at 1.
    pub column: usize,
    /// Number of characters.
    pub length: usize,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column, length, message, source_line } = self;
        let number = line.to_string();
        let margin = " ".repeat(number.len());
        let shown = source_line.trim_end().replace('\t', " ");
        let left = shown.chars().count().saturating_sub(column - 1);
        let carets = "^".repeat((*length).min(left).max(1));
        writeln!(f, "error: {message}")?;
        writeln!(f, "{margin}--> {file}:{line}:{column}")?;
        writeln!(f, "{margin} |")?;
        writeln!(f, "{number} | {shown}")?;
        write!(f, "{margin} | {}{carets}", " ".repeat(column - 1))
    }
}

/// The known name that is nearest to an unknown one: at most a third of its letters differ, or two.
pub(super) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let most = (name.chars().count() / 3).max(2).min(name.chars().count() / 2);
    known
        .into_iter()
        .map(|other| (edits(name, other), other))
        .filter(|(edits, _)| *edits <= most)
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, other)| other)
}

/// Longest name that is compared, in characters.
const MAX_COMPARED: usize = 64;

/// Number of letters to insert, remove or replace (Levenshtein).
fn edits(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().take(MAX_COMPARED).collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (index, letter) in left.chars().take(MAX_COMPARED).enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for (column, other) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_shows_its_line_and_marks_its_place() {
        let fault = Fault {
            file: "a.yaml".to_owned(),
            line: 12,
            column: 3,
            length: 4,
            message: "unknown key `titel`, did you mean `title`?".to_owned(),
            source_line: "  titel: x".to_owned(),
        };
        let expected = "error: unknown key `titel`, did you mean `title`?\n  --> a.yaml:12:3\n   |\n\
                        12 |   titel: x\n   |   ^^^^";
        assert_eq!(fault.to_string(), expected);
    }

    #[test]
    fn the_nearest_name_is_near() {
        let known = ["title", "verify", "events"];
        assert_eq!(nearest("titel", known), Some("title"));
        assert_eq!(nearest("event", known), Some("events"));
        assert_eq!(nearest("verifiy", known), Some("verify"));
        assert_eq!(nearest("frobnicate", known), None);
        assert_eq!((edits("abc", ""), edits("", "ab"), edits("kitten", "sitting")), (3, 2, 3));
    }
}
