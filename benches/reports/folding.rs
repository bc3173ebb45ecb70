//! Demographics while much is being folded: a backfill over 30 days, and the embedded default under load. Each is
//! run without readers as well, for what these cost the write path.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ess::event::Source;
use ess::publisher::generate::{Generator, Mix};
use ess::store::Batch;

use super::support::events::Chance;
use super::support::nats::Nats;
use super::support::postgres::Postgres;
use super::support::process::{Service, ess};
use super::support::stores::{frame, log, open, origin};
use super::support::{MINUTE, free_port, http};
use super::{DAYS, START, at_time, percentile, time};

/// Events of the backfill, and of each of its transactions.
const BACKFILL: u64 = 1_200_000;
const BATCH: u64 = 8_000;
/// Events a second on the embedded default, and for how long.
const RATE: &str = "40000";
const SECONDS: &str = "45s";
/// The rest between two questions.
const REST: Duration = Duration::from_millis(50);

/// Clock ticks of a second, as Linux counts CPU time.
const TICKS: f64 = 100.0;

/// CPU seconds of a process and of those that it has started.
fn cpu(process: u32) -> f64 {
    let times = |process: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        let rest = stat.rsplit_once(')').map_or(String::new(), |(_, rest)| rest.to_owned());
        let fields: Vec<f64> = rest.split_whitespace().map(|field| field.parse().unwrap_or(0.0)).collect();
        fields.get(11..15).map_or(0.0, |times| times.iter().sum::<f64>() / TICKS)
    };
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let children: Vec<u32> = tasks
        .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|text| text.split_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<_>>())
        .collect();
    times(process) + children.into_iter().map(times).sum::<f64>()
}

/// Asks for demographics over ranges of chance until it is told to stop; gives milliseconds, ascending.
fn ask(reporter: &str, range: impl Fn(&mut Chance) -> String, stop: &AtomicBool) -> Vec<f64> {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let mut chance = Chance(3);
    let mut took = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let url = format!("{reporter}/reports/demographics?{}", range(&mut chance));
        let started = Instant::now();
        let mut answer = agent.get(&url).call().unwrap();
        let body = answer.body_mut().read_to_string().unwrap();
        assert_eq!(answer.status().as_u16(), 200, "{url}: {body}");
        took.push(started.elapsed().as_secs_f64() * 1e3);
        std::thread::sleep(REST);
    }
    took.sort_by(f64::total_cmp);
    took
}

fn shown(took: &[f64]) -> String {
    if took.is_empty() {
        return "nobody asks".to_owned();
    }
    let part = |quantile| percentile(took, quantile);
    format!(
        "{} reports, p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms",
        took.len(),
        part(0.5),
        part(0.99),
        part(1.0)
    )
}

/// A range of chance within the 30 days; one in ten has no bounds.
fn within(chance: &mut Chance) -> String {
    let mut moment = || START + chance.below(DAYS as u64 * 86_400) as i64;
    let (left, right) = (moment(), moment());
    if chance.below(10) == 0 {
        return String::new();
    }
    format!("from={}&to={}", time(left.min(right)), time(left.max(right)))
}

/// Stores events of chance moments of 30 days.
async fn store_backfill(url: &str) {
    let store = open(url).await;
    let mut generator = Generator::new(Some(1), Mix::default());
    let mut chance = Chance(1);
    let origin = origin();
    for number in 1..=BACKFILL / BATCH {
        let moment = |chance: &mut Chance| START + chance.below(DAYS as u64 * 86_400) as i64;
        let texts: Vec<String> =
            (0..BATCH).map(|_| at_time(&generator.event(), moment(&mut chance))).collect();
        let (facebook, tiktok): (Vec<_>, Vec<_>) =
            texts.into_iter().partition(|text| text.contains("\"source\":\"facebook\""));
        let batch = |source: Source, events| Batch {
            source,
            log_id: log(),
            frames: vec![frame(number, number, &origin, events)],
        };
        let (facebook, tiktok) = (batch(Source::FACEBOOK, &facebook), batch(Source::TIKTOK, &tiktok));
        let (left, right) = futures::join!(store.write(&facebook), store.write(&tiktok));
        assert_eq!(left.unwrap().stored + right.unwrap().stored, BATCH);
    }
    store.close().await.unwrap();
}

/// A backfill into PostgreSQL; gives the CPU seconds of what writes and folds.
fn backfill(system: &actix::SystemRunner, asked: bool) -> f64 {
    let (nats, postgres) = (Nats::start(), Postgres::start_with(&[]));
    let folder = tempfile::tempdir().unwrap();
    let environment = vec![("NATS_URL".to_owned(), nats.url()), ("DATABASE_URL".to_owned(), postgres.url())];
    let start = |arguments: &[&str]| {
        let mut service = Service::start(arguments, &environment, folder.path());
        service.wait_ready();
        service
    };
    let collectors = ["facebook", "tiktok"].map(|source| start(&["collector", source]));
    let reporter = start(&["reporter"]);
    let stop = AtomicBool::new(false);
    let address = reporter.url("");
    let (took, folded, after) = std::thread::scope(|scope| {
        let asker = || ask(&address, within, &stop);
        let asking = asked.then(|| scope.spawn(asker));
        let started = Instant::now();
        system.block_on(store_backfill(&postgres.url()));
        let stored = started.elapsed();
        while postgres.query(
            "SELECT (SELECT count(*) FROM summary_deltas) + (SELECT count(*) FROM summaries WHERE stale)",
        )[0] != "0"
        {
            assert!(started.elapsed() < 10 * MINUTE, "everything is folded");
            std::thread::sleep(Duration::from_secs(1));
        }
        let folded = (stored, started.elapsed());
        stop.store(true, Ordering::Relaxed);
        let took = asking.map_or(Vec::new(), |asking| asking.join().unwrap());
        stop.store(false, Ordering::Relaxed);
        let asking = asked.then(|| scope.spawn(asker));
        std::thread::sleep(Duration::from_secs(if asked { 10 } else { 0 }));
        stop.store(true, Ordering::Relaxed);
        (took, folded, asking.map_or(Vec::new(), |asking| asking.join().unwrap()))
    });
    let used =
        |name: &str, seconds: f64| format!("{name} {:.2} µs an event", seconds * 1e6 / BACKFILL as f64);
    let folding = collectors.iter().map(|collector| cpu(collector.process.id())).sum::<f64>();
    println!(
        "| backfill of {:.1} M events over 30 days, PostgreSQL | {} until all is folded; {} after it | stored after {:.0} s, folded and in the widest spans after {:.0} s; CPU of {}, {} |",
        BACKFILL as f64 / 1e6,
        shown(&took),
        shown(&after),
        folded.0.as_secs_f64(),
        folded.1.as_secs_f64(),
        used("folding", folding),
        used("the reporter", cpu(reporter.process.id())),
    );
    folding
}

/// The embedded default under load; gives its CPU microseconds an event.
fn embedded(asked: bool) -> f64 {
    let folder = tempfile::tempdir().unwrap();
    let ports: Vec<u16> = (0..4).map(|_| free_port()).collect();
    let names =
        ["ESS_GATEWAY_PORT", "ESS_FACEBOOK_COLLECTOR_PORT", "ESS_TIKTOK_COLLECTOR_PORT", "ESS_REPORTER_PORT"];
    let environment: Vec<_> =
        names.iter().zip(&ports).map(|(name, port)| ((*name).to_owned(), port.to_string())).collect();
    let mut up = Service::start(&["up"], &environment, folder.path());
    up.port = ports[0];
    up.wait_ready();
    let target = format!("http://127.0.0.1:{}/webhook", ports[0]);
    let reporter = format!("http://127.0.0.1:{}", ports[3]);
    // The present day, or all there is.
    let range = |chance: &mut Chance| {
        let now = chrono::Utc::now().timestamp();
        if chance.below(10) == 0 {
            String::new()
        } else {
            format!("from={}", time(now - chance.below(86_400) as i64))
        }
    };
    let stop = AtomicBool::new(false);
    let (took, said, seconds) = std::thread::scope(|scope| {
        let asking = asked.then(|| scope.spawn(|| ask(&reporter, range, &stop)));
        let started = Instant::now();
        let arguments = [
            "publisher",
            "--json",
            "--invalid",
            "0",
            "--target",
            &target,
            "--batch",
            "1000",
            "--connections",
            "8",
            "--rate",
            RATE,
            "--duration",
            SECONDS,
        ];
        let output = ess(&arguments, &[], folder.path()).output().unwrap();
        let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let seconds = started.elapsed().as_secs_f64();
        stop.store(true, Ordering::Relaxed);
        (asking.map_or(Vec::new(), |asking| asking.join().unwrap()), said, seconds)
    });
    let used = cpu(up.process.id());
    let accepted = said["accepted"].as_u64().unwrap();
    let waiting = http::settled(&format!("{reporter}/ledger")).is_none();
    println!(
        "| `ess up` (SQLite) under load | {} | {:.0} events/s accepted{}; CPU {:.2} µs an event |",
        shown(&took),
        accepted as f64 / seconds,
        if waiting { ", some wait in the log at the end" } else { "" },
        used * 1e6 / accepted as f64,
    );
    used * 1e6 / accepted as f64
}

/// The backfill alone: `-- backfill`.
pub fn run_backfill(system: &actix::SystemRunner) {
    println!("| while much is being folded | reports | beside it |\n|---|---|---|");
    let [alone, beside] = [false, true].map(|asked| backfill(system, asked));
    println!("| CPU of folding, with readers against without | {:.2} × | |", beside / alone);
}

pub fn run(system: &actix::SystemRunner) {
    run_backfill(system);
    let [alone, beside] = [false, true].map(embedded);
    println!(
        "| CPU of `ess up` an event, readers included, against without them | {:.2} × | |",
        beside / alone
    );
}
