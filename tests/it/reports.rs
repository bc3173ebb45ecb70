//! Reports: refused parameters, the range of the answer, tokens, and answers while NATS or PostgreSQL is down.

use std::time::Duration;

use crate::support::http;
use crate::support::system::System;

#[test]
fn an_invalid_parameter_is_answered_400_with_its_name() {
    let system = System::embedded(&[]);
    for (path, name) in [
        ("/reports/events?colour=red", "colour"),
        ("/reports/events?from=yesterday", "from"),
        ("/reports/events?from=2026-02-02&to=2026-02-01", "from"),
        ("/reports/events?interval=minute&from=2026-01-01&to=2026-03-01", "interval"),
        ("/reports/events?limit=5", "limit"),
        ("/reports/revenue?groupBy=colour", "groupBy"),
        ("/reports/revenue?limit=0", "limit"),
        ("/reports/demographics?interval=day", "interval"),
        ("/dead-letters?reason=boredom", "reason"),
        ("/ledger?source=facebook", "source"),
    ] {
        let answer = http::get(&system.reporter_url(path)).unwrap();
        assert_eq!(answer.status, 400, "{path}: {}", answer.text);
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        assert_eq!(answer.json()["parameter"], name, "{path}");
        assert!(answer.json()["correlationId"].is_string());
    }
    assert_eq!(http::get(&system.reporter_url("/nowhere")).unwrap().status, 404);
    assert_eq!(http::post(&system.reporter_url("/reports/events"), "").unwrap().status, 405);
    assert_eq!(http::get(&system.reporter_url("/events/nobody")).unwrap().status, 404);
}

#[test]
fn a_report_states_the_range_that_it_covers() {
    let system = System::embedded(&[]);
    let report = system.report("/reports/events?from=2026-01-01T10:20:30Z&to=2026-01-01T12:20:30%2B01:00");
    assert_eq!(
        report["range"],
        serde_json::json!({"from": "2026-01-01T10:20:00Z", "to": "2026-01-01T11:21:00Z"})
    );
    let report = system.report("/reports/demographics?from=2026-01-01T10:20:30Z");
    assert_eq!(report["range"], serde_json::json!({"from": "2026-01-01T10:00:00Z", "to": null}));
    assert_eq!(report["facebook"]["users"], 0);
    let report = system.report("/reports/revenue");
    assert_eq!((&report["totalRevenue"], &report["averageOrderValue"]), (&"0.00".into(), &"0.00".into()));
}

#[test]
fn every_route_except_health_and_metrics_requires_a_token() {
    let system = System::embedded(&[("ESS_REPORTER_TOKEN", "old, new")]);
    let bare = |path: &str| http::get(&system.reporter_url(path)).unwrap().status;
    for path in [
        "/reports/events",
        "/reports/revenue",
        "/reports/demographics",
        "/ledger",
        "/dead-letters",
        "/events/x",
        "/actors",
    ] {
        assert_eq!(bare(path), 401, "{path}");
        let shown =
            |token| http::get_with(&system.reporter_url(path), &[("Authorization", token)]).unwrap().status;
        assert_eq!(shown("Bearer wrong"), 401, "{path}");
        assert_ne!(shown("Bearer new"), 401, "{path}");
        assert_ne!(shown("bearer old"), 401, "{path}");
    }
    for path in [
        "/health",
        "/health/live",
        "/health/liveness",
        "/ready",
        "/health/ready",
        "/health/readiness",
        "/metrics",
    ] {
        assert_eq!(bare(path), 200, "{path}");
    }
}

#[test]
fn the_reporter_answers_reports_without_nats_and_readiness_names_a_missing_database() {
    let mut system = System::real(&[]);
    system.nats().process.kill();
    let environment = system.environment.clone();
    let mut reporter =
        crate::support::process::Service::start(&["reporter"], &environment, system.folder.path());
    reporter.wait_ready();
    assert_eq!(http::get(&reporter.url("/reports/events")).unwrap().status, 200);
    let ledger = http::get(&reporter.url("/ledger")).unwrap();
    assert_eq!(ledger.status, 503, "{}", ledger.text);
    assert!(ledger.header("retry-after").is_some());

    // Without the database it is not ready.
    system.postgres().process.kill();
    crate::support::eventually("not ready", Duration::from_secs(30), || {
        let answer = http::get(&reporter.url("/ready")).unwrap();
        (answer.status == 503).then(|| assert!(answer.text.contains("database"), "{}", answer.text))
    });
    assert_eq!(http::get(&reporter.url("/health")).unwrap().status, 200, "alive all the same");
    system.postgres().start_again();
    reporter.wait_ready();
}
