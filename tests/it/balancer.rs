//! HAProxy with the shipped configuration before real gateways: answers are not lost, requests are not doubled, and
//! instances are found by name.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

use crate::support::events::simple;
use crate::support::haproxy::HaProxy;
use crate::support::nats::Nats;
use crate::support::postgres::Postgres;
use crate::support::process::{Process, Service, ess};
use crate::support::{MINUTE, eventually, free_port, http};

const CLIENTS: usize = 6;
const BATCH: u64 = 10;

/// The address of a gateway: all of 127.0.0.0/8 is this machine.
fn address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, 2 + number)
}

/// A port that is free at the first addresses.
fn shared_port() -> u16 {
    loop {
        let port = free_port();
        if (0..4).all(|number| TcpListener::bind((address(number), port)).is_ok()) {
            return port;
        }
    }
}

struct Gateway {
    number: u8,
    port: u16,
    process: Process,
}

impl Gateway {
    fn start(number: u8, port: u16, environment: &[(String, String)], folder: &Path) -> Self {
        let mut environment = environment.to_vec();
        environment.push(("ESS_LISTEN".to_owned(), address(number).to_string()));
        environment.push(("PORT".to_owned(), port.to_string()));
        let log = folder.join(format!("gateway-{number}.log"));
        let process = Process::spawn(ess(&["gateway"], &environment, folder), &log);
        Self { number, port, process }
    }

    fn has_accepted(&self) -> bool {
        let url = format!("http://{}:{}/metrics", address(self.number), self.port);
        let series = "ess_gateway_events_processed_total{source=\"facebook\"}";
        http::get(&url).is_ok() && http::metric(&url, series) > 0.0
    }
}

/// Publishers that send each batch until it is accepted.
#[derive(Default)]
struct Load {
    stop: AtomicBool,
    batches: AtomicU64,
    /// Requests that were answered 429 or 503, and certainly not taken.
    refused: AtomicU64,
    /// Requests without an answer of a gateway: it may or may not have taken them.
    unanswered: AtomicU64,
    faults: Mutex<Vec<String>>,
}

impl Load {
    fn run(&self, url: &str, client: usize) {
        let agent = http::agent();
        for number in 0.. {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            let events: Vec<Value> =
                (0..BATCH).map(|n| simple(&format!("{client}-{number}-{n}"), "facebook")).collect();
            let body = Value::from(events).to_string();
            loop {
                match http::post_on(&agent, url, &body) {
                    Ok(answer) if answer.status == 202 => break,
                    Ok(answer) if matches!(answer.status, 429 | 503) => {
                        self.refused.fetch_add(1, Ordering::Relaxed);
                    }
                    other => {
                        self.unanswered.fetch_add(1, Ordering::Relaxed);
                        self.faults.lock().unwrap().push(format!("{other:?}"));
                    }
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            self.batches.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn unanswered(&self) -> u64 {
        self.unanswered.load(Ordering::Relaxed)
    }

    /// Waits for so many accepted batches more.
    fn more(&self, batches: u64) {
        let wanted = self.batches.load(Ordering::Relaxed) + batches;
        eventually("batches are accepted", MINUTE, || {
            (self.batches.load(Ordering::Relaxed) >= wanted).then_some(())
        });
    }
}

/// Variables of a file in docker/env.
fn shipped(file: &str) -> Vec<(String, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docker/env").join(file);
    let text = std::fs::read_to_string(path).unwrap();
    let pairs = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[test]
fn answers_survive_the_balancer_while_gateways_are_killed_drained_and_added() {
    let (nats, postgres, folder) = (Nats::start(), Postgres::start(), tempfile::tempdir().unwrap());
    let mut environment = shipped("gateway.env");
    environment.push(("NATS_URL".to_owned(), nats.url()));
    let port = shared_port();
    let start = |number| Gateway::start(number, port, &environment, folder.path());
    let mut gateways: Vec<Gateway> = (0..3).map(start).collect();
    let haproxy = HaProxy::start(&[address(0), address(1), address(2)], port);
    haproxy.wait_gateways(3);
    let mut with_database = environment.clone();
    with_database.push(("DATABASE_URL".to_owned(), postgres.url()));
    let mut services: Vec<Service> = [&["collector", "facebook"][..], &["reporter"]]
        .iter()
        .map(|arguments| Service::start(arguments, &with_database, folder.path()))
        .collect();
    for service in &mut services {
        service.wait_ready();
    }

    let load = Load::default();
    let url = haproxy.url("/webhook");
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (load, url) = (&load, &url);
            scope.spawn(move || load.run(url, client));
        }
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually("every gateway accepts events", MINUTE, || {
                gateways.iter().all(Gateway::has_accepted).then_some(())
            });
            load.more(100);
            assert_eq!(load.unanswered(), 0, "{:?}", load.faults.lock().unwrap());

            gateways[0].process.kill();
            load.more(200);
            let killed = load.unanswered();
            assert!(killed <= CLIENTS as u64, "{killed}: {:?}", load.faults.lock().unwrap());
            println!("killed: {killed} requests had no answer");
            gateways[0] = start(0);
            haproxy.wait_gateways(3);
            load.more(50);

            gateways[1].process.signal("TERM");
            assert!(gateways[1].process.wait(MINUTE).success(), "{}", gateways[1].process.output());
            load.more(100);
            assert_eq!(load.unanswered(), killed, "drained: {:?}", load.faults.lock().unwrap());

            // As `--scale` does: a name more, and the stopped container's is gone.
            gateways.push(start(3));
            haproxy.names.set(&[address(0), address(2), address(3)]);
            eventually("the added gateway accepts events", MINUTE, || {
                gateways[3].has_accepted().then_some(())
            });
            haproxy.wait_gateways(3);
            load.more(50);
            assert_eq!(load.unanswered(), killed, "added: {:?}", load.faults.lock().unwrap());
        }));
        load.stop.store(true, Ordering::Relaxed);
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });

    let ledger = services[1].url("/ledger");
    let ledger = eventually("everything is stored", MINUTE * 2, || http::settled(&ledger));
    let source = ledger["sources"].as_array().unwrap().iter().find(|source| source["source"] == "facebook");
    let source = source.unwrap();
    let sent = load.batches.load(Ordering::Relaxed) * BATCH;
    println!("{sent} events, {} requests refused: {source}", load.refused.load(Ordering::Relaxed));
    assert!(sent >= 5_000, "{sent}");
    assert_eq!(source["stored"], sent, "{ledger}");
    assert_eq!(source["missing"], 0, "{ledger}");
    let repeated = source["duplicates"].as_u64().unwrap();
    assert_eq!(source["published"].as_u64().unwrap(), sent + repeated, "{ledger}");
    assert!(repeated <= load.unanswered() * BATCH, "only what the publisher sent again: {ledger}");
    assert_eq!(postgres.query("SELECT count(*) FROM event_rows"), [sent.to_string()]);
}

/// Reads one request or answer from a connection, by its Content-Length.
fn read_message(connection: &mut TcpStream) -> Option<String> {
    let (mut message, mut chunk) = (Vec::new(), [0; 4_096]);
    loop {
        let text = String::from_utf8_lossy(&message).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().unwrap())
            });
            if body.len() >= length.unwrap_or(0) {
                return Some(text);
            }
        }
        let read = connection.read(&mut chunk).ok().filter(|read| *read > 0)?;
        message.extend(&chunk[..read]);
    }
}

/// A gateway that answers health checks, keeps every other request, and answers it or ends the connection.
struct Recorder {
    requests: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    address: (Ipv4Addr, u16),
}

impl Recorder {
    fn start(address: Ipv4Addr, port: u16, answers: bool) -> Self {
        let listener = TcpListener::bind((address, port)).unwrap();
        let (requests, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let thread = std::thread::spawn({
            let (requests, stop) = (requests.clone(), stop.clone());
            move || {
                for mut connection in listener.incoming().flatten() {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let requests = requests.clone();
                    std::thread::spawn(move || {
                        let Some(request) = read_message(&mut connection) else { return };
                        let check = request.starts_with("GET /ready ");
                        if !check {
                            requests.lock().unwrap().push(request);
                        }
                        if check || answers {
                            let answer =
                                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}";
                            let _ = connection.write_all(answer.as_bytes());
                        }
                    });
                }
            }
        });
        Self { requests, stop, thread: Some(thread), address: (address, port) }
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Recorder {
    /// Closes the port, so that connections are refused.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[test]
fn a_request_that_reached_a_gateway_is_not_sent_to_another() {
    let port = shared_port();
    let silent = [0, 1].map(|number| Recorder::start(address(number), port, false));
    let haproxy = HaProxy::start(&[address(0), address(1)], port);
    haproxy.wait_gateways(2);
    let agent = http::agent();
    for number in 0..20 {
        let (url, body) = (haproxy.url("/webhook"), format!("[{number}]"));
        // The first request of a connection is answered. At a later one HAProxy closes the connection, as the gateway did.
        if number % 2 == 0 {
            let answer = http::post(&url, &body).unwrap();
            assert_eq!(answer.status, 502, "{answer:?}");
            assert_eq!(answer.header("Content-Type"), Some("application/problem+json"));
            assert_eq!(answer.header("Retry-After"), Some("1"));
            assert_eq!(answer.json()["status"], 502);
            assert!(answer.json()["correlationId"].as_str().unwrap().len() > 10, "{answer:?}");
        } else {
            let answer = http::post_on(&agent, &url, &body);
            assert!(!answer.is_ok_and(|answer| answer.status != 502));
        }
        let seen = silent.iter().flat_map(Recorder::requests);
        let same = seen.filter(|request| request.ends_with(&format!("\r\n\r\n[{number}]"))).count();
        assert_eq!(same, 1, "request {number}");
    }
}

#[test]
fn a_refused_connection_is_tried_at_another_gateway() {
    let port = shared_port();
    let answering = Recorder::start(address(0), port, true);
    let haproxy = HaProxy::start(&[address(0), address(1)], port);
    let agent = http::agent();
    let redispatched = || haproxy.metric("haproxy_backend_redispatch_warnings_total{proxy=\"gateways\"}");
    let mut sent = 0;
    // The other closes between two health checks. On a busy machine the check may be quicker, so it is tried again.
    eventually("a connection is refused", MINUTE, || {
        let closing = Recorder::start(address(1), port, true);
        haproxy.wait_gateways(2);
        drop(closing);
        for _ in 0..10 {
            let answer = http::post_on(&agent, &haproxy.url("/webhook"), "[]").unwrap();
            assert_eq!(answer.status, 200, "{answer:?}");
            sent += 1;
        }
        (redispatched() > 0.0).then_some(())
    });
    assert!(answering.requests().len() <= sent, "none came twice");
}

#[test]
fn a_gateway_learns_the_client_and_the_correlation_id() {
    let port = shared_port();
    let gateway = Recorder::start(address(0), port, true);
    let haproxy = HaProxy::start(&[address(0)], port);
    haproxy.wait_gateways(1);
    for headers in [
        &[][..],
        &[("X-Forwarded-For", "203.0.113.9"), ("X-Forwarded-Proto", "https"), ("X-Request-Id", "r-1")],
    ] {
        assert_eq!(http::post_with(&haproxy.url("/webhook"), headers, b"[]").unwrap().status, 200);
    }
    let requests: Vec<String> = gateway.requests().iter().map(|request| request.to_lowercase()).collect();
    assert_eq!(requests.len(), 2);
    for request in &requests {
        assert!(request.contains("\r\nx-forwarded-for: 127.0.0.1\r\n"), "{request}");
        assert!(request.contains("\r\nx-forwarded-proto: http\r\n"), "{request}");
    }
    assert!(requests[0].contains("\r\nx-correlation-id: "), "{requests:?}");
    assert!(requests[1].contains("x-forwarded-for: 203.0.113.9"), "{requests:?}");
    assert!(requests[1].contains("x-request-id: r-1") && !requests[1].contains("x-correlation-id"));
}

#[test]
fn without_a_gateway_the_balancer_answers_503_and_is_not_healthy() {
    let haproxy = HaProxy::start(&[], shared_port());
    let answer = http::post_with(&haproxy.url("/webhook"), &[("X-Correlation-Id", "a\"b")], b"[]").unwrap();
    assert_eq!(answer.status, 503, "{answer:?}");
    assert_eq!(answer.header("Content-Type"), Some("application/problem+json"));
    assert_eq!(answer.header("Retry-After"), Some("1"));
    assert_eq!(answer.json()["correlationId"], "a\"b", "{answer:?}");
    assert_eq!(http::get(&haproxy.metrics_url("/health")).unwrap().status, 503);
    assert_eq!(http::get(&haproxy.metrics_url("/other")).unwrap().status, 404);
    let mut raw = TcpStream::connect(("127.0.0.1", haproxy.port)).unwrap();
    raw.write_all(b"\x16\x03\x01 no HTTP\r\n\r\n").unwrap();
    let mut text = String::new();
    raw.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 400 "), "{text}");
}

/// Sends a request, as much of it as is taken, and returns the answer.
fn exchange(port: u16, head: &str, body: &[u8]) -> String {
    let mut connection = TcpStream::connect(("127.0.0.1", port)).unwrap();
    connection.set_read_timeout(Some(MINUTE)).unwrap();
    let _ = connection.write_all(head.as_bytes());
    for chunk in body.chunks(64 << 10) {
        if connection.write_all(chunk).is_err() {
            break;
        }
    }
    // Not to the end of the connection: HAProxy waits for the rest of a body, which nobody sends.
    read_message(&mut connection).unwrap_or_default()
}

#[test]
fn large_slow_and_compressed_bodies_are_judged_by_the_gateway_behind_the_balancer() {
    let (nats, folder, port) = (Nats::start(), tempfile::tempdir().unwrap(), shared_port());
    let settings =
        [("NATS_URL", nats.url()), ("ESS_MAX_BODY", "1MiB".into()), ("ESS_BODY_TIMEOUT", "1s".into())];
    let environment = settings.map(|(name, value)| (name.to_owned(), value));
    let _gateway = Gateway::start(0, port, &environment, folder.path());
    let haproxy = HaProxy::start(&[address(0)], port);
    haproxy.wait_gateways(1);
    let head = |length: usize, more: &str| {
        format!(
            "POST /webhook HTTP/1.1\r\nHost: ess\r\nConnection: close\r\nContent-Length: {length}\r\n{more}\r\n"
        )
    };
    // 413 may come before the body was sent.
    for length in [2 << 20, 32 << 20] {
        let answer = exchange(haproxy.port, &head(length, ""), &vec![b' '; length]);
        assert!(
            answer.starts_with("HTTP/1.1 413 ") && answer.contains("correlationId"),
            "{length}: {answer}"
        );
    }
    // A client that waits to be asked for its body learns it too. The gateway asks first, so two answers come.
    let mut waiting = TcpStream::connect(("127.0.0.1", haproxy.port)).unwrap();
    waiting.write_all(head(4 << 20, "Expect: 100-continue\r\n").as_bytes()).unwrap();
    waiting.set_read_timeout(Some(MINUTE)).unwrap();
    let (mut answers, mut chunk) = (String::new(), [0; 4_096]);
    while !answers.contains("HTTP/1.1 413 ") {
        let read = waiting.read(&mut chunk).unwrap();
        assert!(read > 0, "{answers}");
        answers += &String::from_utf8_lossy(&chunk[..read]);
    }
    drop(waiting);
    let answer = exchange(haproxy.port, &head(100, ""), b"[");
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("correlationId"), "{answer}");
    let event = simple("through", "facebook").to_string();
    let gzip = {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(event.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let answer = exchange(haproxy.port, &head(gzip.len(), "Content-Encoding: gzip\r\n"), &gzip);
    assert!(answer.starts_with("HTTP/1.1 202 "), "{answer}");
    // Chunks, and a second request on the same connection.
    let mut connection = TcpStream::connect(("127.0.0.1", haproxy.port)).unwrap();
    for _ in 0..2 {
        let request = format!(
            "POST /webhook HTTP/1.1\r\nHost: ess\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{event}\r\n0\r\n\r\n",
            event.len()
        );
        connection.write_all(request.as_bytes()).unwrap();
        let answer = read_message(&mut connection).unwrap();
        assert!(answer.starts_with("HTTP/1.1 202 "), "{answer}");
    }
}
