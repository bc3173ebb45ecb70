//! PostgreSQL on several servers behind one address.

use std::time::Duration;

use ess::store::report::{Filter, Reports};
use ess::store::{Purpose, Store};

use crate::restarts::no_event_is_lost_during;
use crate::support::events::simple;
use crate::support::postgres::Postgres;
use crate::support::proxy::Proxy;
use crate::support::stores::open;
use crate::support::system::System;
use crate::support::{MINUTE, block_on, eventually};

/// The URL of a database through a proxy.
fn url(proxy: &Proxy) -> String {
    format!("postgres://ess@127.0.0.1:{}/ess", proxy.port)
}

#[test]
fn no_event_is_lost_when_a_synchronous_standby_takes_over() {
    let primary = Postgres::start();
    let standby = primary.standby("second", &[]);
    for sql in ["ALTER SYSTEM SET synchronous_standby_names = 'second'", "SELECT pg_reload_conf()"] {
        primary.query(sql);
    }
    eventually("the standby is synchronous", MINUTE, || {
        (primary.query("SELECT sync_state FROM pg_stat_replication") == ["sync"]).then_some(())
    });
    let proxy = Proxy::to(primary.port);
    let services: &[&[&str]] =
        &[&["gateway"], &["collector", "facebook"], &["collector", "tiktok"], &["reporter"]];
    let mut system = System::real_at(primary, url(&proxy), &[], services);
    no_event_is_lost_during(&mut system, |system| {
        assert!(system.count_rows() > 0, "rows are written before the primary dies");
        system.postgres().process.kill();
        assert_eq!(standby.query("SELECT pg_promote()"), ["t"]);
        proxy.lead_to(standby.port);
        proxy.cut();
        *system.postgres() = standby;
    });
}

#[test]
fn what_an_asynchronous_standby_had_not_received_is_told_as_missing() {
    let primary = Postgres::start();
    let mut standby = primary.standby("second", &[]);
    let proxy = Proxy::to(primary.port);
    let services: &[&[&str]] =
        &[&["gateway"], &["collector", "facebook"], &["collector", "tiktok"], &["reporter"]];
    let mut system = System::real_at(primary, url(&proxy), &[], services);
    let send = |system: &System, first: usize| {
        let events: Vec<_> = (first..first + 20).map(|id| simple(&format!("e-{id}"), "facebook")).collect();
        assert_eq!(system.post(&serde_json::Value::from(events).to_string()).status, 202);
        system.settle()
    };
    send(&system, 0);
    let replayed = "SELECT count(*) FROM event_rows";
    eventually("the standby has the rows", MINUTE, || (standby.query(replayed) == ["20"]).then_some(()));
    standby.process.kill();
    send(&system, 20);
    system.postgres().process.kill();
    standby.start_again();
    assert_eq!(standby.query("SELECT pg_promote()"), ["t"]);
    proxy.lead_to(standby.port);
    proxy.cut();
    *system.postgres() = standby;
    system.wait_ready();
    // New frames name the last acknowledged frame of their writer, so that acknowledged frames which neither the log nor
    // the store has are counted as missing.
    send(&system, 40);
    eventually("the lost events are counted as missing", MINUTE, || {
        (system.report("/ledger")["sources"][0]["missing"] == 20).then_some(())
    });
    assert_eq!(system.count_rows(), 40);
}

#[test]
fn a_report_is_stopped_on_its_own_server_of_several() {
    let (first, other) = (Postgres::start(), Postgres::start());
    let proxy = Proxy::to(first.port);
    std::thread::scope(|scope| {
        block_on(async {
            for url in [first.url(), other.url()] {
                open(&url).await.close().await.unwrap();
            }
            let reader = Store::connect(&url(&proxy), Purpose::Read { connections: 1 }).await.unwrap();
            let reports = Reports::new(reader, 1 << 20);
            let report = reports.begin().await.unwrap();
            // From here on the address is another server's, as a load balancer has it.
            proxy.lead_to(other.port);
            scope.spawn(|| {
                let held =
                    "BEGIN; LOCK TABLE rollups IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(20); ROLLBACK";
                let _ = first.try_query_as("ess", held);
            });
            let count = |server: &Postgres, sql: &str| server.query(sql)[0].parse::<usize>().unwrap();
            let holds = "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted
                AND relation = 'rollups'::regclass";
            eventually("the table is held", MINUTE, || (count(&first, holds) == 1).then_some(()));
            let filter = Filter::default();
            let waited = tokio::time::timeout(Duration::from_millis(500), report.count_events(&filter, None));
            assert!(waited.await.is_err());
            let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
            assert_eq!(count(&first, waits), 1);
            drop(report);
            for _ in 0..100 {
                tokio::time::sleep(Duration::from_millis(100)).await;
                if count(&first, waits) == 0 {
                    break;
                }
            }
            assert_eq!(count(&first, waits), 0, "it is stopped within 10 s");
            // The next read is answered by the other server.
            reports.store().check().await.unwrap();
            let next = reports.begin().await.unwrap();
            assert!(next.count_events(&filter, None).await.unwrap().is_empty());
            next.end().await.unwrap();
            first.query(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(20)%'
                AND pid <> pg_backend_pid()",
            );
        });
    });
}
