//! Each event is stored once, and each frame is counted once.

use ess::event::Source;
use ess::store::{Batch, Written};
use uuid::Uuid;

use super::{at, texts, write};
use crate::support::block_on;
use crate::support::stores::{frame, log, number, open, origin, stores};

#[test]
pub fn duplicates_are_found_by_every_insert_strategy() {
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
            // Twice: batches are copied at first, then probed, and after 64 without duplicates copied again.
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
            // Two writers insert the same rows at the same time.
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
pub fn a_cancelled_write_leaves_nothing_to_the_next() {
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
                // A write takes a few milliseconds, so it is cancelled in any of its steps.
                let patience = std::time::Duration::from_micros(turn * 80);
                let _ = tokio::time::timeout(patience, store.write(&batch(2 * turn))).await;
                // The connection of the cancelled write does not give its answers to the next query.
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
            // A folded frame is still recognised.
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
            // Another frame at a sequence number that was processed: the log was restored. Its event is stored.
            let replaced = write(&store, vec![frame(9, 10, &origin, &g)]).await;
            assert_eq!(replaced, Written { stored: 1, ..Written::default() });
            // In another log a new frame at sequence number 1 is no redelivery; a frame that was moved there is.
            let other = |frames| Batch { source: Source::FACEBOOK, log_id: Uuid::from_u128(2), frames };
            let written = store.write(&other(vec![frame(1, 11, &origin, &a)])).await.unwrap();
            assert_eq!(written, Written { duplicates: 2, ..Written::default() });
            let moved = store.write(&other(vec![frame(2, 2, &origin, &b)])).await.unwrap();
            assert_eq!(moved, Written { repeated_frames: 1, ..Written::default() });
            let cut = store.ledger(Source::FACEBOOK, Uuid::from_u128(2), &[]).await.unwrap();
            assert_eq!(cut.sequences.as_slice(), [(1, 2)], "its sequence number is processed as well");
            assert_eq!(number(&store, "SELECT sum(events) FROM rollups WHERE minutes = 1").await, 7);
        });
    }
}

/// Makes COPY of a stored key fail as a server of a distributed database reports it: without a state, and with the name
/// of a constraint that is its own.
const STATELESS: &str = "CREATE FUNCTION stateless() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE stored boolean;
    BEGIN
        IF current_query() LIKE 'COPY%' THEN
            EXECUTE format('SELECT EXISTS (SELECT FROM %s WHERE key = $1)', TG_RELID::regclass)
                INTO stored USING NEW.key;
            IF stored THEN
                RAISE EXCEPTION 'duplicate key value violates unique constraint \"event_rows_pkey_102014\"'
                    USING ERRCODE = 'XX000';
            END IF;
        END IF;
        RETURN NEW;
    END $$";

/// Gives every table of rows that trigger.
const STATELESS_TABLES: &str = "DO $$ DECLARE rows regclass; BEGIN
    FOR rows IN SELECT c.oid::regclass FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'key'
        WHERE c.relkind = 'r' AND c.relname LIKE 'event_rows%' LOOP
        EXECUTE format('CREATE TRIGGER stateless BEFORE INSERT ON %s FOR EACH ROW EXECUTE FUNCTION stateless()', rows);
    END LOOP; END $$";

#[test]
fn a_duplicate_that_copy_reports_without_a_state_is_found_by_the_next_strategy() {
    let stores = stores();
    for url in stores.urls.iter().filter(|url| url.starts_with("postgres")) {
        block_on(async {
            let store = open(url).await;
            store.execute(STATELESS).await.unwrap();
            store.execute(STATELESS_TABLES).await.unwrap();
            let origin = origin();
            let ids: Vec<String> = (0..30).map(|id| format!("s-{id}")).collect();
            let events = texts(&ids.iter().map(String::as_str).collect::<Vec<_>>());
            let first = write(&store, at(1, &origin, &events[..20])).await;
            assert_eq!(first, Written { stored: 20, ..Written::default() });
            let second = write(&store, at(2, &origin, &events[10..])).await;
            assert_eq!(second, Written { stored: 10, duplicates: 10, ..Written::default() });
            assert_eq!(number(&store, "SELECT count(*) FROM event_rows").await, 30);
        });
    }
}
