//! The whole pipeline under load, on real servers, beside the limits of the same machine.
//!
//! `cargo bench --bench pipeline` runs the parts that take a minute or two each; `cargo bench --bench pipeline
//! -- long` (and so on, see [`PARTS`]) runs one. Each part starts its own servers: PostgreSQL with its default
//! settings, NATS as it is shipped, gateway, collectors and reporter as separate processes. What is printed is
//! a table in Markdown. A figure by itself says little on a machine that others use: go by the ratios, and by
//! the best of some runs.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    dead_code,
    reason = "a bench fails by panicking"
)]

mod limits;
mod machine;
#[path = "../../tests/it/support/mod.rs"]
mod support;
mod viewers;

use std::time::{Duration, Instant};

use machine::{Machine, Sent, idle, publish};
use support::MINUTE;

/// One line of the table: what was measured, what came out, and what it is held against.
type Line = (String, String, String);

/// A part's name, whether it runs without being named, and what it does.
type Part = (&'static str, bool, fn() -> Vec<Line>);

const PARTS: [Part; 9] = [
    ("arrays", true, arrays),
    ("singles", true, singles),
    ("fairness", true, fairness),
    ("drain", true, drain),
    ("sharing", true, sharing),
    ("embedded", true, embedded),
    ("long", false, long),
    ("many-rows", false, many_rows),
    ("viewers", false, viewers::viewers),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [bare, port] = arguments.as_slice()
        && bare == limits::BARE
    {
        return limits::serve_bare(port.parse().unwrap());
    }
    let chosen = |name: &str, by_itself: bool| match arguments.as_slice() {
        [] => by_itself,
        named => named.iter().any(|argument| argument == name),
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!("{cores} cores\n\n| what | measured | beside it |\n|---|---|---|");
    for (name, by_itself, part) in PARTS {
        if chosen(name, by_itself) {
            for (what, measured, beside) in part() {
                println!("| {what} | {measured} | {beside} |");
            }
        }
    }
}

fn line(what: &str, measured: String, beside: String) -> Line {
    (what.to_owned(), measured, beside)
}

fn latencies(sent: &Sent) -> String {
    let one = |quantile: &str| format!("{quantile} {:.1} ms", sent.latency(quantile));
    ["p50", "p99", "max"].map(one).join(", ")
}

/// The publisher's worst second, again and again: one POST of 50,000 events each second.
fn arrays() -> Vec<Line> {
    let machine = Machine::start(&[]);
    let (before, idle_before, started) = (machine.usage(), idle(), Instant::now());
    let sent = publish(&machine.gateway(), &["--batch", "50000", "--rate", "50000", "--duration", "20s"]);
    let last = machine.settle(MINUTE);
    let (used, took) = (machine.usage().since(&before), started.elapsed().as_secs_f64());
    let idle = (idle() - idle_before) / took;
    machine.check(sent.accepted);
    let (gateway, collector) = machine.peaks();
    let parsing = limits::json_parsing();
    let ours = used.of("gateway").max(used.of("collectors")) * 1e6 / sent.accepted as f64;
    vec![
        line(
            "50,000 events in one POST each second, 20 s",
            format!(
                "{} accepted, {} refused; the last row {:.1} s after the last answer",
                sent.accepted,
                sent.refused,
                last.as_secs_f64()
            ),
            format!("{idle:.2} cores idle"),
        ),
        line("answers to those POSTs", latencies(&sent), String::new()),
        line(
            "CPU µs an event",
            used.per_event(sent.accepted),
            format!(
                "publisher {:.1}; serde_json alone {parsing:.1}, {:.1} × of it",
                sent.cpu * 1e6 / sent.accepted as f64,
                ours / parsing
            ),
        ),
        line("peak memory", format!("gateway {gateway:.0} MB, collector {collector:.0} MB"), String::new()),
    ]
}

/// Single events, each answered after its own durability, beside a handler that only parses them.
fn singles() -> Vec<Line> {
    let machine = Machine::start(&[]);
    let (bare_process, bare) = limits::bare_handler(&machine.folder.path().join("bare.log"));
    let mut lines = Vec::new();
    let mut all = 0;
    for connections in ["1", "64", "256"] {
        let arguments = ["--batch", "1", "--connections", connections, "--duration", "10s"];
        let bare_before = machine::cpu(bare_process.id());
        let limit = publish(&bare, &arguments);
        let bare_cpu = machine::cpu(bare_process.id()) - bare_before;
        let (before, frames_before) = (machine.usage(), machine.frames());
        let sent = publish(&machine.gateway(), &arguments);
        machine.settle(MINUTE);
        let used = machine.usage().since(&before);
        assert_eq!(sent.refused, 0, "single events were refused");
        all += sent.accepted;
        machine.check(all);
        let frames = machine.frames() - frames_before;
        lines.push(line(
            &format!("single events, {connections} connections"),
            format!("{:.0}/s; {}", sent.rate(), latencies(&sent)),
            format!("{:.2} of a bare handler's {:.0}/s", sent.rate() / limit.rate(), limit.rate()),
        ));
        lines.push(line("— CPU µs an event", used.per_event(sent.accepted), {
            let bare = bare_cpu * 1e6 / limit.accepted as f64;
            let ratio = used.of("gateway") * 1e6 / sent.accepted as f64 / bare;
            let publisher = sent.cpu * 1e6 / sent.accepted as f64;
            format!("bare handler {bare:.1}, the gateway {ratio:.1} × of it; publisher {publisher:.1}")
        }));
        lines.push(line(
            "— events a frame",
            format!("{:.1}", sent.accepted as f64 / frames.max(1.0)),
            String::new(),
        ));
    }
    lines
}

/// A single event while 50,000 at a time are worked on.
fn fairness() -> Vec<Line> {
    let machine = Machine::start(&[]);
    let target = machine.gateway();
    let single = std::thread::scope(|scope| {
        let bulk =
            scope.spawn(|| publish(&target, &["--batch", "50000", "--rate", "50000", "--duration", "15s"]));
        std::thread::sleep(Duration::from_secs(1));
        let single =
            publish(&target, &["--batch", "1", "--connections", "1", "--rate", "50", "--duration", "12s"]);
        assert_eq!((bulk.join().unwrap().refused, single.refused), (0, 0));
        single
    });
    vec![line("a single event beside 50,000 a second in arrays", latencies(&single), String::new())]
}

/// A log that filled while nobody collected.
fn drain() -> Vec<Line> {
    let (rows, rate, used) = drained(1);
    let (machine, events) = rows;
    let copy = limits::copy(&machine);
    vec![line(
        &format!("collectors draining {events} events"),
        format!("{rate:.0} rows/s; CPU µs: {used}"),
        format!("{:.2} of COPY's {copy:.0} rows/s", rate / copy),
    )]
}

/// Fills a log with two million events, then lets so many collectors of each source have it.
fn drained(collectors: usize) -> ((Machine, u64), f64, String) {
    let mut machine = Machine::start_without_collectors(&[]);
    let sent = publish(&machine.gateway(), &["--batch", "50000", "--rate", "50000", "--duration", "40s"]);
    assert_eq!(sent.refused, 0);
    let before = machine.usage();
    let started = Instant::now();
    machine.start_collectors(collectors);
    machine.settle_asking(MINUTE * 5, Duration::from_secs(1));
    // From the first row to the last: a start takes what it takes.
    let took =
        machine.number("SELECT extract(epoch FROM max(ingested_at) - min(ingested_at)) FROM event_rows");
    let took = took.min(started.elapsed().as_secs_f64());
    let used = machine.usage().since(&before);
    machine.check(sent.accepted);
    ((machine, sent.accepted), sent.accepted as f64 / took, used.per_event(sent.accepted))
}

/// Two collectors of each source against one.
fn sharing() -> Vec<Line> {
    let one = drained(1).1;
    let two = drained(2).1;
    vec![line(
        "two collectors of each source, draining",
        format!("{two:.0} rows/s"),
        format!("{:.2} of one's {one:.0}", two / one),
    )]
}

/// One process, nothing installed.
fn embedded() -> Vec<Line> {
    let folder = tempfile::tempdir().unwrap();
    let up = machine::embedded(folder.path());
    let target = up.url("/webhook");
    let sent = publish(&target, &["--batch", "1000", "--rate", "20000", "--duration", "30s"]);
    let answered = Instant::now();
    let database = crate::support::system::Database::Sqlite(folder.path().join("data/ess.db"));
    support::eventually("everything is stored", MINUTE * 5, || {
        let rows = database.query("SELECT max(rowid) FROM event_rows")[0].parse::<u64>().unwrap_or(0);
        (rows >= sent.accepted).then_some(())
    });
    let last = answered.elapsed().as_secs_f64();
    // And as fast as it goes: the log takes more than the rows do, so until all of it is rows.
    let started = Instant::now();
    let more = publish(&target, &["--batch", "5000", "--rate", "60000", "--duration", "10s"]);
    support::eventually("everything is stored", MINUTE * 5, || {
        let rows = database.query("SELECT max(rowid) FROM event_rows")[0].parse::<u64>().unwrap_or(0);
        (rows >= sent.accepted + more.accepted).then_some(())
    });
    let most = more.accepted as f64 / started.elapsed().as_secs_f64();
    vec![line(
        "`ess up` on the embedded default, 20,000 events/s for 30 s",
        format!(
            "{} accepted, {} refused; the last row {last:.1} s after the last answer",
            sent.accepted, sent.refused
        ),
        format!("{most:.0} events/s at most, to the last row"),
    )]
}

/// Ten minutes at the publisher's mean.
fn long() -> Vec<Line> {
    let machine = Machine::start(&[]);
    let target = machine.gateway();
    let mut lags = Vec::new();
    let mut peaks = Vec::new();
    let before = machine.usage();
    let sent = std::thread::scope(|scope| {
        let publisher =
            scope.spawn(|| publish(&target, &["--batch", "30000", "--rate", "30000", "--duration", "600s"]));
        while !publisher.is_finished() {
            std::thread::sleep(Duration::from_secs(10));
            lags.extend(machine.in_flight());
            peaks.push(machine.peaks());
        }
        publisher.join().unwrap()
    });
    let last = machine.settle(MINUTE * 5);
    let used = machine.usage().since(&before);
    machine.check(sent.accepted);
    let half = lags.len() / 2;
    let most = |lags: &[u64]| lags.iter().copied().max().unwrap_or(0);
    let (early, late) = (peaks[peaks.len() / 4], peaks[peaks.len() - 1]);
    vec![
        line(
            "30,000 events in one POST each second, 10 minutes",
            format!(
                "{} accepted, {} refused; the last row {:.1} s after the last answer",
                sent.accepted,
                sent.refused,
                last.as_secs_f64()
            ),
            format!(
                "most in flight: {} in the first half, {} in the second",
                most(&lags[..half]),
                most(&lags[half..])
            ),
        ),
        line("answers to those POSTs", latencies(&sent), String::new()),
        line("CPU µs an event", used.per_event(sent.accepted), String::new()),
        line(
            "peak memory after a quarter of it, and at its end",
            format!(
                "gateway {:.0} MB, {:.0} MB; collector {:.0} MB, {:.0} MB",
                early.0, late.0, early.1, late.1
            ),
            String::new(),
        ),
    ]
}

/// The settings that the compose file ships.
const SHIPPED: &str = include_str!("../../docker/postgresql.conf");

/// CPU an event with twenty million rows stored against a hundred thousand.
fn many_rows() -> Vec<Line> {
    let setting =
        |line: &'static str| line.split('#').next().map(str::trim).filter(|line| line.contains('='));
    let settings: Vec<String> = SHIPPED
        .lines()
        .filter_map(setting)
        .filter(|line| !line.starts_with("listen_addresses"))
        .map(|line| line.replace(" = ", "=").replace('\'', ""))
        .collect();
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let machine = Machine::start(&settings);
    let cost = || {
        let before = machine.usage();
        let sent = publish(&machine.gateway(), &["--batch", "50000", "--rate", "50000", "--duration", "10s"]);
        machine.settle(MINUTE * 5);
        machine.usage().since(&before).all() * 1e6 / sent.accepted as f64
    };
    publish(&machine.gateway(), &["--batch", "50000", "--rate", "50000", "--duration", "2s"]);
    let few = cost();
    while machine.number("SELECT reltuples FROM pg_class WHERE relname = 'event_rows'") < 19e6 {
        publish(&machine.gateway(), &["--batch", "50000", "--rate", "50000", "--duration", "60s"]);
        machine.settle(MINUTE * 5);
        machine.postgres.query("ANALYZE event_rows");
    }
    let many = cost();
    let rows = machine.number("SELECT count(*) FROM event_rows") / 1e6;
    vec![line(
        &format!("CPU µs an event at {rows:.1} million rows"),
        format!("{many:.1}"),
        format!("{:.2} × of {few:.1} at 0.1 to 0.6 million", many / few),
    )]
}
