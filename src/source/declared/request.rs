//! A request to a source's path, as the gateway hands it over.

use super::value::{Members, Value};

/// Method of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// A challenge, or events in the query.
    Get,
    /// Events in the body.
    Post,
}

/// A request to a source's path.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The method.
    pub method: Method,
    /// Names in any case, with their values.
    pub headers: &'a [(&'a str, &'a str)],
    /// Text after the question mark of the URL.
    pub query: &'a str,
    /// Bytes of the body, decompressed.
    pub body: &'a [u8],
    /// Arrival, in microseconds since 1970.
    pub received: i64,
}

impl Request<'_> {
    /// Values of a header, in their order.
    pub(super) fn headers<'n>(&self, name: &'n str) -> impl Iterator<Item = &str> + use<'_, 'n> {
        self.headers
            .iter()
            .filter(move |(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| *value)
    }

    /// First value of a header.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers(name).next()
    }

    /// First value of a parameter of the query.
    pub(super) fn parameter(&self, name: &str) -> Option<String> {
        pairs(self.query).find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// True if the body holds nothing but white space.
    pub(super) fn is_empty(&self) -> bool {
        self.body.iter().all(u8::is_ascii_whitespace)
    }
}

/// Names and values of `application/x-www-form-urlencoded` text.
pub(super) fn pairs(text: &str) -> impl Iterator<Item = (String, String)> + '_ {
    text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(name), decoded(value))
    })
}

fn decoded(text: &str) -> String {
    let spaced = text.replace('+', " ");
    percent_encoding::percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
}

/// An object of strings of form text. The error is a name that comes twice.
pub(super) fn form(text: &str) -> Result<Value, String> {
    let mut members = Members::new();
    for (name, value) in pairs(text) {
        if members.insert(name.as_str().into(), Value::text(&value)).is_some() {
            return Err(name);
        }
    }
    Ok(Value::object(members))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_objects_of_strings() {
        let read = |text| form(text).map(|value| value.to_json());
        let campaign = "campaign=autumn%20%282000001%29&a+b=%C3%AB+x&empty=&bare&&city=a=b";
        let expected = r#"{"a b":"ë x","bare":"","campaign":"autumn (2000001)","city":"a=b","empty":""}"#;
        assert_eq!(read(campaign).as_deref(), Ok(expected));
        assert_eq!(read("a=1&b=2&a=3"), Err("a".to_owned()));
        assert_eq!(read("").as_deref(), Ok("{}"));
    }
}
