//! Platforms by file: each shipped file through a real gateway and a real log.

use std::collections::BTreeMap;

use ess::config::{Config, NatsAccess, Variables};
use ess::event::Source;
use ess::log::jetstream::JetStream;
use ess::log::{DeadLetter, Frame, Log, LogRole, Reason, Topic};
use ess::source::CanonicalEvent;
use ess::source::shipped::Shipped;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::actors::nodes;
use crate::support::events::Chance;
use crate::support::http::{self, Answer};
use crate::support::nats::Nats;
use crate::support::platforms::{self, Request};
use crate::support::process::{Service, ess};
use crate::support::system::System;
use crate::support::{MINUTE, block_on, eventually};

/// A gateway on NATS that serves source files.
struct Gateway {
    service: Service,
    nats: Nats,
    folder: TempDir,
    sources: BTreeMap<String, Source>,
    /// Last message of each topic that was read.
    read: BTreeMap<String, u64>,
}

/// An event of the log.
#[derive(Debug, Clone, PartialEq)]
struct Logged(Value);

impl Gateway {
    /// Serves these files, each `NAME.yaml` with its text.
    fn start(files: &[(&str, &str)], settings: &[(&str, &str)]) -> Self {
        let (nats, folder) = (Nats::start(), tempfile::tempdir().unwrap());
        let sources = folder.path().join("sources");
        std::fs::create_dir(&sources).unwrap();
        for (name, text) in files {
            std::fs::write(sources.join(format!("{name}.yaml")), text).unwrap();
        }
        let mut environment: Vec<(String, String)> =
            settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        environment.push(("NATS_URL".to_owned(), nats.url()));
        // The server reserves so much for each stream.
        environment.push(("ESS_LOG_MAX_BYTES".to_owned(), "64MiB".to_owned()));
        environment.push(("ESS_SOURCES".to_owned(), sources.display().to_string()));
        let mut service = Service::start(&["gateway"], &environment, folder.path());
        service.wait_ready();
        let known = files.iter().map(|(name, _)| ((*name).to_owned(), Source::declare(name, "").unwrap()));
        let sources = known.collect();
        Self { service, nats, folder, sources, read: BTreeMap::new() }
    }

    /// Serves all shipped files.
    fn shipped(settings: &[(&str, &str)]) -> Self {
        let files: Vec<(&str, &str)> =
            platforms::all().iter().map(|shipped| (shipped.name, shipped.file)).collect();
        let secrets: Vec<(String, String)> = platforms::all().iter().flat_map(platforms::secrets).collect();
        let mut all: Vec<(&str, &str)> = settings.to_vec();
        all.extend(secrets.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        Self::start(&files, &all)
    }

    fn send(&self, source: &str, request: &Request) -> Answer {
        let url = self.service.url(&format!("/webhook/{source}"));
        let url = if request.query.is_empty() { url } else { format!("{url}?{}", request.query) };
        let headers: Vec<(&str, &str)> =
            request.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        match &request.body {
            Some(body) => http::post_with(&url, &headers, body).unwrap(),
            None => http::get_with(&url, &headers).unwrap(),
        }
    }

    /// Messages of a topic that were not read before.
    fn messages(&mut self, topic: Topic) -> Vec<bytes::Bytes> {
        let read = self.read.entry(topic.to_string()).or_default();
        let url = self.nats.url();
        let (messages, last) = block_on(async {
            let settings = Config::from_variables(&Variables::default()).unwrap().log;
            let log =
                JetStream::connect(&url, "test", settings, &NatsAccess::default(), LogRole::Observer).await;
            let log = log.unwrap();
            let mut waited = 0;
            let last = loop {
                match log.state(topic).await {
                    Ok(state) => break state.last,
                    // The gateway makes the streams one after another.
                    Err(error) => assert!(waited < 600, "{topic}: {error}"),
                }
                waited += 1;
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            };
            let mut messages = Vec::new();
            for sequence in *read + 1..=last {
                messages.push(log.peek(topic, sequence).await.unwrap().unwrap());
            }
            (messages, last)
        });
        *read = last;
        messages
    }

    /// Events of a source that were not read before.
    fn events(&mut self, source: &str) -> Vec<Logged> {
        let source = self.sources[source];
        let frames = self.messages(Topic::Events(source));
        let mut events = Vec::new();
        for frame in frames {
            let frame = Frame::read(frame).unwrap();
            for event in frame.events() {
                let read = CanonicalEvent::read(event.bytes).unwrap();
                assert_eq!(read.source, source.name());
                events.push(Logged(serde_json::from_slice(event.bytes).unwrap()));
            }
        }
        events
    }

    /// Dead letters that were not read before.
    fn letters(&mut self) -> Vec<DeadLetter> {
        let messages = self.messages(Topic::DeadLetters);
        messages.iter().flat_map(|bytes| serde_json::from_slice::<Vec<DeadLetter>>(bytes).unwrap()).collect()
    }
}

fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(since.unwrap().as_secs()).unwrap()
}

/// A member of an expected event as the log has it.
fn as_logged(name: &str, value: &Value) -> (String, Value) {
    match (name, value) {
        ("amount", value) if !value.is_null() => {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
            let micros: i64 = format!("{whole}{fraction:0<6}").parse().unwrap();
            (name.to_owned(), micros.into())
        }
        ("age" | "followers" | "revenue" | "raw", value) => (name.to_owned(), value.clone()),
        (name, Value::Number(number)) => (name.to_owned(), number.to_string().into()),
        (name, value) => (name.to_owned(), value.clone()),
    }
}

fn compare(name: &str, expected: &Value, Logged(found): &Logged) {
    for (member, value) in expected.as_object().unwrap() {
        // Examples tell when they came; here they come now.
        if ["timestamp", "received"].contains(&member.as_str()) {
            continue;
        }
        let (member, value) = as_logged(member, value);
        let shown = match (member.as_str(), &found[&member]) {
            ("revenue", Value::Null) => json!(false),
            (_, shown) => shown.clone(),
        };
        assert_eq!(shown, value, "{name}: {member} of {found}");
    }
}

/// Sends every example of a file; gives the number of examples, and of events in the log.
fn send_examples(gateway: &mut Gateway, shipped: &Shipped) -> (usize, usize) {
    let (mut tried, mut logged) = (0, 0);
    for example in platforms::examples(shipped, now()) {
        let name = format!("{}: {}", shipped.name, example.name);
        let answer = gateway.send(shipped.name, &example.request);
        assert_eq!(answer.status, example.status, "{name}: {}", answer.text);
        if let Some(expected) = &example.answer {
            let shown = serde_json::from_str(&answer.text).unwrap_or_else(|_| json!(answer.text));
            let expected = match expected.as_str() {
                Some(text) => serde_json::from_str(text).unwrap_or_else(|_| json!(text)),
                None => expected.clone(),
            };
            assert_eq!(shown, expected, "{name}");
        }
        let (events, letters) = (gateway.events(shipped.name), gateway.letters());
        if answer.status >= 400 {
            assert!(events.is_empty(), "{name}: {events:?}");
        }
        if let Some(expect) = &example.expect {
            assert_eq!(events.len(), expect.len(), "{name}: {events:?} {letters:?}");
            expect.iter().zip(&events).for_each(|(expected, found)| compare(&name, expected, found));
        }
        let paths: Vec<&str> =
            letters.iter().flat_map(|letter| &letter.errors).map(|error| error.path.as_str()).collect();
        for path in example.refused.iter().flatten() {
            assert!(paths.contains(&path.as_str()), "{name}: {path} in {letters:?}");
        }
        if example.refused.is_none() {
            assert!(letters.is_empty(), "{name}: {letters:?}");
        }
        assert!(letters.iter().all(|letter| letter.source == Some(gateway.sources[shipped.name])), "{name}");
        // The platform sends it again: the same keys, by which the store finds a duplicate.
        if !events.is_empty() {
            assert_eq!(gateway.send(shipped.name, &example.request).status, example.status, "{name}");
            let ids =
                |events: &[Logged]| events.iter().map(|event| event.0["id"].clone()).collect::<Vec<_>>();
            assert_eq!(ids(&gateway.events(shipped.name)), ids(&events), "{name}");
            gateway.letters();
        }
        tried += 1;
        logged += events.len();
    }
    (tried, logged)
}

#[test]
fn every_example_of_every_shipped_file_comes_out_through_a_gateway_as_the_file_says() {
    let mut gateway = Gateway::shipped(&[]);
    let (mut tried, mut logged) = (0, 0);
    for shipped in platforms::all() {
        let (examples, events) = send_examples(&mut gateway, shipped);
        assert!(examples >= 4 && events >= 1, "{}: {examples} examples, {events} events", shipped.name);
        (tried, logged) = (tried + examples, logged + events);
    }
    assert!(tried >= 60 && logged >= 40, "{tried} examples, {logged} events");
    for node in nodes(&gateway.service.url("")) {
        assert_eq!(node["restarts"], 0, "{node}");
    }
    // Nothing of a secret is in the log lines.
    let output = gateway.service.process.output();
    for (_, secret) in platforms::all().iter().flat_map(platforms::secrets) {
        assert!(!output.contains(&secret), "{secret}");
    }
}

#[test]
fn a_ping_without_a_body_is_success_at_every_shipped_file_and_a_wrong_signature_is_not() {
    let mut gateway = Gateway::shipped(&[]);
    let mut tried = 0;
    for shipped in platforms::all() {
        let secrets = platforms::secrets(shipped);
        let mut ping = Request { body: Some(Vec::new()), query: String::new(), headers: Vec::new() };
        assert_eq!(gateway.send(shipped.name, &ping).status, 401, "{}: nothing shown", shipped.name);
        let others = secrets.keys().map(|name| (name.clone(), "YW5vdGhlciBzZWNyZXQ=".to_owned()));
        let mut wrong = Request { body: Some(b"{}".to_vec()), ..ping.clone() };
        platforms::sign(shipped.name, &others.collect(), &mut wrong, now());
        assert_eq!(gateway.send(shipped.name, &wrong).status, 401, "{}: another secret", shipped.name);
        if shipped.name == "google_leads" {
            // Its key stands in the body, so that a body without a key proves nothing.
            continue;
        }
        platforms::sign(shipped.name, &secrets, &mut ping, now());
        let answer = gateway.send(shipped.name, &ping);
        assert_eq!(answer.status, platforms::success(shipped).0, "{}: {}", shipped.name, answer.text);
        assert!(gateway.events(shipped.name).is_empty() && gateway.letters().is_empty(), "{}", shipped.name);
        let series =
            format!("ess_gateway_requests_total{{outcome=\"accepted\",publisher=\"{}\"}}", shipped.name);
        assert_eq!(gateway.service.metric(&series), 1.0, "{series}");
        tried += 1;
    }
    assert!(tried >= 12, "{tried}");
    assert_eq!(http::get(&gateway.service.url("/webhook/nobody")).unwrap().status, 404);
}

const NOTES: &str = r#"
source: notes
title: Notes
accept: [json, form, query]
verify: {query: {parameter: key, secret: ESS_NOTES_KEY}}
answer: {status: 201, body: taken}
events: |
  if .fail then error("no \(.fail)") elif .run then [range(.run)] | map(select(. < 0)) | .[] else (.notes // [.])[] end
schema: {type: object, required: [id], properties: {mail: {type: string}}}
map:
  id: /id
  timestamp: {value: received}
  type: {value: note}
  stage: {value: top}
  user: /user
  name: /name
personal: [/mail]
"#;

#[test]
fn forms_queries_and_bodies_are_taken_with_the_answer_of_the_file_and_without_its_secret() {
    let settings = [("ESS_NOTES_KEY", "k-1,s3cret-key"), ("ESS_MAX_EVENTS", "50")];
    let mut gateway = Gateway::start(&[("notes", NOTES)], &settings);
    let key = "key=s3cret-key";
    let json = ("Content-Type", "application/json");
    let form = ("Content-Type", "application/x-www-form-urlencoded");
    let post = |gateway: &Gateway, headers: &[(&str, &str)], body: &str| {
        let url = gateway.service.url(&format!("/webhook/notes?{key}"));
        http::post_with(&url, headers, body.as_bytes()).unwrap()
    };
    let many = json!({"notes": (0..51).map(|n| json!({"id": n})).collect::<Vec<_>>()}).to_string();
    for (headers, body, status, events) in [
        (vec![json], r#"{"id":7400000000000000777,"user":9}"#, 201, 1),
        (vec![form], "id=a&user=b", 201, 1),
        (vec![json], r#"{"notes":[{"id":"1"},{"id":2},{"id":3}]}"#, 201, 3),
        (vec![json], r#"{"notes":[{"id":"1"},{"mail":5},7]}"#, 201, 1),
        (vec![], "", 201, 0),
        (vec![json], "{", 400, 0),
        (vec![form], "id=a&id=b", 400, 0),
        (vec![("Content-Type", "text/xml")], "<a/>", 415, 0),
        (vec![json], many.as_str(), 413, 0),
        (vec![json], r#"{"fail":"that"}"#, 201, 0),
        (vec![json], r#"{"run":100000000}"#, 201, 0),
        (vec![json, ("Content-Encoding", "br")], "{}", 415, 0),
    ] {
        let answer = post(&gateway, &headers, body);
        assert_eq!(answer.status, status, "{body}: {}", answer.text);
        if status == 201 {
            assert_eq!(answer.text, "taken", "{body}");
        } else {
            assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{body}");
        }
        assert_eq!(gateway.events("notes").len(), events, "{body}");
    }
    let letters = gateway.letters();
    let reasons: Vec<Reason> = letters.iter().map(|letter| letter.reason).collect();
    use Reason::{Filter, Invalid, NotJson};
    assert_eq!(reasons, [Invalid, Invalid, NotJson, NotJson, Filter, Filter]);
    assert_eq!(letters[4].payload, br#"{"fail":"that"}"#, "the whole body is set aside");
    assert!(letters[4].errors[0].message.contains("no that"), "{:?}", letters[4]);
    assert!(letters[5].errors[0].message.contains("more than"), "{:?}", letters[5]);
    // A GET takes its query as one event.
    let get = |query: &str| http::get(&gateway.service.url(&format!("/webhook/notes?{query}"))).unwrap();
    assert_eq!((get(&format!("{key}&id=q-1&user=u")).status, get("id=q-2").status), (201, 401));
    assert_eq!(get("key=wrong&id=q-3").status, 401);
    let events = gateway.events("notes");
    assert_eq!(events.len(), 1);
    assert_eq!(
        (&events[0].0["id"], &events[0].0["raw"]),
        (&json!("q-1"), &json!({"id": "q-1", "user": "u"}))
    );
    let output = gateway.service.process.output();
    assert!(!output.contains("s3cret-key"), "{output}");
    let url = gateway.service.url("/webhook/notes");
    assert_eq!(http::post(&url, r#"{"id":1}"#).unwrap().status, 401);
}

#[test]
fn personal_data_of_declared_events_is_hidden_in_the_log_and_in_dead_letters() {
    for mode in ["hash", "drop"] {
        let settings = [("ESS_NOTES_KEY", "k"), ("ESS_PII", mode), ("ESS_PII_KEY", "0123456789abcdef")];
        let mut gateway = Gateway::start(&[("notes", NOTES)], &settings);
        let url = gateway.service.url("/webhook/notes?key=k");
        let body = json!({"notes": [
            {"id": "ada@example.org", "user": "ada@example.org", "name": "Ada", "mail": "ada@example.org"},
            {"user": "ada@example.org", "name": "Ada", "mail": "ada@example.org"},
            "ada@example.org",
        ]});
        assert_eq!(http::post(&url, &body.to_string()).unwrap().status, 201);
        assert_eq!(http::post(&url, r#"{"fail":"Ada"}"#).unwrap().status, 201);
        let events = gateway.events("notes");
        let letters = gateway.letters();
        assert_eq!((events.len(), letters.len()), (1, 3), "{letters:?}");
        let text = format!("{} {}", events[0].0, json!(letters));
        let payloads: Vec<String> =
            letters.iter().map(|letter| String::from_utf8_lossy(&letter.payload).into_owned()).collect();
        assert!(!format!("{text} {payloads:?}").contains("Ada"), "{text} {payloads:?}");
        assert!(!format!("{text} {payloads:?}").contains("ada@"), "{text} {payloads:?}");
        let user = events[0].0["user"].as_str().unwrap();
        assert!(user.starts_with("anon-") && events[0].0["id"] == user, "{text}");
        assert_eq!(events[0].0["name"].is_null(), mode == "drop", "{text}");
        // The same user has the same pseudonym, so that a redelivery is found.
        assert_eq!(http::post(&url, &body.to_string()).unwrap().status, 201);
        assert_eq!(gateway.events("notes")[0].0["id"], user);
    }
}

#[test]
fn a_wrong_file_and_a_missing_secret_stop_the_start_and_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let sources = folder.path().join("sources");
    std::fs::create_dir(&sources).unwrap();
    let start = |secret: Option<&str>| {
        let mut environment = vec![
            ("NATS_URL".to_owned(), "nats://127.0.0.1:1".to_owned()),
            ("ESS_SOURCES".to_owned(), sources.display().to_string()),
        ];
        environment.extend(secret.map(|secret| ("ESS_NOTES_KEY".to_owned(), secret.to_owned())));
        let output = ess(&["gateway"], &environment, folder.path()).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    std::fs::write(sources.join("notes.yaml"), NOTES).unwrap();
    let (code, shown) = start(None);
    assert_eq!(code, Some(2), "{shown}");
    assert!(shown.contains("ESS_NOTES_KEY") && shown.contains("notes.yaml"), "{shown}");
    let (code, shown) = start(Some("one,,two"));
    assert!(code == Some(2) && shown.contains("ESS_NOTES_KEY"), "{shown}");
    std::fs::write(sources.join("notes.yaml"), NOTES.replace("  id: /id", "  idd: /id")).unwrap();
    std::fs::write(sources.join("other.yaml"), "source: other_one\nmapp: {}\n").unwrap();
    let (code, shown) = start(Some("one"));
    assert_eq!(code, Some(2), "{shown}");
    for part in ["notes.yaml:11:3", "did you mean", "other.yaml:2:1", "the file is other.yaml"] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
}

#[test]
fn the_shared_path_takes_no_declared_source_and_says_where_it_is_taken() {
    let mut gateway = Gateway::start(&[("notes", NOTES)], &[("ESS_NOTES_KEY", "k")]);
    let body = json!([{"source": "notes", "eventId": "a", "id": "a"}]).to_string();
    let answer = http::post(&gateway.service.url("/webhook"), &body).unwrap();
    assert_eq!(answer.status, 422, "{}", answer.text);
    let errors = answer.json()["errors"][0]["errors"].clone();
    let at_source = errors.as_array().unwrap().iter().find(|error| error["path"] == "source").unwrap();
    assert!(at_source["message"].as_str().unwrap().contains("/webhook/notes"), "{errors}");
    assert!(gateway.events("notes").is_empty());
    let document = http::get(&gateway.service.url("/openapi.json")).unwrap().json();
    let path = &document["paths"]["/webhook/notes"];
    assert!(path["get"].is_object() && path["post"]["responses"]["201"].is_object(), "{path}");
    for status in ["400", "401", "413", "415", "503"] {
        assert!(path["post"]["responses"][status].is_object(), "{status}: {path}");
    }
}

#[test]
fn ten_thousand_mutated_bodies_are_answered_as_documented_at_every_shipped_file() {
    const ROUNDS: usize = 10_000;
    const THREADS: u64 = 4;
    let gateway = Gateway::shipped(&[]);
    let mut seeds: Vec<(&Shipped, BTreeMap<String, String>, Request)> = Vec::new();
    for shipped in platforms::all() {
        for example in platforms::examples(shipped, now()) {
            if example.status < 400 && example.expect.is_some_and(|events| !events.is_empty()) {
                seeds.push((shipped, platforms::secrets(shipped), example.request));
            }
        }
    }
    let base = gateway.service.url("/webhook");
    let found = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (seeds, base) = (&seeds, &base);
                scope.spawn(move || mutate(ROUNDS / THREADS as usize, thread, seeds, base))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).fold(
            BTreeMap::<u16, usize>::new(),
            |mut all, found| {
                found.into_iter().for_each(|(status, count)| *all.entry(status).or_default() += count);
                all
            },
        )
    });
    assert_eq!(found.values().sum::<usize>(), ROUNDS);
    let success: usize = found.iter().filter(|(status, _)| **status < 300).map(|(_, count)| count).sum();
    assert!(found.get(&503).is_none_or(|count| *count < ROUNDS / 100), "{found:?}");
    assert!(success > ROUNDS / 4 && found.get(&400).is_some_and(|count| *count > ROUNDS / 50), "{found:?}");
    for node in nodes(&gateway.service.url("")) {
        assert_eq!(node["restarts"], 0, "{node}");
    }
}

fn mutate(
    rounds: usize,
    thread: u64,
    seeds: &[(&Shipped, BTreeMap<String, String>, Request)],
    base: &str,
) -> BTreeMap<u16, usize> {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let mut chance = Chance(0xdec1 + thread);
    let mut found = BTreeMap::new();
    for _ in 0..rounds {
        let (shipped, secrets, request) = &seeds[chance.below(seeds.len() as u64) as usize];
        let mut request = request.clone();
        let mut bytes = request.body.clone().unwrap_or_else(|| request.query.clone().into_bytes());
        for _ in 0..=chance.below(3) {
            let at = chance.below(bytes.len() as u64 + 1) as usize;
            match chance.below(4) {
                0 if at < bytes.len() => bytes[at] ^= 1 << chance.below(8),
                1 if at < bytes.len() => drop(bytes.remove(at)),
                2 => {
                    let word = chance.pick(&["null", "{}", "[[", "\"", "-1e99", "\\ud800", "\\u0000", "%00"]);
                    drop(bytes.splice(at..at, word.bytes()));
                }
                _ => bytes.truncate(at),
            }
        }
        match request.body {
            Some(_) => request.body = Some(bytes),
            // A URL has no other characters.
            None => {
                let kept = |byte: &u8| byte.is_ascii_graphic() && !b"#\"<>\\^`{|}".contains(byte);
                request.query = bytes.into_iter().filter(kept).map(char::from).collect();
            }
        }
        platforms::sign(shipped.name, secrets, &mut request, now());
        let url = format!("{base}/{}", shipped.name);
        let url = if request.query.is_empty() { url } else { format!("{url}?{}", request.query) };
        let headers = request.headers.iter();
        let sent = match &request.body {
            Some(body) => {
                let post = headers.fold(agent.post(&url), |post, (name, value)| post.header(name, value));
                post.send(&body[..])
            }
            None => headers.fold(agent.get(&url), |get, (name, value)| get.header(name, value)).call(),
        };
        let answer = sent.unwrap_or_else(|error| panic!("{}: {error}", shipped.name));
        let status = answer.status().as_u16();
        let documented = [platforms::success(shipped).0, 400, 401, 503];
        assert!(documented.contains(&status), "{}: {status} for {request:?}", shipped.name);
        *found.entry(status).or_insert(0) += 1;
    }
    found
}

#[test]
fn challenges_are_answered_while_the_gateway_drains() {
    let gateway = Gateway::shipped(&[("ESS_DRAIN_GRACE", "30s")]);
    gateway.service.process.signal("TERM");
    let challenges: Vec<_> = platforms::all()
        .iter()
        .flat_map(|shipped| platforms::examples(shipped, now()).into_iter().map(move |one| (shipped, one)))
        .filter(|(_, example)| example.request.body.is_none() && example.answer.is_some())
        .filter(|(_, example)| example.expect.is_none() && example.refused.is_none())
        .collect();
    assert!(challenges.len() >= 3, "{}", challenges.len());
    for (shipped, example) in challenges {
        let answer = gateway.send(shipped.name, &example.request);
        assert_eq!(answer.status, example.status, "{}: {}", shipped.name, answer.text);
    }
}

/// Runs the publisher for one declared source against a gateway.
fn publish(
    gateway: &Gateway,
    source: &str,
    more: &[&str],
    secrets: &[(String, String)],
) -> std::process::Output {
    let target = gateway.service.url("/webhook");
    let arguments = ["publisher", "--target", &target, "--source", source, "--json"];
    let folder = tempfile::tempdir().unwrap();
    ess(&[&arguments[..], more].concat(), secrets, folder.path()).output().unwrap()
}

#[test]
fn the_publisher_sends_new_events_of_every_shipped_file_signed_as_its_platform_signs() {
    let mut gateway = Gateway::shipped(&[]);
    let mut tried = 0;
    for shipped in platforms::all() {
        let secrets: Vec<(String, String)> = platforms::secrets(shipped).into_iter().collect();
        let output = publish(&gateway, shipped.name, &["--rate", "40", "--duration", "500ms"], &secrets);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{}: {stderr}", shipped.name);
        let tally: Value = serde_json::from_slice(&output.stdout).unwrap();
        let count = |name: &str| tally[name].as_u64().unwrap();
        assert!(count("sent") > 0 && count("failed") + count("rejected") == 0, "{}: {tally}", shipped.name);
        assert_eq!(count("accepted"), count("sent"), "{}: {tally}", shipped.name);
        let events = gateway.events(shipped.name);
        assert_eq!(events.len() as u64, count("sent"), "{}", shipped.name);
        let ids: std::collections::BTreeSet<String> =
            events.iter().map(|event| event.0["id"].to_string()).collect();
        assert_eq!(ids.len(), events.len(), "{}: each event is new", shipped.name);
        assert!(gateway.letters().is_empty(), "{}", shipped.name);
        tried += events.len();
    }
    assert!(tried > 50, "{tried} events");
}

#[test]
fn the_publisher_signs_with_no_other_secret_and_names_what_it_cannot_send() {
    let mut gateway = Gateway::shipped(&[]);
    let secret = |value: &str| vec![("ESS_SHOPIFY_ORDERS_SECRET".to_owned(), value.to_owned())];
    let brief = ["--rate", "20", "--duration", "200ms"];
    let output = publish(&gateway, "shopify_orders", &brief, &secret("another"));
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let tally: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(tally["failed"], tally["sent"], "{tally}");
    assert!(tally["lastFailure"].as_str().unwrap().starts_with("401"), "{tally}");
    assert!(gateway.events("shopify_orders").is_empty());
    for (source, more, message) in [
        ("myspace", &[][..], "there is no source `myspace`: it must be one of facebook, tiktok, adjust"),
        ("stripe", &[], "the secret ESS_STRIPE_SECRET of the source `stripe` is not set"),
        ("shopify_orders", &["--batch", "5"], "--batch has no use with --source shopify_orders"),
        ("shopify_orders", &["--invalid", "0.1"], "--invalid has no use with --source shopify_orders"),
        ("shopify_orders", &["--token", "t"], "--token has no use with --source shopify_orders"),
    ] {
        let output = publish(&gateway, source, more, &secret("invented"));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{source} {more:?}: {stderr}");
        assert!(stderr.contains(message), "{source} {more:?}: {stderr}");
    }
}

#[test]
fn the_publisher_reads_source_files_of_the_folder_and_their_bodies() {
    let text = "source: notes\ntitle: Notes\nmap:\n  id: /note/id\n  timestamp: {at: /at, as: rfc3339}\n  type: {value: note}\n  \
                stage: {value: top}\nanswer: {status: 200, body: thanks}\nexamples:\n  - given: {file: note.json}\n    expect: [{id: n-1}]\n";
    let mut gateway = Gateway::start(&[("notes", text)], &[("ESS_WEBHOOK_TOKEN", "t0ken")]);
    let sources = gateway.folder.path().join("sources");
    std::fs::create_dir(sources.join("notes")).unwrap();
    let body = r#"{"note":{"id":"n-1"},"at":"2026-11-26T10:00:01Z"}"#;
    std::fs::write(sources.join("notes/note.json"), body).unwrap();
    let settings = [("ESS_SOURCES".to_owned(), sources.display().to_string())];
    let output =
        publish(&gateway, "notes", &["--rate", "20", "--duration", "300ms", "--token", "t0ken"], &settings);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let tally: Value = serde_json::from_slice(&output.stdout).unwrap();
    let events = gateway.events("notes");
    assert!(!events.is_empty());
    assert_eq!(tally["accepted"].as_u64(), Some(events.len() as u64), "{tally}");
}

#[test]
fn what_the_publisher_sends_of_a_declared_source_is_in_its_report() {
    let folder = tempfile::tempdir().unwrap();
    let shipped = ess::source::shipped::find("shopify_orders").unwrap();
    std::fs::write(folder.path().join("shopify_orders.yaml"), shipped.file).unwrap();
    let settings = [
        ("ESS_SOURCES", folder.path().to_str().unwrap()),
        ("ESS_SHOPIFY_ORDERS_SECRET", "invented"),
        ("ESS_LOG_MAX_BYTES", "64MiB"),
    ];
    let system = System::real_with(&settings, &[&["gateway"], &["collector", "all"], &["reporter"]]);
    let target = system.gateway_url("/webhook");
    let arguments = ["publisher", "--target", &target, "--source", "shopify_orders", "--json"];
    let brief = ["--rate", "50", "--duration", "1s"];
    let output = system.ess(&[&arguments[..], &brief].concat());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let tally: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(tally["accepted"].as_u64() > Some(10), "{tally}");
    // The collector finds the stream of a new source after a moment, and the reporter its name after that.
    let path = system.reporter_url("/reports/events?source=shopify_orders");
    eventually("all accepted events are reported", MINUTE, || {
        let report = http::get(&path).ok().filter(|answer| answer.status == 200)?.json();
        (report["totalEvents"] == tally["accepted"]).then_some(())
    });
    system.settle();
    let revenue = system.report("/reports/revenue?source=shopify_orders&currency=EUR");
    assert!(revenue["transactions"].as_u64() > Some(0), "{revenue}");
}
