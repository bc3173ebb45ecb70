//! Databases of earlier versions.

use ess::event::Source;
use ess::store::StoreError;

use super::{assert_all_agree, audience_of, checkout, execute, write};
use crate::support::block_on;
use crate::support::events::Chance;
use crate::support::stores::{number, open, plain, stores};

#[test]
pub fn a_database_of_an_earlier_version_is_migrated() {
    use migration::{Migrator, MigratorTrait};
    let stores = stores();
    for url in &stores.urls {
        block_on(async {
            let store = open(url).await;
            let mut chance = Chance(3);
            let events: Vec<String> = (0..600)
                .map(|id| {
                    let minute = 28_000_000 + chance.below(5_000) as i64;
                    checkout(id, &format!("u-{}", id % 50), &format!("c-{}", id % 9), minute, 250)
                })
                .collect();
            write(&store, 1, &events).await;
            let before = audience_of(&store, None, None).await;
            // Tables of earlier versions: minutes, hours and days; before that events by the minute alone.
            let newer = Migrator::migrations().len() as u32 - 6;
            let known = ["rollups WHERE minutes = 1440", "rollups WHERE level = 2", "event_rollup"];
            assert!(
                Migrator::down(&plain(url).await, Some(newer + 2)).await.is_err(),
                "an earlier version could not fold the pending deltas"
            );
            store.migrate().await.unwrap();
            store.fold_summaries(Source::FACEBOOK).await.unwrap();
            for (steps, known) in (newer + 1..).zip(known) {
                Migrator::down(&plain(url).await, Some(steps)).await.unwrap();
                assert_eq!(number(&store, &format!("SELECT sum(events) FROM {known}")).await, 600);
                store.migrate().await.unwrap();
                assert_eq!(audience_of(&store, None, None).await, before, "{known}");
            }
            let more = vec![checkout(9_999, "u-1", "c-1", 28_000_001, 250)];
            write(&store, 2, &more).await;
            let with_more = audience_of(&store, None, None).await;
            assert!(with_more.starts_with("601 events, 50 users"), "{with_more}");
            while store.refresh_summaries(Source::FACEBOOK).await.unwrap() > 0 {}
            assert_eq!(audience_of(&store, None, None).await, with_more);
            assert_all_agree(&store).await;
        });
    }
}

#[test]
fn folding_stops_at_a_newer_format_and_takes_it_for_damage_only_if_no_newer_program_has_migrated() {
    let stores = stores();
    for url in &stores.urls {
        block_on(async {
            let store = open(url).await;
            write(&store, 1, &[checkout(1, "u-1", "c-1", 28_000_000, 250)]).await;
            let newer = if store.is_postgres() { "'\\x0501'::bytea" } else { "x'0501'" };
            execute(&store, &format!("UPDATE summary_deltas SET body = {newer}")).await;
            execute(&store, "INSERT INTO seaql_migrations (version, applied_at) VALUES ('m9_newer', 0)")
                .await;
            let folded = store.fold_summaries(Source::FACEBOOK).await;
            assert!(matches!(folded, Err(StoreError::Schema { .. })), "{folded:?}");
            assert!(matches!(store.check_not_newer().await, Err(StoreError::Schema { .. })));
            assert_eq!(number(&store, "SELECT count(*) FROM damaged_summaries").await, 0);
            execute(&store, "DELETE FROM seaql_migrations WHERE version = 'm9_newer'").await;
            store.check_not_newer().await.unwrap();
            store.fold_summaries(Source::FACEBOOK).await.unwrap();
            assert_eq!(store.damaged_summaries(Source::FACEBOOK).await.unwrap(), 1);
            assert_eq!(number(&store, "SELECT count(*) FROM summary_deltas").await, 1, "it stays");
        });
    }
}
