//! Backup and restore of log and database under load: what was accepted before the backup is there afterwards, once.

use std::collections::HashSet;

use serde_json::Value;

use crate::ledger::load::Load;
use crate::support::events::simple;
use crate::support::nats::Nats;
use crate::support::postgres::Postgres;
use crate::support::process::Service;
use crate::support::system::System;
use crate::support::{MINUTE, block_on, eventually, http, stream_backup};

const STREAMS: [&str; 3] = ["ESS_FACEBOOK", "ESS_TIKTOK", "ESS_DEAD_LETTERS"];

#[test]
fn a_system_restored_from_a_backup_under_load_has_every_event_accepted_before_it_once() {
    let mut system = System::real(&[]);
    let url = system.gateway_url("/webhook");
    let (log, folder) = (system.nats().url(), tempfile::tempdir().unwrap());
    let dump = folder.path().join("ess.dump");
    let load = Load::new();
    let mut before = Vec::new();
    let mut snapshots = Vec::new();
    load.run(&url, &["facebook"], (8, 10), || {
        load.wait(2_000);
        before = load.accepted.lock().unwrap().clone();
        // The log first: what it loses while the database is being copied is in the copy of the database.
        snapshots = block_on(async {
            let mut taken = Vec::new();
            for stream in STREAMS {
                taken.push(stream_backup::take(&log, stream).await);
            }
            taken
        });
        load.wait(1_000);
        system.postgres().dump(&dump);
        load.wait(1_000);
    });
    let bytes: usize = snapshots.iter().map(stream_backup::Snapshot::bytes).sum();
    assert!(before.len() >= 2_000 && bytes > 0, "{} events, {bytes} bytes", before.len());
    let accepted = load.accepted.lock().unwrap().clone();
    assert!(accepted.len() >= before.len() + 2_000, "the load went on: {}", accepted.len());
    drop(system);

    // Other servers, as after the loss of the first ones.
    let (nats, postgres) = (Nats::start(), Postgres::start());
    block_on(async {
        for snapshot in &snapshots {
            stream_backup::restore(&nats.url(), snapshot).await;
        }
    });
    postgres.restore(&dump);
    let environment = [("NATS_URL", nats.url()), ("DATABASE_URL", postgres.url())]
        .map(|(name, value)| (name.to_owned(), value));
    let commands: [&[&str]; 4] =
        [&["gateway"], &["collector", "facebook"], &["collector", "tiktok"], &["reporter"]];
    let mut services = commands.map(|arguments| Service::start(arguments, &environment, folder.path()));
    for service in &mut services {
        service.wait_ready();
    }
    let ledger_url = services[3].url("/ledger");
    let settle = || eventually("everything is stored", MINUTE * 2, || http::settled(&ledger_url));
    let sum = |ledger: &Value, member: &str| -> u64 {
        ledger["sources"].as_array().unwrap().iter().map(|source| source[member].as_u64().unwrap()).sum()
    };
    let rows = || postgres.query("SELECT event_id FROM event_rows").into_iter().collect::<Vec<_>>();
    let ledger = settle();
    let all = rows();
    let stored: HashSet<&String> = all.iter().collect();
    assert_eq!(stored.len(), all.len(), "none twice");
    assert_eq!(sum(&ledger, "stored"), all.len() as u64, "{ledger}");
    let lost = before.iter().filter(|(_, id)| !stored.contains(id)).count();
    assert_eq!(lost, 0, "of {} events accepted before the backup: {ledger}", before.len());
    // What came after the snapshot of the log is there as far as the database had it; the ledger never claims more to be
    // missing than what is.
    let gone = accepted.iter().filter(|(_, id)| !stored.contains(id)).count() as u64;
    let missing = sum(&ledger, "missing");
    println!(
        "{} accepted, {} before the backup, {gone} gone, {missing} missing",
        accepted.len(),
        before.len()
    );
    assert!(missing <= gone, "{gone} are gone: {ledger}");
    let published = sum(&ledger, "published");
    let processed: u64 =
        ["stored", "duplicates", "quarantined", "missing"].iter().map(|of| sum(&ledger, of)).sum();
    assert_eq!(published, processed, "{ledger}");

    // The publisher sends again whatever it sent since: nothing is stored twice, and nothing is missing any more.
    let webhook = services[0].url("/webhook");
    for batch in accepted.chunks(500) {
        let events: Vec<Value> = batch.iter().map(|(_, id)| simple(id, "facebook")).collect();
        assert_eq!(http::post(&webhook, &Value::from(events).to_string()).unwrap().status, 202);
    }
    eventually("all are there", MINUTE, || (rows().len() >= accepted.len()).then_some(()));
    let ledger = settle();
    let all = rows();
    let stored: HashSet<&String> = all.iter().collect();
    assert_eq!(stored.len(), all.len(), "none twice");
    assert!(accepted.iter().all(|(_, id)| stored.contains(id)));
    assert_eq!(sum(&ledger, "stored"), all.len() as u64, "{ledger}");
    assert_eq!(sum(&ledger, "missing"), missing, "those were sent again under other frames: {ledger}");
}
