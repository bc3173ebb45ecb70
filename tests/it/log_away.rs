//! The gateway while the log, or a part of it, is away or answers oddly.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_nats::jetstream::stream::{Config, RetentionPolicy};
use futures::StreamExt;
use serde_json::{Value, json};

use crate::support::events::simple;
use crate::support::http::{self, Answer};
use crate::support::nats::Nats;
use crate::support::process::{Service, ess};
use crate::support::proxy::Proxy;
use crate::support::system::System;
use crate::support::{MINUTE, eventually};

fn environment(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// A server that never answers what is asked about these streams: it refuses the question without a word.
fn silent_about(streams: &[&str]) -> (Nats, String) {
    let denied: Vec<String> =
        streams.iter().map(|stream| format!("\"$JS.API.STREAM.INFO.{stream}\"")).collect();
    let nats = Nats::start_with(&format!(
        "authorization {{ users = [{{ user: ess, password: secret, permissions: {{ publish: {{ deny: [{}] }} }} }}] }}",
        denied.join(", ")
    ));
    let url = format!("nats://ess:secret@127.0.0.1:{}", nats.port);
    (nats, url)
}

fn ready(gateway: &Service) -> Answer {
    http::get(&gateway.url("/ready")).unwrap()
}

/// Posts one event after the other, each by itself; gives the durations, sorted. All must be taken.
fn post_events(gateway: &Service, source: &str, count: usize) -> Vec<Duration> {
    let mut taken: Vec<Duration> = (0..count)
        .map(|n| {
            let event = simple(&format!("{source}-{n}"), source).to_string();
            let started = Instant::now();
            let answer = http::post(&gateway.url("/webhook"), &event).unwrap();
            assert_eq!(answer.status, 202, "{}", answer.text);
            started.elapsed()
        })
        .collect();
    taken.sort();
    taken
}

#[test]
fn a_topic_that_does_not_answer_delays_no_other() {
    for silent in [&["ESS_DEAD_LETTERS"][..], &["ESS_TIKTOK"], &["ESS_TIKTOK", "ESS_DEAD_LETTERS"]] {
        let (_nats, url) = silent_about(silent);
        let folder = tempfile::tempdir().unwrap();
        let mut gateway = Service::start(&["gateway"], &environment(&[("NATS_URL", &url)]), folder.path());
        gateway.wait_ready();
        let done = AtomicBool::new(false);
        let (taken, looks) = std::thread::scope(|scope| {
            // Refused events keep the dead letters busy, and the other source's events wait for their topic.
            let busy = scope.spawn(|| {
                let mut posts = 0;
                while !done.load(Ordering::Relaxed) {
                    let answer = http::post(&gateway.url("/webhook"), "[{}]").unwrap();
                    assert_eq!(answer.status, 422, "{}", answer.text);
                    posts += 1;
                    std::thread::sleep(Duration::from_millis(20));
                }
                posts
            });
            let waiting = silent.contains(&"ESS_TIKTOK").then(|| {
                scope.spawn(|| {
                    http::post(&gateway.url("/webhook"), &simple("away", "tiktok").to_string()).unwrap()
                })
            });
            let looking = scope.spawn(|| {
                let mut looks = 0;
                while !done.load(Ordering::Relaxed) {
                    let answer = ready(&gateway);
                    assert_eq!(answer.status, 200, "{}", answer.text);
                    looks += 1;
                    std::thread::sleep(Duration::from_millis(100));
                }
                looks
            });
            let taken = post_events(&gateway, "facebook", 300);
            if let Some(waiting) = waiting {
                let answer = waiting.join().unwrap();
                assert_eq!(answer.status, 503, "{}", answer.text);
            }
            done.store(true, Ordering::Relaxed);
            assert!(busy.join().unwrap() > 0);
            (taken, looking.join().unwrap())
        });
        let (median, longest) = (taken[taken.len() / 2], taken[taken.len() - 1]);
        println!(
            "silent {silent:?}: {} posts, p50 {median:?}, max {longest:?}; /ready asked {looks} times",
            taken.len()
        );
        assert!(looks > 0, "/ready was never asked");
        // Without a silent topic it is some milliseconds; with one lock over all topics the median was 2 s.
        assert!(
            median < Duration::from_millis(200) && longest < Duration::from_secs(2),
            "{median:?} {longest:?}"
        );
        let series = format!(
            "ess_ready{{dependency=\"log.{}\"}}",
            silent[0].trim_start_matches("ESS_").to_lowercase()
        );
        assert!(gateway.metric(&series).abs() < 0.5 && gateway.metric("ess_ready{dependency=\"log\"}") > 0.5);
        let said = eventually("/ready names what is away", MINUTE, || {
            let degraded = ready(&gateway).json()["degraded"].clone();
            (degraded.as_object().map_or(0, serde_json::Map::len) == silent.len()).then_some(degraded)
        });
        for stream in silent {
            let part = format!("log.{}", stream.trim_start_matches("ESS_").to_lowercase());
            assert!(said[&part].is_string(), "{said}");
        }
    }
}

#[test]
fn a_gateway_that_serves_no_source_is_not_ready_and_names_each() {
    let (_nats, url) = silent_about(&["ESS_FACEBOOK", "ESS_TIKTOK"]);
    let folder = tempfile::tempdir().unwrap();
    let gateway = Service::start(&["gateway"], &environment(&[("NATS_URL", &url)]), folder.path());
    let why = eventually("it says which", MINUTE, || {
        let answer = http::get(&gateway.url("/ready")).ok()?;
        assert_eq!(answer.status, 503, "{}", answer.text);
        (answer.text.contains("log.facebook") && answer.text.contains("log.tiktok")).then_some(answer.text)
    });
    println!("{why}");
}

/// A stream as JetStream describes it.
fn info(stream: &str, subject: &str) -> Value {
    let config = Config {
        name: stream.to_owned(),
        subjects: vec![subject.to_owned()],
        retention: RetentionPolicy::WorkQueue,
        num_replicas: 3,
        ..Config::default()
    };
    json!({"type": "io.nats.jetstream.api.v1.stream_info_response", "config": config,
           "created": "2026-01-01T00:00:00Z",
           "state": {"messages": 0, "bytes": 0, "first_seq": 0, "first_ts": "2026-01-01T00:00:00Z", "last_seq": 0,
                     "last_ts": "2026-01-01T00:00:00Z", "consumer_count": 0}})
}

/// Answers for JetStream, on a server that has none: to each message on `subject` the next of these texts, the last
/// for all that come later. Gives the ids of the messages that came.
async fn pretend(
    client: async_nats::Client,
    stream: &str,
    subject: &str,
    answers: &[&str],
    ids: &Mutex<Vec<String>>,
) {
    let mut looks = client.subscribe(format!("$JS.API.STREAM.INFO.{stream}")).await.unwrap();
    let mut frames = client.subscribe(subject.to_owned()).await.unwrap();
    let info = info(stream, subject).to_string();
    let mut answers = answers.iter();
    let mut answer = *answers.next().unwrap();
    loop {
        tokio::select! {
            Some(look) = looks.next() => {
                client.publish(look.reply.unwrap(), info.clone().into()).await.unwrap();
            }
            Some(frame) = frames.next() => {
                let id = frame.headers.unwrap().get("Nats-Msg-Id").unwrap().to_string();
                ids.lock().unwrap().push(id);
                client.publish(frame.reply.unwrap(), answer.to_owned().into()).await.unwrap();
                answer = answers.next().copied().unwrap_or(answer);
            }
        }
    }
}

/// The one place where a stand-in answers instead of a server: no server can be made to answer so at will.
#[test]
fn an_answer_without_a_sequence_or_with_a_passing_error_is_asked_again_under_the_same_id() {
    let nats = Nats::plain();
    let folder = tempfile::tempdir().unwrap();
    let answers = |stream: &str| {
        [
            // NATS 2.10 in a cluster, while the first try is being stored.
            format!(r#"{{"stream":"{stream}","seq":0,"duplicate":true}}"#),
            "{}".to_owned(),
            r#"{"stream":"ANOTHER","seq":4}"#.to_owned(),
            r#"{"error":{"code":409,"err_code":10158,"description":"duplicate message id is in process"},"seq":0}"#
                .to_owned(),
            r#"{"error":{"code":429,"err_code":10167,"description":"too many requests"},"seq":0}"#.to_owned(),
            format!(r#"{{"stream":"{stream}","seq":9,"duplicate":true}}"#),
        ]
    };
    let (events, letters) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    let gateway = Service::start(&["gateway"], &environment(&[("NATS_URL", &nats.url())]), folder.path());
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (events, letters, done, url) = (&events, &letters, &done, nats.url());
        scope.spawn(move || {
            crate::support::block_on(async {
                let client = async_nats::connect(url).await.unwrap();
                let (facebook, dead) = (answers("ESS_FACEBOOK"), answers("ESS_DEAD_LETTERS"));
                let facebook: Vec<&str> = facebook.iter().map(String::as_str).collect();
                let dead: Vec<&str> = dead.iter().map(String::as_str).collect();
                let facebook =
                    pretend(client.clone(), "ESS_FACEBOOK", "ess.events.facebook", &facebook, events);
                let dead = pretend(client, "ESS_DEAD_LETTERS", "ess.dead_letters", &dead, letters);
                let ended = async {
                    while !done.load(Ordering::Relaxed) {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                };
                tokio::select! { () = facebook => {}, () = dead => {}, () = ended => {} }
            });
        });
        eventually("the gateway answers", MINUTE, || http::get(&gateway.url("/health")).ok());
        std::thread::sleep(Duration::from_secs(1));
        let answer =
            http::post(&gateway.url("/webhook"), &simple("asked-again", "facebook").to_string()).unwrap();
        let refused = http::post(&gateway.url("/webhook"), "[{}]").unwrap();
        eventually("the letter was asked for again", MINUTE, || {
            (letters.lock().unwrap().len() >= 6).then_some(())
        });
        done.store(true, Ordering::Relaxed);
        assert_eq!((answer.status, refused.status), (202, 422), "{}", answer.text);
    });
    for (what, ids) in [("events", events.into_inner().unwrap()), ("letters", letters.into_inner().unwrap())]
    {
        assert_eq!(ids.len(), 6, "{what}: one answer of six was an acknowledgement: {ids:?}");
        assert!(ids.iter().all(|id| *id == ids[0]), "{what}: {ids:?}");
    }
    assert!(gateway.metric("ess_gateway_dead_letters_dropped_total").abs() < 0.5);
}

#[test]
fn a_503_counts_no_event_twice_when_a_publisher_was_restarted() {
    const EVENTS: usize = 30_000;
    let nats = Nats::start();
    let proxy = Proxy::to(nats.port);
    let folder = tempfile::tempdir().unwrap();
    let url = format!("nats://127.0.0.1:{}", proxy.port);
    let pairs = environment(&[("NATS_URL", &url), ("ESS_ADMIN_TOKEN", "admin")]);
    let mut gateway = Service::start(&["gateway"], &pairs, folder.path());
    gateway.wait_ready();
    let events: Vec<Value> = (0..EVENTS).map(|n| simple(&format!("r-{n}"), "facebook")).collect();
    let body = Value::from(events).to_string();
    let processed = |at_least: usize| {
        eventually("so many are durable", MINUTE, || {
            let series = "ess_gateway_events_processed_total{source=\"facebook\"}";
            (gateway.metric(series) >= at_least as f64).then_some(())
        });
    };
    proxy.delay(Duration::from_millis(6));
    let answer = std::thread::scope(|scope| {
        let post = scope.spawn(|| http::post(&gateway.url("/webhook"), &body).unwrap());
        processed(EVENTS * 6 / 10);
        let restart = gateway.url("/actors/gateway.publish.facebook/restart");
        let restarted = http::post_with(&restart, &[("Authorization", "Bearer admin")], b"").unwrap();
        assert_eq!(restarted.status, 202, "{}", restarted.text);
        // The restarted publisher begins with the whole request anew, and gets as far again.
        processed(EVENTS * 12 / 10);
        proxy.delay(Duration::from_secs(3_600));
        post.join().unwrap()
    });
    assert_eq!(answer.status, 503, "{}", answer.text);
    let accepted = answer.json()["accepted"].as_u64().unwrap() as usize;
    println!("{accepted} of {EVENTS} are durable by the answer");
    assert!((EVENTS * 5 / 10..=EVENTS).contains(&accepted), "{accepted} of {EVENTS}");
}

#[test]
fn neither_a_replay_nor_a_collector_changes_a_stream() {
    let system = System::real(&[("ESS_LOG_MAX_BYTES", "1GiB"), ("ESS_LOG_DUPLICATE_WINDOW", "90s")]);
    let mut bad = simple("bad", "tiktok");
    bad["data"]["user"]["followers"] = json!("many");
    assert_eq!(system.post(&bad.to_string()).status, 422);
    eventually("the letter is stored", MINUTE, || {
        (system.database.query("SELECT count(*) FROM dead_letters")[0] == "1").then_some(())
    });
    let mended = simple("bad", "tiktok").to_string();
    let hex: String = mended.bytes().map(|byte| format!("{byte:02x}")).collect();
    system
        .database
        .query(&format!("UPDATE dead_letters SET payload = '\\x{hex}', payload_length = {}", mended.len()));
    // As an operator's shell has it: the log's settings are the defaults.
    let mut defaults = system.environment.clone();
    defaults.retain(|(name, _)| !name.starts_with("ESS_LOG_"));
    let mut collector = Service::start(&["collector", "tiktok"], &defaults, system.folder.path());
    collector.wait_ready();
    let replay = ess(&["dead-letters", "replay"], &defaults, system.folder.path()).output().unwrap();
    assert!(String::from_utf8_lossy(&replay.stdout).contains("1 pass, 0 fail"), "{replay:?}");
    system.settle();
    assert_eq!(system.count_rows(), 1);
    let url = system.nats.as_ref().unwrap().url();
    let config = crate::support::block_on(async {
        let client = async_nats::connect(url).await.unwrap();
        let stream = async_nats::jetstream::new(client).get_stream("ESS_TIKTOK").await.unwrap();
        stream.cached_info().config.clone()
    });
    assert_eq!((config.max_bytes, config.duplicate_window), (1 << 30, Duration::from_secs(90)));
    let said = collector.lines("stream ESS_TIKTOK differs from this process's settings");
    assert_eq!(said.len(), 1, "once: {said:?}");
    assert!(said[0].to_string().contains("settings say 8.0 GiB"), "{said:?}");
}

#[test]
fn a_server_that_is_too_old_is_warned_of() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    // As much of NATS 2.10 as a client needs to connect.
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let info = json!({"server_id": "old", "server_name": "old", "version": "2.10.26", "proto": 1,
                "host": "127.0.0.1", "port": port, "headers": true, "max_payload": 1_048_576});
            let mut writer = client.try_clone().unwrap();
            write!(writer, "INFO {info}\r\n").unwrap();
            std::thread::spawn(move || {
                for line in BufReader::new(client).lines().map_while(Result::ok) {
                    if line.starts_with("PING") && write!(writer, "PONG\r\n").is_err() {
                        break;
                    }
                }
            });
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let url = format!("nats://127.0.0.1:{port}");
    let gateway = Service::start(&["gateway"], &environment(&[("NATS_URL", &url)]), folder.path());
    eventually("it is warned of", MINUTE, || {
        let lines = gateway.lines("2.10.26");
        lines
            .iter()
            .any(|line| line["level"] == "WARN" && line.to_string().contains("older than 2.11"))
            .then_some(())
    });
}
