//! Platforms by file, from a request to the reports: what is redelivered counts once, and what was refused can be
//! replayed by a better file.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::system::System;
use crate::support::{MINUTE, eventually, http, platforms};

const SERVICES: &[&[&str]] = &[&["gateway"], &["collector", "all"], &["reporter"]];

/// A folder of source files, and the settings of a system that serves them.
fn settings<'a>(folder: &'a Path, secrets: &'a [(String, String)]) -> Vec<(&'a str, &'a str)> {
    let mut settings: Vec<(&str, &str)> =
        secrets.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    settings.push(("ESS_SOURCES", folder.to_str().unwrap()));
    // The log reserves so much for each source.
    settings.push(("ESS_LOG_MAX_BYTES", "64MiB"));
    settings
}

fn send(system: &System, source: &str, request: &platforms::Request) -> u16 {
    let url = system.gateway_url(&format!("/webhook/{source}"));
    let url = if request.query.is_empty() { url } else { format!("{url}?{}", request.query) };
    let headers: Vec<(&str, &str)> =
        request.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    match &request.body {
        Some(body) => http::post_with(&url, &headers, body).unwrap().status,
        None => http::get_with(&url, &headers).unwrap().status,
    }
}

fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(since.unwrap().as_secs()).unwrap()
}

#[test]
fn events_of_every_shipped_file_are_reported_and_redeliveries_are_counted_once() {
    let folder = tempfile::tempdir().unwrap();
    for shipped in platforms::all() {
        std::fs::write(folder.path().join(format!("{}.yaml", shipped.name)), shipped.file).unwrap();
    }
    let secrets: Vec<_> = platforms::all().iter().flat_map(platforms::secrets).collect();
    let system = System::real_with(&settings(folder.path(), &secrets), SERVICES);
    let mut sent = 0;
    for shipped in platforms::all() {
        for example in platforms::examples(shipped, now()) {
            if example.status < 400 && example.expect.is_some_and(|events| !events.is_empty()) {
                for _ in 0..2 {
                    assert_eq!(
                        send(&system, shipped.name, &example.request),
                        example.status,
                        "{}",
                        example.name
                    );
                }
                sent += 1;
            }
        }
    }
    assert!(sent >= 26, "{sent} requests");
    // The collector finds the streams of new sources after a moment, and the reporter their names after that.
    for shipped in platforms::all() {
        eventually(&format!("{} is collected", shipped.name), MINUTE, || {
            let report = system.reporter_url(&format!("/reports/events?source={}", shipped.name));
            let answer = http::get(&report).ok().filter(|answer| answer.status == 200)?;
            (answer.json()["totalEvents"] != 0).then_some(())
        });
    }
    let ledger = system.settle();
    for shipped in platforms::all() {
        let name = shipped.name;
        let rows = system
            .database
            .query(&format!("SELECT count(*), count(DISTINCT event_id) FROM events WHERE source = '{name}'"));
        let (count, distinct) = rows[0].split_once('|').unwrap();
        assert!(count == distinct && count != "0", "{name}: {rows:?}");
        let report = system.report(&format!("/reports/events?source={name}"));
        assert_eq!(report["totalEvents"].to_string(), count, "{name}: {report}");
        let line = ledger["sources"].as_array().unwrap().iter().find(|line| line["source"] == name).unwrap();
        let of = |member: &str| line[member].as_u64().unwrap();
        assert_eq!((of("missing"), of("quarantined")), (0, 0), "{line}");
        assert!(of("duplicates") >= of("stored") && of("stored").to_string() == count, "{line}");
        let id = &system.database.query(&format!(
            "SELECT min(event_id) FROM events WHERE source = '{name}' AND event_id NOT LIKE '%/%'"
        ))[0];
        let found = system.report(&format!("/events/{id}?source={name}"));
        assert_eq!(found["matches"][0]["state"], "stored", "{name}: {found}");
    }
}

const NOTES: &str = r#"
source: notes
title: Notes
events: 'if .notes | type == "array" then .notes[] else error("no notes") end'
map:
  id: /id
  timestamp: {value: received}
  type: {at: /kind, words: {note: note}, else: refuse}
  stage: {value: top}
"#;

#[test]
fn refused_events_and_bodies_are_replayed_by_the_file_of_today() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("notes.yaml");
    std::fs::write(&file, NOTES).unwrap();
    let system = System::real_with(&settings(folder.path(), &[]), SERVICES);
    let url = system.gateway_url("/webhook/notes");
    for body in [
        json!({"notes": [{"id": "a", "kind": "note"}, {"id": "b", "kind": "memo"}]}),
        json!({"memos": [{"id": "c", "kind": "memo"}, {"id": "d", "kind": "note"}]}),
    ] {
        assert_eq!(http::post(&url, &body.to_string()).unwrap().status, 200, "{body}");
    }
    let letters = eventually("the letters are stored", MINUTE, || {
        let answer = http::get(&system.reporter_url("/dead-letters?source=notes")).ok()?;
        let letters = (answer.status == 200).then(|| answer.json()["deadLetters"].clone())?;
        (letters.as_array()?.len() == 2).then_some(letters)
    });
    system.settle();
    let total = || system.report("/reports/events?source=notes")["totalEvents"].as_u64().unwrap();
    let replay = |arguments: &[&str]| {
        let output = system.ess(&[&["dead-letters", "replay"], arguments].concat());
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        text
    };
    let reasons: Vec<&Value> = letters.as_array().unwrap().iter().map(|letter| &letter["reason"]).collect();
    assert!(reasons.contains(&&json!("invalid")) && reasons.contains(&&json!("filter")), "{letters}");
    assert!(replay(&["--dry-run"]).contains("0 pass, 2 fail"));
    let better = NOTES.replace("words: {note: note}", "words: {note: note, memo: memo}");
    let better = better
        .replace("if .notes", "(.notes // .memos) as $all | if $all")
        .replace("then .notes[]", "then $all[]");
    // A filter that was written for today's body still finds yesterday's.
    std::fs::write(&file, better).unwrap();
    assert!(replay(&["--dry-run"]).contains("2 pass, 0 fail"));
    assert_eq!(total(), 1, "a dry run changes nothing");
    assert!(replay(&[]).contains("2 pass, 0 fail"));
    system.settle();
    eventually("all are reported", MINUTE, || (total() == 4).then_some(()));
    assert!(replay(&[]).contains("0 pass, 0 fail"), "each once");
}
