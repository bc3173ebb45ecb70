//! Reading of JSON into values.
//!
//! serde_json makes floats of numbers unless a feature is on that would change every other reader of the program, so
//! the digits of numbers are kept by a reader of its own. It takes RFC 8259 and no more, refuses a key that comes
//! twice, and nests at most [`MAX_DEPTH`] levels.

use std::rc::Rc;

use super::value::{Members, Value};

/// Deepest nesting of a body, as for the built-in sources.
const MAX_DEPTH: usize = 64;

/// The reason that a text is no JSON that can be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} at byte {at}")]
pub(super) struct NotJson {
    /// Bytes before the place.
    pub at: usize,
    pub message: &'static str,
}

/// Reads one value. A lone surrogate is read as U+0000: the database stores neither, and both are refused later, at
/// their path.
pub(super) fn parse(bytes: &[u8]) -> Result<Value, NotJson> {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => return Err(NotJson { at: error.valid_up_to(), message: "the text is no UTF-8" }),
    };
    let mut reader = Reader { text, bytes: text.as_bytes(), at: 0 };
    reader.space();
    let value = reader.value(0)?;
    reader.space();
    if reader.at < bytes.len() {
        return Err(reader.wrong("the end of the text is expected"));
    }
    Ok(value)
}

struct Reader<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn wrong(&self, message: &'static str) -> NotJson {
        NotJson { at: self.at, message }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    /// Takes a byte if it comes next.
    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn word(&mut self, word: &'static str, value: Value) -> Result<Value, NotJson> {
        if !self.bytes[self.at..].starts_with(word.as_bytes()) {
            return Err(self.wrong("a value is expected"));
        }
        self.at += word.len();
        Ok(value)
    }

    fn value(&mut self, depth: usize) -> Result<Value, NotJson> {
        if depth > MAX_DEPTH {
            return Err(self.wrong("the text nests deeper than 64 levels"));
        }
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => Ok(Value::Text(self.string()?)),
            Some(b't') => self.word("true", Value::Bool(true)),
            Some(b'f') => self.word("false", Value::Bool(false)),
            Some(b'n') => self.word("null", Value::Null),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => Err(self.wrong("a value is expected")),
        }
    }

    fn number(&mut self) -> Result<Value, NotJson> {
        let length = super::value::number_length(&self.bytes[self.at..]);
        let (length, _) = length.ok_or_else(|| self.wrong("the number is malformed or too long"))?;
        let text = &self.text[self.at..self.at + length];
        let value = Value::number(text).ok_or_else(|| self.wrong("the number is malformed"))?;
        self.at += length;
        Ok(value)
    }

    fn array(&mut self, depth: usize) -> Result<Value, NotJson> {
        self.at += 1;
        let mut items = Vec::new();
        self.space();
        if self.take(b']') {
            return Ok(Value::array(items));
        }
        loop {
            self.space();
            items.push(self.value(depth + 1)?);
            self.space();
            if self.take(b']') {
                return Ok(Value::array(items));
            }
            if !self.take(b',') {
                return Err(self.wrong("a comma or ] is expected"));
            }
        }
    }

    fn object(&mut self, depth: usize) -> Result<Value, NotJson> {
        self.at += 1;
        let mut members = Members::new();
        self.space();
        if self.take(b'}') {
            return Ok(Value::object(members));
        }
        loop {
            self.space();
            if self.peek() != Some(b'"') {
                return Err(self.wrong("a key is expected"));
            }
            let key = self.string()?;
            self.space();
            if !self.take(b':') {
                return Err(self.wrong("a colon is expected"));
            }
            self.space();
            let value = self.value(depth + 1)?;
            if members.insert(key, value).is_some() {
                return Err(self.wrong("a key comes twice in the object that goes on"));
            }
            self.space();
            if self.take(b'}') {
                return Ok(Value::object(members));
            }
            if !self.take(b',') {
                return Err(self.wrong("a comma or } is expected"));
            }
        }
    }

    fn string(&mut self) -> Result<Rc<str>, NotJson> {
        self.at += 1;
        let from = self.at;
        self.plain();
        if self.take(b'"') {
            return Ok(self.text[from..self.at - 1].into());
        }
        let mut text = self.text[from..self.at].to_owned();
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(text.into());
                }
                Some(b'\\') => text.push(self.escape()?),
                Some(_) => return Err(self.wrong("a control character stands in a string")),
                None => return Err(self.wrong("the string has no end")),
            }
            let from = self.at;
            self.plain();
            text.push_str(&self.text[from..self.at]);
        }
    }

    /// Skips characters that stand for themselves.
    fn plain(&mut self) {
        let ends = |byte: &u8| *byte < b' ' || matches!(byte, b'"' | b'\\');
        let rest = &self.bytes[self.at..];
        self.at += rest.iter().position(ends).unwrap_or(rest.len());
    }

    fn escape(&mut self) -> Result<char, NotJson> {
        let letter = self.bytes.get(self.at + 1).copied();
        let plain = match letter {
            Some(letter @ (b'"' | b'\\' | b'/')) => char::from(letter),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode(),
            _ => return Err(self.wrong("an escape is malformed")),
        };
        self.at += 2;
        Ok(plain)
    }

    fn unicode(&mut self) -> Result<char, NotJson> {
        let first = self.unit().ok_or_else(|| self.wrong("an escape is malformed"))?;
        if let Some(char) = char::from_u32(first) {
            return Ok(char);
        }
        let before = self.at;
        if first < 0xdc00
            && self.bytes[self.at..].starts_with(b"\\u")
            && let Some(second @ 0xdc00..0xe000) = self.unit()
        {
            let code = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
            return Ok(char::from_u32(code).unwrap_or('\0'));
        }
        self.at = before;
        Ok('\0')
    }

    /// A UTF-16 unit as `\uxxxx`.
    fn unit(&mut self) -> Option<u32> {
        let digits = self.text.get(self.at + 2..self.at + 6)?;
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        self.at += 6;
        u32::from_str_radix(digits, 16).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<String, &'static str> {
        parse(text.as_bytes()).map(|value| value.to_json()).map_err(|error| error.message)
    }

    #[test]
    fn json_is_read_as_it_was_sent() {
        for text in [
            "null",
            "[]",
            "{}",
            r#"{"a":[1,{"b":"x"}],"c":0.10}"#,
            r#""\u0001\"\\ é""#,
            "[true,false]",
            "7400000000000000777",
            "123456789012345678901234567890",
        ] {
            assert_eq!(read(text).as_deref(), Ok(text));
        }
        assert_eq!(read(" [ 1 , 2 ] ").as_deref(), Ok("[1,2]"));
        assert_eq!(read(r#""\u00eb\ud83d\ude00\/""#).as_deref(), Ok("\"ë😀/\""));
    }

    #[test]
    fn a_lone_surrogate_and_nul_are_marked() {
        for text in [r#""\ud83d""#, r#""\ude00""#, r#""\ud83d\u0041""#, r#""\u0000""#] {
            assert!(read(text).is_ok_and(|read| read.starts_with("\"\\u0000")), "{text}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "[1,]",
            "{\"a\"}",
            "{a:1}",
            "[1 2]",
            "\"a",
            "\"\n\"",
            "01",
            "1.",
            "nul",
            "[",
            "{\"a\":1,}",
            "1 2",
            r#""\x""#,
            r#""\u12""#,
            r#""\u+123""#,
            "\u{feff}1",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
        assert_eq!(read(r#"{"a":1,"b":{},"a":2}"#), Err("a key comes twice in the object that goes on"));
        assert!(read(&format!("{}{}", "[".repeat(65), "]".repeat(65))).is_ok());
        assert!(read(&format!("{}{}", "[".repeat(66), "]".repeat(66))).is_err());
        assert!(parse(b"\"\xff\"").is_err());
    }

    proptest! {
        #[test]
        fn texts_are_judged_as_serde_json_judges_them(text in r#"[\[\]{},:"\\a1.e\- u0-9d]{0,24}"#) {
            let ours = parse(text.as_bytes());
            let theirs = serde_json::from_str::<serde_json::Value>(&text);
            if theirs.is_ok() {
                let twice = matches!(&ours, Err(error) if error.message.contains("twice"));
                prop_assert!(ours.is_ok() || twice, "{:?}", ours);
            }
            // Lone surrogates and numbers beyond a double are taken here, and judged later.
            if ours.is_ok() && !text.contains("\\u") && !text.contains('e') {
                prop_assert!(theirs.is_ok(), "{}", text);
            }
        }
    }
}
