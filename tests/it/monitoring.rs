//! Prometheus and Grafana: alerts fire when they should, panels have data, queries name metrics that exist.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use ess::ops::metrics::catalog::{Kind, METRICS, Metric};
use regex_lite::Regex;
use serde_json::{Value, json};

use crate::support::events::simple;
use crate::support::haproxy::HaProxy;
use crate::support::process::Process;
use crate::support::system::System;
use crate::support::{MINUTE, eventually, free_port, http};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn yaml(path: &str) -> Value {
    serde_yaml_ng::from_str(&std::fs::read_to_string(root().join(path)).unwrap()).unwrap()
}

fn promtool(arguments: &[&str]) {
    let done =
        Command::new("promtool").args(arguments).current_dir(root()).output().expect("./test installs it");
    let output = [done.stdout, done.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(done.status.success(), "promtool {arguments:?}: {}", output.join("\n"));
}

/// The rules: recorded names, and alerts.
fn rules() -> (Vec<String>, Vec<Value>) {
    let (mut recorded, mut alerts) = (Vec::new(), Vec::new());
    for group in yaml("docker/prometheus/rules.yml")["groups"].as_array().unwrap() {
        for rule in group["rules"].as_array().unwrap() {
            match rule["record"].as_str() {
                Some(name) => recorded.push(name.to_owned()),
                None => alerts.push(rule.clone()),
            }
        }
    }
    (recorded, alerts)
}

#[test]
fn every_alert_has_a_test_that_fires_it_and_a_test_that_does_not() {
    promtool(&["check", "config", "docker/prometheus/prometheus.yml"]);
    promtool(&["test", "rules", "docker/prometheus/tests/alerts.yml"]);
    let tests = yaml("docker/prometheus/tests/alerts.yml");
    let is_tested = |name: &str, fires: bool| {
        let tests = tests["tests"].as_array().unwrap().iter();
        let mut all = tests.flat_map(|test| test["alert_rule_test"].as_array().unwrap());
        all.any(|test| {
            test["alertname"] == name && test["exp_alerts"].as_array().unwrap().is_empty() != fires
        })
    };
    let (_, alerts) = rules();
    assert!(alerts.len() >= 10);
    for alert in &alerts {
        let name = alert["alert"].as_str().unwrap();
        assert!(is_tested(name, true) && is_tested(name, false), "{name} needs a test of each");
        for part in ["summary", "description", "runbook"] {
            let text = alert["annotations"][part].as_str();
            assert!(text.is_some_and(|text| text.len() > 10), "{name}: {part}");
        }
        assert!(["warning", "critical"].contains(&alert["labels"]["severity"].as_str().unwrap()), "{name}");
    }
}

/// A panel's queries: dashboard, title, query.
fn queries() -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    for file in std::fs::read_dir(root().join("dashboards")).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let dashboard: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        for panel in dashboard["panels"].as_array().unwrap() {
            for target in panel["targets"].as_array().unwrap() {
                let text = |value: &Value| value.as_str().unwrap().to_owned();
                found.push((name.clone(), text(&panel["title"]), text(&target["expr"])));
            }
        }
    }
    found
}

#[test]
fn the_panels_that_operators_look_for_are_there() {
    let dashboard: Value =
        serde_json::from_str(&std::fs::read_to_string(root().join("dashboards/flow.json")).unwrap()).unwrap();
    for (title, kind, legends) in [
        ("Gateway", "stat", vec!["accepted", "processed", "failed"]),
        ("Collectors", "timeseries", vec!["accepted", "processed", "failed"]),
        ("Reporter", "timeseries", vec!["{{report}} p50", "{{report}} p95"]),
    ] {
        let panels = dashboard["panels"].as_array().unwrap();
        let panel = panels.iter().find(|panel| panel["title"] == title).expect(title);
        assert_eq!(panel["type"], kind);
        let shown: Vec<&str> = panel["targets"]
            .as_array()
            .unwrap()
            .iter()
            .map(|target| target["legendFormat"].as_str().unwrap())
            .collect();
        assert_eq!(shown, legends, "{title}");
        if title == "Collectors" {
            assert_eq!(panel["fieldConfig"]["defaults"]["custom"]["stacking"]["mode"], "normal");
        }
    }
}

#[test]
fn grafana_is_provisioned_with_the_dashboards_and_their_data_source() {
    let source = yaml("docker/grafana/provisioning/datasources/prometheus.yaml");
    let uid = &source["datasources"][0]["uid"];
    let mut ids = BTreeSet::new();
    for file in std::fs::read_dir(root().join("dashboards")).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        let dashboard: Value = serde_json::from_str(&text).unwrap();
        assert!(ids.insert(dashboard["uid"].as_str().unwrap().to_owned()), "each has a uid of its own");
        for panel in dashboard["panels"].as_array().unwrap() {
            assert_eq!(panel["datasource"]["uid"], *uid, "{}", panel["title"]);
        }
    }
    let provider = yaml("docker/grafana/provisioning/dashboards/ess.yaml");
    let mounted = yaml("compose.yaml")["services"]["grafana"]["volumes"].to_string();
    let path = provider["providers"][0]["options"]["path"].as_str().unwrap();
    assert!(mounted.contains(&format!("./dashboards:{path}:ro")), "{mounted}");
}

/// A Prometheus with the shipped configuration and rules, whose targets are these.
struct Prometheus {
    port: u16,
    _process: Process,
    _folder: tempfile::TempDir,
}

impl Prometheus {
    fn start(targets: &[(&str, u16)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = yaml("docker/prometheus/prometheus.yml");
        config["global"] = json!({"scrape_interval": "1s", "evaluation_interval": "1s"});
        config["rule_files"] = json!([root().join("docker/prometheus/rules.yml")]);
        let port = free_port();
        // This test starts no Grafana.
        config["scrape_configs"].as_array_mut().unwrap().retain(|job| job["job_name"] != "grafana");
        for job in config["scrape_configs"].as_array_mut().unwrap() {
            let name = job["job_name"].as_str().unwrap().to_owned();
            let target = match targets.iter().find(|(known, _)| *known == name) {
                Some((_, port)) => *port,
                None => port,
            };
            job.as_object_mut().unwrap().remove("dns_sd_configs");
            job["static_configs"] = json!([{"targets": [format!("127.0.0.1:{target}")]}]);
        }
        let file = folder.path().join("prometheus.yml");
        std::fs::write(&file, serde_yaml_ng::to_string(&config).unwrap()).unwrap();
        let mut command = Command::new("prometheus");
        let path = |name: &str, path: PathBuf| format!("--{name}={}", path.display());
        command.args([
            path("config.file", file),
            path("storage.tsdb.path", folder.path().join("data")),
            format!("--web.listen-address=127.0.0.1:{port}"),
        ]);
        let process = Process::spawn(command, &folder.path().join("prometheus.log"));
        let ready = format!("http://127.0.0.1:{port}/-/ready");
        eventually("Prometheus is ready", MINUTE, || {
            http::get(&ready).ok().filter(|answer| answer.status == 200)
        });
        Self { port, _process: process, _folder: folder }
    }

    /// The values that a query gives, or Prometheus's error.
    fn ask(&self, query: &str) -> Result<Vec<f64>, String> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let url = format!("http://127.0.0.1:{}/api/v1/query?query={encoded}", self.port);
        let answer = http::get(&url).map_err(|error| error.to_string())?;
        if answer.status != 200 {
            return Err(answer.text);
        }
        let body = answer.json();
        let value = |result: &Value| result["value"][1].as_str().unwrap().parse().unwrap();
        Ok(body["data"]["result"].as_array().unwrap().iter().map(value).collect())
    }
}

/// Names of metrics, and of recorded series, in a text of queries.
fn names_in(text: &str) -> BTreeSet<String> {
    let name = Regex::new(r"\b(ess_[a-z0-9_]+|ess:[a-z0-9_:]+)").unwrap();
    name.find_iter(text).map(|found| found.as_str().to_owned()).collect()
}

#[test]
fn panels_and_alerts_ask_for_every_metric_and_for_none_that_does_not_exist() {
    let (recorded, _) = rules();
    let mut queries: Vec<String> = queries().into_iter().map(|(.., query)| query).collect();
    queries.push(std::fs::read_to_string(root().join("docker/prometheus/rules.yml")).unwrap());
    let mut asked = BTreeSet::new();
    for found in queries.iter().flat_map(|query| names_in(query)) {
        if recorded.contains(&found) {
            continue;
        }
        // Runbooks name a histogram itself, queries its series.
        let series = |metric: &Metric| {
            let end = found.strip_prefix(metric.name).unwrap_or("of another metric");
            end.is_empty()
                || matches!(metric.kind, Kind::Histogram(_)) && ["_bucket", "_sum", "_count"].contains(&end)
        };
        let metric = METRICS.iter().find(|metric| series(metric));
        asked.insert(metric.unwrap_or_else(|| panic!("no service serves {found}")).name);
    }
    let unasked: Vec<_> = METRICS.iter().filter(|metric| !asked.contains(metric.name)).collect();
    assert!(unasked.is_empty(), "no panel and no alert shows {unasked:#?}");
}

/// A system on NATS and PostgreSQL behind HAProxy, PostgreSQL's exporter, and the Prometheus that scrapes all of it.
struct Scraped {
    system: System,
    haproxy: HaProxy,
    prometheus: Prometheus,
    _exporter: Process,
}

impl Scraped {
    fn start(settings: &[(&str, &str)]) -> Self {
        let mut system = System::real(settings);
        let haproxy = HaProxy::start(&[Ipv4Addr::LOCALHOST], system.service("gateway").port);
        let (exporter, exporter_port) = postgres_exporter(&mut system);
        let jobs = ["gateway", "collector-facebook", "collector-tiktok", "reporter"];
        let mut targets: Vec<(&str, u16)> = jobs.map(|job| (job, system.service(job).port)).to_vec();
        targets.extend([("haproxy", haproxy.metrics), ("postgres", exporter_port)]);
        let prometheus = Prometheus::start(&targets);
        haproxy.wait_gateways(1);
        Self { system, haproxy, prometheus, _exporter: exporter }
    }
}

/// Debian's exporter for the system's PostgreSQL, and its port. Panels use only metrics that the pinned version has too.
fn postgres_exporter(system: &mut System) -> (Process, u16) {
    let port = free_port();
    let mut command = Command::new("prometheus-postgres-exporter");
    command
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .env("DATA_SOURCE_NAME", format!("{}?sslmode=disable", system.postgres().url()));
    let process = Process::spawn(command, &system.folder.path().join("exporter.log"));
    eventually("the exporter reaches PostgreSQL", MINUTE, || {
        let url = format!("http://127.0.0.1:{port}/metrics");
        http::get(&url).ok().filter(|answer| answer.text.contains("\npg_up 1"))
    });
    (process, port)
}

#[test]
fn every_panel_and_recorded_series_has_data_under_load() {
    let scraped = Scraped::start(&[("ESS_ADMIN_TOKEN", "admin")]);
    let (system, prometheus) = (&scraped.system, &scraped.prometheus);
    let target = scraped.haproxy.url("/webhook");
    let load =
        "publisher --rate 1000 --batch 50 --duration 100s --duplicates 0.1 --invalid 0.05 --seed 7 --target";
    let load: Vec<&str> = load.split(' ').chain([target.as_str()]).collect();
    let mut publisher = Process::spawn(
        crate::support::process::ess(&load, &system.environment, system.folder.path()),
        &system.folder.path().join("publisher.log"),
    );
    let admin = [("Authorization", "Bearer admin")];
    let restart = system.gateway_url("/actors/gateway.validate.1/restart");
    assert_eq!(http::post_with(&restart, &admin, b"").unwrap().status, 202);
    let mut open: Vec<(String, String, String)> = queries();
    // No package carries the exporter of NATS, so its panels are checked against its source alone.
    open.retain(|(dashboard, ..)| dashboard != "nats.json");
    assert!(open.len() > 80, "{}", open.len());
    let started = std::time::Instant::now();
    while !open.is_empty() {
        for path in ["events", "revenue", "demographics"] {
            system.report(&format!("/reports/{path}"));
        }
        open.retain(|(dashboard, title, query)| {
            let found = prometheus
                .ask(query)
                .unwrap_or_else(|error| panic!("{dashboard}, {title}: {query}: {error}"));
            !found.iter().any(|value| value.is_finite())
        });
        assert!(started.elapsed() < MINUTE, "without data: {open:#?}");
        std::thread::sleep(Duration::from_secs(1));
    }
    for record in &rules().0 {
        eventually(&format!("{record} has data"), MINUTE, || {
            (!prometheus.ask(record).unwrap().is_empty()).then_some(())
        });
    }
    assert_eq!(prometheus.ask("sum(ess_ledger_missing_events)").unwrap(), [0.0]);
    assert!(prometheus.ask("max(ess_gateway_events_accepted_total)").unwrap()[0] > 0.0);
    assert_eq!(prometheus.ask("min by (job) (ess_ready)").unwrap(), [1.0; 4], "all dependencies answer");
    publisher.kill();
}

#[test]
fn prometheus_sees_a_collector_that_cannot_finish_drain_to_the_end() {
    let Scraped { mut system, prometheus, .. } = Scraped::start(&[]);
    let lock_statement = "BEGIN; LOCK TABLE event_rows IN EXCLUSIVE MODE; SELECT pg_sleep(600)";
    let mut lock = Command::new("psql");
    lock.args(["-X", "-q", "-d", &system.postgres().url(), "-c", lock_statement]);
    let mut lock = Process::spawn(lock, &system.folder.path().join("lock.log"));
    eventually("the rows are locked", MINUTE, || {
        let held = "SELECT 1 FROM pg_locks WHERE mode = 'ExclusiveLock' AND granted \
                    AND relation = 'event_rows'::regclass";
        (!system.postgres().query(held).is_empty()).then_some(())
    });
    assert_eq!(system.post(&simple("before", "facebook").to_string()).status, 202);
    eventually("a transaction waits for the lock", MINUTE, || {
        let waiting = "SELECT 1 FROM pg_locks WHERE NOT granted";
        (!system.postgres().query(waiting).is_empty()).then_some(())
    });
    let collector = system.service("collector-facebook");
    collector.process.signal("TERM");
    let url = collector.url("/metrics");
    let left = eventually("the collector is draining", MINUTE, || {
        (http::metric(&url, "ess_draining") == 1.0).then(|| http::metric(&url, "ess_drain_remaining_seconds"))
    });
    assert!((1.0..=30.0).contains(&left), "{left}");
    eventually("Prometheus sees the collector drain", MINUTE, || {
        prometheus.ask("ess_draining == 1").unwrap().first().copied()
    });
    lock.kill();
    system.postgres().query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
         WHERE query LIKE '%pg_sleep(600)%' AND pid <> pg_backend_pid()",
    );
    assert!(system.service("collector-facebook").process.wait(MINUTE).success());
}
