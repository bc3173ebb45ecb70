//! The sample files, sent through a real gateway and read back as rows.

use serde_json::Value;

use crate::support::system::{Database, System, both, samples};

fn lines(file: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(samples().join(file)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn every_sample(system: &mut System) {
    let valid = lines("valid.jsonl");
    for event in &valid {
        let answer = system.post(&event.to_string());
        assert_eq!(answer.status, 202, "{event}: {}", answer.text);
        assert_eq!(answer.json()["accepted"], 1);
    }
    for sample in lines("invalid.jsonl") {
        let answer = system.post(&sample["event"].to_string());
        assert_eq!(answer.status, 422, "{sample}: {}", answer.text);
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        let problem = answer.json();
        let errors = problem["errors"][0]["errors"].as_array().unwrap();
        assert!(errors.iter().any(|error| error["path"] == sample["path"]), "{sample}: {problem}");
    }
    // All of them in one array: each is judged by itself.
    let mixed: Vec<Value> = valid
        .iter()
        .cloned()
        .chain(lines("invalid.jsonl").iter().map(|sample| sample["event"].clone()))
        .collect();
    let answer = system.post(&Value::from(mixed.clone()).to_string());
    assert_eq!(answer.status, 202);
    let body = answer.json();
    assert_eq!(body["accepted"], valid.len());
    assert_eq!(body["rejected"], mixed.len() - valid.len());
    assert_eq!(body["errors"][0]["index"], valid.len(), "the first that is refused");
    assert_eq!(body["errorsTruncated"], false);

    system.settle();
    assert_eq!(system.count_rows(), valid.len() as u64, "the second time they were duplicates");
    valid.iter().for_each(|event| assert_row(&system.database, event));
    assert_sums(&system.database, &valid);
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Columns of the view of events, and what an event has for each.
fn columns(event: &Value) -> Vec<(&'static str, &Value)> {
    let (user, engagement) = (&event["data"]["user"], &event["data"]["engagement"]);
    if event["source"] == "facebook" {
        vec![
            ("user_id", &user["userId"]),
            ("user_name", &user["name"]),
            ("age", &user["age"]),
            ("gender", &user["gender"]),
            ("country", &user["location"]["country"]),
            ("city", &user["location"]["city"]),
            ("referrer", &engagement["referrer"]),
            ("video_id", &engagement["videoId"]),
            ("ad_id", &engagement["adId"]),
            ("campaign_id", &engagement["campaignId"]),
            ("click_position", &engagement["clickPosition"]),
            ("device", &engagement["device"]),
            ("browser", &engagement["browser"]),
            ("purchase_amount", &engagement["purchaseAmount"]),
        ]
    } else {
        vec![
            ("user_id", &user["userId"]),
            ("user_name", &user["username"]),
            ("followers", &user["followers"]),
            ("device", &engagement["device"]),
            ("country", &engagement["country"]),
            ("video_id", &engagement["videoId"]),
            ("profile_id", &engagement["profileId"]),
            ("purchased_item", &engagement["purchasedItem"]),
            ("purchase_amount", &engagement["purchaseAmount"]),
        ]
    }
}

/// Every field of a valid sample, read back with SQL.
fn assert_row(database: &Database, event: &Value) {
    let postgres = matches!(database, Database::Postgres(_));
    let id = event["eventId"].as_str().unwrap();
    let read = |columns: &str| {
        let rows = database.query(&format!("SELECT {columns} FROM events WHERE event_id = '{id}'"));
        assert_eq!(rows.len(), 1, "{id}");
        rows[0].clone()
    };
    let [source, stage, event_type] = ["source", "funnelStage", "eventType"].map(|name| text(&event[name]));
    let named = read("source || '|' || funnel_stage || '|' || event_type");
    assert_eq!(named, format!("{source}|{stage}|{event_type}"));
    for (column, sent) in columns(event) {
        // psql prints rows by line, and one sample's name has a line break in it.
        let escaped = if postgres {
            format!("to_json({column}::text)")
        } else {
            format!("json_quote(CAST({column} AS text))")
        };
        let sent = if sent.is_null() { Value::Null } else { Value::from(text(sent)) };
        let read = read(&escaped);
        let read = if read.is_empty() { Value::Null } else { serde_json::from_str(&read).unwrap() };
        assert_eq!(read, sent, "{id}: {column}");
    }
    let at = if postgres {
        "extract(epoch FROM occurred_at) * 1000"
    } else {
        "unixepoch(occurred_at, 'subsec') * 1000"
    };
    let occurred: f64 = read(at).parse().unwrap();
    let sent = chrono::DateTime::parse_from_rfc3339(event["timestamp"].as_str().unwrap()).unwrap();
    assert!((occurred - sent.timestamp_millis() as f64).abs() < 0.5, "{id}: {occurred}");
}

/// The revenue of all samples, and the members that no column has.
fn assert_sums(database: &Database, events: &[Value]) {
    let postgres = matches!(database, Database::Postgres(_));
    let revenue = if postgres { "sum(revenue)" } else { "printf('%.2f', sum(revenue))" };
    let earned: Vec<_> = events
        .iter()
        .filter(|event| event["eventType"] == "checkout.complete" || event["eventType"] == "purchase")
        .filter_map(|event| event["data"]["engagement"]["purchaseAmount"].as_str())
        .map(|amount| (amount.parse::<f64>().unwrap() * 100.0).round() as i64)
        .collect();
    let cents: i64 = earned.iter().sum();
    let expected = format!("{}.{:02}", cents / 100, cents % 100);
    assert_eq!(database.query(&format!("SELECT {revenue} FROM events"))[0], expected);
    let unknown = database.query("SELECT CAST(unknown AS text) FROM events WHERE unknown IS NOT NULL");
    assert_eq!(unknown.len(), 3, "{unknown:?}");
    assert!(unknown.iter().any(|rest| rest.contains("nested")), "{unknown:?}");
}

#[test]
fn every_sample_is_accepted_or_refused_as_it_declares_and_stored_as_it_was_sent() {
    both(&[], every_sample);
}
