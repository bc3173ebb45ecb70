//! Faults in all processes and connections, in random order, under load. Afterwards every event that was answered 202
//! is stored once and unaltered.
//!
//! A run takes about a minute; `ESS_TEST_CHAOS_MINUTES` makes it longer. `ESS_TEST_CHAOS_SEED` repeats the order of an
//! earlier run, which prints its seed.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::events::{Chance, event};
use crate::support::nats::Nats;
use crate::support::postgres::Postgres;
use crate::support::process::Service;
use crate::support::proxy::Proxy;
use crate::support::{MINUTE, actors, eventually, http};

const CLIENTS: u64 = 4;

/// Record of the clients: every event that was sent, and the ids that were answered 202.
#[derive(Default)]
struct Oracle {
    sent: Mutex<HashMap<String, Value>>,
    acknowledged: Mutex<HashSet<String>>,
    next: AtomicU64,
    stop: AtomicBool,
}

impl Oracle {
    /// Runs one client. A batch that is not answered 202 is sent up to three times, and some events are sent twice.
    fn client(&self, url: &str, seed: u64) {
        let mut chance = Chance(seed);
        let mut before: Vec<Value> = Vec::new();
        while !self.stop.load(Ordering::Relaxed) {
            let size = if chance.below(4) == 0 { 1 } else { 1 + chance.below(300) };
            let mut batch: Vec<Value> = (0..size)
                .map(|_| event(&format!("x-{}", self.next.fetch_add(1, Ordering::Relaxed)), &mut chance))
                .collect();
            self.sent.lock().unwrap().extend(batch.iter().map(|event| (id(event), event.clone())));
            if chance.below(5) == 0 {
                batch.extend(before.iter().take(20).cloned());
            }
            let body = Value::from(batch.clone()).to_string();
            for _ in 0..3 {
                match http::post(url, &body) {
                    Ok(answer) if answer.status == 202 => {
                        self.acknowledged.lock().unwrap().extend(batch.iter().map(id));
                        before = batch;
                        break;
                    }
                    _ => std::thread::sleep(Duration::from_millis(50)),
                }
            }
            std::thread::sleep(Duration::from_millis(chance.below(60)));
        }
    }
}

fn id(event: &Value) -> String {
    event["eventId"].as_str().unwrap().to_owned()
}

/// The system under test. The folder is dropped last, after the processes that write into it.
struct System {
    services: Vec<Service>,
    nats: Nats,
    postgres: Postgres,
    to_nats: Proxy,
    to_postgres: Proxy,
    redelivered: f64,
    _folder: TempDir,
}

impl System {
    fn start() -> Self {
        let (nats, postgres) = (Nats::start(), Postgres::start());
        let (to_nats, to_postgres) = (Proxy::to(nats.port), Proxy::to(postgres.port));
        let folder = tempfile::tempdir().unwrap();
        let environment: Vec<(String, String)> = [
            ("NATS_URL", format!("nats://127.0.0.1:{}", to_nats.port)),
            ("DATABASE_URL", format!("postgres://ess@127.0.0.1:{}/ess", to_postgres.port)),
            ("ESS_ADMIN_TOKEN", "admin".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec();
        let commands: [&[&str]; 6] = [
            &["gateway"],
            &["collector", "facebook"],
            &["collector", "facebook"],
            &["collector", "tiktok"],
            &["collector", "tiktok"],
            &["reporter"],
        ];
        let mut services: Vec<_> =
            commands.iter().map(|command| Service::start(command, &environment, folder.path())).collect();
        services.iter_mut().for_each(|service| {
            service.wait_ready();
        });
        Self { services, nats, postgres, to_nats, to_postgres, redelivered: 0.0, _folder: folder }
    }

    /// Adds a collector's count of redelivered frames. A restart resets it, so it is read before the process ends.
    fn count_redelivered(&mut self, at: usize) {
        let url = self.services[at].url("/metrics");
        if at == 0 || at == 5 || http::get(&url).is_err() {
            return;
        }
        for source in ["facebook", "tiktok"] {
            let series = format!("ess_collector_redelivered_frames_total{{source=\"{source}\"}}");
            self.redelivered += http::metric(&url, &series);
        }
    }

    /// Sends a command, `panic` or `restart`, to a random actor of a service.
    fn command(&self, at: usize, command: &str, chance: &mut Chance) {
        let base = self.services[at].url("");
        let nodes = actors::nodes(&base);
        let Some(node) = nodes.get(chance.below(nodes.len().max(1) as u64) as usize) else { return };
        let name = node["name"].as_str().unwrap();
        println!("  {name}");
        actors::command(&base, name, command);
    }

    fn inject(&mut self, fault: Fault, chance: &mut Chance) {
        let collector = 1 + chance.below(4) as usize;
        match fault {
            Fault::KillGateway => self.services[0].start_again(),
            Fault::KillCollector => {
                self.count_redelivered(collector);
                self.services[collector].start_again();
            }
            Fault::KillNats => self.nats.start_again(),
            Fault::KillPostgres => self.postgres.start_again(),
            Fault::PauseCollector => {
                self.services[collector].process.signal("STOP");
                // Longer than the acknowledgement timeout, so that the frames are delivered to another collector.
                std::thread::sleep(Duration::from_secs(12));
                self.services[collector].process.signal("CONT");
            }
            Fault::CutNats => self.to_nats.cut(),
            Fault::CutPostgres => self.to_postgres.cut(),
            Fault::DelayNats => slow(&self.to_nats),
            Fault::DelayPostgres => slow(&self.to_postgres),
            Fault::PanicGateway => self.command(0, "panic", chance),
            Fault::PanicCollector => self.command(collector, "panic", chance),
            Fault::PanicReporter => self.command(5, "panic", chance),
            Fault::RestartActor => self.command(chance.below(6) as usize, "restart", chance),
            Fault::StopGateway => self.stop(0),
            Fault::StopCollector => self.stop(collector),
        }
    }

    /// Stops a service with SIGTERM, and starts it again.
    fn stop(&mut self, at: usize) {
        self.count_redelivered(at);
        self.services[at].process.signal("TERM");
        let status = self.services[at].process.wait(Duration::from_secs(40));
        assert!(status.code().is_some(), "{status} instead of an exit");
        self.services[at].start_again();
    }
}

fn slow(proxy: &Proxy) {
    proxy.delay(Duration::from_millis(150));
    std::thread::sleep(Duration::from_secs(2));
    proxy.delay(Duration::ZERO);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    KillGateway,
    KillCollector,
    KillNats,
    KillPostgres,
    PauseCollector,
    CutNats,
    CutPostgres,
    DelayNats,
    DelayPostgres,
    PanicGateway,
    PanicCollector,
    PanicReporter,
    RestartActor,
    StopGateway,
    StopCollector,
}

const ALL: [Fault; 15] = [
    Fault::KillGateway,
    Fault::KillCollector,
    Fault::KillNats,
    Fault::KillPostgres,
    Fault::PauseCollector,
    Fault::CutNats,
    Fault::CutPostgres,
    Fault::DelayNats,
    Fault::DelayPostgres,
    Fault::PanicGateway,
    Fault::PanicCollector,
    Fault::PanicReporter,
    Fault::RestartActor,
    Fault::StopGateway,
    Fault::StopCollector,
];

/// Every fault once, in random order.
fn round(chance: &mut Chance) -> Vec<Fault> {
    let mut order = ALL.to_vec();
    for at in (1..order.len()).rev() {
        order.swap(at, chance.below(at as u64 + 1) as usize);
    }
    order
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn every_acknowledged_event_is_stored_once_and_unaltered_under_random_faults() {
    let seed = setting("ESS_TEST_CHAOS_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    println!("ESS_TEST_CHAOS_SEED={seed}");
    let until = Instant::now() + Duration::from_secs(60 * setting("ESS_TEST_CHAOS_MINUTES").unwrap_or(0));
    let mut chance = Chance(seed);
    let mut system = System::start();
    let oracle = Oracle::default();
    let url = system.services[0].url("/webhook");
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (oracle, url) = (&oracle, &url);
            scope.spawn(move || oracle.client(url, seed ^ client));
        }
        std::thread::sleep(Duration::from_secs(1));
        loop {
            for fault in round(&mut chance) {
                println!("{fault:?}");
                system.inject(fault, &mut chance);
                std::thread::sleep(Duration::from_millis(500 + chance.below(1_500)));
            }
            if Instant::now() >= until {
                break;
            }
        }
        for service in &mut system.services {
            service.wait_ready();
        }
        std::thread::sleep(Duration::from_secs(1));
        oracle.stop.store(true, Ordering::Relaxed);
    });
    check(&mut system, &oracle);
}

/// Checks the rows, the ledger and the reports against the clients' record.
fn check(system: &mut System, oracle: &Oracle) {
    let ledger = eventually("everything is stored", MINUTE * 3, || {
        let answer =
            http::get(&system.services[5].url("/ledger")).ok().filter(|answer| answer.status == 200)?;
        let ledger = answer.json();
        ledger["sources"].as_array()?.iter().all(|source| source["inFlight"] == 0).then_some(ledger.clone())
    });
    (1..5).for_each(|at| system.count_redelivered(at));
    let (sent, acknowledged) = (oracle.sent.lock().unwrap(), oracle.acknowledged.lock().unwrap());
    println!(
        "{} sent, {} acknowledged, {} frames redelivered",
        sent.len(),
        acknowledged.len(),
        system.redelivered
    );
    println!("{ledger}");

    let rows = stored(&system.postgres);
    let count: u64 = system.postgres.query("SELECT count(*) FROM event_rows")[0].parse().unwrap();
    assert_eq!(rows.len() as u64, count, "none twice");
    let lost: Vec<_> = acknowledged.iter().filter(|id| !rows.contains_key(*id)).collect();
    assert!(lost.is_empty(), "{} lost, such as {:?}", lost.len(), lost[0]);
    for (id, row) in &rows {
        let event = sent.get(id).unwrap_or_else(|| panic!("{id} was never sent"));
        assert_eq!(*row, expected(event), "{id} was altered");
    }
    for source in ledger["sources"].as_array().unwrap() {
        assert_eq!((&source["missing"], &source["quarantined"]), (&0.into(), &0.into()), "{ledger}");
    }
    reports_equal_the_rows(system);
    assert!(acknowledged.len() >= 20_000, "an empty run: {} acknowledged", acknowledged.len());
    assert!(system.redelivered >= 1.0, "an empty run: nothing was delivered twice");
}

/// Rows by event id, with their fields joined by `|`.
fn stored(postgres: &Postgres) -> HashMap<String, String> {
    let sql = "SELECT event_id, concat_ws('|', source, funnel_stage, event_type,
        to_char(occurred_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"'), user_id, user_name, age, gender,
        followers, country, city, campaign_id, trim_scale(purchase_amount), trim_scale(revenue),
        trim_scale(watch_time), trim_scale(percentage_watched), unknown) FROM events";
    let rows = postgres.query(sql);
    rows.iter()
        .filter_map(|row| row.split_once('|'))
        .map(|(id, row)| (id.to_owned(), row.to_owned()))
        .collect()
}

/// Fields of a sent event, in the same form as [`stored`] has them.
fn expected(event: &Value) -> String {
    let (user, engagement) = (&event["data"]["user"], &event["data"]["engagement"]);
    let number = |text: &str| {
        let text = text.to_owned();
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
    };
    let text = |value: &Value| match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(number(&other.to_string())),
    };
    let amount = engagement["purchaseAmount"].as_str().map(number);
    let kind = event["eventType"].as_str().unwrap();
    let revenue = amount.clone().filter(|_| kind == "checkout.complete" || kind == "purchase");
    let country =
        if user["location"].is_null() { &engagement["country"] } else { &user["location"]["country"] };
    let name = if user["name"].is_null() { &user["username"] } else { &user["name"] };
    let fields = [
        text(&event["source"]),
        text(&event["funnelStage"]),
        text(&event["eventType"]),
        text(&event["timestamp"]),
        text(&user["userId"]),
        text(name),
        text(&user["age"]),
        text(&user["gender"]),
        text(&user["followers"]),
        text(country),
        text(&user["location"]["city"]),
        text(&engagement["campaignId"]),
        amount,
        revenue,
        text(&engagement["watchTime"]),
        text(&engagement["percentageWatched"]),
    ];
    fields.into_iter().flatten().collect::<Vec<_>>().join("|")
}

fn reports_equal_the_rows(system: &System) {
    let report = |path: &str| http::get(&system.services[5].url(path)).unwrap().json();
    let events = report("/reports/events");
    let counted: HashMap<String, u64> = events["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| {
            let name = |name: &str| entry[name].as_str().unwrap().to_owned();
            (format!("{}|{}", name("source"), name("eventType")), entry["count"].as_u64().unwrap())
        })
        .collect();
    let rows = system.postgres.query("SELECT source, event_type, count(*) FROM events GROUP BY 1, 2");
    let rows: HashMap<String, u64> = rows
        .iter()
        .filter_map(|row| row.rsplit_once('|'))
        .map(|(name, count)| (name.to_owned(), count.parse().unwrap()))
        .collect();
    assert_eq!(counted, rows);
    let revenue = report("/reports/revenue")["totalRevenue"].as_str().unwrap().to_owned();
    assert_eq!(system.postgres.query("SELECT round(sum(revenue), 2) FROM events")[0], revenue);
}
