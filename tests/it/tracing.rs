//! One event can be followed: from its request's headers to the collector's line and its row.

use serde_json::json;

use crate::support::events::simple;
use crate::support::otlp::Receiver;
use crate::support::system::{System, both};
use crate::support::{MINUTE, eventually, http};

#[test]
fn a_correlation_id_and_a_trace_go_from_the_request_to_the_collectors_line() {
    let mut system = System::real(&[]);
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let answer = http::post_with(
        &system.gateway_url("/webhook"),
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
        let line = eventually(name, MINUTE, || system.service(name).lines("order-4711").pop());
        assert_eq!(line["correlation_id"], "order-4711", "{line}");
        assert_eq!(line["trace_id"], trace, "{line}");
        assert_eq!(line["service"], service, "{line}");
        assert!(line["timestamp"].is_string() && line["level"] == "INFO", "{line}");
    }
    system.settle();
    let found = system.report("/events/followed");
    let places = found["matches"].as_array().unwrap();
    assert_eq!(places.len(), 1);
    let place = &places[0];
    assert_eq!((&place["source"], &place["state"]), (&json!("tiktok"), &json!("stored")));
    let times: Vec<_> =
        ["acceptedAt", "loggedAt", "collectedAt"].iter().map(|name| place[name].as_str().unwrap()).collect();
    assert!(times.is_sorted(), "{place}");
    // A request id is as good, and one is made where there is none.
    let answer = http::post_with(&system.gateway_url("/webhook"), &[("X-Request-Id", "r-1")], b"[]").unwrap();
    assert_eq!(answer.json()["correlationId"], "r-1");
    assert_eq!(system.post("[]").json()["correlationId"].as_str().unwrap().len(), 36);
}

#[test]
fn no_line_at_info_tells_who_a_user_is() {
    let mut system = System::real(&[]);
    let mut event = simple("private", "tiktok");
    event["data"]["user"]["username"] = json!("Secret Name");
    event["data"]["user"]["userId"] = json!("secret-user");
    assert_eq!(system.post(&event.to_string()).status, 202);
    event["timestamp"] = json!("bad");
    assert_eq!(system.post(&event.to_string()).status, 422);
    system.settle();
    for service in &mut system.services {
        let output = service.process.output();
        assert!(!output.contains("Secret Name") && !output.contains("secret-user"), "{output}");
    }
}

#[test]
fn every_metric_is_there_from_the_start() {
    let mut system = System::real(&[]);
    let text =
        |system: &mut System, name: &str| http::get(&system.service(name).url("/metrics")).unwrap().text;
    let gateway = text(&mut system, "gateway");
    let collector = text(&mut system, "collector-facebook");
    let reporter = text(&mut system, "reporter");
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
        let page = http::get(&system.service("collector-facebook").url("/metrics")).unwrap().text;
        page.contains(lag).then_some(())
    });
}

#[test]
fn traces_are_exported_from_the_post_to_the_commit_and_from_a_report_to_its_query() {
    let receiver = Receiver::start();
    let endpoint = format!("http://127.0.0.1:{}", receiver.port);
    both(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)], |system| {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let trace = format!("{:032x}", uuid::Uuid::new_v4().as_u128());
        let parent = format!("00-{trace}-b7ad6b7169203331-01");
        let id = format!("traced-{trace}");
        let body = simple(&id, "facebook").to_string();
        let headers = [("Content-Type", "application/json"), ("traceparent", parent.as_str())];
        let answer = http::post_with(&system.gateway_url("/webhook"), &headers, body.as_bytes()).unwrap();
        assert_eq!(answer.status, 202);
        let unsampled = parent.replace("-01", "-00").replace(&trace, &"1".repeat(32));
        let headers = [("Content-Type", "application/json"), ("traceparent", unsampled.as_str())];
        let other = simple("untraced", "tiktok").to_string();
        assert_eq!(
            http::post_with(&system.gateway_url("/webhook"), &headers, other.as_bytes()).unwrap().status,
            202
        );
        system.settle();

        let of_trace =
            |name: &str| receiver.named(name).into_iter().find(|span| hex(&span.trace_id) == trace);
        let post = eventually("the request's span", MINUTE, || of_trace("POST /webhook"));
        assert_eq!(hex(&post.parent_span_id), "b7ad6b7169203331", "it goes on where the publisher was");
        let told = answer.header("traceparent").unwrap();
        assert_eq!(hex(&post.span_id), told[36..52], "the answer names it");
        let append = eventually("the frame's span", MINUTE, || of_trace("append facebook"));
        assert_eq!(append.parent_span_id, post.span_id);
        assert!(append.start_time_unix_nano <= append.end_time_unix_nano);
        let commit = eventually("the commit's span", MINUTE, || {
            let commits = receiver.named("commit facebook").into_iter();
            commits.flat_map(|span| span.links.clone()).find(|link| link.span_id == post.span_id)
        });
        assert_eq!(hex(&commit.trace_id), trace, "it links to the request");

        let asked = format!("00-{trace}-00f067aa0ba902b7-01");
        let url = system.reporter_url("/reports/events?source=facebook");
        assert_eq!(http::get_with(&url, &[("traceparent", &asked)]).unwrap().status, 200);
        let report = eventually("the report's span", MINUTE, || of_trace("GET /reports/events"));
        let query = eventually("the query's span", MINUTE, || of_trace("query events"));
        assert_eq!(
            (query.parent_span_id, hex(&report.parent_span_id)),
            (report.span_id, "00f067aa0ba902b7".to_owned())
        );
        let ones = receiver.spans().iter().any(|span| hex(&span.trace_id) == "1".repeat(32));
        assert!(!ones, "what its publisher does not record is not exported");
    });
}
