//! Reports over 1.2 million and over 10 million events of 30 days, beside plain SQL over `events`.
//!
//! `cargo bench --bench reports` loads the rows (in the order of their times, an hour to and fro) into two servers,
//! and asks a reporter of each, in turn, for each report over ranges of chance: any length, any minute. What is
//! printed is a table in Markdown. PostgreSQL has its default settings; the plain SQL is asked right beside, of
//! the same rows. `-- folding` is a part by itself: reports while much is being folded;
//! `-- backfill` is one half of it.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    dead_code,
    reason = "a bench fails by panicking"
)]

#[path = "../tests/it/support/mod.rs"]
mod support;

#[path = "reports/folding.rs"]
mod folding;

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
use tempfile::TempDir;

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

/// An event, of another time.
fn at_time(event: &str, second: i64) -> String {
    let key = "\"timestamp\":\"";
    let begin = event.find(key).unwrap() + key.len();
    let end = begin + event[begin..].find('"').unwrap();
    format!("{}{}{}", &event[..begin], time(second), &event[end..])
}

/// Stores so many events.
async fn load(store: &Store, rows: u64) {
    let mut generator = Generator::new(Some(rows), Mix::default());
    let mut chance = Chance(rows);
    let origin = origin();
    let mut number = 0;
    let mut folded = Instant::now();
    while number < rows {
        let texts: Vec<String> = (0..BATCH)
            .map(|place| {
                let at = START + (DAYS * 86_400) * (number + place) as i64 / rows as i64;
                let at = (at + chance.below(7_200) as i64 - 3_600).clamp(START, START + DAYS * 86_400 - 1);
                at_time(&generator.event(), at)
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
        let (facebook, tiktok) = (batch(Source::FACEBOOK, &facebook), batch(Source::TIKTOK, &tiktok));
        let (left, right) = futures::join!(store.write(&facebook), store.write(&tiktok));
        assert_eq!(left.unwrap().stored + right.unwrap().stored, BATCH);
        number += BATCH;
        if folded.elapsed() > Duration::from_secs(2) || number >= rows {
            for source in Source::all() {
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

/// Rows, and who is asked about them.
struct World {
    rows: u64,
    postgres: Postgres,
    nats: Nats,
    reporter: Service,
    folder: TempDir,
}

impl World {
    fn environment(nats: &Nats, postgres: &Postgres) -> Vec<(String, String)> {
        vec![("NATS_URL".to_owned(), nats.url()), ("DATABASE_URL".to_owned(), postgres.url())]
    }

    /// System with a number of rows, whose summaries are merged up to the widest.
    fn of(rows: u64, system: &actix::SystemRunner) -> Self {
        let (nats, postgres) = (Nats::start(), Postgres::start_with(&[]));
        let folder = tempfile::tempdir().unwrap();
        system.block_on(async {
            let store = open(&postgres.url()).await;
            load(&store, rows).await;
            while postgres.query("SELECT count(*) FROM summaries WHERE stale")[0] != "0" {
                // Wider ones are made once nothing beneath them changed for a while.
                tokio::time::sleep(Duration::from_secs(1)).await;
                for source in Source::all() {
                    store.refresh_all_summaries(source).await.unwrap();
                }
            }
            store.close().await.unwrap();
        });
        postgres.query("VACUUM ANALYZE");
        let reporter = Service::start(&["reporter"], &Self::environment(&nats, &postgres), folder.path());
        let mut world = Self { rows, postgres, nats, reporter, folder };
        world.reporter.wait_ready();
        world
    }

    fn start(&self, arguments: &[&str]) -> Service {
        let mut service =
            Service::start(arguments, &Self::environment(&self.nats, &self.postgres), self.folder.path());
        service.wait_ready();
        service
    }
}

/// Asks for a report over ranges of chance; gives the milliseconds that each world took, ascending.
fn ask(worlds: [&World; 2], path: &str, seed: u64) -> [Vec<f64>; 2] {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let mut chance = Chance(seed);
    let mut took = worlds.map(|_| Vec::new());
    for turn in 0..ASKED {
        let mut moment = || START + chance.below(DAYS as u64 * 86_400) as i64;
        let (left, right) = (moment(), moment());
        // One in ten has no bounds.
        let range = if turn % 10 == 0 {
            String::new()
        } else {
            format!("from={}&to={}", time(left.min(right)), time(left.max(right)))
        };
        for (world, took) in worlds.iter().zip(&mut took) {
            let url = world.reporter.url(&format!("{path}{range}"));
            let started = Instant::now();
            let mut response = agent.get(&url).call().unwrap();
            let body = response.body_mut().read_to_string().unwrap();
            assert_eq!(response.status().as_u16(), 200, "{url}: {body}");
            took.push(started.elapsed().as_secs_f64() * 1e3);
        }
    }
    took.iter_mut().for_each(|took| took.sort_by(f64::total_cmp));
    took
}

fn measure(worlds: [&World; 2]) {
    for (name, path, sql) in REPORTS {
        // The first time much is read that is kept from then on.
        let first = ask(worlds, path, 3);
        let took = ask(worlds, path, 7);
        for ((world, first), took) in worlds.iter().zip(&first).zip(&took) {
            let started = Instant::now();
            world.postgres.query(sql);
            println!(
                "| {name}, {:.1} M events | {}, max {:.1} ms | right after the start {}; plain SQL over all {:.0} ms |",
                world.rows as f64 / 1e6,
                percentiles(took),
                percentile(took, 1.0),
                percentiles(first),
                started.elapsed().as_secs_f64() * 1e3
            );
        }
        let [few, many] = took.map(|took| percentile(&took, 0.5));
        println!("| {name}, p50 at 10 M against 1.2 M | {:.2} × | |", many / few);
    }
}

fn percentiles(sorted: &[f64]) -> String {
    format!("p50 {:.1} ms, p99 {:.1} ms", percentile(sorted, 0.5), percentile(sorted, 0.99))
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
    let system = actix::System::new();
    let asked = |part: &str| std::env::args().any(|argument| argument == part);
    if asked("backfill") {
        folding::run_backfill(&system);
        return;
    }
    folding::run(&system);
    if asked("folding") {
        return;
    }
    let [few, many] = [FEW, MANY].map(|rows| World::of(rows, &system));
    println!("| what | measured | beside it |\n|---|---|---|");
    measure([&few, &many]);

    let gateway = many.start(&["gateway"]);
    let _collectors = ["facebook", "tiktok"].map(|source| many.start(&["collector", source]));
    let target = gateway.url("/webhook");
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
        let output = ess(&arguments, &[], many.folder.path()).output().unwrap();
        let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let accepted = said["accepted"].as_u64().unwrap();
        eventually("everything is stored", MINUTE, || http::settled(&many.reporter.url("/ledger")));
        accepted as f64 / started.elapsed().as_secs_f64()
    };
    let alone = publish("20s");
    let (requests, failed, p99, beside) = std::thread::scope(|scope| {
        let publisher = scope.spawn(|| publish("20s"));
        let (requests, failed, p99) = crowd(&many.reporter, 200, &|| publisher.is_finished());
        (requests, failed, p99, publisher.join().unwrap())
    });
    println!(
        "| 200 clients asking, with 10,000 events/s beside | {requests} answers, {failed} failed, p99 {p99:.0} ms | ingestion {beside:.0}/s, {:.2} of {alone:.0}/s alone |",
        beside / alone
    );
}
