//! Limits of the gateway: tokens, rates, sizes, connections, memory; and hostile input.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::actors::nodes;
use crate::support::events::{Chance, simple};
use crate::support::http;
use crate::support::process::Service;
use crate::support::system::{System, samples};
use crate::support::{MINUTE, eventually};

const REQUESTS: &str = "ess_gateway_requests_total";

fn gateway_metric(system: &System, series: &str) -> f64 {
    http::metric(&system.gateway_url("/metrics"), series)
}

fn requests(system: &System, publisher: &str, outcome: &str) -> f64 {
    gateway_metric(system, &format!("{REQUESTS}{{outcome=\"{outcome}\",publisher=\"{publisher}\"}}"))
}

#[test]
fn a_token_identifies_the_publisher_and_a_publisher_may_have_two() {
    let system =
        System::embedded(&[("ESS_WEBHOOK_TOKEN", "acme:t0ken-one,acme:t0ken-two,other:t0ken-three")]);
    let send = |token: &str| {
        let headers = [("Content-Type", "application/json"), ("Authorization", &*format!("Bearer {token}"))];
        http::post_with(&system.gateway_url("/webhook"), &headers, b"[]").unwrap().status
    };
    for token in ["t0ken-one", "t0ken-two", "t0ken-three"] {
        assert_eq!(send(token), 202);
    }
    assert_eq!(send("acme:t0ken-one"), 401, "the name is no part of the token");
    assert_eq!(requests(&system, "acme", "accepted"), 2.0);
    assert_eq!(requests(&system, "other", "accepted"), 1.0);
    assert_eq!(requests(&system, "unknown", "unauthorized"), 1.0);
}

#[test]
fn requests_are_limited_to_a_rate_for_each_publisher() {
    let system = System::embedded(&[
        ("ESS_WEBHOOK_TOKEN", "fast:t0ken-fast,slow:t0ken-slow"),
        ("ESS_RATE_LIMIT", "5"),
    ]);
    let send = |token: &str| {
        let headers = [("Content-Type", "application/json"), ("Authorization", &*format!("Bearer {token}"))];
        http::post_with(&system.gateway_url("/webhook"), &headers, b"[]").unwrap()
    };
    let answers: Vec<_> = (0..30).map(|_| send("t0ken-fast")).collect();
    let limited: Vec<_> = answers.iter().filter(|answer| answer.status == 429).collect();
    assert!(!limited.is_empty() && answers.iter().filter(|answer| answer.status == 202).count() >= 5);
    assert_eq!(limited[0].header("retry-after"), Some("1"));
    assert_eq!(limited[0].header("content-type"), Some("application/problem+json"));
    assert_eq!(limited[0].json()["accepted"], 0);
    assert_eq!(send("t0ken-slow").status, 202, "another publisher is not held up");
    assert_eq!(requests(&system, "fast", "limited"), limited.len() as f64);
    eventually("the publisher may send again", MINUTE, || (send("t0ken-fast").status == 202).then_some(()));
}

#[test]
fn a_request_with_too_many_events_is_refused_as_a_whole() {
    let system = System::embedded(&[("ESS_MAX_EVENTS", "1500")]);
    let body = |count: usize| {
        let events: Vec<Value> = (0..count).map(|n| simple(&format!("{count}-{n}"), "facebook")).collect();
        Value::from(events).to_string()
    };
    let answer = system.post(&body(1_501));
    assert_eq!((answer.status, &answer.json()["limit"]), (413, &json!(1_500)), "{}", answer.text);
    assert!(answer.text.contains("ESS_MAX_EVENTS"));
    assert_eq!(system.post(&body(1_500)).status, 202);
    system.settle();
    assert_eq!(system.count_rows(), 1_500);
    assert_eq!(system.report("/dead-letters")["deadLetters"], json!([]));
    assert_eq!(requests(&system, "anonymous", "too_large"), 1.0);
}

#[test]
fn a_request_head_that_is_too_large_is_refused() {
    let system = System::embedded(&[]);
    let send = |bytes: usize| {
        http::get_with(&system.gateway_url("/health"), &[("X-Long", &"x".repeat(bytes))])
            .map(|answer| answer.status)
    };
    assert_eq!(send(10_000).unwrap(), 200);
    assert_eq!(send(20_000).unwrap(), 431);
    assert_eq!(gateway_metric(&system, "ess_http_heads_too_large_total"), 1.0);
    // Beyond the server's own buffer for a head: an error, or a closed connection.
    assert!(send(300_000).is_ok_and(|status| (400..500).contains(&status)) || send(300_000).is_err());
    assert_eq!(send(10).unwrap(), 200);
}

#[test]
fn incomplete_requests_delay_nobody_and_are_timed_out() {
    let system = System::embedded(&[("ESS_HEAD_TIMEOUT", "3s"), ("ESS_BODY_TIMEOUT", "4s")]);
    let address = system.gateway_url("").replace("http://", "");
    let open = |text: &str| {
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        stream
    };
    let mut halves: Vec<TcpStream> =
        (0..150).map(|_| open("POST /webhook HTTP/1.1\r\nHost: x\r\nCont")).collect();
    halves.extend((0..150).map(|_| {
        open("POST /webhook HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 60000000\r\n\r\n[")
    }));
    eventually("all are open", MINUTE, || {
        (gateway_metric(&system, "ess_http_connections") >= 300.0).then_some(())
    });
    let slowest = (0..200)
        .map(|n| {
            let started = Instant::now();
            assert_eq!(system.post(&simple(&format!("s-{n}"), "tiktok").to_string()).status, 202);
            started.elapsed()
        })
        .max()
        .unwrap();
    assert!(slowest < Duration::from_millis(500), "{slowest:?}");
    let mut ends = Vec::new();
    for mut stream in halves {
        stream.set_read_timeout(Some(MINUTE)).unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        ends.push(answer.split(' ').nth(1).unwrap_or_default().to_owned());
    }
    let ended: std::collections::BTreeSet<&str> = ends.iter().map(String::as_str).collect();
    assert!(ended.iter().all(|status| ["408", ""].contains(status)), "{ended:?}");
    assert_eq!(requests(&system, "anonymous", "timed_out"), 150.0);
    eventually("all connections are closed", MINUTE, || {
        (gateway_metric(&system, "ess_http_connections") < 20.0).then_some(())
    });
}

#[test]
fn an_idle_connection_with_an_incomplete_second_head_is_closed() {
    let system = System::embedded(&[("ESS_IDLE_TIMEOUT", "2s")]);
    let mut stream = TcpStream::connect(system.gateway_url("").replace("http://", "")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = [0; 4_096];
    let read = stream.read(&mut answer).unwrap();
    assert!(answer[..read].starts_with(b"HTTP/1.1 200"));
    stream.write_all(b"P").unwrap();
    let started = Instant::now();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    // A connection in use stays open.
    let mut client = Client::connect(&system.gateway_url("").replace("http://", ""));
    for _ in 0..6 {
        assert_eq!(client.post(b"[]"), 202);
        std::thread::sleep(Duration::from_millis(700));
    }
}

#[test]
fn connections_beyond_the_limit_wait_for_others_to_close() {
    let system = System::embedded(&[("ESS_MAX_CONNECTIONS", "4"), ("ESS_HEAD_TIMEOUT", "60s")]);
    let address = system.gateway_url("").replace("http://", "");
    std::thread::sleep(Duration::from_millis(500));
    let idle: Vec<TcpStream> = (0..12).map(|_| TcpStream::connect(&address).unwrap()).collect();
    std::thread::sleep(Duration::from_millis(500));
    let mut late = TcpStream::connect(&address).unwrap();
    late.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    late.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let mut answer = String::new();
    assert!(late.read_to_string(&mut answer).is_err(), "it waits: {answer}");
    drop(idle);
    late.set_read_timeout(Some(MINUTE)).unwrap();
    late.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// Sends a POST except the last byte of its body.
fn post_all_but_one_byte(address: &str, path: &str, headers: &str, length: usize) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&vec![b' '; length - 1]).unwrap();
    stream
}

#[test]
fn bytes_in_flight_are_bounded_and_unverified_requests_get_at_most_half_of_them() {
    let system = System::embedded(&[
        ("ESS_MAX_BODY", "1MiB"),
        ("ESS_MAX_INFLIGHT", "4MiB"),
        ("ESS_FACEBOOK_APP_SECRET", "secret"),
    ]);
    let address = system.gateway_url("").replace("http://", "");
    let inflight = || gateway_metric(&system, "ess_gateway_inflight_bytes");
    let signed = "X-Hub-Signature-256: sha256=00\r\n";
    let stranger = || post_all_but_one_byte(&address, "/webhook/facebook", signed, 1 << 20);
    // One after another: six at once could each reserve a part and wait for the rest, and all be refused.
    let mut strangers = Vec::new();
    for held in 1..=2 {
        strangers.push(stranger());
        eventually("strangers have their half", MINUTE, || {
            (inflight() >= f64::from(held << 20)).then_some(())
        });
    }
    assert_eq!(system.post(&simple("beside", "tiktok").to_string()).status, 202, "others have theirs");
    let known: Vec<_> = (0..2).map(|_| post_all_but_one_byte(&address, "/webhook", "", 1 << 20)).collect();
    eventually("all is taken", MINUTE, || (inflight() >= f64::from(4 << 20) - 8_192.0).then_some(()));
    let full = system.post(&format!("[{}]", " ".repeat(20_000)));
    assert_eq!(full.status, 503, "{}", full.text);
    assert!(full.text.contains("ESS_MAX_INFLIGHT") && full.header("retry-after").is_some());
    drop(known);
    eventually("others have gone", MINUTE, || (inflight() <= f64::from(2 << 20) + 4_096.0).then_some(()));
    strangers.extend((0..4).map(|_| stranger()));
    std::thread::sleep(Duration::from_millis(300));
    assert!(inflight() <= f64::from(2 << 20) + 4_096.0, "{}", inflight());
    drop(strangers);
    eventually("there is room again", MINUTE, || {
        (system.post(&simple("after", "tiktok").to_string()).status == 202).then_some(())
    });
}

#[test]
fn a_slow_request_with_an_unverified_signature_is_ended_when_others_wait_for_memory() {
    let system = System::embedded(&[
        ("ESS_MAX_BODY", "2MiB"),
        ("ESS_MAX_INFLIGHT", "8MiB"),
        ("ESS_FACEBOOK_APP_SECRET", "two"),
    ]);
    let address = system.gateway_url("").replace("http://", "");
    let inflight = || gateway_metric(&system, "ess_gateway_inflight_bytes");
    let bogus = "X-Hub-Signature-256: sha256=00\r\n";
    let mut slow: Vec<_> =
        (0..2).map(|_| post_all_but_one_byte(&address, "/webhook/facebook", bogus, 2 << 20)).collect();
    eventually("they hold half of the memory", MINUTE, || {
        (inflight() >= f64::from((4 << 20) - 8_192)).then_some(())
    });
    std::thread::sleep(Duration::from_secs(2));
    assert!(inflight() >= f64::from((4 << 20) - 8_192), "slow requests go on while nobody waits");
    // printf '{"a":1}' | openssl dgst -sha256 -hmac two
    let signature = "sha256=8fb84cd0f727f5dda4da05cc68cd62200b48578a621f31478ed566c5327a34cf";
    let mut slowest = Duration::ZERO;
    for _ in 0..5 {
        let started = Instant::now();
        let headers = [("Content-Type", "application/json"), ("X-Hub-Signature-256", signature)];
        let answer =
            http::post_with(&system.gateway_url("/webhook/facebook"), &headers, b"{\"a\":1}").unwrap();
        assert_eq!(answer.status, 200, "the signature is valid, the event a dead letter: {}", answer.text);
        slowest = slowest.max(started.elapsed());
    }
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
    let mut answers = Vec::new();
    for stream in &mut slow {
        stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answers.push(answer);
    }
    let ended: Vec<_> = answers.iter().filter(|answer| answer.starts_with("HTTP/1.1 503")).collect();
    assert_eq!(ended.len(), 1, "one was enough: {answers:?}");
    assert!(
        ended[0].contains("too slowly") && ended[0].to_lowercase().contains("connection: close"),
        "{}",
        ended[0]
    );
}

#[test]
fn decompression_bombs_use_no_more_memory_than_may_be_in_flight() {
    let system = System::embedded(&[("ESS_MAX_INFLIGHT", "128MiB")]);
    // A few kilobytes that decompress to more than 64 MiB; and a frame that requires a window of 128 MiB.
    let bomb = vec![b' '; (64 << 20) + 1];
    let packed = zstd::encode_all(&bomb[..], 3).unwrap();
    let mut wide = zstd::Encoder::new(Vec::new(), 3).unwrap();
    wide.window_log(27).unwrap();
    wide.write_all(&bomb).unwrap();
    let wide = wide.finish().unwrap();
    let headers = [("Content-Type", "application/json"), ("Content-Encoding", "zstd")];
    let url = system.gateway_url("/webhook");
    assert_eq!(http::post_with(&url, &headers, &wide).unwrap().status, 400);
    let peak = || system.services[0].process.memory_kib("VmHWM") / 1_024;
    let before = peak();
    std::thread::scope(|scope| {
        for _ in 0..24 {
            scope.spawn(|| {
                let answer = http::post_with(&url, &headers, &packed).unwrap();
                assert!([413, 503].contains(&answer.status), "{}", answer.text);
            });
        }
    });
    // 128 MiB in flight, and memory that the allocator keeps.
    assert!(peak() - before < 400, "{} MiB more", peak() - before);
    assert_eq!(system.post(&simple("after", "tiktok").to_string()).status, 202);
}

#[test]
fn an_event_with_millions_of_keys_uses_bounded_memory_and_deep_nesting_is_refused() {
    let system = System::embedded(&[]);
    let peak = || system.services[0].process.memory_kib("VmHWM") / 1_024;
    let before = peak();
    let many = format!("{{{}\"eventId\":\"many\"}}", "\"a\":0,".repeat(6_000_000));
    let answer = system.post(&many);
    assert_eq!(
        (answer.status, &answer.json()["errors"][0]["eventId"]),
        (422, &json!("many")),
        "{}",
        answer.text
    );
    assert!(peak() - before < 300, "{} MiB more", peak() - before);
    let mut deep = simple("deep", "facebook");
    deep["more"] = serde_json::from_str(&format!("{}1{}", "[".repeat(70), "]".repeat(70))).unwrap();
    let answer = system.post(&deep.to_string());
    assert_eq!(answer.status, 422);
    assert!(answer.text.contains("nests deeper than 64"), "{}", answer.text);
}

/// Returns a valid body with one to four random mutations.
fn mutated(chance: &mut Chance, seeds: &[Vec<u8>]) -> Vec<u8> {
    const WORDS: &[&str] = &[
        "null",
        "true",
        "-1",
        "1e999",
        "\"\"",
        "{}",
        "[]",
        "[",
        "]",
        "{",
        "}",
        ",",
        ":",
        "\"",
        "\\u0000",
        "\\ud800",
        "\u{feff}",
        "99999999999999999999",
        "\"facebook\"",
        "\"2026-13-45T00:00:00Z\"",
        "\"1e5\"",
        "\\",
        "\u{0}",
    ];
    let mut body = seeds[chance.below(seeds.len() as u64) as usize].clone();
    for _ in 0..=chance.below(4) {
        let at = chance.below(body.len() as u64 + 1) as usize;
        match chance.below(5) {
            0 if at < body.len() => body[at] ^= 1 << chance.below(8),
            1 if at < body.len() => drop(body.remove(at)),
            2 => {
                let word = chance.pick(WORDS).as_bytes();
                drop(body.splice(at..at, word.iter().copied()));
            }
            3 => {
                let end = (at + chance.below(40) as usize).min(body.len());
                let part = body[at..end].to_vec();
                drop(body.splice(at..at, part));
            }
            _ => body.truncate(at),
        }
    }
    body
}

#[test]
fn a_hundred_thousand_mutated_bodies_are_answered_202_400_or_422() {
    const ROUNDS: u64 = 100_000;
    const CONNECTIONS: u64 = 8;
    let system = System::embedded(&[]);
    let valid = std::fs::read_to_string(samples().join("valid.jsonl")).unwrap();
    let mut seeds: Vec<Vec<u8>> = valid.lines().map(|line| line.as_bytes().to_vec()).collect();
    seeds.push(format!("[{}]", valid.lines().take(3).collect::<Vec<_>>().join(",")).into_bytes());
    let address = system.gateway_url("").replace("http://", "");
    let statuses = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..CONNECTIONS)
            .map(|thread| {
                let (address, seeds) = (address.clone(), &seeds);
                scope.spawn(move || {
                    let mut chance = Chance(0xb0d1 + thread);
                    let mut found = std::collections::BTreeMap::<u16, u64>::new();
                    let mut client = Client::connect(&address);
                    for _ in 0..ROUNDS / CONNECTIONS {
                        let body = mutated(&mut chance, seeds);
                        let status = client.post(&body);
                        assert!(
                            [202, 400, 422].contains(&status),
                            "{status}: {}",
                            String::from_utf8_lossy(&body)
                        );
                        *found.entry(status).or_default() += 1;
                    }
                    found
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).fold(
            std::collections::BTreeMap::<u16, u64>::new(),
            |mut all, found| {
                found.into_iter().for_each(|(status, count)| *all.entry(status).or_default() += count);
                all
            },
        )
    });
    assert_eq!(statuses.values().sum::<u64>(), ROUNDS);
    assert!(statuses.len() == 3, "{statuses:?}");
    let ledger = system.settle();
    for source in ledger["sources"].as_array().unwrap() {
        assert_eq!((&source["missing"], &source["quarantined"]), (&json!(0), &json!(0)), "{ledger}");
    }
    for actor in nodes(&system.gateway_url("")) {
        assert_eq!(actor["restarts"], 0, "{actor}");
    }
}

/// Client with one persistent connection.
struct Client {
    stream: std::io::BufReader<TcpStream>,
}

impl Client {
    fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream: std::io::BufReader::new(stream) }
    }

    fn post(&mut self, body: &[u8]) -> u16 {
        use std::io::BufRead;
        let mut request =
            format!("POST /webhook HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len())
                .into_bytes();
        request.extend_from_slice(body);
        self.stream.get_mut().write_all(&request).unwrap();
        let (mut status, mut length) = (0, 0);
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line).unwrap();
            let line = line.trim_end().to_ascii_lowercase();
            if let Some(rest) = line.strip_prefix("http/1.1 ") {
                status = rest.split(' ').next().unwrap().parse().unwrap();
            } else if let Some(rest) = line.strip_prefix("content-length: ") {
                length = rest.parse().unwrap();
            } else if line.is_empty() {
                break;
            }
        }
        let mut answer = vec![0; length];
        self.stream.read_exact(&mut answer).unwrap();
        status
    }
}

#[test]
fn no_error_answer_contains_a_secret_or_internals() {
    let secrets = [
        ("ESS_WEBHOOK_TOKEN", "t0p-s3cret-webhook"),
        ("ESS_REPORTER_TOKEN", "t0p-s3cret-reporter"),
        ("ESS_ADMIN_TOKEN", "t0p-s3cret-admin"),
        ("ESS_FACEBOOK_APP_SECRET", "t0p-s3cret-facebook"),
        ("ESS_FACEBOOK_VERIFY_TOKEN", "t0p-s3cret-verify"),
    ];
    let system = System::embedded(&secrets);
    let bearer = |token: &str| format!("Bearer {token}");
    let (webhook, reporter) = (bearer("t0p-s3cret-webhook"), bearer("t0p-s3cret-reporter"));
    let mut answers = Vec::new();
    for (path, headers, body) in [
        ("/webhook", vec![("Authorization", "Bearer wrong")], "{}"),
        ("/webhook", vec![("Authorization", webhook.as_str())], "{"),
        ("/webhook", vec![("Authorization", webhook.as_str()), ("Content-Type", "text/x")], "{}"),
        ("/webhook/facebook", vec![("X-Hub-Signature-256", "sha256=00")], "{}"),
        ("/actors/gateway.ingest/restart", vec![("Authorization", "Bearer wrong")], ""),
    ] {
        answers.push(http::post_with(&system.gateway_url(path), &headers, body.as_bytes()).unwrap());
    }
    for path in ["/webhook/facebook?hub.mode=subscribe&hub.challenge=1&hub.verify_token=x", "/nowhere"] {
        answers.push(http::get(&system.gateway_url(path)).unwrap());
    }
    for path in ["/reports/events?from='; DROP TABLE event_rows", "/reports/events?source=x", "/events/none"]
    {
        let path = path.replace(' ', "%20");
        answers.push(
            http::get_with(&system.reporter_url(&path), &[("Authorization", reporter.as_str())]).unwrap(),
        );
    }
    system.damage("ALTER TABLE rollups RENAME TO gone");
    let away =
        http::get_with(&system.reporter_url("/reports/events"), &[("Authorization", &reporter)]).unwrap();
    assert_eq!(away.status, 503);
    answers.push(away);
    for answer in &answers {
        assert!(answer.status >= 400, "{}", answer.text);
        for inner in ["s3cret", "SELECT", "rollups", "sqlite", "src/", "panicked"] {
            assert!(!answer.text.contains(inner), "{inner}: {}", answer.text);
        }
    }
    assert!(!system.services[0].process.output().contains("s3cret"), "no log line contains a secret");
}

#[test]
fn ids_that_look_like_sql_are_stored_and_found() {
    let system = System::embedded(&[]);
    let ids = ["'; DROP TABLE event_rows; --", "%", "_", "\\", "$1", "?1", "\"", "' OR 1=1 --"];
    for id in ids {
        assert_eq!(system.post(&simple(id, "facebook").to_string()).status, 202);
    }
    system.settle();
    assert_eq!(system.count_rows(), ids.len() as u64);
    for id in ids {
        let encoded: String = id.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let found = system.report(&format!("/events/{encoded}"));
        assert_eq!(found["matches"].as_array().unwrap().len(), 1, "{id}: {found}");
        let revenue = system.report(&format!("/reports/revenue?campaignId={encoded}&groupBy=campaign"));
        assert_eq!(revenue["transactions"], 0);
    }
}

#[test]
fn a_service_without_its_secret_file_is_alive_but_not_ready_until_the_file_exists() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("token");
    let environment =
        [("ESS_WEBHOOK_TOKEN_FILE", secret.to_str().unwrap()), ("NATS_URL", "nats://127.0.0.1:1")];
    let environment: Vec<(String, String)> =
        environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let mut gateway = Service::start(&["gateway"], &environment, folder.path());
    let waiting =
        eventually("readiness names the missing file", MINUTE, || http::get(&gateway.url("/ready")).ok());
    assert_eq!(waiting.status, 503);
    assert!(waiting.text.contains("ESS_WEBHOOK_TOKEN_FILE"), "{}", waiting.text);
    assert_eq!(http::get(&gateway.url("/health")).unwrap().status, 200);
    assert_eq!(
        http::post(&gateway.url("/webhook"), "[]").unwrap().status,
        404,
        "events are not accepted yet"
    );
    std::fs::write(&secret, "t0ken-one\n").unwrap();
    let status = || http::post(&gateway.url("/webhook"), "[]").ok().map(|answer| answer.status);
    eventually("the gateway starts with the secret", MINUTE, || status().filter(|status| *status == 401));
    assert!(gateway.process.running());
    let lines = gateway.lines("every user can read");
    assert!(!lines.is_empty(), "{}", gateway.process.output());
    // Commands that are no services do not wait.
    std::fs::remove_file(&secret).unwrap();
    let check = crate::support::process::ess(&["check"], &environment, folder.path()).output().unwrap();
    assert_eq!(check.status.code(), Some(2), "{}", String::from_utf8_lossy(&check.stderr));
    assert!(String::from_utf8_lossy(&check.stderr).contains("ESS_WEBHOOK_TOKEN_FILE"));
}

#[test]
fn a_client_that_shuts_down_its_sending_half_gets_its_answer() {
    let system = System::embedded(&[]);
    let mut stream = TcpStream::connect(system.gateway_url("").replace("http://", "")).unwrap();
    stream
        .write_all(b"POST /webhook HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\n[]")
        .unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
}
