//! Files of variables: `NAME=value`, a line each, read by dotenvy.
//!
//! Two things differ from dotenvy. `$` is not substituted: a secret that contains `$` would silently become another,
//! shorter one. Errors do not quote the file, which may hold secrets: they give the number of the line.

/// Replaces `$` while dotenvy reads, so that it substitutes nothing: a private-use character.
const DOLLAR: char = '\u{f8d0}';

/// A fault of a file of variables.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "line {line} is malformed: it must be NAME=value, with quotes closed, and a value that has blanks or \\ in '…'"
)]
pub struct EnvFileError {
    /// Line on which the faulty entry begins, starting at 1.
    pub line: usize,
}

/// Reads the variables of a file, in their order.
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
    // The faulty entry begins after the longest part, in whole lines, that has the entries before it and no fault.
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
    fn a_dollar_sign_is_not_substituted() {
        for (text, expected) in [
            ("A=pa$$word", "pa$$word"),
            ("A=$ecret", "$ecret"),
            ("A=\"${HOME}\"", "${HOME}"),
            ("A='$x'", "$x"),
            ("A=\\$x", "$x"),
            ("A='a\\\\$x'", "a\\\\$x"),
            ("A=\"a\\\\$x\"", "a\\$x"),
        ] {
            assert_eq!(value(text), expected, "{text}");
        }
    }

    #[test]
    fn an_error_gives_the_line_of_a_fault_and_never_its_text() {
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
