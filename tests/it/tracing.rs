//! One event can be followed: from its request's headers to the collector's line and its row.

use serde_json::json;

use crate::support::events::simple;
use crate::support::world::World;
use crate::support::{MINUTE, eventually, http};

#[test]
fn a_correlation_id_and_a_trace_go_from_the_request_to_the_collectors_line() {
    let mut world = World::real(&[]);
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let answer = http::post_with(
        &world.gateway_url("/webhook"),
        &[
            ("Content-Type", "application/json"),
            ("X-Correlation-Id", "order-4711"),
            ("traceparent", &format!("00-{trace}-b7ad6b7169203331-01")),
        ],
        simple("followed", "tiktok").to_string().as_bytes(),
    )
    .unwrap();
    assert_eq!(answer.header("x-correlation-id"), Some("order-4711"));
    assert!(
        answer.header("traceparent").is_some_and(|parent| parent.contains(trace)),
        "{:?}",
        answer.headers
    );
    assert_eq!(answer.json()["correlationId"], "order-4711");
    for (name, service) in [("gateway", "gateway"), ("collector-tiktok", "collector-tiktok")] {
        let line = eventually(name, MINUTE, || world.service(name).lines("order-4711").pop());
        assert_eq!(line["correlation_id"], "order-4711", "{line}");
        assert_eq!(line["trace_id"], trace, "{line}");
        assert_eq!(line["service"], service, "{line}");
        assert!(line["timestamp"].is_string() && line["level"] == "INFO", "{line}");
    }
    world.settle();
    let found = world.report("/events/followed");
    let places = found["matches"].as_array().unwrap();
    assert_eq!(places.len(), 1);
    let place = &places[0];
    assert_eq!((&place["source"], &place["state"]), (&json!("tiktok"), &json!("stored")));
    let times: Vec<_> =
        ["acceptedAt", "loggedAt", "collectedAt"].iter().map(|name| place[name].as_str().unwrap()).collect();
    assert!(times.is_sorted(), "{place}");
    // A request id is as good, and one is made where there is none.
    let answer = http::post_with(&world.gateway_url("/webhook"), &[("X-Request-Id", "r-1")], b"[]").unwrap();
    assert_eq!(answer.json()["correlationId"], "r-1");
    assert_eq!(world.post("[]").json()["correlationId"].as_str().unwrap().len(), 36);
}

#[test]
fn no_line_at_info_tells_who_a_user_is() {
    let mut world = World::real(&[]);
    let mut event = simple("private", "tiktok");
    event["data"]["user"]["username"] = json!("Secret Name");
    event["data"]["user"]["userId"] = json!("secret-user");
    assert_eq!(world.post(&event.to_string()).status, 202);
    event["timestamp"] = json!("bad");
    assert_eq!(world.post(&event.to_string()).status, 422);
    world.settle();
    for service in &mut world.services {
        let output = service.process.output();
        assert!(!output.contains("Secret Name") && !output.contains("secret-user"), "{output}");
    }
}

#[test]
fn every_metric_is_there_from_the_start() {
    let mut world = World::real(&[]);
    let text = |world: &mut World, name: &str| http::get(&world.service(name).url("/metrics")).unwrap().text;
    let gateway = text(&mut world, "gateway");
    let collector = text(&mut world, "collector-facebook");
    let reporter = text(&mut world, "reporter");
    for source in ["facebook", "tiktok"] {
        for (page, name) in [
            (&gateway, "ess_gateway_events_accepted_total"),
            (&gateway, "ess_gateway_events_processed_total"),
            (&collector, "ess_collector_events_accepted_total"),
            (&collector, "ess_collector_events_processed_total"),
            (&collector, "ess_collector_events_duplicate_total"),
            (&reporter, "ess_ledger_missing_events"),
        ] {
            assert!(page.contains(&format!("{name}{{source=\"{source}\"}} 0")), "{name} {source}");
        }
    }
    assert!(
        gateway.contains("ess_gateway_events_failed_total{reason=\"invalid\",source=\"unknown\"} 0"),
        "{gateway}"
    );
    for name in ["ess_actor_mailbox_depth", "ess_actor_blocked_seconds_total", "ess_actor_restarts_total"] {
        assert!(gateway.contains(&format!("{name}{{actor=\"gateway.ingest\"")), "{name}");
    }
    for name in ["ess_collector_batch_seconds_count", "ess_collector_event_age_seconds_count"] {
        assert!(collector.contains(name), "{name}");
    }
    for report in ["events", "revenue", "demographics"] {
        assert!(
            reporter
                .contains(&format!("ess_reporter_report_duration_seconds_count{{report=\"{report}\"}} 0"))
        );
    }
    let lag = "ess_collector_lag_events{source=\"facebook\"}";
    eventually("lag", MINUTE, || {
        let page = http::get(&world.service("collector-facebook").url("/metrics")).unwrap().text;
        page.contains(lag).then_some(())
    });
}
