//! The gateway's promises to publishers.

use std::io::Write;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::events::{
    Chance, FACEBOOK_BOTTOM, FACEBOOK_TOP, TIKTOK_BOTTOM, TIKTOK_TOP, event, simple,
};
use crate::support::http::{self, Answer};
use crate::support::system::{System, both};
use crate::support::{MINUTE, eventually};

const JSON: (&str, &str) = ("Content-Type", "application/json");

fn post(system: &System, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    http::post_with(&system.gateway_url("/webhook"), headers, body).unwrap()
}

#[test]
fn every_event_type_reaches_its_row() {
    both(&[], |system| {
        let mut sent = 0;
        for (source, types) in [
            ("facebook", FACEBOOK_TOP.iter().chain(FACEBOOK_BOTTOM.iter()).collect::<Vec<_>>()),
            ("tiktok", TIKTOK_TOP.iter().chain(TIKTOK_BOTTOM.iter()).collect()),
        ] {
            for kind in types {
                let mut chance = Chance(sent);
                let mut made = loop {
                    let made = event(&format!("{source}-{kind}"), &mut chance);
                    if made["source"] == source && made["eventType"] == **kind {
                        break made;
                    }
                };
                made["more"] = json!({"of": kind});
                assert_eq!(system.post(&made.to_string()).status, 202);
                sent += 1;
            }
        }
        system.settle();
        assert_eq!(system.database.query("SELECT count(DISTINCT event_type || source) FROM events")[0], "14");
    });
}

#[test]
fn the_largest_body_of_the_real_publisher_does_not_delay_other_requests() {
    let system = System::real(&[]);
    let events: Vec<Value> = {
        let mut chance = Chance(1);
        (0..50_000).map(|n| event(&format!("big-{n}"), &mut chance)).collect()
    };
    let body = Value::from(events).to_string();
    assert!(body.len() > 15_000_000, "{} bytes", body.len());
    let url = system.gateway_url("/webhook");
    let (mut slowest, mut asked) = (Duration::ZERO, 0);
    std::thread::scope(|scope| {
        let posts: Vec<_> = (0..2).map(|_| scope.spawn(|| http::post(&url, &body).unwrap())).collect();
        while !posts.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            let started = Instant::now();
            assert_eq!(http::get(&system.gateway_url("/health")).unwrap().status, 200);
            slowest = slowest.max(started.elapsed());
            asked += 1;
            let single = system.post(&simple(&format!("small-{asked}"), "tiktok").to_string());
            assert_eq!(single.status, 202);
        }
        for post in posts {
            let answer = post.join().unwrap();
            assert_eq!(
                (answer.status, answer.json()["accepted"].as_u64()),
                (202, Some(50_000)),
                "{}",
                answer.text
            );
        }
    });
    assert!(slowest < Duration::from_secs(1), "/health took {slowest:?}");
    system.settle();
    assert_eq!(system.count_rows(), 50_000 + asked);
}

#[test]
fn refusals_come_in_the_documented_order_with_the_documented_details() {
    let system = System::embedded(&[("ESS_MAX_BODY", "100KiB"), ("ESS_WEBHOOK_TOKEN", "secret")]);
    let token = ("Authorization", "Bearer secret");
    let good = simple("order", "facebook").to_string();
    let large = format!("[{}]", vec![good.as_str(); 400].join(","));
    let text = ("Content-Type", "text/plain");
    let bom = format!("\u{feff}{good}");
    for (headers, body, status) in [
        (vec![text], large.as_str(), 401),
        (vec![token, text], large.as_str(), 415),
        (vec![token, JSON], large.as_str(), 413),
        (vec![token, JSON, ("Content-Encoding", "br")], good.as_str(), 415),
        (vec![token, JSON], "[1,", 400),
        (vec![token, JSON], "5", 400),
        (vec![token, JSON], "", 400),
        (vec![token, JSON], "[5]", 422),
        (vec![token, JSON], "[]", 202),
        (vec![token], good.as_str(), 202),
        (vec![token, ("Content-Type", "application/json; charset=utf-8")], good.as_str(), 202),
        (vec![token, ("Content-Type", "Application/JSON;charset=\"utf8\"; v=1")], good.as_str(), 202),
        (vec![token, ("Content-Type", "application/json; charset=us-ascii")], good.as_str(), 202),
        (vec![token, ("Content-Type", "application/vnd.x+json")], good.as_str(), 415),
        (vec![token, JSON], bom.as_str(), 202),
    ] {
        let answer = post(&system, &headers, body.as_bytes());
        assert_eq!(answer.status, status, "{headers:?}: {}", answer.text);
        assert!(answer.json()["correlationId"].is_string());
        if status >= 400 {
            let problem = answer.json();
            assert_eq!(answer.header("content-type"), Some("application/problem+json"));
            assert_eq!(problem["status"], status);
            assert!(
                problem["title"].is_string() && problem["detail"].is_string() && problem["type"].is_string()
            );
        }
    }
    // A body that is no JSON is set aside, once: a 401, 413 or 415 leaves nothing.
    let letters = eventually("dead letters", MINUTE, || {
        let letters = system.report("/dead-letters?limit=1000");
        let letters = letters["deadLetters"].as_array().unwrap().clone();
        (letters.len() >= 4).then_some(letters)
    });
    let count = |reason: &str| letters.iter().filter(|letter| letter["reason"] == reason).count();
    assert_eq!((count("not_json"), count("invalid")), (3, 1), "{letters:?}");
}

#[test]
fn encoded_bodies_are_accepted_and_a_decompression_bomb_takes_no_more_memory_than_the_limit() {
    let system = System::embedded(&[("ESS_MAX_BODY", "1MiB")]);
    let body =
        Value::from((0..500).map(|n| simple(&format!("z-{n}"), "tiktok")).collect::<Vec<_>>()).to_string();
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let answer = post(&system, &[JSON, ("Content-Encoding", "gzip")], &gzip(body.as_bytes()));
    assert_eq!((answer.status, answer.json()["accepted"].as_u64()), (202, Some(500)), "{}", answer.text);
    let packed = zstd::encode_all(body.as_bytes(), 3).unwrap();
    assert_eq!(post(&system, &[JSON, ("Content-Encoding", "zstd")], &packed).status, 202);
    let twice = gzip(&packed);
    for (coding, packed, status) in [
        ("x-gzip", &gzip(body.as_bytes()), 202),
        ("X-GZip, identity", &gzip(body.as_bytes()), 202),
        ("identity", &body.clone().into_bytes(), 202),
        (" ,zstd,", &packed, 202),
        ("zstd, gzip", &twice, 202),
        ("gzip, zstd", &twice, 400),
        ("gzip, br", &twice, 415),
        ("gzip, gzip, gzip, gzip", &twice, 415),
    ] {
        let answer = post(&system, &[JSON, ("Content-Encoding", coding)], packed);
        assert_eq!(answer.status, status, "{coding}: {}", answer.text);
    }
    let lines = [JSON, ("Content-Encoding", "zstd"), ("Content-Encoding", "gzip")];
    assert_eq!(post(&system, &lines, &twice).status, 202);
    let bomb = vec![b' '; 200 << 20];
    // A bomb within a packed body.
    assert_eq!(post(&system, &[JSON, ("Content-Encoding", "gzip, gzip")], &gzip(&gzip(&bomb))).status, 413);
    assert_eq!(post(&system, &[JSON, ("Content-Encoding", "gzip")], &gzip(&bomb)).status, 413);
    let packed = zstd::encode_all(&bomb[..], 3).unwrap();
    assert_eq!(post(&system, &[JSON, ("Content-Encoding", "zstd")], &packed).status, 413);
    assert_eq!(post(&system, &[JSON, ("Content-Encoding", "gzip")], b"not gzip").status, 400);
}

#[test]
fn the_path_of_a_source_accepts_only_events_of_that_source() {
    let system = System::embedded(&[]);
    let mixed = json!([simple("a", "facebook"), simple("b", "tiktok"), {"source": "tiktok"}]);
    let answer = http::post(&system.gateway_url("/webhook/facebook"), &mixed.to_string()).unwrap();
    assert_eq!(answer.status, 200);
    let body = answer.json();
    assert_eq!((body["accepted"].as_u64(), body["rejected"].as_u64()), (Some(1), Some(2)));
    assert_eq!(
        body["errors"][0]["errors"],
        json!([{"path": "source", "message": "must be facebook at this address"}])
    );
    let paths: Vec<_> = body["errors"][1]["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| error["path"].as_str().unwrap())
        .collect();
    assert!(paths.contains(&"source") && paths.contains(&"eventId") && paths.contains(&"data"), "{paths:?}");
    assert_eq!(http::get(&system.gateway_url("/webhook/tiktok")).unwrap().status, 405);
    for unknown in
        [http::get(&system.gateway_url("/webhook/x")), http::post(&system.gateway_url("/webhook/x"), "[]")]
    {
        let unknown = unknown.unwrap();
        assert_eq!((unknown.status, unknown.header("content-type")), (404, Some("application/problem+json")));
    }
}

#[test]
fn a_platform_is_answered_200_once_its_refused_events_are_dead_letters() {
    let mut system = System::real(&[]);
    let own = system.gateway_url("/webhook/tiktok");
    let letters = |system: &System| {
        let ledger = system.report("/ledger");
        let sources = ledger["sources"].as_array().unwrap().clone();
        sources.iter().find(|line| line["source"] == "tiktok").unwrap()["rejected"].as_u64().unwrap()
    };
    for (body, accepted, rejected) in [
        (json!([]), 0, 0),
        (json!(simple("one", "tiktok")), 1, 0),
        (json!([simple("two", "tiktok"), {"eventId": "a"}]), 1, 1),
        (json!({"eventId": "b"}), 0, 1),
        (json!(vec![json!({"eventId": "c"}); 700]), 0, 700),
    ] {
        let answer = http::post(&own, &body.to_string()).unwrap();
        let told = answer.json();
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert_eq!((&told["accepted"], &told["rejected"]), (&json!(accepted), &json!(rejected)));
        assert!(told["correlationId"].is_string() && told["errors"].is_array(), "{told}");
    }
    eventually("the letters are in the ledger", MINUTE, || (letters(&system) == 702).then_some(()));
    // What passes by itself is 503, and what never passes is as on the shared path.
    assert_eq!(http::post(&own, "{").unwrap().status, 400);
    let typed = [("Content-Type", "text/plain")];
    assert_eq!(http::post_with(&own, &typed, b"[]").unwrap().status, 415);
    // Without the log no letter is durable.
    system.nats().process.kill();
    let away = http::post(&own, r#"{"eventId":"d"}"#).unwrap();
    assert_eq!((away.status, &away.json()["accepted"]), (503, &json!(0)), "{}", away.text);
    assert!(away.header("retry-after").is_some());
}

#[test]
fn a_platform_over_its_limit_is_answered_503() {
    let system = System::embedded(&[("ESS_RATE_LIMIT", "1")]);
    let limited = eventually("the limit is reached", MINUTE, || {
        let answer = http::post(&system.gateway_url("/webhook/tiktok"), "[]").unwrap();
        (answer.status != 200).then_some(answer)
    });
    assert_eq!(limited.status, 503, "{}", limited.text);
    assert!(limited.text.contains("ESS_RATE_LIMIT") && limited.header("retry-after").is_some());
}

#[test]
fn signatures_and_the_handshake_are_checked_if_their_secrets_are_set() {
    let system = System::embedded(&[
        ("ESS_FACEBOOK_APP_SECRET", "one,two"),
        ("ESS_FACEBOOK_VERIFY_TOKEN", "verify"),
        ("ESS_WEBHOOK_TOKEN", "token"),
    ]);
    // printf '{"a":1}' | openssl dgst -sha256 -hmac two
    let signature = "sha256=8fb84cd0f727f5dda4da05cc68cd62200b48578a621f31478ed566c5327a34cf";
    let facebook = system.gateway_url("/webhook/facebook");
    let signed =
        |body: &str| http::post_with(&facebook, &[JSON, ("X-Hub-Signature-256", signature)], body.as_bytes());
    assert_eq!(signed("{\"a\":1}").unwrap().status, 200, "signed, and kept as a dead letter");
    assert_eq!(signed("{\"a\":2}").unwrap().status, 401);
    assert_eq!(http::post(&facebook, "{\"a\":1}").unwrap().status, 401);
    let bearer = [JSON, ("Authorization", "Bearer token")];
    assert_eq!(
        http::post_with(&facebook, &bearer, b"{\"a\":1}").unwrap().status,
        401,
        "a token is no signature"
    );
    // TikTok has no secret here, so the token is asked for.
    let tiktok = system.gateway_url("/webhook/tiktok");
    assert_eq!(http::post(&tiktok, "[]").unwrap().status, 401);
    assert_eq!(http::post_with(&tiktok, &bearer, b"[]").unwrap().status, 200);

    let shake = |query: &str| http::get(&format!("{facebook}?{query}")).unwrap();
    let answer = shake("hub.mode=subscribe&hub.verify_token=verify&hub.challenge=1158201444");
    assert_eq!((answer.status, answer.text.as_str()), (200, "1158201444"));
    assert_eq!(shake("hub.mode=subscribe&hub.verify_token=wrong&hub.challenge=1").status, 403);
    assert_eq!(shake("hub.mode=subscribe").status, 400);
}

#[test]
fn a_full_log_is_answered_with_503_until_it_has_room_again() {
    for embedded in [true, false] {
        let settings = [("ESS_LOG_MAX_BYTES", "1MiB")];
        let mut system = if embedded { System::embedded(&settings) } else { System::real(&settings) };
        if embedded {
            continue_with_a_full_log(&system);
            continue;
        }
        // Nobody collects.
        for name in ["collector-facebook", "collector-tiktok"] {
            system.service(name).process.kill();
        }
        let (mut accepted, mut refused) = (0_u64, 0);
        for n in 0..40 {
            let batch: Vec<_> = (0..100).map(|k| simple(&format!("full-{n}-{k}"), "facebook")).collect();
            let answer = system.post(&Value::from(batch).to_string());
            match answer.status {
                202 => accepted += 100,
                503 => {
                    refused += 1;
                    assert!(answer.header("retry-after").is_some());
                    assert!(answer.json()["accepted"].is_u64(), "{}", answer.text);
                }
                other => panic!("{other}: {}", answer.text),
            }
        }
        assert!(accepted > 0 && refused > 0, "{accepted} {refused}");
        assert!(
            system
                .service("gateway")
                .metric("ess_gateway_events_failed_total{reason=\"log_full\",source=\"facebook\"}")
                > 0.0
        );
        for name in ["collector-facebook", "collector-tiktok"] {
            system.service(name).start_again();
        }
        system.wait_ready();
        let ledger = system.settle();
        assert_eq!(system.count_rows(), accepted, "what was refused is not there, what was accepted is");
        assert_eq!(ledger["sources"][0]["missing"], 0, "{ledger}");
        let again = system.post(&simple("again", "facebook").to_string());
        assert_eq!(again.status, 202, "{}", again.text);
        let ledger = system.settle();
        assert_eq!(
            (&ledger["sources"][0]["published"], &ledger["sources"][0]["missing"]),
            (&json!(accepted + 1), &json!(0))
        );
    }
}

/// Fills the embedded log while its collectors work: every event of a 202 becomes a row.
fn continue_with_a_full_log(system: &System) {
    let mut accepted = 0;
    for n in 0..60 {
        let batch: Vec<_> = (0..500).map(|k| simple(&format!("full-{n}-{k}"), "tiktok")).collect();
        let answer = system.post(&Value::from(batch).to_string());
        assert!(answer.status == 202 || answer.status == 503, "{}", answer.text);
        accepted += if answer.status == 202 { 500 } else { 0 };
    }
    system.settle();
    assert!(system.count_rows() >= accepted);
}

#[test]
fn without_nats_requests_are_answered_503_within_the_deadline_and_readiness_names_the_log() {
    let mut system = System::real(&[]);
    assert_eq!(system.post(&simple("before", "facebook").to_string()).status, 202);
    system.nats().process.kill();
    let started = Instant::now();
    let answer = system.post(&simple("during", "facebook").to_string());
    assert_eq!(answer.status, 503, "{}", answer.text);
    assert!(started.elapsed() < Duration::from_secs(12), "{:?}", started.elapsed());
    assert!(answer.header("retry-after").is_some());
    let url = system.gateway_url("/ready");
    let why = eventually("not ready", MINUTE, || {
        http::get(&url).ok().filter(|answer| answer.status == 503).map(|answer| answer.text)
    });
    assert!(why.contains("log"), "{why}");
    system.nats().start_again();
    system.wait_ready();
    assert_eq!(system.post(&simple("after", "facebook").to_string()).status, 202);
    system.settle();
    let ids = system.database.query("SELECT event_id FROM events ORDER BY event_id");
    assert!(ids.contains(&"before".to_owned()) && ids.contains(&"after".to_owned()), "{ids:?}");
}

#[test]
fn errors_in_an_answer_are_limited_and_all_rejected_events_are_counted() {
    let system = System::embedded(&[]);
    let answer = system.post(&json!(vec![json!({}); 150]).to_string());
    assert_eq!(answer.status, 422);
    let body = answer.json();
    assert_eq!((body["rejected"].as_u64(), body["errors"].as_array().unwrap().len()), (Some(150), 100));
    assert_eq!(body["errorsTruncated"], true);
    assert_eq!(body["errors"][0]["eventId"], Value::Null);
    assert_eq!(body["errors"][99]["index"], 99);
}
