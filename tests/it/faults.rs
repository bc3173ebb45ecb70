//! Every actor of a running system panics, or is restarted, while requests are in flight.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::events::{Chance, event};
use crate::support::system::System;
use crate::support::{MINUTE, eventually, http};

const ADMIN: (&str, &str) = ("Authorization", "Bearer admin");

fn actors(url: &str) -> Vec<Value> {
    http::get(&format!("{url}/actors")).unwrap().json()["actors"].as_array().unwrap().clone()
}

/// Every way to an actor: its service's URL and its name.
fn all_actors(world: &System) -> Vec<(String, String)> {
    let services = world.services.iter().map(|service| service.url(""));
    services
        .flat_map(|url| {
            let names = actors(&url).into_iter().map(|actor| actor["name"].as_str().unwrap().to_owned());
            names.map(|name| (url.clone(), name)).collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn a_panic_in_any_actor_is_answered_and_the_actor_is_back_within_a_second() {
    let world = System::real(&[("ESS_ADMIN_TOKEN", "admin")]);
    let all = all_actors(&world);
    for name in [
        "gateway.ingest",
        "gateway.validate.1",
        "gateway.publish.facebook",
        "gateway.publish.tiktok",
        "collector.facebook.consume",
        "collector.facebook.batch_write",
        "collector.tiktok.consume",
        "collector.tiktok.batch_write",
        "reporter.report.1",
    ] {
        assert!(all.iter().any(|(_, known)| known == name), "{name}: {all:?}");
    }
    let mut chance = Chance(11);
    let mut accepted = 0_u64;
    for (url, name) in &all {
        let slowest = std::thread::scope(|scope| {
            let clients: Vec<_> = (0..3)
                .map(|client| {
                    let events: Vec<Vec<Value>> = (0..6)
                        .map(|n| {
                            (0..200)
                                .map(|k| event(&format!("{name}-{client}-{n}-{k}"), &mut chance))
                                .collect()
                        })
                        .collect();
                    let world = &world;
                    scope.spawn(move || {
                        let (mut slowest, mut accepted) = (Duration::ZERO, 0);
                        for batch in events {
                            let started = Instant::now();
                            let body = Value::from(batch).to_string();
                            let answer = world.post(&body);
                            // An error is an answer too; the publisher sends the whole again.
                            let answer = if answer.status == 503 { world.post(&body) } else { answer };
                            assert_eq!(answer.status, 202, "{}", answer.text);
                            slowest = slowest.max(started.elapsed());
                            accepted += 200;
                            let report = http::get(&world.reporter_url("/reports/events")).unwrap();
                            assert!(report.status == 200 || report.status == 503, "{}", report.text);
                        }
                        (slowest, accepted)
                    })
                })
                .collect();
            let panicked = http::post_with(&format!("{url}/actors/{name}/panic"), &[ADMIN], b"").unwrap();
            assert_eq!(panicked.status, 202, "{name}: {}", panicked.text);
            let started = Instant::now();
            eventually(&format!("{name} is back"), Duration::from_secs(1), || {
                let actor = actors(url).into_iter().find(|actor| actor["name"] == name.as_str())?;
                let back = actor["restarts"] == 1 && actor["state"] == "running";
                back.then(|| assert_eq!(actor["lastFailure"], "asked to panic"))
            });
            assert!(started.elapsed() < Duration::from_secs(1), "{name}: {:?}", started.elapsed());
            let mut slowest = Duration::ZERO;
            for client in clients {
                let (took, taken) = client.join().unwrap();
                slowest = slowest.max(took);
                accepted += taken;
            }
            slowest
        });
        assert!(slowest < Duration::from_secs(5), "{name}: an answer took {slowest:?}");
    }
    let ledger = world.settle();
    assert_eq!(world.count_rows(), accepted, "{ledger}");
    assert!(ledger["sources"].as_array().unwrap().iter().all(|source| source["missing"] == 0), "{ledger}");
    let gateway = &world.services[0];
    assert!(gateway.metric("ess_actor_restarts_total{actor=\"gateway.ingest\",reason=\"panic\"}") > 0.5);
}

#[test]
fn an_operator_restarts_actors_in_operation_and_nothing_is_lost() {
    let world = System::embedded(&[("ESS_ADMIN_TOKEN", "admin")]);
    let gateway = world.gateway_url("");
    let restart = |name: &str, headers: &[(&str, &str)]| {
        http::post_with(&format!("{gateway}/actors/{name}/restart"), headers, b"").unwrap().status
    };
    assert_eq!(restart("gateway.ingest", &[]), 401);
    assert_eq!(restart("gateway.ingest", &[("Authorization", "Bearer guess")]), 401);
    assert_eq!(restart("gateway.nobody", &[ADMIN]), 404);
    let mut chance = Chance(4);
    for round in 0..10 {
        for name in ["gateway.ingest", "gateway.validate.1", "gateway.publish.facebook"] {
            assert_eq!(restart(name, &[ADMIN]), 202);
        }
        let batch: Vec<Value> = (0..50).map(|n| event(&format!("r-{round}-{n}"), &mut chance)).collect();
        let body = Value::from(batch).to_string();
        eventually("it is taken", MINUTE, || (world.post(&body).status == 202).then_some(()));
    }
    world.settle();
    assert_eq!(world.count_rows(), 500);
    let restarted = actors(&gateway).into_iter().find(|actor| actor["name"] == "gateway.ingest").unwrap();
    assert_eq!((&restarted["restarts"], &restarted["lastFailure"]), (&10.into(), &Value::Null));
}

#[test]
fn operators_commands_are_off_without_a_token() {
    let world = System::embedded(&[]);
    let answer = http::post(&world.gateway_url("/actors/gateway.ingest/restart"), "").unwrap();
    assert_eq!(answer.status, 403, "{}", answer.text);
}
