//! Reports of 30,000 random events equal totals that this test computes by itself, without the code under test.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::{Value, json};

use crate::support::events::{Chance, event};
use crate::support::system::{System, both};

/// Events that must be stored, by source and id, and the numbers of events that the gateway accepted and rejected.
#[derive(Default)]
struct Expected {
    events: HashMap<String, Value>,
    accepted: u64,
    rejected: u64,
}

fn make_invalid(event: &mut Value, chance: &mut Chance) {
    match chance.below(6) {
        0 => event["timestamp"] = json!("invalid-timestamp"),
        1 => event["data"]["user"]["userId"] = json!(5),
        2 => event["funnelStage"] = json!("invalid-stage"),
        3 => event["eventType"] = json!(["unknown", "event"]),
        4 => event["source"] = json!("myspace"),
        _ => event["data"] = json!([]),
    }
}

/// Sends 30,000 events, in arrays and alone. Some are duplicates, some invalid.
fn send(system: &System, seed: u64) -> Expected {
    let mut chance = Chance(seed);
    let mut expected = Expected::default();
    let mut sent: Vec<Value> = Vec::new();
    let mut left = 30_000;
    while left > 0 {
        let size = (1 + chance.below(2_500)).min(left);
        let size = if chance.below(3) == 0 { 1 } else { size };
        left -= size;
        let mut batch = Vec::new();
        let mut broken = 0;
        for _ in 0..size {
            let next = match chance.below(20) {
                0 if !sent.is_empty() => {
                    // The id identifies an event: the same id with another timestamp is a duplicate.
                    let mut again = sent[chance.below(sent.len() as u64) as usize].clone();
                    again["timestamp"] = json!("2026-06-01T00:00:00Z");
                    again
                }
                1 => {
                    let mut bad = event(&format!("bad-{}", chance.next()), &mut chance);
                    make_invalid(&mut bad, &mut chance);
                    broken += 1;
                    batch.push(bad);
                    continue;
                }
                _ => event(&format!("e-{}", chance.next()), &mut chance),
            };
            let key = format!("{}/{}", next["source"], next["eventId"]);
            expected.events.entry(key).or_insert_with(|| next.clone());
            sent.push(next.clone());
            batch.push(next);
        }
        let body = if batch.len() == 1 { batch[0].clone() } else { Value::from(batch.clone()) };
        let answer = system.post(&body.to_string());
        let accepted = batch.len() as u64 - broken;
        assert_eq!(answer.status, if accepted > 0 { 202 } else { 422 }, "{}", answer.text);
        assert_eq!(
            (answer.json()["accepted"].as_u64(), answer.json()["rejected"].as_u64()),
            (Some(accepted), Some(broken))
        );
        expected.accepted += accepted;
        expected.rejected += broken;
    }
    expected
}

/// Revenue of an event in cents; the tests' amounts have at most two decimals. `None` for events without revenue.
fn cents(event: &Value) -> Option<i64> {
    let kind = event["eventType"].as_str()?;
    if kind != "checkout.complete" && kind != "purchase" {
        return None;
    }
    let (whole, fraction) = event["data"]["engagement"]["purchaseAmount"]
        .as_str()
        .map(|text| text.split_once('.').unwrap_or((text, "00")))?;
    Some(whole.parse::<i64>().unwrap() * 100 + fraction.parse::<i64>().unwrap())
}

fn shown(cents: i64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}

fn text<'a>(event: &'a Value, name: &str) -> &'a str {
    event[name].as_str().unwrap()
}

fn check_events(system: &System, expected: &Expected, query: &str, fits: impl Fn(&Value) -> bool) {
    let mut counts: BTreeMap<(String, String, String), i64> = BTreeMap::new();
    let mut days: BTreeMap<(String, String, String), i64> = BTreeMap::new();
    for event in expected.events.values().filter(|event| fits(event)) {
        let (source, kind) = (text(event, "source").to_owned(), text(event, "eventType").to_owned());
        *counts.entry((source.clone(), text(event, "funnelStage").to_owned(), kind.clone())).or_default() +=
            1;
        *days.entry((format!("{}T00:00:00Z", &text(event, "timestamp")[..10]), source, kind)).or_default() +=
            1;
    }
    let report = system.report(&format!("/reports/events?interval=day&{query}"));
    let total: i64 = counts.values().sum();
    assert_eq!(report["totalEvents"], total, "{query}");
    let name = |entry: &Value, name: &str| entry[name].as_str().unwrap().to_owned();
    let found: BTreeMap<_, _> = report["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| {
            (
                (name(entry, "source"), name(entry, "funnelStage"), name(entry, "eventType")),
                entry["count"].as_i64().unwrap(),
            )
        })
        .collect();
    assert_eq!(found, counts, "{query}");
    let found: BTreeMap<_, _> = report["series"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| {
            (
                (name(entry, "at"), name(entry, "source"), name(entry, "eventType")),
                entry["count"].as_i64().unwrap(),
            )
        })
        .collect();
    assert_eq!(found, days, "{query}");
}

fn check_revenue(system: &System, expected: &Expected, query: &str, fits: impl Fn(&Value) -> bool) {
    let earned: Vec<(&Value, i64)> = expected
        .events
        .values()
        .filter(|event| fits(event))
        .filter_map(|event| Some((event, cents(event)?)))
        .collect();
    let total: i64 = earned.iter().map(|(_, cents)| cents).sum();
    let count = earned.len() as i64;
    let report =
        system.report(&format!("/reports/revenue?groupBy=campaign&limit=1000&interval=hour&{query}"));
    assert_eq!(report["totalRevenue"], shown(total), "{query}");
    assert_eq!(report["transactions"], count, "{query}");
    let mean = if count == 0 { 0 } else { (2 * total + count) / (2 * count) };
    assert_eq!(report["averageOrderValue"], shown(mean), "{query}");
    let mut by_source: BTreeMap<String, i64> = BTreeMap::new();
    let mut campaigns: BTreeMap<String, i64> = BTreeMap::new();
    for (event, cents) in &earned {
        *by_source.entry(text(event, "source").to_owned()).or_default() += cents;
        if let Some(campaign) = event["data"]["engagement"]["campaignId"].as_str() {
            *campaigns.entry(campaign.to_owned()).or_default() += cents;
        }
    }
    let entries = |name: &str| report[name].as_array().unwrap().clone();
    for entry in entries("revenue") {
        assert_eq!(entry["totalRevenue"], shown(by_source[entry["source"].as_str().unwrap()]), "{query}");
    }
    assert_eq!(entries("revenue").len(), by_source.len());
    let in_cents = |entry: &Value| {
        let (whole, fraction) = entry["totalRevenue"].as_str().unwrap().split_once('.').unwrap();
        whole.parse::<i64>().unwrap() * 100 + fraction.parse::<i64>().unwrap()
    };
    assert_eq!(entries("series").iter().map(in_cents).sum::<i64>(), total, "{query}");
    let mut ranked: Vec<_> = campaigns.into_iter().collect();
    ranked.sort_by(|(left, left_sum), (right, right_sum)| right_sum.cmp(left_sum).then(left.cmp(right)));
    let found: Vec<_> = entries("campaigns")
        .iter()
        .map(|entry| (entry["campaignId"].as_str().unwrap().to_owned(), in_cents(entry)))
        .collect();
    assert_eq!(found, ranked, "{query}");
}

fn users<'a>(events: &[&'a Value], group: impl Fn(&'a Value) -> Option<String>) -> BTreeMap<String, i64> {
    let mut users: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for event in events {
        if let Some(group) = group(event) {
            users.entry(group).or_default().insert(text(&event["data"]["user"], "userId"));
        }
    }
    users.into_iter().map(|(group, users)| (group, users.len() as i64)).collect()
}

fn groups(report: &Value, name: impl Fn(&Value) -> String) -> BTreeMap<String, i64> {
    report.as_array().unwrap().iter().map(|entry| (name(entry), entry["users"].as_i64().unwrap())).collect()
}

/// Counts of users are exact below 1,000; larger ones are estimates within 2 %.
fn assert_counted(found: BTreeMap<String, i64>, expected: BTreeMap<String, i64>) {
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (group, users) in expected {
        let off = (found[&group] - users).abs();
        assert!(
            if users < 1_000 { off == 0 } else { off * 50 <= users },
            "{group}: {} for {users}",
            found[&group]
        );
    }
}

fn all(report: &Value) -> BTreeMap<String, i64> {
    BTreeMap::from([(String::new(), report["users"].as_i64().unwrap())])
}

fn check_demographics(system: &System, expected: &Expected) {
    let report = system.report("/reports/demographics?limit=1000");
    assert_eq!(report["usersEstimated"], true, "there are some five thousand");
    let of = |source: &str| -> Vec<&Value> {
        expected.events.values().filter(|event| event["source"] == source).collect()
    };
    let named = |name: &'static str| move |entry: &Value| entry[name].as_str().unwrap().to_owned();

    let (events, found) = (of("facebook"), &report["facebook"]);
    assert_eq!(found["events"], events.len());
    assert_counted(all(found), users(&events, |_| Some(String::new())));
    let age = |event: &Value| {
        let age = event["data"]["user"]["age"].as_u64()?;
        let ranges =
            [(18, "0-17"), (25, "18-24"), (35, "25-34"), (45, "35-44"), (55, "45-54"), (65, "55-64")];
        Some(ranges.iter().find(|(below, _)| age < *below).map_or("65+", |(_, range)| range).to_owned())
    };
    assert_counted(groups(&found["ageGroups"], named("range")), users(&events, age));
    let gender = |event: &Value| Some(text(&event["data"]["user"], "gender").to_owned());
    assert_counted(groups(&found["genders"], named("gender")), users(&events, gender));
    let country = |event: &Value| Some(text(&event["data"]["user"]["location"], "country").to_owned());
    assert_counted(groups(&found["countries"], named("country")), users(&events, country));
    let city = |event: &Value| {
        let place = &event["data"]["user"]["location"];
        Some(format!("{}, {}", text(place, "city"), text(place, "country")))
    };
    let in_country = |entry: &Value| format!("{}, {}", text(entry, "city"), text(entry, "country"));
    assert_counted(groups(&found["cities"], in_country), users(&events, city));
    assert_eq!(found["citiesTruncated"], false);
    let hour = "from=2026-03-07T10:20:00Z&to=2026-03-07T12:40:00Z";
    let exact = system.report(&format!("/reports/demographics?{hour}"));
    let in_hours = |event: &&Value| ("2026-03-07T10".."2026-03-07T13").contains(&text(event, "timestamp"));
    let few: Vec<&Value> = of("facebook").into_iter().filter(in_hours).collect();
    assert_eq!((&exact["usersEstimated"], &exact["facebook"]["events"]), (&json!(false), &json!(few.len())));
    assert_counted(groups(&exact["facebook"]["genders"], named("gender")), users(&few, gender));
    let few = system.report("/reports/demographics?limit=3&source=facebook");
    assert_eq!(few["facebook"]["cities"].as_array().unwrap().len(), 3);
    assert_eq!(few["facebook"]["citiesTruncated"], true);
    assert!(few.get("tiktok").is_none());

    let (events, found) = (of("tiktok"), &report["tiktok"]);
    assert_eq!(found["events"], events.len());
    assert_counted(all(found), users(&events, |_| Some(String::new())));
    let followers = |event: &Value| event["data"]["user"]["followers"].as_u64().unwrap();
    let sum: u64 = events.iter().map(|event| followers(event)).sum();
    let close = |found: &Value, expected: f64| {
        assert!((found.as_f64().unwrap() - expected).abs() < 1e-6, "{found} {expected}")
    };
    close(&found["followers"]["average"], sum as f64 / events.len() as f64);
    let range = |event: &Value| {
        let ranges = [(1_000, "0-999"), (10_000, "1K-10K"), (100_000, "10K-100K"), (1_000_000, "100K-1M")];
        Some(
            ranges
                .iter()
                .find(|(below, _)| followers(event) < *below)
                .map_or("1M+", |(_, range)| range)
                .to_owned(),
        )
    };
    assert_counted(groups(&found["followers"]["ranges"], named("range")), users(&events, range));
    let device = |event: &Value| event["data"]["engagement"]["device"].as_str().map(str::to_owned);
    assert_counted(groups(&found["devices"], named("device")), users(&events, device));
    let watched: Vec<&Value> = events.iter().copied().filter(|event| event["funnelStage"] == "top").collect();
    // Hundredths of a second, so that the sum is exact here too.
    let hundredths: i64 = watched
        .iter()
        .map(|event| (event["data"]["engagement"]["watchTime"].as_f64().unwrap() * 100.0).round() as i64)
        .sum();
    close(&found["averageWatchTime"], hundredths as f64 / 100.0 / watched.len() as f64);
    let percent: i64 =
        watched.iter().map(|event| event["data"]["engagement"]["percentageWatched"].as_i64().unwrap()).sum();
    close(&found["averagePercentageWatched"], percent as f64 / watched.len() as f64);
}

fn every_report(system: &mut System) {
    let expected = send(system, 42);
    let ledger = system.settle();
    let sum = |name: &str| -> u64 {
        ledger["sources"].as_array().unwrap().iter().map(|source| source[name].as_u64().unwrap()).sum()
    };
    assert_eq!(sum("published"), expected.accepted);
    assert_eq!(sum("stored"), expected.events.len() as u64);
    assert_eq!(sum("duplicates"), expected.accepted - expected.events.len() as u64);
    assert_eq!((sum("quarantined"), sum("missing")), (0, 0));
    assert_eq!(system.count_rows(), expected.events.len() as u64);

    let within = |from: &'static str, to: &'static str| {
        move |event: &Value| (from..to).contains(&text(event, "timestamp"))
    };
    check_events(system, &expected, "", |_| true);
    check_events(system, &expected, "source=tiktok", |event| event["source"] == "tiktok");
    check_events(system, &expected, "funnelStage=bottom", |event| event["funnelStage"] == "bottom");
    check_events(system, &expected, "eventType=comment", |event| event["eventType"] == "comment");
    check_events(system, &expected, "eventType=ad.view&source=tiktok", |_| false);
    check_events(
        system,
        &expected,
        "from=2026-03-05&to=2026-03-11T12:34:00Z",
        within("2026-03-05", "2026-03-11T12:34:00"),
    );
    check_revenue(system, &expected, "", |_| true);
    check_revenue(system, &expected, "source=facebook", |event| event["source"] == "facebook");
    check_revenue(system, &expected, "campaignId=camp-7", |event| {
        event["data"]["engagement"]["campaignId"] == "camp-7"
    });
    check_revenue(
        system,
        &expected,
        "from=2026-03-05T00:00:30Z&to=2026-03-06",
        within("2026-03-05", "2026-03-06"),
    );
    check_demographics(system, &expected);
}

#[test]
fn reports_of_thirty_thousand_mixed_events_equal_independently_computed_totals() {
    both(&[], every_report);
}
