//! Each stage of an event's way by itself: decode and validate, convert by a source file, frame, append, batch write, report.
//!
//! `cargo bench --bench stages` runs all; a name after `--` runs those whose names contain it. Beside
//! decoding stands what serde_json takes to parse the same bytes, and beside writing what an insert without
//! rollups and summaries takes: a figure by itself says little on a machine that others use.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    dead_code,
    reason = "a bench fails by panicking"
)]

#[path = "../tests/it/support/mod.rs"]
mod support;

use std::hint::black_box;
use std::ops::Range;
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ess::config::{Config, Variables};
use ess::event::{Source, decode};
use ess::log::embedded::Embedded;
use ess::log::{Frame, FrameWriter, Log, Origin, Piece, Topic};
use ess::publisher::generate::{Generator, Mix};
use ess::source::CanonicalEvent;
use ess::source::declared::{Declared, Method, Outcome, Request};
use ess::store::Batch;
use ess::store::report::{Filter, Reports};
use serde_json::Value;
use serde_json::value::RawValue;

use support::postgres::Postgres;
use support::stores::{frame, log, open, origin};

/// Events of a frame, and of a transaction.
const FRAME: usize = 1_000;
const BATCH: usize = 5_000;

/// Events of one source.
fn events(generator: &mut Generator, source: Source, count: usize) -> Vec<String> {
    let mut all = std::iter::repeat_with(|| generator.event());
    let mark = format!("\"source\":\"{source}\"");
    let mut events = Vec::with_capacity(count);
    while events.len() < count {
        events.extend(all.next().filter(|event| event.contains(&mark)));
    }
    events
}

fn generator(seed: u64) -> Generator {
    Generator::new(Some(seed), Mix::default())
}

fn decoding(c: &mut Criterion) {
    let body = generator(1).batch(FRAME);
    let each: Vec<&RawValue> = serde_json::from_str(&body).unwrap();
    let mut group = c.benchmark_group("decode");
    group.throughput(Throughput::Elements(FRAME as u64));
    group.bench_function("array of 1,000, every event validated", |b| {
        b.iter(|| {
            let each: Vec<&RawValue> = serde_json::from_str(black_box(&body)).unwrap();
            each.iter().filter(|raw| decode(raw.get().as_bytes(), None).is_ok()).count()
        });
    });
    group.bench_function("the same bytes, serde_json::Value alone", |b| {
        b.iter(|| serde_json::from_str::<Vec<Value>>(black_box(&body)).unwrap().len());
    });
    group.bench_function("1,000 events one by one", |b| {
        b.iter(|| each.iter().filter(|raw| decode(black_box(raw.get().as_bytes()), None).is_ok()).count());
    });
    group.finish();
}

/// A source file without a filter, and one with a filter, a schema and an amount.
const PLAIN: &str = r#"
source: bench_plain
title: Bench
schema: {type: object, required: [event_id, kind, at], properties: {event_id: {type: string, minLength: 1}}}
map:
  id: /event_id
  timestamp: {at: /at, as: rfc3339}
  type: {at: /kind, words: {purchase: purchase, signup: sign_up}, else: other}
  stage: {by_type: {purchase: bottom}, else: top}
  user: /customer/id
  campaign: /campaign/id
  country: /customer/country
  amount: {at: /total, unit: major, currency: /currency}
revenue: [purchase]
"#;

/// Conversion of declared sources' events of about 430 bytes to canonical ones, as the gateway does it.
fn converting(c: &mut Criterion) {
    let one = |n: usize| {
        let user = format!("user-{:012}", n * 7_919);
        serde_json::json!({
            "event_id": format!("e-{n:032}"), "kind": "purchase", "at": "2026-11-26T10:00:01.250Z",
            "customer": {"id": user, "country": "IE", "city": "Dublin", "segment": "returning customers"},
            "campaign": {"id": "20000000001", "name": "late autumn of two thousand and twenty-six"},
            "total": "19.90", "currency": "EUR", "items": [{"sku": "sku-0001", "quantity": 2}],
            "session": {"device": "mobile", "referrer": "https://example.com/a/page", "pages": 17},
        })
    };
    let events: Vec<Value> = (0..FRAME).map(one).collect();
    let mean = Value::from(events.clone()).to_string().len() / FRAME;
    assert!((400..=470).contains(&mean), "{mean} bytes an event");
    let filtered = PLAIN.replace("bench_plain", "bench_filtered");
    let filtered = filtered.replace("schema:", "events: '.events[] | . + {_is: 1}'\nschema:");
    let body_of = |name: &str| match name {
        "bench_plain" => Value::from(events.clone()).to_string(),
        _ => serde_json::json!({"events": events.clone()}).to_string(),
    };
    let mut group = c.benchmark_group("convert");
    group.throughput(Throughput::Elements(FRAME as u64));
    for (name, file) in [("bench_plain", PLAIN), ("bench_filtered", filtered.as_str())] {
        let source = Declared::parse(&format!("{name}.yaml"), file).unwrap();
        let body = body_of(name);
        group.bench_function(format!("a body of 1,000 events, {name}"), |b| {
            b.iter(|| {
                let request = Request {
                    method: Method::Post,
                    headers: &[],
                    query: "",
                    body: black_box(body.as_bytes()),
                    received: 1_795_687_203_000_000,
                };
                let mut canonical = Vec::new();
                for outcome in source.events(&request).unwrap() {
                    match outcome {
                        Outcome::Event(event) => event.write(&mut canonical),
                        Outcome::Refused(refused) => panic!("{refused:?}"),
                    }
                }
                canonical.len()
            });
        });
    }
    let mut canonical = Vec::new();
    let source = Declared::parse("bench_plain.yaml", PLAIN).unwrap();
    match source.event(events[0].to_string().as_bytes(), 0, None).unwrap() {
        Outcome::Event(event) => event.write(&mut canonical),
        Outcome::Refused(refused) => panic!("{refused:?}"),
    }
    group.throughput(Throughput::Elements(1));
    group.bench_function("a canonical event is read", |b| {
        b.iter(|| CanonicalEvent::read(black_box(&canonical)).unwrap().timestamp);
    });
    group.finish();
}

/// A body of events, and their places in it.
fn body(texts: &[String]) -> (Vec<u8>, Vec<Range<usize>>) {
    let mut body = Vec::new();
    let place = |text: &String| {
        body.extend_from_slice(text.as_bytes());
        body.len() - text.len()..body.len()
    };
    let places = texts.iter().map(place).collect();
    (body, places)
}

fn framing(c: &mut Criterion) {
    let texts = events(&mut generator(2), Source::FACEBOOK, FRAME);
    let origin = origin();
    let (body, places) = body(&texts);
    let whole = || FrameWriter::default().write(&[Piece { origin: &origin, body: &body, events: &places }]).1;
    let frame = whole();
    let mut group = c.benchmark_group("frame");
    group.throughput(Throughput::Elements(FRAME as u64));
    group.bench_function("write 1,000 events of one request", |b| b.iter(whole));
    group.bench_function("write 1,000 requests of one event", |b| {
        b.iter(|| {
            let piece = |place| Piece { origin: &origin, body: &body, events: std::slice::from_ref(place) };
            let pieces: Vec<_> = places.iter().map(piece).collect();
            FrameWriter::default().write(black_box(&pieces)).1
        });
    });
    group.bench_function("read", |b| {
        b.iter(|| Frame::read(black_box(frame.clone())).unwrap().events().count())
    });
    group.finish();
}

fn appending(c: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let settings = Config::from_variables(&Variables::default()).unwrap().log;
    let log = Embedded::open(&folder.path().join("log"), settings).unwrap();
    let texts = events(&mut generator(3), Source::FACEBOOK, FRAME);
    let origin = origin();
    let (body, places) = body(&texts);
    let mut writer = FrameWriter::default();
    let system = actix::System::new();
    let mut group = c.benchmark_group("append");
    group.throughput(Throughput::Elements(FRAME as u64)).sample_size(20);
    group.bench_function("embedded log, a frame of 1,000, durable", |b| {
        b.iter(|| {
            let (id, frame) = writer.write(&[Piece { origin: &origin, body: &body, events: &places }]);
            system.block_on(log.append(Topic::Events(Source::FACEBOOK), id, frame)).unwrap()
        });
    });
    group.finish();
}

fn batch<'a>(sequence: u64, texts: &'a [String], origin: &'a Origin) -> Batch<'a> {
    let frames = vec![frame(sequence, sequence, origin, texts)];
    Batch { source: Source::FACEBOOK, log_id: log(), frames }
}

fn writing_and_reporting(c: &mut Criterion) {
    let postgres = Postgres::start_with(&[]);
    let system = actix::System::new();
    let store = system.block_on(open(&postgres.url()));
    postgres.query("CREATE TABLE bare (LIKE event_rows INCLUDING ALL)");
    let origin = origin();
    let mut generator = generator(4);
    let mut sequence = 0;
    let mut group = c.benchmark_group("write");
    group
        .throughput(Throughput::Elements(BATCH as u64))
        .sample_size(20)
        .measurement_time(Duration::from_secs(15));
    group.bench_function("a transaction of 5,000 new rows, rollups, summaries, ledger", |b| {
        b.iter_batched(
            || events(&mut generator, Source::FACEBOOK, BATCH),
            |texts| {
                sequence += 1;
                system.block_on(store.write(&batch(sequence, &texts, &origin))).unwrap()
            },
            BatchSize::PerIteration,
        );
    });
    group.bench_function("the same rows into a table without them, by INSERT … SELECT", |b| {
        b.iter_custom(|times| {
            let mut took = Duration::ZERO;
            for turn in 0..times {
                postgres.query("TRUNCATE bare");
                let started = Instant::now();
                let sql = format!(
                    "INSERT INTO bare SELECT * FROM event_rows ORDER BY key OFFSET {} LIMIT {BATCH} ON CONFLICT (key) DO NOTHING",
                    turn as usize % 4 * BATCH
                );
                postgres.query(&sql);
                took += started.elapsed();
            }
            took
        });
    });
    group.finish();

    let mut group = c.benchmark_group("fold");
    group.throughput(Throughput::Elements(BATCH as u64)).sample_size(10);
    group.bench_function("a transaction of 5,000 into its hours' summaries", |b| {
        b.iter_custom(|times| {
            let mut took = Duration::ZERO;
            for _ in 0..times {
                let texts = events(&mut generator, Source::FACEBOOK, BATCH);
                sequence += 1;
                system.block_on(async {
                    store.fold_summaries(Source::FACEBOOK).await.unwrap();
                    store.write(&batch(sequence, &texts, &origin)).await.unwrap();
                    let started = Instant::now();
                    store.fold_summaries(Source::FACEBOOK).await.unwrap();
                    took += started.elapsed();
                });
            }
            took
        });
    });
    group.finish();

    let reports = Reports::new(store, 96 << 20);
    let all = Filter::default();
    let mut group = c.benchmark_group("report");
    group.bench_function("events", |b| {
        b.iter(|| {
            system.block_on(async {
                let report = reports.begin().await.unwrap();
                black_box(report.count_events(&all, None).await.unwrap());
                report.end().await.unwrap();
            });
        });
    });
    group.bench_function("audience", |b| {
        b.iter(|| {
            system.block_on(async {
                let report = reports.begin().await.unwrap();
                black_box(report.audiences(&all, 50).await.unwrap());
                report.end().await.unwrap();
            });
        });
    });
    group.finish();
}

criterion_group!(benches, decoding, converting, framing, appending, writing_and_reporting);
criterion_main!(benches);
