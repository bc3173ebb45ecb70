//! Every event that was answered 202 is stored once, whichever process is killed under load.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::support::events::{Chance, event};
use crate::support::http;
use crate::support::system::System;

/// Events that were answered 202.
#[derive(Default)]
struct Acknowledged(Mutex<HashSet<String>>);

/// Posts small batches from several clients until `stop` is set. Batches of a failed POST are not sent again.
fn stream(url: &str, clients: u64, stop: &AtomicBool, acknowledged: &Acknowledged) {
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for client in 0..clients {
            let next = &next;
            scope.spawn(move || {
                let mut chance = Chance(client);
                while !stop.load(Ordering::Relaxed) {
                    let size = 1 + chance.below(50);
                    let events: Vec<Value> = (0..size)
                        .map(|_| event(&format!("s-{}", next.fetch_add(1, Ordering::Relaxed)), &mut chance))
                        .collect();
                    let ids = events.iter().map(|event| event["eventId"].as_str().unwrap().to_owned());
                    match http::post(url, &Value::from(events.clone()).to_string()) {
                        Ok(answer) if answer.status == 202 => acknowledged.0.lock().unwrap().extend(ids),
                        _ => std::thread::sleep(Duration::from_millis(20)),
                    }
                }
            });
        }
    });
}

/// Sends events while `disturb` runs, then checks that every acknowledged event is stored, and none twice.
pub fn no_event_is_lost_during(system: &mut System, disturb: impl FnOnce(&mut System)) {
    let (stop, acknowledged) = (AtomicBool::new(false), Acknowledged::default());
    let url = system.gateway_url("/webhook");
    std::thread::scope(|scope| {
        scope.spawn(|| stream(&url, 4, &stop, &acknowledged));
        std::thread::sleep(Duration::from_millis(700));
        disturb(system);
        system.wait_ready();
        std::thread::sleep(Duration::from_millis(700));
        stop.store(true, Ordering::Relaxed);
    });
    let ledger = system.settle();
    let rows = system.database.query("SELECT event_id FROM event_rows");
    let stored: HashSet<&String> = rows.iter().collect();
    assert_eq!(stored.len(), rows.len(), "none twice");
    let acknowledged = acknowledged.0.into_inner().unwrap();
    assert!(acknowledged.len() > 200, "an empty run: {}", acknowledged.len());
    let lost: Vec<_> = acknowledged.iter().filter(|id| !stored.contains(id)).collect();
    assert!(lost.is_empty(), "{} of {} lost", lost.len(), acknowledged.len());
    for source in ledger["sources"].as_array().unwrap() {
        assert_eq!(source["missing"], 0, "{ledger}");
        assert_eq!(source["quarantined"], 0, "{ledger}");
    }
    let reported = system.report("/reports/events")["totalEvents"].as_u64().unwrap();
    assert_eq!(reported, rows.len() as u64, "the report counts the rows");
}

#[test]
fn no_event_is_lost_when_the_gateway_is_killed() {
    no_event_is_lost_during(&mut System::real(&[]), |system| system.service("gateway").start_again());
}

#[test]
pub fn no_event_is_lost_when_collectors_are_killed() {
    let services: &[&[&str]] = &[
        &["gateway"],
        &["collector", "facebook"],
        &["collector", "facebook"],
        &["collector", "tiktok"],
        &["reporter"],
    ];
    // One of two Facebook collectors is killed, and later the only one of TikTok.
    no_event_is_lost_during(&mut System::real_with(&[], services), |system| {
        system.service("collector-facebook").start_again();
        std::thread::sleep(Duration::from_millis(500));
        system.service("collector-tiktok").start_again();
    });
}

#[test]
pub fn no_event_is_lost_when_postgres_is_killed() {
    no_event_is_lost_during(&mut System::real(&[]), |system| {
        system.postgres().process.kill();
        std::thread::sleep(Duration::from_secs(2));
        system.postgres().start_again();
    });
}

#[test]
fn no_event_is_lost_when_nats_is_killed() {
    no_event_is_lost_during(&mut System::real(&[]), |system| system.nats().start_again());
}

#[test]
fn no_event_is_lost_when_the_single_process_of_ess_up_is_killed() {
    no_event_is_lost_during(&mut System::embedded(&[]), |system| {
        for _ in 0..3 {
            system.services[0].start_again();
            system.wait_ready();
            std::thread::sleep(Duration::from_millis(300));
        }
    });
}

#[test]
fn a_service_that_gets_sigterm_under_load_drains_and_exits_with_0() {
    let mut system = System::real(&[]);
    let ended = |system: &mut System, name: &str| {
        system.service(name).process.signal("TERM");
        let status = system.service(name).process.wait(Duration::from_secs(35));
        assert_eq!(status.code(), Some(0), "{name}: {}", system.service(name).process.output());
        assert!(!system.service(name).lines("drained").is_empty(), "{name} logs that it drained");
    };
    no_event_is_lost_during(&mut system, |system| {
        for name in ["collector-facebook", "collector-tiktok", "gateway"] {
            ended(system, name);
            system.service(name).start_again();
        }
        system.wait_ready();
    });
    // A clean stop leaves no frame unacknowledged, so none is delivered twice.
    for name in ["collector-facebook", "collector-tiktok"] {
        let source = name.trim_start_matches("collector-");
        let redelivered = system
            .service(name)
            .metric(&format!("ess_collector_redelivered_frames_total{{source=\"{source}\"}}"));
        assert!(redelivered.abs() < 0.5, "{name}: {redelivered} frames were delivered again");
    }
}

#[test]
fn frames_of_a_replaced_log_are_not_taken_for_redeliveries() {
    let mut system = System::real(&[]);
    let send = |system: &System, prefix: &str| {
        let mut chance = Chance(3);
        for n in 0..20 {
            let answer = system.post(&event(&format!("{prefix}-{n}"), &mut chance).to_string());
            assert_eq!(answer.status, 202, "{}", answer.text);
        }
    };
    send(&system, "old");
    system.settle();
    // A new server with an empty store replaces NATS: sequence numbers start at 1 again.
    let port = system.nats().port;
    system.nats().process.kill();
    let old = system.nats.take().unwrap();
    let mut fresh = crate::support::nats::Nats::start();
    fresh.process.kill();
    fresh.port = port;
    fresh.start_again();
    system.nats = Some(fresh);
    drop(old);
    system.wait_ready();
    let mut chance = Chance(5);
    crate::support::eventually("the new log takes events", crate::support::MINUTE, || {
        (system.post(&event("first", &mut chance).to_string()).status == 202).then_some(())
    });
    send(&system, "new");
    system.settle();
    let rows = system.database.query("SELECT event_id FROM event_rows");
    for n in 0..20 {
        assert!(rows.contains(&format!("old-{n}")) && rows.contains(&format!("new-{n}")), "{n}: {rows:?}");
    }
}
