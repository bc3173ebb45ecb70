//! Declared sources from the log to the reports: collectors and reporters know them by what they read alone.

use std::collections::BTreeMap;
use std::time::Duration;

use ess::config::{Config, NatsAccess, Variables};
use ess::event::{FunnelStage, Source};
use ess::log::jetstream::JetStream;
use ess::log::{FrameWriter, Log, LogRole, Origin, Piece, Topic};
use ess::source::{CanonicalColumns, CanonicalEvent};
use serde_json::{Value, json};

use crate::support::process::Service;
use crate::support::system::System;
use crate::support::{MINUTE, block_on, eventually, http};

/// 2026-03-01T00:00:00Z, in microseconds.
const MARCH: i64 = 1_772_323_200_000_000;

/// A gateway's end of the log, for canonical events.
struct Writer {
    log: JetStream,
    frames: BTreeMap<String, FrameWriter>,
}

impl Writer {
    async fn open(url: &str) -> Self {
        // The server reserves so much for each stream.
        let variables = Variables::from_pairs([("ESS_LOG_MAX_BYTES", "64MiB")]).unwrap();
        let settings = Config::from_variables(&variables).unwrap().log;
        let log = JetStream::connect(url, "test", settings, &NatsAccess::default(), LogRole::Gateway).await;
        Self { log: log.unwrap(), frames: BTreeMap::new() }
    }

    /// Appends one frame.
    async fn append(&mut self, source: &str, events: &[Vec<u8>]) {
        let topic = Topic::Events(Source::declare(source, "").unwrap());
        let mut prepared = self.log.prepare(topic).await;
        for _ in 0..500 {
            if prepared.is_ok() {
                break;
            }
            // The connection is made in the background.
            tokio::time::sleep(Duration::from_millis(20)).await;
            prepared = self.log.prepare(topic).await;
        }
        prepared.unwrap();
        let (mut body, mut ranges) = (Vec::new(), Vec::new());
        for event in events {
            let from = body.len();
            body.extend_from_slice(event);
            ranges.push(from..body.len());
        }
        let origin = Origin { correlation_id: "c-1".to_owned(), traceparent: None, accepted_at: MARCH };
        let writer = self.frames.entry(source.to_owned()).or_default();
        let (id, frame) = writer.write(&[Piece { origin: &origin, body: &body, events: &ranges }]);
        self.log.append(topic, id, frame).await.unwrap();
    }
}

/// A purchase of 12.50 or a view, by turns.
fn event(source: &str, id: usize) -> Vec<u8> {
    let is_purchase = id.is_multiple_of(2);
    let raw =
        json!({"order": id, "lines": [{"price": "12.50", "big": 12_345_678_901_234_567_890_u64}], "x": null});
    let event = CanonicalEvent {
        id: format!("{source}-{id}").into(),
        timestamp: MARCH + i64::try_from(id).unwrap() * 1_000_000,
        is_arrival: false,
        source: source.to_owned().into(),
        event_type: if is_purchase { "purchase" } else { "product.view" }.into(),
        stage: if is_purchase { FunnelStage::BOTTOM } else { FunnelStage::TOP },
        user: Some(format!("user-{}", id % 10).into()),
        columns: CanonicalColumns {
            campaign: Some("spring".into()),
            country: Some("Kenya".into()),
            device: Some(format!("device {}", id % 3).into()),
            ..CanonicalColumns::default()
        },
        amount: is_purchase.then_some(12_500_000),
        currency: None,
        is_revenue: is_purchase,
        raw: raw.to_string().into(),
    };
    let mut bytes = Vec::new();
    event.write(&mut bytes);
    bytes
}

/// Appends frames, each of one source.
fn send(nats: &str, frames: &[(&str, Vec<Vec<u8>>)]) {
    // The client's connection lives as long as the runtime.
    block_on(async {
        let mut writer = Writer::open(nats).await;
        for (source, events) in frames {
            writer.append(source, events).await;
        }
    });
}

fn frame(source: &str, ids: std::ops::Range<usize>) -> Vec<Vec<u8>> {
    ids.map(|id| event(source, id)).collect()
}

fn count(system: &System, query: &str) -> i64 {
    let answer = http::get(&system.reporter_url(&format!("/reports/events?{query}"))).unwrap();
    if answer.status == 200 { answer.json()["totalEvents"].as_i64().unwrap() } else { -1 }
}

fn await_count(system: &System, query: &str, expected: i64) {
    eventually(&format!("{expected} events of {query}"), MINUTE * 2, || {
        (count(system, query) == expected).then_some(())
    });
}

/// A system with one collector of all sources.
fn start() -> System {
    System::real_with(&[], &[&["gateway"], &["collector", "all"], &["reporter"]])
}

#[test]
fn sources_that_no_file_names_are_collected_reported_and_forgotten() {
    let mut system = start();
    let nats = system.nats().url();
    // One is delivered twice by its gateway, one is no event, one belongs to another topic.
    let mut events = frame("web_shop", 99..101);
    events.push(b"{\"version\":1}".to_vec());
    events.push(event("other_shop", 1));
    let first = ("web_shop", frame("web_shop", 0..100));
    send(&nats, &[first, ("web_shop", events), ("second", frame("second", 0..10))]);
    system.post(&Value::from(vec![crate::support::events::simple("fb-1", "facebook")]).to_string());
    await_count(&system, "source=web_shop", 101);
    await_count(&system, "source=second", 10);
    await_count(&system, "source=facebook", 1);
    assert_eq!(count(&system, "source=web_shop&eventType=purchase"), 51);
    assert_eq!(count(&system, "source=web_shop&funnelStage=top"), 50);
    let unknown = http::get(&system.reporter_url("/reports/events?source=myspace")).unwrap();
    assert_eq!(unknown.status, 400);
    assert!(unknown.text.contains("source") && unknown.text.contains("web_shop"), "{}", unknown.text);

    let revenue = system.report("/reports/revenue?source=web_shop&groupBy=campaign");
    assert_eq!((&revenue["totalRevenue"], &revenue["transactions"]), (&json!("637.50"), &json!(51)));
    assert_eq!(revenue["campaigns"][0]["campaignId"], "spring", "{revenue}");
    let people = &system.report("/reports/demographics?from=2026-03-01&to=2026-03-02")["web_shop"];
    assert_eq!((&people["events"], &people["users"]), (&json!(101), &json!(10)), "{people}");
    assert_eq!(people["devices"].as_array().unwrap().len(), 3, "{people}");
    assert_eq!(people["countries"], json!([{"country": "Kenya", "users": 10}]));
    assert_eq!(people.get("genders"), None, "no event has a gender");

    let ledger = system.settle();
    let of = |name: &str| {
        let all = ledger["sources"].as_array().unwrap();
        all.iter().find(|of| of["source"] == name).unwrap_or_else(|| panic!("{name}: {ledger}")).clone()
    };
    let shop = of("web_shop");
    assert_eq!(
        (&shop["stored"], &shop["duplicates"], &shop["quarantined"], &shop["missing"]),
        (&json!(101), &json!(1), &json!(2), &json!(0)),
        "{shop}"
    );
    let letters = system.report("/dead-letters?source=web_shop");
    assert_eq!(letters["deadLetters"].as_array().unwrap().len(), 2, "{letters}");
    let row = system.database.query(
        "SELECT source, event_type, funnel_stage, device, user_id, revenue, unknown FROM events
         WHERE event_id = 'web_shop-4'",
    );
    let (columns, raw) = row[0].split_at(row[0].find('{').unwrap());
    assert_eq!(columns, "web_shop|purchase|bottom|device 1|user-4|12.50|");
    let raw: Value = serde_json::from_str(raw).unwrap();
    assert_eq!(raw["lines"][0], json!({"price": "12.50", "big": 12_345_678_901_234_567_890_u64}));
    let found = system.report("/events/web_shop-4?source=web_shop");
    assert_eq!(found["matches"][0]["state"], "stored", "{found}");
    let csv = http::get_with(&system.reporter_url("/reports/events"), &[("Accept", "text/csv")]).unwrap();
    assert!(csv.text.contains("web_shop,bottom,purchase,51"), "{}", csv.text);
    let collector = system.service("collector");
    assert_eq!(collector.metric("ess_collector_events_processed_total{source=\"web_shop\"}") as u64, 101);

    let verified = system.ess(&["rollups", "verify"]);
    assert_eq!(verified.status.code(), Some(0), "{}", String::from_utf8_lossy(&verified.stdout));
    let forgotten = system.ess(&["forget", "--source", "web_shop", "--user", "user-4"]);
    let said = String::from_utf8_lossy(&forgotten.stdout);
    assert!(said.contains("10 rows have no user any more"), "{said}");
    let left = "SELECT count(*) FROM events WHERE user_id = 'user-4' AND source = 'web_shop'";
    assert_eq!(system.database.query(left), ["0"]);
    let none = system.ess(&["forget", "--source", "myspace", "--user", "u"]);
    assert_eq!(none.status.code(), Some(2), "{}", String::from_utf8_lossy(&none.stderr));

    // The source is removed: no stream any more. Its reports stay, also after a restart.
    block_on(async {
        let client = async_nats::connect(&nats).await.unwrap();
        async_nats::jetstream::new(client).delete_stream("ESS_SECOND").await.unwrap();
    });
    for name in ["collector", "reporter"] {
        system.service(name).start_again();
    }
    system.wait_ready();
    await_count(&system, "source=second", 10);
    let ledger = http::get(&system.reporter_url("/ledger")).unwrap();
    assert_eq!(ledger.status, 200, "{}", ledger.text);
    send(&nats, &[("web_shop", frame("web_shop", 101..200))]);
    await_count(&system, "source=web_shop&eventType=purchase", 100);
}

#[test]
fn two_collectors_that_meet_new_types_at_once_give_each_one_number() {
    let mut system =
        System::real_with(&[], &[&["gateway"], &["collector", "all"], &["collector", "all"], &["reporter"]]);
    let nats = system.nats().url();
    let mut frames = Vec::new();
    for round in 0..20_usize {
        for source in ["left", "right"] {
            let events = (0..50_usize).map(|n| {
                let id = round * 50 + n;
                let text = String::from_utf8(event(source, id)).unwrap();
                let kind = format!("\"type\":\"type.{}\"", (round * 7 + n) % 90);
                text.replace("\"type\":\"purchase\"", &kind).replace("\"type\":\"product.view\"", &kind)
            });
            frames.push((source, events.map(String::into_bytes).collect()));
        }
    }
    send(&nats, &frames);
    for source in ["left", "right"] {
        await_count(&system, &format!("source={source}"), 1_000);
    }
    let twice = "SELECT count(*) FROM (SELECT source, kind, stage, word FROM dictionary
        GROUP BY source, kind, stage, word HAVING count(*) > 1) AS t";
    assert_eq!(system.database.query(twice), ["0"]);
    let wrong = "SELECT count(*) FROM event_rows e LEFT JOIN dictionary d
        ON d.code = e.event_type AND d.source = e.source AND d.stage = e.funnel_stage WHERE d.code IS NULL";
    assert_eq!(system.database.query(wrong), ["0"]);
    let report = system.report("/reports/events?source=left");
    let total: i64 =
        report["events"].as_array().unwrap().iter().map(|of| of["count"].as_i64().unwrap()).sum();
    assert_eq!(total, 1_000);
    assert!(report["events"].as_array().unwrap().iter().all(|of| of["eventType"] != "unknown"), "{report}");
}

#[test]
fn a_name_that_the_log_has_no_stream_for_makes_no_stream_and_no_number() {
    let mut system = start();
    let (environment, folder) = (system.environment.clone(), tempfile::tempdir().unwrap());
    let mut collector = Service::start(&["collector", "tpyo", "web_shop"], &environment, folder.path());
    send(&system.nats().url(), &[("web_shop", frame("web_shop", 0..10))]);
    await_count(&system, "source=web_shop", 10);
    let ready = collector.wait_ready().url("/ready");
    let degraded = eventually("the missing stream is named", MINUTE, || {
        let answer = http::get(&ready).ok()?;
        answer.text.contains("log.tpyo").then_some(answer)
    });
    assert_eq!(degraded.status, 200, "{}", degraded.text);
    let streams = block_on(async {
        use futures::TryStreamExt;
        let client = async_nats::connect(&system.nats().url()).await.unwrap();
        let jetstream = async_nats::jetstream::new(client);
        jetstream.stream_names().try_collect::<Vec<_>>().await.unwrap()
    });
    assert!(streams.iter().any(|name| name == "ESS_WEB_SHOP"), "{streams:?}");
    assert!(!streams.iter().any(|name| name == "ESS_TPYO"), "{streams:?}");
    assert_eq!(system.database.query("SELECT count(*) FROM dictionary WHERE word = 'tpyo'"), ["0"]);
}

const FILE: &str = "
source: web_shop
title: Web shop
map:
  id: /id
  timestamp: {at: /at, as: unix_seconds}
  type: {at: /kind, words: {buy: purchase, look: product.view}, else: refuse}
  stage: {by_type: {purchase: bottom}, else: top}
  user: /who
  device: /on
  amount: {at: /total, currency: /money}
revenue: [purchase]
";

/// Events as the shop sends them: purchases of 12.50 EUR and views by turns, of two devices.
fn orders(ids: std::ops::Range<usize>) -> String {
    let events = ids.map(|id| {
        json!({"id": id, "at": 1_772_323_200 + id, "kind": if id.is_multiple_of(2) { "buy" } else { "look" },
            "who": format!("user-{}", id % 5), "on": if id.is_multiple_of(3) { "Kiosk" } else { "Phone" },
            "total": if id.is_multiple_of(2) { json!("12.50") } else { Value::Null }, "money": "EUR", "extra": {"n": id}})
    });
    Value::from(events.collect::<Vec<_>>()).to_string()
}

/// From a file to the reports, which stay when the file is removed.
fn serve_and_remove(system: &mut System, file: &std::path::Path) {
    let post =
        |system: &System, body: &str| http::post(&system.gateway_url("/webhook/web_shop"), body).unwrap();
    let taken = post(system, &orders(0..200));
    assert_eq!(taken.status, 200, "{}", taken.text);
    await_count(system, "source=web_shop", 200);
    let check = |system: &System| {
        let revenue = system.report("/reports/revenue?source=web_shop&currency=EUR");
        assert_eq!((&revenue["totalRevenue"], &revenue["currency"]), (&json!("1250.00"), &json!("EUR")));
        let people = &system.report("/reports/demographics?source=web_shop")["web_shop"];
        assert_eq!(people["devices"].as_array().unwrap().len(), 2, "{people}");
        let verified = system.ess(&["rollups", "verify"]);
        assert_eq!(verified.status.code(), Some(0), "{}", String::from_utf8_lossy(&verified.stdout));
    };
    check(system);
    let shown =
        system.database.query("SELECT unknown FROM events WHERE event_id = '8' AND source = 'web_shop'");
    assert_eq!(serde_json::from_str::<Value>(&shown[0]).unwrap()["extra"], json!({"n": 8}));
    system.settle();
    std::fs::remove_file(file).unwrap();
    system.services.iter_mut().for_each(Service::start_again);
    system.wait_ready();
    assert_eq!(post(system, &orders(200..201)).status, 404, "the source is removed");
    await_count(system, "source=web_shop", 200);
    check(system);
    assert!(
        system.report("/ledger")["sources"].as_array().unwrap().iter().any(|of| of["source"] == "web_shop")
    );
}

#[test]
fn events_of_a_source_file_reach_their_reports_which_stay_when_the_file_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let (sources, file) = (folder.path().display().to_string(), folder.path().join("web_shop.yaml"));
    std::fs::write(&file, FILE).unwrap();
    serve_and_remove(&mut System::embedded(&[("ESS_SOURCES", sources.as_str())]), &file);
    std::fs::write(&file, FILE).unwrap();
    let services: [&[&str]; 3] = [&["gateway"], &["collector", "all"], &["reporter"]];
    serve_and_remove(&mut System::real_with(&[("ESS_SOURCES", sources.as_str())], &services), &file);
}
