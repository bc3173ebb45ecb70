//! Events that end their collector, whatever the way to the database; and collectors that are ended from outside.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::events::simple;
use crate::support::postgres::Postgres;
use crate::support::proxy::Proxy;
use crate::support::system::System;
use crate::support::{MINUTE, block_on, eventually, http};

/// `ess up` on the embedded log, and PostgreSQL some way off.
struct Far {
    world: System,
    postgres: Postgres,
    proxy: Proxy,
}

impl Far {
    fn start(each_way: Duration) -> Self {
        let postgres = Postgres::start();
        let proxy = Proxy::to(postgres.port);
        let url = format!("postgres://ess@127.0.0.1:{}/ess", proxy.port);
        let world = System::embedded(&[("DATABASE_URL", &url), ("ESS_MAX_DELIVERIES", "1")]);
        proxy.delay(each_way);
        Self { world, postgres, proxy }
    }

    fn post(&self, ids: impl Iterator<Item = String>) {
        let events: Vec<Value> = ids.map(|id| simple(&id, "facebook")).collect();
        let answer = self.world.post(&Value::from(events).to_string());
        assert_eq!(answer.status, 202, "{}", answer.text);
    }

    fn count(&self, of: &str) -> u64 {
        self.postgres.query(&format!("SELECT count(*) FROM {of}"))[0].parse().unwrap()
    }

    fn facebook(&self) -> Value {
        self.world.settle()["sources"][0].clone()
    }
}

#[test]
fn an_event_that_ends_its_process_is_found_among_a_thousand_however_far_the_database_is() {
    let mut far = Far::start(Duration::from_millis(10));
    let poison = |n: u32| if n == 617 { "fault-abort".to_owned() } else { format!("n-{n}") };
    far.post((0..1_000).map(|n| format!("neighbour-{n}")));
    // It is in the log before it ends the process, which may be before the answer is out.
    let events: Vec<Value> = (0..1_000).map(|n| simple(&poison(n), "facebook")).collect();
    let _ = http::post(&far.world.gateway_url("/webhook"), &Value::from(events).to_string());
    let (started, mut ends) = (Instant::now(), 0);
    while far.count("dead_letters WHERE reason = 'too_many_deliveries'") == 0 {
        assert!(started.elapsed() < MINUTE * 4, "not found after {ends} ends");
        if !far.world.services[0].process.running() {
            ends += 1;
            far.world.services[0].start_again();
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    // One not counted, one allowed, and those of the search.
    assert!((6..=10).contains(&ends), "{ends} ends");
    far.world.wait_ready();
    let ledger = far.facebook();
    assert_eq!((&ledger["stored"], &ledger["quarantined"]), (&json!(1_999), &json!(1)), "{ledger}");
    assert_eq!(far.postgres.query("SELECT event_id FROM dead_letters"), ["fault-abort"]);
    assert_eq!(far.count("poison_searches"), 0, "the search is forgotten");
}

#[test]
fn no_event_is_set_aside_because_collectors_are_ended_from_outside_while_they_try_it() {
    // A trial has to last long enough to be seen under way.
    let mut far = Far::start(Duration::from_millis(25));
    block_on(async {
        use sea_orm::sqlx::{Connection, PgConnection, raw_sql};
        let mut lock = PgConnection::connect(&far.postgres.url()).await.unwrap();
        raw_sql("BEGIN; LOCK TABLE event_rows").execute(&mut lock).await.unwrap();
        for frame in 0..8 {
            far.post((0..1_000).map(|n| format!("f-{frame}-{n}")));
        }
        // Each process has them in hand, and none can store them.
        for _ in 0..4 {
            far.world.services[0].start_again();
            far.world.wait_ready();
            std::thread::sleep(Duration::from_secs(1));
        }
    });
    // From now on the rows can be stored, but for five processes that end during a trial.
    let mut parts = Vec::new();
    while parts.len() < 5 {
        let trial = eventually("a trial", MINUTE, || {
            let sql =
                "SELECT sequence, first_position, end_position FROM poison_searches WHERE under_way = 1";
            far.postgres.query(sql).pop()
        });
        far.world.services[0].process.kill();
        parts.push(trial);
        far.world.services[0].start_again();
    }
    far.world.wait_ready();
    let ledger = far.facebook();
    assert_eq!((&ledger["stored"], &ledger["quarantined"]), (&json!(8_000), &json!(0)), "{parts:?} {ledger}");
    assert_eq!(far.count("event_rows"), 8_000);
}

#[test]
fn frames_that_come_back_for_a_harmless_reason_cost_little() {
    let mut far = Far::start(Duration::ZERO);
    block_on(async {
        use sea_orm::sqlx::{Connection, PgConnection, raw_sql};
        let mut lock = PgConnection::connect(&far.postgres.url()).await.unwrap();
        raw_sql("BEGIN; LOCK TABLE event_rows").execute(&mut lock).await.unwrap();
        for frame in 0..20 {
            far.post((0..1_000).map(|n| format!("f-{frame}-{n}")));
        }
        for _ in 0..3 {
            far.world.services[0].start_again();
            far.world.wait_ready();
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
    let said = far.world.services[0].lines("a frame came too often");
    assert!(said.len() >= 15, "an empty run: {} frames were searched", said.len());
    // Some of them are the reporter's and the housekeeping's; one by one there were 60,000.
    let after = commits();
    assert!(after - before < 2_000, "{} commits", after - before);
}

#[test]
fn thousands_of_rows_most_of_which_are_refused_come_to_an_end() {
    let far = Far::start(Duration::from_millis(1));
    far.postgres.query("ALTER TABLE event_rows ADD CONSTRAINT few CHECK (event_id LIKE '%0')");
    for part in 0..8 {
        far.post((0..1_000).map(|n| format!("r-{part}-{n}")));
    }
    let ledger = eventually("all of them are settled", MINUTE * 4, || {
        let ledger = http::get(&far.world.reporter_url("/ledger")).ok()?.json()["sources"][0].clone();
        (ledger["inFlight"] == 0).then_some(ledger)
    });
    assert_eq!((&ledger["stored"], &ledger["quarantined"]), (&json!(800), &json!(7_200)), "{ledger}");
}

#[test]
fn a_statement_timeout_makes_batches_smaller() {
    let mut world = System::real(&[]);
    world.damage(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.004); RETURN NEW; END $$;
         CREATE TRIGGER slow BEFORE INSERT ON event_rows FOR EACH ROW EXECUTE FUNCTION slow();
         ALTER ROLE ess SET statement_timeout = '500ms'",
    );
    world.service("collector-facebook").start_again();
    world.wait_ready();
    let events: Vec<Value> = (0..1_500).map(|n| simple(&format!("t-{n}"), "facebook")).collect();
    assert_eq!(world.post(&Value::from(events).to_string()).status, 202);
    let ledger = world.settle();
    assert_eq!(ledger["sources"][0]["stored"], 1_500, "{ledger}");
    let retries = "ess_collector_write_retries_total";
    assert!(
        world.service("collector-facebook").metric(retries) > 0.5,
        "an empty run: no statement was ended"
    );
}

#[test]
fn the_largest_events_with_thousands_of_keys_are_stored_before_the_log_loses_patience() {
    let mut world = System::real(&[]);
    world.service("collector-facebook").process.kill();
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
        let answer = world.post(&body);
        assert_eq!(answer.status, 202, "{}", answer.text);
        sent += 4;
    }
    world.service("collector-facebook").start_again();
    world.wait_ready();
    let ledger = world.settle();
    assert_eq!(ledger["sources"][0]["stored"], sent, "{ledger}");
    let series = "ess_collector_redelivered_frames_total{source=\"facebook\"}";
    let redelivered = http::metric(&world.service("collector-facebook").url("/metrics"), series);
    assert!(redelivered.abs() < 0.5, "{redelivered} frames were taken away from the collector");
}
