//! The ledger: frames are recognised by what they are, looks are bounded, and what a log lost is told.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ess::config::{Config, LogSettings, Variables};
use ess::event::{Source, decode};
use ess::ledger::{Reconciler, SourceLedger};
use ess::log::embedded::Embedded;
use ess::log::{
    AppendError, Appended, DeadLetter, Frame, FrameWriter, Log, LogError, Piece, Pull, Reason, SharedLog,
    Topic, TopicState, WriterMark,
};
use ess::store::{Batch, BatchFrame, Row, Store, StoreError, Written};
use futures::future::BoxFuture;
use futures::{StreamExt, future};
use migration::MigratorTrait;
use sea_orm::sqlx;
use uuid::Uuid;

use crate::support::events::simple;
use crate::support::postgres::Postgres;
use crate::support::process::Service;
use crate::support::proxy::Proxy;
use crate::support::stores::{frame, log, number, open, origin, plain, stores};
use crate::support::system::System;
use crate::support::{MINUTE, block_on, eventually, http};

const SOURCE: Source = Source::FACEBOOK;
const TOPIC: Topic = Topic::Events(SOURCE);

fn texts(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| simple(&format!("{prefix}-{n}"), "facebook").to_string()).collect()
}

async fn write(store: &Store, frames: Vec<BatchFrame<'_>>) -> Written {
    store.write(&Batch { source: SOURCE, log_id: log(), frames }).await.unwrap()
}

#[test]
pub fn frames_at_places_that_were_given_before_are_stored_and_none_is_counted_twice() {
    let stores = stores();
    for url in &stores.urls {
        block_on(async {
            let store = open(url).await;
            let origin = origin();
            let events: Vec<_> = (0..30).map(|n| texts(&format!("{n}"), 1)).collect();
            let at =
                |place: usize, number: usize| frame(place as u64, number as u64, &origin, &events[number]);
            let one = Written { stored: 1, ..Written::default() };
            let repeated = Written { repeated_frames: 1, ..Written::default() };
            write(&store, (1..=10).map(|n| at(n, n)).collect()).await;
            store.fold_ledger(SOURCE, log(), 1).await.unwrap();
            // The log went back to its start. A quick collector has the second new frame, a slow one the first.
            assert_eq!(write(&store, vec![at(2, 12)]).await, one);
            assert_eq!(write(&store, vec![at(1, 11)]).await, one);
            for round in 0..2 {
                for (place, number) in [(1, 11), (2, 12), (7, 7), (3, 10)] {
                    assert_eq!(write(&store, vec![at(place, number)]).await, repeated, "{round} {number}");
                }
                store.fold_ledger(SOURCE, log(), 1).await.unwrap();
            }
            // Frames of one writer in any order, some of them folded.
            for number in [25, 14, 24, 13, 23] {
                assert_eq!(write(&store, vec![at(number, number)]).await, one, "{number}");
                store.fold_ledger(SOURCE, log(), 1).await.unwrap();
                assert_eq!(write(&store, vec![at(number, number)]).await, repeated, "{number}");
            }
            assert_eq!(number(&store, "SELECT count(*) FROM event_rows").await, 17);
            // What is set aside of two frames that had one place are two letters.
            for number in [41, 42] {
                let mut refused = frame(30, number, &origin, &[]);
                let refusal = ess::event::Refusal { source: Some(SOURCE), ..Default::default() };
                refused.set_aside.push(DeadLetter::new(5, "c", Reason::UnreadableFrame, b"{}", refusal));
                write(&store, vec![refused]).await;
            }
            assert_eq!(number(&store, "SELECT count(*) FROM dead_letters").await, 2);
            store.fold_ledger(SOURCE, log(), 1).await.unwrap();
            assert_eq!(
                number(&store, "SELECT count(*) FROM ledger_runs").await,
                3,
                "1 to 14, 23 to 25, 41 to 42"
            );
            assert_eq!(number(&store, "SELECT count(*) FROM ledger_claims").await, 0);
        });
    }
}

#[test]
pub fn claims_and_folding_at_the_same_moment_count_every_frame_once() {
    const FRAMES: u64 = 150;
    let stores = stores();
    for url in &stores.urls {
        block_on(async {
            let (one, other, folder) = (open(url).await, open(url).await, open(url).await);
            let origin = origin();
            let events: Vec<_> = (0..=FRAMES).map(|n| texts(&format!("{n}"), 2)).collect();
            let done = AtomicU64::new(0);
            // Each frame comes six times: to both collectors, now and once it may be folded.
            let collect = async |store: &Store, shift: u64| {
                let mut sum = Written::default();
                for step in 0..3 * FRAMES {
                    let number = 1 + (step + shift + step / FRAMES * 7) % FRAMES;
                    let frames = || vec![frame(number, number, &origin, &events[number as usize])];
                    let written = loop {
                        match store.write(&Batch { source: SOURCE, log_id: log(), frames: frames() }).await {
                            Ok(written) => break written,
                            Err(StoreError::Conflict { .. }) => {}
                            // SQLite's writers wait for each other only so long.
                            Err(StoreError::Unavailable { message, .. }) if message.contains("locked") => {}
                            Err(error) => panic!("{error}"),
                        }
                    };
                    sum.stored += written.stored;
                    sum.duplicates += written.duplicates;
                    sum.repeated_frames += written.repeated_frames;
                }
                done.fetch_add(1, Ordering::Relaxed);
                sum
            };
            let fold = async {
                let mut folds = 0;
                while done.load(Ordering::Relaxed) < 2 {
                    folder.fold_ledger(SOURCE, log(), 1).await.unwrap();
                    folds += 1;
                    tokio::task::yield_now().await;
                }
                folds
            };
            let (left, right, folds) = future::join3(collect(&one, 0), collect(&other, 3), fold).await;
            // SQLite's writers take turns as it pleases them.
            assert!(folds >= if one.is_postgres() { 20 } else { 1 }, "{folds} folds");
            assert_eq!(left.stored + right.stored, 2 * FRAMES);
            assert_eq!(left.duplicates + right.duplicates, 0, "no frame was processed twice");
            assert_eq!(left.repeated_frames + right.repeated_frames, 5 * FRAMES);
            folder.fold_ledger(SOURCE, log(), 1).await.unwrap();
            let cut = folder.ledger(SOURCE, log(), &[]).await.unwrap();
            assert_eq!((cut.sequences.as_slice(), cut.processed()), (&[(1, FRAMES)][..], 2 * FRAMES));
            assert_eq!(number(&one, "SELECT count(*) FROM ledger_runs").await, 1);
        });
    }
}

fn literal(store: &Store, id: u128) -> String {
    let id = Uuid::from_u128(id).simple();
    if store.is_postgres() { format!("'{id}'::uuid") } else { format!("x'{id}'") }
}

#[test]
fn very_many_frames_above_one_that_stays_cost_a_look_next_to_nothing() {
    const FRAMES: u64 = 200_000;
    let stores = stores();
    for url in &stores.urls {
        block_on(async {
            let store = open(url).await;
            let (log_id, writer) = (literal(&store, 1), literal(&store, 9));
            let many = format!(
                "INSERT INTO ledger_claims
                    (source, writer, number, log_id, sequence, events, total, acked, acked_total)
                 WITH RECURSIVE n (at) AS (SELECT 2 UNION ALL SELECT at + 1 FROM n WHERE at < {FRAMES} + 1)
                 SELECT 1, {writer}, at, {log_id}, at, 10, at * 10, at - 1, at * 10 - 10 FROM n"
            );
            store.execute(&many).await.unwrap();
            store.fold_ledger(SOURCE, log(), 1).await.unwrap();
            assert_eq!(number(&store, "SELECT count(*) FROM ledger_claims").await, 0);
            assert_eq!(number(&store, "SELECT count(*) FROM ledger_runs").await, 1);
            if store.is_postgres() {
                store.execute("VACUUM ledger_claims").await.unwrap();
            }
            let memory = || {
                let status = std::fs::read_to_string("/proc/self/status").unwrap();
                let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap().to_owned();
                line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
            };
            let before = memory();
            let took = async |work: &dyn Fn() -> BoxFuture<'static, ()>| {
                let mut best = Duration::MAX;
                for _ in 0..5 {
                    let began = Instant::now();
                    work().await;
                    best = best.min(began.elapsed());
                }
                best
            };
            let of = store.clone();
            let looked = took(&|| {
                let store = of.clone();
                Box::pin(async move {
                    let known = store.known_log(SOURCE).await.unwrap();
                    assert_eq!(known.acked[&Uuid::from_u128(9)].number, FRAMES);
                    let cut = store.ledger(SOURCE, log(), &[]).await.unwrap();
                    assert_eq!(cut.sequences.as_slice(), [(2, FRAMES + 1)]);
                })
            })
            .await;
            let folded = took(&|| {
                let store = of.clone();
                Box::pin(async move { store.fold_ledger(SOURCE, log(), 1).await.unwrap() })
            })
            .await;
            let grown = memory() - before;
            println!("look {looked:?}, fold {folded:?}, {grown} KiB");
            assert!(looked < Duration::from_millis(50) && folded < Duration::from_millis(50));
            assert!(grown < 20 * 1024, "{grown} KiB");
        });
    }
}

#[test]
fn a_gap_that_never_closes_is_given_up_and_kept_as_holes() {
    let stores = stores();
    for url in &stores.urls {
        block_on(async {
            let store = open(url).await;
            let (log_id, writer) = (literal(&store, 1), literal(&store, 9));
            let many = format!(
                "INSERT INTO ledger_claims
                    (source, writer, number, log_id, sequence, events, total, acked, acked_total)
                 WITH RECURSIVE n (at) AS (SELECT 100 UNION ALL SELECT at + 1 FROM n WHERE at < 10150)
                 SELECT 1, {writer}, at, {log_id}, at, 1, at, 0, 0 FROM n"
            );
            store.execute(&many).await.unwrap();
            let fold = async |first| {
                store.fold_ledger(SOURCE, log(), first).await.unwrap();
                let cut = store.ledger(SOURCE, log(), &[]).await.unwrap();
                (cut.sequences.as_slice().to_vec(), cut.holes)
            };
            assert_eq!(fold(60).await, (vec![(100, 10_150)], 0), "the log still has what is missing");
            assert_eq!(fold(10_151).await, (vec![(1, 10_150)], 99));
            assert_eq!(fold(10_151).await, (vec![(1, 10_150)], 99));
        });
    }
}

#[test]
fn frames_from_before_are_known_by_their_place_if_their_writer_had_sent_their_number() {
    let stores = stores();
    for url in &stores.urls {
        block_on(async {
            let store = ess::store::Store::connect(url, ess::store::Purpose::Write { transactions: 2 });
            let store = store.await.unwrap();
            let migrations = migration::Migrator::migrations();
            let new = migrations.iter().position(|migration| migration.name().contains("000007")).unwrap();
            migration::Migrator::up(&plain(url).await, Some(new as u32)).await.unwrap();
            let (log_id, writer) = (literal(&store, 1), literal(&store, 9));
            for sql in [
                format!("INSERT INTO ledger_watermarks VALUES (1, {log_id}, 20, 2)"),
                format!("INSERT INTO ledger_frames SELECT 1, {log_id}, 22 UNION ALL SELECT 1, {log_id}, 23"),
                format!(
                    "INSERT INTO ledger_writers VALUES (1, {log_id}, {writer}, 0, 21, 210),
                        (1, {log_id}, {writer}, 1, 22, 220)"
                ),
                format!(
                    "INSERT INTO ledger_counts VALUES (1, {log_id}, 0, 150, 10, 0), (1, {log_id}, 1, 40, 0, 0)"
                ),
                format!("INSERT INTO ledger_writers VALUES (1, {}, {writer}, 0, 5, 50)", literal(&store, 2)),
                format!("INSERT INTO ledger_counts VALUES (1, {}, 0, 40, 3, 0)", literal(&store, 2)),
            ] {
                store.execute(&sql).await.unwrap();
            }
            store.migrate().await.unwrap();
            let cut = store.ledger(SOURCE, log(), &[]).await.unwrap();
            assert_eq!(cut.sequences.as_slice(), [(1, 20), (22, 23)]);
            assert_eq!(
                (cut.processed(), cut.lost_before),
                (243, 2 + 7),
                "two places, and the former log's tail"
            );
            let origin = origin();
            let events: Vec<_> = (0..60).map(|n| texts(&format!("{n}"), 1)).collect();
            let at = |place: u64, number: u64| vec![frame(place, number, &origin, &events[number as usize])];
            let repeated = Written { repeated_frames: 1, ..Written::default() };
            let one = Written { stored: 1, ..Written::default() };
            assert_eq!(write(&store, at(7, 7)).await, repeated, "below the watermark");
            assert_eq!(write(&store, at(22, 21)).await, repeated, "above it");
            assert_eq!(write(&store, at(21, 20)).await, one, "in between");
            assert_eq!(write(&store, at(7, 30)).await, one, "its writer had not written it by then");
            assert_eq!(write(&store, at(24, 24)).await, one);
            store.fold_ledger(SOURCE, log(), 1).await.unwrap();
            for (place, number) in [(7, 7), (22, 21), (21, 20), (7, 30), (24, 24)] {
                assert_eq!(write(&store, at(place, number)).await, repeated, "{number}");
            }
            assert_eq!(number(&store, "SELECT count(*) FROM event_rows").await, 3);
            migration::Migrator::down(&plain(url).await, Some((migrations.len() - new) as u32))
                .await
                .unwrap();
            assert_eq!(number(&store, "SELECT count(*) FROM ledger_frames").await, 2);
        });
    }
}

fn settings(pairs: &[(&str, &str)]) -> LogSettings {
    Config::from_variables(&Variables::from_pairs(pairs.iter().copied()).unwrap()).unwrap().log
}

/// An embedded log that counts the frames that are read.
struct Counting(Embedded, AtomicU64);

impl Log for Counting {
    fn append(&self, topic: Topic, id: String, frame: Bytes) -> BoxFuture<'_, Result<Appended, AppendError>> {
        Log::append(&self.0, topic, id, frame)
    }

    fn prepare(&self, topic: Topic) -> BoxFuture<'_, Result<(), LogError>> {
        self.0.prepare(topic)
    }

    fn pull(&self, topic: Topic, most: usize) -> BoxFuture<'_, Result<Pull, LogError>> {
        self.0.pull(topic, most)
    }

    fn state(&self, topic: Topic) -> BoxFuture<'_, Result<TopicState, LogError>> {
        self.0.state(topic)
    }

    fn peek(&self, topic: Topic, sequence: u64) -> BoxFuture<'_, Result<Option<Bytes>, LogError>> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.peek(topic, sequence)
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), LogError>> {
        self.0.flush()
    }
}

/// A log, a store, and a gateway's writer between them.
struct Bench {
    log: Arc<Counting>,
    store: Store,
    ledgers: Reconciler,
    writer: FrameWriter,
    sent: u64,
}

impl Bench {
    async fn new(folder: &std::path::Path, url: &str) -> Self {
        let log = Embedded::open(&folder.join("log.redb"), settings(&[])).unwrap();
        let log = Arc::new(Counting(log, AtomicU64::new(0)));
        let store = open(url).await;
        let ledgers = Reconciler::new(log.clone() as SharedLog, store.clone());
        Self { log, store, ledgers, writer: FrameWriter::default(), sent: 0 }
    }

    /// The next frame of so many events.
    fn frame(&mut self, events: usize) -> (u64, String, Bytes) {
        let texts = texts(&format!("e{}", self.sent), events);
        self.sent += 1;
        let body = texts.concat();
        let mut at = 0;
        let places: Vec<_> = texts
            .iter()
            .map(|text| {
                at += text.len();
                at - text.len()..at
            })
            .collect();
        let origin = origin();
        let piece = Piece { origin: &origin, body: body.as_bytes(), events: &places };
        let (id, bytes) = self.writer.write(&[piece]);
        (self.writer.number(), id, bytes)
    }

    async fn publish(&mut self, events: usize) {
        let (number, id, bytes) = self.frame(events);
        Log::append(&*self.log, TOPIC, id, bytes).await.unwrap();
        self.writer.acknowledge(number);
    }

    /// Collects so many frames, as a collector does.
    async fn collect(&self, frames: usize) {
        let mut taken = 0;
        while taken < frames {
            let mut pull = self.log.pull(TOPIC, (frames - taken).min(32)).await.unwrap();
            while let Some(delivery) = pull.next().await {
                let delivery = delivery.unwrap();
                let frame = Frame::read(delivery.frame).unwrap();
                let rows: Vec<_> = frame
                    .events()
                    .map(|event| {
                        Row::new(decode(event.bytes, None).unwrap(), event.bytes, event.origin, 5, 6)
                    })
                    .collect();
                let frame = BatchFrame {
                    sequence: delivery.sequence,
                    writer: frame.writer,
                    number: frame.number,
                    total: frame.total,
                    acknowledged: frame.acknowledged,
                    rows,
                    set_aside: Vec::new(),
                    alien: false,
                };
                let batch = Batch { source: SOURCE, log_id: delivery.log_id, frames: vec![frame] };
                self.store.write(&batch).await.unwrap();
                delivery.receipt.ack().await.unwrap();
                taken += 1;
            }
        }
    }

    /// A look, as a collector's housekeeping takes it, and the frames that it read.
    async fn look(&self) -> (SourceLedger, u64) {
        let state = self.log.state(TOPIC).await.unwrap();
        self.store.fold_ledger(SOURCE, state.log_id, state.first).await.unwrap();
        let before = self.log.1.load(Ordering::Relaxed);
        let look = self.ledgers.reconcile(SOURCE).await.unwrap();
        self.store.save_observation(SOURCE, &look.known, &look.observed).await.unwrap();
        (look.ledger, self.log.1.load(Ordering::Relaxed) - before)
    }
}

fn sums(ledger: &SourceLedger) -> (u64, u64, u64, u64) {
    (ledger.published, ledger.stored, ledger.in_flight, ledger.missing)
}

#[test]
fn frames_that_the_log_never_took_are_no_loss_and_a_look_reads_no_backlog() {
    let stores = stores();
    for url in &stores.urls {
        let folder = tempfile::tempdir().unwrap();
        block_on(async {
            let mut bench = Bench::new(folder.path(), url).await;
            for _ in 0..10 {
                bench.publish(3).await;
            }
            bench.collect(10).await;
            assert_eq!(sums(&bench.look().await.0), (30, 30, 0, 0));
            // Refused frames among taken ones of the same writer, as when the log is full: the gateway begins anew
            // after each, and those that are under way by then are of the writer before.
            for _ in 0..40 {
                for _ in 0..10 {
                    bench.publish(2).await;
                }
                let _refused = bench.frame(5);
                let (_, id, late) = bench.frame(2);
                bench.writer = FrameWriter::default();
                Log::append(&*bench.log, TOPIC, id, late).await.unwrap();
            }
            for round in 0..3 {
                let (ledger, read) = bench.look().await;
                assert_eq!(ledger.missing, 0, "{round}: {ledger:?}");
                assert!(read <= 64, "{round}: {read} of 440 frames were read");
                let in_flight = ledger.in_flight as f64;
                assert!((in_flight / 880.0 - 1.0).abs() < 0.2, "{round}: {ledger:?}");
            }
            bench.collect(200).await;
            let (ledger, read) = bench.look().await;
            assert_eq!((ledger.missing, read <= 64), (0, true), "{ledger:?}, {read} frames were read");
            bench.collect(240).await;
            let (ledger, read) = bench.look().await;
            assert_eq!((sums(&ledger), read), ((910, 910, 0, 0), 0));
            // Without a refusal, few frames size a long backlog exactly.
            for _ in 0..300 {
                bench.publish(2).await;
            }
            let (ledger, read) = bench.look().await;
            assert_eq!((sums(&ledger), read), ((1_510, 910, 600, 0), 1));
        });
    }
}

#[test]
fn what_a_log_lost_is_missing_by_the_totals_of_its_writers() {
    let stores = stores();
    for url in &stores.urls {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("log.redb");
        let copy = folder.path().join("copy.redb");
        block_on(async {
            let mut bench = Bench::new(folder.path(), url).await;
            for _ in 0..10 {
                bench.publish(7).await;
            }
            bench.collect(4).await;
            assert_eq!(sums(&bench.look().await.0), (70, 28, 42, 0));
            // The same log, older: a copy from here comes back later.
            let again = async |bench: Bench| {
                let Bench { log, store, ledgers, writer, sent } = bench;
                drop((log, ledgers));
                (store, writer, sent)
            };
            let (store, writer, sent) = again(bench).await;
            drop(store);
            let reopened = async |writer, sent| {
                let started = Instant::now();
                while let Err(error) = Embedded::open(&file, settings(&[])) {
                    assert!(started.elapsed() < Duration::from_secs(10), "{error}");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                tokio::time::sleep(Duration::from_millis(300)).await;
                let mut bench = Bench::new(folder.path(), url).await;
                (bench.writer, bench.sent) = (writer, sent);
                bench
            };
            std::fs::copy(&file, &copy).unwrap();
            let mut bench = reopened(writer, sent).await;
            for _ in 0..5 {
                bench.publish(9).await;
            }
            assert_eq!(sums(&bench.look().await.0), (115, 28, 87, 0));
            bench.collect(6 + 2).await;
            assert_eq!(sums(&bench.look().await.0), (115, 88, 27, 0));
            // It goes back: three frames with 27 events are nowhere, five frames come again.
            let (_, writer, sent) = again(bench).await;
            tokio::time::sleep(Duration::from_millis(300)).await;
            std::fs::copy(&copy, &file).unwrap();
            let mut bench = reopened(writer, sent).await;
            assert_eq!(sums(&bench.look().await.0), (115, 88, 0, 27));
            for _ in 0..4 {
                bench.publish(1).await;
            }
            assert_eq!(sums(&bench.look().await.0).3, 27);
            bench.collect(6 + 4).await;
            for _ in 0..2 {
                assert_eq!(
                    sums(&bench.look().await.0),
                    (119, 92, 0, 27),
                    "no place of another frame hides any"
                );
            }
            // It is made anew, while two frames with 10 events wait that a look has seen.
            bench.publish(5).await;
            bench.publish(5).await;
            assert_eq!(sums(&bench.look().await.0), (129, 92, 10, 27));
            let (_, _, sent) = again(bench).await;
            tokio::time::sleep(Duration::from_millis(300)).await;
            std::fs::remove_file(&file).unwrap();
            let mut bench = reopened(FrameWriter::default(), sent).await;
            assert_eq!(sums(&bench.look().await.0), (129, 92, 0, 37));
            bench.publish(6).await;
            bench.collect(1).await;
            for _ in 0..2 {
                assert_eq!(sums(&bench.look().await.0), (135, 98, 0, 37));
            }
        });
    }
}

#[test]
fn writers_that_rest_for_long_are_forgotten_and_what_is_missing_of_theirs_is_not() {
    let stores = stores();
    for url in &stores.urls {
        block_on(async {
            let store = open(url).await;
            let origin = origin();
            let events = texts("e", 4);
            let mut fourth = frame(4, 4, &origin, &events);
            fourth.acknowledged = WriterMark { number: 3, total: 3_000 };
            write(&store, vec![frame(1, 1, &origin, &[]), fourth]).await;
            store.fold_ledger(SOURCE, log(), 1).await.unwrap();
            let old = "UPDATE ledger_writers SET touched = touched - 31 * 24 * 3600";
            store.execute(old).await.unwrap();
            let writer = Uuid::from_u128(9);
            let remembered = HashMap::from([(writer, WriterMark::default())]);
            store.expire_writers(SOURCE, &remembered).await.unwrap();
            assert_eq!(number(&store, "SELECT count(*) FROM ledger_writers").await, 1);
            store.execute(old).await.unwrap();
            store.expire_writers(SOURCE, &HashMap::new()).await.unwrap();
            let rows = "SELECT (SELECT count(*) FROM ledger_writers) + (SELECT count(*) FROM ledger_runs)";
            assert_eq!(number(&store, rows).await, 0);
            let cut = store.ledger(SOURCE, log(), &[]).await.unwrap();
            assert_eq!((cut.forgotten.frames, cut.forgotten.events), (2, 2_000), "the second and the third");
        });
    }
}

#[test]
fn requests_for_the_ledger_share_looks() {
    let stores = stores();
    let folder = tempfile::tempdir().unwrap();
    block_on(async {
        let mut bench = Bench::new(folder.path(), &stores.urls[0]).await;
        for _ in 0..50 {
            bench.publish(1).await;
        }
        let before = bench.log.1.load(Ordering::Relaxed);
        let looks = future::join_all((0..100).map(|_| bench.ledgers.reconcile(SOURCE))).await;
        assert!(looks.iter().all(|look| look.as_ref().is_ok_and(|look| look.ledger.in_flight == 50)));
        let read = bench.log.1.load(Ordering::Relaxed) - before;
        assert!(read <= 3, "{read} looks");
        let all = future::join_all((0..500).map(|_| bench.ledgers.reconcile(SOURCE))).await;
        assert!(all.iter().any(Result::is_err), "one more than a bound is told so");
        assert!(all.iter().any(Result::is_ok));
    });
}

/// A claim whose view of the runs is older than the folding, and whose row the folding has deleted.
#[test]
fn a_claim_that_waits_while_its_frame_is_folded_is_made_anew() {
    let postgres = Postgres::start();
    block_on(async {
        let store = open(&postgres.url()).await;
        let origin = origin();
        let (early, late) = (texts("early", 2), texts("late", 3));
        let one = Written { stored: 3, ..Written::default() };
        assert_eq!(write(&store, vec![frame(2, 2, &origin, &late), frame(3, 3, &origin, &[])]).await, one);
        // Another collector has claimed the first frame and goes no further.
        let pool = sqlx::PgPool::connect(&postgres.url()).await.unwrap();
        let mut other = pool.begin().await.unwrap();
        let claim = "INSERT INTO ledger_claims
            (source, writer, number, log_id, sequence, events, total, acked, acked_total)
            VALUES (1, $1, 1, $2, 1, 2, 2, 0, 0)";
        sqlx::query(claim).bind(Uuid::from_u128(9)).bind(log()).execute(&mut *other).await.unwrap();
        let waiting = async {
            // The last one holds nothing that would be found to be stored.
            let frames = vec![frame(1, 1, &origin, &early), frame(3, 3, &origin, &[])];
            write(&store, frames).await
        };
        let meanwhile = async {
            let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
            while sqlx::query_scalar::<_, i64>(waits).fetch_one(&pool).await.unwrap() == 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            store.fold_ledger(SOURCE, log(), 1).await.unwrap();
            assert_eq!(number(&store, "SELECT count(*) FROM ledger_claims").await, 0, "folded");
            other.rollback().await.unwrap();
        };
        let (written, ()) = future::join(waiting, meanwhile).await;
        assert_eq!(written, Written { stored: 2, repeated_frames: 1, ..Written::default() });
        let cut = store.ledger(SOURCE, log(), &[]).await.unwrap();
        assert_eq!(cut.processed(), 5);
    });
}

/// Posts batches from several clients until it is told to stop. What is answered 202 is remembered, by the round in
/// which it was.
struct Load {
    next: AtomicU64,
    round: AtomicU64,
    stop: AtomicBool,
    accepted: Mutex<Vec<(u64, String)>>,
}

impl Load {
    fn new() -> Self {
        let (next, round, stop) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
        Self { next, round, stop, accepted: Mutex::default() }
    }

    fn client(&self, url: &str, sources: &[&str], size: usize) {
        while !self.stop.load(Ordering::Relaxed) {
            let round = self.round.load(Ordering::Relaxed);
            let ids: Vec<String> =
                (0..size).map(|_| format!("l-{}", self.next.fetch_add(1, Ordering::Relaxed))).collect();
            let events: Vec<_> =
                ids.iter().zip(sources.iter().cycle()).map(|(id, source)| simple(id, source)).collect();
            match http::post(url, &serde_json::Value::from(events).to_string()) {
                Ok(answer) if answer.status == 202 => {
                    self.accepted.lock().unwrap().extend(ids.into_iter().map(|id| (round, id)));
                }
                _ => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// Clients post batches of `size` events while `meanwhile` runs.
    fn run(&self, url: &str, sources: &[&str], (clients, size): (usize, usize), meanwhile: impl FnOnce()) {
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        std::thread::scope(|scope| {
            let _stop = Stop(&self.stop);
            (0..clients).for_each(|_| drop(scope.spawn(|| self.client(url, sources, size))));
            meanwhile();
        });
    }

    /// Events that were answered 202 in a round.
    fn accepted(&self, round: u64) -> usize {
        self.accepted.lock().unwrap().iter().filter(|(of, _)| *of == round).count()
    }

    /// Waits until so many events more were answered 202.
    fn wait(&self, events: usize) {
        let before = self.accepted.lock().unwrap().len();
        eventually("events are accepted", MINUTE, || {
            (self.accepted.lock().unwrap().len() >= before + events).then_some(())
        });
    }
}

const TWO_OF_EACH: &[&[&str]] = &[
    &["gateway"],
    &["collector", "facebook"],
    &["collector", "facebook"],
    &["collector", "tiktok"],
    &["collector", "tiktok"],
    &["reporter"],
];

#[test]
fn events_accepted_after_the_log_went_back_are_rows_once() {
    let mut world = System::real_with(&[], TWO_OF_EACH);
    let url = world.gateway_url("/webhook");
    let load = Load::new();
    // Small frames, so that many places are given again.
    load.run(&url, &["facebook", "tiktok"], (16, 2), || {
        load.wait(500);
        world.nats().process.kill();
        let copy = world.nats().copy_store();
        world.nats().start_again();
        load.round.store(1, Ordering::Relaxed);
        load.wait(4_000);
        world.nats().process.kill();
        world.nats().restore_store(&copy);
        // What is answered from here on was taken by the log that went back.
        std::thread::sleep(Duration::from_millis(300));
        load.round.store(2, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(300));
        load.round.store(3, Ordering::Relaxed);
        world.nats().start_again();
        load.wait(4_000);
    });
    let ledger = world.settle();
    let rows = world.database.query("SELECT event_id FROM event_rows");
    let stored: std::collections::HashSet<&String> = rows.iter().collect();
    assert_eq!(stored.len(), rows.len(), "none twice");
    let accepted = load.accepted.lock().unwrap().clone();
    let lost: Vec<_> = accepted.iter().filter(|(round, id)| *round == 3 && !stored.contains(id)).collect();
    assert!(lost.is_empty(), "{} of {} lost: {lost:?}", lost.len(), load.accepted(3));
    assert!(load.accepted(1) >= 4_000 && load.accepted(3) >= 3_900, "an empty run");
    let gone = accepted.iter().filter(|(_, id)| !stored.contains(id)).count() as u64;
    let missing: u64 =
        ledger["sources"].as_array().unwrap().iter().map(|source| source["missing"].as_u64().unwrap()).sum();
    println!("{gone} of {} events went with the log, the ledger says {missing}", accepted.len());
    assert!(missing >= gone, "{ledger}");
    eventually("it is said aloud", MINUTE, || {
        let said = |text| world.services[1..5].iter().any(|service| !service.lines(text).is_empty());
        (said("went back") || said("a second time")).then_some(())
    });
}

/// Backends of writers that wait for their client between two statements, or in COPY.
fn waiting_for_client(postgres: &Postgres, copying: bool) -> Vec<String> {
    let state = if copying {
        "state = 'active' AND wait_event = 'ClientRead' AND query LIKE 'COPY%'"
    } else {
        "state = 'idle in transaction'"
    };
    postgres.query(&format!(
        "SELECT a.pid, a.xact_start FROM pg_stat_activity a WHERE datname = 'ess' AND {state}
         AND EXISTS (SELECT FROM pg_locks l WHERE l.pid = a.pid AND l.locktype = 'advisory')"
    ))
}

/// Stops a collector while one of its transactions waits for it; true if it stands still there.
fn freeze(world: &mut System, collector: &Service, copying: bool) -> bool {
    let waiting = waiting_for_client(world.postgres(), copying);
    if waiting.is_empty() {
        return false;
    }
    collector.process.signal("STOP");
    let first = waiting_for_client(world.postgres(), copying);
    std::thread::sleep(Duration::from_millis(700));
    let still = waiting_for_client(world.postgres(), copying);
    let frozen = still.iter().any(|pid| first.contains(pid));
    if !frozen {
        collector.process.signal("CONT");
    }
    frozen
}

fn a_frozen_collector_holds_up_its_neighbour_for_seconds_alone(copying: bool) {
    let mut world = System::real_with(&[], &[&["gateway"], &["collector", "facebook"], &["reporter"]]);
    // Far from its database, it waits for that, and that for it, most of the time.
    let proxy = Proxy::to(world.postgres().port);
    let mut environment = world.environment.clone();
    environment.push(("DATABASE_URL".to_owned(), format!("postgres://ess@127.0.0.1:{}/ess", proxy.port)));
    let mut collector = Service::start(&["collector", "facebook"], &environment, world.folder.path());
    collector.wait_ready();
    proxy.delay(Duration::from_millis(60));
    let url = world.gateway_url("/webhook");
    let load = Load::new();
    let mut longest = Duration::ZERO;
    load.run(&url, &["facebook"], (4, 10), || {
        load.wait(300);
        eventually("a collector stands still in a transaction", MINUTE * 3, || {
            freeze(&mut world, &collector, copying).then_some(())
        });
        let frozen = Instant::now();
        let (mut rows, mut last) = (world.count_rows(), Instant::now());
        while frozen.elapsed() < Duration::from_secs(30) {
            std::thread::sleep(Duration::from_millis(500));
            let now = world.count_rows();
            if now > rows {
                (rows, last) = (now, Instant::now());
            }
            longest = longest.max(last.elapsed());
        }
        collector.process.signal("CONT");
        proxy.delay(Duration::ZERO);
        load.wait(100);
    });
    println!("the longest time without a row: {longest:?}");
    // Ten seconds until its frames come again, and as many until it counts as standing still.
    assert!(longest < Duration::from_secs(20), "no row for {longest:?}");
    collector.wait_ready();
    let ledger = world.settle();
    let rows = world.database.query("SELECT event_id FROM event_rows");
    let stored: std::collections::HashSet<&String> = rows.iter().collect();
    let accepted = load.accepted.lock().unwrap();
    assert!(accepted.len() > 1_000, "an empty run: {}", accepted.len());
    assert!(accepted.iter().all(|(_, id)| stored.contains(id)), "nothing is lost");
    assert_eq!((stored.len(), &ledger["sources"][0]["missing"]), (rows.len(), &0.into()), "{ledger}");
    assert_eq!(ledger["sources"][0]["stored"], rows.len());
}

#[test]
fn a_collector_that_is_frozen_between_two_statements_holds_up_its_neighbour_for_seconds_alone() {
    a_frozen_collector_holds_up_its_neighbour_for_seconds_alone(false);
}

#[test]
fn a_collector_that_is_frozen_while_it_copies_holds_up_its_neighbour_for_seconds_alone() {
    a_frozen_collector_holds_up_its_neighbour_for_seconds_alone(true);
}

#[test]
fn a_collector_that_cannot_store_says_so() {
    let mut world = System::real(&[]);
    let postgres = world.postgres().url();
    let ready = world.service("collector-facebook").url("/ready");
    let mut locker = std::process::Command::new("psql")
        .args(["-X", "-q", "-d", &postgres, "-c"])
        .arg("BEGIN; LOCK TABLE event_rows IN EXCLUSIVE MODE; SELECT pg_sleep(120);")
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    eventually("the table is locked", MINUTE, || {
        let locked = "SELECT count(*) FROM pg_locks WHERE mode = 'ExclusiveLock' AND locktype = 'relation' AND granted";
        (world.postgres().query(locked)[0] != "0").then_some(())
    });
    assert_eq!(world.post(&simple("held-up", "facebook").to_string()).status, 202);
    let why = eventually("it says so", MINUTE, || {
        http::get(&ready).ok().filter(|answer| answer.status == 503).map(|answer| answer.text)
    });
    assert!(why.contains("storing"), "{why}");
    world.postgres().query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(120)%'
        AND pid <> pg_backend_pid()",
    );
    locker.wait().unwrap();
    eventually("it is stored", MINUTE, || (world.count_rows() == 1).then_some(()));
    world.wait_ready();
}

#[test]
fn a_reporter_on_a_lagging_standby_misses_nothing() {
    let mut world = System::real(&[]);
    let standby = world.postgres().standby("copy", &["recovery_min_apply_delay=1s"]);
    let mut environment = world.environment.clone();
    environment.push(("ESS_REPORTER_DATABASE_URL".to_owned(), standby.url()));
    let mut reporter = Service::start(&["reporter"], &environment, world.folder.path());
    reporter.wait_ready();
    let url = world.gateway_url("/webhook");
    let load = Load::new();
    let (mut looks, mut behind, mut in_flight) = (0, 0, 0);
    load.run(&url, &["facebook", "tiktok"], (4, 10), || {
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(15) {
            let ledger = http::get(&reporter.url("/ledger")).unwrap();
            assert_eq!(ledger.status, 200, "{}", ledger.text);
            let ledger = ledger.json();
            for source in ledger["sources"].as_array().unwrap() {
                let of = |name: &str| source[name].as_u64().unwrap();
                assert_eq!(of("missing"), 0, "{ledger}");
                let sum = ["stored", "duplicates", "quarantined", "inFlight"].map(of).iter().sum::<u64>();
                assert_eq!(of("published"), sum, "{ledger}");
                in_flight += of("inFlight");
            }
            looks += 1;
            let stored = ledger["sources"].as_array().unwrap().iter();
            let stored: u64 = stored.map(|source| source["stored"].as_u64().unwrap()).sum();
            behind += u64::from(stored < world.count_rows());
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    println!("{looks} looks, {behind} of them behind, {in_flight} events in flight in all");
    assert!(looks >= 20 && behind * 2 > looks, "{looks} looks, {behind} behind");
    assert!(load.accepted(0) > 1_000, "an empty run");
    for source in ["facebook", "tiktok"] {
        let series = format!("ess_ledger_missing_events{{source=\"{source}\"}}");
        assert!(reporter.metric(&series).abs() < 0.5);
    }
    world.settle();
    eventually("the standby has all", MINUTE, || {
        let ledger = http::settled(&reporter.url("/ledger"))?;
        let stored: u64 =
            ledger["sources"].as_array()?.iter().map(|source| source["stored"].as_u64().unwrap()).sum();
        (stored == world.count_rows()).then_some(())
    });
    assert!(reporter.lines("events are nowhere").is_empty());
}
