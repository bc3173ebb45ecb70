//! Requests that an enemy would send, and what they cost others, on the embedded default.
//!
//! `cargo bench --bench hostile` prints a table in Markdown: the time until such a request is answered, and the longest
//! that a client of single events waits meanwhile, beside the same without the enemy. Limits are of a machine with two
//! cores that does nothing else.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    dead_code,
    reason = "a bench fails by panicking"
)]

#[path = "../tests/it/support/mod.rs"]
mod support;

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use support::events::simple;
use support::http;
use support::system::System;

/// Requests of each kind.
const TRIES: usize = 10;
const JSON: (&str, &str) = ("Content-Type", "application/json");

/// An event of 260 kB with 21,600 errors, each under a key of 131 kB.
fn errors_at_a_long_path() -> String {
    let key = "k".repeat(131_000);
    format!(
        r#"{{"eventId":"long-path","source":"facebook","x":{{"{key}":{{"y":1{}}}}}}}"#,
        r#","y":1"#.repeat(21_600)
    )
}

/// A valid event with 6,400 unknown keys at each of four levels.
fn unknown_keys() -> String {
    let keys = |prefix: &str| -> String {
        (0..6_400).map(|n| format!(r#""{prefix}{:02}{:02}":1,"#, n / 100, n % 100)).collect()
    };
    format!(
        r#"{{{}"eventId":"many-keys","timestamp":"2026-01-31T12:00:00Z","source":"facebook","funnelStage":"top","eventType":"ad.view","data":{{{}"user":{{{}"userId":"u1","name":"Ada","age":36,"gender":"female","location":{{{}"country":"Kenya","city":"Nairobi"}}}},"engagement":{{"actionTime":"2026-01-31T12:00:00Z","referrer":"newsfeed","videoId":null}}}}}}"#,
        keys("w"),
        keys("x"),
        keys("y"),
        keys("z")
    )
}

fn gzip(text: &str) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    packed.write_all(text.as_bytes()).unwrap();
    packed.finish().unwrap()
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Sends single events, one after another, while `work` runs; returns the median and the longest wait, in
/// milliseconds, and the number of events that were sent.
fn others_wait(url: &str, work: impl FnOnce()) -> (f64, f64, usize) {
    let done = AtomicBool::new(false);
    let mut waits = std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            let mut waits = Vec::new();
            while !done.load(Ordering::Relaxed) {
                let event = simple(&format!("other-{}", waits.len()), "facebook").to_string();
                let started = Instant::now();
                assert_eq!(http::post(url, &event).unwrap().status, 202);
                waits.push(milliseconds(started.elapsed()));
            }
            waits
        });
        work();
        done.store(true, Ordering::Relaxed);
        other.join().unwrap()
    });
    waits.sort_by(f64::total_cmp);
    (waits[waits.len() / 2], *waits.last().unwrap(), waits.len())
}

/// Answers to `TRIES` requests one after another: the median, in milliseconds.
fn answered(url: &str, body: &[u8], packed: bool, status: u16) -> f64 {
    let mut headers = vec![JSON];
    if packed {
        headers.push(("Content-Encoding", "gzip"));
    }
    let mut times: Vec<f64> = (0..TRIES)
        .map(|_| {
            let started = Instant::now();
            let answer = http::post_with(url, &headers, body).unwrap();
            assert_eq!(answer.status, status, "{}", &answer.text[..answer.text.len().min(500)]);
            milliseconds(started.elapsed())
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[TRIES / 2]
}

fn main() {
    let system = System::embedded(&[("LOG_LEVEL", "error")]);
    let webhook = system.gateway_url("/webhook");
    println!("| request | answered after | single events beside it wait |\n|---|---|---|");
    let (median, longest, sent) = others_wait(&webhook, || std::thread::sleep(Duration::from_secs(5)));
    println!("| none | | p50 {median:.1} ms, longest {longest:.1} ms of {sent} |");
    let (long_path, keys) = (errors_at_a_long_path(), unknown_keys());
    for (what, body, packed, status) in [
        (
            "21,600 errors under a key of 131 kB (limit 20 ms, others 50 ms)",
            long_path.clone().into_bytes(),
            false,
            422,
        ),
        (
            "200 of those in one array, packed",
            gzip(&format!("[{}]", vec![long_path; 200].join(","))),
            true,
            422,
        ),
        ("25,600 unknown keys over four levels (limit 60 ms)", keys.into_bytes(), false, 202),
    ] {
        let mut time = 0.0;
        let (median, longest, sent) =
            others_wait(&webhook, || time = answered(&webhook, &body, packed, status));
        println!("| {what} | {time:.1} ms | p50 {median:.1} ms, longest {longest:.1} ms of {sent} |");
    }
}
