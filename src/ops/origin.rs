//! Correlation id and trace context of a request.

use actix_web::http::header::{HeaderMap, HeaderName};
use rand::Rng;
use uuid::Uuid;

use crate::log::Origin;

/// Header of the correlation id; `X-Request-Id` is the fallback.
pub const CORRELATION_HEADER: HeaderName = HeaderName::from_static("x-correlation-id");
const REQUEST_HEADER: HeaderName = HeaderName::from_static("x-request-id");
/// Header of the trace context (W3C Trace Context).
pub const TRACE_HEADER: HeaderName = HeaderName::from_static("traceparent");

/// Longest correlation id of a client that is adopted, in bytes.
const MAX_CORRELATION_ID: usize = 128;

/// The origin of a request that arrived just now. Headers that are missing or invalid are replaced by new ids.
pub fn origin_of(headers: &HeaderMap) -> Origin {
    let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let usable = |id: &&str| {
        (1..=MAX_CORRELATION_ID).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
    };
    let id = text(&CORRELATION_HEADER).filter(usable).or_else(|| text(&REQUEST_HEADER).filter(usable));
    // The trace continues with a new span; a malformed one is replaced, as the standard requires.
    let span: u64 = rand::rng().random_range(1..=u64::MAX);
    let traceparent = match incoming_traceparent(headers) {
        // Version 00 defines the lowest flag only; the others must be zero.
        Some(parent) => {
            let sampled = u8::from_str_radix(&parent[53..55], 16).unwrap_or_default() & 1;
            format!("00-{}-{span:016x}-{sampled:02x}", &parent[3..35])
        }
        None => {
            let flags = u8::from(super::trace::is_sampled());
            format!("00-{}-{span:016x}-{flags:02x}", Uuid::new_v4().simple())
        }
    };
    Origin {
        correlation_id: id.map_or_else(|| Uuid::new_v4().to_string(), str::to_owned),
        traceparent: Some(traceparent),
        accepted_at: chrono::Utc::now().timestamp_micros(),
    }
}

/// The trace id of a W3C `traceparent`.
pub fn trace_id(origin: &Origin) -> &str {
    origin.traceparent.as_deref().and_then(|parent| parent.get(3..35)).unwrap_or_default()
}

/// The `traceparent` of a request; `None` if it is invalid, or if there is more than one.
pub(super) fn incoming_traceparent(headers: &HeaderMap) -> Option<&str> {
    let mut all = headers.get_all(&TRACE_HEADER);
    let parent = all.next()?.to_str().ok().filter(|parent| is_traceparent(parent))?;
    all.next().is_none().then_some(parent)
}

/// True for `<version>-<32 hex>-<16 hex>-<2 hex>` with ids that are not zero. A version above 00 may have further
/// fields after a dash and is read like 00 (W3C Trace Context, 4.3); version ff is invalid.
fn is_traceparent(text: &str) -> bool {
    let bytes = text.as_bytes();
    let hex = |part: &[u8]| part.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let some = |part: &[u8]| hex(part) && part.iter().any(|byte| *byte != b'0');
    if !text.is_ascii() || bytes.len() < 55 {
        return false;
    }
    let ended = match bytes.get(55) {
        None => true,
        Some(next) => *next == b'-' && &bytes[..2] != b"00",
    };
    ended
        && hex(&bytes[..2])
        && &bytes[..2] != b"ff"
        && (bytes[2], bytes[35], bytes[52]) == (b'-', b'-', b'-')
        && some(&bytes[3..35])
        && some(&bytes[36..52])
        && hex(&bytes[53..55])
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;

    #[test]
    fn unknown_flags_are_dropped_and_two_traceparents_are_ignored() {
        let parent = "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-ff-later";
        let taken = origin(&[("traceparent", parent)]).traceparent.unwrap();
        assert!(
            taken.starts_with("00-0af7651916cd43dd8448eb211c80319c-") && taken.ends_with("-01"),
            "{taken}"
        );
        let twice = origin(&[("traceparent", parent), ("traceparent", parent)]);
        assert_ne!(trace_id(&twice), "0af7651916cd43dd8448eb211c80319c");
    }

    fn origin(pairs: &[(&'static str, &'static str)]) -> Origin {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        origin_of(&headers)
    }

    #[test]
    fn a_valid_correlation_id_is_adopted_and_others_are_replaced() {
        assert_eq!(origin(&[("x-correlation-id", "abc"), ("x-request-id", "def")]).correlation_id, "abc");
        assert_eq!(origin(&[("x-request-id", "def")]).correlation_id, "def");
        assert_eq!(origin(&[]).correlation_id.len(), 36);
        assert_eq!(origin(&[("x-correlation-id", "a b")]).correlation_id.len(), 36);
    }

    #[test]
    fn a_valid_trace_continues_with_a_new_span() {
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let origin = origin(&[("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")]);
        assert_eq!(trace_id(&origin), "0af7651916cd43dd8448eb211c80319c");
        assert_ne!(origin.traceparent.as_deref(), Some(parent));
        assert!(is_traceparent(&origin.traceparent.unwrap()));
        let trace = "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331";
        for good in
            [format!("00-{trace}-01"), format!("01-{trace}-01"), format!("cc-{trace}-09-what-comes-later")]
        {
            assert!(is_traceparent(&good), "{good}");
        }
        for bad in [
            "",
            "00-0-0-0",
            &format!("ff-{trace}-01"),
            &format!("00-{trace}-01-more"),
            &format!("01-{trace}-01.more"),
            &format!("01-{trace}-01more"),
            &format!("0x-{trace}-01"),
            &format!("00-{}-01", trace.to_uppercase()),
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        ] {
            assert!(!is_traceparent(bad), "{bad}");
        }
    }
}
