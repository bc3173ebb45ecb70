//! A reporter that reads from a standby which lags behind.

use std::time::{Duration, Instant};

use super::load::Load;
use crate::support::process::Service;
use crate::support::system::System;
use crate::support::{MINUTE, eventually, http};

#[test]
fn a_reporter_on_a_lagging_standby_reports_nothing_missing() {
    let mut system = System::real(&[]);
    let standby = system.postgres().standby("copy", &["recovery_min_apply_delay=1s"]);
    let mut environment = system.environment.clone();
    environment.push(("ESS_REPORTER_DATABASE_URL".to_owned(), standby.url()));
    let mut reporter = Service::start(&["reporter"], &environment, system.folder.path());
    reporter.wait_ready();
    let url = system.gateway_url("/webhook");
    let load = Load::new();
    let (mut looks, mut behind, mut in_flight) = (0, 0, 0);
    load.run(&url, &["facebook", "tiktok"], (4, 10), || {
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(15) {
            let ledger = http::get(&reporter.url("/ledger")).unwrap();
            assert_eq!(ledger.status, 200, "{}", ledger.text);
            let ledger = ledger.json();
            for source in ledger["sources"].as_array().unwrap() {
                let of = |name: &str| source[name].as_u64().unwrap();
                assert_eq!(of("missing"), 0, "{ledger}");
                let sum = ["stored", "duplicates", "quarantined", "inFlight"].map(of).iter().sum::<u64>();
                assert_eq!(of("published"), sum, "{ledger}");
                in_flight += of("inFlight");
            }
            looks += 1;
            let stored = ledger["sources"].as_array().unwrap().iter();
            let stored: u64 = stored.map(|source| source["stored"].as_u64().unwrap()).sum();
            behind += u64::from(stored < system.count_rows());
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    println!("{looks} looks, {behind} of them behind, {in_flight} events in flight in all");
    assert!(looks >= 20 && behind * 2 > looks, "{looks} looks, {behind} behind");
    assert!(load.accepted(0) > 1_000, "an empty run");
    for source in ["facebook", "tiktok"] {
        let series = format!("ess_ledger_missing_events{{source=\"{source}\"}}");
        assert!(reporter.metric(&series).abs() < 0.5);
    }
    system.settle();
    eventually("the standby has all", MINUTE, || {
        let ledger = http::settled(&reporter.url("/ledger"))?;
        let stored: u64 =
            ledger["sources"].as_array()?.iter().map(|source| source["stored"].as_u64().unwrap()).sum();
        (stored == system.count_rows()).then_some(())
    });
    assert!(reporter.lines("events are nowhere").is_empty());
}
