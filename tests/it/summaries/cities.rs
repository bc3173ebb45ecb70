//! The first cities are exact, however many cities there are.

use std::collections::{BTreeMap, HashSet};

use ess::event::Source;
use ess::store::Store;
use ess::store::report::Reports;
use serde_json::{Value, json};

use super::deltas::first_cities;
use super::{assert_all_agree, refresh, view, write};
use crate::support::block_on;
use crate::support::events::Chance;
use crate::support::stores::{open, stores};

fn most(users: impl IntoIterator<Item = (String, u64)>, limit: usize) -> Vec<(String, u64)> {
    let mut all: Vec<_> = users.into_iter().collect();
    all.sort_by(|left, right| right.1.cmp(&left.1).then_with(|| left.0.cmp(&right.0)));
    all.truncate(limit);
    all
}

/// The first cities are as expected before folding, after it, and in wider spans.
async fn assert_cities(store: &Store, expected: &[(String, u64)]) {
    let reports = Reports::new(store.clone(), 256 << 20);
    let ask = async || first_cities(&reports, expected.len()).await;
    assert_eq!(ask().await, (expected.to_vec(), 0), "not folded");
    assert_eq!(ask().await, (expected.to_vec(), 0), "not folded, from the cache");
    store.fold_summaries(Source::FACEBOOK).await.unwrap();
    assert_eq!(ask().await, (expected.to_vec(), 0), "folded");
    refresh(store).await;
    assert_eq!(ask().await, (expected.to_vec(), 0), "in wider spans");
}

#[test]
fn a_city_of_a_new_user_an_hour_is_first_beside_a_thousand_others_in_each_hour() {
    let stores = stores();
    for url in &stores.urls {
        block_on(async {
            let store = open(url).await;
            let mut expected = vec![("First".to_owned(), 24)];
            for hour in 0..24 {
                let minute = 28_000_020 + hour as i64 * 60;
                let mut events = vec![view(hour * 10_000, &format!("f-{hour}"), "First", minute)];
                for other in 0..1_001 {
                    for user in 0..2 {
                        let id = hour * 10_000 + 2 * other + user + 1;
                        events.push(view(id, &format!("u-{id}"), &format!("h{hour}-{other}"), minute));
                    }
                    expected.push((format!("h{hour}-{other}"), 2));
                }
                write(&store, hour + 1, &events).await;
            }
            assert_cities(&store, &most(expected, 50)).await;
        });
    }
}

#[test]
fn cities_of_the_real_publishers_mix_are_exact() {
    let stores = stores();
    for url in &stores.urls {
        block_on(async {
            let store = open(url).await;
            let mut generator = ess::publisher::generate::Generator::new(Some(7), Default::default());
            let mut users: BTreeMap<String, HashSet<String>> = BTreeMap::new();
            let mut sequence = 0;
            for hour in 0..3_u64 {
                let mut events: Vec<String> = Vec::new();
                while events.len() < 10_000 {
                    let mut event: Value = serde_json::from_str(&generator.event()).unwrap();
                    if event["source"] != "facebook" {
                        continue;
                    }
                    event["timestamp"] = json!(format!("2026-03-01T{hour:02}:30:00Z"));
                    // One country for all: otherwise a city of one name would be many.
                    event["data"]["user"]["location"]["country"] = json!("Land");
                    let text = |value: &Value| value.as_str().unwrap().to_owned();
                    let user = &event["data"]["user"];
                    users.entry(text(&user["location"]["city"])).or_default().insert(text(&user["userId"]));
                    events.push(event.to_string());
                }
                for part in events.chunks(2_500) {
                    sequence += 1;
                    write(&store, sequence, part).await;
                }
            }
            assert!(users.len() > 8_000, "{} cities", users.len());
            let expected = most(users.into_iter().map(|(city, users)| (city, users.len() as u64)), 50);
            assert_cities(&store, &expected).await;
        });
    }
}

#[test]
fn two_hundred_thousand_cities_are_exact() {
    let stores = stores();
    for url in &stores.urls {
        block_on(async {
            let store = open(url).await;
            let mut chance = Chance(5);
            let mut users: BTreeMap<String, HashSet<u64>> = BTreeMap::new();
            let mut id = 0;
            for sequence in 1..=26 {
                let events: Vec<String> = (0..10_000)
                    .map(|_| {
                        id += 1;
                        // Nearly each event another city, and a few with more.
                        let city = match chance.below(40) {
                            0 => chance.below(300),
                            _ => 300 + id,
                        };
                        let user = chance.below(200_000);
                        users.entry(format!("city {city}")).or_default().insert(user);
                        let minute = 28_000_000 + chance.below(3 * 60) as i64;
                        view(id, &format!("u-{user}"), &format!("city {city}"), minute)
                    })
                    .collect();
                write(&store, sequence, &events).await;
            }
            assert!(users.len() > 200_000, "{} cities", users.len());
            let expected = most(users.into_iter().map(|(city, users)| (city, users.len() as u64)), 50);
            assert_cities(&store, &expected).await;
            assert_all_agree(&store).await;
        });
    }
}
