//! The store by itself: exactly once, money exact, one bad row alone.

use std::time::Duration;

use ess::event::Source;
use ess::log::{Origin, Reason};
use ess::store::{Batch, BatchFrame, DeadLetterFilter, Purpose, Store, WriteProgress, Written};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use sea_orm::ConnectionTrait;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::events::{Chance, event, simple};
use crate::support::postgres::Postgres;
use crate::support::proxy::Proxy;
use crate::support::stores::{frame, log, number, open, origin, plain, sqlite, stores};
use crate::support::{MINUTE, block_on};

async fn write(store: &Store, frames: Vec<BatchFrame<'_>>) -> Written {
    store.write(&Batch { source: Source::FACEBOOK, log_id: log(), frames }).await.unwrap()
}

/// One frame at a place of the log.
fn at<'a>(place: u64, origin: &'a Origin, events: &'a [String]) -> Vec<BatchFrame<'a>> {
    vec![frame(place, place, origin, events)]
}

fn texts(ids: &[&str]) -> Vec<String> {
    ids.iter().map(|id| simple(id, "facebook").to_string()).collect()
}

#[test]
fn a_database_that_is_not_there_yet_is_opened_at_the_first_try() {
    let folder = tempfile::tempdir().unwrap();
    block_on(async {
        for turn in 0..300 {
            let url = sqlite(&folder.path().join(format!("{turn}.db")));
            let purpose = if turn % 2 == 0 {
                Purpose::Write { transactions: 2 }
            } else {
                Purpose::Read { connections: 2 }
            };
            let store = Store::connect(&url, purpose).await;
            store.unwrap_or_else(|error| panic!("turn {turn}: {error}")).close().await.unwrap();
        }
    });
}

#[test]
pub fn rows_that_are_there_already_are_found_whether_they_are_looked_for_or_not() {
    let stores = stores();
    for url in &stores.urls {
        block_on(async {
            let (one, other) = (open(url).await, open(url).await);
            let origin = origin();
            let of = |round: u64, ids: std::ops::Range<u64>| {
                let ids: Vec<String> = ids.map(|id| format!("{round}-{id}")).collect();
                texts(&ids.iter().map(String::as_str).collect::<Vec<_>>())
            };
            let mut places = 1_u64..;
            let mut place = || places.next().unwrap();
            // Twice: when nobody looks, and when nobody looks any more.
            for round in 0..2 {
                let (first, second) = (of(round, 0..40), of(round, 20..60));
                assert_eq!(
                    write(&one, at(place(), &origin, &first)).await,
                    Written { stored: 40, ..Written::default() }
                );
                let met = Written { stored: 20, duplicates: 20, ..Written::default() };
                assert_eq!(write(&one, at(place(), &origin, &second)).await, met, "round {round}");
                for more in 0..70 {
                    let new = of(round, 1_000 + more..1_001 + more);
                    assert_eq!(
                        write(&one, at(place(), &origin, &new)).await,
                        Written { stored: 1, ..Written::default() }
                    );
                }
            }
            // Two at the same moment.
            for round in 10..30 {
                let events = of(round, 0..100);
                let (left, right) = (at(place(), &origin, &events), at(place(), &origin, &events));
                let (left, right) = futures::join!(write(&one, left), write(&other, right));
                assert_eq!((left.stored + right.stored, left.duplicates + right.duplicates), (100, 100));
            }
            let rows = 2 * (60 + 70) + 20 * 100;
            assert_eq!(number(&one, "SELECT count(*) FROM event_rows").await, rows);
            assert_eq!(number(&one, "SELECT sum(events) FROM rollups WHERE minutes = 1").await, rows);
        });
    }
}

#[test]
pub fn a_write_that_is_cut_off_leaves_nothing_to_the_next() {
    const TURNS: u64 = 150;
    let stores = stores();
    for url in &stores.urls {
        block_on(async {
            let store = open(url).await;
            let origin = origin();
            for turn in 1..=TURNS {
                let ids: Vec<String> = (0..200).map(|place| format!("{turn}-{place}")).collect();
                let events = texts(&ids.iter().map(String::as_str).collect::<Vec<_>>());
                let batch = |sequence| Batch {
                    source: Source::FACEBOOK,
                    log_id: log(),
                    frames: vec![frame(sequence, sequence, &origin, &events)],
                };
                // Wherever it is by then: a few milliseconds are all that it takes.
                let patience = std::time::Duration::from_micros(turn * 80);
                let _ = tokio::time::timeout(patience, store.write(&batch(2 * turn))).await;
                // What a connection says belongs to who asked it.
                assert_eq!(number(&store, &format!("SELECT {turn}")).await, turn as i64);
                store.write(&batch(2 * turn)).await.unwrap();
                let again = store.write(&batch(2 * turn + 1)).await.unwrap();
                assert_eq!(again, Written { duplicates: 200, ..Written::default() }, "turn {turn}");
            }
            assert_eq!(number(&store, "SELECT count(*) FROM event_rows").await, 200 * TURNS as i64);
            let rollups = "SELECT sum(events) FROM rollups WHERE minutes = 1";
            assert_eq!(number(&store, rollups).await, 200 * TURNS as i64);
        });
    }
}

#[test]
pub fn a_frame_that_comes_again_is_counted_once() {
    let stores = stores();
    for url in &stores.urls {
        block_on(async {
            let store = open(url).await;
            let origin = origin();
            let (a, b) = (texts(&["a", "b"]), texts(&["b", "c", "c"]));
            let first = write(&store, vec![frame(1, 1, &origin, &a)]).await;
            assert_eq!(first, Written { stored: 2, ..Written::default() });
            let again = write(&store, vec![frame(1, 1, &origin, &a), frame(2, 2, &origin, &b)]).await;
            assert_eq!(again, Written { stored: 1, duplicates: 2, repeated_frames: 1, ..Written::default() });
            store.fold_ledger(Source::FACEBOOK, log(), 1).await.unwrap();
            let cut = store.ledger(Source::FACEBOOK, log(), &[]).await.unwrap();
            assert_eq!(cut.sequences.as_slice(), [(1, 2)]);
            // Folded, and still remembered.
            let folded = write(&store, vec![frame(2, 2, &origin, &b)]).await;
            assert_eq!(folded, Written { repeated_frames: 1, ..Written::default() });
            write(&store, vec![frame(5, 5, &origin, &texts(&["e"]))]).await;
            write(&store, vec![frame(3, 3, &origin, &texts(&["d"]))]).await;
            store.fold_ledger(Source::FACEBOOK, log(), 1).await.unwrap();
            let cut = store.ledger(Source::FACEBOOK, log(), &[]).await.unwrap();
            assert_eq!(cut.sequences.as_slice(), [(1, 3), (5, 5)], "a gap stays a gap");
            assert_eq!((cut.stored, cut.duplicates, cut.quarantined), (5, 2, 0));
            assert_eq!(cut.writers[&Uuid::from_u128(9)].runs.end().number, 5);
            // The same frame twice in one batch is counted once.
            let (f, g) = (texts(&["f"]), texts(&["g"]));
            let twice = write(&store, vec![frame(9, 9, &origin, &f), frame(9, 9, &origin, &f)]).await;
            assert_eq!(twice, Written { stored: 1, repeated_frames: 1, ..Written::default() });
            // A place that an earlier frame had: the log was replaced under its id, and the event is not thrown away.
            let replaced = write(&store, vec![frame(9, 10, &origin, &g)]).await;
            assert_eq!(replaced, Written { stored: 1, ..Written::default() });
            // Another log begins at 1 again, and its first frame is no redelivery; one that was moved there is.
            let other = |frames| Batch { source: Source::FACEBOOK, log_id: Uuid::from_u128(2), frames };
            let written = store.write(&other(vec![frame(1, 11, &origin, &a)])).await.unwrap();
            assert_eq!(written, Written { duplicates: 2, ..Written::default() });
            let moved = store.write(&other(vec![frame(2, 2, &origin, &b)])).await.unwrap();
            assert_eq!(moved, Written { repeated_frames: 1, ..Written::default() });
            let cut = store.ledger(Source::FACEBOOK, Uuid::from_u128(2), &[]).await.unwrap();
            assert_eq!(cut.sequences.as_slice(), [(1, 2)], "its place is processed as well");
            assert_eq!(number(&store, "SELECT sum(events) FROM rollups WHERE minutes = 1").await, 7);
        });
    }
}

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

/// The database refuses events of some users.
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
fn a_later_twin_of_a_refused_event_is_tried() {
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
fn refused_rows_are_found_across_connections_that_end_on_the_way() {
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

/// Any batch: new events, twins within it, events that are stored already, and those the database refuses.
#[test]
fn rows_in_are_stored_or_duplicates_or_set_aside_and_the_rollup_and_the_ledger_agree() {
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
                    // Twins that are all refused are all set aside: there is no row that they were duplicates of.
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

#[test]
fn amounts_survive_the_round_trip_through_both_databases() {
    let stores = stores();
    let mut chance = Chance(77);
    let mut amounts: Vec<String> = [
        "0",
        "0.1",
        "0.10",
        "0.000001",
        "999999999999.999999",
        "261.96",
        "007.50",
        "1000000",
        "123456789012.5",
    ]
    .map(str::to_owned)
    .to_vec();
    for _ in 0..300 {
        let whole = chance.below(10_u64.pow(1 + chance.clone().below(12) as u32));
        let decimals = chance.below(7) as usize;
        let fraction = format!("{:06}", chance.below(1_000_000));
        amounts.push(if decimals == 0 {
            whole.to_string()
        } else {
            format!("{whole}.{}", &fraction[..decimals])
        });
    }
    // The expected sum, in millionths, computed apart from the code under test.
    let micros = |text: &str| -> i128 {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        format!("{whole}{fraction:0<6}").parse().unwrap()
    };
    let expected: i128 = amounts.iter().map(|text| micros(text)).sum();
    let events: Vec<String> = amounts
        .iter()
        .enumerate()
        .map(|(n, amount)| {
            let mut made: Value = simple(&format!("m-{n}"), "facebook");
            made["funnelStage"] = json!("bottom");
            made["eventType"] = json!("checkout.complete");
            made["data"]["engagement"] = json!({"adId": "a", "campaignId": "c", "clickPosition": "center",
                "device": "mobile", "browser": "Safari", "purchaseAmount": amount});
            made.to_string()
        })
        .collect();
    for url in &stores.urls {
        block_on(async {
            let store = open(url).await;
            let origin = origin();
            assert_eq!(write(&store, vec![frame(1, 1, &origin, &events)]).await.stored, events.len() as u64);
            let reports = ess::store::report::Reports::new(store.clone(), 0);
            let report = reports.begin().await.unwrap();
            let sums = report.sum_revenue(&ess::store::report::Filter::default(), None).await.unwrap();
            report.end().await.unwrap();
            assert_eq!(sums.iter().map(|sum| sum.total()).sum::<i128>(), expected);
            let sql_connection = plain(url).await;
            for (n, amount) in amounts.iter().enumerate() {
                let sql =
                    format!("SELECT CAST(revenue AS text) AS revenue FROM events WHERE event_id = 'm-{n}'");
                let query = sea_orm::Statement::from_string(sql_connection.get_database_backend(), sql);
                let row = sql_connection.query_one_raw(query).await.unwrap().unwrap();
                let read: String = row.try_get("", "revenue").unwrap();
                assert_eq!(micros(&read), micros(amount), "{amount} came back as {read}");
            }
        });
    }
}

/// A sale of a campaign, of the largest amount there is.
fn largest_sale(id: &str) -> String {
    let mut made: Value = simple(id, "facebook");
    made["funnelStage"] = json!("bottom");
    made["eventType"] = json!("checkout.complete");
    made["data"]["engagement"] = json!({"adId": "a", "campaignId": "c", "clickPosition": "center",
        "device": "mobile", "browser": "Safari", "purchaseAmount": "999999999999.999999"});
    made.to_string()
}

#[test]
fn sums_beyond_64_bits_are_exact_and_are_mended() {
    const LARGEST: i128 = 999_999_999_999_999_999;
    /// As if so many units had been counted before.
    const BEFORE: i128 = 999_999_999_999_999_990;
    let stores = stores();
    for url in &stores.urls {
        block_on(async {
            let store = open(url).await;
            let origin = origin();
            let reports = ess::store::report::Reports::new(store.clone(), 0);
            let totals = async || {
                let report = reports.begin().await.unwrap();
                let filter = ess::store::report::Filter::default();
                let sum: i128 =
                    report.sum_revenue(&filter, None).await.unwrap().iter().map(|sum| sum.total()).sum();
                let one = ess::store::report::Filter { campaign_id: Some("c".to_owned()), ..filter.clone() };
                let rows: i128 =
                    report.sum_revenue(&one, None).await.unwrap().iter().map(|sum| sum.total()).sum();
                report.end().await.unwrap();
                let high = number(&store, "SELECT max(high) FROM campaigns").await;
                let units = number(&store, "SELECT max(units) FROM campaigns").await;
                let micros = number(&store, "SELECT max(micros) FROM campaigns").await;
                let campaign = (i128::from(high) * 1_000_000_000_000_000_000 + i128::from(units)) * 1_000_000
                    + i128::from(micros);
                (sum, rows, campaign)
            };
            let mut places = 1..;
            let mut add = async |count: usize| {
                let place = places.next().unwrap();
                let ids: Vec<String> = (0..count).map(|n| largest_sale(&format!("{place}-{n}"))).collect();
                assert_eq!(write(&store, at(place, &origin, &ids)).await.stored, count as u64);
                store.fold_summaries(Source::FACEBOOK).await.unwrap();
            };
            add(3).await;
            assert_eq!(totals().await, (3 * LARGEST, 3 * LARGEST, 3 * LARGEST));
            for (table, column) in [("rollups", "revenue_units"), ("campaigns", "units")] {
                let sql = format!("UPDATE {table} SET {column} = {BEFORE}");
                store.execute(&sql).await.unwrap();
            }
            add(5).await;
            let counted = BEFORE * 1_000_000 + 3 * 999_999 + 5 * LARGEST;
            // The campaign carried three whole units from its millionths before.
            let carried = BEFORE * 1_000_000 + 999_997 + 5 * LARGEST;
            assert_eq!(totals().await, (counted, 8 * LARGEST, carried));
            let (mut found, mut days) = (0, 0);
            for day in store.days(&(0..i64::MAX)).await.unwrap() {
                found += store.compare_day(day, true).await.unwrap().count();
                days += 1;
                assert_eq!(store.compare_day(day, false).await.unwrap().count(), 0, "mended");
            }
            assert!(days == 1 && found >= 5, "{found} differences of {days} days");
            assert_eq!(store.compare_campaigns(Source::FACEBOOK, true).await.unwrap(), Some(1));
            assert_eq!(store.compare_campaigns(Source::FACEBOOK, true).await.unwrap(), Some(0));
            assert_eq!(totals().await, (8 * LARGEST, 8 * LARGEST, 8 * LARGEST));
        });
    }
}

#[test]
fn a_clock_that_is_far_ahead_lets_no_row_go_until_it_went_on_for_an_hour() {
    const YEAR: i64 = 365 * 86_400 * 1_000_000;
    let stores = stores();
    for url in &stores.urls {
        block_on(async {
            let store = open(url).await;
            let (now, moment) = (1_790_000_000_000_000_i64, std::time::Instant::now());
            let later = |seconds: u64| moment + Duration::from_secs(seconds);
            let mut clock = ess::store::RetentionClock::default();
            let mut judge =
                async |micros: i64, seconds: u64| clock.judge(&store, micros, later(seconds)).await.unwrap();
            assert_eq!(judge(now, 0).await, Some(now), "nothing is stored");
            assert_eq!(judge(now + 60_000_000, 60).await, Some(now + 60_000_000));
            assert_eq!(judge(now + 10 * YEAR, 120).await, None, "it jumped");
            assert_eq!(judge(now + 10 * YEAR + 600_000_000, 720).await, None, "not for an hour");
            assert_eq!(judge(now + 800_000_000, 800).await, Some(now + 800_000_000), "it came back");
            assert_eq!(judge(now + YEAR, 900).await, None);
            assert_eq!(judge(now + 2 * YEAR, 4_900).await, None, "uneven");
            let settled = now + 2 * YEAR + 3_700_000_000;
            assert_eq!(judge(settled, 8_600).await, Some(settled), "for an hour");
            // By that clock rows have left; a right one takes that back.
            store.expire_rows(Source::FACEBOOK, settled).await.unwrap();
            let retained = "SELECT max(from_minute) FROM retained";
            assert!(number(&store, retained).await > (now + YEAR) / 60_000_000);
            assert_eq!(judge(now + 9_000_000_000, 9_000).await, Some(now + 9_000_000_000));
            assert_eq!(number(&store, retained).await, (now + 9_000_000_000) / 60_000_000 + 1);
        });
    }
}
