//! Reads the files of variables: `NAME=value`, a line each.
//!
//! The format is that of dotenv files, but for one thing: `$` stands for itself, for a secret with a `$` in it
//! must not become another, shorter one. No error quotes the file: it may hold secrets.
//!
//! ```text
//! # a comment
//! export NAME=value        # `export` is optional, a comment may stand behind a blank
//! NAME='as it is, over several lines too'
//! NAME="with \" \\ \' \$ \n, over several lines too"
//! ```

use std::iter::Peekable;
use std::str::Chars;

/// A fault of a file of variables.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {fault}")]
pub(super) struct EnvFileError {
    /// Number of the line, from 1, on which the faulty entry begins.
    pub line: usize,
    fault: &'static str,
}

/// A file of variables, read from its first character to its last.
struct Reader<'a> {
    rest: Peekable<Chars<'a>>,
    line: usize,
}

/// The variables of a file, in their order.
pub(super) fn entries(text: &str) -> Result<Vec<(String, String)>, EnvFileError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = Reader { rest: text.chars().peekable(), line: 1 };
    let mut entries = Vec::new();
    loop {
        while reader.rest.next_if(|next| next.is_whitespace()).is_some_and(|next| reader.passed(next)) {}
        let line = reader.line;
        match reader.rest.peek() {
            None => return Ok(entries),
            Some('#') => reader.skip_line(),
            Some(_) => {
                let entry = reader.entry().map_err(|fault| EnvFileError { line, fault })?;
                entries.push(entry);
            }
        }
    }
}

impl Reader<'_> {
    /// Counts lines; always true.
    fn passed(&mut self, passed: char) -> bool {
        self.line += usize::from(passed == '\n');
        true
    }

    fn next(&mut self) -> Option<char> {
        let next = self.rest.next()?;
        self.passed(next);
        Some(next)
    }

    fn skip_line(&mut self) {
        while self.next().is_some_and(|next| next != '\n') {}
    }

    fn skip_blanks(&mut self) {
        while self.rest.next_if(|next| matches!(next, ' ' | '\t')).is_some() {}
    }

    fn entry(&mut self) -> Result<(String, String), &'static str> {
        let mut name = self.name()?;
        self.skip_blanks();
        if name == "export" && self.rest.peek() != Some(&'=') {
            name = self.name()?;
            self.skip_blanks();
        }
        if self.rest.next_if_eq(&'=').is_none() {
            return Err("there is no `=` behind the name");
        }
        self.skip_blanks();
        Ok((name, self.value()?))
    }

    fn name(&mut self) -> Result<String, &'static str> {
        let mut name = String::new();
        while let Some(next) =
            self.rest.next_if(|next| next.is_ascii_alphanumeric() || matches!(next, '_' | '.'))
        {
            name.push(next);
        }
        if name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_') {
            Ok(name)
        } else {
            Err("it does not begin with the name of a variable")
        }
    }

    fn value(&mut self) -> Result<String, &'static str> {
        let mut value = String::new();
        if self.rest.peek() == Some(&'#') {
            self.skip_line();
            return Ok(value);
        }
        loop {
            match self.next() {
                None | Some('\n') => return Ok(value),
                Some('\r') if matches!(self.rest.peek(), None | Some('\n')) => {}
                Some(' ' | '\t') => return self.end_of_line().map(|()| value),
                Some('\'') => loop {
                    match self.next().ok_or("a ' is not closed")? {
                        '\'' => break,
                        next => value.push(next),
                    }
                },
                Some('"') => loop {
                    match self.next().ok_or("a \" is not closed")? {
                        '"' => break,
                        '\\' => value.push(self.escaped()?),
                        next => value.push(next),
                    }
                },
                Some('\\') => value.push(self.escaped()?),
                Some(next) => value.push(next),
            }
        }
    }

    fn escaped(&mut self) -> Result<char, &'static str> {
        match self.next() {
            Some('n') => Ok('\n'),
            Some(escaped @ ('\\' | '\'' | '"' | '$' | ' ')) => Ok(escaped),
            _ => Err("behind a \\ must stand one of \\ ' \" $ n or a blank (in '…' a \\ stands for itself)"),
        }
    }

    /// What may stand behind a value: blanks, and a comment.
    fn end_of_line(&mut self) -> Result<(), &'static str> {
        loop {
            match self.next() {
                None | Some('\n') => return Ok(()),
                Some('#') => {
                    self.skip_line();
                    return Ok(());
                }
                Some(next) if next.is_whitespace() => {}
                Some(_) => return Err("a value with blanks must stand in '…' or \"…\""),
            }
        }
    }
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
