//! A comparison with the rows finds what differs, and mends it.

use ess::event::Source;
use ess::store::Store;

use super::{assert_all_agree, audience_of, checkout, execute, refresh, write};
use crate::support::block_on;
use crate::support::events::Chance;
use crate::support::stores::{number, open, stores};

/// Stores and folds 1,200 checkouts of one campaign over 40 days.
async fn store_checkouts(store: &Store) {
    let mut chance = Chance(1);
    for sequence in 1..=3 {
        let checkouts: Vec<String> = (0..400)
            .map(|n| {
                let minute = 28_000_000 + chance.below(40 * 1_440) as i64;
                checkout(sequence * 1_000 + n, &format!("u-{}", chance.below(900)), "c", minute, 100)
            })
            .collect();
        write(store, sequence, &checkouts).await;
        store.fold_summaries(Source::FACEBOOK).await.unwrap();
    }
}

#[test]
fn wrong_revenue_of_a_campaigns_first_and_last_minute_is_found_and_mended() {
    let stores = stores();
    for url in &stores.urls {
        block_on(async {
            let store = open(url).await;
            store_checkouts(&store).await;
            assert_all_agree(&store).await;
            // The revenue of the first and the last minute is compared too.
            assert_eq!(
                number(&store, "SELECT count(*) FROM campaigns WHERE ends_of = transactions").await,
                1
            );
            for damage in ["first_units = first_units + 1", "last_units = last_units - 1"] {
                execute(&store, &format!("UPDATE campaigns SET {damage}")).await;
                for wrong in [1, 0] {
                    let found = store.compare_campaigns(Source::FACEBOOK, true).await.unwrap();
                    assert_eq!(found, Some(wrong), "{damage}");
                }
            }
            execute(&store, "UPDATE campaigns SET ends_of = 0").await;
            assert_eq!(store.compare_campaigns(Source::FACEBOOK, true).await.unwrap(), Some(0));
            assert_eq!(
                number(&store, "SELECT count(*) FROM campaigns WHERE ends_of = transactions").await,
                1
            );
        });
    }
}

#[test]
fn wrong_wider_summaries_are_found_and_summed_up_from_their_children() {
    let stores = stores();
    for url in &stores.urls {
        block_on(async {
            let store = open(url).await;
            store_checkouts(&store).await;
            refresh(&store).await;
            // The minutes of one span of level 3.
            let (from, to) = (7_293 * 64 * 60, 7_294 * 64 * 60);
            let ask = async || audience_of(&store, Some(from), Some(to)).await;
            let whole = ask().await;
            assert_eq!(store.compare_spans(Source::FACEBOOK, false).await.unwrap(), 0);
            let damage = "UPDATE summaries SET version = version + 1, body = (SELECT body FROM summaries
                WHERE level = 0 ORDER BY at LIMIT 1) WHERE level = 3";
            execute(&store, damage).await;
            assert_ne!(ask().await, whole);
            assert!(store.compare_spans(Source::FACEBOOK, false).await.unwrap() > 0);
            assert!(store.compare_spans(Source::FACEBOOK, true).await.unwrap() > 0);
            assert_eq!(ask().await, whole);
            refresh(&store).await;
            assert_eq!(store.compare_spans(Source::FACEBOOK, false).await.unwrap(), 0);
            assert_eq!(ask().await, whole);
        });
    }
}

#[test]
fn only_days_with_events_are_compared() {
    let stores = stores();
    for url in &stores.urls {
        block_on(async {
            let store = open(url).await;
            // The first and the last minute that an event can have.
            let (first, last) = (0, 84_006 * 1_440 - 1);
            let checkouts = [checkout(1, "u-1", "c", first, 100), checkout(2, "u-2", "c", last, 100)];
            write(&store, 1, &checkouts).await;
            assert_eq!(store.days(&(0..i64::MAX)).await.unwrap(), [0, 84_005]);
            store.fold_summaries(Source::FACEBOOK).await.unwrap();
            assert_eq!(store.days(&(0..i64::MAX)).await.unwrap(), [0, 84_005]);
            assert_all_agree(&store).await;
        });
    }
}
