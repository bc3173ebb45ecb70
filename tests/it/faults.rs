//! Actors and background tasks panic, or are restarted, while the system works.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::actors::{ADMIN, command, leaves, node, nodes};
use crate::support::events::{Chance, event, simple};
use crate::support::system::System;
use crate::support::{MINUTE, eventually, http};

/// Events of one POST.
const BATCH: usize = 200;
/// Panics of each node, one round after another.
const ROUNDS: usize = 3;

/// Posts events and asks for reports until it is stopped. A POST that was answered with 503 is sent again, as
/// publishers do.
fn work(system: &System, client: u64, stop: &AtomicBool, accepted: &Mutex<BTreeSet<String>>) {
    let mut chance = Chance(client);
    let mut batch = 0;
    while !stop.load(Ordering::Relaxed) {
        let ids: Vec<String> = (0..BATCH).map(|n| format!("w-{client}-{batch}-{n}")).collect();
        let events: Vec<Value> = ids.iter().map(|id| event(id, &mut chance)).collect();
        let body = Value::from(events).to_string();
        eventually("a POST is taken", MINUTE, || {
            let answer = system.post(&body);
            assert!(answer.status == 202 || answer.status == 503, "{}", answer.text);
            (answer.status == 202).then_some(())
        });
        accepted.lock().unwrap().extend(ids);
        let report = http::get(&system.reporter_url("/reports/events")).unwrap();
        assert!(report.status == 200 || report.status == 503, "{}", report.text);
        batch += 1;
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Makes an actor or a task panic, and waits until it is back.
fn end_and_await(url: &str, name: &str) {
    let before = node(url, name).unwrap()["restarts"].as_u64().unwrap();
    assert_eq!(command(url, name, "panic"), 202, "{name}");
    eventually(&format!("{name} is back"), MINUTE, || {
        let actor = node(url, name)?;
        let back = actor["restarts"].as_u64()? > before && actor["state"] == "running";
        back.then(|| assert_eq!(actor["lastFailure"], "asked to panic", "{actor}"))
    });
}

#[test]
fn every_node_of_every_service_comes_back_after_a_panic_under_load_and_nothing_is_lost() {
    let system = System::real(&[("ESS_ADMIN_TOKEN", "admin"), ("ESS_RETENTION", "20000d")]);
    let services: Vec<String> = system.services.iter().map(|service| service.url("")).collect();
    let all: Vec<_> =
        services.iter().flat_map(|url| leaves(url).into_iter().map(move |name| (url, name))).collect();
    let names: BTreeSet<_> = all.iter().map(|(_, name)| name.as_str()).collect();
    let of_collectors = [
        "consume",
        "batch_write",
        "dead_letters",
        "compact_ledger",
        "measure_lag",
        "fold_summaries",
        "expire_rows",
        "expire_dead_letters",
        "probe_database",
        "watch_storing",
        "status",
        "restarts",
    ];
    let mut expected: BTreeSet<String> = ["gateway.ingest", "gateway.validate.1", "gateway.validate.2"]
        .into_iter()
        .chain(["reporter.report.1", "reporter.report.2", "reporter.report.3", "reporter.report.4"])
        .chain(["reporter.probe_database", "reporter.watch_ledger", "reporter.feed", "gateway.samples"])
        .chain(["gateway.status", "gateway.restarts", "reporter.status", "reporter.restarts"])
        .map(str::to_owned)
        .collect();
    for topic in ["facebook", "tiktok", "dead_letters"] {
        expected.extend([format!("gateway.publish.{topic}"), format!("gateway.probe.{topic}")]);
    }
    for source in ["facebook", "tiktok"] {
        expected.extend(of_collectors.iter().map(|name| format!("collector.{source}.{name}")));
    }
    assert_eq!(names, expected.iter().map(String::as_str).collect());

    let (stop, accepted) = (AtomicBool::new(false), Mutex::new(BTreeSet::new()));
    std::thread::scope(|scope| {
        for client in 0..3 {
            let (system, stop, accepted) = (&system, &stop, &accepted);
            scope.spawn(move || work(system, client, stop, accepted));
        }
        for (url, name) in std::iter::repeat_n(&all, ROUNDS).flatten() {
            let before = accepted.lock().unwrap().len();
            end_and_await(url, name);
            eventually(&format!("events are taken after {name}"), MINUTE, || {
                (accepted.lock().unwrap().len() > before).then_some(())
            });
        }
        stop.store(true, Ordering::Relaxed);
    });
    let (ledger, accepted) = (system.settle(), accepted.into_inner().unwrap());
    let rows = system.database.query("SELECT event_id FROM event_rows");
    assert_eq!(rows.len(), accepted.len(), "none is lost, and none is twice: {ledger}");
    assert_eq!(rows.into_iter().collect::<BTreeSet<_>>(), accepted);
    let mut stored = 0;
    for source in ledger["sources"].as_array().unwrap() {
        let of = |name: &str| source[name].as_u64().unwrap();
        assert_eq!((of("missing"), of("quarantined")), (0, 0), "{ledger}");
        assert_eq!(of("published"), of("stored") + of("duplicates"), "{ledger}");
        stored += of("stored");
    }
    assert_eq!(stored, accepted.len() as u64, "{ledger}");
    assert_eq!(system.report("/reports/events")["totalEvents"], stored);
    for url in &services {
        for node in nodes(url) {
            let panics = if node["children"].as_array().unwrap().is_empty() { ROUNDS } else { 0 };
            assert_eq!((&node["restarts"], &node["state"]), (&json!(panics), &json!("running")), "{node}");
        }
    }
    // Nodes are not only there: they handle messages, or do their rounds.
    for (url, name) in &all {
        let handles =
            ["consume", "batch_write", "measure_lag", "watch_storing", "ingest", "watch_ledger", "status"];
        if handles.iter().any(|end| name.ends_with(end)) {
            eventually(&format!("{name} works"), MINUTE, || {
                (node(url, name)?["handled"].as_u64()? > 0).then_some(())
            });
        }
    }
    let restarts = |actor: &str| format!("ess_actor_restarts_total{{actor=\"{actor}\",reason=\"panic\"}}");
    assert!(system.services[0].metric(&restarts("gateway.ingest")) > 0.5);
    assert!(system.services[1].metric(&restarts("collector.facebook.fold_summaries")) > 0.5);
    println!("{} nodes ended, {stored} events", all.len());
}

#[test]
fn a_node_that_fails_again_and_again_gives_up_upwards_until_its_process_ends() {
    // The database stays away, so that the collector has work when it fails: its listener tells why until draining ends.
    let settings = [("ESS_ADMIN_TOKEN", "admin"), ("ESS_DRAIN_TIMEOUT", "5s")];
    let mut system = System::real(&settings);
    system.postgres().process.kill();
    let events: Vec<Value> = (0..10).map(|n| simple(&format!("g-{n}"), "facebook")).collect();
    assert_eq!(system.post(&Value::from(events).to_string()).status, 202);
    let (group, actor) = ("collector.facebook.maintenance", "collector.facebook.measure_lag");
    let url = system.service("collector-facebook").url("");
    eventually("the writer holds the frame", MINUTE, || {
        let writer = node(&url, "collector.facebook.batch_write")?;
        (writer["mailbox"]["depth"].as_u64()? > 0).then_some(())
    });
    let (mut not_ready, mut not_healthy, mut gave_up) = (None, None, 0);
    let started = Instant::now();
    while system.service("collector-facebook").process.running() {
        assert!(started.elapsed() < MINUTE * 3, "the process goes on: {:?}", nodes(&url));
        command(&url, actor, "panic");
        let problem = |path: &str| {
            let answer = http::get(&format!("{url}{path}")).ok().filter(|answer| answer.status == 503)?;
            Some(answer.text).filter(|text| text.contains("gave up"))
        };
        not_ready = not_ready.or_else(|| problem("/ready"));
        if let Some(why) = problem("/health") {
            let seen = node(&url, group).map_or(0, |group| group["restarts"].as_u64().unwrap());
            gave_up = gave_up.max(seen);
            not_healthy = Some(why);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let service = system.service("collector-facebook");
    assert_eq!(service.process.wait(MINUTE).code(), Some(1), "{}", service.process.output());
    for why in [not_ready, not_healthy] {
        let why = why.expect("it was told");
        assert!(why.contains(group) && why.contains(actor) && why.contains("asked to panic"), "{why}");
    }
    assert_eq!(gave_up, 2, "the group was restarted twice before the service failed");
    assert!(!service.lines("a service has failed").is_empty(), "{}", service.process.output());
    // The process is started again, as an orchestrator would; the frame that it held is delivered again.
    system.postgres().start_again();
    system.service("collector-facebook").start_again();
    system.wait_ready();
    assert_eq!(system.settle()["sources"][0]["stored"], 10);
}

#[test]
fn an_operator_restarts_actors_in_operation_and_nothing_is_lost() {
    let system = System::embedded(&[("ESS_ADMIN_TOKEN", "admin")]);
    let gateway = system.gateway_url("");
    let restart = |name: &str, headers: &[(&str, &str)]| {
        http::post_with(&format!("{gateway}/actors/{name}/restart"), headers, b"").unwrap().status
    };
    assert_eq!(restart("gateway.ingest", &[]), 401);
    assert_eq!(restart("gateway.ingest", &[("Authorization", "Bearer guess")]), 401);
    assert_eq!(restart("gateway.nobody", &[ADMIN]), 404);
    let mut chance = Chance(4);
    for round in 0..10 {
        for name in ["gateway.ingest", "gateway.validate.1", "gateway.publish", "gateway.probe.facebook"] {
            assert_eq!(restart(name, &[ADMIN]), 202, "{name}");
        }
        let batch: Vec<Value> = (0..50).map(|n| event(&format!("r-{round}-{n}"), &mut chance)).collect();
        let body = Value::from(batch).to_string();
        eventually("it is taken", MINUTE, || (system.post(&body).status == 202).then_some(()));
    }
    system.settle();
    assert_eq!(system.count_rows(), 500);
    for name in ["gateway.ingest", "gateway.publish.tiktok", "gateway.probe.facebook"] {
        let restarted = node(&gateway, name).unwrap();
        assert_eq!(restarted["restarts"], 10, "{restarted}");
        assert_eq!(restarted["lastFailure"], Value::Null, "a request is no failure");
    }
}

#[test]
fn operators_commands_are_off_without_a_token() {
    let system = System::embedded(&[]);
    let answer = http::post(&system.gateway_url("/actors/gateway.ingest/restart"), "").unwrap();
    assert_eq!(answer.status, 403, "{}", answer.text);
}
