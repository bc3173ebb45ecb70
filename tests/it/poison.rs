//! Poison events: an event that crashes its collector is found and set aside. A collector that is killed from outside
//! is not taken for the victim of an event.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::events::simple;
use crate::support::postgres::Postgres;
use crate::support::proxy::Proxy;
use crate::support::system::System;
use crate::support::{MINUTE, block_on, eventually, http};

/// `ess up` on the embedded log, with a PostgreSQL behind a proxy that delays packets.
struct DistantDatabase {
    system: System,
    postgres: Postgres,
    proxy: Proxy,
}

impl DistantDatabase {
    fn start(delay: Duration) -> Self {
        let postgres = Postgres::start();
        let proxy = Proxy::to(postgres.port);
        let url = format!("postgres://ess@127.0.0.1:{}/ess", proxy.port);
        let system = System::embedded(&[("DATABASE_URL", &url), ("ESS_MAX_DELIVERIES", "1")]);
        proxy.delay(delay);
        Self { system, postgres, proxy }
    }

    fn post(&self, ids: impl Iterator<Item = String>) {
        let events: Vec<Value> = ids.map(|id| simple(&id, "facebook")).collect();
        let answer = self.system.post(&Value::from(events).to_string());
        assert_eq!(answer.status, 202, "{}", answer.text);
    }

    /// Counts the rows of a table, with or without a condition.
    fn count(&self, of: &str) -> u64 {
        self.postgres.query(&format!("SELECT count(*) FROM {of}"))[0].parse().unwrap()
    }

    fn facebook(&self) -> Value {
        self.system.settle()["sources"][0].clone()
    }
}

#[test]
fn one_poison_event_among_a_thousand_is_found_within_ten_crashes_at_a_round_trip_of_20_ms() {
    let mut far = DistantDatabase::start(Duration::from_millis(10));
    let poison = |n: u32| if n == 617 { "fault-abort".to_owned() } else { format!("n-{n}") };
    far.post((0..1_000).map(|n| format!("neighbour-{n}")));
    // The collector may crash the process before the gateway has answered; the frame is in the log by then.
    let events: Vec<Value> = (0..1_000).map(|n| simple(&poison(n), "facebook")).collect();
    let _ = http::post(&far.system.gateway_url("/webhook"), &Value::from(events).to_string());
    let (started, mut crashes) = (Instant::now(), 0);
    while far.count("dead_letters WHERE reason = 'too_many_deliveries'") == 0 {
        assert!(started.elapsed() < MINUTE * 4, "not found after {crashes} crashes");
        if !far.system.services[0].process.running() {
            crashes += 1;
            far.system.services[0].start_again();
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    // One delivery that is not counted, one that ESS_MAX_DELIVERIES allows, and the steps of the search.
    assert!((6..=10).contains(&crashes), "{crashes} crashes");
    far.system.wait_ready();
    let ledger = far.facebook();
    assert_eq!((&ledger["stored"], &ledger["quarantined"]), (&json!(1_999), &json!(1)), "{ledger}");
    assert_eq!(far.postgres.query("SELECT event_id FROM dead_letters"), ["fault-abort"]);
    assert_eq!(far.count("poison_searches"), 0, "the search is deleted");
}

#[test]
fn no_event_is_set_aside_when_collectors_are_killed_during_its_trial() {
    // With this delay a trial lasts long enough to be observed in the table.
    let mut far = DistantDatabase::start(Duration::from_millis(25));
    block_on(async {
        use sea_orm::sqlx::{Connection, PgConnection, raw_sql};
        let mut lock = PgConnection::connect(&far.postgres.url()).await.unwrap();
        raw_sql("BEGIN; LOCK TABLE event_rows").execute(&mut lock).await.unwrap();
        for frame in 0..8 {
            far.post((0..1_000).map(|n| format!("f-{frame}-{n}")));
        }
        // Each process receives the frames, and none can store them while the table is locked.
        for _ in 0..4 {
            far.system.services[0].start_again();
            far.system.wait_ready();
            std::thread::sleep(Duration::from_secs(1));
        }
    });
    // The table is unlocked now. Five processes are killed during a trial.
    let mut parts = Vec::new();
    while parts.len() < 5 {
        let trial = eventually("a trial", MINUTE, || {
            let sql =
                "SELECT sequence, first_position, end_position FROM poison_searches WHERE under_way = 1";
            far.postgres.query(sql).pop()
        });
        far.system.services[0].process.kill();
        parts.push(trial);
        far.system.services[0].start_again();
    }
    far.system.wait_ready();
    let ledger = far.facebook();
    assert_eq!((&ledger["stored"], &ledger["quarantined"]), (&json!(8_000), &json!(0)), "{parts:?} {ledger}");
    assert_eq!(far.count("event_rows"), 8_000);
}

#[test]
fn frames_that_were_redelivered_without_a_poison_event_are_stored_in_few_transactions() {
    let mut far = DistantDatabase::start(Duration::ZERO);
    block_on(async {
        use sea_orm::sqlx::{Connection, PgConnection, raw_sql};
        let mut lock = PgConnection::connect(&far.postgres.url()).await.unwrap();
        raw_sql("BEGIN; LOCK TABLE event_rows").execute(&mut lock).await.unwrap();
        for frame in 0..20 {
            far.post((0..1_000).map(|n| format!("f-{frame}-{n}")));
        }
        for _ in 0..3 {
            far.system.services[0].start_again();
            far.system.wait_ready();
            std::thread::sleep(Duration::from_secs(1));
        }
    });
    far.proxy.cut();
    let commits = || -> u64 {
        far.postgres.query("SELECT pg_stat_force_next_flush()");
        let sql = "SELECT xact_commit FROM pg_stat_database WHERE datname = 'ess'";
        far.postgres.query(sql)[0].parse().unwrap()
    };
    let before = commits();
    let ledger = far.facebook();
    assert_eq!((&ledger["stored"], &ledger["quarantined"]), (&json!(20_000), &json!(0)), "{ledger}");
    let searched = far.system.services[0].lines("a frame came too often").len();
    assert!(searched >= 15, "an empty run: {searched} frames were searched");
    // Reporter and background tasks commit some of them. Trying the events one by one would take 60,000.
    let after = commits();
    assert!(after - before < 2_000, "{} commits", after - before);
}

#[test]
fn a_batch_of_thousands_of_rows_of_which_the_database_refuses_most_is_settled() {
    let far = DistantDatabase::start(Duration::from_millis(1));
    far.postgres.query("ALTER TABLE event_rows ADD CONSTRAINT few CHECK (event_id LIKE '%0')");
    for part in 0..8 {
        far.post((0..1_000).map(|n| format!("r-{part}-{n}")));
    }
    let ledger = eventually("all of them are settled", MINUTE * 4, || {
        let ledger = http::get(&far.system.reporter_url("/ledger")).ok()?.json()["sources"][0].clone();
        (ledger["inFlight"] == 0).then_some(ledger)
    });
    assert_eq!((&ledger["stored"], &ledger["quarantined"]), (&json!(800), &json!(7_200)), "{ledger}");
}

#[test]
fn batches_become_smaller_when_statements_time_out() {
    let mut system = System::real(&[]);
    system.damage(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.004); RETURN NEW; END $$;
         CREATE TRIGGER slow BEFORE INSERT ON event_rows FOR EACH ROW EXECUTE FUNCTION slow();
         ALTER ROLE ess SET statement_timeout = '500ms'",
    );
    system.service("collector-facebook").start_again();
    system.wait_ready();
    let events: Vec<Value> = (0..1_500).map(|n| simple(&format!("t-{n}"), "facebook")).collect();
    assert_eq!(system.post(&Value::from(events).to_string()).status, 202);
    let ledger = system.settle();
    assert_eq!(ledger["sources"][0]["stored"], 1_500, "{ledger}");
    let retries = "ess_collector_write_retries_total";
    assert!(
        system.service("collector-facebook").metric(retries) > 0.5,
        "an empty run: no statement timed out"
    );
}

#[test]
fn the_largest_events_with_thousands_of_keys_are_stored_before_the_acknowledgement_timeout() {
    let mut system = System::real(&[]);
    system.service("collector-facebook").process.kill();
    let keys = |prefix: &'static str| (0..5_000).map(move |n| (format!("{prefix}{n:05}-abcdefgh"), json!(1)));
    let mut worst = simple("", "facebook");
    worst.as_object_mut().unwrap().extend(keys("root"));
    worst["data"]["user"].as_object_mut().unwrap().extend(keys("user"));
    let mut sent = 0;
    for _ in 0..16 {
        let events: Vec<Value> = (0..4)
            .map(|n| {
                let mut event = worst.clone();
                event["eventId"] = json!(format!("w-{}", sent + n));
                event
            })
            .collect();
        let body = Value::from(events).to_string();
        assert!(body.len() / 4 < 256 * 1024, "{}", body.len() / 4);
        let answer = system.post(&body);
        assert_eq!(answer.status, 202, "{}", answer.text);
        sent += 4;
    }
    system.service("collector-facebook").start_again();
    system.wait_ready();
    let ledger = system.settle();
    assert_eq!(ledger["sources"][0]["stored"], sent, "{ledger}");
    let series = "ess_collector_redelivered_frames_total{source=\"facebook\"}";
    let redelivered = http::metric(&system.service("collector-facebook").url("/metrics"), series);
    assert!(redelivered.abs() < 0.5, "{redelivered} frames were delivered again");
}
