//! Tests of the model, and what tests of the screen make of it.

use super::*;
use crate::fleet::{SampleError, SourceFlow};
use crate::runtime::MailboxView;

pub fn node(name: &str, handled: u64, restarts: u64) -> ActorView {
    ActorView {
        name: name.to_owned(),
        state: State::Running,
        mailbox: MailboxView { depth: 3, bound: 64 },
        handled,
        blocked_seconds: handled as f64 / 1_000.0,
        restarts,
        last_failure: (restarts > 0).then(|| "a panic\u{1b}[2J".to_owned()),
        children: Vec::new(),
    }
}

pub fn instance(service: &str, leaf: ActorView) -> Instance {
    let group = ActorView { children: vec![leaf], ..node(&format!("{service}.group"), 0, 0) };
    let root = ActorView { children: vec![group], ..node(service, 0, 0) };
    Instance {
        service: service.to_owned(),
        instance: "host-1".to_owned(),
        version: "0.2.0".to_owned(),
        started_at: "2026-01-31T12:00:00Z".to_owned(),
        port: Some(3_000),
        ready: true,
        why: None,
        cores: 0.25,
        memory_bytes: 30_000_000,
        actors: vec![root],
        actors_truncated: false,
    }
}

pub fn flow(source: &str, received: f64, refused: f64, in_flight: u64) -> Update {
    let of = SourceFlow {
        source: source.to_owned(),
        received,
        accepted: received - refused,
        refused,
        logged: received - refused,
        stored: received - refused,
        duplicates: 0.0,
        in_flight: Some(in_flight),
        missing: Some(0),
        log_bytes: Some(0),
        log_max_bytes: Some(1_000),
    };
    let at = "2026-01-31T12:00:00Z".to_owned();
    Update::Message(FeedMessage::Flow(Flow { at, sources: vec![of], post_to_row: None }))
}

pub fn row(source: &str, missing: u64) -> LedgerRow {
    LedgerRow {
        source: source.to_owned(),
        published: 1_000_000,
        stored: 999_000,
        duplicates: 900,
        quarantined: 10,
        in_flight: 90,
        missing,
        rejected: 12,
    }
}

fn texts(model: &Model, now: Instant) -> Vec<String> {
    model.findings(now).into_iter().map(|finding| finding.text).collect()
}

#[test]
fn a_system_without_faults_is_called_well() {
    let mut model = Model::new();
    let now = Instant::now();
    assert_eq!(texts(&model, now), ["connecting"]);
    model.take(Update::Connected, now);
    model.take(Update::Ledger(Ok(vec![row("facebook", 0)])), now);
    model.take(Update::Fleet(Ok(vec![instance("gateway", node("gateway.ingest", 1, 0))])), now);
    model.take(flow("facebook", 500.0, 0.0, 12), now);
    let findings = model.findings(now);
    assert_eq!((findings.len(), findings[0].level), (1, Level::Good));
}

#[test]
fn the_worst_finding_comes_first_and_none_holds_a_control_character() {
    let mut model = Model::new();
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    model.take(Update::Connected, start);
    let mut gateway = instance("gateway", node("gateway.ingest", 1, 0));
    let collector = instance("collector.facebook", node("collector.facebook.consume", 1, 0));
    model.take(Update::Fleet(Ok(vec![gateway.clone(), collector])), start);
    gateway.ready = false;
    gateway.why = Some("log: \u{9b}away".to_owned());
    gateway.actors[0].children[0].children[0] = node("gateway.ingest", 1, 2);
    model.take(Update::Fleet(Ok(vec![gateway])), at(3));
    model.take(flow("facebook", 10.0, 1.0, 0), at(3));
    let sample = Sample::new(Some("facebook"), None, None, Some(&[]), b"{}");
    let errors = vec![SampleError { path: "data.user.age".to_owned(), message: "must\u{7f}".to_owned() }];
    model.take(Update::Message(FeedMessage::Sample(Box::new(Sample { errors, ..sample }))), at(3));
    model.take(Update::Ledger(Ok(vec![row("facebook", 7)])), at(3));
    let found = texts(&model, at(3));
    assert_eq!(
        found,
        [
            "facebook: 7 events are missing: published, and neither in the log nor stored",
            "collector.facebook: no process has told of itself for 3.0 s",
            "gateway host-1 is not ready: log: \\u{9b}away",
            "gateway.ingest was restarted 2 times 0 µs ago: a panic\\u{1b}[2J",
            "facebook: 1.0/s are refused (10 %), the last for data.user.age: must\\u{7f}",
        ]
    );
    model.take(Update::Away(ReporterError::Ended), at(4));
    let found = texts(&model, at(9));
    assert!(found[0].contains("has not answered for 5.0 s: the feed ended"), "{found:?}");
    assert_eq!(found.len(), 2, "of an old state only what cannot heal is told: {found:?}");
}

#[test]
fn rates_of_actors_are_over_the_last_ten_seconds() {
    let mut model = Model::new();
    let start = Instant::now();
    for second in 0..30 {
        let handled = if second < 15 { 0 } else { (second - 15) * 100 };
        let leaf = node("gateway.ingest", handled, 0);
        let now = start + Duration::from_secs(second);
        model.take(Update::Fleet(Ok(vec![instance("gateway", leaf)])), now);
    }
    let load = &model.actors()[0];
    assert!((load.handled - 100.0).abs() < 1e-9 && (load.blocked - 0.1).abs() < 1e-9, "{load:?}");
    assert!(model.looks.len() <= MAX_KEPT);
}

#[test]
fn a_log_that_grows_is_told_and_one_that_is_merely_large_is_not() {
    let start = Instant::now();
    for (step, expected) in [(500, true), (0, false)] {
        let mut model = Model::new();
        model.take(Update::Connected, start);
        for second in 0..10 {
            let now = start + Duration::from_secs(second);
            model.take(flow("facebook", 900.0, 0.0, 20_000 + second * step), now);
        }
        let found = texts(&model, start + Duration::from_secs(10));
        assert_eq!(found.iter().any(|text| text.contains("the log grows")), expected, "{found:?}");
    }
}

#[test]
fn memory_is_bounded_whatever_the_reporter_says() {
    let mut model = Model::new();
    let now = Instant::now();
    for number in 0..2_000 {
        let service = format!("service-{number}");
        model.take(Update::Fleet(Ok(vec![instance(&service, node("x", 1, number))])), now);
        model.take(flow("facebook", 1.0, 0.0, 0), now);
    }
    assert!(model.flows.len() <= MAX_KEPT && model.looks.len() <= MAX_KEPT);
    assert!(model.known.len() <= MAX_SERVICES && model.restarts.len() <= MAX_KEPT);
}
