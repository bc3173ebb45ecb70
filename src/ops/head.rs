//! Validation of a request's head before the HTTP library parses it (RFC 9110, RFC 9112).
//!
//! actix-http answers a head that it refuses with an empty body. The checks here include all of its own, so that every
//! refusal is a problem body and the library receives valid heads only.

use std::mem::MaybeUninit;
use std::ops::Range;

use actix_web::http::{Method, StatusCode, Uri};

/// Maximum number of header fields; the limit of the library (`h1/decoder.rs`, `MAX_HEADERS`).
pub(super) const MAX_FIELDS: usize = 96;

/// Status and detail of the problem that answers a refused head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub status: StatusCode,
    pub detail: String,
    /// True if the method is HEAD: the answer then has no body.
    pub head: bool,
}

impl Refusal {
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), head: false }
    }
}

/// The framing of a request's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    None,
    /// Number of bytes, from `Content-Length`.
    Length(u64),
    Chunked,
}

/// A valid head.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Length in bytes.
    pub len: usize,
    pub framing: Framing,
    /// True if no request may follow on the connection.
    pub last: bool,
    /// Ranges of values that request another protocol. They are overwritten with spaces: a server may ignore `Upgrade`
    /// (RFC 9110, 7.8), and the library would treat the connection as a WebSocket.
    pub upgrades: Vec<Range<usize>>,
}

/// The result of [`validate`].
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Validated {
    /// More bytes are needed.
    Partial,
    Complete(Head),
    Refused(Refusal),
}

fn bad(detail: &str) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, detail)
}

/// Validates the head at the start of `bytes`; `limit` is its maximum length.
pub(super) fn validate(bytes: &[u8], limit: usize) -> Validated {
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut []);
    let parsed = request.parse_with_uninit_headers(bytes, &mut fields);
    let is_head = request.method == Some("HEAD");
    let validated = match parsed {
        Ok(httparse::Status::Complete(len)) if len <= limit => parse_fields(bytes, len, &request),
        Ok(httparse::Status::Partial) if bytes.len() <= limit => return Validated::Partial,
        Ok(_) => {
            let detail = format!("the request's head is larger than {limit} bytes (ESS_MAX_HEADER)");
            Err(Refusal::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, detail))
        }
        Err(httparse::Error::TooManyHeaders) => {
            let detail = format!("the request has more than {MAX_FIELDS} header fields");
            Err(Refusal::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, detail))
        }
        Err(httparse::Error::Version) => {
            let detail = "only HTTP/1.0 and HTTP/1.1 are supported";
            Err(Refusal::new(StatusCode::HTTP_VERSION_NOT_SUPPORTED, detail))
        }
        Err(error) => Err(bad(&format!("the request's head is malformed: {error}"))),
    };
    match validated {
        Ok(head) => Validated::Complete(head),
        Err(refusal) => Validated::Refused(Refusal { head: is_head, ..refusal }),
    }
}

/// Accepts the origin form and the absolute form of a target, and `*` for OPTIONS (RFC 9112, 3.2).
fn check_target(method: &str, target: &str) -> Result<(), Refusal> {
    if method == "CONNECT" {
        return Err(Refusal::new(
            StatusCode::NOT_IMPLEMENTED,
            "CONNECT is not supported: this server is no proxy",
        ));
    }
    if !target.is_ascii() {
        return Err(bad("the request's target holds bytes beyond ASCII; they must be percent-encoded"));
    }
    let uri = Uri::try_from(target).map_err(|error| bad(&format!("the request's target: {error}")))?;
    let known = match uri.scheme_str() {
        Some(scheme) => {
            uri.authority().is_some()
                && (scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https"))
        }
        None => target.starts_with('/') || (target == "*" && method == "OPTIONS"),
    };
    if known { Ok(()) } else { Err(bad("the request's target must be a path or an http URL")) }
}

/// Header fields that determine the framing and the end of a connection.
#[derive(Default)]
struct MessageFields {
    host: bool,
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
}

fn parse_fields(bytes: &[u8], len: usize, request: &httparse::Request<'_, '_>) -> Result<Head, Refusal> {
    let method = request.method.unwrap_or_default();
    if Method::from_bytes(method.as_bytes()).is_err() {
        return Err(bad("the request's method is malformed"));
    }
    check_target(method, request.path.unwrap_or_default())?;
    let modern = request.version == Some(1);
    let mut found = MessageFields::default();
    let mut upgrades = Vec::new();
    for field in request.headers.iter() {
        let name = field.name;
        // The length is compared first, because it is cheaper.
        match name.len() {
            4 if name.eq_ignore_ascii_case("host") => host(&mut found)?,
            14 if name.eq_ignore_ascii_case("content-length") => length(&mut found, field.value)?,
            17 if name.eq_ignore_ascii_case("transfer-encoding") => {
                encoding(&mut found, field.value, modern)?
            }
            10 if name.eq_ignore_ascii_case("connection") => {
                connection(&mut found, bytes, field.value, &mut upgrades);
            }
            7 if name.eq_ignore_ascii_case("upgrade") => upgrades.extend(range_of(bytes, field.value)),
            _ => {}
        }
    }
    if modern && !found.host {
        return Err(bad("an HTTP/1.1 request must have a Host"));
    }
    if found.chunked && found.length.is_some() {
        return Err(bad("the request has both Content-Length and Transfer-Encoding"));
    }
    if !modern && method == "POST" && found.length.is_none() {
        return Err(Refusal::new(StatusCode::LENGTH_REQUIRED, "an HTTP/1.0 POST must have a Content-Length"));
    }
    let framing = match found.length {
        _ if found.chunked => Framing::Chunked,
        None | Some(0) => Framing::None,
        Some(length) => Framing::Length(length),
    };
    Ok(Head { len, framing, last: found.close || (!modern && !found.keep_alive), upgrades })
}

fn host(found: &mut MessageFields) -> Result<(), Refusal> {
    if std::mem::replace(&mut found.host, true) {
        Err(bad("the request has more than one Host"))
    } else {
        Ok(())
    }
}

fn length(found: &mut MessageFields, value: &[u8]) -> Result<(), Refusal> {
    let digits = value.trim_ascii();
    let number = std::str::from_utf8(digits).ok().filter(|_| digits.iter().all(u8::is_ascii_digit));
    match number.and_then(|number| number.parse().ok()) {
        Some(length) if found.length.is_none() => {
            found.length = Some(length);
            Ok(())
        }
        Some(_) => Err(bad("the request has more than one Content-Length")),
        None => Err(bad("Content-Length must be a whole number of bytes")),
    }
}

fn encoding(found: &mut MessageFields, value: &[u8], modern: bool) -> Result<(), Refusal> {
    if !modern {
        return Err(bad("an HTTP/1.0 request must not have Transfer-Encoding"));
    }
    if found.chunked {
        return Err(bad("the request has more than one Transfer-Encoding"));
    }
    if !value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
        return Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, "Transfer-Encoding must be chunked alone"));
    }
    found.chunked = true;
    Ok(())
}

/// Reads the options of `Connection`; adds the range of an `upgrade` option to `upgrades`.
fn connection(found: &mut MessageFields, bytes: &[u8], value: &[u8], upgrades: &mut Vec<Range<usize>>) {
    for option in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
        if option.eq_ignore_ascii_case(b"close") {
            found.close = true;
        } else if option.eq_ignore_ascii_case(b"keep-alive") {
            found.keep_alive = true;
        } else if option.eq_ignore_ascii_case(b"upgrade") {
            upgrades.extend(range_of(bytes, option));
        }
    }
}

/// The range of `part` within `bytes`, of which it is a slice.
fn range_of(bytes: &[u8], part: &[u8]) -> Option<Range<usize>> {
    let from = (part.as_ptr() as usize).checked_sub(bytes.as_ptr() as usize)?;
    let to = from.checked_add(part.len())?;
    (to <= bytes.len()).then_some(from..to)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 16 << 10;

    fn whole(text: &str) -> Head {
        match validate(text.as_bytes(), LIMIT) {
            Validated::Complete(head) => head,
            other => panic!("{text}: {other:?}"),
        }
    }

    fn refused(text: &[u8]) -> u16 {
        match validate(text, LIMIT) {
            Validated::Refused(refusal) => refusal.status.as_u16(),
            other => panic!("{}: {other:?}", String::from_utf8_lossy(text)),
        }
    }

    #[test]
    fn a_head_determines_the_framing_and_the_end_of_the_connection() {
        let head = whole("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello");
        assert_eq!((head.framing, head.last, head.len), (Framing::Length(5), false, 47));
        assert_eq!(whole("GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").framing, Framing::None);
        let chunked = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\n\r\n";
        assert_eq!(whole(chunked).framing, Framing::Chunked);
        assert!(whole("GET / HTTP/1.1\r\nHost: x\r\nConnection: te, Close\r\n\r\n").last);
        assert!(whole("GET / HTTP/1.0\r\n\r\n").last);
        assert!(!whole("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").last);
        assert!(!whole("GET http://x/health?a=1 HTTP/1.1\r\nHost: y\r\n\r\n").last);
        assert!(!whole("OPTIONS * HTTP/1.1\r\nHost: y\r\n\r\n").last);
        assert_eq!(validate(b"GET / HTTP/1.1\r\nHost: x\r\n", LIMIT), Validated::Partial);
    }

    #[test]
    fn values_that_request_another_protocol_are_found() {
        let text = "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n";
        let head = whole(text);
        let parts: Vec<&str> = head.upgrades.iter().map(|part| &text[part.clone()]).collect();
        assert_eq!((parts, head.last), (vec!["Upgrade", "h2c"], false));
    }

    #[test]
    fn heads_that_the_library_would_refuse_are_refused_first() {
        let many = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "a: b\r\n".repeat(96));
        let long = format!("GET / HTTP/1.1\r\nHost: x\r\na: {}", "b".repeat(LIMIT));
        for (text, status) in [
            (&b"GET /\xc3\xa9 HTTP/1.1\r\nHost: x\r\n\r\n"[..], 400),
            (b"GET / HTTP/1.1\r\nHost: x\r\nBad Header: y\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", 400),
            (b"GET x HTTP/1.1\r\nHost: x\r\n\r\n", 400),
            (b"GET * HTTP/1.1\r\nHost: x\r\n\r\n", 400),
            (b"GET ftp://x/ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
            (b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n", 501),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
            (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\n", 400),
            (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", 400),
            (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
            (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
            (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
            (b"POST / HTTP/1.0\r\n\r\n", 411),
            (many.as_bytes(), 431),
            (long.as_bytes(), 431),
        ] {
            assert_eq!(refused(text), status, "{}", String::from_utf8_lossy(text));
        }
    }
}
