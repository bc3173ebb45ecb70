//! A collector that is frozen in a transaction, or cannot store, does not stop the others, and does not look healthy.

use std::time::{Duration, Instant};

use super::load::Load;
use crate::support::events::simple;
use crate::support::postgres::Postgres;
use crate::support::process::Service;
use crate::support::proxy::Proxy;
use crate::support::system::System;
use crate::support::{MINUTE, eventually, http};

/// Server processes of writers that wait for their client, between two statements or in COPY.
fn waiting_for_client(postgres: &Postgres, copying: bool) -> Vec<String> {
    let state = if copying {
        "state = 'active' AND wait_event = 'ClientRead' AND query LIKE 'COPY%'"
    } else {
        "state = 'idle in transaction'"
    };
    postgres.query(&format!(
        "SELECT a.pid, a.xact_start FROM pg_stat_activity a WHERE datname = 'ess' AND {state}
         AND EXISTS (SELECT FROM pg_locks l WHERE l.pid = a.pid AND l.locktype = 'advisory')"
    ))
}

/// Stops a collector while one of its transactions waits for it; false if it had gone on by then.
fn freeze(system: &mut System, collector: &Service, copying: bool) -> bool {
    let waiting = waiting_for_client(system.postgres(), copying);
    if waiting.is_empty() {
        return false;
    }
    collector.process.signal("STOP");
    let first = waiting_for_client(system.postgres(), copying);
    std::thread::sleep(Duration::from_millis(700));
    let still = waiting_for_client(system.postgres(), copying);
    let frozen = still.iter().any(|pid| first.contains(pid));
    if !frozen {
        collector.process.signal("CONT");
    }
    frozen
}

fn assert_that_a_frozen_collector_delays_its_neighbour_for_seconds_only(copying: bool) {
    let mut system = System::real_with(&[], &[&["gateway"], &["collector", "facebook"], &["reporter"]]);
    // With a slow network the collector waits for its database, or the database for it, most of the time.
    let proxy = Proxy::to(system.postgres().port);
    let mut environment = system.environment.clone();
    environment.push(("DATABASE_URL".to_owned(), format!("postgres://ess@127.0.0.1:{}/ess", proxy.port)));
    let mut collector = Service::start(&["collector", "facebook"], &environment, system.folder.path());
    collector.wait_ready();
    proxy.delay(Duration::from_millis(60));
    let url = system.gateway_url("/webhook");
    let load = Load::new();
    let mut longest = Duration::ZERO;
    load.run(&url, &["facebook"], (4, 10), || {
        load.wait(300);
        eventually("a collector stands still in a transaction", MINUTE * 3, || {
            freeze(&mut system, &collector, copying).then_some(())
        });
        let frozen = Instant::now();
        let (mut rows, mut last) = (system.count_rows(), Instant::now());
        while frozen.elapsed() < Duration::from_secs(30) {
            std::thread::sleep(Duration::from_millis(500));
            let now = system.count_rows();
            if now > rows {
                (rows, last) = (now, Instant::now());
            }
            longest = longest.max(last.elapsed());
        }
        collector.process.signal("CONT");
        proxy.delay(Duration::ZERO);
        load.wait(100);
    });
    println!("the longest time without a row: {longest:?}");
    // Its frames are delivered to the other after ten seconds at most, and its transaction is ended then.
    assert!(longest < Duration::from_secs(15), "no row for {longest:?}");
    collector.wait_ready();
    let ledger = system.settle();
    let rows = system.database.query("SELECT event_id FROM event_rows");
    let stored: std::collections::HashSet<&String> = rows.iter().collect();
    let accepted = load.accepted.lock().unwrap();
    assert!(accepted.len() > 1_000, "an empty run: {}", accepted.len());
    assert!(accepted.iter().all(|(_, id)| stored.contains(id)), "nothing is lost");
    assert_eq!((stored.len(), &ledger["sources"][0]["missing"]), (rows.len(), &0.into()), "{ledger}");
    assert_eq!(ledger["sources"][0]["stored"], rows.len());
}

#[test]
fn a_collector_that_is_frozen_between_two_statements_delays_its_neighbour_for_seconds_only() {
    assert_that_a_frozen_collector_delays_its_neighbour_for_seconds_only(false);
}

#[test]
fn a_collector_that_is_frozen_during_copy_delays_its_neighbour_for_seconds_only() {
    assert_that_a_frozen_collector_delays_its_neighbour_for_seconds_only(true);
}

#[test]
fn a_collector_that_cannot_store_is_not_ready() {
    let mut system = System::real(&[]);
    let postgres = system.postgres().url();
    let ready = system.service("collector-facebook").url("/ready");
    let mut locker = std::process::Command::new("psql")
        .args(["-X", "-q", "-d", &postgres, "-c"])
        .arg("BEGIN; LOCK TABLE event_rows IN EXCLUSIVE MODE; SELECT pg_sleep(120);")
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    eventually("the table is locked", MINUTE, || {
        let locked = "SELECT count(*) FROM pg_locks WHERE mode = 'ExclusiveLock' AND locktype = 'relation' AND granted";
        (system.postgres().query(locked)[0] != "0").then_some(())
    });
    assert_eq!(system.post(&simple("held-up", "facebook").to_string()).status, 202);
    let why = eventually("it says so", MINUTE, || {
        http::get(&ready).ok().filter(|answer| answer.status == 503).map(|answer| answer.text)
    });
    assert!(why.contains("storing") && why.contains("lock timeout"), "{why}");
    system.postgres().query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(120)%'
        AND pid <> pg_backend_pid()",
    );
    locker.wait().unwrap();
    eventually("it is stored", MINUTE, || (system.count_rows() == 1).then_some(()));
    system.wait_ready();
}
