//! Replay of dead letters over HTTP.

use serde_json::{Value, json};

use crate::support::events::simple;
use crate::support::http::{self, Answer};
use crate::support::system::{System, both};
use crate::support::{MINUTE, eventually};

const TOKEN: &str = "an-admin-token-of-the-tests";

fn replay(world: &System, body: &Value) -> Answer {
    let headers =
        [("Authorization", &*format!("Bearer {TOKEN}")), ("Content-Type", "application/json; charset=utf-8")];
    http::post_with(&world.reporter_url("/dead-letters/replay"), &headers, body.to_string().as_bytes())
        .unwrap()
}

fn replayed(world: &System, body: &Value) -> Value {
    let answer = replay(world, body);
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()
}

fn letters(world: &System, count: usize) -> Vec<Value> {
    eventually("dead letters", MINUTE, || {
        let list = world.report("/dead-letters?limit=1000")["deadLetters"].as_array().unwrap().clone();
        (list.len() >= count).then_some(list)
    })
}

/// Replaces the bytes of an event's letter without the services' knowledge.
fn replace(world: &System, event_id: &str, payload: &str) {
    let hex: String = payload.bytes().map(|byte| format!("{byte:02x}")).collect();
    let bytes = if world.nats.is_some() { format!("'\\x{hex}'") } else { format!("x'{hex}'") };
    let length = payload.len();
    world.damage(&format!(
        "UPDATE dead_letters SET payload = {bytes}, payload_length = {length} WHERE event_id = '{event_id}'"
    ));
}

/// A refused event, which a valid one with the same id can replace.
fn refused(id: &str, source: &str) -> Value {
    let mut event = simple(id, source);
    event["timestamp"] = json!("never");
    event
}

#[test]
fn letters_are_tried_and_replayed_by_id_and_by_filter_and_each_only_once() {
    both(&[("ESS_ADMIN_TOKEN", TOKEN)], |world| {
        let sent = json!([refused("a", "facebook"), refused("b", "facebook"), refused("c", "tiktok")]);
        assert_eq!(world.post(&sent.to_string()).status, 422);
        let all = letters(world, 3);
        let id = |event: &str| {
            all.iter().find(|letter| letter["eventId"] == event).unwrap()["id"].as_str().unwrap().to_owned()
        };
        let shown = world.report(&format!("/dead-letters/{}", id("a")));
        assert_eq!(serde_json::from_str::<Value>(shown["payload"].as_str().unwrap()).unwrap(), sent[0]);
        assert_eq!(
            (&shown["errors"][0]["path"], &shown["payloadChanged"]),
            (&json!("timestamp"), &json!(false))
        );
        replace(world, "a", &simple("a", "facebook").to_string());

        let before = letters(world, 3);
        let nobody = "00000000-0000-4000-8000-000000000000";
        let ids = json!({"ids": [id("a"), id("b"), nobody], "dryRun": true});
        for _ in 0..2 {
            let tried = replayed(world, &ids);
            assert_eq!((&tried["accepted"], &tried["refused"]), (&json!(1), &json!(1)), "{tried}");
            assert_eq!((&tried["dryRun"], &tried["more"]), (&json!(true), &json!(false)));
            let of = |id: &str| {
                let all = tried["letters"].as_array().unwrap();
                all.iter().find(|letter| letter["id"] == id).unwrap().clone()
            };
            let passes = of(&id("a"));
            let kind = simple("a", "facebook")["eventType"].clone();
            assert_eq!((&passes["outcome"], &passes["eventType"]), (&json!("accepted"), &kind));
            assert_eq!((&passes["source"], &passes["eventId"]), (&json!("facebook"), &json!("a")));
            assert_eq!(of(&id("b"))["errors"][0]["path"], "timestamp");
            assert_eq!(of(nobody)["outcome"], "unknown");
        }
        assert_eq!((world.count_rows(), letters(world, 3)), (0, before), "a dry run changes nothing");

        let done = replayed(world, &json!({"ids": [id("a"), id("b")]}));
        assert_eq!((&done["accepted"], &done["refused"]), (&json!(1), &json!(1)), "{done}");
        world.settle();
        assert_eq!(world.count_rows(), 1);
        let kept = world.report(&format!("/dead-letters/{}", id("b")));
        assert_eq!(kept["history"][0]["reason"], "invalid", "a letter that fails again keeps both reasons");
        let again = replayed(world, &json!({"ids": [id("a")]}));
        assert_eq!((&again["letters"][0]["outcome"], &again["accepted"]), (&json!("replayed"), &json!(0)));

        replace(world, "c", &simple("c", "tiktok").to_string());
        let tried = replayed(world, &json!({"source": "tiktok", "reason": "invalid", "dryRun": true}));
        assert_eq!((&tried["letters"].as_array().unwrap().len(), &tried["accepted"]), (&1, &json!(1)));
        let one = replayed(world, &json!({"limit": 1, "dryRun": true}));
        assert_eq!((&one["letters"].as_array().unwrap().len(), &one["more"]), (&1, &json!(true)));
        let rest = replayed(world, &json!({}));
        assert_eq!(
            (&rest["accepted"], &rest["refused"], &rest["more"]),
            (&json!(1), &json!(1), &json!(false))
        );
        let ledger = world.settle();
        assert_eq!(world.count_rows(), 2);
        assert!(
            ledger["sources"].as_array().unwrap().iter().all(|source| source["missing"] == 0),
            "{ledger}"
        );
    });
}

#[test]
fn a_replay_asks_for_the_admin_token_and_a_correct_body() {
    let world =
        System::embedded(&[("ESS_ADMIN_TOKEN", TOKEN), ("ESS_REPORTER_TOKEN", "a-reader-of-reports")]);
    let url = world.reporter_url("/dead-letters/replay");
    let with = |token: &str, kind: &str, body: &[u8]| {
        let bearer = format!("Bearer {token}");
        http::post_with(&url, &[("Authorization", &bearer), ("Content-Type", kind)], body).unwrap()
    };
    let large = vec![b' '; 100_000];
    for (token, kind, body, status) in [
        ("a-reader-of-reports", "application/json", &b"{}"[..], 401),
        (TOKEN, "text/plain", b"{}", 415),
        (TOKEN, "application/json", b"[]", 400),
        (TOKEN, "application/json", b"{\"sources\":\"facebook\"}", 400),
        (TOKEN, "application/json", &large, 413),
        (TOKEN, "application/json", b"{}", 200),
    ] {
        let answer = with(token, kind, body);
        assert_eq!(answer.status, status, "{kind}: {}", answer.text);
    }
    assert_eq!(http::get(&url).unwrap().status, 405);
    let letter = world.reporter_url("/dead-letters/00000000-0000-4000-8000-000000000000");
    assert_eq!(http::get(&letter).unwrap().status, 401);
    let reader = [("Authorization", "Bearer a-reader-of-reports")];
    assert_eq!(http::get_with(&letter, &reader).unwrap().status, 404);
    let off = System::embedded(&[]);
    assert_eq!(http::post(&off.reporter_url("/dead-letters/replay"), "{}").unwrap().status, 403);
}

#[test]
fn a_reporter_without_a_log_says_why_it_cannot_replay_and_still_tries() {
    let world = System::real(&[]);
    assert_eq!(world.post(&refused("a", "facebook").to_string()).status, 422);
    letters(&world, 1);
    let mut settings = world.environment.clone();
    settings.retain(|(name, _)| name != "NATS_URL");
    settings.push(("ESS_ADMIN_TOKEN".to_owned(), TOKEN.to_owned()));
    let mut alone = crate::support::process::Service::start(&["reporter"], &settings, world.folder.path());
    alone.wait_ready();
    let ask = |body: &str| {
        let headers = [("Authorization", &*format!("Bearer {TOKEN}"))];
        http::post_with(&alone.url("/dead-letters/replay"), &headers, body.as_bytes()).unwrap()
    };
    assert_eq!(ask(r#"{"dryRun":true}"#).json()["refused"], 1);
    let answer = ask("{}");
    assert_eq!(answer.status, 503, "{}", answer.text);
    assert!(answer.text.contains("NATS_URL is not set"), "{}", answer.text);
}

#[test]
fn one_replay_is_bounded_in_bytes_and_in_memory() {
    let mut world = System::embedded(&[("ESS_ADMIN_TOKEN", TOKEN)]);
    world.damage(
        "INSERT INTO dead_letters (id, received_at, source, reason, event_id, correlation_id, errors, payload,
            payload_length, payload_sha256)
         WITH RECURSIVE n (at) AS (SELECT 1 UNION ALL SELECT at + 1 FROM n WHERE at < 400)
         SELECT randomblob(16), at, 1, 'invalid', 'e-' || at, 'c', '[]', zeroblob(250000), 250000, x'00' FROM n",
    );
    let before = world.services[0].process.memory_kib("VmHWM");
    let tried = replayed(&world, &json!({"limit": 1000, "dryRun": true}));
    let count = tried["letters"].as_array().unwrap().len();
    assert_eq!(tried["more"], true);
    assert_eq!(count, (64 << 20) / 250_002, "64 MiB of letters, the newest first");
    assert_eq!(tried["letters"][0]["eventId"], "e-400");
    let grown = world.services[0].process.memory_kib("VmHWM") - before;
    // All of the 64 MiB, as rows and as letters, would be twice as much.
    assert!(grown < 96 << 10, "{grown} KiB for 64 MiB of letters");
    world.services.clear();
}

#[test]
fn letters_from_before_personal_data_was_dropped_are_shown_and_replayed_without_it() {
    let world = System::embedded(&[
        ("ESS_ADMIN_TOKEN", TOKEN),
        ("ESS_PII", "drop"),
        ("ESS_PII_KEY", "a-key-of-the-tests"),
    ]);
    assert_eq!(world.post(&refused("a", "facebook").to_string()).status, 422);
    let id = letters(&world, 1)[0]["id"].as_str().unwrap().to_owned();
    let mut named = simple("a", "facebook");
    named["data"]["user"]["name"] = json!("Ada Lovelace");
    replace(&world, "a", &named.to_string());
    let shown = world.report(&format!("/dead-letters/{id}"));
    assert!(!shown.to_string().contains("Lovelace"), "{shown}");
    assert_eq!(shown["payloadChanged"], true);
    assert_eq!(replayed(&world, &json!({"ids": [id]}))["accepted"], 1);
    world.settle();
    let names = world.database.query("SELECT user_name FROM event_rows");
    assert_eq!(names, [""], "the row has no name");
}
