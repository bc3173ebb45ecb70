//! The servers and services that a measurement runs on, and what they use.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::nats::Nats;
use crate::support::postgres::Postgres;
use crate::support::process::{Service, ess};
use crate::support::{MINUTE, eventually, http};

/// Gateway, collectors and reporter as separate processes, on NATS and PostgreSQL.
pub struct Machine {
    pub services: Vec<Service>,
    pub nats: Nats,
    pub postgres: Postgres,
    pub folder: TempDir,
    environment: Vec<(String, String)>,
}

/// The processes of a machine, in the order in which they are shown.
pub const PROCESSES: [&str; 5] = ["gateway", "collectors", "reporter", "NATS", "PostgreSQL"];

const COLLECTORS: [&[&str]; 2] = [&["collector", "facebook"], &["collector", "tiktok"]];

/// CPU seconds by process.
#[derive(Debug, Clone, Default)]
pub struct Usage(BTreeMap<&'static str, f64>);

impl Usage {
    pub fn since(&self, before: &Self) -> Self {
        Self(self.0.iter().map(|(name, now)| (*name, now - before.0.get(name).unwrap_or(&0.0))).collect())
    }

    pub fn of(&self, process: &str) -> f64 {
        self.0.get(process).copied().unwrap_or(0.0)
    }

    pub fn all(&self) -> f64 {
        self.0.values().sum()
    }

    /// Microseconds an event, by process.
    pub fn per_event(&self, events: u64) -> String {
        let one = |name: &&str| format!("{name} {:.1}", self.of(name) * 1e6 / events as f64);
        let all: Vec<_> = PROCESSES.iter().map(one).collect();
        format!("{}, all {:.1}", all.join(", "), self.all() * 1e6 / events as f64)
    }
}

/// Clock ticks of a second, as Linux counts CPU time.
const TICKS: f64 = 100.0;

/// CPU seconds of a process and the children that it has waited for.
pub fn cpu(process: u32) -> f64 {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{process}/stat")) else { return 0.0 };
    // The command's name, in parentheses, may hold spaces.
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let fields: Vec<f64> = rest.split_whitespace().map(|field| field.parse().unwrap_or(0.0)).collect();
    // After the name: state, …, utime, stime, cutime, cstime at 11 to 14.
    fields.get(11..15).map_or(0.0, |times| times.iter().sum::<f64>() / TICKS)
}

fn children(process: u32) -> Vec<u32> {
    let of = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("children")).ok();
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let all: Vec<String> = tasks.filter_map(of).collect();
    all.iter().flat_map(|text| text.split_whitespace()).filter_map(|id| id.parse().ok()).collect()
}

/// The most memory that a process has had, in MB.
fn peak(process: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kb| kb.parse::<f64>().ok()).unwrap_or(0.0) / 1_000.0
}

/// CPU seconds in which the whole machine was idle, over all cores.
pub fn idle() -> f64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields = stat.lines().next().unwrap_or_default().split_whitespace().skip(1);
    let fields: Vec<f64> = fields.map(|field| field.parse().unwrap_or(0.0)).collect();
    fields.get(3..5).map_or(0.0, |idle| idle.iter().sum::<f64>() / TICKS)
}

/// Result of a publisher, as it printed it.
pub struct Sent {
    pub accepted: u64,
    pub refused: u64,
    pub seconds: f64,
    pub latency_ms: BTreeMap<String, f64>,
    /// CPU seconds of the publisher itself.
    pub cpu: f64,
}

impl Sent {
    pub fn rate(&self) -> f64 {
        self.accepted as f64 / self.seconds
    }

    pub fn latency(&self, quantile: &str) -> f64 {
        self.latency_ms[quantile]
    }
}

/// Runs `ess publisher` against a webhook until it ends.
pub fn publish(target: &str, arguments: &[&str]) -> Sent {
    let folder = tempfile::tempdir().unwrap();
    let mut all = vec!["publisher", "--json", "--invalid", "0", "--target", target];
    all.extend(arguments);
    let before = cpu(std::process::id());
    let output = ess(&all, &[], folder.path()).output().unwrap();
    let cpu = cpu(std::process::id()) - before;
    let said: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    let number = |name: &str| said[name].as_u64().unwrap();
    let latencies = said["latencyMs"].as_object().unwrap();
    Sent {
        accepted: number("accepted"),
        refused: number("rejected") + number("failed"),
        seconds: said["seconds"].as_f64().unwrap(),
        latency_ms: latencies.iter().map(|(name, ms)| (name.clone(), ms.as_f64().unwrap())).collect(),
        cpu,
    }
}

impl Machine {
    /// PostgreSQL with these settings, NATS as it is shipped (`sync_interval: always`), all services.
    pub fn start(postgres: &[&str]) -> Self {
        let mut machine = Self::start_without_collectors(postgres);
        machine.start_collectors(1);
        machine
    }

    /// The same, but nothing is collected yet.
    pub fn start_without_collectors(postgres: &[&str]) -> Self {
        let (nats, postgres) = (Nats::start(), Postgres::start_with(postgres));
        let folder = tempfile::tempdir().unwrap();
        let environment = vec![
            ("NATS_URL".to_owned(), nats.url()),
            ("DATABASE_URL".to_owned(), postgres.url()),
            ("LOG_LEVEL".to_owned(), "info".to_owned()),
        ];
        let mut machine = Self { services: Vec::new(), nats, postgres, folder, environment };
        machine.add(&["gateway"]);
        machine.add(&["reporter"]);
        machine
    }

    fn add(&mut self, arguments: &[&str]) {
        let mut service = Service::start(arguments, &self.environment, self.folder.path());
        service.wait_ready();
        self.services.push(service);
    }

    /// Starts so many collectors of each source.
    pub fn start_collectors(&mut self, each: usize) {
        let all = COLLECTORS.iter().cycle().take(each * COLLECTORS.len());
        let mut started: Vec<Service> =
            all.map(|arguments| Service::start(arguments, &self.environment, self.folder.path())).collect();
        for service in &mut started {
            service.wait_ready();
        }
        self.services.extend(started);
    }

    fn ids(&self, name: &str) -> Vec<u32> {
        let named = self.services.iter().filter(|service| service.name.starts_with(name));
        named.map(|service| service.process.id()).collect()
    }

    pub fn gateway(&self) -> String {
        self.services[0].url("/webhook")
    }

    pub fn reporter(&self, path: &str) -> String {
        self.services[1].url(path)
    }

    /// CPU time of each process since it started.
    pub fn usage(&self) -> Usage {
        let of = |name: &str| self.ids(name).into_iter().map(cpu).sum::<f64>();
        let server = self.postgres.process.id();
        let database = cpu(server) + children(server).into_iter().map(cpu).sum::<f64>();
        let all = [of("gateway"), of("collector"), of("reporter"), cpu(self.nats.process.id()), database];
        Usage(PROCESSES.into_iter().zip(all).collect())
    }

    /// Frames that the gateway has written.
    pub fn frames(&self) -> f64 {
        let of = |source| format!("ess_gateway_frames_total{{source=\"{source}\"}}");
        ["facebook", "tiktok"].iter().map(|source| self.services[0].metric(&of(source))).sum()
    }

    /// The most memory that gateway and collectors have had, in MB.
    pub fn peaks(&self) -> (f64, f64) {
        let most = |name: &str| self.ids(name).into_iter().map(peak).fold(0.0, f64::max);
        (most("gateway"), most("collector"))
    }

    /// Events that are published and not processed.
    pub fn in_flight(&self) -> Option<u64> {
        let answer = http::get(&self.reporter("/ledger")).ok().filter(|answer| answer.status == 200)?;
        answer.json()["sources"].as_array()?.iter().map(|source| source["inFlight"].as_u64()).sum()
    }

    /// Waits until everything is stored; says how long that took.
    pub fn settle(&self, within: Duration) -> Duration {
        self.settle_asking(within, Duration::from_millis(100))
    }

    /// The same, asking so often: that costs CPU that others could use.
    pub fn settle_asking(&self, within: Duration, often: Duration) -> Duration {
        let started = Instant::now();
        eventually("everything is stored", within, || {
            std::thread::sleep(often);
            http::settled(&self.reporter("/ledger"))
        });
        started.elapsed()
    }

    pub fn number(&self, sql: &str) -> f64 {
        self.postgres.query(sql)[0].parse().unwrap()
    }

    /// Nothing is missing, and there are as many rows as there should be.
    pub fn check(&self, events: u64) {
        let ledger = http::get(&self.reporter("/ledger")).unwrap().json();
        let sources = ledger["sources"].as_array().unwrap();
        let sum = |name: &str| sources.iter().map(|source| source[name].as_u64().unwrap()).sum::<u64>();
        assert_eq!((sum("missing"), sum("stored") + sum("duplicates")), (0, events), "{ledger}");
    }
}

/// The system in one process, on the embedded default.
pub fn embedded(folder: &Path) -> Service {
    let names =
        ["ESS_GATEWAY_PORT", "ESS_FACEBOOK_COLLECTOR_PORT", "ESS_TIKTOK_COLLECTOR_PORT", "ESS_REPORTER_PORT"];
    let environment: Vec<(String, String)> =
        names.map(|name| (name.to_owned(), crate::support::free_port().to_string())).to_vec();
    let mut up = Service::start(&["up"], &environment, folder);
    up.port = environment[0].1.parse().unwrap();
    up.wait_ready();
    let reporter = format!("http://127.0.0.1:{}/ready", environment[3].1);
    eventually("the reporter is ready", MINUTE, || {
        http::get(&reporter).ok().filter(|answer| answer.status == 200)
    });
    up
}
