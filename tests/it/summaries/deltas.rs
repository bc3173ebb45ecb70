//! Deltas that are not folded yet are reported as if they were.

use ess::event::Source;
use ess::store::report::{Dimension, Filter, Reports};
use serde_json::json;

use super::{assert_all_agree, checkout, execute, view, write};
use crate::support::events::Chance;
use crate::support::stores::{number, open, stores};
use crate::support::system::both;
use crate::support::{MINUTE, block_on, eventually};

/// The first cities of a report with their users, and the error bound of all of them.
pub async fn first_cities(reports: &Reports, limit: usize) -> (Vec<(String, u64)>, u64) {
    let report = reports.begin().await.unwrap();
    let audience = report.audiences(&Filter::default(), limit).await.unwrap().swap_remove(0).1;
    report.end().await.unwrap();
    let name = |(group, users)| match group {
        Dimension::City(_, city) => (city.to_string(), users),
        other => panic!("{other:?} is no city"),
    };
    (audience.cities.into_iter().map(name).collect(), audience.cities_error_bound)
}

#[test]
fn a_delta_with_a_reused_id_is_not_taken_from_the_cache() {
    let stores = stores();
    for url in &stores.urls {
        block_on(async {
            let store = open(url).await;
            let reports = Reports::new(store.clone(), 64 << 20);
            write(&store, 1, &[view(1, "u-1", "Before", 28_000_000)]).await;
            assert_eq!(first_cities(&reports, 5).await.0, [("Before".to_owned(), 1)]);
            let ids = "SELECT max(id) FROM summary_deltas";
            let before = number(&store, ids).await;
            // As after a failover to a server that lacked the last transaction.
            execute(&store, "DELETE FROM summary_deltas").await;
            if store.is_postgres() {
                let sql = format!("SELECT setval('summary_deltas_id_seq', {before}, false)");
                execute(&store, &sql).await;
            } else {
                execute(&store, "DELETE FROM sqlite_sequence").await;
            }
            write(&store, 2, &[view(2, "u-2", "After", 28_000_000)]).await;
            assert_eq!(number(&store, ids).await, before, "the id is reused");
            assert_eq!(first_cities(&reports, 5).await.0, [("After".to_owned(), 1)]);
        });
    }
}

#[test]
fn many_pending_deltas_give_the_same_report_with_and_without_a_cache() {
    let stores = stores();
    for url in &stores.urls {
        block_on(async {
            let store = open(url).await;
            let mut chance = Chance(11);
            let first = 28_000_000_i64;
            let mut id = 0;
            for sequence in 1..=200 {
                let events: Vec<String> = (0..40)
                    .map(|_| {
                        id += 1;
                        let minute = first + chance.below(30 * 1_440) as i64;
                        checkout(id, &format!("u-{}", chance.below(900)), "c", minute, 100)
                    })
                    .collect();
                write(&store, sequence, &events).await;
            }
            let reports = Reports::new(store.clone(), 256 << 20);
            let ranges =
                [(None, None), (Some(first + 61), Some(first + 20_000)), (Some(first), Some(first + 60))];
            let ask = async |reports: &Reports| {
                let mut told = Vec::new();
                for (from, to) in ranges {
                    let report = reports.begin().await.unwrap();
                    let filter = Filter { from, to, ..Filter::default() };
                    told.push(report.audiences(&filter, 1_000).await.unwrap().swap_remove(0).1);
                    report.end().await.unwrap();
                }
                told
            };
            // Without a cache each delta is read by itself.
            let expected = ask(&Reports::new(store.clone(), 0)).await;
            assert_eq!((expected[0].events, expected[0].estimated), (8_000, false));
            // Blocks are built in the background: with each report more of them are cached, until the cache stays.
            let (mut cached, mut unchanged) = (String::new(), 0);
            for _ in 0..1_000 {
                assert_eq!(ask(&reports).await, expected);
                let now = format!("{reports:?}");
                unchanged = if now == cached { unchanged + 1 } else { 0 };
                cached = now;
                if unchanged == 20 {
                    break;
                }
            }
            assert_eq!(unchanged, 20, "the cache does not settle: {cached}");
            for more in 0..3 {
                let event = checkout(90_000 + more, "u-1", "c", first + 5, 1);
                write(&store, 300 + more, &[event]).await;
                assert_eq!(ask(&reports).await, ask(&Reports::new(store.clone(), 0)).await);
            }
            let not_folded = ask(&reports).await;
            assert_eq!(not_folded[0].events, 8_003);
            // With some deltas gone, these are other blocks than before.
            execute(&store, "UPDATE summary_deltas SET source = 2 WHERE id % 9 = 0").await;
            assert_eq!(ask(&reports).await, ask(&Reports::new(store.clone(), 0)).await);
            execute(&store, "UPDATE summary_deltas SET source = 1").await;
            store.fold_summaries(Source::FACEBOOK).await.unwrap();
            assert_eq!(ask(&reports).await, not_folded);
            // Each hour was written, and the wider spans within chunks.
            assert_eq!(number(&store, "SELECT count(*) FROM summary_deltas").await, 0);
            let narrow = "SELECT count(*) FROM summaries WHERE stale AND level BETWEEN 1 AND 3";
            assert_eq!(number(&store, narrow).await, 0, "summed up with their hours");
            assert_all_agree(&store).await;
        });
    }
}

#[test]
fn an_event_in_each_hour_of_five_years_is_reported_while_it_is_folded() {
    const HOURS: i64 = 43_800;
    both(&[], |system| {
        let first = chrono::DateTime::parse_from_rfc3339("2020-01-01T00:00:00Z").unwrap().timestamp() / 60;
        let at = |hour: i64| first + hour * 60 + 7;
        let events: Vec<String> = (0..HOURS)
            .map(|hour| {
                view(hour as u64, &format!("u-{}", hour % 600), &format!("city {}", hour % 900), at(hour))
            })
            .collect();
        let answer = system.post(&format!("[{}]", events.join(",")));
        assert_eq!(
            (answer.status, answer.json()["accepted"].as_i64()),
            (202, Some(HOURS)),
            "{}",
            answer.text
        );
        system.settle();
        let months = "from=2021-02-03T04:30:00Z&to=2023-05-06T07:10:00Z";
        let expected = (at(0)..)
            .step_by(60)
            .take(HOURS as usize)
            .filter(|minute| (1_612_326_600 / 60 - 30..1_683_357_000 / 60 + 50).contains(minute));
        let expected = expected.count();
        let mut events = HOURS;
        for _ in 0..20 {
            let told = system.report("/reports/demographics?limit=3&source=facebook");
            assert_eq!(told["facebook"]["events"], events, "{told}");
            assert_eq!(told["facebook"]["users"], 600, "{told}");
            assert_eq!(told["facebook"]["citiesEstimated"], 0, "{told}");
            let part = system.report(&format!("/reports/demographics?source=facebook&{months}"));
            assert_eq!(part["facebook"]["events"], expected, "{months}");
            // The next event becomes a row meanwhile.
            let next = view(1_000_000 + events as u64, "u-1", "city 1", at(HOURS + 10));
            assert_eq!(system.post(&next).status, 202);
            events += 1;
            eventually("the next event is a row", MINUTE, || {
                (system.count_rows() == events as u64).then_some(())
            });
        }
        let left = "SELECT count(*) FROM summary_deltas";
        eventually("everything is folded", 4 * MINUTE, || {
            (system.database.query(left)[0] == "0").then_some(())
        });
        let told = system.report("/reports/demographics?limit=3&source=facebook");
        assert_eq!((&told["facebook"]["events"], &told["facebook"]["users"]), (&json!(events), &json!(600)));
    });
}
