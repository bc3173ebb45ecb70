//! Images, compose files and manifests, as far as they can be checked without a container engine.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use ess::config::SETTINGS;
use serde_json::{Value, json};

use crate::support::haproxy::HaProxy;
use crate::support::nats::Nats;
use crate::support::postgres::{Kind, Postgres, kind, on, own, unprivileged};
use crate::support::process::{Process, ess};
use crate::support::{MINUTE, eventually, free_port, http, tool};

const OVERLAYS: [&str; 5] = ["development", "staging", "production", "real-publisher", "sources"];
const EXAMPLES: [&str; 4] = [".env.event", ".env.nats", ".env.database", ".env.log"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The compose file with overlays, as Compose itself reads and merges them by the specification's schema.
fn compose(overlays: &[&str]) -> Value {
    compose_in(root(), overlays)
}

fn compose_in(folder: &Path, overlays: &[&str]) -> Value {
    let mut command = Command::new(tool("docker-compose"));
    command.current_dir(folder).env_clear().args(["--file", "compose.yaml"]);
    for overlay in overlays {
        command.arg("--file").arg(format!("docker/compose.{overlay}.yaml"));
    }
    let done = command.args(["config", "--format", "json", "--no-path-resolution"]).output().unwrap();
    assert!(done.status.success(), "{overlays:?}: {}", String::from_utf8_lossy(&done.stderr));
    serde_json::from_slice(&done.stdout).unwrap()
}

fn services(config: &Value) -> impl Iterator<Item = (&str, &Value)> {
    config["services"].as_object().unwrap().iter().map(|(name, service)| (name.as_str(), service))
}

fn is_ess(service: &Value) -> bool {
    service["image"].as_str().is_some_and(|image| image.starts_with("ess:"))
}

fn texts(value: &Value) -> Vec<&str> {
    value
        .as_array()
        .map(|items| items.iter().map(|item| item.as_str().unwrap()).collect())
        .unwrap_or_default()
}

/// True if a name is a setting, or the variable that names a setting's file.
fn is_setting(name: &str) -> bool {
    SETTINGS.iter().any(|setting| setting.name == name || setting.file_name().as_deref() == Some(name))
}

#[test]
fn compose_files_keep_the_specification_and_wait_for_what_is_healthy() {
    let mut all = vec![compose(&[])];
    all.extend(OVERLAYS.map(|overlay| compose(&[overlay])));
    all.push(compose(&["staging", "development"]));
    all.push(compose(&["production", "providers"]));
    all.push(compose(&["cluster"]));
    all.push(compose(&["pooler"]));
    all.push(compose(&["cluster", "pooler"]));
    for config in &all {
        for (name, service) in services(config) {
            let image = service["image"].as_str().unwrap();
            // The real publisher has no versions.
            let pinned = image.split_once(':').is_some_and(|(_, tag)| tag.contains('.'));
            assert!(pinned || is_ess(service) || image == "andriiuni/events", "{name}: {image}");
            assert!(service["container_name"].is_null(), "{name} could not be scaled");
            // Images that hold nothing which could ask.
            let serves = name != "publisher" && !name.starts_with("nats-exporter");
            assert_eq!(service["healthcheck"]["test"].is_array(), serves, "{name}");
            for (other, needed) in service["depends_on"].as_object().into_iter().flatten() {
                assert_eq!(needed["condition"], "service_healthy", "{name} needs {other}");
            }
            for mount in service["volumes"].as_array().into_iter().flatten() {
                let source = mount["source"].as_str().unwrap();
                match mount["type"].as_str().unwrap() {
                    "bind" => {
                        assert!(root().join(source).exists(), "{name}: {source} is not there");
                        assert_eq!(mount["read_only"], true, "{name}: {source}");
                    }
                    _ => assert!(config["volumes"].get(source).is_some(), "{name}: {source} has no name"),
                }
            }
            assert_eq!(
                service["build"].is_object(),
                name == "gateway",
                "{name}: one builds the image of all"
            );
            if is_ess(service) {
                assert_eq!(
                    (&service["read_only"], &service["cap_drop"]),
                    (&json!(true), &json!(["ALL"])),
                    "{name}"
                );
                for variable in service["environment"].as_object().unwrap().keys() {
                    let known = is_setting(variable) || variable.starts_with("POSTGRES_");
                    assert!(known, "{name}: {variable} is no setting");
                }
            }
        }
    }
    let plain = &all[0];
    let names: Vec<&str> = services(plain).map(|(name, _)| name).collect();
    let expected = [
        "fb-collector",
        "gateway",
        "grafana",
        "haproxy",
        "nats",
        "nats-exporter",
        "postgres",
        "postgres-exporter",
        "prometheus",
        "publisher",
        "reporter",
        "ttk-collector",
    ];
    assert_eq!(names, expected);
    // The webhook is at one port however many gateways run; only HAProxy publishes it.
    let ports = &plain["services"]["haproxy"]["ports"];
    assert_eq!((&ports[0]["published"], &ports[0]["target"]), (&json!("3000"), &json!(3000)), "{ports}");
    assert!(plain["services"]["gateway"]["ports"].is_null());
    assert!(plain["services"]["fb-collector"]["ports"].is_null());
    // On this machine alone.
    for (name, service) in services(&all[1]) {
        for port in service["ports"].as_array().into_iter().flatten() {
            assert_eq!(port["host_ip"], "127.0.0.1", "{name}");
        }
    }
    let projects: Vec<&str> = all.iter().map(|config| config["name"].as_str().unwrap()).collect();
    assert_eq!(projects[..4], ["ess", "ess", "ess-staging", "ess-production"], "data of its own");
    // In production every secret comes from a file.
    let production = &all[OVERLAYS.len() + 2];
    for (name, service) in services(production) {
        for (variable, value) in service["environment"].as_object().into_iter().flatten() {
            let secret = SETTINGS.iter().any(|setting| setting.secret && setting.name == variable)
                || variable.contains("PASSWORD") && !variable.ends_with("_FILE");
            let value = value.as_str().unwrap_or_default();
            assert!(!secret || value.is_empty() || variable == "NATS_URL", "{name}: {variable}={value}");
            if let Some(secret) = value.strip_prefix("/run/secrets/") {
                let given = service["secrets"].as_array().unwrap();
                assert!(given.iter().any(|given| given["source"] == secret), "{name} has no {secret}");
            }
        }
    }
    assert!(services(production).all(|(name, _)| name != "publisher"));
    assert!(
        production["services"]["reporter"]["environment"]["DATABASE_URL"] == "",
        "it reads as another role"
    );
}

#[test]
fn the_example_files_name_settings_alone() {
    for file in EXAMPLES {
        let text = read(&format!("{file}.example"));
        let names =
            text.lines().filter_map(|line| line.strip_prefix('#')?.split_once('=').map(|(name, _)| name));
        let names: Vec<&str> = names.filter(|name| !name.contains(' ')).collect();
        assert!(!names.is_empty(), "{file}");
        for name in names {
            assert!(is_setting(name) || name.starts_with("POSTGRES_"), "{file}: {name}");
        }
    }
}

#[test]
fn what_the_example_files_name_reaches_the_services() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(root().join("compose.yaml"), folder.path().join("compose.yaml")).unwrap();
    std::fs::create_dir_all(folder.path().join("docker/env")).unwrap();
    for name in ["event.env", "gateway.env", "nats.env", "database.env", "postgres.env"] {
        let path = Path::new("docker/env").join(name);
        std::fs::copy(root().join(&path), folder.path().join(&path)).unwrap();
    }
    let mut names = Vec::new();
    for file in EXAMPLES {
        let mut set = String::new();
        for line in read(&format!("{file}.example")).lines() {
            let Some((name, _)) = line.strip_prefix('#').and_then(|line| line.split_once('=')) else {
                continue;
            };
            if !name.contains(' ') {
                set += &format!("{name}=changed-{name}\n");
                names.push((file, name.to_owned()));
            }
        }
        std::fs::write(folder.path().join(file), set).unwrap();
    }
    let config = compose_in(folder.path(), &[]);
    for (file, name) in names {
        let reached: Vec<&str> = services(&config)
            .filter(|(_, service)| service["environment"][&name] == format!("changed-{name}"))
            .map(|(service, _)| service)
            .collect();
        let expected: &[&str] = match file {
            ".env.event" => &["gateway", "publisher"],
            ".env.nats" => &["fb-collector", "gateway", "reporter", "ttk-collector"],
            ".env.database" => {
                &["fb-collector", "postgres", "postgres-exporter", "reporter", "ttk-collector"]
            }
            _ => &["fb-collector", "gateway", "publisher", "reporter", "ttk-collector"],
        };
        assert_eq!(reached, expected, "{file}: {name}");
    }
}

#[test]
fn the_dockerfile_is_clean_and_builds_what_is_there() {
    let linted =
        Command::new(tool("hadolint")).current_dir(root()).arg("docker/Dockerfile").output().unwrap();
    assert!(linted.status.success(), "{}", String::from_utf8_lossy(&linted.stdout));
    let dockerfile = read("docker/Dockerfile").replace("\\\n", " ");
    let ignored = read(".dockerignore");
    for line in dockerfile.lines().filter(|line| line.starts_with("COPY ") && !line.contains("--from")) {
        let sources: Vec<&str> = line.split_whitespace().skip(1).collect();
        for source in &sources[..sources.len() - 1] {
            assert!(root().join(source).exists(), "{source}");
            let top = source.split('/').next().unwrap();
            assert!(
                ignored.lines().any(|line| line == format!("!{top}")),
                "{source} is not sent to the engine"
            );
        }
    }
    // Cargo wants a file for each target that the manifest names, in the layer of dependencies too.
    let manifest = read("Cargo.toml");
    let targets = [
        "tests/it/main.rs",
        "benches/pipeline/main.rs",
        "benches/hostile.rs",
        "benches/stages.rs",
        "benches/reports.rs",
    ];
    for target in targets {
        assert!(dockerfile.contains(target) && root().join(target).exists(), "{target}");
    }
    assert_eq!(manifest.matches("[[bench]]").count() + manifest.matches("[[test]]").count(), targets.len());
    assert!(dockerfile.contains("USER 10001:10001"), "not root");
    assert!(dockerfile.contains(
        r#"HEALTHCHECK --interval=5s --timeout=6s --start-period=60s --retries=3 CMD ["ess", "health"]"#
    ));
    for name in ["ESS_LISTEN", "ESS_DATA_DIR"] {
        assert!(dockerfile.contains(&format!("{name}=")) && is_setting(name));
    }
    for setting in
        SETTINGS.iter().filter(|setting| setting.name.starts_with("ESS_") && setting.name.ends_with("_PORT"))
    {
        let exposed = dockerfile.lines().find(|line| line.starts_with("EXPOSE ")).unwrap();
        assert!(exposed.split(' ').any(|port| port == setting.default), "{}", setting.name);
    }
}

/// PostgreSQL with the shipped settings. The unpacked version 18 lacks lz4, which Debian's packages and the image have.
fn shipped_postgres() -> Postgres {
    let mut settings = read("docker/postgresql.conf");
    if kind() == Kind::Eighteen {
        settings = settings.replace("wal_compression = lz4", "wal_compression = on");
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), settings).unwrap();
    Postgres::start_with_files(&[("postgresql.conf", file.path())], &["fsync=off"])
}

/// Lines of a configuration without comments, indentation and empty lines.
fn settings_of(text: &str) -> Vec<String> {
    let lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    lines.filter(|line| !line.is_empty() && !line.starts_with(['#', ';'])).collect()
}

#[test]
fn manifests_have_the_settings_of_the_shipped_configuration_files() {
    let all = manifests();
    let manifest = |name: &str, file: &str| {
        let found = all.iter().find(|(_, it)| it["kind"] == "ConfigMap" && it["metadata"]["name"] == name);
        settings_of(found.expect(name).1["data"][file].as_str().unwrap())
    };
    assert_eq!(manifest("postgres", "postgresql.conf"), settings_of(&read("docker/postgresql.conf")));
    assert_eq!(manifest("pgbouncer", "pgbouncer.ini"), settings_of(&read("docker/pgbouncer.ini")));
    let mut nats = settings_of(&read("docker/nats.conf"));
    nats.extend(settings_of(&read("docker/nats-cluster.conf")));
    // Servers have other names there, and one file holds everything.
    let own = |line: &String| !line.starts_with("routes:") && !line.starts_with("include ");
    nats.retain(own);
    let mut there = manifest("nats", "nats.conf");
    there.retain(own);
    assert_eq!(there, nats);
    // PostgreSQL 18 keeps its data below this folder, not in the one that images of earlier versions used.
    let compose = compose(&[]);
    let mounted = compose["services"]["postgres"]["volumes"].as_array().unwrap();
    assert!(mounted.iter().any(|mount| mount["target"] == "/var/lib/postgresql"), "{mounted:?}");
    let server =
        all.iter().find(|(_, it)| it["kind"] == "StatefulSet" && it["metadata"]["name"] == "postgres");
    let container = &server.unwrap().1["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["image"], compose["services"]["postgres"]["image"]);
    let mounted = container["volumeMounts"].as_array().unwrap();
    assert!(mounted.iter().any(|mount| mount["mountPath"] == "/var/lib/postgresql"), "{mounted:?}");
}

#[test]
fn the_overlay_of_a_cluster_has_three_servers_three_copies_and_two_of_each_service() {
    let config = compose(&["cluster"]);
    let service = |name: &str| &config["services"][name];
    for name in ["gateway", "fb-collector", "ttk-collector", "reporter"] {
        assert_eq!(service(name)["deploy"]["replicas"], 2, "{name}");
        let environment = &service(name)["environment"];
        assert_eq!(environment["ESS_NATS_REPLICAS"], "3", "{name}");
        let urls: Vec<&str> = environment["NATS_URL"].as_str().unwrap().split(',').collect();
        assert_eq!(urls, ["nats://nats:4222", "nats://nats-2:4222", "nats://nats-3:4222"], "{name}");
    }
    let routes = read("docker/nats-cluster.conf");
    for name in ["nats", "nats-2", "nats-3"] {
        assert_eq!(service(name)["environment"]["NATS_SERVER_NAME"], name);
        assert!(routes.contains(&format!("\"nats://{name}:6222\"")), "{name}");
        let volumes = service(name)["volumes"].as_array().unwrap();
        assert!(volumes.iter().any(|mount| mount["source"] == name && mount["target"] == "/data"), "{name}");
    }
    // The shipped files as they are mounted, which the cluster's tests run with other addresses.
    let folder = root().join("docker");
    let checked = Command::new(tool("nats-server"))
        .args(["-t", "-c", "nats-cluster.conf"])
        .env("NATS_SERVER_NAME", "nats")
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

#[test]
fn services_reach_postgresql_through_the_shipped_pooler() {
    let postgres = Postgres::start();
    postgres.query("ALTER ROLE ess PASSWORD 'ess'");
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let users = folder.path().join("userlist.txt");
    std::fs::copy(root().join("docker/userlist.txt"), &users).unwrap();
    let settings = read("docker/pgbouncer.ini")
        .replace("host=postgres port=5432", &format!("host=127.0.0.1 port={}", postgres.port))
        .replace("listen_addr = 0.0.0.0", "listen_addr = 127.0.0.1")
        .replace("listen_port = 6432", &format!("listen_port = {port}"))
        .replace("/etc/pgbouncer/userlist.txt", &users.display().to_string());
    let file = folder.path().join("pgbouncer.ini");
    std::fs::write(&file, settings).unwrap();
    own(folder.path());
    let mut command = unprivileged(Path::new("/usr/sbin/pgbouncer"));
    command.arg(&file);
    let _pooler = Process::spawn(command, &folder.path().join("pgbouncer.log"));
    eventually("PgBouncer listens", MINUTE, || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
    let config = compose(&["pooler"]);
    for name in ["fb-collector", "ttk-collector", "reporter"] {
        let shipped = config["services"][name]["environment"]["DATABASE_URL"].as_str().unwrap();
        let url = shipped.replace("@pgbouncer:6432", &format!("@127.0.0.1:{port}"));
        assert_ne!(url, shipped, "{name}");
        let environment = [("DATABASE_URL".to_owned(), url)];
        for arguments in [&["migrate"][..], &["check"]] {
            let done = ess(arguments, &environment, folder.path()).output().unwrap();
            assert!(done.status.success(), "{name}: {}", String::from_utf8_lossy(&done.stdout));
        }
    }
    assert!(!postgres.query("SELECT 1 FROM seaql_migrations").is_empty());
}

/// A container of ours as a process: its command and environment, with the servers where they are here.
fn start(
    name: &str,
    service: &Value,
    nats: &Nats,
    postgres: &Postgres,
    folder: &Path,
) -> (Process, Vec<(String, String)>, u16) {
    let own = service["expose"]
        .get(0)
        .and_then(Value::as_str)
        .map(|port| port.parse::<u16>().unwrap())
        .or_else(|| service["ports"][0]["target"].as_u64().map(|port| port as u16))
        .unwrap_or(0);
    let mut environment: Vec<(String, String)> = Vec::new();
    for (variable, value) in service["environment"].as_object().unwrap() {
        let value = value
            .as_str()
            .unwrap()
            .replace("nats://nats:4222", &nats.url())
            .replace("postgres://ess:ess@postgres:5432/ess", &postgres.url());
        environment.push((variable.clone(), value));
    }
    // Variables that the image sets, with this machine's values. Its listen address is left out.
    environment.push(("ESS_DATA_DIR".to_owned(), folder.display().to_string()));
    let arguments = texts(&service["command"]);
    // By default it listens where the compose file says; here on a port that is free.
    let setting =
        SETTINGS.iter().find(|setting| setting.name.ends_with("_PORT") && setting.default == own.to_string());
    let setting = setting.unwrap_or_else(|| panic!("{name}: {own}"));
    let port = free_port();
    environment.push((setting.name.to_owned(), port.to_string()));
    // `ess health` asks all ports of this machine: others' services may be on the defaults.
    for other in SETTINGS.iter().filter(|other| other.name.ends_with("_PORT") && other.name != setting.name) {
        environment.push((other.name.to_owned(), free_port().to_string()));
    }
    let process = Process::spawn(ess(&arguments, &environment, folder), &folder.join(format!("{name}.log")));
    (process, environment, port)
}

#[test]
fn every_command_and_health_check_of_the_compose_file_runs_on_its_postgresql() {
    // The version of the compose file.
    on(Kind::Eighteen, every_command_and_health_check_of_the_compose_file_runs);
}

fn every_command_and_health_check_of_the_compose_file_runs() {
    let config = compose(&[]);
    let nats = Nats::start();
    // The shipped settings, in a real server.
    let postgres = shipped_postgres();
    let folder = tempfile::tempdir().unwrap();
    let mut running = Vec::new();
    for name in ["gateway", "fb-collector", "ttk-collector", "reporter"] {
        let service = &config["services"][name];
        let (process, environment, port) = start(name, service, &nats, &postgres, folder.path());
        let check = texts(&service["healthcheck"]["test"]);
        assert_eq!(check[..2], ["CMD", "ess"], "{name}");
        eventually(&format!("{name} is healthy"), MINUTE, || {
            let done = ess(&check[2..], &environment, folder.path()).output().unwrap();
            done.status.success().then_some(())
        });
        running.push((name, process, port));
    }
    let haproxy = HaProxy::start(&[Ipv4Addr::LOCALHOST], running[0].2);
    let check = texts(&config["services"]["haproxy"]["healthcheck"]["test"]).pop().unwrap();
    assert_eq!(check, "http://127.0.0.1:8404/health");
    eventually("HAProxy is healthy", MINUTE, || {
        http::get(&haproxy.metrics_url("/health")).ok().filter(|answer| answer.status == 200)
    });
    let target = haproxy.url("/webhook");
    let publisher = &config["services"]["publisher"];
    let endpoint = publisher["environment"]["EVENT_ENDPOINT"].as_str().unwrap();
    assert_eq!(endpoint, "http://haproxy:3000/webhook");
    let environment = vec![("EVENT_ENDPOINT".to_owned(), target)];
    let mut sending = texts(&publisher["command"]);
    sending.extend(["--duration", "2s", "--json"]);
    let sent = ess(&sending, &environment, folder.path()).output().unwrap();
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stdout));
    let sent: Value = serde_json::from_slice(&sent.stdout).unwrap();
    let ledger = format!("http://127.0.0.1:{}/ledger", running[3].2);
    eventually("all is stored", MINUTE, || http::settled(&ledger));
    assert_eq!(postgres.query("SELECT count(*) FROM event_rows"), [sent["accepted"].to_string()]);
    // A stop drains within what Compose allows, and says so.
    for (name, process, _) in &mut running {
        process.signal("TERM");
        assert!(process.wait(Duration::from_secs(40)).success(), "{name}: {}", process.output());
        let grace = config["services"][*name]["stop_grace_period"].as_str().unwrap();
        assert!(humantime_seconds(grace) > 30, "{name}: {grace}");
    }
}

/// `1m30s` or `40s`, as Compose writes it.
fn humantime_seconds(text: &str) -> u64 {
    let (minutes, rest) = text.split_once('m').unwrap_or(("0", text));
    let seconds = rest.trim_end_matches('s');
    minutes.parse::<u64>().unwrap() * 60
        + if seconds.is_empty() { 0 } else { seconds.parse::<u64>().unwrap() }
}

#[test]
fn the_servers_health_checks_and_settings_are_what_these_servers_know() {
    let config = compose(&[]);
    // NATS, with its monitoring port.
    let monitoring = free_port();
    let nats = Nats::start_with(&format!("http: 127.0.0.1:{monitoring}"));
    let check = texts(&config["services"]["nats"]["healthcheck"]["test"]);
    let url = check.last().unwrap().replace("127.0.0.1:8222", &format!("127.0.0.1:{monitoring}"));
    assert_eq!(http::get(&url).unwrap().status, 200, "{url}");
    drop(nats);
    let shipped = read("docker/nats.conf");
    assert!(shipped.contains("http_port: 8222") && shipped.contains("store_dir: /data"));
    assert!(texts(&config["services"]["nats"]["command"]).contains(&"/etc/nats/nats.conf"));
    // PostgreSQL.
    let postgres = shipped_postgres();
    for (setting, value) in
        [("shared_buffers", "1GB"), ("wal_compression", "lz4"), ("synchronous_commit", "on")]
    {
        assert_eq!(postgres.query(&format!("SHOW {setting}")), [value], "{setting}");
    }
    let check = config["services"]["postgres"]["healthcheck"]["test"][1].as_str().unwrap().replace("$$", "$");
    let asked = Command::new("sh")
        .args(["-c", &check])
        .envs([("POSTGRES_USER", "ess"), ("POSTGRES_DB", "ess"), ("PGPORT", &postgres.port.to_string())])
        .status();
    assert!(asked.unwrap().success(), "{check}");
    // The script that makes the reporter's role, as the image runs it.
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    std::fs::write(&password, "it's read-0nly\n").unwrap();
    let script = read("docker/postgres/reporter-role.sh")
        .replace("/etc/ess", &root().join("docker/postgres").display().to_string());
    let made = Command::new("sh")
        .args(["-c", &script])
        .envs([("POSTGRES_USER", "ess"), ("POSTGRES_DB", "ess"), ("PGHOST", "127.0.0.1")])
        .env("PGPORT", postgres.port.to_string())
        .env("ESS_REPORTER_PASSWORD_FILE", &password)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    assert_eq!(postgres.try_query_as("ess_reporter", "SELECT current_user").unwrap().trim(), "ess_reporter");
    // Prometheus and Grafana are asked where they listen.
    for (name, port, path) in [("prometheus", "9090", "/-/ready"), ("grafana", "3005", "/api/health")] {
        let service = &config["services"][name];
        let url = texts(&service["healthcheck"]["test"]).pop().unwrap().to_owned();
        assert_eq!(url, format!("http://127.0.0.1:{port}{path}"));
        assert_eq!(service["ports"][0]["target"].to_string(), port);
    }
    let prometheus: Value = serde_yaml_ng::from_str(&read("docker/prometheus/prometheus.yml")).unwrap();
    let config = compose(&["sources"]);
    for job in prometheus["scrape_configs"].as_array().unwrap() {
        let Some(found) = job["dns_sd_configs"].get(0) else { continue };
        let service = &config["services"][found["names"][0].as_str().unwrap()];
        let target = service["expose"][0].as_str().map(|port| port.parse().unwrap());
        assert_eq!(found["port"].as_u64(), target.or(service["ports"][0]["target"].as_u64()), "{job}");
    }
}

/// Every document of the manifests.
fn manifests() -> Vec<(PathBuf, Value)> {
    let mut all = Vec::new();
    let mut folders = vec![root().join("docker/kubernetes")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            use serde::Deserialize;
            let text = std::fs::read_to_string(&path).unwrap();
            for document in serde_yaml_ng::Deserializer::from_str(&text) {
                all.push((path.clone(), Value::deserialize(document).unwrap()));
            }
        }
    }
    all
}

#[test]
fn kubernetes_manifests_keep_their_schemas_and_fit_the_binary() {
    let all = manifests();
    let mut files: Vec<&PathBuf> = all.iter().map(|(path, _)| path).collect();
    files.dedup();
    let plain = files.iter().filter(|path| !path.ends_with("kustomization.yaml"));
    let checked = Command::new("python3")
        .args(["-m", "kubernetes_validate", "--strict"])
        .args(plain)
        .env("PYTHONPATH", tool("kubernetes"))
        .output()
        .unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&checked.stdout), String::from_utf8_lossy(&checked.stderr));
    assert!(checked.status.success() && !said.contains("ERROR"), "{said}");

    let base = |path: &Path| path.parent().unwrap().ends_with("base");
    let of_kind = |kind: &str| -> Vec<&Value> {
        all.iter().filter(|(path, it)| base(path) && it["kind"] == kind).map(|(_, it)| it).collect()
    };
    let settings = of_kind("ConfigMap")[0]["data"].as_object().unwrap();
    assert!(settings.keys().all(|name| is_setting(name)), "{settings:?}");
    let seconds = |name: &str| settings[name].as_str().unwrap().trim_end_matches('s').parse::<u64>().unwrap();
    let (_, secret) = all.iter().find(|(_, it)| it["kind"] == "Secret").unwrap();
    let deployments = of_kind("Deployment");
    assert_eq!(deployments.len(), 5);
    for deployment in deployments {
        let name = &deployment["metadata"]["name"];
        let pod = &deployment["spec"]["template"]["spec"];
        assert_eq!(pod["enableServiceLinks"], false, "{name}");
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{name}");
        let ending = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
        assert!(ending > seconds("ESS_DRAIN_GRACE") + seconds("ESS_DRAIN_TIMEOUT"), "{name}: {ending}");
        let container = &pod["containers"][0];
        assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true, "{name}");
        let help = ess(&texts(&container["args"]), &[("NATS_URL".to_owned(), "x".to_owned())], root())
            .output()
            .unwrap();
        // The error is about the URL, so the command line was accepted.
        assert!(String::from_utf8_lossy(&help.stderr).contains("NATS_URL"), "{name}");
        for variable in container["env"].as_array().unwrap() {
            let variable_name = variable["name"].as_str().unwrap();
            assert!(is_setting(variable_name), "{name}: {variable_name}");
            let from = &variable["valueFrom"]["secretKeyRef"];
            assert_eq!(
                (&from["name"], &from["key"]),
                (&secret["metadata"]["name"], &variable["name"]),
                "{name}"
            );
            let optional = from["optional"] == true;
            assert!(optional || secret["stringData"].get(variable_name).is_some(), "{name}: {variable_name}");
        }
        let port = container["ports"][0]["containerPort"].to_string();
        assert!(
            SETTINGS.iter().any(|setting| setting.name.ends_with("_PORT") && setting.default == port),
            "{name}"
        );
        for (probe, path) in [
            ("startupProbe", "/health/live"),
            ("livenessProbe", "/health/live"),
            ("readinessProbe", "/health/ready"),
        ] {
            assert_eq!(container[probe]["httpGet"]["path"], path, "{name}");
        }
        for kind in ["Service", "PodDisruptionBudget", "HorizontalPodAutoscaler"] {
            assert!(of_kind(kind).iter().any(|it| it["metadata"]["name"] == *name), "{name} has no {kind}");
        }
    }
    // The files that kustomizations name exist, and every patch has a target.
    for (path, it) in all.iter().filter(|(_, it)| it["kind"] == "Kustomization") {
        let folder = path.parent().unwrap();
        for resource in texts(&it["resources"]) {
            assert!(folder.join(resource).exists(), "{}: {resource}", path.display());
        }
        for patch in it["patches"].as_array().into_iter().flatten() {
            let file = folder.join(patch["path"].as_str().unwrap());
            for (_, patch) in all.iter().filter(|(path, _)| *path == file) {
                let same = |it: &&Value| it["metadata"]["name"] == patch["metadata"]["name"];
                assert!(
                    of_kind(patch["kind"].as_str().unwrap()).iter().any(same),
                    "{}: {patch}",
                    file.display()
                );
            }
        }
    }
}
