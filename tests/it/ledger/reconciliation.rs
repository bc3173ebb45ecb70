//! Log and store are reconciled exactly, and few frames are read for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ess::config::{Config, LogSettings, Variables};
use ess::event::decode;
use ess::ledger::{Reconciler, SourceLedger};
use ess::log::embedded::Embedded;
use ess::log::{
    AppendError, Appended, Bus, Frame, FrameWriter, Log, LogError, Piece, Pull, SharedLog, Topic, TopicState,
};
use ess::store::{Batch, BatchFrame, Row, Store};
use futures::future::BoxFuture;
use futures::{StreamExt, future};

use super::{SOURCE, TOPIC, texts};
use crate::support::block_on;
use crate::support::stores::{open, origin, stores};

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

    fn topics(&self) -> BoxFuture<'_, Result<Vec<String>, LogError>> {
        self.0.topics()
    }

    fn bus(&self) -> Bus {
        self.0.bus()
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), LogError>> {
        self.0.flush()
    }
}

/// A log, a store, and the writer of a gateway between them.
struct LogAndStore {
    log: Arc<Counting>,
    store: Store,
    ledgers: Reconciler,
    writer: FrameWriter,
    sent: u64,
}

impl LogAndStore {
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
                    unreadable: false,
                };
                let batch = Batch { source: SOURCE, log_id: delivery.log_id, frames: vec![frame] };
                self.store.write(&batch).await.unwrap();
                delivery.receipt.ack().await.unwrap();
                taken += 1;
            }
        }
    }

    /// A reconciliation, as a collector does it, and the number of frames that it read.
    async fn reconcile(&self) -> (SourceLedger, u64) {
        let state = self.log.state(TOPIC).await.unwrap();
        self.store.fold_ledger(SOURCE, state.log_id, state.first).await.unwrap();
        let before = self.log.1.load(Ordering::Relaxed);
        let done = self.ledgers.reconcile(SOURCE).await.unwrap();
        self.store.save_observation(SOURCE, &done.known, &done.observed).await.unwrap();
        (done.ledger, self.log.1.load(Ordering::Relaxed) - before)
    }
}

fn sums(ledger: &SourceLedger) -> (u64, u64, u64, u64) {
    (ledger.published, ledger.stored, ledger.in_flight, ledger.missing)
}

#[test]
fn frames_that_the_log_refused_are_not_missing_and_no_backlog_is_read() {
    let stores = stores();
    for url in &stores.urls {
        let folder = tempfile::tempdir().unwrap();
        block_on(async {
            let mut system = LogAndStore::new(folder.path(), url).await;
            for _ in 0..10 {
                system.publish(3).await;
            }
            system.collect(10).await;
            assert_eq!(sums(&system.reconcile().await.0), (30, 30, 0, 0));
            // Refused frames among accepted ones of a writer, as when the log is full: the gateway begins a new writer
            // after each, and frames that are under way by then are of the one before.
            for _ in 0..40 {
                for _ in 0..10 {
                    system.publish(2).await;
                }
                let _refused = system.frame(5);
                let (_, id, late) = system.frame(2);
                system.writer = FrameWriter::default();
                Log::append(&*system.log, TOPIC, id, late).await.unwrap();
            }
            for round in 0..3 {
                let (ledger, read) = system.reconcile().await;
                assert_eq!(ledger.missing, 0, "{round}: {ledger:?}");
                assert!(read <= 64, "{round}: {read} of 440 frames were read");
                let in_flight = ledger.in_flight as f64;
                assert!((in_flight / 880.0 - 1.0).abs() < 0.2, "{round}: {ledger:?}");
            }
            system.collect(200).await;
            let (ledger, read) = system.reconcile().await;
            assert_eq!((ledger.missing, read <= 64), (0, true), "{ledger:?}, {read} frames were read");
            system.collect(240).await;
            let (ledger, read) = system.reconcile().await;
            assert_eq!((sums(&ledger), read), ((910, 910, 0, 0), 0));
            // Without a refusal, few frames size a long backlog exactly.
            for _ in 0..300 {
                system.publish(2).await;
            }
            let (ledger, read) = system.reconcile().await;
            assert_eq!((sums(&ledger), read), ((1_510, 910, 600, 0), 1));
        });
    }
}

#[test]
fn frames_that_a_log_lost_are_sized_by_the_totals_of_their_writers() {
    let stores = stores();
    for url in &stores.urls {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("log.redb");
        let copy = folder.path().join("copy.redb");
        block_on(async {
            let mut system = LogAndStore::new(folder.path(), url).await;
            for _ in 0..10 {
                system.publish(7).await;
            }
            system.collect(4).await;
            assert_eq!(sums(&system.reconcile().await.0), (70, 28, 42, 0));
            // A copy of the log as it is here replaces it later.
            let again = async |system: LogAndStore| {
                let LogAndStore { log, store, ledgers, writer, sent } = system;
                drop((log, ledgers));
                (store, writer, sent)
            };
            let (store, writer, sent) = again(system).await;
            drop(store);
            let reopened = async |writer, sent| {
                let started = Instant::now();
                while let Err(error) = Embedded::open(&file, settings(&[])) {
                    assert!(started.elapsed() < Duration::from_secs(10), "{error}");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                tokio::time::sleep(Duration::from_millis(300)).await;
                let mut system = LogAndStore::new(folder.path(), url).await;
                (system.writer, system.sent) = (writer, sent);
                system
            };
            std::fs::copy(&file, &copy).unwrap();
            let mut system = reopened(writer, sent).await;
            for _ in 0..5 {
                system.publish(9).await;
            }
            assert_eq!(sums(&system.reconcile().await.0), (115, 28, 87, 0));
            system.collect(6 + 2).await;
            assert_eq!(sums(&system.reconcile().await.0), (115, 88, 27, 0));
            // The copy replaces it: three frames with 27 events are missing, five frames are delivered again.
            let (_, writer, sent) = again(system).await;
            tokio::time::sleep(Duration::from_millis(300)).await;
            std::fs::copy(&copy, &file).unwrap();
            let mut system = reopened(writer, sent).await;
            assert_eq!(sums(&system.reconcile().await.0), (115, 88, 0, 27));
            for _ in 0..4 {
                system.publish(1).await;
            }
            assert_eq!(sums(&system.reconcile().await.0).3, 27);
            system.collect(6 + 4).await;
            for _ in 0..2 {
                assert_eq!(
                    sums(&system.reconcile().await.0),
                    (119, 92, 0, 27),
                    "a reused sequence number hides no missing frame"
                );
            }
            // A new log replaces it, while two frames with 10 events wait that a reconciliation has seen.
            system.publish(5).await;
            system.publish(5).await;
            assert_eq!(sums(&system.reconcile().await.0), (129, 92, 10, 27));
            let (_, _, sent) = again(system).await;
            tokio::time::sleep(Duration::from_millis(300)).await;
            std::fs::remove_file(&file).unwrap();
            let mut system = reopened(FrameWriter::default(), sent).await;
            assert_eq!(sums(&system.reconcile().await.0), (129, 92, 0, 37));
            system.publish(6).await;
            system.collect(1).await;
            for _ in 0..2 {
                assert_eq!(sums(&system.reconcile().await.0), (135, 98, 0, 37));
            }
        });
    }
}

#[test]
fn concurrent_requests_share_a_reconciliation() {
    let stores = stores();
    let folder = tempfile::tempdir().unwrap();
    block_on(async {
        let mut system = LogAndStore::new(folder.path(), &stores.urls[0]).await;
        for _ in 0..50 {
            system.publish(1).await;
        }
        let before = system.log.1.load(Ordering::Relaxed);
        let all = future::join_all((0..100).map(|_| system.ledgers.reconcile(SOURCE))).await;
        assert!(all.iter().all(|done| done.as_ref().is_ok_and(|done| done.ledger.in_flight == 50)));
        let read = system.log.1.load(Ordering::Relaxed) - before;
        assert!(read <= 3, "{read} reconciliations");
        let all = future::join_all((0..500).map(|_| system.ledgers.reconcile(SOURCE))).await;
        assert!(all.iter().any(Result::is_err), "more requests than the bound are refused");
        assert!(all.iter().any(Result::is_ok));
    });
}
