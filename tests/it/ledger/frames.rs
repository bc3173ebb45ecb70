//! A frame is recognised by its writer and number, whatever its sequence number in the log, and is counted once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ess::log::{DeadLetter, Reason};
use ess::store::{Batch, Store, StoreError, Written};
use futures::future;
use migration::MigratorTrait;
use sea_orm::sqlx;
use uuid::Uuid;

use super::{SOURCE, literal, texts, write};
use crate::support::block_on;
use crate::support::postgres::Postgres;
use crate::support::stores::{frame, log, number, open, origin, plain, stores};

#[test]
pub fn frames_at_reused_sequence_numbers_are_stored_and_none_is_counted_twice() {
    let stores = stores();
    for url in &stores.urls {
        block_on(async {
            let store = open(url).await;
            let origin = origin();
            let events: Vec<_> = (0..30).map(|n| texts(&format!("{n}"), 1)).collect();
            let at =
                |place: usize, number: usize| frame(place as u64, number as u64, &origin, &events[number]);
            let one = Written { stored: 1, ..Written::default() };
            let repeated = Written { repeated_frames: 1, ..Written::default() };
            write(&store, (1..=10).map(|n| at(n, n)).collect()).await;
            store.fold_ledger(SOURCE, log(), 1).await.unwrap();
            // The log was restored to its start. A fast collector stores the second new frame, a slow one the first.
            assert_eq!(write(&store, vec![at(2, 12)]).await, one);
            assert_eq!(write(&store, vec![at(1, 11)]).await, one);
            for round in 0..2 {
                for (place, number) in [(1, 11), (2, 12), (7, 7), (3, 10)] {
                    assert_eq!(write(&store, vec![at(place, number)]).await, repeated, "{round} {number}");
                }
                store.fold_ledger(SOURCE, log(), 1).await.unwrap();
            }
            // Frames of one writer in any order, some of them folded.
            for number in [25, 14, 24, 13, 23] {
                assert_eq!(write(&store, vec![at(number, number)]).await, one, "{number}");
                store.fold_ledger(SOURCE, log(), 1).await.unwrap();
                assert_eq!(write(&store, vec![at(number, number)]).await, repeated, "{number}");
            }
            assert_eq!(number(&store, "SELECT count(*) FROM event_rows").await, 17);
            // Two frames that had one sequence number leave two letters.
            for number in [41, 42] {
                let mut refused = frame(30, number, &origin, &[]);
                let refusal = ess::event::Refusal { source: Some(SOURCE), ..Default::default() };
                refused.set_aside.push(DeadLetter::new(5, "c", Reason::UnreadableFrame, b"{}", refusal));
                write(&store, vec![refused]).await;
            }
            assert_eq!(number(&store, "SELECT count(*) FROM dead_letters").await, 2);
            store.fold_ledger(SOURCE, log(), 1).await.unwrap();
            assert_eq!(
                number(&store, "SELECT count(*) FROM ledger_runs").await,
                3,
                "1 to 14, 23 to 25, 41 to 42"
            );
            assert_eq!(number(&store, "SELECT count(*) FROM ledger_claims").await, 0);
        });
    }
}

#[test]
pub fn claims_and_folding_at_the_same_moment_count_every_frame_once() {
    const FRAMES: u64 = 150;
    let stores = stores();
    for url in &stores.urls {
        block_on(async {
            let (one, other, folder) = (open(url).await, open(url).await, open(url).await);
            let origin = origin();
            let events: Vec<_> = (0..=FRAMES).map(|n| texts(&format!("{n}"), 2)).collect();
            let done = AtomicU64::new(0);
            // Each frame comes six times: to both collectors, now and once it may be folded.
            let collect = async |store: &Store, shift: u64| {
                let mut sum = Written::default();
                for step in 0..3 * FRAMES {
                    let number = 1 + (step + shift + step / FRAMES * 7) % FRAMES;
                    let frames = || vec![frame(number, number, &origin, &events[number as usize])];
                    let written = loop {
                        match store.write(&Batch { source: SOURCE, log_id: log(), frames: frames() }).await {
                            Ok(written) => break written,
                            Err(StoreError::Conflict { .. }) => {}
                            // SQLite's writers wait for each other only so long.
                            Err(StoreError::Unavailable { message, .. }) if message.contains("locked") => {}
                            Err(error) => panic!("{error}"),
                        }
                    };
                    sum.stored += written.stored;
                    sum.duplicates += written.duplicates;
                    sum.repeated_frames += written.repeated_frames;
                }
                done.fetch_add(1, Ordering::Relaxed);
                sum
            };
            let fold = async {
                let mut folds = 0;
                while done.load(Ordering::Relaxed) < 2 {
                    folder.fold_ledger(SOURCE, log(), 1).await.unwrap();
                    folds += 1;
                    tokio::task::yield_now().await;
                }
                folds
            };
            let (left, right, folds) = future::join3(collect(&one, 0), collect(&other, 3), fold).await;
            // SQLite's writers take turns as it pleases them.
            assert!(folds >= if one.is_postgres() { 20 } else { 1 }, "{folds} folds");
            assert_eq!(left.stored + right.stored, 2 * FRAMES);
            assert_eq!(left.duplicates + right.duplicates, 0, "no frame was processed twice");
            assert_eq!(left.repeated_frames + right.repeated_frames, 5 * FRAMES);
            folder.fold_ledger(SOURCE, log(), 1).await.unwrap();
            let cut = folder.ledger(SOURCE, log(), &[]).await.unwrap();
            assert_eq!((cut.sequences.as_slice(), cut.processed()), (&[(1, FRAMES)][..], 2 * FRAMES));
            assert_eq!(number(&one, "SELECT count(*) FROM ledger_runs").await, 1);
        });
    }
}

/// The claim sees the runs as they were before the folding, and the folding deletes the row that it collides with.
#[test]
fn a_claim_that_waits_while_its_frame_is_folded_is_done_again() {
    let postgres = Postgres::start();
    block_on(async {
        let store = open(&postgres.url()).await;
        let origin = origin();
        let (early, late) = (texts("early", 2), texts("late", 3));
        let one = Written { stored: 3, ..Written::default() };
        assert_eq!(write(&store, vec![frame(2, 2, &origin, &late), frame(3, 3, &origin, &[])]).await, one);
        // Another collector has claimed the first frame and stops there.
        let pool = sqlx::PgPool::connect(&postgres.url()).await.unwrap();
        let mut other = pool.begin().await.unwrap();
        let claim = "INSERT INTO ledger_claims
            (source, writer, number, log_id, sequence, events, total, acked, acked_total)
            VALUES (1, $1, 1, $2, 1, 2, 2, 0, 0)";
        sqlx::query(claim).bind(Uuid::from_u128(9)).bind(log()).execute(&mut *other).await.unwrap();
        let waiting = async {
            // The last frame has no events, so no duplicate shows that it was processed.
            let frames = vec![frame(1, 1, &origin, &early), frame(3, 3, &origin, &[])];
            write(&store, frames).await
        };
        let meanwhile = async {
            let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
            while sqlx::query_scalar::<_, i64>(waits).fetch_one(&pool).await.unwrap() == 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            store.fold_ledger(SOURCE, log(), 1).await.unwrap();
            assert_eq!(number(&store, "SELECT count(*) FROM ledger_claims").await, 0, "folded");
            other.rollback().await.unwrap();
        };
        let (written, ()) = future::join(waiting, meanwhile).await;
        assert_eq!(written, Written { stored: 2, repeated_frames: 1, ..Written::default() });
        let cut = store.ledger(SOURCE, log(), &[]).await.unwrap();
        assert_eq!(cut.processed(), 5);
    });
}

#[test]
fn frames_of_version_0_1_are_recognised_if_their_writer_had_sent_their_number() {
    let stores = stores();
    for url in &stores.urls {
        block_on(async {
            let store = ess::store::Store::connect(url, ess::store::Purpose::Write { transactions: 2 });
            let store = store.await.unwrap();
            let migrations = migration::Migrator::migrations();
            let new = migrations.iter().position(|migration| migration.name().contains("000007")).unwrap();
            migration::Migrator::up(&plain(url).await, Some(new as u32)).await.unwrap();
            let (log_id, writer) = (literal(&store, 1), literal(&store, 9));
            for sql in [
                format!("INSERT INTO ledger_watermarks VALUES (1, {log_id}, 20, 2)"),
                format!("INSERT INTO ledger_frames SELECT 1, {log_id}, 22 UNION ALL SELECT 1, {log_id}, 23"),
                format!(
                    "INSERT INTO ledger_writers VALUES (1, {log_id}, {writer}, 0, 21, 210),
                        (1, {log_id}, {writer}, 1, 22, 220)"
                ),
                format!(
                    "INSERT INTO ledger_counts VALUES (1, {log_id}, 0, 150, 10, 0), (1, {log_id}, 1, 40, 0, 0)"
                ),
                format!("INSERT INTO ledger_writers VALUES (1, {}, {writer}, 0, 5, 50)", literal(&store, 2)),
                format!("INSERT INTO ledger_counts VALUES (1, {}, 0, 40, 3, 0)", literal(&store, 2)),
            ] {
                store.execute(&sql).await.unwrap();
            }
            store.migrate().await.unwrap();
            let cut = store.ledger(SOURCE, log(), &[]).await.unwrap();
            assert_eq!(cut.sequences.as_slice(), [(1, 20), (22, 23)]);
            assert_eq!(
                (cut.processed(), cut.lost_before),
                (243, 2 + 7),
                "two sequence numbers, and the tail of the former log"
            );
            let origin = origin();
            let events: Vec<_> = (0..60).map(|n| texts(&format!("{n}"), 1)).collect();
            let at = |place: u64, number: u64| vec![frame(place, number, &origin, &events[number as usize])];
            let repeated = Written { repeated_frames: 1, ..Written::default() };
            let one = Written { stored: 1, ..Written::default() };
            assert_eq!(write(&store, at(7, 7)).await, repeated, "below the watermark");
            assert_eq!(write(&store, at(22, 21)).await, repeated, "above it");
            assert_eq!(write(&store, at(21, 20)).await, one, "in between");
            assert_eq!(write(&store, at(7, 30)).await, one, "its writer had not written it by then");
            assert_eq!(write(&store, at(24, 24)).await, one);
            store.fold_ledger(SOURCE, log(), 1).await.unwrap();
            for (place, number) in [(7, 7), (22, 21), (21, 20), (7, 30), (24, 24)] {
                assert_eq!(write(&store, at(place, number)).await, repeated, "{number}");
            }
            assert_eq!(number(&store, "SELECT count(*) FROM event_rows").await, 3);
            migration::Migrator::down(&plain(url).await, Some((migrations.len() - new) as u32))
                .await
                .unwrap();
            assert_eq!(number(&store, "SELECT count(*) FROM ledger_frames").await, 2);
        });
    }
}
