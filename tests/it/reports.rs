//! Reports: refused parameters, the range of the answer, tokens, and answers while NATS or PostgreSQL is down.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::events::simple;
use crate::support::http;
use crate::support::process::Service;
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
        ("/reports/revenue?currency=XXX", "currency"),
        ("/reports/revenue?currency=eur", "currency"),
        ("/reports/events?currency=EUR", "currency"),
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
    assert_eq!(report["range"], json!({"from": "2026-01-01T10:20:00Z", "to": "2026-01-01T11:21:00Z"}));
    let report = system.report("/reports/demographics?from=2026-01-01T10:20:30Z");
    assert_eq!(report["range"], json!({"from": "2026-01-01T10:00:00Z", "to": null}));
    assert_eq!(report["facebook"]["users"], 0);
    let report = system.report("/reports/revenue");
    assert_eq!((&report["currency"], &report["otherCurrencies"]), (&"USD".into(), &json!([])));
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
    let mut reporter = Service::start(&["reporter"], &environment, system.folder.path());
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

/// A sale of 2026-03-01, of this amount.
fn sale(id: &str, source: &str, amount: &str) -> Value {
    let mut made = simple(id, source);
    made["timestamp"] = json!("2026-03-01T10:00:00Z");
    made["funnelStage"] = json!("bottom");
    if source == "facebook" {
        made["eventType"] = json!("checkout.complete");
        made["data"]["engagement"] = json!({"adId": "a", "campaignId": "c", "clickPosition": "center",
            "device": "mobile", "browser": "Safari", "purchaseAmount": amount});
    } else {
        made["eventType"] = json!("purchase");
        made["data"]["engagement"] = json!({"actionTime": "2026-03-01T10:00:00Z", "profileId": null,
            "purchasedItem": "Bowl", "purchaseAmount": amount});
    }
    made
}

fn post_sales(system: &System, sales: &[Value]) {
    let answer = system.post(&Value::from(sales).to_string());
    assert_eq!((answer.status, answer.json()["accepted"].as_u64()), (202, Some(sales.len() as u64)));
    system.settle();
}

#[test]
fn a_report_is_in_one_currency_and_lists_what_was_earned_in_others() {
    let services: [&[&str]; 3] = [&["gateway"], &["collector", "facebook"], &["reporter"]];
    let mut system = System::real_with(&[], &services);
    let in_euros = |arguments: &[&str], system: &System| {
        let mut environment = system.environment.clone();
        environment.push(("ESS_CURRENCY".to_owned(), "EUR".to_owned()));
        let mut service = Service::start(arguments, &environment, system.folder.path());
        service.wait_ready();
        service
    };
    let _tiktok = in_euros(&["collector", "tiktok"], &system);
    let europe = in_euros(&["reporter"], &system);
    let first =
        [sale("f-1", "facebook", "10.00"), sale("f-2", "facebook", "0.5"), sale("t-1", "tiktok", "7")];
    post_sales(&system, &first);
    // The same campaign in the same minute, from a collector of another currency.
    system.service("collector-facebook").process.kill();
    let _facebook = in_euros(&["collector", "facebook"], &system);
    post_sales(&system, &[sale("f-3", "facebook", "1.25")]);

    let entry = |source: &str, total: &str, count: u64, mean: &str| {
        let kind = if source == "facebook" { "checkout.complete" } else { "purchase" };
        json!({"source": source, "eventType": kind, "totalRevenue": total, "transactions": count,
            "averageOrderValue": mean})
    };
    let range = json!({"from": null, "to": null});
    let campaign = |total: &str, count: u64| json!([{"source": "facebook", "campaignId": "c", "totalRevenue": total, "transactions": count}]);
    let dollars = json!({"range": range, "currency": "USD", "totalRevenue": "10.50", "transactions": 2,
        "averageOrderValue": "5.25", "revenue": [entry("facebook", "10.50", 2, "5.25")],
        "otherCurrencies": [{"currency": "EUR", "totalRevenue": "8.25", "transactions": 2}],
        "campaigns": campaign("10.50", 2)});
    let euros = json!({"range": range, "currency": "EUR", "totalRevenue": "8.25", "transactions": 2,
        "averageOrderValue": "4.13",
        "revenue": [entry("facebook", "1.25", 1, "1.25"), entry("tiktok", "7.00", 1, "7.00")],
        "otherCurrencies": [{"currency": "USD", "totalRevenue": "10.50", "transactions": 2}],
        "campaigns": campaign("1.25", 1)});
    let path = "/reports/revenue?groupBy=campaign";
    assert_eq!(system.report(path), dollars);
    assert_eq!(system.report(&format!("{path}&currency=EUR")), euros);
    assert_eq!(http::get(&europe.url(path)).unwrap().json(), euros, "ESS_CURRENCY of the reporter");
    let francs = system.report(&format!("{path}&currency=CHF&interval=day"));
    assert_eq!((&francs["totalRevenue"], &francs["series"]), (&json!("0.00"), &json!([])));
    assert_eq!((&francs["revenue"], &francs["campaigns"]), (&json!([]), &json!([])));
    let both = json!([{"currency": "EUR", "totalRevenue": "8.25", "transactions": 2},
        {"currency": "USD", "totalRevenue": "10.50", "transactions": 2}]);
    assert_eq!(francs["otherCurrencies"], both);
    // Filters count for the other currencies, too.
    let one = system.report("/reports/revenue?campaignId=c&interval=minute&currency=EUR");
    assert_eq!((&one["totalRevenue"], &one["series"][0]["totalRevenue"]), (&json!("1.25"), &json!("1.25")));
    assert_eq!(one["otherCurrencies"], euros["otherCurrencies"]);
    let tiktok = system.report("/reports/revenue?source=tiktok");
    let other = json!([{"currency": "EUR", "totalRevenue": "7.00", "transactions": 1}]);
    assert_eq!((&tiktok["totalRevenue"], &tiktok["otherCurrencies"]), (&json!("0.00"), &other));
    let later = system.report("/reports/revenue?from=2026-03-02");
    assert_eq!(later["otherCurrencies"], json!([]));

    let csv = http::get_with(&system.reporter_url(path), &[("Accept", "text/csv")]).unwrap().text;
    for line in [
        "total,,,,,,,USD,10.50,2,5.25",
        "otherCurrencies,,,,,,,EUR,8.25,2,",
        "revenue,,,,facebook,checkout.complete,,USD,10.50,2,5.25",
        "campaigns,,,,facebook,,c,USD,10.50,2,",
    ] {
        assert!(csv.lines().any(|found| found == line), "{line}: {csv}");
    }
    let rows =
        system.database.query("SELECT currency, sum(revenue) FROM events GROUP BY currency ORDER BY 1");
    assert_eq!(rows, ["EUR|8.25", "USD|10.50"]);
    let verified = system.ess(&["rollups", "verify"]);
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
}
