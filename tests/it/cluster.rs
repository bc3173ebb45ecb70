//! A cluster of three NATS servers: no acknowledged event is lost when a server fails, and a source is unavailable for
//! no longer than the cluster needs to elect another leader.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ess::config::{Config, NatsAccess, Variables};
use ess::event::Source;
use ess::log::jetstream::JetStream;
use ess::log::{AppendError, Log, LogRole, Topic};
use serde_json::Value;

use crate::support::events::simple;
use crate::support::nats::{Cluster, Nats};
use crate::support::postgres::Postgres;
use crate::support::process::{Service, ess};
use crate::support::{MINUTE, block_on, eventually, http};

const SOURCES: [&str; 2] = ["facebook", "tiktok"];
const CLIENTS: usize = 2;
const BATCH: u64 = 20;
/// Maximum time without a 202 while two servers are up. An election takes 4 to 9 s of it.
const ELECTION: Duration = Duration::from_secs(10);
/// Maximum time without a 202 for a source whose stream's leader is not the faulty server.
const UNTOUCHED: Duration = Duration::from_secs(2);
/// Maximum time from the election of a stream's leader to the next 202.
const SLACK: Duration = Duration::from_secs(2);

fn stream(source: &str) -> String {
    format!("ESS_{}", source.to_uppercase())
}

fn environment(cluster: &Cluster, more: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut pairs: Vec<_> =
        more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    pairs.push(("NATS_URL".to_owned(), cluster.url()));
    pairs
}

/// Load of one source: its clients send until they are stopped, also while POSTs fail.
struct Load {
    source: &'static str,
    tried: AtomicU64,
    failed: AtomicU64,
    acknowledged: Mutex<HashSet<String>>,
    /// Times of the answers 202.
    times: Mutex<Vec<Instant>>,
}

impl Load {
    fn new(source: &'static str) -> Self {
        Self {
            source,
            tried: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            acknowledged: Mutex::default(),
            times: Mutex::default(),
        }
    }

    fn run(&self, url: &str, client: usize, stop: &AtomicBool) {
        let mut next = 0;
        while !stop.load(Ordering::Relaxed) {
            let ids: Vec<String> =
                (next..next + BATCH).map(|n| format!("{}-{client}-{n}", self.source)).collect();
            next += BATCH;
            let events: Vec<Value> = ids.iter().map(|id| simple(id, self.source)).collect();
            self.tried.fetch_add(BATCH, Ordering::Relaxed);
            match http::post(url, &Value::from(events).to_string()) {
                Ok(answer) if answer.status == 202 => {
                    self.times.lock().unwrap().push(Instant::now());
                    self.acknowledged.lock().unwrap().extend(ids);
                }
                _ => {
                    self.failed.fetch_add(BATCH, Ordering::Relaxed);
                }
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Longest time without a 202 since an instant.
    fn longest_gap(&self, since: Instant) -> Duration {
        let times = self.times.lock().unwrap();
        let before = times.iter().rev().find(|time| **time <= since).copied().unwrap_or(since);
        let mut known: Vec<Instant> = times.iter().copied().filter(|time| *time > since).collect();
        known.push(Instant::now());
        known.sort();
        let mut last = before;
        let mut longest = Duration::ZERO;
        for time in known {
            longest = longest.max(time.saturating_duration_since(last));
            last = time;
        }
        longest
    }
}

#[derive(Debug, Clone, Copy)]
enum Fault {
    /// SIGKILL, then a start.
    Kill,
    /// SIGSTOP, then SIGCONT.
    Pause,
    /// Like `Pause`, for the server that the gateway is connected to.
    PauseTheGateways,
    /// SIGTERM, then a start, as in a rolling upgrade.
    Restart,
}

/// Effect of one fault on one source.
struct Effect {
    source: &'static str,
    gap: Duration,
    /// Time in which no healthy server led the source's stream.
    leaderless: Duration,
    /// True if the source's stream had to elect a leader.
    touched: bool,
}

impl Effect {
    fn limit(&self) -> Duration {
        let base = if self.touched { ELECTION } else { UNTOUCHED };
        base.max(self.leaderless + SLACK)
    }
}

/// Moves the streams' leaders to different servers, so that one fault affects one source.
fn separate(cluster: &Cluster) {
    let leaders = || SOURCES.map(|source| cluster.leader(&stream(source), &[0, 1, 2]));
    eventually("two leaders", MINUTE, || {
        let [Some(facebook), Some(tiktok)] = leaders() else { return None };
        if facebook != tiktok {
            return Some(());
        }
        block_on(async {
            let client = async_nats::connect(cluster.servers[tiktok].url()).await.unwrap();
            let _ = client.request("$JS.API.STREAM.LEADER.STEPDOWN.ESS_TIKTOK", Bytes::new()).await;
        });
        std::thread::sleep(Duration::from_secs(1));
        None
    });
    cluster.wait_healthy();
}

/// Injects a fault into one server for 15 seconds under load, and records the streams' leaders meanwhile.
fn inject(cluster: &mut Cluster, fault: Fault, victim: usize, load: &[Load]) -> Vec<Effect> {
    let led: Vec<bool> =
        load.iter().map(|load| cluster.leader(&stream(load.source), &[victim]).is_some()).collect();
    let others: Vec<usize> = (0..3).filter(|server| *server != victim).collect();
    let before: Vec<u64> = load.iter().map(|load| load.tried.load(Ordering::Relaxed)).collect();
    let began = Instant::now();
    match fault {
        Fault::Kill => cluster.servers[victim].process.kill(),
        Fault::Pause | Fault::PauseTheGateways => cluster.signal(victim, "STOP"),
        Fault::Restart => cluster.signal(victim, "TERM"),
    }
    let mut leaderless = vec![Duration::ZERO; load.len()];
    let mut asked = Instant::now();
    while began.elapsed() < Duration::from_secs(15) {
        std::thread::sleep(Duration::from_millis(100));
        let missing: Vec<bool> =
            load.iter().map(|load| cluster.leader(&stream(load.source), &others).is_none()).collect();
        for (time, _) in leaderless.iter_mut().zip(missing).filter(|(_, missing)| *missing) {
            *time += asked.elapsed();
        }
        asked = Instant::now();
    }
    match fault {
        Fault::Pause | Fault::PauseTheGateways => cluster.signal(victim, "CONT"),
        Fault::Kill | Fault::Restart => cluster.servers[victim].start_again(),
    }
    std::thread::sleep(Duration::from_secs(1));
    cluster.wait_healthy();
    for (load, before) in load.iter().zip(before) {
        assert!(load.tried.load(Ordering::Relaxed) > before, "no load of {} during {fault:?}", load.source);
    }
    load.iter()
        .zip(led)
        .zip(leaderless)
        .map(|((load, touched), leaderless)| Effect {
            source: load.source,
            gap: load.longest_gap(began),
            leaderless,
            touched: touched || leaderless > Duration::from_millis(500),
        })
        .collect()
}

/// Kills the leader of one source, pauses the other's, pauses the gateway's server, and restarts another server.
fn inject_each(cluster: &mut Cluster, load: &[Load]) -> Vec<Effect> {
    let mut effects = Vec::new();
    for kind in [Fault::Kill, Fault::Pause, Fault::PauseTheGateways, Fault::Restart] {
        // On a busy machine the first attempt may be too slow.
        for attempt in 1..=2 {
            separate(cluster);
            let leader = |stream: &str| cluster.leader(stream, &[0, 1, 2]).expect("a leader");
            let victim = match kind {
                Fault::Kill => leader("ESS_FACEBOOK"),
                Fault::Pause => leader("ESS_TIKTOK"),
                Fault::PauseTheGateways => cluster.server_of("gateway").expect("its server"),
                Fault::Restart => (leader("ESS_TIKTOK") + 1) % 3,
            };
            let done = inject(cluster, kind, victim, load);
            let late = done.iter().any(|effect| effect.gap > effect.limit());
            for Effect { source, gap, leaderless, touched } in &done {
                println!(
                    "{kind:?} of {}: {source} {gap:.1?} without a 202 (its stream {leaderless:.1?} without \
                     a leader; led by the victim: {touched})",
                    Cluster::name(victim)
                );
            }
            effects.extend(done);
            if !late {
                break;
            }
            assert!(attempt < 2, "{kind:?}: a source was unavailable for too long, twice");
        }
    }
    effects
}

/// Runs `during` while every client of each load sends.
fn under_load<T>(load: &[Load], url: &str, during: impl FnOnce() -> T) -> T {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for load in load {
            for client in 0..CLIENTS {
                let stop = &stop;
                scope.spawn(move || load.run(url, client, stop));
            }
        }
        std::thread::sleep(Duration::from_secs(1));
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(during));
        stop.store(true, Ordering::Relaxed);
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Asserts that each acknowledged event of a load is stored.
fn assert_stored(load: &Load, stored: &HashSet<&String>, effects: &[Effect]) {
    let acknowledged = load.acknowledged.lock().unwrap();
    let (tried, failed) = (load.tried.load(Ordering::Relaxed), load.failed.load(Ordering::Relaxed));
    let longest = effects.iter().filter(|effect| effect.source == load.source).map(|effect| effect.gap).max();
    println!(
        "{}: {tried} sent, {} acknowledged, {failed} not; longest gap {:.1?}",
        load.source,
        acknowledged.len(),
        longest.unwrap_or_default()
    );
    assert!(acknowledged.len() > 1_000, "an empty run");
    let lost: Vec<_> = acknowledged.iter().filter(|id| !stored.contains(id)).collect();
    assert!(lost.is_empty(), "{} lost, such as {:?}", lost.len(), lost[0]);
}

#[test]
fn no_event_is_lost_when_a_server_of_a_cluster_is_killed_paused_or_restarted() {
    let (mut cluster, postgres) = (Cluster::start(), Postgres::start());
    let folder = tempfile::tempdir().unwrap();
    let database = postgres.url();
    let pairs = environment(&cluster, &[("DATABASE_URL", &database), ("ESS_NATS_REPLICAS", "3")]);
    let mut services: Vec<Service> =
        [&["gateway"][..], &["collector", "facebook"], &["collector", "tiktok"], &["reporter"]]
            .iter()
            .map(|arguments| Service::start(arguments, &pairs, folder.path()))
            .collect();
    for service in &mut services {
        service.wait_ready();
    }
    cluster.wait_healthy();
    let load: Vec<Load> = SOURCES.map(Load::new).into_iter().collect();
    let effects = under_load(&load, &services[0].url("/webhook"), || inject_each(&mut cluster, &load));
    let ledger = services[3].url("/ledger");
    let ledger = eventually("everything is stored", MINUTE * 2, || http::settled(&ledger));
    let rows = postgres.query("SELECT event_id FROM event_rows");
    let stored: HashSet<&String> = rows.iter().collect();
    assert_eq!(stored.len(), rows.len(), "none twice");
    let untouched = effects.iter().filter(|effect| !effect.touched).count();
    assert!(untouched >= 4, "each fault leaves a source untouched: {untouched}");
    load.iter().for_each(|load| assert_stored(load, &stored, &effects));
    for source in ledger["sources"].as_array().unwrap() {
        assert_eq!((&source["missing"], &source["quarantined"]), (&0.into(), &0.into()), "{ledger}");
    }
}

#[test]
fn a_request_during_seven_seconds_without_a_quorum_is_answered_202() {
    let cluster = Cluster::start();
    let folder = tempfile::tempdir().unwrap();
    let mut gateway =
        Service::start(&["gateway"], &environment(&cluster, &[("ESS_NATS_REPLICAS", "3")]), folder.path());
    gateway.wait_ready();
    let url = gateway.url("/webhook");
    assert_eq!(http::post(&url, &simple("before", "facebook").to_string()).unwrap().status, 202);
    cluster.wait_healthy();
    let leader = cluster.leader("ESS_FACEBOOK", &[0, 1, 2]).expect("a leader");
    let followers: Vec<usize> = (0..3).filter(|server| *server != leader).collect();
    for follower in &followers {
        cluster.signal(*follower, "STOP");
    }
    let answer = std::thread::scope(|scope| {
        let post = scope.spawn(|| http::post(&url, &simple("during", "facebook").to_string()).unwrap());
        std::thread::sleep(Duration::from_secs(7));
        for follower in &followers {
            cluster.signal(*follower, "CONT");
        }
        post.join().unwrap()
    });
    assert_eq!(answer.status, 202, "{}", answer.text);
    block_on(async {
        let client = async_nats::connect(cluster.servers[leader].url()).await.unwrap();
        let stream = async_nats::jetstream::new(client).get_stream("ESS_FACEBOOK").await.unwrap();
        assert_eq!(stream.cached_info().state.messages, 2, "each frame is there once");
    });
}

fn log_settings(pairs: &[(&str, &str)]) -> ess::config::LogSettings {
    Config::from_variables(&Variables::from_pairs(pairs.iter().copied()).unwrap()).unwrap().log
}

#[test]
fn a_gateway_keeps_replicas_that_an_operator_added_and_reports_a_full_stream() {
    let cluster = Cluster::start();
    let topic = Topic::Events(Source::FACEBOOK);
    block_on(async {
        let access = NatsAccess::default();
        let open = async |replicas: &str| {
            let settings = log_settings(&[("ESS_NATS_REPLICAS", replicas), ("ESS_LOG_MAX_BYTES", "1MiB")]);
            let log = JetStream::connect(&cluster.url(), "test", settings, &access, LogRole::Gateway)
                .await
                .unwrap();
            log.prepare(topic).await.unwrap();
            log
        };
        let client = async_nats::connect(cluster.servers[0].url()).await.unwrap();
        let context = async_nats::jetstream::new(client);
        let config = async || context.get_stream("ESS_FACEBOOK").await.unwrap().cached_info().config.clone();
        open("1").await;
        assert_eq!(config().await.num_replicas, 1);
        let mut edited = config().await;
        edited.num_replicas = 3;
        context.update_stream(&edited).await.unwrap();
        let log = open("1").await;
        assert_eq!(config().await.num_replicas, 3, "a gateway does not lower the number");
        cluster.wait_healthy();
        let appended = AtomicUsize::new(0);
        let full = loop {
            let n = appended.fetch_add(1, Ordering::Relaxed);
            assert!(n < 200, "it never fills");
            match log.append(topic, format!("f{n}"), Bytes::from(vec![7; 100_000])).await {
                Ok(_) => {}
                Err(AppendError::Unavailable(_)) => tokio::time::sleep(Duration::from_millis(100)).await,
                Err(error) => break error,
            }
        };
        assert!(matches!(full, AppendError::Full(_)), "{full:?}");
        drop(log);
    });
    // The gateway logs the difference once.
    let folder = tempfile::tempdir().unwrap();
    let mut gateway = Service::start(&["gateway"], &environment(&cluster, &[]), folder.path());
    gateway.wait_ready();
    let lines = eventually("the warning is logged", MINUTE, || {
        Some(gateway.lines("replicas is 3, settings say 1")).filter(|lines| !lines.is_empty())
    });
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(lines[0]["level"], "WARN", "{lines:?}");
}

#[test]
fn every_server_of_a_list_is_tried() {
    let cluster = Cluster::start();
    let away = crate::support::free_port();
    let folder = tempfile::tempdir().unwrap();
    let url = format!("nats://127.0.0.1:{away},{}", cluster.url());
    let pairs = vec![("NATS_URL".to_owned(), url)];
    let check = ess(&["check"], &pairs, folder.path()).output().unwrap();
    let output = String::from_utf8_lossy(&check.stdout);
    assert!(check.status.success(), "{output}");
    assert!(output.contains("3 of 4 servers") && output.contains(&format!(":{away}: ")), "{output}");
    let pairs =
        vec![("NATS_URL".to_owned(), Nats::url(&cluster.servers[0]) + "," + &cluster.servers[1].url())];
    let check = ess(&["check"], &pairs, folder.path()).output().unwrap();
    assert!(String::from_utf8_lossy(&check.stdout).contains("(JetStream, 2 servers)"), "{check:?}");
}

#[test]
fn a_server_that_is_away_is_named_and_counted_while_the_gateway_stays_ready() {
    let mut cluster = Cluster::start();
    let folder = tempfile::tempdir().unwrap();
    // A check before there are streams: the settings would make a single copy.
    let check = |replicas: &str| {
        let pairs = environment(&cluster, &[("ESS_NATS_REPLICAS", replicas)]);
        let done = ess(&["check"], &pairs, folder.path()).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
        String::from_utf8(done.stdout).unwrap()
    };
    let warning = "log: warning: the log of facebook has one copy in a cluster of 3 servers";
    assert!(check("1").contains(warning));
    assert!(!check("3").contains("warning"));
    let pairs = environment(&cluster, &[("ESS_NATS_REPLICAS", "3")]);
    let mut gateway = Service::start(&["gateway"], &pairs, folder.path());
    gateway.wait_ready();
    cluster.wait_healthy();
    assert!(!check("1").contains("warning"), "three copies are there");
    let copies = |of: &Service| of.metric("ess_log_copies{topic=\"facebook\"}");
    eventually("three copies are up to date", MINUTE, || (copies(&gateway) == 3.0).then_some(()));
    assert_eq!(gateway.metric("ess_log_copies_wanted{topic=\"facebook\"}"), 3.0);
    let leader = cluster.leader("ESS_FACEBOOK", &[0, 1, 2]).expect("a leader");
    let follower = (leader + 1) % 3;
    cluster.servers[follower].process.kill();
    let text = eventually("the server is named", MINUTE, || {
        let ready = http::get(&gateway.url("/ready")).ok()?;
        let degraded = ready.json()["degraded"]["log.facebook.copies"].as_str().map(str::to_owned);
        degraded.filter(|_| ready.status == 200)
    });
    assert!(text.starts_with("2 of 3 copies") && text.contains(&Cluster::name(follower)), "{text}");
    eventually("a copy is missing", MINUTE, || (copies(&gateway) == 2.0).then_some(()));
    let post = || http::post(&gateway.url("/webhook"), &simple("without", "facebook").to_string());
    eventually("events are taken", MINUTE, || post().ok().filter(|answer| answer.status == 202));
    cluster.servers[follower].start_again();
    cluster.wait_healthy();
    eventually("the copy is up to date again", MINUTE, || (copies(&gateway) == 3.0).then_some(()));
    let leader = cluster.leader("ESS_FACEBOOK", &[0, 1, 2]).expect("a leader");
    let elections = |of: &Service| of.metric("ess_log_leader_changes_total{topic=\"facebook\"}");
    let before = elections(&gateway);
    cluster.servers[leader].process.kill();
    eventually("the election is counted", MINUTE, || (elections(&gateway) > before).then_some(()));
}
