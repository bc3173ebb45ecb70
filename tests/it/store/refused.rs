//! Rows that the database refuses become dead letters; all others are stored.

use std::time::Duration;

use ess::event::Source;
use ess::log::Reason;
use ess::store::{Batch, DeadLetterFilter, Store, WriteProgress, Written};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::json;

use super::{at, texts, write};
use crate::support::events::{Chance, event, simple};
use crate::support::postgres::Postgres;
use crate::support::proxy::Proxy;
use crate::support::stores::{frame, log, number, open, origin, stores};
use crate::support::{MINUTE, block_on};

#[test]
pub fn a_row_that_the_database_refuses_is_set_aside_and_all_others_are_stored() {
    let stores = stores();
    for url in &stores.urls {
        block_on(async {
            let store = open(url).await;
            let guard = if store.is_postgres() {
                "ALTER TABLE event_rows ADD CONSTRAINT no_thirteen CHECK (event_id NOT LIKE '%-13')"
                    .to_owned()
            } else {
                "CREATE TRIGGER no_thirteen BEFORE INSERT ON event_rows WHEN NEW.event_id LIKE '%-13'
                 BEGIN SELECT RAISE(ABORT, 'no_thirteen'); END"
                    .to_owned()
            };
            store.execute(&guard).await.unwrap();
            let origin = origin();
            let ids: Vec<String> = (0..100).map(|n| format!("r-{n}")).collect();
            let events = texts(&ids.iter().map(String::as_str).collect::<Vec<_>>());
            let written = write(&store, vec![frame(1, 1, &origin, &events)]).await;
            assert_eq!(written, Written { stored: 99, quarantined: 1, ..Written::default() });
            let letters =
                store.letters(&DeadLetterFilter { limit: 10, ..DeadLetterFilter::default() }).await.unwrap();
            assert_eq!(letters.len(), 1);
            assert_eq!(
                (letters[0].event_id.as_deref(), letters[0].reason.as_str()),
                (Some("r-13"), Reason::Database.as_str())
            );
            assert!(letters[0].errors.get().contains("no_thirteen"), "{}", letters[0].errors.get());
            assert_eq!(number(&store, "SELECT sum(events) FROM rollups WHERE minutes = 1").await, 99);
            let cut = store.ledger(Source::FACEBOOK, log(), &[]).await.unwrap();
            assert_eq!(cut.processed(), 100);
        });
    }
}

/// Has the database refuse the events of users whose id is like a pattern.
async fn refuse_users(store: &Store, like: &str) {
    let guard = if store.is_postgres() {
        format!("ALTER TABLE event_rows ADD CONSTRAINT no_user CHECK (user_id NOT LIKE '{like}')")
    } else {
        format!(
            "CREATE TRIGGER no_user BEFORE INSERT ON event_rows WHEN NEW.user_id LIKE '{like}'
             BEGIN SELECT RAISE(ABORT, 'no_user'); END"
        )
    };
    store.execute(&guard).await.unwrap();
}

fn of_user(id: &str, user: &str) -> String {
    let mut made = simple(id, "facebook");
    made["data"]["user"]["userId"] = json!(user);
    made.to_string()
}

#[test]
fn a_later_event_with_the_key_of_a_refused_one_is_tried() {
    let stores = stores();
    for url in &stores.urls {
        block_on(async {
            let store = open(url).await;
            refuse_users(&store, "bad%").await;
            let origin = origin();
            let events = [
                of_user("twin", "bad-1"),
                of_user("other", "good"),
                of_user("twin", "bad-2"),
                of_user("twin", "good"),
                of_user("twin", "good too late"),
                of_user("refused", "bad-1"),
                of_user("refused", "bad-2"),
            ];
            let written = write(&store, at(1, &origin, &events)).await;
            assert_eq!(written, Written { stored: 2, duplicates: 1, quarantined: 4, ..Written::default() });
            let filter = DeadLetterFilter { limit: 10, ..DeadLetterFilter::default() };
            assert_eq!(store.letters(&filter).await.unwrap().len(), 4, "each refused event is kept");
            let users = "SELECT count(*) FROM event_rows WHERE event_id = 'twin' AND user_id = 'good'";
            assert_eq!(number(&store, users).await, 1);
        });
    }
}

#[test]
fn refused_rows_are_found_although_connections_end() {
    let postgres = Postgres::start();
    let proxy = Proxy::to(postgres.port);
    let url = format!("postgres://ess@127.0.0.1:{}/ess", proxy.port);
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        block_on(async {
            refuse_users(&open(&postgres.url()).await, "bad%").await;
            let store = open(&url).await;
            proxy.delay(Duration::from_millis(2));
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_secs(2));
                    proxy.cut();
                }
            });
            let origin = origin();
            // Nine of ten are refused: thousands of round trips, far more than one connection lasts.
            let user = |n: usize| if n.is_multiple_of(10) { "good" } else { "bad" };
            let events: Vec<String> = (0..1_000).map(|n| of_user(&format!("r-{n}"), user(n))).collect();
            let batch = Batch { source: Source::FACEBOOK, log_id: log(), frames: at(1, &origin, &events) };
            let mut progress = WriteProgress::default();
            let mut tries = 0;
            let started = std::time::Instant::now();
            let written = loop {
                tries += 1;
                match store.write_on(&batch, &mut progress).await {
                    Ok(written) => break written,
                    Err(error) => assert!(started.elapsed() < MINUTE * 3, "{tries} tries: {error}"),
                }
            };
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            assert_eq!(written, Written { stored: 100, quarantined: 900, ..Written::default() });
            assert!(tries > 3, "an empty run: {tries} tries");
            let rolled_up = number(&store, "SELECT sum(events) FROM rollups WHERE minutes = 1").await;
            assert_eq!(rolled_up, 100);
        });
    });
}

/// Batches of any events: new ones, several with one key, stored ones, and ones that the database refuses.
#[test]
fn every_event_is_stored_or_a_duplicate_or_set_aside_and_rollup_and_ledger_agree() {
    let stores = stores();
    for url in &stores.urls {
        block_on(async {
            let store = open(url).await;
            let guard = if store.is_postgres() {
                "ALTER TABLE event_rows ADD CONSTRAINT no_bad CHECK (event_id NOT LIKE 'bad%')"
            } else {
                "CREATE TRIGGER no_bad BEFORE INSERT ON event_rows WHEN NEW.event_id LIKE 'bad%'
                 BEGIN SELECT RAISE(ABORT, 'no_bad'); END"
            };
            store.execute(guard).await.unwrap();
        });
        let mut sequence = 0;
        let mut total = 0;
        let ids = proptest::collection::vec((0..60_u32, proptest::bool::weighted(0.05)), 0..80);
        let mut runner =
            TestRunner::new(Config { cases: 24, failure_persistence: None, ..Config::default() });
        let sequence = std::cell::RefCell::new(&mut sequence);
        let total = std::cell::RefCell::new(&mut total);
        runner
            .run(&(ids, any::<u64>()), |(ids, seed)| {
                block_on(async {
                    let store = open(url).await;
                    let origin = origin();
                    let mut chance = Chance(seed);
                    let events: Vec<String> = ids
                        .iter()
                        .map(|(id, bad)| {
                            let id = if *bad { format!("bad-{id}") } else { format!("p-{id}") };
                            loop {
                                let made = event(&id, &mut chance);
                                if made["source"] == "facebook" {
                                    return made.to_string();
                                }
                            }
                        })
                        .collect();
                    let count = |sql: &'static str| number(&store, sql);
                    let before = (count("SELECT count(*) FROM event_rows").await, count("SELECT coalesce(sum(events), 0) FROM rollups WHERE minutes = 1").await);
                    **sequence.borrow_mut() += 1;
                    let place = **sequence.borrow();
                    let written = write(&store, vec![frame(place, place, &origin, &events)]).await;
                    **total.borrow_mut() += events.len() as u64;
                    prop_assert_eq!(written.stored + written.duplicates + written.quarantined, events.len() as u64);
                    // Refused events with one key are all set aside: there is no row that they are duplicates of.
                    let bad = ids.iter().filter(|(_, bad)| *bad).count();
                    prop_assert_eq!(written.quarantined, bad as u64);
                    let after = (count("SELECT count(*) FROM event_rows").await, count("SELECT coalesce(sum(events), 0) FROM rollups WHERE minutes = 1").await);
                    prop_assert_eq!(after.0 - before.0, written.stored as i64);
                    prop_assert_eq!(after.1 - before.1, written.stored as i64);
                    let revenue = count("SELECT coalesce(sum(revenue), 0) FROM event_rows").await;
                    let rolled = count("SELECT coalesce(sum(revenue_units) * 1000000 + sum(revenue_micros), 0) FROM rollups WHERE minutes = 1").await;
                    prop_assert_eq!(revenue, rolled);
                    let cut = store.ledger(Source::FACEBOOK, log(), &[]).await.unwrap();
                    prop_assert_eq!(cut.processed(), **total.borrow());
                    Ok(())
                })
            })
            .unwrap();
    }
}
