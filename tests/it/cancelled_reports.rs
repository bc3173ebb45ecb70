//! Reports whose client left are cancelled in the database, and too many at a time are refused.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use ess::store::report::{Filter, Reports};
use ess::store::{Purpose, Store};

use crate::support::actors::nodes;
use crate::support::stores::{open, sqlite};
use crate::support::system::System;
use crate::support::{MINUTE, block_on, eventually, http};

/// Runs a test while no statement can read the rollups, for 12 seconds. Reports succeed afterwards.
fn while_rollups_are_locked(test: impl Fn(&System)) {
    let system = System::real(&[]);
    system.damage(
        "CREATE FUNCTION hold() RETURNS void LANGUAGE plpgsql AS $$ BEGIN
        LOCK TABLE rollups IN ACCESS EXCLUSIVE MODE; PERFORM pg_sleep(12); END $$",
    );
    std::thread::scope(|scope| {
        let holder = scope.spawn(|| system.database.query("SELECT hold()"));
        eventually("the table is locked", MINUTE, || {
            let sql = "SELECT 1 FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted
                AND relation = 'rollups'::regclass";
            (!system.database.query(sql).is_empty()).then_some(())
        });
        test(&system);
        holder.join().unwrap();
    });
    let answer = eventually("reports are answered again", MINUTE, || {
        http::get(&system.reporter_url("/reports/events")).ok().filter(|answer| answer.status == 200)
    });
    assert_eq!(answer.json()["totalEvents"], 0);
}

/// Sends a request for a report whose answer nobody reads.
fn request_report(system: &System) -> TcpStream {
    let address = system.reporter_url("/").replace("http://", "").replace('/', "");
    let mut connection = TcpStream::connect(&address).unwrap();
    write!(connection, "GET /reports/events HTTP/1.1\r\nHost: {address}\r\n\r\n").unwrap();
    connection
}

/// Number of statements over rollups that run or wait.
fn active(system: &System) -> usize {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%rollups%'
        AND pid <> pg_backend_pid()";
    system.database.query(sql)[0].parse().unwrap()
}

#[test]
pub fn an_abandoned_report_is_cancelled_in_postgresql() {
    while_rollups_are_locked(|system| {
        let client = request_report(system);
        eventually("the report waits", MINUTE, || (active(system) == 1).then_some(()));
        drop(client);
        // The lock is held for longer, so that nothing else ends the statement.
        eventually("it is cancelled", Duration::from_secs(8), || (active(system) == 0).then_some(()));
    });
}

#[test]
pub fn more_reports_than_the_mailboxes_hold_are_refused() {
    while_rollups_are_locked(|system| {
        let crowd: Vec<_> = (0..300).map(|_| request_report(system)).collect();
        eventually("the mailboxes are full", Duration::from_secs(8), || {
            let all = nodes(&system.reporter_url(""));
            let reports =
                all.iter().filter(|actor| actor["name"].as_str().unwrap().starts_with("reporter.report."));
            let depth: u64 = reports.map(|actor| actor["mailbox"]["depth"].as_u64().unwrap()).sum();
            (depth == 256).then_some(())
        });
        let refused = http::get(&system.reporter_url("/reports/events")).unwrap();
        assert_eq!(refused.status, 503, "{}", refused.text);
        assert!(refused.text.contains("too many reports"), "{}", refused.text);
        assert!(refused.header("retry-after").is_some(), "{}", refused.text);
        drop(crowd);
    });
}

#[test]
fn an_abandoned_report_is_cancelled_in_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let url = sqlite(&folder.path().join("ess.db"));
    block_on(async {
        let writer = open(&url).await;
        // A query over these rollups never ends.
        for sql in [
            "ALTER TABLE rollups RENAME TO hidden",
            "CREATE VIEW rollups AS WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n)
             SELECT 1440 AS minutes, x AS at, 1 AS event_type, 0 AS shard, 1 AS source, 1 AS funnel_stage,
                x AS events, 0 AS transactions, 0 AS revenue_units, 0 AS revenue_micros FROM n",
        ] {
            writer.execute(sql).await.unwrap();
        }
        let reader = Store::connect(&url, Purpose::Read { connections: 1 }).await.unwrap();
        let reports = Reports::new(reader, 1 << 20);
        for turn in 0..3 {
            let report = reports.begin().await.unwrap();
            let filter = Filter::default();
            let counting = report.count_events(&filter, None);
            let waited = tokio::time::timeout(Duration::from_millis(300), counting).await;
            assert!(waited.is_err(), "turn {turn}: {waited:?}");
            drop(report);
            // The pool has one connection: it is returned, and its statement has ended.
            reports.store().check().await.unwrap();
        }
    });
}
