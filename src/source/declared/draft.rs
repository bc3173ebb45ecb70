//! A request to a source's path that is to be sent.

use super::request::{Method, Request};

/// A request that is to be sent to a source's path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// The method.
    pub method: Method,
    /// Names and values.
    pub headers: Vec<(String, String)>,
    /// Text after the question mark of the URL.
    pub query: String,
    /// Bytes of the body.
    pub body: Vec<u8>,
}

impl Draft {
    /// Replaces all values of a header.
    pub(super) fn set_header(&mut self, name: &str, value: String) {
        self.headers.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
        self.headers.push((name.to_owned(), value));
    }

    /// Calls `with` with the request as it arrives at `received`, in microseconds since 1970.
    pub(super) fn with_request<T>(&self, received: i64, with: impl FnOnce(&Request<'_>) -> T) -> T {
        let headers: Vec<(&str, &str)> =
            self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        with(&Request {
            method: self.method,
            headers: &headers,
            query: &self.query,
            body: &self.body,
            received,
        })
    }
}

/// Text of names and values as `application/x-www-form-urlencoded`.
pub(super) fn encoded(pairs: &[(String, String)]) -> String {
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    let pair = |(name, value): &(String, String)| {
        format!(
            "{}={}",
            utf8_percent_encode(name, NON_ALPHANUMERIC),
            utf8_percent_encode(value, NON_ALPHANUMERIC)
        )
    };
    pairs.iter().map(pair).collect::<Vec<_>>().join("&")
}
