//! `ess top`, `ess tail` and the demo's line of figures, in pseudo-terminals.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::events::simple;
use crate::support::process::ess;
use crate::support::system::System;
use crate::support::terminal::Terminal;
use crate::support::{MINUTE, eventually, free_port};

/// Escape sequences of every kind that a publisher might try.
const HOSTILE: &str = "\u{1b}[2J\u{1b}]0;owned\u{7}\u{9b}31m\r\n\u{202e}evil";

/// Sends an accepted and a refused event again and again while a check runs: samples are only sent once a lease has
/// reached the gateway.
fn while_events_flow<T>(system: &System, check: impl FnOnce() -> T) -> T {
    while_events_named_flow(system, "good", check)
}

/// The same, with a name that ids of accepted events begin with.
fn while_events_named_flow<T>(system: &System, name: &str, check: impl FnOnce() -> T) -> T {
    let done = AtomicBool::new(false);
    let url = system.gateway_url("/webhook");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = 0;
            while !done.load(Ordering::Relaxed) {
                let good = simple(&format!("{name}-{number}"), "tiktok");
                let mut bad = simple(&format!("bad-{number}{HOSTILE}"), "facebook");
                bad["data"]["user"]["age"] = json!(-1);
                // Pretty-printed, as some platforms send: the line breaks are part of the event.
                let body = serde_json::to_string_pretty(&json!([good, bad])).unwrap();
                crate::support::http::post(&url, &body).unwrap();
                number += 1;
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(check));
        done.store(true, Ordering::Relaxed);
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn is_active(letter: char) -> bool {
    letter.is_control() || letter == '\u{202e}'
}

/// `ess tail` with pipes.
fn tail(system: &System, more: &[&str]) -> Child {
    let url = system.reporter_url("");
    let arguments = [&["tail", "--url", &url], more].concat();
    let mut command = ess(&arguments, &system.environment, system.folder.path());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn top(system: &System, size: (u16, u16)) -> Terminal {
    let url = system.reporter_url("");
    Terminal::start(&["top", "--url", &url], &system.environment, system.folder.path(), size)
}

#[test]
fn top_shows_the_whole_system_follows_keys_and_sizes_and_gives_the_terminal_back() {
    let system = System::embedded(&[]);
    let mut top = top(&system, (80, 24));
    while_events_flow(&system, || {
        let lines = top.wait_for("every panel is filled", |lines| {
            ["SOURCE", "LEDGER", "PROCESS", "ACTOR"]
                .iter()
                .all(|title| lines.iter().any(|line| line.starts_with(title)))
                && ["facebook  ", "gateway.ingest", "collector.tiktok", "are refused"]
                    .iter()
                    .all(|text| lines.iter().any(|line| line.contains(text)))
        });
        assert!(lines[0].contains(&system.reporter_url("")), "{lines:#?}");
        assert!(lines[23].contains("Help"), "{lines:#?}");
    });
    top.press("?");
    top.wait_text("turn the order around");
    top.press(" ");
    top.wait_for("the help is gone", |lines| !lines.iter().any(|line| line.contains("turn the order")));
    top.press("/report.4\r");
    top.wait_for("the filter holds", |lines| {
        lines.iter().any(|line| line.contains("filter: report.4"))
            && lines.iter().any(|line| line.starts_with("reporter.report.4"))
            && !lines.iter().any(|line| line.starts_with("gateway.ingest"))
    });
    top.press("\u{1b}");
    top.wait_text("gateway.ingest");
    for (columns, rows) in [(140, 50), (40, 10), (100, 30)] {
        top.resize(columns, rows);
        top.wait_for("the last line has the keys", |lines| {
            lines.len() == usize::from(rows) && lines[usize::from(rows) - 1].contains("Help")
        });
    }
    top.press("q");
    assert_eq!(top.wait_end().code(), Some(0));
}

#[test]
fn top_says_that_a_reporter_is_away_and_goes_on_when_it_is_back() {
    let mut system = System::embedded(&[]);
    let mut top = top(&system, (100, 30));
    top.wait_text("all well");
    system.services[0].process.kill();
    let lines = top.wait_text("has not answered");
    assert!(lines[1].contains("has not answered"), "first of all: {lines:#?}");
    system.services[0].start_again();
    top.wait_text("all well");
    // Ctrl-C is a key here.
    top.press("\u{3}");
    assert_eq!(top.wait_end().code(), Some(0));
}

#[test]
fn top_gives_the_terminal_back_after_a_signal_and_after_a_panic() {
    let system = System::embedded(&[]);
    for name in ["TERM", "INT"] {
        let mut top = top(&system, (80, 24));
        top.wait_text("all well");
        top.signal(name);
        assert_eq!(top.wait_end().code(), Some(0), "{name}");
    }
    let mut top = top(&system, (80, 24));
    top.wait_text("all well");
    top.press("\u{1b}[24~");
    assert_eq!(top.wait_end().code(), Some(101));
    let lines = top.wait_text("a test asked for a panic");
    let written = String::from_utf8_lossy(&top.written).into_owned();
    let (reported, left) = (written.rfind("a test asked"), written.rfind("\u{1b}[?1049l"));
    assert!(reported > left, "nothing moves the cursor after the report: {written:?}");
    assert!(!lines.iter().any(|line| line.contains("all well")), "the screen is gone: {lines:#?}");
}

#[test]
fn wrong_usage_ends_with_2_and_a_reporter_that_does_not_answer_with_1() {
    let token = "a-token-of-32-letters-for-reports";
    let system = System::embedded(&[("ESS_REPORTER_TOKEN", token)]);
    let url = system.reporter_url("");
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let cases: &[(&[&str], i32, &str)] = &[
        (&["top", "--url", &url], 2, "needs a terminal"),
        (&["tail", "--url", "localhost:3003"], 2, "must begin with http://"),
        (&["tail", "--url", &nobody], 1, "no reporter answers"),
        (&["tail", "--url", &url], 2, "ESS_REPORTER_TOKEN"),
        (&["tail", "--url", &url, "--token", "wrong"], 2, "ESS_REPORTER_TOKEN"),
        (&["tail", "--url", &url, "--token", "a\nb"], 2, "--token"),
        (&["tail", "--url", &url, "--token", token, "--source", "nobody"], 2, "source"),
        (&["tail", "--url", &url, "--token", token, "--type", "x"], 2, "eventType"),
        (&["tail", "--url", &url, "--outcome", "maybe"], 2, "refused"),
        (&["tail", "--limit", "0"], 2, "--limit"),
    ];
    for (arguments, code, text) in cases {
        let output = ess(arguments, &[], system.folder.path()).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(*code), "{arguments:?}: {error}");
        assert!(error.contains(text), "{arguments:?}: {error}");
    }
    let mut top = Terminal::start(&["top", "--url", &nobody], &[], system.folder.path(), (80, 24));
    assert_eq!(top.wait_end().code(), Some(1));
    assert!(!top.written.contains(&0x1b), "the screen was not taken");
    // The environment's token opens the feed.
    while_events_flow(&system, || {
        let output = tail(&system, &["--limit", "1"]).wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0));
    });
}

/// A server that answers every request with these bytes, and then closes the connection.
fn impostor(answer: &'static [u8]) -> String {
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", server.local_addr().unwrap());
    std::thread::spawn(move || {
        for connection in server.incoming() {
            let mut connection = connection.unwrap();
            let mut head = [0; 4_096];
            // The client may be gone already.
            let _ = connection.read(&mut head);
            let _ = std::io::Write::write_all(&mut connection, answer);
        }
    });
    url
}

#[test]
fn a_server_that_is_no_reporter_is_named_and_cannot_command_the_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let refusal =
        b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/problem+json\r\ncontent-length: 33\r\n\
                    connection: close\r\n\r\n{\"detail\":\"\\u001b[2J\\u009bowned\"}";
    let page =
        b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 6\r\nconnection: close\r\n\r\n<html>";
    let cases: [(&'static [u8], i32, &str); 3] = [
        (refusal, 2, "400 Bad Request: \\u{1b}[2J\\u{9b}owned"),
        (page, 1, "not that of an ESS reporter"),
        (b"\x1b[2J", 1, "no reporter answers"),
    ];
    for (answer, code, text) in cases {
        let url = impostor(answer);
        for command in ["tail", "top"] {
            let mut terminal = Terminal::start(&[command, "--url", &url], &[], folder.path(), (200, 24));
            assert_eq!(terminal.wait_end().code(), Some(code), "{command}: {text}");
            let written = String::from_utf8(terminal.written.clone()).unwrap();
            assert!(written.contains(text), "{command}: {written:?}");
            assert!(
                !written.chars().any(|letter| !"\r\n".contains(letter) && is_active(letter)),
                "{written:?}"
            );
        }
    }
}

#[test]
fn tail_prints_the_events_that_are_asked_for_up_to_its_limit() {
    let system = System::embedded(&[]);
    while_events_flow(&system, || {
        let lines = |more: &[&str]| {
            let output = tail(&system, &[&["--limit", "5"], more].concat()).wait_with_output().unwrap();
            assert_eq!(output.status.code(), Some(0));
            let text = String::from_utf8(output.stdout).unwrap();
            assert!(!text.chars().any(|letter| letter != '\n' && is_active(letter)), "{text:?}");
            let lines: Vec<String> = text.lines().map(str::to_owned).collect();
            assert_eq!(lines.len(), 5, "{lines:#?}");
            lines
        };
        for line in lines(&["--outcome", "refused"]) {
            assert!(line.contains(" refused  facebook") && line.contains("data.user.age: "), "{line}");
            assert!(line.contains("\\u{1b}[2J") && line.contains("\\u{9b}31m"), "escaped: {line}");
        }
        for line in lines(&["--source", "tiktok", "--outcome", "accepted"]) {
            assert!(line.contains(" accepted tiktok") && line.contains("good-"), "{line}");
        }
        for line in lines(&["--json", "--outcome", "refused", "--source", "facebook"]) {
            let sample: Value = serde_json::from_str(&line).unwrap();
            assert_eq!((&sample["source"], &sample["outcome"]), (&json!("facebook"), &json!("refused")));
            assert!(sample["eventId"].as_str().unwrap().ends_with(HOSTILE), "{line}");
            assert_eq!(sample["event"]["data"]["user"]["age"], -1, "{line}");
        }
        let kind = simple("x", "tiktok")["eventType"].as_str().unwrap().to_owned();
        for line in lines(&["--json", "--type", &kind]) {
            assert_eq!(serde_json::from_str::<Value>(&line).unwrap()["eventType"], kind.as_str());
        }
    });
}

#[test]
fn tail_is_colored_on_a_terminal_alone_and_never_by_an_event() {
    let system = System::embedded(&[]);
    let url = system.reporter_url("");
    while_events_flow(&system, || {
        for (name, colored) in [("NOTHING", true), ("NO_COLOR", false)] {
            let environment = [(name.to_owned(), "1".to_owned())];
            let arguments = ["tail", "--url", &url, "--limit", "6"];
            let mut tail = Terminal::start(&arguments, &environment, system.folder.path(), (200, 24));
            assert_eq!(tail.wait_end().code(), Some(0));
            let text = String::from_utf8(tail.written.clone()).unwrap();
            assert_eq!(text.contains("\u{1b}[31mrefused"), colored, "{text:?}");
            let own = ["\u{1b}[31m", "\u{1b}[32m", "\u{1b}[2m", "\u{1b}[0m", "\r\n"];
            let rest = own.iter().fold(text, |text, sequence| text.replace(sequence, ""));
            assert!(!rest.chars().any(is_active), "{rest:?}");
            assert!(rest.contains("\\u{1b}[2J"), "a hostile event was shown: {rest:?}");
        }
    });
}

#[test]
fn tail_ends_quietly_with_its_reader_and_on_ctrl_c() {
    let system = System::embedded(&[]);
    // No event comes: the program notices by itself that nobody reads.
    let mut silent = tail(&system, &["--source", "tiktok"]);
    drop(silent.stdout.take());
    let output = silent.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));
    while_events_flow(&system, || {
        let mut child = tail(&system, &[]);
        let mut first = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
        assert!(first.ends_with('\n'));
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));
        let arguments = ["tail", "--url", &system.reporter_url("")];
        let mut tail = Terminal::start(&arguments, &[], system.folder.path(), (80, 24));
        tail.wait_text("accepted");
        tail.press("\u{3}");
        assert_eq!(tail.wait_end().code(), Some(0));
    });
}

#[test]
fn tail_waits_for_a_reporter_that_goes_away_and_says_so() {
    let mut system = System::embedded(&[]);
    let mut child = tail(&system, &["--json"]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    while_events_flow(&system, || lines.next().unwrap());
    system.services[0].start_again();
    system.wait_ready();
    while_events_named_flow(&system, "later", || {
        // Lines of before the restart may still be there.
        let is_later = |line: String| line.contains("\"eventId\":\"later-");
        assert!(lines.by_ref().take(10_000).any(is_later));
    });
    let id = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    let code = eventually("the end", MINUTE, || child.try_wait().unwrap()).code();
    let mut notes = String::new();
    child.stderr.take().unwrap().read_to_string(&mut notes).unwrap();
    assert_eq!(code, Some(0), "{notes}");
    assert!(notes.contains("waiting for it") && notes.contains("answers again"), "{notes}");
}

#[test]
fn the_demo_on_a_terminal_shows_its_links_and_one_line_of_figures_that_is_renewed() {
    let folder = tempfile::tempdir().unwrap();
    let names = [
        "ESS_GATEWAY_PORT",
        "ESS_FACEBOOK_COLLECTOR_PORT",
        "ESS_TIKTOK_COLLECTOR_PORT",
        "ESS_REPORTER_PORT",
        "ESS_COLLECTOR_PORT",
    ];
    let mut environment: Vec<_> =
        names.iter().map(|name| ((*name).to_owned(), free_port().to_string())).collect();
    environment.push(("ESS_REPORTER_TOKEN".to_owned(), "a-token-of-32-letters-for-reports".to_owned()));
    let console = format!("http://localhost:{}/", environment[3].1);
    let mut demo = Terminal::start(&["demo"], &environment, folder.path(), (120, 30));
    let is_figure = |line: &&String| line.contains(" events/s  ") && line.contains("accepted ");
    let figures = |lines: &[String]| lines.iter().filter(is_figure).cloned().collect::<Vec<_>>();
    let stored = |line: &str| {
        let after = line.split("stored ").nth(1)?.split("  ").next()?;
        after.replace(',', "").parse::<u64>().ok()
    };
    let lines = demo.wait_for("the figures grow", |lines| {
        figures(lines).first().is_some_and(|line| stored(line) > Some(500) && line.contains("missing 0"))
    });
    let first = lines.iter().position(|line| line.contains("http://")).unwrap();
    assert!(lines[first].contains(&console), "the console is the first link: {lines:#?}");
    assert_eq!(figures(&lines).len(), 1, "one line, renewed in place: {lines:#?}");
    let text = lines.join("\n");
    assert!(!text.contains("listening") && text.contains("revenue "), "{text}");
    let log = folder.path().join("data/demo.log");
    assert!(text.contains("data/demo.log"), "{text}");
    demo.press("\u{3}");
    assert_eq!(demo.wait_end().code(), Some(0));
    let logged = std::fs::read_to_string(log).unwrap();
    let stopped = logged.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    assert!(stopped.into_iter().any(|line| line["message"] == "stopped"), "{logged}");
    let mut demo = Terminal::start(&["demo", "--logs"], &environment, folder.path(), (120, 30));
    let lines = demo.wait_text("listening");
    assert!(figures(&lines).is_empty(), "{lines:#?}");
    demo.press("\u{3}");
    assert_eq!(demo.wait_end().code(), Some(0));
}
