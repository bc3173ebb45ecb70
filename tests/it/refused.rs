//! Refused events: each is counted even if its bytes are not kept, and its cost is in proportion to its size.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::events::simple;
use crate::support::http;
use crate::support::system::{System, both};
use crate::support::{MINUTE, eventually};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// An event with a hundred errors at a path whose every character JSON writes with six.
fn wordy(n: usize) -> String {
    format!(
        r#"{{"source":"tiktok","eventId":"wordy-{n}","x":{{"{}":{{"y":1{}}}}}}}"#,
        "\\u0001".repeat(1_100),
        ",\"y\":1".repeat(101)
    )
}

/// Number of refused events of a source in the ledger.
fn rejected(system: &System, source: &str) -> u64 {
    let ledger = system.report("/ledger");
    let sources = ledger["sources"].as_array().unwrap();
    // There is none of unknown sources before the first of their events.
    sources
        .iter()
        .find(|known| known["source"] == source)
        .map_or(0, |known| known["rejected"].as_u64().unwrap())
}

fn grows_to(system: &System, source: &str, expected: u64) {
    eventually(&format!("the ledger has {expected} refused events of {source}"), MINUTE, || {
        let found = rejected(system, source);
        assert!(found <= expected, "{found} of {expected}");
        (found == expected).then_some(())
    });
}

#[test]
fn answers_are_bounded_and_unread_answers_take_little_memory() {
    let mut system = System::real(&[]);
    let body = gzip(format!("[{}]", (0..100).map(wordy).collect::<Vec<_>>().join(",")).as_bytes());
    assert!(body.len() < 10_000, "{} bytes", body.len());
    let headers = [("Content-Type", "application/json"), ("Content-Encoding", "gzip")];
    let answer = http::post_with(&system.gateway_url("/webhook"), &headers, &body).unwrap();
    assert_eq!((answer.status, &answer.json()["rejected"]), (422, &json!(100)));
    assert!(answer.text.len() < 300 * 1_024, "{} bytes", answer.text.len());
    assert_eq!(answer.json()["errorsTruncated"], true);

    let address = system.gateway_url("").replace("http://", "");
    let gateway = system.service("gateway");
    let before = gateway.process.memory_kib("VmHWM");
    const UNREAD: usize = 40;
    let head = format!(
        "POST /webhook HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let unread: Vec<TcpStream> = (0..UNREAD)
        .map(|_| {
            let mut stream = TcpStream::connect(&address).unwrap();
            stream.write_all(head.as_bytes()).unwrap();
            stream.write_all(&body).unwrap();
            stream
        })
        .collect();
    let series = "ess_gateway_requests_total{outcome=\"rejected\",publisher=\"anonymous\"}";
    let answered = || gateway.metric(series) as usize;
    eventually("all are answered", MINUTE, || (answered() > UNREAD).then_some(()));
    let more = gateway.process.memory_kib("VmHWM").saturating_sub(before) / 1_024;
    // Letters on their way (32 MiB), unread answers (16 MiB), what is in flight and what the allocator keeps beside.
    assert!(more < 150, "{more} MiB more");
    // Each is whole, however late it is read; and the one after it is answered.
    for mut stream in unread.into_iter().take(3) {
        stream.set_read_timeout(Some(MINUTE)).unwrap();
        stream.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 422") && answer.ends_with('}'), "{} bytes", answer.len());
        assert!(answer.contains("\"errorsTruncated\":true") && answer.contains("HTTP/1.1 200"));
    }
    grows_to(&system, "tiktok", 100 * (UNREAD as u64 + 1));
    let letters = http::get(&system.reporter_url("/dead-letters?limit=300")).unwrap();
    assert_eq!(letters.json()["deadLetters"].as_array().unwrap().len(), 300);
    assert!(letters.text.len() < 5_000_000, "{} bytes", letters.text.len());
}

#[test]
fn the_ledger_counts_every_refused_event_of_any_number_and_size() {
    both(&[], |system| {
        // More than are kept of one request.
        let many: Vec<Value> =
            (0..12_000).map(|n| json!({"source": "facebook", "eventId": "many", "n": n})).collect();
        let answer = system.post(&Value::from(many).to_string());
        assert_eq!((answer.status, &answer.json()["rejected"]), (422, &json!(12_000)));
        grows_to(system, "facebook", 12_000);
        let listed = system.report("/dead-letters?limit=1")["deadLetters"][0].clone();
        let unkept = system.database.query("SELECT errors FROM dead_letters WHERE payload_length = 0");
        assert_eq!(unkept.len(), 1, "{listed}");
        assert!(unkept[0].contains("2000 more events were refused"), "{unkept:?}");
        // Large ones: all of them are kept here.
        let large: Vec<Value> = (0..50)
            .map(|n| json!({"source": "facebook", "eventId": format!("large-{n}"), "pad": "x".repeat(250_000)}))
            .collect();
        let answer = system.post(&Value::from(large).to_string());
        assert_eq!((answer.status, &answer.json()["rejected"]), (422, &json!(50)));
        grows_to(system, "facebook", 12_050);
        for n in 0..50 {
            let found = system.report(&format!("/events/large-{n}"));
            assert_eq!(found["matches"][0]["state"], "deadLetter", "{n}: {found}");
        }
        // Letters that JSON writes far longer than they are, and one more in their message.
        let mut wordy: Vec<String> = (0..10).map(wordy).collect();
        wordy.push(r#"{"source":"tiktok","eventId":"plain"}"#.to_owned());
        assert_eq!(system.post(&format!("[{}]", wordy.join(","))).json()["rejected"], 11);
        grows_to(system, "tiktok", 11);
        // And good ones beside bad ones of a source that cannot be told, at a source's own address.
        let mixed = json!([simple("good", "tiktok"), {}, {"source": 5}, [1]]).to_string();
        let answer = http::post(&system.gateway_url("/webhook/tiktok"), &mixed).unwrap().json();
        assert_eq!((&answer["accepted"], &answer["rejected"]), (&json!(1), &json!(3)));
        grows_to(system, "tiktok", 14);
        // Events without a known source are counted under `unknown`.
        let answer = system.post(&json!([{}, {"source": "myspace"}, 7]).to_string()).json();
        assert_eq!(answer["rejected"], 3);
        grows_to(system, "unknown", 3);
    });
}

#[test]
fn events_refused_while_the_log_is_away_are_counted_once_it_is_back() {
    let mut system = System::real(&[]);
    system.nats().process.kill();
    let mut expected = 0;
    // More than may wait: the bytes of some are let go.
    for n in 0..30 {
        let events: Vec<Value> = (0..100)
            .map(|k| json!({"source": "tiktok", "eventId": format!("{n}-{k}"), "pad": "x".repeat(20_000)}))
            .collect();
        let answer = system.post(&Value::from(events).to_string());
        assert_eq!(answer.status, 422, "{}", answer.text);
        expected += answer.json()["rejected"].as_u64().unwrap();
    }
    let dropped = system.service("gateway").metric("ess_gateway_dead_letters_dropped_total");
    assert!(dropped > 100.0 && dropped < 2_900.0, "{dropped} of {expected}");
    // Longer than a message is sent again by its client.
    std::thread::sleep(Duration::from_secs(12));
    system.nats().start_again();
    system.wait_ready();
    grows_to(&system, "tiktok", expected);
    let kept: u64 = system.database.query("SELECT count(*) FROM dead_letters WHERE payload_length > 0")[0]
        .parse()
        .unwrap();
    assert_eq!(kept, expected - dropped as u64);
}

#[test]
fn events_refused_while_the_dead_letters_are_full_are_counted_and_valid_events_are_stored() {
    let mut system = System::real(&[("ESS_DEAD_LETTER_MAX_BYTES", "1MiB")]);
    for name in ["collector-facebook", "collector-tiktok"] {
        system.service(name).process.kill();
    }
    let mut expected = 0;
    let mut refuse = |system: &System| {
        let events: Vec<Value> = (0..100)
            .map(|n| json!({"source": "tiktok", "eventId": format!("full-{n}"), "pad": "x".repeat(10_000)}))
            .chain([simple(&format!("good-{expected}"), "tiktok")])
            .collect();
        let answer = system.post(&Value::from(events).to_string());
        assert_eq!((answer.status, &answer.json()["rejected"]), (202, &json!(100)), "{}", answer.text);
        expected += 100;
    };
    (0..5).for_each(|_| refuse(&system));
    let gateway = system.gateway_url("/metrics");
    let dropped = || http::metric(&gateway, "ess_gateway_dead_letters_dropped_total");
    eventually("some are counted alone", MINUTE, || (dropped() > 0.0).then_some(()));
    refuse(&system);
    for name in ["collector-facebook", "collector-tiktok"] {
        system.service(name).start_again();
    }
    system.wait_ready();
    grows_to(&system, "tiktok", 600);
    system.settle();
    assert_eq!(system.count_rows(), 6);
}
