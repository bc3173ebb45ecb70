//! Tests of sources as a whole.

use proptest::prelude::*;

use super::*;
use crate::source::{CanonicalEvent, FunnelStage, shipped};

fn parse(name: &str, text: &str) -> Declared {
    Declared::parse(name, text).unwrap_or_else(|faults| {
        panic!("{}", faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    })
}

fn post<'a>(body: &'a [u8], headers: &'a [(&'a str, &'a str)]) -> Request<'a> {
    Request { method: Method::Post, headers, query: "", body, received: 1_795_687_203_000_000 }
}

#[test]
fn the_examples_of_every_shipped_file_come_out_as_they_say() {
    let mut tried = 0;
    for shipped in shipped::ALL {
        let source = parse(&format!("{}.yaml", shipped.name), shipped.file);
        if let Err(failures) = source.run_examples(&shipped.reader()) {
            let failures: Vec<String> = failures.iter().map(ToString::to_string).collect();
            panic!("{}: {}", shipped.name, failures.join("\n"));
        }
        tried += source.examples();
    }
    assert!(tried > 100, "{tried} examples");
}

#[test]
fn all_mistakes_of_a_file_are_told_with_their_places() {
    let text = "source: Wrong\ntitel: A title\naccept: [jsn]\nevents: |\n  .entry[]\n  | lenght\nschema: {type: objekt}\n\
                map:\n  id: leadgen_id\n  timestamp: {at: /t, as: unix_second}\n  type: {value: a}\n  stage: {value: botom}\n\
                \u{20} amount: {at: /a, unit: minor}\nrevenue: [b]\nmap: {}\n";
    let faults = Declared::parse("right.yaml", text).unwrap_err();
    let told: Vec<String> =
        faults.iter().map(|fault| format!("{}:{} {}", fault.line, fault.column, fault.message)).collect();
    for expected in [
        "1:1 `title` is missing",
        "1:9 `Wrong` is no name",
        "2:1 unknown key `titel`",
        "3:10 unknown word `jsn`",
        "6:5 the function `lenght/0` does not exist, did you mean `length`?",
        "7:16 no JSON Schema",
        "9:7 `leadgen_id` is no JSON Pointer",
        "10:27 unknown form of time",
        "12:18 unknown word `botom`: did you mean `bottom`?",
        "13:11 a minor unit needs `currency`",
        "14:11 `b` is no type of this source",
        "15:1 the key `map` comes twice",
    ] {
        assert!(told.iter().any(|fault| fault.starts_with(expected)), "{expected}:\n{}", told.join("\n"));
    }
    assert_eq!(told.len(), 12, "{}", told.join("\n"));
}

const ORDERS: &str = r#"
source: orders
title: Orders
accept: [json, form, query]
schema: {type: object, required: [id], properties: {n: {type: integer}}}
map:
  id: /id
  timestamp: [{at: /at, as: unix_seconds}, {value: received}]
  type: {at: /kind, words: {buy: purchase, look: view}, else: refuse}
  stage: {by_type: {purchase: bottom}, else: top}
  user: [/user/id, /user_id]
  campaign: [/inner/campaign, /campaign]
  amount: {at: /cents, unit: minor, currency: [/currency, {value: EUR}]}
revenue: [purchase]
"#;

fn one(body: &str) -> Outcome<'static> {
    // A source lives as long as its gateway.
    let source = Box::leak(Box::new(parse("orders.yaml", ORDERS)));
    let mut outcomes = source.events(&post(body.as_bytes(), &[])).unwrap();
    assert_eq!(outcomes.len(), 1, "{body}");
    outcomes.remove(0)
}

fn paths(body: &str) -> Vec<String> {
    match one(body) {
        Outcome::Refused(refused) => refused.errors.into_iter().map(|error| error.path).collect(),
        Outcome::Event(event) => panic!("{event:?}"),
    }
}

fn event(body: &str) -> CanonicalEvent<'static> {
    match one(body) {
        Outcome::Event(event) => *event,
        Outcome::Refused(refused) => panic!("{refused:?}"),
    }
}

#[test]
fn an_event_is_brought_to_the_canonical_form() {
    let found = event(
        r#"{"id":7400000000000000777,"kind":"buy","at":"1795687201","cents":1990,"currency":"jpy","user_id":9,
            "inner":"{\"campaign\":\"c1\"}","campaign":"c2"}"#,
    );
    assert_eq!(found.id, "7400000000000000777");
    assert_eq!((found.timestamp, found.is_arrival), (1_795_687_201_000_000, false));
    assert_eq!((found.amount, found.currency.as_deref()), (Some(1_990_000_000), Some("JPY")));
    assert_eq!((&*found.event_type, found.stage, found.is_revenue), ("purchase", FunnelStage::BOTTOM, true));
    assert_eq!((found.user.as_deref(), found.columns.campaign.as_deref()), (Some("9"), Some("c1")));
    let other = event(r#"{"id":"7400000000000000777","kind":"look","cents":"1990","campaign":0}"#);
    assert_eq!(other.id, found.id);
    assert_eq!((other.timestamp, other.is_arrival), (1_795_687_203_000_000, true));
    assert_eq!((other.amount, other.currency.as_deref()), (Some(19_900_000), Some("EUR")));
    assert_eq!((other.is_revenue, other.stage, other.columns.campaign), (false, FunnelStage::TOP, None));
}

#[test]
fn all_errors_of_an_event_are_told_at_their_paths() {
    assert_eq!(
        paths(r#"{"n":1.5,"kind":"x","at":"soon","cents":-1,"user":{"id":[]}}"#),
        ["id", "n", "at", "kind", "user.id", "cents"]
    );
    assert_eq!(paths(r#"{"id":"a\u0000","kind":"buy"}"#), ["id"]);
    assert_eq!(paths(r#"{"id":"a","kind":"buy","more":["\ud800"]}"#), ["more.0"]);
    assert_eq!(paths("1"), [""]);
    assert_eq!(paths(r#"{"id":"a","kind":"buy","cents":1,"currency":"EURO"}"#), ["currency"]);
    assert_eq!(paths(&format!(r#"{{"id":"{}","kind":"buy"}}"#, "x".repeat(129))), ["id"]);
    assert_eq!(paths(&format!(r#"{{"id":"1","kind":"buy","more":"{}"}}"#, "x".repeat(300_000))), [""]);
}

#[test]
fn bodies_of_all_forms_are_taken_and_others_are_refused() {
    let source = parse("orders.yaml", ORDERS);
    let form = [("content-type", "application/x-www-form-urlencoded")];
    assert_eq!(source.events(&post(b"id=1&kind=buy", &form)).map(|outcomes| outcomes.len()), Ok(1));
    assert_eq!(source.events(&post(b" \n", &form)).map(|outcomes| outcomes.len()), Ok(0));
    let get = Request { method: Method::Get, query: "id=1&kind=buy", ..post(b"", &[]) };
    assert_eq!(source.events(&get).map(|outcomes| outcomes.len()), Ok(1));
    assert!(matches!(source.events(&post(b"{", &[])), Err(RefusedBody::Unreadable(_))));
    assert!(matches!(
        source.events(&post(b"{}", &[("Content-Type", "text/xml")])),
        Err(RefusedBody::ContentType(_))
    ));
    let array = br#"[{"id":1,"kind":"buy"},null,{"id":2,"kind":"look"}]"#;
    let outcomes = source.events(&post(array, &[])).unwrap();
    let are_events: Vec<bool> = outcomes.iter().map(|outcome| matches!(outcome, Outcome::Event(_))).collect();
    assert_eq!(are_events, [true, false, true]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 800, ..ProptestConfig::default() })]
    #[test]
    fn mutated_bodies_give_events_and_refusals_and_nothing_else(
        index in 0..shipped::ALL.len(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4_u8), 1..8),
    ) {
        // Each case takes all bodies of one file.
        let shipped = &shipped::ALL[index];
        let source = parse(&format!("{}.yaml", shipped.name), shipped.file);
        for (name, text) in shipped.examples {
            let mut bytes = text.as_bytes().to_vec();
            for (at, byte, kind) in &edits {
                let at = at.index(bytes.len().max(1));
                match kind {
                    0 if at < bytes.len() => bytes[at] = *byte,
                    1 if at < bytes.len() => drop(bytes.remove(at)),
                    2 => bytes.truncate(at),
                    _ => {
                        let copy = bytes.get(at..(at + 20).min(bytes.len())).unwrap_or_default().to_vec();
                        bytes.splice(at.min(bytes.len())..at.min(bytes.len()), copy);
                    }
                }
            }
            let query = String::from_utf8_lossy(&bytes).into_owned();
            let request = match name.ends_with(".query") {
                true => Request { method: Method::Get, query: &query, ..post(b"", &[]) },
                false => post(&bytes, &[]),
            };
            for outcome in source.events(&request).unwrap_or_default() {
                match outcome {
                    Outcome::Event(event) => {
                        prop_assert!(source.types().iter().any(|known| **known == *event.event_type));
                        prop_assert!((1..=128).contains(&event.id.chars().count()));
                        prop_assert!(serde_json::from_str::<serde_json::Value>(&event.raw).is_ok(), "{}", event.raw);
                    }
                    Outcome::Refused(refused) => prop_assert!(!refused.errors.is_empty()),
                }
            }
        }
    }
}
