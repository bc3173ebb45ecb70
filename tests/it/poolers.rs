//! PostgreSQL as people run it: other tests once more, on version 18 and behind PgBouncer in each of its modes.

use ess::store::{Purpose, Store};

use crate::ledger::frames;
use crate::store::exactly_once;
use crate::support::block_on;
use crate::support::pgbouncer::PgBouncer;
use crate::support::postgres::{Kind, Postgres, on};
use crate::support::process::ess;
use crate::support::stores::number;
use crate::{cancelled_reports, privacy, report_formats, restarts, secured, set_aside, store, summaries};

const SESSION: Kind = Kind::Pooled("session", "");
const TRANSACTION: Kind = Kind::Pooled("transaction", "");
/// Setting of some installations that lets clients connect which send startup options. The options are dropped.
const DEAF: Kind = Kind::Pooled("transaction", "ignore_startup_parameters = options");

fn writes() {
    exactly_once::duplicates_are_found_by_every_insert_strategy();
    exactly_once::a_cancelled_write_leaves_nothing_to_the_next();
    exactly_once::a_frame_that_comes_again_is_counted_once();
    store::refused::a_row_that_the_database_refuses_is_set_aside_and_all_others_are_stored();
    frames::frames_at_reused_sequence_numbers_are_stored_and_none_is_counted_twice();
    frames::claims_and_folding_at_the_same_moment_count_every_frame_once();
}

fn reports() {
    summaries::audiences::audiences_are_the_same_before_folding_after_it_in_wider_spans_and_from_rows();
    summaries::campaigns::few_campaigns_are_ranked_exactly();
    report_formats::a_report_in_csv_has_the_content_of_the_report_in_json();
}

fn operations() {
    privacy::a_person_is_forgotten_and_everything_else_stays_counted();
    set_aside::a_refused_event_is_kept_and_listed_and_replayed_when_it_is_valid();
    summaries::rebuild::wrong_rollups_and_summaries_are_found_and_rebuilt_while_events_come();
    summaries::retention::rows_are_removed_by_age_and_stay_counted();
}

#[test]
fn rows_are_written_on_postgresql_18() {
    on(Kind::Eighteen, || {
        exactly_once::duplicates_are_found_by_every_insert_strategy();
        exactly_once::a_frame_that_comes_again_is_counted_once();
        store::refused::a_row_that_the_database_refuses_is_set_aside_and_all_others_are_stored();
        frames::frames_at_reused_sequence_numbers_are_stored_and_none_is_counted_twice();
        frames::claims_and_folding_at_the_same_moment_count_every_frame_once();
    });
}

#[test]
fn reports_and_operations_work_on_postgresql_18() {
    on(Kind::Eighteen, || {
        reports();
        operations();
        summaries::upgrade::a_database_of_an_earlier_version_is_migrated();
    });
}

#[test]
fn no_event_is_lost_when_postgresql_18_is_killed() {
    on(Kind::Eighteen, restarts::no_event_is_lost_when_postgres_is_killed);
}

#[test]
fn rows_are_written_through_a_pooler_of_transactions() {
    on(TRANSACTION, writes);
}

#[test]
fn rows_are_written_through_a_pooler_that_loses_options() {
    on(DEAF, || {
        exactly_once::duplicates_are_found_by_every_insert_strategy();
        exactly_once::a_frame_that_comes_again_is_counted_once();
    });
}

#[test]
fn reports_are_made_through_a_pooler_of_transactions() {
    on(TRANSACTION, || {
        reports();
        cancelled_reports::an_abandoned_report_is_cancelled_in_postgresql();
        cancelled_reports::more_reports_than_the_mailboxes_hold_are_refused();
    });
}

#[test]
fn operations_work_through_a_pooler_of_transactions() {
    on(TRANSACTION, || {
        operations();
        set_aside::events_that_crash_their_collector_are_set_aside_and_their_neighbours_are_stored();
        secured::the_reporter_reads_with_a_role_that_cannot_write();
    });
}

#[test]
fn no_event_is_lost_behind_a_pooler_of_transactions() {
    on(TRANSACTION, || {
        restarts::no_event_is_lost_when_postgres_is_killed();
        restarts::no_event_is_lost_when_collectors_are_killed();
    });
}

#[test]
fn the_system_works_behind_a_pooler_of_sessions() {
    on(SESSION, || {
        exactly_once::a_frame_that_comes_again_is_counted_once();
        set_aside::a_refused_event_is_kept_and_listed_and_replayed_when_it_is_valid();
        restarts::no_event_is_lost_when_postgres_is_killed();
        cancelled_reports::an_abandoned_report_is_cancelled_in_postgresql();
        cancelled_reports::more_reports_than_the_mailboxes_hold_are_refused();
    });
}

#[test]
fn migrations_at_once_through_few_connections_do_not_wait_for_ever() {
    on(Kind::Pooled("transaction", "default_pool_size = 2"), || {
        let postgres = Postgres::start();
        let url = postgres.url();
        let environment = [("DATABASE_URL".to_owned(), url)];
        let folder = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            let running: Vec<_> =
                (0..5).map(|_| ess(&["migrate"], &environment, folder.path()).spawn().unwrap()).collect();
            for mut one in running {
                assert!(one.wait().unwrap().success());
            }
        }
        let left = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'";
        assert_eq!(postgres.query(left), ["0"], "no lock stays on a server's connection");
    });
}

#[test]
fn what_does_not_work_behind_a_pooler_is_said_in_one_line() {
    let postgres = Postgres::start();
    let folder = tempfile::tempdir().unwrap();
    for (mode, query, words) in [
        ("statement", "", ["pool_mode", "transaction or session"]),
        ("transaction", "?options=-csearch_path%3Dpublic", ["unsupported startup parameter", "remove it"]),
    ] {
        let pooler = PgBouncer::start(mode, postgres.port, "");
        let url = format!("postgres://ess@127.0.0.1:{}/ess{query}", pooler.port);
        let environment = [("DATABASE_URL".to_owned(), url)];
        let output = ess(&["migrate"], &environment, folder.path()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{mode}: {said}");
        let mut lines = said.lines().filter(|line| line.starts_with("ess:"));
        let line = lines.next().unwrap_or_default();
        assert!(words.iter().all(|word| line.contains(word)) && lines.next().is_none(), "{mode}: {said}");
    }
}

#[test]
fn statements_have_names_where_nothing_stands_before_the_server_and_there_alone() {
    let named = "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%generate_series%'";
    // The question is a statement of this kind itself.
    for (kind, kept) in [(Kind::Packaged, 2), (Kind::Eighteen, 2), (SESSION, 0), (DEAF, 0), (TRANSACTION, 0)]
    {
        on(kind, || {
            let postgres = Postgres::start();
            let url = postgres.url();
            block_on(async {
                let store = Store::connect(&url, Purpose::Read { connections: 1 }).await.unwrap();
                store.migrate().await.unwrap();
                for _ in 0..3 {
                    assert_eq!(number(&store, "SELECT count(*) FROM generate_series(1, 5)").await, 5);
                }
                assert_eq!(number(&store, named).await, kept, "{kind:?}");
            });
        });
    }
}
