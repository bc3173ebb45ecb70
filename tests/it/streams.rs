//! Several streams for each source: frames are spread over them, collected from all, and counted once.

use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use crate::ledger::load::Load;
use crate::support::nats::Nats;
use crate::support::postgres::Postgres;
use crate::support::process::Service;
use crate::support::{MINUTE, block_on, eventually, http};

struct Servers {
    nats: Nats,
    postgres: Postgres,
    folder: tempfile::TempDir,
}

impl Servers {
    fn start() -> Self {
        Self { nats: Nats::start(), postgres: Postgres::start(), folder: tempfile::tempdir().unwrap() }
    }

    fn service(&self, arguments: &[&str], streams: &str) -> Service {
        let pairs = [
            ("NATS_URL", self.nats.url()),
            ("DATABASE_URL", self.postgres.url()),
            ("ESS_LOG_STREAMS", streams.to_owned()),
        ];
        let environment = pairs.map(|(name, value)| (name.to_owned(), value));
        let folder: &Path = self.folder.path();
        let mut service = Service::start(arguments, &environment, folder);
        service.wait_ready();
        service
    }

    /// Highest sequence number of each stream of a source, by its name.
    fn streams(&self) -> Vec<(String, u64)> {
        use futures::TryStreamExt;
        block_on(async {
            let client = async_nats::connect(self.nats.url()).await.unwrap();
            let context = async_nats::jetstream::new(client);
            let mut found: Vec<_> = context
                .streams()
                .try_filter(|stream| std::future::ready(stream.config.name.starts_with("ESS_FACEBOOK")))
                .map_ok(|stream| (stream.config.name, stream.state.last_sequence))
                .try_collect()
                .await
                .unwrap();
            found.sort();
            found
        })
    }

    /// Event ids of all rows; fails if one is there twice.
    fn rows(&self) -> HashSet<String> {
        let rows = self.postgres.query("SELECT event_id FROM event_rows");
        let count = rows.len();
        let ids: HashSet<String> = rows.into_iter().collect();
        assert_eq!(ids.len(), count, "none twice");
        ids
    }
}

fn facebook(ledger: &Value) -> Value {
    let sources = ledger["sources"].as_array().unwrap();
    sources.iter().find(|source| source["source"] == "facebook").unwrap().clone()
}

fn names(streams: &[(String, u64)]) -> Vec<&str> {
    streams.iter().map(|(name, _)| name.as_str()).collect()
}

/// Spreads events over streams under load, with a collector and a gateway killed, and compares ledger and rows.
fn spread(count: usize) {
    let servers = Servers::start();
    let streams = count.to_string();
    let mut gateway = servers.service(&["gateway"], &streams);
    // One of two collectors does not know the number: it finds the streams.
    let mut collectors = [
        servers.service(&["collector", "facebook"], &streams),
        servers.service(&["collector", "facebook"], "1"),
    ];
    let reporter = servers.service(&["reporter"], "1");
    let (url, ledger_url) = (gateway.url("/webhook"), reporter.url("/ledger"));
    let load = Load::new();
    let watching = AtomicBool::new(true);
    let looked = std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut looked = 0;
            while watching.load(Ordering::Relaxed) {
                if let Ok(answer) = http::get(&ledger_url)
                    && answer.status == 200
                {
                    let ledger = facebook(&answer.json());
                    assert_eq!(ledger["missing"], 0, "under load: {ledger}");
                    looked += 1;
                }
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
            looked
        });
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            load.run(&url, &["facebook"], (8, 5), || {
                load.wait(2_000);
                collectors[0].process.kill();
                load.wait(1_000);
                collectors[0].start_again();
                gateway.start_again();
                load.wait(2_000);
            });
        }));
        watching.store(false, Ordering::Relaxed);
        let looked = watch.join();
        outcome.unwrap();
        looked.unwrap()
    });
    let written = servers.streams();
    let expected: Vec<String> = std::iter::once("ESS_FACEBOOK".to_owned())
        .chain((2..=count).map(|number| format!("ESS_FACEBOOK_{number}")))
        .collect();
    assert_eq!(names(&written), expected);
    let frames: u64 = written.iter().map(|(_, last)| last).sum();
    for (name, last) in &written {
        assert!(*last > frames / count as u64 / 2, "{name} has {last} of {frames} frames");
    }
    // A frame of the killed gateway may be confirmed late, so the ledger and the rows are read until they stand still.
    let (ledger, rows) = eventually("everything is stored", MINUTE * 2, || {
        let ledger = facebook(&http::settled(&ledger_url)?);
        let rows = servers.rows();
        (http::settled(&ledger_url).map(|again| facebook(&again)) == Some(ledger.clone()))
            .then_some((ledger, rows))
    });
    println!("{count} streams, {written:?}, the ledger was read {looked} times under load: {ledger}");
    assert!(looked > 2, "the ledger was read {looked} times under load");
    let accepted = load.accepted.lock().unwrap();
    assert!(accepted.len() >= 5_000);
    assert!(accepted.iter().all(|(_, id)| rows.contains(id)), "an accepted event is lost");
    assert_eq!((&ledger["stored"], &ledger["missing"]), (&rows.len().into(), &0.into()), "{ledger}");
    let processed = ledger["stored"].as_u64().unwrap() + ledger["duplicates"].as_u64().unwrap();
    assert_eq!(ledger["published"], processed, "{ledger}");
}

#[test]
fn events_spread_over_two_streams_are_stored_and_counted_once() {
    spread(2);
}

#[test]
fn events_spread_over_four_streams_are_stored_and_counted_once() {
    spread(4);
}

#[test]
fn a_lower_number_of_streams_loses_nothing() {
    let servers = Servers::start();
    let mut gateway = servers.service(&["gateway"], "4");
    let reporter = servers.service(&["reporter"], "1");
    let ledger_url = reporter.url("/ledger");
    let load = Load::new();
    load.run(&gateway.url("/webhook"), &["facebook"], (8, 5), || load.wait(1_000));
    assert_eq!(servers.streams().len(), 4);
    gateway.process.signal("TERM");
    assert!(gateway.process.wait(MINUTE).success());
    // Nothing was collected yet: all of it waits in four streams.
    let ledger = facebook(&eventually("the ledger answers", MINUTE, || {
        http::get(&ledger_url).ok().filter(|answer| answer.status == 200).map(|answer| answer.json())
    }));
    let waiting = load.accepted.lock().unwrap().len();
    assert_eq!((&ledger["inFlight"], &ledger["missing"]), (&waiting.into(), &0.into()), "{ledger}");
    let gateway = servers.service(&["gateway"], "1");
    let before = servers.streams();
    let more = Load::new();
    more.round.store(1, Ordering::Relaxed);
    let collector = servers.service(&["collector", "facebook"], "1");
    let url = gateway.url("/webhook");
    more.run(&url, &["facebook"], (4, 5), || more.wait(500));
    let after = servers.streams();
    assert!(
        after[0].1 > before[0].1 && after[1..] == before[1..],
        "the first one alone: {before:?} {after:?}"
    );
    let ledger = facebook(&eventually("everything is stored", MINUTE * 2, || http::settled(&ledger_url)));
    let rows = servers.rows();
    assert!(
        load.accepted.lock().unwrap().iter().all(|(_, id)| rows.contains(id)),
        "an accepted event is lost"
    );
    assert_eq!((&ledger["stored"], &ledger["missing"]), (&rows.len().into(), &0.into()), "{ledger}");
    let found = eventually("the lag is over all streams", MINUTE, || {
        let lag = collector.metric("esscollector_lag_events{source=\"facebook\"}");
        (lag == 0.0).then_some(lag)
    });
    assert_eq!(found, 0.0);
}
