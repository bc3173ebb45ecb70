//! A log that is restored from an older copy: no event that is accepted after that is lost or stored twice.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::load::Load;
use crate::support::system::System;
use crate::support::{MINUTE, eventually};

const TWO_OF_EACH: &[&[&str]] = &[
    &["gateway"],
    &["collector", "facebook"],
    &["collector", "facebook"],
    &["collector", "tiktok"],
    &["collector", "tiktok"],
    &["reporter"],
];

#[test]
fn events_accepted_after_the_log_was_restored_are_stored_once() {
    let mut system = System::real_with(&[], TWO_OF_EACH);
    let url = system.gateway_url("/webhook");
    let load = Load::new();
    // Small frames, so that many sequence numbers are reused.
    load.run(&url, &["facebook", "tiktok"], (16, 2), || {
        load.wait(500);
        system.nats().process.kill();
        let copy = system.nats().copy_store();
        system.nats().start_again();
        load.round.store(1, Ordering::Relaxed);
        load.wait(4_000);
        system.nats().process.kill();
        system.nats().restore_store(&copy);
        // Events that are answered from here on were taken by the restored log.
        std::thread::sleep(Duration::from_millis(300));
        load.round.store(2, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(300));
        load.round.store(3, Ordering::Relaxed);
        system.nats().start_again();
        load.wait(4_000);
    });
    let ledger = system.settle();
    let rows = system.database.query("SELECT event_id FROM event_rows");
    let stored: std::collections::HashSet<&String> = rows.iter().collect();
    assert_eq!(stored.len(), rows.len(), "none twice");
    let accepted = load.accepted.lock().unwrap().clone();
    let lost: Vec<_> = accepted.iter().filter(|(round, id)| *round == 3 && !stored.contains(id)).collect();
    assert!(lost.is_empty(), "{} of {} lost: {lost:?}", lost.len(), load.accepted(3));
    assert!(load.accepted(1) >= 4_000 && load.accepted(3) >= 3_900, "an empty run");
    let gone = accepted.iter().filter(|(_, id)| !stored.contains(id)).count() as u64;
    let missing: u64 =
        ledger["sources"].as_array().unwrap().iter().map(|source| source["missing"].as_u64().unwrap()).sum();
    println!("{gone} of {} events went with the log, the ledger says {missing}", accepted.len());
    assert!(missing >= gone, "{ledger}");
    eventually("it is said aloud", MINUTE, || {
        let said = |text| system.services[1..5].iter().any(|service| !service.lines(text).is_empty());
        (said("went back") || said("a second time")).then_some(())
    });
}
