//! Users and events of a range are the same however they are read.

use ess::event::Source;
use ess::store::Store;
use ess::store::report::{Dimension, Filter, Reports};

use super::{assert_all_agree, audience_of, checkout, execute, refresh, write};
use crate::support::block_on;
use crate::support::events::Chance;
use crate::support::stores::{number, open, stores};

/// Stores 2,400 events of 900 users over 40 days, some of them in duplicates by other users, and folds half of them.
async fn store_events(store: &Store, first: i64) {
    let mut chance = Chance(1);
    let hours = 40 * 24;
    let mut id = 0;
    for sequence in 1..=6 {
        let events: Vec<String> = (0..400)
            .map(|_| {
                id += 1;
                let minute = first + chance.below(hours * 60) as i64;
                checkout(id, &format!("u-{}", chance.below(900)), "c", minute, 100)
            })
            .collect();
        write(store, sequence, &events).await;
        // Duplicates, also by other users, are not counted.
        write(store, sequence, &events).await;
        let others: Vec<String> = events.iter().map(|text| text.replace("u-", "other-")).collect();
        write(store, 100 + sequence, &others).await;
        if sequence == 3 {
            store.fold_summaries(Source::FACEBOOK).await.unwrap();
        }
    }
}

#[test]
pub fn audiences_are_the_same_before_folding_after_it_in_wider_spans_and_from_rows() {
    let stores = stores();
    for url in &stores.urls {
        block_on(async {
            let store = open(url).await;
            let first = 28_000_000_i64;
            store_events(&store, first).await;
            let ranges = [
                (None, None),
                (Some(first), Some(first + 60)),
                (Some(first + 61), Some(first + 20_000)),
                (None, Some(first + 40_000)),
                (Some(first + 1_000_000), None),
            ];
            let ask = async || {
                let mut shapes = Vec::new();
                for (from, to) in ranges {
                    shapes.push(audience_of(&store, from, to).await);
                }
                shapes
            };
            let not_folded = ask().await;
            assert!(not_folded[0].starts_with("2400 events, "), "{}", not_folded[0]);
            assert!(!not_folded[0].contains("about"), "900 users are counted exactly");
            assert!(not_folded[4].starts_with("0 events, 0 users"), "{}", not_folded[4]);
            assert_eq!(store.fold_summaries(Source::FACEBOOK).await.unwrap(), 1_200);
            assert_eq!(store.fold_summaries(Source::FACEBOOK).await.unwrap(), 0, "once");
            assert_eq!(ask().await, not_folded, "folded");
            refresh(&store).await;
            assert_eq!(number(&store, "SELECT count(*) FROM summaries WHERE stale").await, 0);
            assert_eq!(ask().await, not_folded, "in wider spans");
            // From the rows, while everything is stale.
            execute(&store, "UPDATE summaries SET stale = true, body = NULL, touched_at = 0").await;
            assert_eq!(ask().await, not_folded, "from rows");
            write(&store, 50, &[checkout(90_000, "u-1", "c", first + 5, 1)]).await;
            refresh(&store).await;
            assert_eq!(number(&store, "SELECT count(*) FROM summary_deltas").await, 0);
            assert_all_agree(&store).await;
        });
    }
}

#[test]
fn many_users_are_estimated_within_two_percent_and_equal_cities_are_listed_by_name() {
    let stores = stores();
    block_on(async {
        let store = open(&stores.urls[stores.urls.len() - 1]).await;
        for sequence in 1..=8 {
            let events: Vec<String> = (0..2_500)
                .map(|place| {
                    let id = sequence * 10_000 + place;
                    checkout(id, &format!("u-{id}"), &format!("c-{id}"), 28_000_000 + place as i64, 100)
                })
                .collect();
            write(&store, sequence, &events).await;
        }
        for folded in [false, true] {
            if folded {
                store.fold_summaries(Source::FACEBOOK).await.unwrap();
            }
            let reports = Reports::new(store.clone(), 1 << 20);
            let report = reports.begin().await.unwrap();
            let audience = report.audiences(&Filter::default(), 1_000).await.unwrap().swap_remove(0).1;
            let near = |counted: u64, users: f64| (counted as f64 - users).abs() / users < 0.02;
            assert_eq!(audience.events, 20_000);
            assert!(audience.estimated && near(audience.users, 20_000.0), "{}", audience.users);
            for (country, users) in &audience.countries {
                assert!(near(*users, 20_000.0 / 7.0), "{country:?} {users}");
            }
            let male =
                audience.groups.iter().find(|(group, _)| matches!(group, Dimension::Gender(_))).unwrap();
            assert!(near(male.1, 20_000.0), "{male:?}");
            assert_eq!((audience.countries.len(), audience.cities.len()), (7, 1_000));
            assert!(audience.cities_truncated);
            // Each city has one user: equals go by name, of all twenty thousand.
            let ids = (1..=8).flat_map(|sequence| (0..2_500).map(move |place| sequence * 10_000 + place));
            let mut all: Vec<_> =
                ids.map(|id| (format!("Country {}", id % 7), format!("City {id}"))).collect();
            all.sort();
            let (country, city) = &all[999];
            let last = Dimension::City(country.into(), city.into());
            assert_eq!((audience.cities_error_bound, &audience.cities[999]), (0, &(last, 1)));
        }
    });
}
