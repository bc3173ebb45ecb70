//! Entry points of the fuzz targets: every decoder that clients reach. None may panic, hang, or contradict itself.

use crate::config::{Pii, Secret};
use crate::event::{Redactor, Source, decode};
use crate::log::{DeadLetter, Frame};

fn secret() -> Secret {
    "sixteen letters!".to_owned().into()
}

/// A body of `POST /webhook`: validated as it is, and with personal data hashed and dropped. Collectors must accept
/// every event that the gateway accepts.
pub fn body(bytes: &[u8]) {
    for pii in [Pii::Keep, Pii::Hash(secret()), Pii::Drop(secret())] {
        let redactor = Redactor::new(&pii);
        for (source, event) in crate::gateway::fuzz_body(bytes, redactor.as_ref()) {
            let again = decode(&event, Some(source));
            assert!(again.is_ok(), "{source}: {:?}: {}", again.err(), String::from_utf8_lossy(&event));
        }
        if let Some(redactor) = &redactor {
            let mut redacted = Vec::new();
            redactor.redact(bytes, &mut redacted);
            let is_json =
                |bytes: &[u8]| serde_json::from_slice::<&serde_json::value::RawValue>(bytes).is_ok();
            assert_eq!(is_json(bytes), is_json(&redacted), "it is JSON no more");
            let mut again = Vec::new();
            redactor.redact(&redacted, &mut again);
            assert_eq!(again, redacted, "once is enough");
        }
    }
}

/// A signature's header, and behind its first line the body.
pub fn signature(bytes: &[u8]) {
    crate::gateway::fuzz_signature(bytes, &[b"sixteen letters!"]);
}

/// A query string of the reporter.
pub fn filters(bytes: &[u8]) {
    if let Ok(query) = std::str::from_utf8(bytes) {
        crate::reporter::fuzz_filters(query);
    }
}

/// A message of the log: a frame of events, or letters.
pub fn frame(bytes: &[u8]) {
    if let Ok(frame) = Frame::read(bytes::Bytes::copy_from_slice(bytes)) {
        assert_eq!(frame.events().count(), frame.len());
        for event in frame.events() {
            for source in Source::built_in() {
                let _ = decode(event.bytes, Some(source));
            }
        }
    }
    let _ = serde_json::from_slice::<Vec<DeadLetter>>(bytes);
}

/// A body of a declared source: each shipped file makes events or refusals of it, within the bounds of its filter.
pub fn declared(bytes: &[u8]) {
    use crate::source::declared::{Declared, Method, Outcome, Request};
    thread_local! {
        static SOURCES: Vec<Declared> = crate::source::shipped::ALL
            .iter()
            .filter_map(|shipped| Declared::parse(shipped.name, shipped.file).ok())
            .collect();
    }
    let query = String::from_utf8_lossy(bytes);
    SOURCES.with(|sources| {
        for source in sources {
            for method in [Method::Get, Method::Post] {
                let query = if method == Method::Get { query.as_ref() } else { "" };
                let request =
                    Request { method, headers: &[], query, body: bytes, received: 1_795_687_203_000_000 };
                for outcome in source.events(&request).unwrap_or_default() {
                    if let Outcome::Event(event) = outcome {
                        assert!(source.types().iter().any(|known| **known == *event.event_type));
                        assert!(serde_json::from_str::<&serde_json::value::RawValue>(&event.raw).is_ok());
                    }
                }
            }
        }
    });
}
