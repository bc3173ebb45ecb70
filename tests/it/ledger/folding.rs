//! Folding keeps the ledger's tables small, whatever is stuck or lost.

use std::collections::HashMap;
use std::time::Instant;

use ess::log::WriterMark;
use ess::store::Store;
use uuid::Uuid;

use super::{SOURCE, literal, texts, write};
use crate::support::block_on;
use crate::support::stores::{frame, log, number, open, origin, stores};

/// Inserts claims of frames of one writer, with as many events each.
async fn insert_claims(store: &Store, frames: std::ops::RangeInclusive<u64>, events: u64) {
    let (log_id, writer) = (literal(store, 1), literal(store, 9));
    let (first, last) = frames.into_inner();
    let claims = format!(
        "INSERT INTO ledger_claims (source, writer, number, log_id, sequence, events, total, acked, acked_total)
         WITH RECURSIVE n (at) AS (SELECT {first} UNION ALL SELECT at + 1 FROM n WHERE at < {last})
         SELECT 1, {writer}, at, {log_id}, at, {events}, at * {events}, at - 1, (at - 1) * {events} FROM n"
    );
    store.execute(&claims).await.unwrap();
}

/// The first frame of a writer is never processed; the million after it are.
#[test]
fn a_million_frames_above_a_stuck_one_are_read_as_one_run() {
    const FRAMES: u64 = 1_000_000;
    let stores = stores();
    for url in &stores.urls {
        block_on(async {
            let store = open(url).await;
            insert_claims(&store, 2..=FRAMES + 1, 10).await;
            let assert_read = async || {
                let known = store.known_log(SOURCE).await.unwrap();
                assert_eq!(known.acked[&Uuid::from_u128(9)].number, FRAMES);
                let cut = store.ledger(SOURCE, log(), &[]).await.unwrap();
                assert_eq!(cut.sequences.as_slice(), [(2, FRAMES + 1)]);
                let runs = cut.writers[&Uuid::from_u128(9)].runs.as_slice();
                assert_eq!((runs.len(), runs[0].first, runs[0].last), (1, 2, FRAMES + 1));
            };
            let began = Instant::now();
            assert_read().await;
            let before = began.elapsed();
            store.fold_ledger(SOURCE, log(), 1).await.unwrap();
            let began = Instant::now();
            assert_read().await;
            let database = if store.is_postgres() { "PostgreSQL" } else { "SQLite" };
            println!(
                "{database}: a look takes {:?}, and {before:?} before claims are folded",
                began.elapsed()
            );
            // A reconciliation reads all rows of these tables.
            let tables = ["claims", "repeats", "runs", "places", "writers", "logs", "totals"];
            let rows = tables.map(|table| format!("(SELECT count(*) FROM ledger_{table})")).join(" + ");
            let rows = number(&store, &format!("SELECT {rows}")).await;
            assert!(rows <= 5, "{rows} rows");
        });
    }
}

#[test]
fn a_gap_that_never_closes_is_given_up_and_kept_as_holes() {
    let stores = stores();
    for url in &stores.urls {
        block_on(async {
            let store = open(url).await;
            insert_claims(&store, 100..=10_150, 1).await;
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
fn inactive_writers_are_deleted_and_their_missing_frames_stay_counted() {
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
