//! Cost of lists: in proportion to their answer, not to the size of the dead letters.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::postgres::Postgres;
use crate::support::process::Service;
use crate::support::system::System;
use crate::support::{MINUTE, eventually, http};

/// A reporter alone on PostgreSQL, which has letters of a payload of some bytes and of errors that long.
fn reporter(letters: u32, payload: u32, path: u32, errors: u32) -> (Postgres, tempfile::TempDir, Service) {
    let (postgres, folder) = (Postgres::start(), tempfile::tempdir().unwrap());
    let environment = [("DATABASE_URL".to_owned(), postgres.url())];
    let mut reporter = Service::start(&["reporter"], &environment, folder.path());
    reporter.wait_ready();
    postgres.query(&format!(
        r#"INSERT INTO dead_letters (id, received_at, source, reason, event_id, correlation_id, errors, payload,
            payload_length, payload_sha256)
           SELECT gen_random_uuid(), now() - n * interval '1 second', 1, 'invalid', 'id-' || n, 'c',
            ('[' || repeat('{{"path":"' || repeat('\u0001', {path}) || '","message":"is unknown"}},', {errors})
             || '{{"path":"last","message":"is unknown"}}]')::json,
            convert_to(repeat('x', {payload}), 'UTF8'), {payload}, 's'
           FROM generate_series(1, {letters}) n"#
    ));
    (postgres, folder, reporter)
}

fn list(reporter: &Service, query: &str) -> (http::Answer, Duration) {
    let started = Instant::now();
    let answer = http::get(&reporter.url(&format!("/dead-letters?{query}"))).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text);
    (answer, started.elapsed())
}

#[test]
fn lists_of_large_dead_letters_take_little_memory() {
    let (_postgres, _folder, reporter) = reporter(300, 135_000, 10, 1);
    list(&reporter, "limit=1");
    let before = reporter.process.memory_kib("VmHWM");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let (answer, _) = list(&reporter, "limit=300");
                let all = answer.json();
                let letters = all["deadLetters"].as_array().unwrap();
                assert_eq!(letters.len(), 300);
                assert_eq!(letters[0]["payloadLength"], 135_000);
                assert_eq!(letters[0]["errorsTruncated"], false);
                assert_eq!(letters[0]["errors"].as_array().unwrap().len(), 2);
            });
        }
    });
    let grown = reporter.process.memory_kib("VmHWM") - before;
    println!("8 lists of 300 letters took {grown} KiB");
    assert!(grown < 40 << 10, "{grown} KiB");
}

#[test]
fn lists_shorten_long_errors_and_say_so() {
    let (_postgres, _folder, reporter) = reporter(300, 100, 1_024, 100);
    let (answer, took) = list(&reporter, "limit=300");
    println!("a list of 300 wordy letters: {} bytes in {took:?}", answer.text.len());
    assert!(answer.text.len() < 5_000_000, "{} bytes", answer.text.len());
    assert!(took < Duration::from_secs(5), "{took:?}");
    for letter in answer.json()["deadLetters"].as_array().unwrap() {
        assert_eq!(letter["errorsTruncated"], true);
        assert!(!letter["errors"].as_array().unwrap().is_empty());
    }
    // Fewer letters have more room.
    let errors =
        |query: &str| list(&reporter, query).0.json()["deadLetters"][0]["errors"].as_array().unwrap().len();
    assert!(errors("limit=1") >= 2);
    // The command shows the same.
    let environment = [("DATABASE_URL".to_owned(), _postgres.url())];
    let mut command = crate::support::process::ess(
        &["dead-letters", "list", "--json", "--limit", "300"],
        &environment,
        _folder.path(),
    );
    let output = command.output().unwrap();
    assert!(output.status.success());
    assert!(output.stdout.len() < 5_000_000, "{} bytes", output.stdout.len());
    let first: Value =
        serde_json::from_slice(output.stdout.split(|byte| *byte == b'\n').next().unwrap()).unwrap();
    assert_eq!(first["errorsTruncated"], true);
}

#[test]
fn an_event_with_many_dead_letters_is_answered_in_part() {
    let mut system = System::embedded(&[]);
    assert_eq!(system.post(r#"{"source": "facebook", "eventId": "known"}"#).status, 422);
    eventually("the letter is there", MINUTE, || {
        http::get(&system.reporter_url("/events/known")).ok().filter(|answer| answer.status == 200)
    });
    let few = system.report("/events/known");
    assert_eq!(
        (few["matches"].as_array().unwrap().len(), &few["matchesTruncated"]),
        (1, &Value::from(false))
    );
    system.damage(
        "INSERT INTO dead_letters (id, received_at, source, reason, event_id, correlation_id, errors, payload,
            payload_length, payload_sha256)
         WITH RECURSIVE n (at) AS (SELECT 1 UNION ALL SELECT at + 1 FROM n WHERE at < 12000)
         SELECT randomblob(16), at, 1 + at % 2, 'invalid', 'often', 'c', '[]', x'00', 1, x'00' FROM n",
    );
    for (query, count) in [("", 100), ("?source=tiktok", 100)] {
        let many = system.report(&format!("/events/often{query}"));
        let matches = many["matches"].as_array().unwrap();
        assert_eq!((matches.len(), &many["matchesTruncated"]), (count, &Value::from(true)), "{query}");
        assert!(query.is_empty() || matches.iter().all(|found| found["source"] == "tiktok"));
    }
    system.services.clear();
}

#[test]
fn lists_wait_for_other_lists_and_not_for_reports() {
    let (postgres, _folder, reporter) = reporter(1, 1, 1, 1);
    std::thread::scope(|scope| {
        let holder = scope.spawn(|| {
            postgres
                .query("BEGIN; LOCK TABLE dead_letters IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(9); COMMIT")
        });
        let waiting = |count: usize| {
            let sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
            eventually("lists wait", MINUTE, || {
                (postgres.query(sql)[0].parse::<usize>().unwrap() == count).then_some(())
            });
        };
        eventually("the table is held", MINUTE, || {
            let sql = "SELECT 1 FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted
                AND relation = 'dead_letters'::regclass";
            (!postgres.query(sql).is_empty()).then_some(())
        });
        let lists: Vec<_> = (0..40)
            .map(|_| scope.spawn(|| http::get(&reporter.url("/dead-letters")).unwrap().status))
            .collect();
        waiting(2);
        for path in ["/reports/events", "/reports/demographics", "/ready"] {
            assert_eq!(http::get(&reporter.url(path)).unwrap().status, 200, "{path}");
        }
        waiting(2);
        let answers: Vec<u16> = lists.into_iter().map(|list| list.join().unwrap()).collect();
        assert!(answers.contains(&200) && answers.contains(&503), "{answers:?}");
        assert!(answers.iter().all(|status| [200, 503].contains(status)), "{answers:?}");
        holder.join().unwrap();
    });
}
