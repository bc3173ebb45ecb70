//! Dead letters: events that cannot be stored are kept, listed and replayed.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::events::simple;
use crate::support::process::ess;
use crate::support::system::System;
use crate::support::{MINUTE, eventually, http};

fn letters(system: &System, query: &str) -> Vec<Value> {
    let answer = http::get(&system.reporter_url(&format!("/dead-letters?limit=1000{query}"))).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()["deadLetters"].as_array().unwrap().clone()
}

fn wait_for_letters(system: &System, count: usize) -> Vec<Value> {
    eventually("dead letters", MINUTE, || {
        let letters = letters(system, "");
        (letters.len() >= count).then_some(letters)
    })
}

fn run(system: &System, arguments: &[&str]) -> String {
    let output = system.ess(arguments);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(
        output.status.code(),
        Some(0),
        "{arguments:?}: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

#[test]
pub fn a_refused_event_is_kept_and_listed_and_replayed_when_it_is_valid() {
    let system = System::real(&[]);
    let mut bad = simple("bad", "tiktok");
    bad["data"]["user"]["followers"] = json!("not-a-number");
    let body = json!([simple("good", "facebook"), bad, {"source": "facebook"}]).to_string();
    let sent = [("Content-Type", "application/json"), ("X-Correlation-Id", "letter-1")];
    let answer = http::post_with(&system.gateway_url("/webhook"), &sent, body.as_bytes()).unwrap();
    assert_eq!(answer.status, 202);
    assert_eq!(system.post("[broken").status, 400);
    let all = wait_for_letters(&system, 3);
    let letter = all.iter().find(|letter| letter["eventId"] == "bad").unwrap();
    assert_eq!((&letter["source"], &letter["reason"]), (&json!("tiktok"), &json!("invalid")));
    assert_eq!(letter["correlationId"], "letter-1");
    assert_eq!(letter["errors"][0]["path"], "data.user.followers");
    assert_eq!(letters(&system, "&reason=not_json").len(), 1);
    assert_eq!(letters(&system, "&source=tiktok").len(), 1);
    assert_eq!(letters(&system, "&to=2020-01-01").len(), 0);
    let ledger = system.settle();
    assert_eq!(
        (&ledger["sources"][0]["rejected"], &ledger["sources"][1]["rejected"]),
        (&json!(1), &json!(1))
    );

    let id = letter["id"].as_str().unwrap();
    let shown: Value = serde_json::from_str(&run(&system, &["dead-letters", "show", id])).unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(shown["payload"].as_str().unwrap()).unwrap(),
        bad,
        "its original bytes"
    );
    assert!(run(&system, &["dead-letters", "list", "--source", "tiktok"]).contains(id));
    assert!(run(&system, &["dead-letters", "replay", "--dry-run"]).contains("0 pass, 3 fail"));
    assert_eq!(system.count_rows(), 1, "a dry run changes nothing");

    // The replay fails, and the letter keeps both reasons.
    run(&system, &["dead-letters", "replay", id]);
    let again = letters(&system, "&source=tiktok").remove(0);
    assert_eq!(again["history"][0]["reason"], "invalid");
    assert_eq!(again["errors"][0]["path"], "data.user.followers");

    // The payload is replaced by a valid one, so that the next replay succeeds.
    let mended = simple("bad", "tiktok").to_string();
    let hex: String = mended.bytes().map(|byte| format!("{byte:02x}")).collect();
    system.database.query(&format!(
        "UPDATE dead_letters SET payload = '\\x{hex}', payload_length = {} WHERE event_id = 'bad'",
        mended.len()
    ));
    assert!(run(&system, &["dead-letters", "replay", "--dry-run"]).contains("1 pass, 2 fail"));
    assert!(run(&system, &["dead-letters", "replay", id]).contains("1 pass, 0 fail"));
    system.settle();
    assert_eq!(system.count_rows(), 2);
    assert!(
        !run(&system, &["dead-letters", "list"]).contains(id),
        "a replayed letter is not listed by default"
    );
    assert!(run(&system, &["dead-letters", "list", "--replayed"]).contains(id));
    let output = system.ess(&["dead-letters", "replay", id]);
    assert_eq!(output.status.code(), Some(1), "a letter is replayed once");
    assert_eq!(system.settle()["sources"][1]["missing"], 0);
}

#[test]
fn a_replay_on_embedded_storage_is_refused_while_a_service_uses_the_data_folder() {
    let mut system = System::embedded(&[]);
    system.post("{}");
    wait_for_letters(&system, 1);
    let output = system.ess(&["dead-letters", "replay"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("in use"), "{output:?}");
    system.services[0].process.signal("TERM");
    system.services[0].process.wait(MINUTE);
    assert!(run(&system, &["dead-letters", "replay"]).contains("0 pass, 1 fail"));
}

#[test]
fn dead_letters_are_deleted_by_age_and_size_and_counted() {
    use ess::log::Reason;
    use ess::store::{DeadLetterFilter, Purpose, Retention, Store};
    let mut system = System::embedded(&[]);
    for n in 0..20 {
        system.post(&json!({"n": n, "pad": "x".repeat(1_000)}).to_string());
    }
    wait_for_letters(&system, 20);
    system.services[0].process.kill();
    let url = format!("sqlite://{}", system.folder.path().join("data/ess.db").display());
    crate::support::block_on(async {
        let store = Store::connect(&url, Purpose::Write { transactions: 1 }).await.unwrap();
        let left = async || {
            let filter = DeadLetterFilter { limit: 100, ..DeadLetterFilter::default() };
            store.letters(&filter).await.unwrap().len()
        };
        let gone = store.expire_letters(Retention { age: None, bytes: 5_500 }).await.unwrap();
        assert_eq!((gone, left().await), (15, 5), "the newest stay");
        // Letters of accepted events outlast those of refused ones, whatever their age: they are deleted only once they
        // alone exceed the limit. After a failed replay a letter still counts as one of an accepted event, by the first
        // reason in its history.
        let letter = |reason, payload: usize| {
            let refusal = ess::event::Refusal::default();
            let received_at = chrono::Utc::now().timestamp_micros() - 60_000_000;
            (
                uuid::Uuid::new_v4(),
                ess::log::DeadLetter::new(received_at, "c", reason, &vec![b'x'; payload], refusal),
            )
        };
        let accepted = [letter(Reason::Database, 1_000), letter(Reason::TooManyDeliveries, 1_000)];
        store.keep_letters(&accepted).await.unwrap();
        assert_eq!(store.expire_letters(Retention { age: None, bytes: 5_500 }).await.unwrap(), 2);
        let filter = DeadLetterFilter { limit: 100, ..DeadLetterFilter::default() };
        let kept = store.letters(&filter).await.unwrap();
        assert_eq!(kept.iter().filter(|letter| letter.reason != "invalid").count(), 2);
        let failed = kept.iter().find(|letter| letter.reason == "database").unwrap();
        store.letter_failed_again(failed, &[]).await.unwrap();
        assert_eq!(store.expire_letters(Retention { age: None, bytes: 2_500 }).await.unwrap(), 3);
        assert_eq!(left().await, 2, "both that were accepted");
        store.keep_letters(&(0..3).map(|_| letter(Reason::Invalid, 10)).collect::<Vec<_>>()).await.unwrap();
        let old = Retention { age: Some(Duration::from_secs(3_600)), bytes: 1 << 30 };
        assert_eq!(store.expire_letters(old).await.unwrap(), 0);
        let all = Retention { age: Some(Duration::ZERO), bytes: 1 << 30 };
        assert_eq!((store.expire_letters(all).await.unwrap(), left().await), (5, 0));
    });
    let fallen = system.database.query("SELECT letters FROM dead_letter_counts WHERE reason = 'fallen_out'");
    assert_eq!(fallen, ["25"]);
}

#[test]
pub fn events_that_crash_their_collector_are_set_aside_and_their_neighbours_are_stored() {
    let system = System::real(&[("ESS_MAX_DELIVERIES", "2")]);
    let mut batch: Vec<Value> = (0..40).map(|n| simple(&format!("n-{n}"), "facebook")).collect();
    batch.insert(17, simple("fault-panic-1", "facebook"));
    batch.insert(30, simple("fault-panic-2", "facebook"));
    assert_eq!(system.post(&Value::from(batch).to_string()).status, 202);
    let found = wait_for_letters(&system, 2);
    let mut ids: Vec<_> = found.iter().map(|letter| letter["eventId"].as_str().unwrap()).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["fault-panic-1", "fault-panic-2"]);
    assert!(found.iter().all(|letter| letter["reason"] == "too_many_deliveries"), "{found:?}");
    let ledger = system.settle();
    assert_eq!(system.count_rows(), 40);
    assert_eq!(
        (&ledger["sources"][0]["quarantined"], &ledger["sources"][0]["missing"]),
        (&json!(2), &json!(0))
    );
    // The collector still works.
    assert_eq!(system.post(&simple("after", "facebook").to_string()).status, 202);
    system.settle();
    assert_eq!(system.count_rows(), 41);
}

#[test]
fn a_message_that_is_no_frame_is_set_aside_and_a_frame_of_a_newer_version_stays_in_the_log() {
    let mut system = System::real(&[]);
    let url = system.nats().url();
    crate::support::block_on(async {
        let client = async_nats::connect(url).await.unwrap();
        client.publish("ess.events.facebook", "no frame at all".into()).await.unwrap();
        let mut newer = ess::log::FrameWriter::default().write(&[]).1.to_vec();
        newer[4] = ess::log::FRAME_VERSION + 1;
        client.publish("ess.events.tiktok", newer.into()).await.unwrap();
        client.flush().await.unwrap();
    });
    let found = wait_for_letters(&system, 1);
    assert_eq!(found[0]["reason"], "unreadable_frame");
    let url = system.service("collector-tiktok").url("/ready");
    let reason = eventually("not ready", MINUTE, || {
        http::get(&url).ok().filter(|answer| answer.status == 503).map(|answer| answer.text)
    });
    assert!(reason.contains("newer"), "{reason}");
    // Events are stored meanwhile.
    assert_eq!(system.post(&json!([simple("a", "facebook"), simple("b", "tiktok")]).to_string()).status, 202);
    eventually("both are rows", MINUTE, || (system.count_rows() == 2).then_some(()));
    let ledger = http::get(&system.reporter_url("/ledger")).unwrap().json();
    assert!(ledger["sources"].as_array().unwrap().iter().all(|source| source["missing"] == 0), "{ledger}");
}

#[test]
fn the_ledger_counts_events_that_were_purged_from_the_log_as_missing() {
    let mut system = System::real(&[]);
    for name in ["collector-facebook", "collector-tiktok"] {
        system.service(name).process.kill();
    }
    let send = |system: &System, prefix: &str, count: usize| {
        let batch: Vec<Value> = (0..count).map(|n| simple(&format!("{prefix}-{n}"), "facebook")).collect();
        assert_eq!(system.post(&Value::from(batch).to_string()).status, 202);
    };
    send(&system, "purged", 30);
    let source =
        |system: &System| http::get(&system.reporter_url("/ledger")).unwrap().json()["sources"][0].clone();
    let before = source(&system);
    assert_eq!(
        (&before["published"], &before["inFlight"], &before["missing"]),
        (&json!(30), &json!(30), &json!(0))
    );
    let url = system.nats().url();
    crate::support::block_on(async {
        let context = async_nats::jetstream::new(async_nats::connect(url).await.unwrap());
        context.get_stream("ESS_FACEBOOK").await.unwrap().purge().await.unwrap();
    });
    send(&system, "kept", 12);
    for name in ["collector-facebook", "collector-tiktok"] {
        system.service(name).start_again();
    }
    system.wait_ready();
    system.settle();
    let after = source(&system);
    assert_eq!(
        (&after["published"], &after["stored"], &after["missing"]),
        (&json!(42), &json!(12), &json!(30)),
        "{after}"
    );
    let series = "ess_ledger_missing_events{source=\"facebook\"}";
    let url = system.reporter_url("/metrics");
    eventually("the metric says so", MINUTE, || (http::metric(&url, series) > 29.5).then_some(()));
}

#[test]
fn intact_frames_of_a_damaged_embedded_log_are_recovered() {
    let mut system = System::embedded(&[("ESS_ADMIN_TOKEN", "admin")]);
    // Without the table of rows, the frames stay in the log.
    system.services[0].process.kill();
    let url = format!("sqlite://{}", system.folder.path().join("data/ess.db").display());
    let sql = |text: &'static str| {
        let url = url.clone();
        crate::support::block_on(async move {
            let pool = sea_orm::sqlx::SqlitePool::connect(&url).await.unwrap();
            sea_orm::sqlx::raw_sql(text).execute(&pool).await.unwrap();
            pool.close().await;
        });
    };
    sql("ALTER TABLE event_rows RENAME TO event_rows_away");
    system.services[0].start_again();
    let gateway = system.gateway_url("/health");
    eventually("the gateway is there", MINUTE, || http::get(&gateway).ok());
    for n in 0..40 {
        let batch: Vec<Value> = (0..50).map(|k| simple(&format!("d-{n}-{k}"), "tiktok")).collect();
        assert_eq!(system.post(&Value::from(batch).to_string()).status, 202);
    }
    system.services[0].process.kill();
    sql("ALTER TABLE event_rows_away RENAME TO event_rows");
    let log = system.folder.path().join("data/log.redb");
    let mut bytes = std::fs::read(&log).unwrap();
    bytes[..4_096].fill(0xee);
    std::fs::write(&log, &bytes).unwrap();

    let refused = ess(&["up"], &system.environment, system.folder.path()).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("ess log recover"), "{refused:?}");
    let output = run(&system, &["log", "recover"]);
    assert!(output.contains("2000 events"), "{output}");
    system.services[0].start_again();
    system.wait_ready();
    system.settle();
    assert_eq!(system.count_rows(), 2_000, "every frame was intact");
}

#[test]
fn events_are_accepted_in_bounded_memory_while_postgres_is_down_for_a_minute() {
    let mut system = System::real(&[]);
    system.postgres().process.kill();
    let mut accepted = 0;
    let mut highest = 0;
    let started = std::time::Instant::now();
    while started.elapsed() < Duration::from_secs(60) {
        let batch: Vec<Value> = (0..500).map(|n| simple(&format!("m-{accepted}-{n}"), "facebook")).collect();
        let answer = system.post(&Value::from(batch).to_string());
        assert_eq!(answer.status, 202, "{}", answer.text);
        accepted += 500;
        for service in &system.services {
            highest = highest.max(service.process.memory_kib("VmRSS"));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(accepted > 50_000, "{accepted}");
    assert!(highest < 256 * 1024, "{highest} KiB");
    system.postgres().start_again();
    system.wait_ready();
    let ledger = system.settle();
    assert_eq!(system.count_rows(), accepted, "{ledger}");
    assert_eq!(ledger["sources"][0]["missing"], 0);
    let blocked = "ess_actor_blocked_seconds_total{actor=\"collector.facebook.batch_write\"}";
    assert!(
        system.service("collector-facebook").metric(blocked) > 10.0,
        "the time that the actor was blocked is measured"
    );
}
