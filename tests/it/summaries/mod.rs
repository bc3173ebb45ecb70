//! Reports say the same as the rows: before and after folding, after a rebuild, after rows were removed by age.

pub mod audiences;
pub mod campaigns;
mod cities;
mod compare;
mod corrupt;
mod deltas;
pub mod rebuild;
pub mod retention;
pub mod upgrade;

use ess::event::Source;
use ess::store::report::{Filter, Reports};
use ess::store::{Batch, Store};
use serde_json::{Value, json};

use crate::support::events::{Chance, event};
use crate::support::stores::{frame, log, origin};
use crate::support::system::System;

/// Stores events of Facebook as one frame.
async fn write(store: &Store, sequence: u64, events: &[String]) {
    let origin = origin();
    let frames = vec![frame(sequence, sequence, &origin, events)];
    store.write(&Batch { source: Source::FACEBOOK, log_id: log(), frames }).await.unwrap();
}

/// A checkout of a campaign in a minute since 1970.
fn checkout(id: u64, user: &str, campaign: &str, minute: i64, cents: u64) -> String {
    let time = chrono::DateTime::from_timestamp(minute * 60 + 30, 0).unwrap().to_rfc3339();
    json!({"eventId": format!("e-{id}"), "timestamp": time, "source": "facebook", "funnelStage": "bottom",
        "eventType": "checkout.complete",
        "data": {"user": {"userId": user, "name": "N", "age": id % 151, "gender": "male",
                 "location": {"country": format!("Country {}", id % 7), "city": format!("City {id}")}},
                 "engagement": {"adId": "a", "campaignId": campaign, "clickPosition": "center",
                    "device": "mobile", "browser": "Safari",
                    "purchaseAmount": format!("{}.{:02}", cents / 100, cents % 100)}}})
    .to_string()
}

/// A view of an ad by a user in a city, in a minute since 1970.
fn view(id: u64, user: &str, city: &str, minute: i64) -> String {
    let time = chrono::DateTime::from_timestamp(minute * 60, 0).unwrap().to_rfc3339();
    json!({"eventId": format!("v-{id}"), "timestamp": time, "source": "facebook", "funnelStage": "top",
        "eventType": "ad.view",
        "data": {"user": {"userId": user, "name": "N", "age": 30, "gender": "male",
                 "location": {"country": "Land", "city": city}},
                 "engagement": {"actionTime": time, "referrer": "groups", "videoId": null}}})
    .to_string()
}

/// Runs a statement on the store's own connections.
async fn execute(store: &Store, sql: &str) {
    store.execute(sql).await.unwrap();
}

/// Sums up all stale spans, as if nothing had changed for a while.
async fn refresh(store: &Store) {
    execute(store, "UPDATE summaries SET touched_at = 0").await;
    store.refresh_all_summaries(Source::FACEBOOK).await.unwrap();
}

/// The audience of a range of minutes as text: events, users, users by country and age, number of cities.
async fn audience_of(store: &Store, from: Option<i64>, to: Option<i64>) -> String {
    let reports = Reports::new(store.clone(), 1 << 20);
    let report = reports.begin().await.unwrap();
    let filter = Filter { from, to, ..Filter::default() };
    let audience = report.audiences(&filter, 1_000).await.unwrap().swap_remove(0).1;
    let about = if audience.estimated { "about " } else { "" };
    format!(
        "{} events, {about}{} users, {} cities, {} {:?} {:?}",
        audience.events,
        audience.users,
        audience.cities.len(),
        audience.cities_truncated,
        audience.groups,
        audience.countries,
    )
}

/// All hours, rollups and campaigns agree with the rows.
async fn assert_all_agree(store: &Store) {
    for day in store.days(&(0..i64::MAX)).await.unwrap() {
        assert_eq!(store.compare_day(day, false).await.unwrap().count(), 0, "day {day}");
    }
    assert_eq!(store.compare_spans(Source::FACEBOOK, false).await.unwrap(), 0);
    assert_eq!(store.compare_campaigns(Source::FACEBOOK, false).await.unwrap(), Some(0));
}

/// Sends random events of 2026-03; returns their number.
pub fn send(system: &System, seed: u64, count: usize) -> usize {
    let mut chance = Chance(seed);
    let events: Vec<Value> = (0..count).map(|place| event(&format!("{seed}-{place}"), &mut chance)).collect();
    let answer = system.post(&Value::from(events).to_string());
    assert_eq!(answer.status, 202, "{}", answer.text);
    count
}

fn demographics(system: &System) -> Value {
    system.report("/reports/demographics?limit=1000")
}
