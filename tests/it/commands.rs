//! The command line: help, exit codes, configuration, and messages about missing dependencies.

use std::path::Path;
use std::process::Output;
use std::time::Duration;

use serde_json::Value;

use crate::support::postgres::Postgres;
use crate::support::process::{Process, Service, ess};
use crate::support::system::System;
use crate::support::{MINUTE, eventually, free_port, http};

fn run(arguments: &[&str], environment: &[(&str, &str)], folder: &Path) -> Output {
    let environment: Vec<_> =
        environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    ess(arguments, &environment, folder).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn wrong_usage_and_wrong_configuration_exit_with_2_and_one_line_of_error() {
    let folder = tempfile::tempdir().unwrap();
    for (arguments, environment, message) in [
        (&["gateway"][..], &[][..], "NATS_URL is not set"),
        (&["collector", "facebook"], &[], "NATS_URL is not set"),
        (&["collector", "tiktok"], &[("NATS_URL", "nats://127.0.0.1:1")], "DATABASE_URL is not set"),
        (&["reporter"], &[], "DATABASE_URL is not set"),
        (&["up"], &[("ESS_MAX_BODY", "lots")], "ESS_MAX_BODY"),
        (&["gateway"], &[("NATS_URL", "http://x")], "NATS_URL"),
        (&["up"], &[("ESS_LOG_MAX_AGE", "50ms")], "ESS_LOG_MAX_AGE"),
        (&["up"], &[("LOG_LEVEL", "a=b=c")], "LOG_LEVEL"),
        (&["publisher", "--target", "ftp://x"], &[], "ftp://x"),
    ] {
        let output = run(arguments, environment, folder.path());
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
        let errors: Vec<_> =
            stderr(&output).lines().filter(|line| line.starts_with("ess:")).map(str::to_owned).collect();
        assert_eq!(errors.len(), 1, "{arguments:?}: {}", stderr(&output));
        assert!(errors[0].contains(message), "{arguments:?}: {}", errors[0]);
    }
    for arguments in [&["collector", "myspace"][..], &["frobnicate"], &["publisher", "--batch", "9..1"], &[]]
    {
        let output = run(arguments, &[], folder.path());
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn a_port_that_is_taken_is_named_and_ends_the_command_with_1() {
    let folder = tempfile::tempdir().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = port.local_addr().unwrap().port().to_string();
    let output = run(&["up"], &[("ESS_GATEWAY_PORT", &taken)], folder.path());
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains(&format!("cannot listen on 127.0.0.1:{taken}")), "{}", stderr(&output));
}

#[test]
fn every_command_has_a_help_text() {
    let folder = tempfile::tempdir().unwrap();
    for command in [
        "demo",
        "up",
        "gateway",
        "collector",
        "reporter",
        "publisher",
        "migrate",
        "check",
        "health",
        "top",
        "tail",
    ] {
        let output = run(&[command, "--help"], &[], folder.path());
        assert_eq!(output.status.code(), Some(0), "{command}");
        assert!(output.stdout.len() > 60, "{command}");
    }
    let help = String::from_utf8(run(&["publisher", "--help"], &[], folder.path()).stdout).unwrap();
    for option in [
        "--target",
        "--source",
        "--rate",
        "--batch",
        "--connections",
        "--duration",
        "--duplicates",
        "--invalid",
        "--late",
        "--seed",
        "--token",
        "--json",
    ] {
        assert!(help.contains(option), "{option}");
    }
}

#[test]
fn env_files_are_read_in_order_and_the_environment_takes_precedence() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(".env"), "ESS_MAX_BODY=10MiB\n").unwrap();
    std::fs::write(folder.path().join(".env.log"), "LOG_LEVEL=warn\nESS_MAX_BODY=20MiB\n").unwrap();
    std::fs::write(folder.path().join(".env.database"), "DATABASE_URL=postgres://u:hidden@127.0.0.1:1/x\n")
        .unwrap();
    let output = run(
        &["check"],
        &[("ESS_MAX_DELIVERIES", "7"), ("ESS_ADMIN_TOKEN", "hunter2"), ("ESS_TYPO", "1")],
        folder.path(),
    );
    assert_eq!(output.status.code(), Some(1), "the database is not there");
    let shown = String::from_utf8(output.stdout.clone()).unwrap();
    for line in [
        "ESS_MAX_BODY=10MiB",
        "LOG_LEVEL=warn",
        "ESS_MAX_DELIVERIES=7",
        "ESS_ADMIN_TOKEN=***",
        "NATS_URL=(unset)",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line}: {shown}");
    }
    assert!(!shown.contains("hidden") && !shown.contains("hunter2"), "{shown}");
    assert!(shown.contains("log: ok") && shown.contains("database: FAILED"), "{shown}");
    assert!(stderr(&output).contains("ESS_TYPO"), "a warning names the unknown setting: {}", stderr(&output));
    let output = run(&["check"], &[("DATABASE_URL", "sqlite://x.db?mode=rwc")], folder.path());
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn ess_health_exits_with_0_only_if_the_local_services_are_ready() {
    let system = System::embedded(&[]);
    // Collectors may become ready a moment after gateway and reporter.
    eventually("all services are ready", MINUTE, || {
        (system.ess(&["health"]).status.code() == Some(0)).then_some(())
    });
    let folder = tempfile::tempdir().unwrap();
    let port = free_port().to_string();
    assert_eq!(run(&["health"], &[("PORT", &port)], folder.path()).status.code(), Some(1));
    // A gateway that cannot reach NATS is alive, but not ready.
    let environment = [("NATS_URL".to_owned(), format!("nats://127.0.0.1:{}", free_port()))];
    let gateway = Service::start(&["gateway"], &environment, folder.path());
    eventually("it is alive", MINUTE, || {
        http::get(&gateway.url("/health")).ok().filter(|answer| answer.status == 200)
    });
    let output = run(&["health"], &[("PORT", &gateway.port.to_string())], folder.path());
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("log"), "{}", stderr(&output));
}

#[test]
fn services_start_without_nats_and_postgres_and_become_ready_when_both_are_up() {
    let folder = tempfile::tempdir().unwrap();
    let (nats_port, mut postgres) = (free_port(), Postgres::start());
    postgres.process.kill();
    let environment = [
        ("NATS_URL".to_owned(), format!("nats://127.0.0.1:{nats_port}")),
        ("DATABASE_URL".to_owned(), postgres.url()),
    ];
    let mut collector = Service::start(&["collector", "facebook"], &environment, folder.path());
    eventually("it is alive", MINUTE, || {
        http::get(&collector.url("/health")).ok().filter(|answer| answer.status == 200)
    });
    let ready = http::get(&collector.url("/ready")).unwrap();
    assert_eq!(ready.status, 503);
    assert!(ready.text.contains("log") && ready.text.contains("database"), "{}", ready.text);
    // The warning is repeated every five seconds, not at every attempt; one with another reason comes at once.
    for dependency in ["log", "database"] {
        let rests = eventually("the warning is repeated", MINUTE, || {
            let lines = collector.lines("dependency is not ready");
            let told: Vec<(&str, chrono::DateTime<chrono::Utc>)> = lines
                .iter()
                .filter(|line| line["dependency"] == dependency)
                .map(|line| {
                    (line["why"].as_str().unwrap(), line["timestamp"].as_str().unwrap().parse().unwrap())
                })
                .collect();
            let repeated = told.windows(2).filter(|two| two[0].0 == two[1].0);
            let rests: Vec<_> = repeated.map(|two| (two[1].1 - two[0].1).num_milliseconds()).collect();
            (!rests.is_empty()).then_some(rests)
        });
        assert!(rests.iter().all(|rest| *rest >= 4_900), "{rests:?} ms between the lines of {dependency}");
    }
    postgres.start_again();
    let mut nats = crate::support::nats::Nats::start();
    nats.process.kill();
    nats.port = nats_port;
    nats.start_again();
    collector.wait_ready();
}

/// Runs the publisher against a system for two seconds; gives its tally.
fn publish(system: &System, more: &[&str]) -> Value {
    let target = system.gateway_url("/webhook");
    let arguments = ["publisher", "--target", &target, "--json", "--duration", "2s"];
    let output = system.ess(&[&arguments[..], more].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn count(tally: &Value, name: &str) -> u64 {
    tally[name].as_u64().unwrap()
}

#[test]
fn the_same_seed_gives_the_same_events_and_the_publisher_prints_its_counts() {
    let system = System::embedded(&[]);
    let first = publish(&system, &["--seed", "9", "--batch", "100", "--rate", "1000"]);
    let second = publish(&system, &["--seed", "9", "--batch", "100", "--rate", "1000"]);
    for tally in [&first, &second] {
        assert!((1_500..=2_600).contains(&count(tally, "sent")), "{tally}");
        assert_eq!(count(tally, "sent"), count(tally, "accepted") + count(tally, "rejected"), "{tally}");
        assert_eq!(count(tally, "failed"), 0);
        assert!(tally["latencyMs"]["p99"].as_f64().unwrap() > 0.0, "{tally}");
    }
    system.settle();
    assert_eq!(
        system.count_rows(),
        count(&first, "accepted").max(count(&second, "accepted")),
        "{first} {second}"
    );
}

#[test]
fn the_publisher_sends_single_events_with_invalid_ones_and_duplicates_among_them() {
    let system = System::embedded(&[]);
    let options = ["--batch", "1", "--connections", "8", "--invalid", "0.2", "--duplicates", "0.2"];
    let singles = publish(&system, &options);
    assert!(count(&singles, "sent") > 100 && count(&singles, "rejected") > 0, "{singles}");
    let ledger = system.settle();
    let duplicates = |source: usize| ledger["sources"][source]["duplicates"].as_u64().unwrap();
    assert!(duplicates(0) + duplicates(1) > 0, "{ledger}");
}

#[test]
fn the_publisher_exits_with_1_and_counts_failures_when_nobody_listens() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = format!("http://127.0.0.1:{}/webhook", free_port());
    let arguments = ["publisher", "--target", &nowhere, "--batch", "1", "--rate", "5", "--duration", "1s"];
    let output = run(&arguments, &[], folder.path());
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("failed    5"),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}

#[test]
fn a_data_folder_is_used_by_one_process_and_data_survives_a_restart() {
    let mut system = System::embedded(&[]);
    let output = system.ess(&["up"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("in use by another ess"), "{}", stderr(&output));
    system.post(&crate::support::events::simple("kept", "facebook").to_string());
    system.settle();
    let process = &mut system.services[0].process;
    process.signal("INT");
    assert_eq!(process.wait(MINUTE).code(), Some(0), "{}", process.output());
    system.services[0].start_again();
    system.wait_ready();
    assert_eq!(system.report("/reports/events")["totalEvents"], 1);
}

#[test]
fn the_demo_fills_reports_within_seconds_and_prints_their_addresses() {
    let folder = tempfile::tempdir().unwrap();
    let names = [
        "ESS_GATEWAY_PORT",
        "ESS_FACEBOOK_COLLECTOR_PORT",
        "ESS_TIKTOK_COLLECTOR_PORT",
        "ESS_REPORTER_PORT",
        "ESS_COLLECTOR_PORT",
    ];
    let environment: Vec<_> =
        names.iter().map(|name| ((*name).to_owned(), free_port().to_string())).collect();
    let log = folder.path().join("demo.log");
    let mut demo = Process::spawn(ess(&["demo"], &environment, folder.path()), &log);
    let reports = format!("http://127.0.0.1:{}/reports/events", environment[3].1);
    eventually("reports fill", Duration::from_secs(15), || {
        let answer = http::get(&reports).ok().filter(|answer| answer.status == 200)?;
        (answer.json()["totalEvents"].as_u64()? > 500).then_some(())
    });
    let first: Vec<_> = demo.output().lines().take(6).map(str::to_owned).collect();
    assert!(
        first.iter().any(|line| line.contains(&reports)),
        "the first lines have the addresses: {first:?}"
    );
    assert!(folder.path().join("data/ess.db").exists());
    // The third source comes by a file, which is not written anywhere.
    eventually("orders of the third source are stored", MINUTE, || {
        let report = reports.replace("/events", "/revenue?source=shopify_orders&currency=EUR");
        let answer = http::get(&report).ok().filter(|answer| answer.status == 200)?;
        (answer.json()["transactions"].as_u64()? > 10).then_some(())
    });
    assert!(demo.output().contains("a third source by file, shopify_orders"), "{}", demo.output());
    assert!(!folder.path().join("sources").exists());
    demo.signal("TERM");
    assert_eq!(demo.wait(MINUTE).code(), Some(0), "{}", demo.output());
}

#[test]
fn concurrent_migrations_all_succeed() {
    let postgres = Postgres::start();
    let folder = tempfile::tempdir().unwrap();
    let embedded = vec![("ESS_DATA_DIR".to_owned(), folder.path().join("data").display().to_string())];
    for environment in [vec![("DATABASE_URL".to_owned(), postgres.url())], embedded] {
        let runs: Vec<_> = (0..6)
            .map(|n| {
                let log = folder.path().join(format!("migrate-{n}.log"));
                Process::spawn(ess(&["migrate"], &environment, folder.path()), &log)
            })
            .collect();
        for mut run in runs {
            assert_eq!(run.wait(MINUTE).code(), Some(0), "{}", run.output());
        }
    }
    assert_eq!(
        postgres.query("SELECT count(*) FROM seaql_migrations")[0],
        postgres.query("SELECT count(DISTINCT version) FROM seaql_migrations")[0]
    );
    // Services that start at the same time on an empty database.
    let services: &[&[&str]] = &[
        &["gateway"],
        &["collector", "facebook"],
        &["collector", "facebook"],
        &["collector", "tiktok"],
        &["reporter"],
        &["reporter"],
    ];
    let system = System::real_with(&[], services);
    assert_eq!(system.count_rows(), 0);
}

#[test]
fn a_plan_names_processes_disks_and_the_first_bottleneck_from_ten_thousand_to_ten_million() {
    let folder = tempfile::tempdir().unwrap();
    let plan = |arguments: &str| {
        let arguments: Vec<&str> = ["plan"].into_iter().chain(arguments.split(' ')).collect();
        ess(&arguments, &[], folder.path()).output().unwrap()
    };
    let mut cores = 0.0;
    for (rate, feasible) in [(10_000, true), (100_000, true), (1_000_000, false), (10_000_000, false)] {
        let done = plan(&format!("--events-per-second {rate} --retention 30d --replicas 3 --json"));
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let plan: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
        assert_eq!((&plan["eventsPerSecond"], &plan["replicas"]), (&f64::from(rate).into(), &3.into()));
        let roles = plan["roles"].as_array().unwrap();
        assert_eq!(roles.len(), 5);
        let used: f64 = roles.iter().map(|role| role["coresUsed"].as_f64().unwrap()).sum();
        assert!(used > 5.0 * cores, "{rate}: {used} cores after {cores}");
        cores = used;
        assert!(roles.iter().all(|role| role["basis"] == "calculated"), "no cluster of three was measured");
        let first = &plan["limits"][0];
        assert_eq!((&plan["feasible"], &first["reached"]), (&feasible.into(), &(!feasible).into()), "{plan}");
        assert_eq!(plan["disks"][1]["content"], "rows");
    }
    let text = plan("--events-per-second 50000 --retention 60s");
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("first bottleneck: ") && text.contains("  measured"), "{text}");
    for wrong in [
        "--events-per-second 0",
        "--events-per-second 5 --replicas 6",
        "--events-per-second 5 --retention soon",
    ] {
        assert_eq!(plan(wrong).status.code(), Some(2), "{wrong}");
    }
}
