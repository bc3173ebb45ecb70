//! The console's page, the processes of the system, and the live feed.

use std::io::{BufRead, BufReader, Read};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::events::simple;
use crate::support::http;
use crate::support::system::{System, both};
use crate::support::{MINUTE, eventually};

/// A viewer of the live feed.
struct Viewer(BufReader<Box<dyn Read + Send + Sync>>);

impl Viewer {
    fn connect(url: &str) -> Self {
        let agent: ureq::Agent = ureq::Agent::config_builder().timeout_recv_body(Some(MINUTE)).build().into();
        let answer = agent.get(url).call().unwrap();
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        assert_eq!(answer.headers()["cache-control"], "no-store");
        Self(BufReader::new(Box::new(answer.into_body().into_reader())))
    }

    /// The next message; `None` at the end of the feed.
    fn next(&mut self) -> Option<(String, Value)> {
        let (mut event, mut data) = (String::new(), String::new());
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line).ok()? == 0 {
                return None;
            }
            match line.trim_end().split_once(": ") {
                Some(("event", name)) => event = name.to_owned(),
                Some(("data", text)) => data = text.to_owned(),
                _ if !data.is_empty() => return Some((event, serde_json::from_str(&data).unwrap())),
                _ => {}
            }
        }
    }

    /// The first message of a kind that a check takes.
    fn find(&mut self, kind: &str, check: impl Fn(&Value) -> bool) -> Value {
        let started = Instant::now();
        while let Some((event, data)) = self.next() {
            if event == kind && check(&data) {
                return data;
            }
            assert!(started.elapsed() < MINUTE, "no such {kind} within a minute; the last message is {data}");
        }
        panic!("the feed has ended before such a {kind}");
    }
}

fn instances(system: &System) -> Vec<Value> {
    system.report("/fleet")["instances"].as_array().unwrap().clone()
}

fn names(instances: &[Value]) -> Vec<String> {
    let mut names: Vec<_> = instances.iter().map(|one| one["service"].as_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

const ALL: [&str; 4] = ["collector.facebook", "collector.tiktok", "gateway", "reporter"];

#[test]
fn the_page_and_its_files_are_served_by_the_reporter_alone_without_a_token() {
    let system = System::embedded(&[("ESS_REPORTER_TOKEN", "a-token-of-32-letters-for-reports")]);
    let page = http::get(&system.reporter_url("/")).unwrap();
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.contains("default-src 'none'") && policy.contains("script-src 'self'"), "{policy}");
    let mut loaded = 0;
    for part in page.text.split('"').filter(|part| part.starts_with("console/")) {
        let file = http::get(&system.reporter_url(&format!("/{part}"))).unwrap();
        assert_eq!(file.status, 200, "{part}");
        assert_eq!(file.header("content-security-policy"), Some(policy), "{part}");
        let tag = file.header("etag").unwrap();
        let again =
            http::get_with(&system.reporter_url(&format!("/{part}")), &[("If-None-Match", tag)]).unwrap();
        assert_eq!((again.status, again.text.as_str()), (304, ""), "{part}");
        loaded += 1;
    }
    assert!(loaded >= 4, "{loaded} files");
    for (url, status) in [
        (system.reporter_url("/console/../Cargo.toml"), 404),
        (system.reporter_url("/console/nothing.js"), 404),
        (system.reporter_url("/fleet"), 401),
        (system.reporter_url("/live"), 401),
        (system.gateway_url("/console/main.js"), 404),
        (system.gateway_url("/"), 404),
    ] {
        let answer = http::get(&url).unwrap();
        assert_eq!(answer.status, status, "{url}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{url}");
    }
}

#[test]
fn each_process_tells_of_its_readiness_and_its_actors() {
    both(&[], |system| {
        let all = eventually("all services are told", MINUTE, || {
            let all = instances(system);
            (names(&all) == ALL && all.iter().all(|one| one["ready"] == true)).then_some(all)
        });
        for one in &all {
            assert_eq!(one["version"], env!("CARGO_PKG_VERSION"));
            assert!(one["memoryBytes"].as_u64().unwrap() > 1 << 20, "{one}");
            let root = &one["actors"][0];
            assert_eq!((&root["name"], &root["state"]), (&one["service"], &json!("running")), "{one}");
            assert!(root["children"].as_array().is_some_and(|groups| !groups.is_empty()), "{one}");
        }
        if system.nats.is_some() {
            system.service("collector-tiktok").process.kill();
            eventually("the killed collector leaves the list", MINUTE, || {
                let left = names(&instances(system));
                (left == ["collector.facebook", "gateway", "reporter"]).then_some(())
            });
            system.service("collector-tiktok").start_again();
            eventually("the collector is told again", MINUTE, || {
                (names(&instances(system)) == ALL).then_some(())
            });
        }
    });
}

#[test]
fn viewers_see_what_flows_and_events_as_they_are_validated() {
    both(&[("ESS_PII", "drop"), ("ESS_PII_KEY", "a-key-of-the-tests")], |system| {
        let mut all = Viewer::connect(&system.reporter_url("/live"));
        let mut refused = Viewer::connect(&system.reporter_url("/live?outcome=refused&source=facebook"));
        all.find("flow", |_| true);
        // A lease reaches the gateway within a second or two; until then nothing is sampled.
        let mut sent = 0;
        let mut post = || {
            let mut bad = simple(&format!("bad-{sent}"), "facebook");
            bad["data"]["user"]["age"] = json!(-1);
            bad["data"]["user"]["name"] = json!("Nobody's <b>business</b>");
            let good = simple(&format!("good-{sent}"), "tiktok");
            sent += 2;
            let answer = system.post(&json!([good, bad]).to_string()).json();
            assert_eq!((&answer["accepted"], &answer["rejected"]), (&json!(1), &json!(1)));
        };
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(4) {
            post();
            std::thread::sleep(Duration::from_millis(100));
        }
        let good = all.find("sample", |sample| sample["outcome"] == "accepted");
        assert_eq!((&good["source"], &good["errors"]), (&json!("tiktok"), &json!([])));
        assert!(
            good["eventId"].as_str().unwrap().starts_with("good-") && good["event"].is_object(),
            "{good}"
        );
        let bad = refused.find("sample", |_| true);
        assert_eq!((&bad["source"], &bad["outcome"]), (&json!("facebook"), &json!("refused")));
        assert_eq!(bad["errors"][0]["path"], "data.user.age", "{bad}");
        assert!(!bad.to_string().contains("business"), "ESS_PII holds for samples: {bad}");
        let flow = all.find("flow", |flow| {
            let rate = |source: &str, field: &str| {
                let sources = flow["sources"].as_array().unwrap();
                sources
                    .iter()
                    .find(|one| one["source"] == source)
                    .and_then(|one| one[field].as_f64())
                    .unwrap_or(0.0)
            };
            rate("tiktok", "accepted") > 0.0
                && rate("tiktok", "stored") > 0.0
                && rate("facebook", "refused") > 0.0
        });
        assert!(flow["postToRow"]["p99"].as_f64().unwrap() > 0.0, "{flow}");
        system.settle();
        let last = all.find("flow", |flow| {
            let sources = flow["sources"].as_array().unwrap();
            sources.iter().all(|one| one["inFlight"].as_u64().unwrap_or(0) == 0)
        });
        assert!(
            last["sources"].as_array().unwrap().iter().all(|one| one["missing"].as_u64().unwrap_or(0) == 0)
        );
    });
}

#[test]
fn viewers_are_bounded_and_the_feed_ends_when_the_reporter_drains() {
    let mut system = System::embedded(&[]);
    let url = system.reporter_url("/live");
    let mut viewers: Vec<Viewer> = (0..256).map(|_| Viewer::connect(&url)).collect();
    let one_more = http::get(&url).unwrap();
    assert_eq!(one_more.status, 503, "{}", one_more.text);
    assert!(one_more.header("retry-after").is_some());
    for viewer in &mut viewers {
        viewer.find("flow", |_| true);
    }
    viewers.truncate(200);
    eventually("a viewer that left makes room", MINUTE, || {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        (agent.get(&url).call().unwrap().status() == 200).then_some(())
    });
    system.services[0].process.signal("TERM");
    let mut ended = 0;
    for viewer in &mut viewers {
        while viewer.next().is_some() {}
        ended += 1;
    }
    assert_eq!(ended, 200);
    assert!(system.services[0].process.wait(MINUTE).success(), "viewers do not hold up the drain");
}

/// Flows, samples and missed samples that a viewer has read until it has so many flows.
fn read_flows(mut viewer: Viewer, flows: u64) -> (u64, u64, u64) {
    let (mut flown, mut samples, mut missed) = (0, 0, 0);
    while flown < flows {
        let (event, data) = viewer.next().expect("the feed goes on");
        match event.as_str() {
            "flow" => flown += 1,
            "sample" => samples += 1,
            _ => missed += data["samples"].as_u64().unwrap(),
        }
    }
    (flown, samples, missed)
}

#[test]
fn two_hundred_viewers_are_fed_in_bounded_memory_and_those_that_do_not_read_hold_up_nobody() {
    let system = System::embedded(&[]);
    let url = system.reporter_url("/live");
    let process = &system.services[0].process;
    let post = |name: &str| {
        let large = |number: u32| {
            let mut event = simple(&format!("{name}-{number}"), "facebook");
            event["data"]["user"]["note"] = json!("n".repeat(6_000));
            event
        };
        let batch: Vec<Value> = (0..40).map(large).collect();
        assert_eq!(system.post(&Value::from(batch).to_string()).status, 202);
    };
    // What the process needs by itself is in use before the viewers come.
    (0..10).for_each(|round| post(&format!("warm-{round}")));
    let before = process.memory_kib("VmRSS");
    let frozen: Vec<Viewer> = (0..100).map(|_| Viewer::connect(&url)).collect();
    let readers: Vec<_> = (0..100)
        .map(|_| {
            let viewer = Viewer::connect(&url);
            std::thread::spawn(move || read_flows(viewer, 8))
        })
        .collect();
    let mut rounds = 0;
    while readers.iter().any(|reader| !reader.is_finished()) {
        post(&format!("round-{rounds}"));
        rounds += 1;
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(rounds > 20, "{rounds} rounds");
    let read: Vec<_> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
    for (flows, samples, missed) in &read {
        assert!(*samples > 0 && *samples <= 20 * (flows + 1), "{samples} samples, {missed} missed");
    }
    assert_eq!(read.len(), 100);
    let grown = process.memory_kib("VmRSS").saturating_sub(before);
    println!("{grown} KiB more with 200 viewers, half of which do not read, after {rounds} rounds");
    assert!(grown < 64 << 10, "{grown} KiB for 200 viewers");
    drop(frozen);
    let ledger = system.settle();
    assert!(ledger["sources"].as_array().unwrap().iter().all(|source| source["missing"] == 0), "{ledger}");
}

#[test]
fn an_operator_restarts_an_actor_of_another_process_with_the_admin_token_alone() {
    let token = "an-admin-token-of-the-tests";
    both(&[("ESS_ADMIN_TOKEN", token)], |system| {
        let gateway = eventually("the gateway is told", MINUTE, || {
            instances(system).into_iter().find(|one| one["service"] == "gateway")
        });
        let instance = gateway["instance"].as_str().unwrap();
        let ask = |actor: &str, token: &str| {
            let url = system.reporter_url(&format!("/fleet/{instance}/actors/{actor}/restart"));
            http::post_with(&url, &[("Authorization", &format!("Bearer {token}"))], b"").unwrap().status
        };
        assert_eq!(ask("gateway.ingest", "another"), 401);
        assert_eq!(ask("gateway.nobody", token), 404);
        assert_eq!(ask("gateway.ingest", token), 202);
        eventually("the actor was restarted", MINUTE, || {
            let tree = http::get(&system.gateway_url("/actors")).unwrap().json();
            let groups = tree["actors"][0]["children"].as_array().unwrap().clone();
            let mut actors = groups.iter().flat_map(|group| group["children"].as_array().unwrap().clone());
            (actors.find(|actor| actor["name"] == "gateway.ingest").unwrap()["restarts"] == 1).then_some(())
        });
        assert_eq!(system.post(&simple("after", "facebook").to_string()).status, 202);
    });
}

#[test]
fn an_unknown_filter_of_the_feed_is_refused_by_name() {
    let system = System::embedded(&[]);
    for (query, name) in [("outcome=maybe", "outcome"), ("source=nobody", "source"), ("speed=9", "speed")] {
        let answer = http::get(&system.reporter_url(&format!("/live?{query}"))).unwrap();
        assert_eq!(answer.status, 400, "{query}");
        assert!(answer.text.contains(name), "{}", answer.text);
    }
}
