//! One contract, two logs: every promise of the port, kept by JetStream and by the embedded file.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ess::config::{Config, LogSettings, NatsAccess, Variables};
use ess::event::Source;
use ess::log::embedded::Embedded;
use ess::log::jetstream::JetStream;
use ess::log::{AppendError, Delivery, Log, LogError, LogRole, MAX_GONE, SharedLog, Topic};
use futures::StreamExt;
use tempfile::TempDir;

use crate::support::block_on;
use crate::support::nats::Nats;

const TOPIC: Topic = Topic::Events(Source::FACEBOOK);

fn settings(pairs: &[(&str, &str)]) -> LogSettings {
    Config::from_variables(&Variables::from_pairs(pairs.iter().copied()).unwrap()).unwrap().log
}

async fn open(url: &str, pairs: &[(&str, &str)], role: LogRole) -> JetStream {
    JetStream::connect(url, "test", settings(pairs), &NatsAccess::default(), role).await.unwrap()
}

/// A log that can be opened again, by another process as it were.
enum Home {
    Embedded(TempDir),
    JetStream(Nats),
}

impl Home {
    async fn open(&self, settings: LogSettings) -> SharedLog {
        self.try_open(settings).await.unwrap()
    }

    async fn try_open(&self, settings: LogSettings) -> Result<SharedLog, LogError> {
        let log: SharedLog = match self {
            Self::Embedded(folder) => {
                // The file is free again when the last user of the log before is gone.
                let started = Instant::now();
                loop {
                    match Embedded::open(&folder.path().join("log.redb"), settings.clone()) {
                        Err(LogError::Misconfigured(why))
                            if why.contains("in use") && started.elapsed() < Duration::from_secs(5) =>
                        {
                            tokio::time::sleep(Duration::from_millis(20)).await;
                        }
                        opened => break Arc::new(opened?),
                    }
                }
            }
            Self::JetStream(nats) => {
                let access = NatsAccess::default();
                Arc::new(JetStream::connect(&nats.url(), "test", settings, &access, LogRole::Gateway).await?)
            }
        };
        log.prepare(TOPIC).await?;
        Ok(log)
    }

    /// The contents are gone, and a new log begins.
    async fn make_anew(self, settings: LogSettings) -> (Self, SharedLog) {
        match self {
            Self::Embedded(folder) => {
                std::fs::remove_file(folder.path().join("log.redb")).unwrap();
                let home = Self::Embedded(folder);
                let log = home.open(settings).await;
                (home, log)
            }
            Self::JetStream(nats) => {
                drop(nats);
                let home = Self::JetStream(Nats::start());
                let log = home.open(settings).await;
                (home, log)
            }
        }
    }
}

/// Runs a promise on both logs.
fn both<F: Future<Output = ()>>(promise: impl Fn(Home) -> F) {
    block_on(promise(Home::Embedded(tempfile::tempdir().unwrap())));
    block_on(promise(Home::JetStream(Nats::start())));
}

async fn append(log: &dyn Log, text: &str) -> u64 {
    log.append(TOPIC, text.to_owned(), Bytes::copy_from_slice(text.as_bytes())).await.unwrap().sequence
}

/// Deliveries of one pull, `most` at most.
async fn take(log: &dyn Log, most: usize) -> Vec<Delivery> {
    let pull = log.pull(TOPIC, most).await.unwrap();
    pull.map(Result::unwrap).collect().await
}

/// Pulls until one comes.
async fn one(log: &dyn Log) -> Delivery {
    for _ in 0..40 {
        if let Some(delivery) = take(log, 1).await.pop() {
            return delivery;
        }
    }
    panic!("no delivery");
}

fn text(delivery: &Delivery) -> &str {
    std::str::from_utf8(&delivery.frame).unwrap()
}

#[test]
fn frames_are_delivered_in_order_and_gone_once_acknowledged() {
    both(|home| async move {
        let log = home.open(settings(&[])).await;
        for n in 1..=20 {
            assert_eq!(append(&*log, &format!("f{n}")).await, n);
        }
        let state = log.state(TOPIC).await.unwrap();
        assert_eq!((state.first, state.last, state.held), (1, 20, 20));
        assert_eq!(log.peek(TOPIC, 7).await.unwrap().as_deref(), Some(&b"f7"[..]));
        let deliveries = take(&*log, 20).await;
        let texts: Vec<_> = deliveries.iter().map(|delivery| text(delivery).to_owned()).collect();
        assert_eq!(texts, (1..=20).map(|n| format!("f{n}")).collect::<Vec<_>>());
        for (index, delivery) in deliveries.into_iter().enumerate() {
            assert_eq!((delivery.sequence, delivery.deliveries), (index as u64 + 1, 1));
            assert_eq!(delivery.log_id, state.log_id);
            let age = chrono::Utc::now().timestamp_micros() - delivery.logged_at;
            assert!((-1_000_000..60_000_000).contains(&age), "{age}");
            if delivery.sequence != 5 {
                delivery.receipt.ack().await.unwrap();
            } else {
                std::mem::forget(delivery.receipt);
            }
        }
        let state = log.state(TOPIC).await.unwrap();
        assert_eq!((state.first, state.last, state.held), (5, 20, 1), "{state:?}");
        assert_eq!(state.gone.unwrap().iter().collect::<Vec<_>>(), [(6, 20)]);
        assert_eq!(log.peek(TOPIC, 7).await.unwrap(), None);
        assert!(take(&*log, 5).await.is_empty());
    });
}

#[test]
fn one_frame_that_stays_does_not_make_the_state_long_however_many_after_it_were_processed() {
    both(|home| async move {
        let log = home.open(settings(&[])).await;
        let frames = MAX_GONE + 2;
        let texts: Vec<String> = (1..=frames).map(|n| format!("f{n}")).collect();
        let appended = futures::stream::iter(&texts).map(|text| append(&*log, text)).buffer_unordered(256);
        assert_eq!(appended.count().await as u64, frames);
        let (mut stays, mut acknowledged) = (None, 0);
        while acknowledged < frames - 1 {
            let mut deliveries = take(&*log, 500).await;
            if let Some(first) = deliveries.iter().position(|delivery| delivery.sequence == 1) {
                stays = Some(deliveries.swap_remove(first));
            }
            if let Some(stays) = &stays {
                stays.receipt.progress().await.unwrap();
            }
            acknowledged += deliveries.len() as u64;
            let acks = deliveries.into_iter().map(|delivery| delivery.receipt.ack());
            futures::future::try_join_all(acks).await.unwrap();
        }
        let state = log.state(TOPIC).await.unwrap();
        assert_eq!((state.first, state.last, state.held), (1, frames, 1));
        match home {
            Home::Embedded(_) => assert_eq!(state.gone.unwrap().iter().collect::<Vec<_>>(), [(2, frames)]),
            Home::JetStream(_) => assert_eq!(state.gone, None, "a list of {} numbers", frames - 1),
        }
        drop(stays);
    });
}

#[test]
fn a_receipt_that_is_dropped_or_refused_asks_for_redelivery() {
    both(|home| async move {
        let log = home.open(settings(&[])).await;
        append(&*log, "a").await;
        drop(one(&*log).await);
        let again = one(&*log).await;
        assert_eq!((again.deliveries, text(&again)), (2, "a"));
        again.receipt.retry(Duration::ZERO).await.unwrap();
        let third = one(&*log).await;
        assert_eq!(third.deliveries, 3);
        third.receipt.progress().await.unwrap();
        third.receipt.ack().await.unwrap();
        assert!(take(&*log, 1).await.is_empty());
    });
}

#[test]
fn a_retry_comes_after_its_delay_and_not_before() {
    both(|home| async move {
        let log = home.open(settings(&[])).await;
        append(&*log, "later").await;
        let delivery = one(&*log).await;
        let refused = Instant::now();
        delivery.receipt.retry(Duration::from_millis(1_200)).await.unwrap();
        let again = one(&*log).await;
        assert!(refused.elapsed() >= Duration::from_millis(1_100), "{:?}", refused.elapsed());
        again.receipt.ack().await.unwrap();
    });
}

#[test]
fn a_consumer_goes_on_where_it_was_after_a_restart() {
    both(|home| async move {
        let log = home.open(settings(&[])).await;
        for n in 1..=6 {
            append(&*log, &format!("f{n}")).await;
        }
        for delivery in take(&*log, 3).await {
            delivery.receipt.ack().await.unwrap();
        }
        drop(take(&*log, 1).await);
        let id = log.state(TOPIC).await.unwrap().log_id;
        drop(log);
        let log = home.open(settings(&[])).await;
        let mut texts = Vec::new();
        while texts.len() < 3 {
            let delivery = one(&*log).await;
            assert_eq!(delivery.log_id, id);
            texts.push(text(&delivery).to_owned());
            delivery.receipt.ack().await.unwrap();
        }
        texts.sort();
        assert_eq!(texts, ["f4", "f5", "f6"]);
        assert_eq!(append(&*log, "f7").await, 7, "places go on");
    });
}

#[test]
fn two_consumers_share_the_work() {
    both(|home| async move {
        let log = home.open(settings(&[])).await;
        for n in 0..40 {
            append(&*log, &format!("f{n}")).await;
        }
        let consume = |log: SharedLog| async move {
            let mut taken = Vec::new();
            loop {
                let deliveries = take(&*log, 2).await;
                if deliveries.is_empty() {
                    return taken;
                }
                for delivery in deliveries {
                    taken.push(delivery.sequence);
                    tokio::time::sleep(Duration::from_millis(2)).await;
                    delivery.receipt.ack().await.unwrap();
                }
            }
        };
        let (left, right) = futures::join!(consume(log.clone()), consume(log.clone()));
        assert!(!left.is_empty() && !right.is_empty(), "{left:?} {right:?}");
        let mut all = [left, right].concat();
        all.sort_unstable();
        assert_eq!(all, (1..=40).collect::<Vec<_>>());
    });
}

#[test]
fn an_embedded_log_counts_deliveries_across_processes_and_nothing_else() {
    let home = Home::Embedded(tempfile::tempdir().unwrap());
    block_on(async {
        let log = home.open(settings(&[])).await;
        for n in 1..=200 {
            append(&*log, &format!("f{n}")).await;
        }
        drop(log);
        // Processes that come and go and take nothing.
        for _ in 0..12 {
            drop(home.open(settings(&[])).await);
        }
        let mut expected = [0; 10];
        for most in [5, 3, 10, 1] {
            let log = home.open(settings(&[])).await;
            expected[..most].iter_mut().for_each(|count| *count += 1);
            let taken = take(&*log, most).await;
            let counts: Vec<u64> = taken.iter().map(|delivery| delivery.deliveries).collect();
            assert_eq!(counts, expected[..most]);
            let places: Vec<u64> = taken.iter().map(|delivery| delivery.sequence).collect();
            assert_eq!(places, (1..=most as u64).collect::<Vec<_>>());
        }
        let log = home.open(settings(&[])).await;
        assert_eq!(take(&*log, 200).await.len(), 200);
    });
}

#[test]
fn a_frame_that_is_appended_twice_is_there_once() {
    both(|home| async move {
        let log = home.open(settings(&[])).await;
        let frame = || Bytes::from_static(b"x");
        let first = log.append(TOPIC, "id".to_owned(), frame()).await.unwrap();
        let second = log.append(TOPIC, "id".to_owned(), frame()).await.unwrap();
        assert_eq!((first.duplicate, second.duplicate, second.sequence), (false, true, first.sequence));
        assert_eq!(log.state(TOPIC).await.unwrap().held, 1);
    });
}

#[test]
fn a_full_log_refuses_the_new_and_keeps_the_old() {
    both(|home| async move {
        let log = home
            .open(settings(&[("ESS_LOG_MAX_BYTES", "1MiB"), ("ESS_DEAD_LETTER_MAX_BYTES", "1MiB")]))
            .await;
        let frame = |n: u64| Bytes::from(vec![n as u8; 100_000]);
        let mut taken = 0;
        let full = loop {
            match log.append(TOPIC, format!("f{taken}"), frame(taken)).await {
                Ok(_) => taken += 1,
                Err(error) => break error,
            }
            assert!(taken < 12, "it never fills");
        };
        assert!(matches!(full, AppendError::Full(_)), "{full:?}");
        assert!(taken >= 8, "{taken}");
        let first = one(&*log).await;
        assert_eq!(first.frame, frame(0), "the oldest is still there");
        first.receipt.ack().await.unwrap();
        log.append(TOPIC, "more".to_owned(), frame(99)).await.unwrap();
        // Dead letters likewise: the gateway counts what they do not take.
        log.prepare(Topic::DeadLetters).await.unwrap();
        let mut letters = 0;
        while log.append(Topic::DeadLetters, format!("l{letters}"), frame(letters)).await.is_ok() {
            letters += 1;
            assert!(letters < 12, "they never fill");
        }
        let state = log.state(Topic::DeadLetters).await.unwrap();
        assert!(state.first == 1 && state.last == letters, "{state:?}");
    });
}

#[test]
fn a_log_that_is_made_anew_has_another_id() {
    both(|home| async move {
        let log = home.open(settings(&[])).await;
        append(&*log, "old").await;
        let old = log.state(TOPIC).await.unwrap().log_id;
        drop(log);
        let (_home, log) = home.make_anew(settings(&[])).await;
        let state = log.state(TOPIC).await.unwrap();
        assert_ne!(state.log_id, old);
        assert_eq!(append(&*log, "new").await, 1);
        assert_eq!(one(&*log).await.log_id, state.log_id);
    });
}

#[test]
fn what_may_change_is_updated_and_what_may_not_is_refused() {
    let nats = Nats::start();
    block_on(async {
        let url = nats.url();
        let connect = async |pairs: &[(&str, &str)]| open(&url, pairs, LogRole::Gateway).await;
        let log = connect(&[]).await;
        log.prepare(TOPIC).await.unwrap();
        let before = log.state(TOPIC).await.unwrap();
        let log = connect(&[("ESS_LOG_MAX_BYTES", "2MiB"), ("ESS_LOG_DUPLICATE_WINDOW", "30s")]).await;
        log.prepare(TOPIC).await.unwrap();
        let after = log.state(TOPIC).await.unwrap();
        assert_eq!((before.max_bytes, after.max_bytes), (8 << 30, 2 << 20));
        assert_eq!(before.log_id, after.log_id, "it is the same log");

        // Somebody else's stream of that name.
        let client = async_nats::connect(&url).await.unwrap();
        let context = async_nats::jetstream::new(client);
        let foreign = async_nats::jetstream::stream::Config {
            name: "ESS_TIKTOK".to_owned(),
            subjects: vec!["ess.events.tiktok".to_owned()],
            ..Default::default()
        };
        context.create_stream(foreign).await.unwrap();
        let error = log.prepare(Topic::Events(Source::TIKTOK)).await.unwrap_err();
        let LogError::Misconfigured(why) = error else { panic!("{error:?}") };
        assert!(why.contains("ESS_TIKTOK") && why.contains("retention"), "{why}");
    });
}

#[test]
fn only_a_gateway_changes_a_stream_and_never_to_less_than_it_holds() {
    let nats = Nats::start();
    block_on(async {
        let url = nats.url();
        let size = async |log: &JetStream| log.state(TOPIC).await.unwrap().max_bytes;
        let observer = open(&url, &[], LogRole::Observer).await;
        let refused = Log::append(&observer, TOPIC, "x".to_owned(), Bytes::from_static(b"x")).await;
        assert!(matches!(refused, Err(AppendError::Unavailable(_))), "{refused:?}");
        assert!(observer.state(TOPIC).await.is_err(), "an observer makes nothing");

        let gateway = open(&url, &[("ESS_LOG_MAX_BYTES", "64MiB")], LogRole::Gateway).await;
        Log::prepare(&gateway, TOPIC).await.unwrap();
        for role in [LogRole::Observer, LogRole::Collector] {
            let other = open(&url, &[("ESS_LOG_MAX_BYTES", "1MiB")], role).await;
            Log::prepare(&other, TOPIC).await.unwrap();
            let id = format!("{role:?}");
            Log::append(&other, TOPIC, id, Bytes::from(vec![7; 700_000])).await.unwrap();
            assert_eq!(size(&other).await, 64 << 20, "{role:?}");
        }
        // 1.4 MB are held.
        let smaller = open(&url, &[("ESS_LOG_MAX_BYTES", "1MiB")], LogRole::Gateway).await;
        Log::prepare(&smaller, TOPIC).await.unwrap();
        assert_eq!(size(&smaller).await, 64 << 20, "it holds more than that");
        let fitting = open(&url, &[("ESS_LOG_MAX_BYTES", "2MiB")], LogRole::Gateway).await;
        Log::prepare(&fitting, TOPIC).await.unwrap();
        assert_eq!(size(&fitting).await, 2 << 20);

        // The first to connect creates the stream, also if it is a collector.
        let tiktok = Topic::Events(Source::TIKTOK);
        let collector = open(&url, &[], LogRole::Collector).await;
        drop(Log::pull(&collector, tiktok, 1).await.unwrap());
        assert_eq!(collector.state(tiktok).await.unwrap().last, 0);
    });
}

#[test]
fn all_processes_give_one_id_to_a_stream_that_has_none() {
    let nats = Nats::start();
    block_on(async {
        let url = nats.url();
        let client = async_nats::connect(&url).await.unwrap();
        let context = async_nats::jetstream::new(client);
        let foreign = async_nats::jetstream::stream::Config {
            name: "ESS_FACEBOOK".to_owned(),
            subjects: vec!["ess.events.facebook".to_owned()],
            retention: async_nats::jetstream::stream::RetentionPolicy::WorkQueue,
            ..Default::default()
        };
        context.create_stream(foreign).await.unwrap();
        let mut ids = Vec::new();
        for role in [LogRole::Collector, LogRole::Observer, LogRole::Gateway, LogRole::Collector] {
            let log = open(&url, &[], role).await;
            Log::prepare(&log, TOPIC).await.unwrap();
            let id = format!("{}", ids.len());
            let appended = Log::append(&log, TOPIC, id, Bytes::from_static(b"x")).await.unwrap();
            ids.push(appended.log_id);
            ids.push(log.state(TOPIC).await.unwrap().log_id);
        }
        assert!(ids.iter().all(|id| *id == ids[0] && !id.is_nil()), "{ids:?}");
        let stream = context.get_stream("ESS_FACEBOOK").await.unwrap();
        assert_eq!(stream.cached_info().config.metadata["ess-log-id"], ids[0].to_string());
    });
}

#[test]
fn a_file_that_is_no_log_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("log.redb");
    std::fs::write(&file, vec![7; 100_000]).unwrap();
    let Err(LogError::Misconfigured(why)) = Embedded::open(&file, settings(&[])) else {
        panic!("it was opened")
    };
    assert!(why.contains("log.redb") && why.contains("ess log recover"), "{why}");
    assert_eq!(std::fs::read(&file).unwrap(), vec![7; 100_000], "nothing was changed");
}
