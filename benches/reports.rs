//! Reports over 1.2 million and over 10 million events of 30 days, beside plain SQL over `events`.
//!
//! `cargo bench --bench reports` loads the rows (in the order of their times, an hour to and fro), and asks a
//! reporter for each report over ranges of chance: any length, any minute. What is printed is a table in
//! Markdown. PostgreSQL has its default settings; the plain SQL is asked right beside, of the same rows.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    dead_code,
    reason = "a bench fails by panicking"
)]

#[path = "../tests/it/support/mod.rs"]
mod support;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ess::event::Source;
use ess::publisher::generate::{Generator, Mix};
use ess::store::{Batch, Store};

use support::events::Chance;
use support::nats::Nats;
use support::postgres::Postgres;
use support::process::{Service, ess};
use support::stores::{frame, log, open, origin};
use support::{MINUTE, eventually, http};

const FEW: u64 = 1_200_000;
const MANY: u64 = 10_000_000;
/// 2026-10-01, and 30 days.
const START: i64 = 1_790_812_800;
const DAYS: i64 = 30;
const BATCH: u64 = 5_000;
/// Requests of each report.
const ASKED: usize = 300;

fn time(second: i64) -> String {
    chrono::DateTime::from_timestamp(second, 0).unwrap().to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

/// Stores events from one number to another, of as many as there will be.
async fn load(store: &Store, from: u64, to: u64, of: u64) {
    let mut generator = Generator::new(Some(from + 1), Mix::default());
    let mut chance = Chance(from);
    let origin = origin();
    let mut number = from;
    let mut folded = Instant::now();
    while number < to {
        let texts: Vec<String> = (0..BATCH)
            .map(|place| {
                let at = START + (DAYS * 86_400) * ((number + place) % of) as i64 / of as i64;
                let at =
                    time((at + chance.below(7_200) as i64 - 3_600).clamp(START, START + DAYS * 86_400 - 1));
                let event = generator.event();
                let key = "\"timestamp\":\"";
                let begin = event.find(key).unwrap() + key.len();
                let end = begin + event[begin..].find('"').unwrap();
                format!("{}{at}{}", &event[..begin], &event[end..])
            })
            .collect();
        let (facebook, tiktok): (Vec<_>, Vec<_>) =
            texts.into_iter().partition(|text| text.contains("\"source\":\"facebook\""));
        let place = number / BATCH + 1;
        let batch = |source: Source, events| Batch {
            source,
            log_id: log(),
            frames: vec![frame(place, place, &origin, events)],
        };
        let (facebook, tiktok) = (batch(Source::Facebook, &facebook), batch(Source::Tiktok, &tiktok));
        let (left, right) = futures::join!(store.write(&facebook), store.write(&tiktok));
        assert_eq!(left.unwrap().stored + right.unwrap().stored, BATCH);
        number += BATCH;
        if folded.elapsed() > Duration::from_secs(2) || number >= to {
            for &source in Source::ALL {
                store.fold_summaries(source).await.unwrap();
            }
            folded = Instant::now();
        }
    }
}

/// The reports that are asked for, and the same in plain SQL (without a range).
const REPORTS: [(&str, &str, &str); 7] = [
    (
        "events",
        "/reports/events?",
        "SELECT source, funnel_stage, event_type, count(*) FROM events GROUP BY 1, 2, 3",
    ),
    (
        "events by hour",
        "/reports/events?interval=hour&",
        "SELECT date_trunc('hour', occurred_at), source, funnel_stage, event_type, count(*) FROM events GROUP BY 1, 2, 3, 4",
    ),
    (
        "revenue",
        "/reports/revenue?",
        "SELECT source, event_type, sum(revenue), count(revenue) FROM events WHERE revenue IS NOT NULL GROUP BY 1, 2",
    ),
    (
        "revenue by day",
        "/reports/revenue?interval=day&",
        "SELECT date_trunc('day', occurred_at), source, event_type, sum(revenue) FROM events WHERE revenue IS NOT NULL GROUP BY 1, 2, 3",
    ),
    (
        "revenue by campaign",
        "/reports/revenue?groupBy=campaign&",
        "SELECT source, campaign_id, sum(revenue), count(*) FROM events WHERE revenue IS NOT NULL AND campaign_id IS NOT NULL GROUP BY 1, 2 ORDER BY 3 DESC, 2 LIMIT 50",
    ),
    (
        "revenue of a campaign",
        "/reports/revenue?campaignId=camp-00000&",
        "SELECT source, event_type, sum(revenue) FROM events WHERE revenue IS NOT NULL AND campaign_id = 'camp-00000' GROUP BY 1, 2",
    ),
    (
        "demographics",
        "/reports/demographics?",
        "SELECT source, count(DISTINCT user_id) FROM events GROUP BY 1",
    ),
];

fn percentile(sorted: &[f64], quantile: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * quantile).round() as usize]
}

/// Milliseconds of each request, ascending.
fn ask(reporter: &Service, path: &str, seed: u64) -> Vec<f64> {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let mut chance = Chance(seed);
    let mut took: Vec<f64> = (0..ASKED)
        .map(|turn| {
            let mut moment = || START + chance.below(DAYS as u64 * 86_400) as i64;
            let (left, right) = (moment(), moment());
            // One in ten has no bounds.
            let range = if turn % 10 == 0 {
                String::new()
            } else {
                format!("from={}&to={}", time(left.min(right)), time(left.max(right)))
            };
            let url = reporter.url(&format!("{path}{range}"));
            let started = Instant::now();
            let mut response = agent.get(&url).call().unwrap();
            let body = response.body_mut().read_to_string().unwrap();
            assert_eq!(response.status().as_u16(), 200, "{url}: {body}");
            started.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    took.sort_by(f64::total_cmp);
    took
}

fn measure(reporter: &Service, postgres: &Postgres, rows: u64) -> Vec<(String, f64)> {
    let mut medians = Vec::new();
    for (name, path, sql) in REPORTS {
        let took = ask(reporter, path, 7);
        let started = Instant::now();
        postgres.query(sql);
        let plain = started.elapsed().as_secs_f64() * 1e3;
        let p50 = percentile(&took, 0.5);
        println!(
            "| {name}, {:.1} M events | p50 {p50:.1} ms, p99 {:.1} ms, max {:.1} ms | plain SQL over all {plain:.0} ms |",
            rows as f64 / 1e6,
            percentile(&took, 0.99),
            percentile(&took, 1.0)
        );
        medians.push((name.to_owned(), p50));
    }
    medians
}

/// Reports by so many clients at once for a while, with ingestion beside; gives requests, errors and p99.
fn crowd(reporter: &Service, clients: usize, until: &dyn Fn() -> bool) -> (u64, u64, f64) {
    let (done, failed) = (AtomicU64::new(0), AtomicU64::new(0));
    let all = std::sync::Mutex::new(Vec::new());
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for client in 0..clients {
            let (done, failed, all, stop) = (&done, &failed, &all, &stop);
            scope.spawn(move || {
                let agent: ureq::Agent =
                    ureq::Agent::config_builder().http_status_as_error(false).build().into();
                let mut chance = Chance(client as u64);
                while !stop.load(Ordering::Relaxed) {
                    let (_, path, _) = REPORTS[chance.below(REPORTS.len() as u64) as usize];
                    let (left, right) = (chance.below(2_592_000) as i64, chance.below(2_592_000) as i64);
                    let url = reporter.url(&format!(
                        "{path}from={}&to={}",
                        time(START + left.min(right)),
                        time(START + left.max(right))
                    ));
                    let started = Instant::now();
                    let answer = agent.get(&url).call();
                    let read = answer
                        .and_then(|mut answer| Ok((answer.status(), answer.body_mut().read_to_string()?)));
                    let counter = if read.is_ok_and(|(status, _)| status == 200) { done } else { failed };
                    counter.fetch_add(1, Ordering::Relaxed);
                    all.lock().unwrap().push(started.elapsed().as_secs_f64() * 1e3);
                    std::thread::sleep(Duration::from_millis(chance.below(2_000)));
                }
            });
        }
        while !until() {
            std::thread::sleep(Duration::from_millis(100));
        }
        stop.store(true, Ordering::Relaxed);
    });
    let mut all = all.into_inner().unwrap();
    all.sort_by(f64::total_cmp);
    (done.into_inner(), failed.into_inner(), percentile(&all, 0.99))
}

fn main() {
    let (nats, postgres) = (Nats::start(), Postgres::start_with(&[]));
    let folder = tempfile::tempdir().unwrap();
    let environment = vec![("NATS_URL".to_owned(), nats.url()), ("DATABASE_URL".to_owned(), postgres.url())];
    let system = actix::System::new();
    let store = system.block_on(open(&postgres.url()));
    let mut services: Vec<Service> =
        [&["reporter"][..], &["gateway"], &["collector", "facebook"], &["collector", "tiktok"]]
            .map(|arguments| Service::start(arguments, &environment, folder.path()))
            .into();
    for service in &mut services {
        service.wait_ready();
    }
    println!("| what | measured | beside it |\n|---|---|---|");
    let mut medians = Vec::new();
    for (from, to) in [(0, FEW), (FEW, MANY)] {
        system.block_on(load(&store, from, to, to - from));
        // Collectors make the wider summaries by and by.
        eventually("summaries are wide", MINUTE * 10, || {
            std::thread::sleep(Duration::from_secs(1));
            (postgres.query("SELECT count(*) FROM summaries WHERE stale")[0] == "0").then_some(())
        });
        postgres.query("VACUUM ANALYZE");
        medians.push(measure(&services[0], &postgres, to));
    }
    for ((name, few), (_, many)) in medians[0].iter().zip(&medians[1]) {
        println!("| {name}, p50 at 10 M against 1.2 M | {:.2} × | |", many / few);
    }

    let target = services[1].url("/webhook");
    let publish = |seconds: &str| {
        let arguments = [
            "publisher",
            "--json",
            "--invalid",
            "0",
            "--target",
            &target,
            "--batch",
            "1000",
            "--rate",
            "10000",
            "--duration",
            seconds,
        ];
        let started = Instant::now();
        let output = ess(&arguments, &[], folder.path()).output().unwrap();
        let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let accepted = said["accepted"].as_u64().unwrap();
        eventually("everything is stored", MINUTE, || http::settled(&services[0].url("/ledger")));
        accepted as f64 / started.elapsed().as_secs_f64()
    };
    let alone = publish("20s");
    let (requests, failed, p99, beside) = std::thread::scope(|scope| {
        let publisher = scope.spawn(|| publish("20s"));
        let (requests, failed, p99) = crowd(&services[0], 200, &|| publisher.is_finished());
        (requests, failed, p99, publisher.join().unwrap())
    });
    println!(
        "| 200 clients asking, with 10,000 events/s beside | {requests} answers, {failed} failed, p99 {p99:.0} ms | ingestion {beside:.0}/s, {:.2} of {alone:.0}/s alone |",
        beside / alone
    );
}
