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
fn rejected(world: &System, source: &str) -> u64 {
    let ledger = world.report("/ledger");
    let sources = ledger["sources"].as_array().unwrap();
    // There is none of unknown sources before the first of their events.
    sources
        .iter()
        .find(|known| known["source"] == source)
        .map_or(0, |known| known["rejected"].as_u64().unwrap())
}

fn grows_to(world: &System, source: &str, expected: u64) {
    eventually(&format!("the ledger has {expected} refused events of {source}"), MINUTE, || {
        let found = rejected(world, source);
        assert!(found <= expected, "{found} of {expected}");
        (found == expected).then_some(())
    });
}

#[test]
fn answers_are_bounded_and_unread_answers_take_little_memory() {
    let mut world = System::real(&[]);
    let body = gzip(format!("[{}]", (0..100).map(wordy).collect::<Vec<_>>().join(",")).as_bytes());
    assert!(body.len() < 10_000, "{} bytes", body.len());
    let headers = [("Content-Type", "application/json"), ("Content-Encoding", "gzip")];
    let answer = http::post_with(&world.gateway_url("/webhook"), &headers, &body).unwrap();
    assert_eq!((answer.status, &answer.json()["rejected"]), (422, &json!(100)));
    assert!(answer.text.len() < 300 * 1_024, "{} bytes", answer.text.len());
    assert_eq!(answer.json()["errorsTruncated"], true);

    let address = world.gateway_url("").replace("http://", "");
    let gateway = world.service("gateway");
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
    grows_to(&world, "tiktok", 100 * (UNREAD as u64 + 1));
    let letters = http::get(&world.reporter_url("/dead-letters?limit=300")).unwrap();
    assert_eq!(letters.json()["deadLetters"].as_array().unwrap().len(), 300);
    assert!(letters.text.len() < 5_000_000, "{} bytes", letters.text.len());
}

#[test]
fn the_ledger_counts_every_refused_event_of_any_number_and_size() {
    both(&[], |world| {
        // More than are kept of one request.
        let many: Vec<Value> =
            (0..12_000).map(|n| json!({"source": "facebook", "eventId": "many", "n": n})).collect();
        let answer = world.post(&Value::from(many).to_string());
        assert_eq!((answer.status, &answer.json()["rejected"]), (422, &json!(12_000)));
        grows_to(world, "facebook", 12_000);
        let listed = world.report("/dead-letters?limit=1")["deadLetters"][0].clone();
        let unkept = world.database.query("SELECT errors FROM dead_letters WHERE payload_length = 0");
        assert_eq!(unkept.len(), 1, "{listed}");
        assert!(unkept[0].contains("2000 more events were refused"), "{unkept:?}");
        // Large ones: all of them are kept here.
        let large: Vec<Value> = (0..50)
            .map(|n| json!({"source": "facebook", "eventId": format!("large-{n}"), "pad": "x".repeat(250_000)}))
            .collect();
        let answer = world.post(&Value::from(large).to_string());
        assert_eq!((answer.status, &answer.json()["rejected"]), (422, &json!(50)));
        grows_to(world, "facebook", 12_050);
        for n in 0..50 {
            let found = world.report(&format!("/events/large-{n}"));
            assert_eq!(found["matches"][0]["state"], "deadLetter", "{n}: {found}");
        }
        // Letters that JSON writes far longer than they are, and one more in their message.
        let mut wordy: Vec<String> = (0..10).map(wordy).collect();
        wordy.push(r#"{"source":"tiktok","eventId":"plain"}"#.to_owned());
        assert_eq!(world.post(&format!("[{}]", wordy.join(","))).json()["rejected"], 11);
        grows_to(world, "tiktok", 11);
        // And good ones beside bad ones of a source that cannot be told, at a source's own address.
        let mixed = json!([simple("good", "tiktok"), {}, {"source": 5}, [1]]).to_string();
        let answer = http::post(&world.gateway_url("/webhook/tiktok"), &mixed).unwrap().json();
        assert_eq!((&answer["accepted"], &answer["rejected"]), (&json!(1), &json!(3)));
        grows_to(world, "tiktok", 14);
        // Events without a known source are counted under `unknown`.
        let answer = world.post(&json!([{}, {"source": "myspace"}, 7]).to_string()).json();
        assert_eq!(answer["rejected"], 3);
        grows_to(world, "unknown", 3);
    });
}

#[test]
fn events_refused_while_the_log_is_away_are_counted_once_it_is_back() {
    let mut world = System::real(&[]);
    world.nats().process.kill();
    let mut expected = 0;
    // More than may wait: the bytes of some are let go.
    for n in 0..30 {
        let events: Vec<Value> = (0..100)
            .map(|k| json!({"source": "tiktok", "eventId": format!("{n}-{k}"), "pad": "x".repeat(20_000)}))
            .collect();
        let answer = world.post(&Value::from(events).to_string());
        assert_eq!(answer.status, 422, "{}", answer.text);
        expected += answer.json()["rejected"].as_u64().unwrap();
    }
    let dropped = world.service("gateway").metric("ess_gateway_dead_letters_dropped_total");
    assert!(dropped > 100.0 && dropped < 2_900.0, "{dropped} of {expected}");
    // Longer than a message is sent again by its client.
    std::thread::sleep(Duration::from_secs(12));
    world.nats().start_again();
    world.wait_ready();
    grows_to(&world, "tiktok", expected);
    let kept: u64 = world.database.query("SELECT count(*) FROM dead_letters WHERE payload_length > 0")[0]
        .parse()
        .unwrap();
    assert_eq!(kept, expected - dropped as u64);
}

#[test]
fn events_refused_while_the_dead_letters_are_full_are_counted_and_valid_events_are_stored() {
    let mut world = System::real(&[("ESS_DEAD_LETTER_MAX_BYTES", "1MiB")]);
    for name in ["collector-facebook", "collector-tiktok"] {
        world.service(name).process.kill();
    }
    let mut expected = 0;
    let mut refuse = |world: &System| {
        let events: Vec<Value> = (0..100)
            .map(|n| json!({"source": "tiktok", "eventId": format!("full-{n}"), "pad": "x".repeat(10_000)}))
            .chain([simple(&format!("good-{expected}"), "tiktok")])
            .collect();
        let answer = world.post(&Value::from(events).to_string());
        assert_eq!((answer.status, &answer.json()["rejected"]), (202, &json!(100)), "{}", answer.text);
        expected += 100;
    };
    (0..5).for_each(|_| refuse(&world));
    let gateway = world.gateway_url("/metrics");
    let dropped = || http::metric(&gateway, "ess_gateway_dead_letters_dropped_total");
    eventually("some are counted alone", MINUTE, || (dropped() > 0.0).then_some(()));
    refuse(&world);
    for name in ["collector-facebook", "collector-tiktok"] {
        world.service(name).start_again();
    }
    world.wait_ready();
    grows_to(&world, "tiktok", 600);
    world.settle();
    assert_eq!(world.count_rows(), 6);
}

#[test]
fn an_event_with_many_errors_takes_no_more_cpu_time_than_its_size_explains() {
    let world = System::embedded(&[]);
    let event = format!(
        r#"{{"eventId":"long","source":"facebook","x":{{"{}":{{"y":1{}}}}}}}"#,
        "k".repeat(131_000),
        ",\"y\":1".repeat(21_600)
    );
    let plain = format!(r#"{{"eventId":"plain","source":"facebook","x":[1{}]}}"#, ",100".repeat(65_000));
    let cpu = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", world.services[0].process.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let cost = |event: &str| {
        let before = cpu();
        for _ in 0..20 {
            assert_eq!(world.post(event).status, 422);
        }
        cpu() - before
    };
    let (plain, long) = (cost(&plain), cost(&event));
    assert!(long < plain * 4 + 30, "{long} ticks, {plain} for an event of that size with few errors");
}
