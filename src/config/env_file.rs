//! Reads the files of variables: `NAME=value`, a line each, by dotenvy.
//!
//! Two things differ from dotenvy alone. `$` stands for itself, for a secret with a `$` in it must not become another,
//! shorter one. No error quotes the file, for it may hold secrets: an error names the line by its number.

/// Stands for `$` while dotenvy reads, so that it substitutes nothing. A private-use character that no file has.
const DOLLAR: char = '\u{f8d0}';

/// A fault of a file of variables.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "line {line} is not NAME=value, or a quote is not closed, or blanks or a \\ in the value are not quoted"
)]
pub(super) struct EnvFileError {
    /// Number of the line, from 1, on which the faulty entry begins.
    pub line: usize,
}

/// The variables of a file, in their order.
pub(super) fn entries(text: &str) -> Result<Vec<(String, String)>, EnvFileError> {
    let text = without_substitutions(text.strip_prefix('\u{feff}').unwrap_or(text));
    let read = |text: &str| {
        let mut entries = Vec::new();
        for entry in dotenvy::from_read_iter(text.as_bytes()) {
            match entry {
                Ok((name, value)) => entries.push((name, value.replace(DOLLAR, "$"))),
                Err(_) => return (entries, true),
            }
        }
        (entries, false)
    };
    let (entries, faulty) = read(&text);
    if !faulty {
        return Ok(entries);
    }
    // The longest part of the file, in whole lines, that holds the entries before the faulty one and no fault.
    let ends: Vec<usize> = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
    let whole = |end: &usize| read(&text[..*end]) == (entries.clone(), false);
    Err(EnvFileError { line: ends.iter().rposition(whole).unwrap_or(0) + 1 })
}

/// The text with [`DOLLAR`] in place of each `$` that no backslash escapes.
fn without_substitutions(text: &str) -> String {
    let mut escaped = false;
    let replaced = |letter: char| {
        let dollar = letter == '$' && !escaped;
        escaped = letter == '\\' && !escaped;
        if dollar { DOLLAR } else { letter }
    };
    text.chars().map(replaced).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Vec<(String, String)> {
        entries(text).unwrap_or_else(|error| panic!("{text:?}: {error}"))
    }

    fn value(text: &str) -> String {
        read(text).swap_remove(0).1
    }

    #[test]
    fn values_are_read_as_dotenv_files_have_them() {
        let text = "\u{feff}# first\r\n\r\nA=1\r\nexport B = two # why\n C='a #b' \nD=\"x\\n\\\"y\\\"\"\nE=\nF=a#b\n\
                    G='one\ntwo'\nexport=x\nH=#nothing\nI.j=a\\ b";
        let found: Vec<(String, String)> = read(text);
        let expected = [
            ("A", "1"),
            ("B", "two"),
            ("C", "a #b"),
            ("D", "x\n\"y\""),
            ("E", ""),
            ("F", "a#b"),
            ("G", "one\ntwo"),
            ("export", "x"),
            ("H", ""),
            ("I.j", "a b"),
        ];
        assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn a_dollar_stands_for_itself() {
        for (text, told) in [
            ("A=pa$$word", "pa$$word"),
            ("A=$ecret", "$ecret"),
            ("A=\"${HOME}\"", "${HOME}"),
            ("A='$x'", "$x"),
            ("A=\\$x", "$x"),
            ("A='a\\\\$x'", "a\\\\$x"),
            ("A=\"a\\\\$x\"", "a\\$x"),
        ] {
            assert_eq!(value(text), told, "{text}");
        }
    }

    #[test]
    fn a_fault_is_told_by_its_line_and_never_by_its_text() {
        for (text, line) in [
            ("A=1\nTOKEN=\"hunter2\nB=2\n", 2),
            ("hunter2\n", 1),
            ("\n\nTOKEN hunter2", 3),
            ("A='x\ny'\nTOKEN=hunter2 hunter3", 3),
            ("TOKEN=hunter2\\", 1),
            ("TOKEN=hunter2\\q", 1),
            ("1hunter2=x", 1),
            ("TOKEN='hunter2", 1),
        ] {
            let error = entries(text).expect_err(text);
            assert_eq!(error.line, line, "{text:?}: {error}");
            assert!(!error.to_string().contains("hunter"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn reading_ends_and_never_panics(text in "[A-Z=\\\\'\"$# \n\r\u{feff}x]{0,60}") {
            let _ = entries(&text).is_ok();
        }
    }
}
