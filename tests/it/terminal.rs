//! Commands at a terminal: `.env` files, unreachable databases, closed pipes, unusual folders.

use std::path::Path;
use std::process::{Output, Stdio};

use serde_json::Value;

use crate::support::postgres::Postgres;
use crate::support::process::{Service, ess};
use crate::support::system::{Database, System};
use crate::support::{MINUTE, eventually, free_port, http};

fn run(arguments: &[&str], environment: &[(&str, &str)], folder: &Path) -> Output {
    let environment: Vec<_> =
        environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    ess(arguments, &environment, folder).output().unwrap()
}

fn output_text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn an_error_in_an_env_file_names_its_line_and_shows_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(".env");
    for (text, line) in [
        ("LOG_LEVEL=info\nESS_WEBHOOK_TOKEN=\"hunter2\nESS_MAX_EVENTS=5\nESS_ADMIN_TOKEN=hunter3\n", 2),
        ("ESS_WEBHOOK_TOKEN hunter2", 1),
        ("ESS_WEBHOOK_TOKEN=hunter2 hunter3\n", 1),
        ("ESS_WEBHOOK_TOKEN=hunter2\\x\n", 1),
    ] {
        std::fs::write(&file, text).unwrap();
        let output = run(&["check"], &[], folder.path());
        let printed = output_text(&output);
        assert_eq!(output.status.code(), Some(2), "{printed}");
        assert!(printed.contains(&format!(".env: line {line} ")), "{printed}");
        assert!(!printed.contains("hunter"), "{printed}");
    }
    std::fs::write(&file, [0x41, 0x3d, 0xff]).unwrap();
    assert_eq!(run(&["check"], &[], folder.path()).status.code(), Some(2), "it is not UTF-8");
}

#[test]
fn dollar_signs_in_an_env_file_are_not_expanded() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(".env"), "EVENT_ENDPOINT=http://x/pa$$word$HOME${HOME}\n").unwrap();
    let printed = output_text(&run(&["check"], &[("HOME", "/root")], folder.path()));
    assert!(printed.lines().any(|line| line == "EVENT_ENDPOINT=http://x/pa$$word$HOME${HOME}"), "{printed}");
}

#[test]
fn an_unreachable_database_is_reported_with_address_and_cause_instead_of_the_pool_s_timeout() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let url = format!("postgres://somebody:hunter2@127.0.0.1:{port}/x");
    for arguments in [&["check"][..], &["migrate"], &["dead-letters", "list"], &["rollups", "verify"]] {
        let output = run(arguments, &[("DATABASE_URL", &url)], folder.path());
        let printed = output_text(&output);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {printed}");
        assert!(
            printed.contains(&format!("127.0.0.1:{port}: ")) && printed.contains("refused"),
            "{arguments:?}: {printed}"
        );
        assert!(!printed.contains("hunter2"), "{arguments:?}: {printed}");
        // The error of the pool, which tries for five seconds, would tell no cause.
        assert!(
            !printed.contains("timed out") && !printed.contains("could be made in time"),
            "{arguments:?}: {printed}"
        );
    }
}

#[test]
fn the_readiness_of_a_collector_names_the_address_and_the_cause_of_an_unreachable_database() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let url = format!("postgres://somebody:hunter2@127.0.0.1:{port}/x");
    let nats = format!("nats://127.0.0.1:{}", free_port());
    let environment = [("NATS_URL".to_owned(), nats), ("DATABASE_URL".to_owned(), url)];
    let collector = Service::start(&["collector", "facebook"], &environment, folder.path());
    eventually("readiness names it", MINUTE, || {
        let ready = http::get(&collector.url("/ready")).ok()?;
        (ready.text.contains(&format!("127.0.0.1:{port}: ")) && ready.text.contains("refused")).then_some(())
    });
}

#[test]
fn a_database_that_does_not_exist_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let postgres = Postgres::start();
    let (server, _) =
        postgres.url().rsplit_once('/').map(|(server, name)| (server.to_owned(), name.to_owned())).unwrap();
    let output = run(&["check"], &[("DATABASE_URL", &format!("{server}/nobody-made-it"))], folder.path());
    let printed = output_text(&output);
    assert!(printed.contains("nobody-made-it") && printed.contains("does not exist"), "{printed}");
}

#[test]
fn a_command_whose_output_pipe_is_closed_exits_with_0() {
    let system = System::embedded(&[]);
    for n in 0..20 {
        system.post(&format!("{{\"eventId\":\"broken-{n}\"}}"));
    }
    let letters = || system.report("/dead-letters")["deadLetters"].as_array().unwrap().len();
    eventually("letters are there", MINUTE, || (letters() == 20).then_some(()));
    for arguments in [&["dead-letters", "list"][..], &["check"], &["dead-letters", "list", "--json"]] {
        let mut command = ess(arguments, &system.environment, system.folder.path());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", output_text(&output));
        assert!(!output_text(&output).contains("panicked"), "{arguments:?}: {}", output_text(&output));
        let mut command = ess(arguments, &system.environment, system.folder.path());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stderr.take());
        assert_eq!(child.wait().unwrap().code(), Some(0), "{arguments:?}");
    }
}

#[test]
fn the_publisher_slows_down_and_reports_failure_when_nobody_answers() {
    let folder = tempfile::tempdir().unwrap();
    let target = format!("http://127.0.0.1:{}/webhook", free_port());
    for pace in [&[][..], &["--rate", "20000"]] {
        let arguments = ["publisher", "--target", &target, "--batch", "1", "--duration", "2s", "--json"];
        let output = run(&[&arguments[..], pace].concat(), &[], folder.path());
        assert_eq!(output.status.code(), Some(1), "{}", output_text(&output));
        let tally: Value = serde_json::from_slice(&output.stdout).unwrap();
        let count = |name: &str| tally[name].as_u64().unwrap();
        assert!((1..500).contains(&count("sent")), "{tally}");
        assert_eq!((count("accepted"), count("failed")), (0, count("sent")), "{tally}");
        assert!(output_text(&output).contains("every POST fails"), "{}", output_text(&output));
    }
}

#[test]
fn data_folders_with_special_characters_are_used_as_written() {
    let parent = tempfile::tempdir().unwrap();
    for name in ["pd%41", "odd ?x", "a#b", "plain"] {
        let folder = parent.path().join(name);
        let path = folder.display().to_string();
        let output = run(&["migrate"], &[("ESS_DATA_DIR", &path)], parent.path());
        assert!(output.status.success(), "{name}: {}", output_text(&output));
        assert!(folder.join("ess.db").exists(), "{name}");
    }
    assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 4, "and nowhere else");
}

#[test]
fn check_finds_a_read_only_folder_and_a_port_that_is_configured_twice() {
    let folder = tempfile::tempdir().unwrap();
    // Nobody can create a file here, not even root.
    let output = run(&["check"], &[("ESS_DATA_DIR", "/sys/kernel")], folder.path());
    assert_eq!(output.status.code(), Some(1), "{}", output_text(&output));
    assert!(output_text(&output).contains("log: FAILED: /sys/kernel"), "{}", output_text(&output));
    let twice = [("ESS_GATEWAY_PORT", "4000"), ("ESS_REPORTER_PORT", "4000")];
    let output = run(&["check"], &twice, folder.path());
    assert_eq!(output.status.code(), Some(1), "{}", output_text(&output));
    assert!(
        output_text(&output).contains("ESS_GATEWAY_PORT and ESS_REPORTER_PORT are both 4000"),
        "{}",
        output_text(&output)
    );
    assert_eq!(run(&["check"], &[], folder.path()).status.code(), Some(0));
    assert_eq!(std::fs::read_dir(folder.path().join("data")).unwrap().count(), 0, "nothing is left behind");
}

#[test]
fn a_clean_stop_leaves_all_data_in_the_database_file_and_an_empty_wal() {
    let mut system = System::embedded(&[]);
    let data = system.folder.path().join("data");
    assert!(
        std::fs::metadata(data.join("ess.db")).unwrap().len() > 50_000,
        "the schema is in it from the start"
    );
    for n in 0..50 {
        system.post(&crate::support::events::simple(&format!("e-{n}"), "facebook").to_string());
    }
    system.settle();
    let process = &mut system.services[0].process;
    process.signal("TERM");
    assert_eq!(process.wait(MINUTE).code(), Some(0), "{}", process.output());
    assert_eq!(std::fs::metadata(data.join("ess.db-wal")).map_or(0, |about| about.len()), 0);
    let copy = system.folder.path().join("copy.db");
    std::fs::copy(data.join("ess.db"), &copy).unwrap();
    assert_eq!(Database::Sqlite(copy).query("SELECT count(*) FROM event_rows"), ["50"]);
}

/// A system that stopped cleanly, with 130 dead letters, one of them with control characters.
fn stopped_with_130_letters() -> System {
    let mut system = System::embedded(&[]);
    let events: Vec<Value> = (0..130)
        .map(|n| {
            let mut event = crate::support::events::simple(&format!("e-{n}"), "facebook");
            event["timestamp"] = if n == 7 { "ne\u{1b}[2Jver" } else { "never" }.into();
            event["eventId"] = if n == 7 { "clear\u{1b}[2J".to_owned() } else { format!("e-{n}") }.into();
            event
        })
        .collect();
    assert_eq!(system.post(&Value::from(events).to_string()).status, 422);
    let count = "SELECT count(*) FROM dead_letters";
    eventually("letters are there", MINUTE, || (system.database.query(count) == ["130"]).then_some(()));
    let process = &mut system.services[0].process;
    process.signal("TERM");
    assert_eq!(process.wait(MINUTE).code(), Some(0), "{}", process.output());
    system
}

#[test]
fn a_list_of_letters_is_aligned_and_has_no_control_characters() {
    let (system, there) = (stopped_with_130_letters(), 130);
    let list = system.ess(&["dead-letters", "list", "--limit", "1000"]);
    let text = String::from_utf8_lossy(&list.stdout).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), there + 2, "{text}");
    assert!(!text.contains('\u{1b}'), "no escape sequence of a publisher reaches the terminal");
    let column = lines[0].find("REASON").unwrap();
    assert!(lines[1..=there].iter().all(|line| line[column..].starts_with("invalid ")), "{text}");
    let shorter = system.ess(&["dead-letters", "list"]);
    assert!(String::from_utf8_lossy(&shorter.stdout).contains("50 letters, the newest; --limit shows more"));
}

#[test]
fn a_replay_takes_all_letters_or_as_many_as_are_asked_for() {
    let (system, there) = (stopped_with_130_letters(), 130);
    for (arguments, fails) in [
        (&["dead-letters", "replay", "--dry-run"][..], there),
        (&["dead-letters", "replay", "--dry-run", "--limit", "3"], 3),
        (&["dead-letters", "replay"], there),
    ] {
        let output = system.ess(arguments);
        assert!(output.status.success(), "{}", output_text(&output));
        assert!(output_text(&output).contains(&format!("0 pass, {fails} fail")), "{}", output_text(&output));
    }
}
