use std::io::Write;

use actix_web::FromRequest;
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::test::TestRequest;

use super::*;

const LIMIT: usize = 1 << 20;

fn budget(bytes: usize) -> Budget {
    Budget::new(bytes, IntGauge::new("held", "Bytes held").unwrap())
}

fn headers(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
    let pairs = pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value)));
    let mut headers = HeaderMap::new();
    pairs.for_each(|(name, value)| headers.append(name, value));
    headers
}

async fn payload(bytes: &[u8]) -> Payload {
    let (request, mut payload) = TestRequest::default().set_payload(bytes.to_vec()).to_http_parts();
    Payload::from_request(&request, &mut payload).await.unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::stream::encode_all(bytes, 3).unwrap()
}

#[test]
fn codings_come_in_the_order_in_which_they_were_applied() {
    let of = |value| encoding(&headers(&[(header::CONTENT_ENCODING, value)]));
    assert_eq!(of("gzip, ZSTD").unwrap(), [Coding::Gzip, Coding::Zstd]);
    assert!(of("identity").unwrap().is_empty());
    assert_eq!(of("x-gzip").unwrap(), [Coding::Gzip]);
    let two = [(header::CONTENT_ENCODING, "zstd"), (header::CONTENT_ENCODING, "gzip")];
    assert_eq!(encoding(&headers(&two)).unwrap(), [Coding::Zstd, Coding::Gzip]);
    assert!(matches!(of("gzip, br"), Err(RequestRefusal::ContentEncoding(name)) if name == "br"));
    assert!(matches!(of("gzip, gzip, gzip, gzip"), Err(RequestRefusal::TooManyCodings)));
}

#[test]
fn a_body_is_json_whatever_its_parameters_and_case() {
    for (kind, taken) in [
        ("application/json", true),
        ("Application/JSON; charset=utf-8", true),
        ("text/plain", false),
        ("application/ld+json", false),
    ] {
        let found = encoding(&headers(&[(header::CONTENT_TYPE, kind)]));
        assert_eq!(found.is_ok(), taken, "{kind}");
        assert!(taken || matches!(found, Err(RequestRefusal::ContentType(_))), "{kind}");
    }
    assert!(encoding(&HeaderMap::new()).is_ok());
}

#[actix_web::test]
async fn a_body_over_the_limit_is_refused_by_its_declared_length_or_by_its_bytes() {
    let budget = budget(4 * LIMIT);
    let time = Duration::from_secs(60);
    let declared = headers(&[(header::CONTENT_LENGTH, "11")]);
    let refused = read(&declared, payload(b"[]").await, 10, time, budget.reservation(true)).await;
    assert!(matches!(refused, Err(RequestRefusal::TooLarge { limit: 10 })));
    for (length, taken) in [(10, true), (11, false)] {
        let payload = payload(&vec![b' '; length]).await;
        let read = read(&HeaderMap::new(), payload, 10, time, budget.reservation(true)).await;
        assert_eq!(read.map(|(body, _)| body.len()).ok(), taken.then_some(length));
    }
    assert_eq!(budget.gauge.get(), 0, "what was refused holds nothing");
}

#[actix_web::test]
async fn a_body_is_decoded_in_reverse_order_and_its_bytes_are_counted() {
    let budget = budget(16 * LIMIT);
    let plain = br#"{"a":1}"#.repeat(1_000);
    let packed = Bytes::from(zstd(&gzip(&plain)));
    let codings = vec![Coding::Gzip, Coding::Zstd];
    let (body, reservation) = unpack(codings, packed, LIMIT, budget.reservation(true)).await.unwrap();
    assert_eq!(body, plain);
    assert!(budget.gauge.get() >= plain.len() as i64, "{}", budget.gauge.get());
    drop(reservation);
    assert_eq!(budget.gauge.get(), 0);
}

#[actix_web::test]
async fn a_body_that_decodes_to_more_than_the_limit_is_refused() {
    let budget = budget(16 * LIMIT);
    for coding in [Coding::Gzip, Coding::Zstd] {
        for (length, taken) in [(LIMIT, true), (LIMIT + 1, false)] {
            let plain = vec![0; length];
            let packed = Bytes::from(if coding == Coding::Gzip { gzip(&plain) } else { zstd(&plain) });
            assert!(packed.len() < LIMIT / 100);
            let unpacked = unpack(vec![coding], packed, LIMIT, budget.reservation(true)).await;
            assert_eq!(unpacked.is_ok(), taken, "{coding:?} {length}");
            assert!(taken || matches!(unpacked, Err(RequestRefusal::TooLarge { limit: LIMIT })));
        }
    }
    assert_eq!(budget.gauge.get(), 0);
}

#[actix_web::test]
async fn a_body_that_is_not_encoded_as_declared_is_refused() {
    let budget = budget(16 * LIMIT);
    for coding in [Coding::Gzip, Coding::Zstd] {
        let unpacked = unpack(vec![coding], Bytes::from_static(b"[]"), LIMIT, budget.reservation(true)).await;
        assert!(matches!(unpacked, Err(RequestRefusal::BrokenEncoding(_))), "{coding:?}");
    }
}

#[actix_web::test]
async fn a_body_that_decodes_to_more_than_there_is_room_for_is_refused_at_once() {
    let budget = budget(LIMIT);
    let mut other = budget.reservation(true);
    other.reserve(LIMIT - 64 * 1_024).await.unwrap();
    let packed = Bytes::from(gzip(&vec![0; LIMIT / 2]));
    let unpacked = unpack(vec![Coding::Gzip], packed.clone(), LIMIT, budget.reservation(true)).await;
    assert!(matches!(unpacked, Err(RequestRefusal::NoRoom)));
    drop(other);
    assert!(unpack(vec![Coding::Gzip], packed, LIMIT, budget.reservation(true)).await.is_ok());
}

#[actix_web::test]
async fn a_request_waits_for_room_until_another_gives_its_own_back() {
    let budget = budget(LIMIT);
    let (mut first, mut second) = (budget.reservation(true), budget.reservation(true));
    first.reserve(LIMIT).await.unwrap();
    let mut waiting = std::pin::pin!(second.reserve(LIMIT / 2));
    assert!(futures::poll!(&mut waiting).is_pending());
    drop(first);
    waiting.await.unwrap();
    assert_eq!(budget.gauge.get(), LIMIT as i64 / 2);
}
