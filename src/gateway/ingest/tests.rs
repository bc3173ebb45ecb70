use std::time::Duration;

use actix::Arbiter;
use serde_json::Value;

use super::*;
use crate::config::{Pii, Secret};
use crate::event::decode;
use crate::gateway::samples::Samples;
use crate::gateway::testing::{TestGateway, origin};
use crate::gateway::validate::SLICE;
use crate::log::{Reason, Topic};

const VALID: &str = include_str!("../../../tests/samples/valid.jsonl");
const LARGE: u64 = 1 << 30;
const MAX_EVENTS: usize = 5_000;

/// A valid event of a source with this id.
fn event(source: Source, id: &str) -> String {
    let events = VALID.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let mut event = events.into_iter().find(|event| event["source"] == source.name()).unwrap();
    event["eventId"] = id.into();
    event.to_string()
}

struct Ingesting {
    gateway: TestGateway,
    dead_letters: DeadLetters,
    ingest: Mailbox<Ingestor>,
}

impl Ingesting {
    async fn start(max_bytes: u64, redactor: Option<Redactor>) -> Self {
        let gateway = TestGateway::start(max_bytes, Duration::from_secs(120)).await;
        let (dead_letters, redactor) = (gateway.dead_letters(), redactor.map(Arc::new));
        let validator = {
            let (redactor, samples) = (redactor.clone(), Samples::new(gateway.shared_log().bus()));
            gateway.group.actor("validate.1", 100, &Arbiter::current(), move || Validator {
                redactor: redactor.clone(),
                samples: samples.clone(),
            })
        };
        let parts = Parts {
            validators: vec![validator],
            converters: Vec::new(),
            publishers: BySource::new(gateway.starts_publishers(usize::MAX)),
            dead_letters: dead_letters.clone(),
            metrics: gateway.metrics.clone(),
            redactor,
            max_events: MAX_EVENTS,
        };
        let make = move || Ingestor::new(parts.clone());
        let ingest = gateway.group.actor("ingest", 100, &Arbiter::current(), make);
        Self { gateway, dead_letters, ingest }
    }

    async fn take(&self, body: String) -> Result<Outcome, RequestRefusal> {
        let ingest = Ingest {
            body: body.into(),
            reservation: self.gateway.reservation(),
            origin: origin("c"),
            only: None,
            deadline: Instant::now() + Duration::from_secs(60),
            declared: None,
        };
        self.ingest.send(ingest).await.unwrap()
    }

    async fn letters(&self) -> Vec<DeadLetter> {
        self.dead_letters.idle().await;
        let messages = self.gateway.log.frames(Topic::DeadLetters).await.into_iter();
        messages.flat_map(|bytes| serde_json::from_slice::<Vec<DeadLetter>>(&bytes).unwrap()).collect()
    }
}

#[actix::test]
async fn each_valid_event_is_in_the_topic_of_its_source_and_each_invalid_one_is_a_dead_letter() {
    let ingesting = Ingesting::start(LARGE, None).await;
    let (facebook, tiktok) = (event(Source::FACEBOOK, "f"), event(Source::TIKTOK, "t"));
    let bad = r#"{"eventId":"bad","source":"tiktok"}"#;
    let outcome = ingesting.take(format!("[{facebook}, {bad}, {tiktok}]")).await.unwrap();
    assert_eq!((outcome.accepted, outcome.rejected), (2, 1));
    assert_eq!(ingesting.gateway.log.events(Source::FACEBOOK).await, [facebook]);
    assert_eq!(ingesting.gateway.log.events(Source::TIKTOK).await, [tiktok]);
    let letters = ingesting.letters().await;
    assert_eq!(letters.len(), 1);
    assert_eq!((&letters[0].payload[..], letters[0].source), (bad.as_bytes(), Some(Source::TIKTOK)));
    assert_eq!(ingesting.gateway.metrics.accepted.of(Source::FACEBOOK).get(), 1);
}

#[actix::test]
async fn a_body_that_breaks_behind_its_first_slice_is_refused_whole_and_becomes_one_dead_letter() {
    let ingesting = Ingesting::start(LARGE, None).await;
    let events: Vec<String> = (0..=SLICE).map(|n| event(Source::FACEBOOK, &n.to_string())).collect();
    let body = format!("[{}", events.join(","));
    let refusal = ingesting.take(body.clone()).await.unwrap_err();
    assert!(matches!(refusal, RequestRefusal::NotJson(_)), "{refusal}");
    assert_eq!(ingesting.gateway.log.events(Source::FACEBOOK).await.len(), 0);
    let letters = ingesting.letters().await;
    assert_eq!(letters.len(), 1);
    assert_eq!((letters[0].reason, letters[0].payload_length), (Reason::NotJson, body.len() as u64));
}

#[actix::test]
async fn a_body_of_too_many_events_is_refused_and_nothing_of_it_is_kept() {
    let ingesting = Ingesting::start(LARGE, None).await;
    let of = |count: usize| {
        let events: Vec<String> = (0..count).map(|n| event(Source::TIKTOK, &n.to_string())).collect();
        format!("[{}]", events.join(","))
    };
    let refusal = ingesting.take(of(MAX_EVENTS + 1)).await.unwrap_err();
    assert!(matches!(refusal, RequestRefusal::TooManyEvents { limit: MAX_EVENTS }), "{refusal}");
    assert_eq!(ingesting.gateway.log.events(Source::TIKTOK).await.len(), 0);
    assert_eq!(ingesting.letters().await.len(), 0);
    assert_eq!(ingesting.take(of(MAX_EVENTS)).await.unwrap().accepted, MAX_EVENTS);
}

#[actix::test]
async fn redacted_events_of_several_slices_keep_their_bounds_and_lose_their_names() {
    let redactor = Redactor::new(&Pii::Drop(Secret::from("key".to_owned())));
    let ingesting = Ingesting::start(LARGE, redactor).await;
    let count = 2 * SLICE + 10;
    let source = |n: usize| if n.is_multiple_of(3) { Source::TIKTOK } else { Source::FACEBOOK };
    let events: Vec<String> = (0..count).map(|n| event(source(n), &format!("{n}"))).collect();
    let name = serde_json::from_str::<Value>(&events[1]).unwrap()["data"]["user"]["name"].clone();
    let outcome = ingesting.take(format!("[{}]", events.join(","))).await.unwrap();
    assert_eq!(outcome.accepted, count);
    for wanted in [Source::FACEBOOK, Source::TIKTOK] {
        let events = ingesting.gateway.log.events(wanted).await;
        let expected: Vec<String> =
            (0..count).filter(|n| source(*n) == wanted).map(|n| n.to_string()).collect();
        let found = events.iter().map(|event| decode(event.as_bytes(), Some(wanted)).unwrap().id.to_string());
        assert_eq!(found.collect::<Vec<_>>(), expected);
        assert!(events.iter().all(|event| !event.contains(name.as_str().unwrap())));
    }
}

#[actix::test]
async fn a_request_that_a_full_log_does_not_take_is_told_how_many_events_are_durable() {
    let ingesting = Ingesting::start(4_096, None).await;
    let events: Vec<String> = (0..100).map(|n| event(Source::FACEBOOK, &n.to_string())).collect();
    let refusal = ingesting.take(format!("[{}]", events.join(","))).await.unwrap_err();
    assert!(
        matches!(&refusal, RequestRefusal::NotDurable { accepted: 0, why } if why == "the log is full"),
        "{refusal:?}"
    );
    assert_eq!(ingesting.gateway.log.events(Source::FACEBOOK).await.len(), 0);
}
