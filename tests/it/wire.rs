//! HTTP by its specifications: bytes that are written to a socket, and the bytes of the answer.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::events::simple;
use crate::support::http;
use crate::support::system::System;
use crate::support::{MINUTE, eventually};

fn connect(url: &str) -> TcpStream {
    let stream = TcpStream::connect(url.replace("http://", "")).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(MINUTE)).unwrap();
    stream
}

/// An answer as it stood on the wire.
#[derive(Debug)]
struct Raw {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Raw {
    fn has(&self, line: &str) -> bool {
        self.head.lines().any(|known| known.eq_ignore_ascii_case(line))
    }

    fn problem(&self) -> Value {
        assert!(self.has("content-type: application/problem+json"), "{}", self.head);
        let problem: Value = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(problem["status"], self.status, "{problem}");
        for member in ["type", "title", "detail", "correlationId"] {
            assert!(problem[member].is_string(), "{problem}");
        }
        problem
    }
}

/// Reads one answer; `bodiless` for one to HEAD. None at the end of the connection.
fn answer(stream: &mut TcpStream, bodiless: bool) -> Option<Raw> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if !matches!(stream.read(&mut byte), Ok(1)) {
            assert!(head.is_empty(), "half an answer: {}", String::from_utf8_lossy(&head));
            return None;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().unwrap())
    });
    let mut body = vec![0; if bodiless { 0 } else { length.unwrap_or(0) }];
    stream.read_exact(&mut body).unwrap();
    Some(Raw { status, head, body })
}

fn post(path: &str, more: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{more}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

const GET: &str = "GET /health HTTP/1.1\r\nHost: x\r\n\r\n";

#[test]
fn a_pipelined_request_does_not_change_the_answer_before_it() {
    let system = System::embedded(&[]);
    let event = simple("first", "facebook").to_string();
    // A HEAD behind a POST, and a GET behind a HEAD: each has its own answer's body, or none.
    let mut stream = connect(&system.gateway_url(""));
    stream
        .write_all(
            (post("/webhook", "", &event) + "HEAD /health HTTP/1.1\r\nHost: x\r\n\r\n" + GET).as_bytes(),
        )
        .unwrap();
    let first = answer(&mut stream, false).unwrap();
    assert_eq!((first.status, first.body.is_empty()), (202, false), "{first:?}");
    assert_eq!(answer(&mut stream, true).unwrap().status, 200);
    let third = answer(&mut stream, false).unwrap();
    assert!(third.status == 200 && third.body.starts_with(b"{"), "{third:?}");
    let mut stream = connect(&system.reporter_url(""));
    let text = "HEAD /reports/events HTTP/1.1\r\nHost: x\r\n\r\n".to_owned() + GET;
    stream.write_all(text.as_bytes()).unwrap();
    assert_eq!(answer(&mut stream, true).unwrap().status, 200);
    assert!(answer(&mut stream, false).unwrap().body.starts_with(b"{"));
    // A later `close` is no property of the answer before it.
    let mut stream = connect(&system.gateway_url(""));
    let last = GET.replace("Host: x", "Host: x\r\nConnection: close");
    stream.write_all((post("/webhook", "", &event) + &last).as_bytes()).unwrap();
    assert!(!answer(&mut stream, false).unwrap().has("connection: close"));
    assert!(answer(&mut stream, false).unwrap().has("connection: close"));
    assert!(answer(&mut stream, false).is_none());
    // Two hundred at once, in order, and an error among them.
    let mut stream = connect(&system.gateway_url(""));
    let many: String = (0..200)
        .map(
            |n| if n == 100 { "GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n".to_owned() } else { GET.to_owned() },
        )
        .collect();
    stream.write_all(many.as_bytes()).unwrap();
    for n in 0..200 {
        assert_eq!(answer(&mut stream, false).unwrap().status, if n == 100 { 404 } else { 200 }, "{n}");
    }
}

#[test]
fn requests_after_connection_close_are_ignored() {
    let system = System::embedded(&[]);
    let mut stream = connect(&system.gateway_url(""));
    let first = post("/webhook", "Connection: close\r\n", &simple("first", "facebook").to_string());
    let second = post("/webhook", "", &simple("second", "facebook").to_string());
    stream.write_all((first + &second).as_bytes()).unwrap();
    let only = answer(&mut stream, false).unwrap();
    assert!(only.status == 202 && only.has("connection: close"), "{only:?}");
    assert!(answer(&mut stream, false).is_none());
    system.settle();
    assert_eq!(system.database.query("SELECT event_id FROM events"), ["first"]);
}

#[test]
fn an_upgrade_header_is_ignored_and_the_connection_stays_open() {
    let system = System::embedded(&[]);
    for offer in [
        "Connection: upgrade\r\n",
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
        "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n",
        "Upgrade: websocket\r\n",
    ] {
        let mut stream = connect(&system.gateway_url(""));
        for _ in 0..2 {
            let event = simple(&format!("u-{}", uuid::Uuid::new_v4()), "tiktok").to_string();
            stream.write_all(post("/webhook", offer, &event).as_bytes()).unwrap();
            let taken = answer(&mut stream, false).unwrap();
            assert_eq!(taken.status, 202, "{offer}");
            assert!(!taken.head.to_lowercase().contains("\nconnection: "), "{offer}: {}", taken.head);
        }
    }
}

#[test]
fn a_malformed_or_unsupported_head_is_answered_with_a_problem_and_the_connection_ends() {
    let system = System::embedded(&[]);
    let fields = |count: usize| "X-E: 1\r\n".repeat(count);
    let cases: Vec<(Vec<u8>, u16)> = vec![
        (b"GET /reports/revenue?campaignId=\xc3\xa9t\xc3\xa9 HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), 400),
        (b"GET /health HTTP/1.1\r\nHost: x\r\nBad Header: y\r\n\r\n".to_vec(), 400),
        (b"GET /health HTTP/1.1\r\n\r\n".to_vec(), 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), 505),
        (b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), 501),
        (format!("GET /health HTTP/1.1\r\nHost: x\r\n{}\r\n", fields(120)).into_bytes(), 431),
        (format!("GET /health HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "y".repeat(70_000)).into_bytes(), 431),
        (
            b"POST /webhook HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n".to_vec(),
            400,
        ),
        (
            b"POST /webhook HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
                .to_vec(),
            400,
        ),
        (b"POST /webhook HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n\r\n\r\n".to_vec(), 400),
        (b"POST /webhook HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".to_vec(), 400),
    ];
    for url in [system.gateway_url(""), system.reporter_url("")] {
        for (bytes, status) in &cases {
            let text = String::from_utf8_lossy(&bytes[..bytes.len().min(80)]).into_owned();
            let mut stream = connect(&url);
            stream.write_all(bytes).unwrap();
            let refused = answer(&mut stream, false).unwrap_or_else(|| panic!("no answer: {text}"));
            // The reporter has no such route, and says so before it reads a body.
            let status = if text.contains("chunked\r\n\r\n") && url == system.reporter_url("") {
                &404
            } else {
                status
            };
            let status = if text.contains("chunked") && text.contains("Length") { &400 } else { status };
            assert_eq!(refused.status, *status, "{text}: {refused:?}");
            refused.problem();
            assert!(refused.has("connection: close"), "{text}: {}", refused.head);
            let began = Instant::now();
            assert!(answer(&mut stream, false).is_none(), "{text}");
            assert!(began.elapsed() < Duration::from_secs(20), "{text}");
        }
    }
    // To HEAD without a body, as any answer.
    let mut stream = connect(&system.gateway_url(""));
    stream.write_all(b"HEAD /health HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!(answer(&mut stream, true).unwrap().status, 400);
    assert!(answer(&mut stream, true).is_none());
    assert!(http::metric(&system.gateway_url("/metrics"), "ess_http_heads_too_large_total") >= 2.0);
}

#[test]
fn an_incomplete_head_is_answered_after_the_timeout_and_a_silent_connection_is_closed() {
    let system = System::embedded(&[("ESS_HEAD_TIMEOUT", "1s"), ("ESS_IDLE_TIMEOUT", "2s")]);
    let mut silent = connect(&system.gateway_url(""));
    let mut first = connect(&system.gateway_url(""));
    first.write_all(b"GET /health HT").unwrap();
    let late = answer(&mut first, false).unwrap();
    assert_eq!(late.status, 408);
    assert!(late.problem()["detail"].as_str().unwrap().contains("ESS_HEAD_TIMEOUT"));
    assert!(answer(&mut first, false).is_none() && answer(&mut silent, false).is_none());
    // The second head of a connection has the same time, from its first byte.
    let mut second = connect(&system.gateway_url(""));
    second.write_all((GET.to_owned() + "GET /hea").as_bytes()).unwrap();
    assert_eq!(answer(&mut second, false).unwrap().status, 200);
    assert_eq!(answer(&mut second, false).unwrap().status, 408);
}

#[test]
fn each_form_of_a_request_target_is_understood() {
    let system = System::embedded(&[]);
    let address = system.reporter_url("").replace("http://", "");
    let ask = |method: &str, target: &str| {
        let mut stream = connect(&system.reporter_url(""));
        stream.write_all(format!("{method} {target} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).unwrap();
        answer(&mut stream, method == "HEAD").unwrap()
    };
    for target in
        ["/health", "/%68ealth", "http://example.com/health", &format!("http://{address}/health?x=1")]
    {
        assert_eq!(ask("GET", target).status, 200, "{target}");
        assert_eq!(ask("HEAD", target).status, 200, "{target}");
    }
    let events = ask("GET", "http://example.com/reports/events?interval=hour");
    assert!(String::from_utf8(events.body).unwrap().contains("\"series\""));
    assert_eq!(ask("GET", "/reports/events?interval=%68our").status, 200);
    for target in
        ["/reports/events?interval=%zz", "/reports/events?interval=%ff", "/reports/events?interval=hour%"]
    {
        ask("GET", target).problem();
    }
    for (method, target, status) in [
        ("OPTIONS", "*", 204),
        ("OPTIONS", "/reports/events", 204),
        ("POST", "/reports/events", 405),
        ("BREW", "/reports/events", 405),
        ("GET", "/nowhere", 404),
        ("GET", "/events/%ff", 404),
        ("GET", "/events/a%00b", 404),
    ] {
        let given = ask(method, target);
        assert_eq!(given.status, status, "{method} {target}: {given:?}");
        if status > 399 {
            given.problem();
        }
        if [204, 405].contains(&status) {
            assert!(given.head.to_lowercase().contains("\nallow: get, head"), "{}", given.head);
        }
    }
}

#[test]
fn a_chunked_body_is_read_and_the_connection_stays_open() {
    let system = System::embedded(&[]);
    let mut stream = connect(&system.gateway_url(""));
    for n in 0..3 {
        let event = simple(&format!("c-{n}"), "facebook").to_string();
        let (left, right) = event.split_at(100);
        let head = "POST /webhook HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n";
        let body = format!(
            "{:X};ext=\"1\"\r\n{left}\r\n{:x}\r\n{right}\r\n0\r\nX-T: 1\r\n\r\n",
            left.len(),
            right.len()
        );
        let text = format!("{head}{body}{GET}");
        // In pieces that fall anywhere.
        for piece in text.as_bytes().chunks(37 + 400 * n) {
            stream.write_all(piece).unwrap();
            std::thread::sleep(Duration::from_millis(2));
        }
        assert_eq!(answer(&mut stream, false).unwrap().status, 202);
        assert_eq!(answer(&mut stream, false).unwrap().status, 200);
    }
    system.settle();
    assert_eq!(system.count_rows(), 3);
}

#[test]
fn a_closing_answer_ends_the_connection_even_if_the_client_goes_on_sending() {
    let system = System::embedded(&[]);
    let refused = "POST /webhook HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\n";
    for framing in ["Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n", "Content-Length: 1000000\r\n\r\nx"] {
        let mut stream = connect(&system.gateway_url(""));
        stream.write_all(format!("{refused}{framing}").as_bytes()).unwrap();
        let given = answer(&mut stream, false).unwrap();
        assert!(given.status == 415 && given.has("connection: close"), "{given:?}");
        let began = Instant::now();
        let mut sent = 0;
        while stream.write_all(b"1\r\nx\r\n").is_ok() {
            sent += 1;
            assert!(began.elapsed() < Duration::from_secs(20), "it is still open: {framing}");
            std::thread::sleep(Duration::from_millis(100));
        }
        assert!(sent > 0, "nothing was tried: {framing}");
    }
    eventually("no connection is left", MINUTE, || {
        (http::metric(&system.gateway_url("/metrics"), "ess_http_connections") < 3.0).then_some(())
    });
}

#[test]
fn a_413_can_be_read_by_a_client_that_sends_its_body_first() {
    let system = System::embedded(&[("ESS_MAX_BODY", "1MiB"), ("ESS_MAX_INFLIGHT", "8MiB")]);
    const LENGTH: usize = 12 << 20;
    let mut stream = connect(&system.gateway_url(""));
    let head = format!("POST /webhook HTTP/1.1\r\nHost: x\r\nContent-Length: {LENGTH}\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let piece = vec![b' '; LENGTH / 60];
    // About 3 MB a second, for four seconds.
    for _ in 0..60 {
        stream.write_all(&piece).expect("the connection is open while the body comes");
        std::thread::sleep(Duration::from_millis(65));
    }
    let given = answer(&mut stream, false).unwrap();
    assert!(given.status == 413 && given.has("connection: close"), "{given:?}");
    given.problem();
    assert!(answer(&mut stream, false).is_none());
}

#[test]
fn a_slow_reader_gets_its_whole_answer() {
    let system = System::embedded(&[("ESS_IDLE_TIMEOUT", "1s")]);
    // The largest answer that there always is: about 1.5 MB.
    let path = "/docs/swagger-ui-bundle.js";
    let whole = http::get(&system.reporter_url(path)).unwrap().text.len();
    assert!(whole > 1_000_000, "{whole} bytes fit into the buffers of two sockets");
    let mut stream = connect(&system.reporter_url(""));
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).unwrap();
    let (mut piece, mut read) = (vec![0; whole / 40], 0);
    let began = Instant::now();
    while read < whole {
        std::thread::sleep(Duration::from_millis(200));
        match stream.read(&mut piece).unwrap() {
            0 => panic!("cut after {read} of {whole} bytes and {:?}", began.elapsed()),
            some => read += some,
        }
    }
    assert!(began.elapsed() > Duration::from_secs(5), "several times as long as a connection may rest");
    // One that reads nothing is let go of.
    let mut deaf = connect(&system.reporter_url(""));
    let many = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").repeat(4);
    deaf.write_all(many.as_bytes()).unwrap();
    eventually("its connection is ended", MINUTE, || {
        let open = http::metric(&system.reporter_url("/metrics"), "ess_http_connections");
        (open < 3.0).then_some(())
    });
}

#[test]
fn each_connection_uses_one_file_descriptor_and_their_limit_is_raised() {
    let system = System::embedded(&[("ESS_MAX_CONNECTIONS", "600000")]);
    let metric = |name: &str| http::metric(&system.gateway_url("/metrics"), name);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", std::process::id())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let hard = line.split_whitespace().nth(4).unwrap();
    let shown = metric("process_max_fds");
    assert!(hard == "unlimited" || (shown - hard.parse::<f64>().unwrap()).abs() < 1.0, "{shown} of {hard}");
    if hard != "unlimited" && hard.parse::<f64>().unwrap() < 2_400_000.0 {
        assert!(
            system.services[0].process.output().contains("ESS_MAX_CONNECTIONS=600000"),
            "it is warned of"
        );
    }
    let before = metric("process_open_fds");
    let idle: Vec<TcpStream> = (0..100).map(|_| connect(&system.gateway_url(""))).collect();
    eventually("all are open", MINUTE, || (metric("ess_http_connections") >= 100.0).then_some(()));
    let more = metric("process_open_fds") - before;
    assert!(more < 130.0, "{more} files for {} connections", idle.len());
}

#[test]
fn the_handshake_answers_head_requests_too() {
    let system = System::embedded(&[]);
    let mut stream = connect(&system.gateway_url(""));
    let target = "/webhook/facebook?hub.mode=subscribe&hub.challenge=5";
    stream.write_all(format!("HEAD {target} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).unwrap();
    let given = answer(&mut stream, true).unwrap();
    assert!(given.status == 200 && given.has("content-length: 1"), "{given:?}");
}
