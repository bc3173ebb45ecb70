//! What is kept for reports says what the rows say: folded or not, mended, after rows have left.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use ess::event::Source;
use ess::store::report::{Dimension, Filter, Reports};
use ess::store::{Batch, Purpose, Store};
use serde_json::{Value, json};

use crate::support::actors::nodes;
use crate::support::events::{Chance, event, simple};
use crate::support::stores::{frame, log, number, open, origin, plain, sqlite, stores};
use crate::support::system::{System, both};
use crate::support::{MINUTE, block_on, eventually, http};

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

/// What a test compares: events, users, users by country and age, means, whether cities were left out.
async fn shape(store: &Store, from: Option<i64>, to: Option<i64>) -> String {
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

#[test]
pub fn an_audience_is_the_same_folded_or_not_and_however_wide_its_spans() {
    let stores = stores();
    for url in &stores.urls {
        block_on(async {
            let store = open(url).await;
            let mut chance = Chance(1);
            let first = 28_000_000_i64;
            let hours = 40 * 24;
            let mut id = 0;
            for sequence in 1..=6 {
                let events: Vec<String> = (0..400)
                    .map(|_| {
                        id += 1;
                        let minute = first + chance.below(hours * 60) as i64;
                        checkout(id, &format!("u-{}", chance.below(900)), "c", minute, 100)
                    })
                    .collect();
                write(&store, sequence, &events).await;
                // Again, and again with other users: duplicates reach nobody.
                write(&store, sequence, &events).await;
                let others: Vec<String> = events.iter().map(|text| text.replace("u-", "other-")).collect();
                write(&store, 100 + sequence, &others).await;
                if sequence == 3 {
                    store.fold_summaries(Source::FACEBOOK).await.unwrap();
                }
            }
            let ranges = [
                (None, None),
                (Some(first), Some(first + 60)),
                (Some(first + 61), Some(first + 20_000)),
                (None, Some(first + 40_000)),
                (Some(first + 1_000_000), None),
            ];
            let ask = async || {
                let mut shapes = Vec::new();
                for (from, to) in ranges {
                    shapes.push(shape(&store, from, to).await);
                }
                shapes
            };
            let not_folded = ask().await;
            assert!(not_folded[0].starts_with("2400 events, "), "{}", not_folded[0]);
            assert!(!not_folded[0].contains("about"), "900 users are counted exactly");
            assert!(not_folded[4].starts_with("0 events, 0 users"), "{}", not_folded[4]);
            assert_eq!(store.fold_summaries(Source::FACEBOOK).await.unwrap(), 1_200);
            assert_eq!(store.fold_summaries(Source::FACEBOOK).await.unwrap(), 0, "once");
            assert_eq!(ask().await, not_folded, "folded");
            // Wider spans, as if nothing had changed for a while.
            store_sql(&store, "UPDATE summaries SET touched_at = 0").await;
            while store.refresh_summaries(Source::FACEBOOK).await.unwrap() > 0 {}
            assert_eq!(number(&store, "SELECT count(*) FROM summaries WHERE stale").await, 0);
            assert_eq!(ask().await, not_folded, "in wider spans");
            // Told by the rows, and summed up anew.
            store_sql(&store, "UPDATE summaries SET stale = true, body = NULL, touched_at = 0").await;
            assert_eq!(ask().await, not_folded, "told by rows");
            let more = vec![checkout(90_000, "u-1", "c", first + 5, 1)];
            write(&store, 50, &more).await;
            while store.refresh_summaries(Source::FACEBOOK).await.unwrap() > 0 {}
            assert_eq!(number(&store, "SELECT count(*) FROM summary_deltas").await, 0);
            let days = store.days(&(0..i64::MAX)).await.unwrap();
            for day in days {
                assert_eq!(store.compare_day(day, false).await.unwrap().count(), 0, "day {day}");
            }
            assert_eq!(store.compare_campaigns(Source::FACEBOOK, false).await.unwrap(), Some(0));
            // What was earned in the first and the last minute, too, however it came.
            assert_eq!(
                number(&store, "SELECT count(*) FROM campaigns WHERE ends_of = transactions").await,
                1
            );
            for damage in ["first_units = first_units + 1", "last_units = last_units - 1"] {
                store_sql(&store, &format!("UPDATE campaigns SET {damage}")).await;
                for wrong in [1, 0] {
                    let found = store.compare_campaigns(Source::FACEBOOK, true).await.unwrap();
                    assert_eq!(found, Some(wrong), "{damage}");
                }
            }
            store_sql(&store, "UPDATE campaigns SET ends_of = 0").await;
            assert_eq!(store.compare_campaigns(Source::FACEBOOK, true).await.unwrap(), Some(0));
            assert_eq!(
                number(&store, "SELECT count(*) FROM campaigns WHERE ends_of = transactions").await,
                1
            );
            // Wider spans that say something else are found, and made anew from those beneath them.
            let whole = ask().await;
            store_sql(&store, "UPDATE summaries SET touched_at = 0").await;
            store.refresh_all_summaries(Source::FACEBOOK).await.unwrap();
            assert_eq!(store.compare_spans(Source::FACEBOOK, false).await.unwrap(), 0);
            let damage = "UPDATE summaries SET version = version + 1, body = (SELECT body FROM summaries
                WHERE level = 0 ORDER BY at LIMIT 1) WHERE level = 3";
            store_sql(&store, damage).await;
            assert_ne!(ask().await, whole);
            assert!(store.compare_spans(Source::FACEBOOK, false).await.unwrap() > 0);
            assert!(store.compare_spans(Source::FACEBOOK, true).await.unwrap() > 0);
            assert_eq!(ask().await, whole);
            store_sql(&store, "UPDATE summaries SET touched_at = 0").await;
            store.refresh_all_summaries(Source::FACEBOOK).await.unwrap();
            assert_eq!(store.compare_spans(Source::FACEBOOK, false).await.unwrap(), 0);
            assert_eq!(ask().await, whole);
        });
    }
}

async fn store_sql(store: &Store, sql: &str) {
    store.execute(sql).await.unwrap();
}

#[test]
fn users_are_about_right_where_every_event_has_a_new_one_and_cities_are_bounded() {
    let stores = stores();
    block_on(async {
        let store = open(&stores.urls[stores.urls.len() - 1]).await;
        for sequence in 1..=8 {
            let events: Vec<String> = (0..2_500)
                .map(|place| {
                    let id = sequence * 10_000 + place;
                    checkout(id, &format!("u-{id}"), &format!("c-{id}"), 28_000_000 + place as i64, 100)
                })
                .collect();
            write(&store, sequence, &events).await;
        }
        for folded in [false, true] {
            if folded {
                store.fold_summaries(Source::FACEBOOK).await.unwrap();
            }
            let reports = Reports::new(store.clone(), 1 << 20);
            let report = reports.begin().await.unwrap();
            let audience = report.audiences(&Filter::default(), 1_000).await.unwrap().swap_remove(0).1;
            let near = |counted: u64, users: f64| (counted as f64 - users).abs() / users < 0.02;
            assert_eq!(audience.events, 20_000);
            assert!(audience.estimated && near(audience.users, 20_000.0), "{}", audience.users);
            for (country, users) in &audience.countries {
                assert!(near(*users, 20_000.0 / 7.0), "{country:?} {users}");
            }
            let male =
                audience.groups.iter().find(|(group, _)| matches!(group, Dimension::Gender(_))).unwrap();
            assert!(near(male.1, 20_000.0), "{male:?}");
            assert_eq!((audience.countries.len(), audience.cities.len()), (7, 1_000));
            assert!(audience.cities_truncated);
            // Each city has one user: equals go by name, of all twenty thousand.
            let ids = (1..=8).flat_map(|sequence| (0..2_500).map(move |place| sequence * 10_000 + place));
            let mut all: Vec<_> =
                ids.map(|id| (format!("Country {}", id % 7), format!("City {id}"))).collect();
            all.sort();
            let (country, city) = &all[999];
            let last = Dimension::City(country.into(), city.into());
            assert_eq!((audience.cities_error_bound, &audience.cities[999]), (0, &(last, 1)));
        }
    });
}

/// The first campaigns of a range, computed apart from the code under test.
fn expected(rows: &[(String, i64, u64)], from: i64, to: i64, limit: usize) -> Vec<(String, u64, i128)> {
    let mut sums: BTreeMap<&str, (u64, i128)> = BTreeMap::new();
    for (campaign, _, cents) in rows.iter().filter(|(_, minute, _)| (from..to).contains(minute)) {
        let sum = sums.entry(campaign).or_default();
        sum.0 += 1;
        sum.1 += i128::from(*cents) * 10_000;
    }
    let mut sums: Vec<_> =
        sums.into_iter().map(|(name, (count, sum))| (name.to_owned(), count, sum)).collect();
    sums.sort_by(|left, right| right.2.cmp(&left.2).then_with(|| left.0.cmp(&right.0)));
    sums.truncate(limit);
    sums
}

/// Campaigns of 48,000 checkouts over four days, by how many campaigns there are, and what they cost.
fn ranks_campaigns(campaigns: u64, cents: std::ops::Range<u64>) {
    let stores = stores();
    for url in &stores.urls {
        block_on(ranks_campaigns_in(url, campaigns, &cents));
    }
}

async fn ranks_campaigns_in(url: &str, campaigns: u64, cents: &std::ops::Range<u64>) {
    let store = open(url).await;
    let mut chance = Chance(campaigns);
    let first = 28_000_020_i64;
    let mut rows = Vec::new();
    for sequence in 1..=12 {
        let events: Vec<String> = (0..4_000)
            .map(|place| {
                let campaign = format!("camp-{}", chance.below(campaigns));
                // A third of them in one hour.
                let spread = if place % 3 == 0 { 70 + chance.below(40) } else { chance.below(4 * 1_440) };
                let minute = first + spread as i64;
                let cents = cents.start + chance.below(cents.end - cents.start);
                rows.push((campaign.clone(), minute, cents));
                checkout(sequence * 10_000 + place, "u", &campaign, minute, cents)
            })
            .collect();
        write(&store, sequence, &events).await;
        if sequence % 5 == 0 {
            store.fold_summaries(Source::FACEBOOK).await.unwrap();
        }
        if sequence == 6 {
            // What a version before adds to is not known of its ends from then on.
            let added = "UPDATE campaigns SET ends_of = ends_of - 1, first_units = 1000000,
                    last_units = 1000000 WHERE units % 3 = 0";
            store_sql(&store, added).await;
        }
    }
    let reports = Reports::new(store.clone(), 16 << 20);
    let end = first + 4 * 1_440;
    for (from, to) in [
        (first, end),
        (first + 31, end - 1_000),
        (first + 31, first + 2_345),
        (first + 61, end - 1_000),
        (first + 700, first + 3_777),
        (first, first + 90),
        (first + 70, first + 100),
    ] {
        for limit in [1, 50] {
            let report = reports.begin().await.unwrap();
            let filter = Filter { from: Some(from), to: Some(to), ..Filter::default() };
            let top = report.top_campaigns(&filter, limit).await.unwrap();
            let found: Vec<_> =
                top.into_iter().map(|sum| (sum.campaign_id, sum.transactions, sum.total)).collect();
            assert_eq!(found, expected(&rows, from, to, limit), "{campaigns} campaigns, {from} to {to}");
        }
    }
}

/// From 10.00 to 999.99.
const PRICES: std::ops::Range<u64> = 1_000..100_000;

#[test]
fn campaigns_that_earned_the_same_are_ranked_by_name() {
    // Each with one sale, all at one price.
    ranks_campaigns(1 << 40, 5_000..5_001);
}

#[test]
pub fn few_campaigns_are_ranked_exactly() {
    ranks_campaigns(30, PRICES);
}

#[test]
fn campaigns_as_many_as_events_are_ranked_exactly() {
    ranks_campaigns(1 << 40, PRICES);
}

#[test]
fn campaigns_of_a_few_sales_each_are_ranked_exactly() {
    ranks_campaigns(20_000, PRICES);
}

#[test]
fn some_thousand_campaigns_are_ranked_exactly() {
    ranks_campaigns(4_000, PRICES);
}

#[test]
fn a_report_that_is_asked_often_stays_as_quick_as_it_was_at_first() {
    const BEGIN: i64 = 29_500_000;
    let stores = stores();
    block_on(async {
        let store = open(&stores.urls[stores.urls.len() - 1]).await;
        // Too many campaigns for any hour's summary. Those on top have one sale before the range, and one in it.
        for batch in 0..30 {
            let one = |n: u64| checkout(n, "u", &format!("c-{n}"), BEGIN + 60 + (n % 1_200) as i64, n % 100);
            let mut events: Vec<String> = (batch * 1_000..(batch + 1) * 1_000).map(one).collect();
            for top in 0..10 {
                let n = 100_000 + batch * 10 + top;
                for (id, minute) in [(n, BEGIN), (n + 100_000, BEGIN + 100)] {
                    events.push(checkout(id, "u", &format!("top-{n}"), minute, 1_000_000 + n));
                }
            }
            write(&store, batch + 1, &events).await;
        }
        store.fold_summaries(Source::FACEBOOK).await.unwrap();
        store.execute("VACUUM ANALYZE").await.unwrap();
        let reader = Store::connect(&stores.urls[stores.urls.len() - 1], Purpose::Read { connections: 1 })
            .await
            .unwrap();
        let reports = Reports::new(reader, 64 << 20);
        let filter = Filter { from: Some(BEGIN + 1), to: Some(BEGIN + 10_000), ..Filter::default() };
        let mut took = Vec::new();
        for _ in 0..16 {
            let began = std::time::Instant::now();
            let report = reports.begin().await.unwrap();
            let top = report.top_campaigns(&filter, 50).await.unwrap();
            assert_eq!((top.len(), top[0].transactions, top[0].total), (50, 1, 11_002_990_000));
            report.end().await.unwrap();
            took.push(began.elapsed());
        }
        let quickest = |some: &[Duration]| some.iter().min().copied().unwrap();
        let (first, last) = (quickest(&took[1..5]), quickest(&took[11..]));
        assert!(last < first * 3, "{took:?}");
    });
}

/// Sends events of 2026-03; gives how many.
fn send(world: &System, seed: u64, count: usize) -> usize {
    let mut chance = Chance(seed);
    let events: Vec<Value> = (0..count).map(|place| event(&format!("{seed}-{place}"), &mut chance)).collect();
    let answer = world.post(&Value::from(events).to_string());
    assert_eq!(answer.status, 202, "{}", answer.text);
    count
}

fn demographics(world: &System) -> Value {
    world.report("/reports/demographics?limit=1000")
}

#[test]
pub fn what_was_damaged_is_told_and_mended_while_events_come() {
    both(&[], |world| {
        send(world, 1, 3_000);
        world.settle();
        let verified = world.ess(&["rollups", "verify"]);
        assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
        let before = (
            world.report("/reports/events?interval=hour"),
            world.report("/reports/revenue"),
            demographics(world),
        );

        let damage = [
            "UPDATE rollups SET events = events + 3 WHERE minutes = 60 AND at % 7 = 0",
            "DELETE FROM rollups WHERE minutes = 1440 AND at % 2 = 0",
            "UPDATE rollups SET revenue_micros = revenue_micros + 1 WHERE minutes = 1 AND transactions > 0 AND at % 3 = 0",
        ];
        eventually("everything is folded", MINUTE, || {
            (world.database.query("SELECT count(*) FROM summary_deltas")[0] == "0").then_some(())
        });
        for sql in damage {
            world.damage(sql);
        }
        world.damage("UPDATE campaigns SET units = units + 5");
        world.damage(
            "UPDATE summaries SET version = version + 1, body = (SELECT o.body FROM summaries o
             WHERE o.source = summaries.source AND o.level = 0 AND o.body IS NOT NULL ORDER BY o.at LIMIT 1)
             WHERE level = 0 AND at % 5 = 0",
        );
        assert_ne!(world.report("/reports/events?interval=hour"), before.0);
        let verified = world.ess(&["rollups", "verify"]);
        let told = String::from_utf8_lossy(&verified.stdout).into_owned();
        assert_eq!(verified.status.code(), Some(1), "{told}");
        for word in [
            "rollup of 1440 min from 2026-03-",
            "rollup of 60 min from 2026-03-",
            "hour 2026-03-",
            "events -3",
            "the summary is another",
            "campaigns of facebook",
        ] {
            assert!(told.contains(word), "{word}: {told}");
        }

        // Events go on coming meanwhile.
        let sent = std::thread::scope(|scope| {
            let feeder = scope.spawn(|| (0..10).map(|round| send(world, 100 + round, 200)).sum::<usize>());
            let rebuilt = world.ess(&["rollups", "rebuild"]);
            assert!(rebuilt.status.success(), "{}", String::from_utf8_lossy(&rebuilt.stderr));
            feeder.join().unwrap()
        });
        world.settle();
        let verified = world.ess(&["rollups", "verify"]);
        assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
        assert_eq!(world.report("/reports/events")["totalEvents"], 3_000 + sent);
        assert_eq!(
            demographics(world)["facebook"]["events"].as_u64().unwrap()
                + demographics(world)["tiktok"]["events"].as_u64().unwrap(),
            3_000 + sent as u64
        );
        assert_eq!(world.database.query("SELECT count(*) FROM progress"), ["0"]);
    });
}

#[test]
pub fn rows_leave_after_their_time_and_stay_counted() {
    both(&[("ESS_RETENTION", "6s")], |world| {
        let now = chrono::Utc::now();
        let mut old = simple("old", "facebook");
        old["timestamp"] = json!((now - chrono::Duration::days(3)).to_rfc3339());
        let mut ahead = simple("ahead", "facebook");
        ahead["timestamp"] = json!((now + chrono::Duration::days(3)).to_rfc3339());
        let body = json!([old, ahead]).to_string();
        assert_eq!(world.post(&body).status, 202);
        world.settle();
        assert_eq!(world.count_rows(), 2);
        // A duplicate is seen as long as the row is there.
        assert_eq!(world.post(&body).status, 202);
        let ledger = world.settle();
        assert_eq!(ledger["sources"][0]["duplicates"], 2, "{ledger}");
        let before = demographics(world);
        eventually("the old row has left", MINUTE, || (world.count_rows() == 1).then_some(()));
        let left = world.database.query("SELECT event_id FROM events");
        assert_eq!(left, ["ahead"], "what is yet to happen stays");
        assert_eq!(world.report("/reports/events")["totalEvents"], 2);
        assert_eq!(demographics(world), before);
        let verified = world.ess(&["rollups", "verify"]);
        assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
    });
}

#[test]
pub fn a_database_of_a_version_before_is_brought_up_to_date() {
    use migration::{Migrator, MigratorTrait};
    let stores = stores();
    for url in &stores.urls {
        block_on(async {
            let store = open(url).await;
            let mut chance = Chance(3);
            let events: Vec<String> = (0..600)
                .map(|id| {
                    let minute = 28_000_000 + chance.below(5_000) as i64;
                    checkout(id, &format!("u-{}", id % 50), &format!("c-{}", id % 9), minute, 250)
                })
                .collect();
            write(&store, 1, &events).await;
            let before = shape(&store, None, None).await;
            // The tables of versions before: minutes, hours and days; and before that events by the minute alone.
            let newer = Migrator::migrations().len() as u32 - 6;
            let known = ["rollups WHERE minutes = 1440", "rollups WHERE level = 2", "event_rollup"];
            assert!(
                Migrator::down(&plain(url).await, Some(newer + 2)).await.is_err(),
                "nobody could fold what waits"
            );
            store.migrate().await.unwrap();
            store.fold_summaries(Source::FACEBOOK).await.unwrap();
            for (steps, known) in (newer + 1..).zip(known) {
                Migrator::down(&plain(url).await, Some(steps)).await.unwrap();
                assert_eq!(number(&store, &format!("SELECT sum(events) FROM {known}")).await, 600);
                store.migrate().await.unwrap();
                assert_eq!(shape(&store, None, None).await, before, "{known}");
            }
            let more = vec![checkout(9_999, "u-1", "c-1", 28_000_001, 250)];
            write(&store, 2, &more).await;
            let with_more = shape(&store, None, None).await;
            assert!(with_more.starts_with("601 events, 50 users"), "{with_more}");
            while store.refresh_summaries(Source::FACEBOOK).await.unwrap() > 0 {}
            assert_eq!(shape(&store, None, None).await, with_more);
            for day in store.days(&(0..i64::MAX)).await.unwrap() {
                assert_eq!(store.compare_day(day, false).await.unwrap().count(), 0);
            }
            assert_eq!(store.compare_campaigns(Source::FACEBOOK, false).await.unwrap(), Some(0));
        });
    }
}

#[test]
pub fn csv_tells_what_json_tells() {
    let world = System::embedded(&[]);
    let mut formula = simple("formula", "facebook");
    formula["data"]["user"]["location"]["city"] = json!("=HYPERLINK(\"http://x\")");
    assert_eq!(world.post(&formula.to_string()).status, 202);
    send(&world, 5, 300);
    world.settle();
    for path in [
        "/reports/events?interval=day",
        "/reports/revenue?interval=day&groupBy=campaign",
        "/reports/demographics?limit=1000",
    ] {
        let json = world.report(path);
        let answer = http::get_with(&world.reporter_url(path), &[("Accept", "text/csv")]).unwrap();
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/csv; charset=utf-8")));
        let mut reader = csv::Reader::from_reader(answer.text.as_bytes());
        let columns: Vec<String> = reader.headers().unwrap().iter().map(str::to_owned).collect();
        let lines: Vec<BTreeMap<String, String>> = reader
            .records()
            .map(|line| columns.iter().cloned().zip(line.unwrap().iter().map(str::to_owned)).collect())
            .collect();
        let of = |section: &str| lines.iter().filter(|line| line["section"] == section).collect::<Vec<_>>();
        for section in ["events", "series", "revenue", "campaigns"] {
            let Some(entries) = json[section].as_array() else { continue };
            let found = of(section);
            assert_eq!(found.len(), entries.len(), "{path} {section}");
            for (line, entry) in found.iter().zip(entries) {
                for (name, value) in entry.as_object().unwrap() {
                    let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                    assert_eq!(line[name], value, "{path} {section} {name}");
                }
            }
        }
        if let Some(cities) = json["facebook"]["cities"].as_array() {
            assert_eq!(of("cities").len(), cities.len());
            assert!(of("cities").iter().any(|line| line["group"] == "'=HYPERLINK(\"http://x\")"));
            let users: HashSet<&str> = of("total").iter().map(|line| line["users"].as_str()).collect();
            assert!(users.contains(json["tiktok"]["users"].to_string().as_str()));
        }
    }
}

#[test]
fn an_answer_is_given_again_only_if_it_is_another() {
    let world = System::embedded(&[]);
    send(&world, 1, 50);
    world.settle();
    let url = world.reporter_url("/reports/revenue");
    let first = http::get(&url).unwrap();
    let tag = first.header("etag").unwrap().to_owned();
    assert_eq!(first.header("cache-control"), Some("private, no-cache"));
    let again = http::get_with(&url, &[("If-None-Match", &tag)]).unwrap();
    assert_eq!((again.status, again.text.as_str(), again.header("etag")), (304, "", Some(tag.as_str())));
    let csv = http::get_with(&url, &[("If-None-Match", &tag), ("Accept", "text/csv")]).unwrap();
    assert_eq!(csv.status, 200, "another form is another answer");
    send(&world, 2, 50);
    world.settle();
    let other = http::get_with(&url, &[("If-None-Match", &tag)]).unwrap();
    assert_eq!(other.status, 200);
    assert_ne!(other.header("etag"), Some(tag.as_str()));
}

#[test]
fn a_report_that_nobody_waits_for_is_stopped_in_sqlite_too() {
    let folder = tempfile::tempdir().unwrap();
    let url = sqlite(&folder.path().join("ess.db"));
    block_on(async {
        let writer = open(&url).await;
        // Rollups without end.
        for sql in [
            "ALTER TABLE rollups RENAME TO hidden",
            "CREATE VIEW rollups AS WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n)
             SELECT 1440 AS minutes, x AS at, 1 AS event_type, 0 AS shard, 1 AS source, 1 AS funnel_stage,
                x AS events, 0 AS transactions, 0 AS revenue_units, 0 AS revenue_micros FROM n",
        ] {
            writer.execute(sql).await.unwrap();
        }
        let reader = Store::connect(&url, Purpose::Read { connections: 1 }).await.unwrap();
        let reports = Reports::new(reader, 1 << 20);
        for turn in 0..3 {
            let report = reports.begin().await.unwrap();
            let filter = Filter::default();
            let counting = report.count_events(&filter, None);
            let waited = tokio::time::timeout(Duration::from_millis(300), counting).await;
            assert!(waited.is_err(), "turn {turn}: {waited:?}");
            drop(report);
            // There is one connection: it is given back, and does nothing any more.
            reports.store().check().await.unwrap();
        }
    });
}

#[test]
pub fn a_report_that_nobody_waits_for_is_stopped_in_the_database_and_too_many_are_refused() {
    let world = System::real(&[]);
    let active = || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%rollups%'
            AND pid <> pg_backend_pid()";
        world.database.query(sql)[0].parse::<usize>().unwrap()
    };
    // Nobody can read the rollups for a while.
    world.damage(
        "CREATE FUNCTION hold() RETURNS void LANGUAGE plpgsql AS $$ BEGIN
        LOCK TABLE rollups IN ACCESS EXCLUSIVE MODE; PERFORM pg_sleep(12); END $$",
    );
    std::thread::scope(|scope| {
        let holder = scope.spawn(|| world.database.query("SELECT hold()"));
        eventually("the table is held", MINUTE, || {
            let sql = "SELECT 1 FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted
                AND relation = 'rollups'::regclass";
            (!world.database.query(sql).is_empty()).then_some(())
        });
        let address = world.reporter_url("/").replace("http://", "").replace('/', "");
        let request = format!("GET /reports/events HTTP/1.1\r\nHost: {address}\r\n\r\n");
        let connect = || {
            use std::io::Write;
            let mut connection = std::net::TcpStream::connect(&address).unwrap();
            connection.write_all(request.as_bytes()).unwrap();
            connection
        };
        let client = connect();
        eventually("a report waits", MINUTE, || (active() == 1).then_some(()));
        drop(client);
        eventually("it is stopped", Duration::from_secs(5), || (active() == 0).then_some(()));

        // As many as there is room for wait; one more is told to come again.
        let crowd: Vec<_> = (0..300).map(|_| connect()).collect();
        eventually("the pool is full", Duration::from_secs(5), || {
            let all = nodes(&world.reporter_url(""));
            let reports =
                all.iter().filter(|actor| actor["name"].as_str().unwrap().starts_with("reporter.report."));
            let depth: u64 = reports.map(|actor| actor["mailbox"]["depth"].as_u64().unwrap()).sum();
            (depth == 256).then_some(())
        });
        let refused = http::get(&world.reporter_url("/reports/events")).unwrap();
        assert_eq!(refused.status, 503, "{}", refused.text);
        assert!(refused.text.contains("too many reports"), "{}", refused.text);
        assert!(refused.header("retry-after").is_some(), "{}", refused.text);
        drop(crowd);
        holder.join().unwrap();
    });
    let answer = eventually("reports are made again", Duration::from_secs(10), || {
        http::get(&world.reporter_url("/reports/events")).ok().filter(|answer| answer.status == 200)
    });
    assert_eq!(answer.json()["totalEvents"], 0);
}

/// A view of a city.
fn view(id: u64, user: &str, city: &str, minute: i64) -> String {
    let time = chrono::DateTime::from_timestamp(minute * 60, 0).unwrap().to_rfc3339();
    json!({"eventId": format!("v-{id}"), "timestamp": time, "source": "facebook", "funnelStage": "top",
        "eventType": "ad.view",
        "data": {"user": {"userId": user, "name": "N", "age": 30, "gender": "male",
                 "location": {"country": "Land", "city": city}},
                 "engagement": {"actionTime": time, "referrer": "groups", "videoId": null}}})
    .to_string()
}

/// The first cities, as a report tells them, and whether it says that they are all exact.
async fn first_cities(reports: &Reports, limit: usize) -> (Vec<(String, u64)>, u64) {
    let report = reports.begin().await.unwrap();
    let audience = report.audiences(&Filter::default(), limit).await.unwrap().swap_remove(0).1;
    report.end().await.unwrap();
    let name = |(group, users)| match group {
        Dimension::City(_, city) => (city.to_string(), users),
        other => panic!("{other:?} is no city"),
    };
    (audience.cities.into_iter().map(name).collect(), audience.cities_error_bound)
}

fn most(users: impl IntoIterator<Item = (String, u64)>, limit: usize) -> Vec<(String, u64)> {
    let mut all: Vec<_> = users.into_iter().collect();
    all.sort_by(|left, right| right.1.cmp(&left.1).then_with(|| left.0.cmp(&right.0)));
    all.truncate(limit);
    all
}

/// Asks for the first cities before folding, after it, and in wider spans: always the same, and right.
async fn cities_stay(store: &Store, expected: &[(String, u64)]) {
    let reports = Reports::new(store.clone(), 256 << 20);
    let ask = async || first_cities(&reports, expected.len()).await;
    assert_eq!(ask().await, (expected.to_vec(), 0), "not folded");
    assert_eq!(ask().await, (expected.to_vec(), 0), "not folded, and asked again");
    store.fold_summaries(Source::FACEBOOK).await.unwrap();
    assert_eq!(ask().await, (expected.to_vec(), 0), "folded");
    store_sql(store, "UPDATE summaries SET touched_at = 0").await;
    while store.refresh_summaries(Source::FACEBOOK).await.unwrap() > 0 {}
    assert_eq!(ask().await, (expected.to_vec(), 0), "in wider spans");
}

#[test]
fn a_city_of_a_new_user_an_hour_is_first_beside_a_thousand_others_in_each_hour() {
    let stores = stores();
    for url in &stores.urls {
        block_on(async {
            let store = open(url).await;
            let mut expected = vec![("First".to_owned(), 24)];
            for hour in 0..24 {
                let minute = 28_000_020 + hour as i64 * 60;
                let mut events = vec![view(hour * 10_000, &format!("f-{hour}"), "First", minute)];
                for other in 0..1_001 {
                    for user in 0..2 {
                        let id = hour * 10_000 + 2 * other + user + 1;
                        events.push(view(id, &format!("u-{id}"), &format!("h{hour}-{other}"), minute));
                    }
                    expected.push((format!("h{hour}-{other}"), 2));
                }
                write(&store, hour + 1, &events).await;
            }
            cities_stay(&store, &most(expected, 50)).await;
        });
    }
}

#[test]
fn cities_of_the_real_publishers_mix_are_exact_in_whatever_order_they_are_folded() {
    let stores = stores();
    for url in &stores.urls {
        block_on(async {
            let store = open(url).await;
            let mut generator = ess::publisher::generate::Generator::new(Some(7), Default::default());
            let mut users: BTreeMap<String, HashSet<String>> = BTreeMap::new();
            let mut sequence = 0;
            for hour in 0..3_u64 {
                let mut events: Vec<String> = Vec::new();
                while events.len() < 10_000 {
                    let mut event: Value = serde_json::from_str(&generator.event()).unwrap();
                    if event["source"] != "facebook" {
                        continue;
                    }
                    event["timestamp"] = json!(format!("2026-03-01T{hour:02}:30:00Z"));
                    // As one country: two thirds of a city's events would otherwise be of another one.
                    event["data"]["user"]["location"]["country"] = json!("Land");
                    let text = |value: &Value| value.as_str().unwrap().to_owned();
                    let user = &event["data"]["user"];
                    users.entry(text(&user["location"]["city"])).or_default().insert(text(&user["userId"]));
                    events.push(event.to_string());
                }
                for part in events.chunks(2_500) {
                    sequence += 1;
                    write(&store, sequence, part).await;
                }
            }
            assert!(users.len() > 8_000, "{} cities", users.len());
            let expected = most(users.into_iter().map(|(city, users)| (city, users.len() as u64)), 50);
            cities_stay(&store, &expected).await;
        });
    }
}

#[test]
fn two_hundred_thousand_cities_are_exact() {
    let stores = stores();
    for url in &stores.urls {
        block_on(async {
            let store = open(url).await;
            let mut chance = Chance(5);
            let mut users: BTreeMap<String, HashSet<u64>> = BTreeMap::new();
            let mut id = 0;
            for sequence in 1..=26 {
                let events: Vec<String> = (0..10_000)
                    .map(|_| {
                        id += 1;
                        // Nearly each event another city, and a few with more.
                        let city = match chance.below(40) {
                            0 => chance.below(300),
                            _ => 300 + id,
                        };
                        let user = chance.below(200_000);
                        users.entry(format!("city {city}")).or_default().insert(user);
                        let minute = 28_000_000 + chance.below(3 * 60) as i64;
                        view(id, &format!("u-{user}"), &format!("city {city}"), minute)
                    })
                    .collect();
                write(&store, sequence, &events).await;
            }
            assert!(users.len() > 200_000, "{} cities", users.len());
            let expected = most(users.into_iter().map(|(city, users)| (city, users.len() as u64)), 50);
            cities_stay(&store, &expected).await;
            for day in store.days(&(0..i64::MAX)).await.unwrap() {
                assert_eq!(store.compare_day(day, false).await.unwrap().count(), 0, "day {day}");
            }
        });
    }
}

#[test]
fn a_delta_is_another_one_if_its_id_is_given_again() {
    let stores = stores();
    for url in &stores.urls {
        block_on(async {
            let store = open(url).await;
            let reports = Reports::new(store.clone(), 64 << 20);
            write(&store, 1, &[view(1, "u-1", "Before", 28_000_000)]).await;
            assert_eq!(first_cities(&reports, 5).await.0, [("Before".to_owned(), 1)]);
            let ids = "SELECT max(id) FROM summary_deltas";
            let before = number(&store, ids).await;
            // As after a failover to a server that had not got the last transaction.
            store_sql(&store, "DELETE FROM summary_deltas").await;
            if store.is_postgres() {
                let sql = format!("SELECT setval('summary_deltas_id_seq', {before}, false)");
                store_sql(&store, &sql).await;
            } else {
                store_sql(&store, "DELETE FROM sqlite_sequence").await;
            }
            write(&store, 2, &[view(2, "u-2", "After", 28_000_000)]).await;
            assert_eq!(number(&store, ids).await, before, "the id is given again");
            assert_eq!(first_cities(&reports, 5).await.0, [("After".to_owned(), 1)]);
        });
    }
}

#[test]
fn what_waits_in_very_many_deltas_is_told_as_if_it_were_in_one() {
    let stores = stores();
    for url in &stores.urls {
        block_on(async {
            let store = open(url).await;
            let mut chance = Chance(11);
            let first = 28_000_000_i64;
            let mut id = 0;
            for sequence in 1..=200 {
                let events: Vec<String> = (0..40)
                    .map(|_| {
                        id += 1;
                        let minute = first + chance.below(30 * 1_440) as i64;
                        checkout(id, &format!("u-{}", chance.below(900)), "c", minute, 100)
                    })
                    .collect();
                write(&store, sequence, &events).await;
            }
            let reports = Reports::new(store.clone(), 256 << 20);
            let ranges =
                [(None, None), (Some(first + 61), Some(first + 20_000)), (Some(first), Some(first + 60))];
            let ask = async |reports: &Reports| {
                let mut told = Vec::new();
                for (from, to) in ranges {
                    let report = reports.begin().await.unwrap();
                    let filter = Filter { from, to, ..Filter::default() };
                    told.push(report.audiences(&filter, 1_000).await.unwrap().swap_remove(0).1);
                    report.end().await.unwrap();
                }
                told
            };
            // Without a cache each delta is read by itself.
            let expected = ask(&Reports::new(store.clone(), 0)).await;
            assert_eq!((expected[0].events, expected[0].estimated), (8_000, false));
            // Blocks are made beside reports: with each question more of them are there.
            for _ in 0..40 {
                assert_eq!(ask(&reports).await, expected);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            for more in 0..3 {
                let event = checkout(90_000 + more, "u-1", "c", first + 5, 1);
                write(&store, 300 + more, &[event]).await;
                assert_eq!(ask(&reports).await, ask(&Reports::new(store.clone(), 0)).await);
            }
            let not_folded = ask(&reports).await;
            assert_eq!(not_folded[0].events, 8_003);
            // Some of it is left: other blocks than before.
            store_sql(&store, "UPDATE summary_deltas SET source = 2 WHERE id % 9 = 0").await;
            assert_eq!(ask(&reports).await, ask(&Reports::new(store.clone(), 0)).await);
            store_sql(&store, "UPDATE summary_deltas SET source = 1").await;
            store.fold_summaries(Source::FACEBOOK).await.unwrap();
            assert_eq!(ask(&reports).await, not_folded);
            // Each hour was written, and most of what is around them.
            assert_eq!(number(&store, "SELECT count(*) FROM summary_deltas").await, 0);
            let narrow = "SELECT count(*) FROM summaries WHERE stale AND level BETWEEN 1 AND 3";
            assert_eq!(number(&store, narrow).await, 0, "made with the hours in them");
            for day in store.days(&(0..i64::MAX)).await.unwrap() {
                assert_eq!(store.compare_day(day, false).await.unwrap().count(), 0, "day {day}");
            }
            assert_eq!(store.compare_spans(Source::FACEBOOK, false).await.unwrap(), 0);
            assert_eq!(store.compare_campaigns(Source::FACEBOOK, false).await.unwrap(), Some(0));
        });
    }
}

#[test]
fn an_event_in_each_hour_of_five_years_is_told_at_once_and_keeps_nobody_waiting() {
    const HOURS: i64 = 43_800;
    both(&[], |world| {
        let first = chrono::DateTime::parse_from_rfc3339("2020-01-01T00:00:00Z").unwrap().timestamp() / 60;
        let at = |hour: i64| first + hour * 60 + 7;
        let events: Vec<String> = (0..HOURS)
            .map(|hour| {
                view(hour as u64, &format!("u-{}", hour % 600), &format!("city {}", hour % 900), at(hour))
            })
            .collect();
        let answer = world.post(&format!("[{}]", events.join(",")));
        assert_eq!(
            (answer.status, answer.json()["accepted"].as_i64()),
            (202, Some(HOURS)),
            "{}",
            answer.text
        );
        world.settle();
        let months = "from=2021-02-03T04:30:00Z&to=2023-05-06T07:10:00Z";
        let expected = (at(0)..)
            .step_by(60)
            .take(HOURS as usize)
            .filter(|minute| (1_612_326_600 / 60 - 30..1_683_357_000 / 60 + 50).contains(minute));
        let expected = expected.count();
        let mut took = Vec::new();
        let mut waits = Vec::new();
        let began = std::time::Instant::now();
        let mut events = HOURS;
        while took.len() < 20 || began.elapsed() < Duration::from_secs(8) {
            let started = std::time::Instant::now();
            let told = world.report("/reports/demographics?limit=3&source=facebook");
            took.push(started.elapsed());
            assert_eq!(told["facebook"]["events"], events, "{told}");
            assert_eq!(told["facebook"]["users"], 600, "{told}");
            assert_eq!(told["facebook"]["citiesEstimated"], 0, "{told}");
            let part = world.report(&format!("/reports/demographics?source=facebook&{months}"));
            assert_eq!(part["facebook"]["events"], expected, "{months}");
            // The next event is a row soon, whatever is being folded.
            let started = std::time::Instant::now();
            let next = view(1_000_000 + events as u64, "u-1", "city 1", at(HOURS + 10));
            assert_eq!(world.post(&next).status, 202);
            events += 1;
            eventually("the next event is a row", MINUTE, || {
                (world.count_rows() == events as u64).then_some(())
            });
            waits.push(started.elapsed());
        }
        took.sort();
        waits.sort();
        println!("reports {took:?}, next events {waits:?}");
        // An optimized build on free cores takes a tenth of this and less; a report that read every delta anew took
        // 18 s in a debug build.
        assert!(took[took.len() / 2] < Duration::from_secs(2), "{took:?}");
        assert!(waits[waits.len() / 2] < Duration::from_secs(5), "{waits:?}");
        let left = "SELECT count(*) FROM summary_deltas";
        eventually("everything is folded", 4 * MINUTE, || {
            (world.database.query(left)[0] == "0").then_some(())
        });
        let told = world.report("/reports/demographics?limit=3&source=facebook");
        assert_eq!((&told["facebook"]["events"], &told["facebook"]["users"]), (&json!(events), &json!(600)));
    });
}

#[test]
fn a_damaged_summary_is_told_apart_stops_nobody_else_and_is_mended() {
    both(&[], |world| {
        let mut chance = Chance(17);
        let batch: Vec<Value> = (0..300).map(|n| event(&format!("d-{n}"), &mut chance)).collect();
        assert_eq!(world.post(&Value::from(batch).to_string()).status, 202);
        world.settle();
        eventually("everything is folded", MINUTE, || {
            (world.database.query("SELECT count(*) FROM summary_deltas")[0] == "0").then_some(())
        });
        let body = match world.database {
            crate::support::system::Database::Postgres(_) => "'\\x0209'::bytea",
            crate::support::system::Database::Sqlite(_) => "x'0209'",
        };
        // One hour, and nothing wider that hides it.
        world.damage("UPDATE summaries SET stale = true, body = NULL WHERE source = 1 AND level > 0");
        world.damage(&format!(
            "UPDATE summaries SET version = version + 1, touched_at = 4102444800000000, body = {body}
             WHERE source = 1 AND level = 0
             AND at = (SELECT max(at) FROM summaries WHERE source = 1 AND level = 0 AND NOT stale)"
        ));
        let asked = http::get(&world.reporter_url("/reports/demographics?source=facebook")).unwrap();
        assert_eq!(asked.status, 503, "{}", asked.text);
        assert!(asked.text.contains("is corrupt") && !asked.text.contains("unavailable"), "{}", asked.text);
        let tiktok = world.report("/reports/demographics?source=tiktok");
        assert_eq!(world.report("/reports/events")["totalEvents"], 300);
        assert_eq!(world.ess(&["rollups", "verify"]).status.code(), Some(1));
        let rebuilt = world.ess(&["rollups", "rebuild"]);
        assert!(rebuilt.status.success(), "{}", String::from_utf8_lossy(&rebuilt.stderr));
        let verified = world.ess(&["rollups", "verify"]);
        assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
        let facebook = world.report("/reports/demographics?source=facebook");
        let sum =
            facebook["facebook"]["events"].as_u64().unwrap() + tiktok["tiktok"]["events"].as_u64().unwrap();
        assert_eq!(sum, 300, "{facebook}");
    });
}

/// Collectors go on beside what cannot be read: of an hour that new events touch, and of what a transaction added.
#[test]
fn damaged_hours_and_deltas_stop_no_folding_and_no_other_report_and_are_mended() {
    both(&[], |world| {
        let is_postgres = matches!(world.database, crate::support::system::Database::Postgres(_));
        let body = if is_postgres { "'\\x0209'::bytea" } else { "x'0209'" };
        let mut sent = 0;
        let mut send = |world: &System, source: &str, time: &str, count: u64| {
            let events: Vec<Value> = (0..count)
                .map(|n| {
                    let mut made = simple(&format!("m-{}", sent + n), source);
                    made["timestamp"] = json!(format!("{time}:00:01Z"));
                    made
                })
                .collect();
            sent += count;
            assert_eq!(world.post(&Value::from(events).to_string()).status, 202);
            world.settle();
        };
        let waiting = |world: &System, deltas: &str| {
            eventually("all but damaged deltas are folded", MINUTE, || {
                let left = world.database.query("SELECT count(*) FROM summary_deltas WHERE source = 1");
                (left[0] == deltas).then_some(())
            });
        };
        let gauge = |world: &System, wanted: f64| {
            let at = world.environment.iter().find(|(name, _)| name == "ESS_FACEBOOK_COLLECTOR_PORT");
            let port = at.map(|(_, port)| port.clone());
            let port = port.unwrap_or_else(|| world.services[1].port.to_string());
            eventually("damaged summaries are counted", MINUTE, || {
                let url = format!("http://127.0.0.1:{port}/metrics");
                let series = "ess_collector_damaged_summaries{source=\"facebook\"}";
                let declared = http::get(&url).unwrap().text.contains(series);
                (declared && (http::metric(&url, series) - wanted).abs() < 0.5).then_some(())
            });
        };
        let path = |source: &str, day: &str, next: &str| {
            format!("/reports/demographics?source={source}&from={day}T00:00:00Z&to={next}T00:00:00Z")
        };
        let events = |world: &System, source: &str, (day, next): (&str, &str)| {
            world.report(&path(source, day, next))[source]["events"].as_u64().unwrap()
        };
        let refused = |world: &System, (day, next): (&str, &str), table: &str| {
            let asked = http::get(&world.reporter_url(&path("facebook", day, next))).unwrap();
            assert_eq!(asked.status, 503, "{}", asked.text);
            assert!(asked.text.contains("is corrupt") && asked.text.contains(table), "{}", asked.text);
        };
        let [first, second, third] =
            [("2026-01-05", "2026-01-06"), ("2026-03-05", "2026-03-06"), ("2026-05-05", "2026-05-06")];

        send(world, "facebook", "2026-01-05T10", 5);
        send(world, "facebook", "2026-03-05T10", 7);
        send(world, "tiktok", "2026-01-05T10", 3);
        waiting(world, "0");
        // An hour, which folding and the making of wider spans come upon.
        world.damage(&format!(
            "UPDATE summaries SET version = version + 1, body = {body} WHERE source = 1 AND level = 0
             AND at = (SELECT min(at) FROM summaries WHERE source = 1 AND level = 0)"
        ));
        world.damage(
            "UPDATE summaries SET stale = true, body = NULL, touched_at = 0 WHERE source = 1 AND level > 0",
        );
        send(world, "facebook", "2026-01-05T10", 1);
        send(world, "facebook", "2026-03-05T10", 1);
        waiting(world, "0");
        gauge(world, 1.0);
        refused(world, first, "summaries, source facebook, level 0");
        assert_eq!(events(world, "facebook", second), 8);
        assert_eq!(events(world, "tiktok", first), 3);

        // What the next transaction adds.
        let (damage, mended) = if is_postgres {
            let damage = "CREATE FUNCTION damage() RETURNS trigger LANGUAGE plpgsql
                    AS $$ BEGIN IF NEW.source = 1 THEN NEW.body = '\\x0209'; END IF; RETURN NEW; END $$;
                CREATE TRIGGER damage BEFORE INSERT ON summary_deltas FOR EACH ROW EXECUTE FUNCTION damage()";
            (damage, "DROP TRIGGER damage ON summary_deltas")
        } else {
            let damage = "CREATE TRIGGER damage AFTER INSERT ON summary_deltas WHEN NEW.source = 1
                BEGIN UPDATE summary_deltas SET body = x'0209' WHERE id = NEW.id; END";
            (damage, "DROP TRIGGER damage")
        };
        world.damage(damage);
        send(world, "facebook", "2026-05-05T10", 4);
        world.damage(mended);
        gauge(world, 2.0);
        send(world, "facebook", "2026-03-05T10", 2);
        waiting(world, "1");
        // It does not tell which hours it is of.
        refused(world, first, "corrupt");
        refused(world, second, "summary_deltas, source facebook");
        assert_eq!(events(world, "tiktok", first), 3);
        assert_eq!(world.report("/reports/events")["totalEvents"], 23);

        let said = |done: &std::process::Output| String::from_utf8_lossy(&done.stdout).into_owned();
        let some = world.ess(&["rollups", "rebuild", "--from", "2026-01-05", "--to", "2026-01-06"]);
        assert_eq!(some.status.code(), Some(1), "{}", said(&some));
        assert!(said(&some).contains("1 damaged summaries remain"), "{}", said(&some));
        gauge(world, 1.0);
        assert_eq!(world.ess(&["rollups", "verify"]).status.code(), Some(1));
        let all = world.ess(&["rollups", "rebuild"]);
        assert_eq!(all.status.code(), Some(0), "{}", said(&all));
        assert!(!said(&all).contains("remain"), "{}", said(&all));
        let verified = world.ess(&["rollups", "verify"]);
        assert_eq!(verified.status.code(), Some(0), "{}", said(&verified));
        gauge(world, 0.0);
        waiting(world, "0");
        for (range, count) in [(first, 6), (second, 10), (third, 4)] {
            assert_eq!(events(world, "facebook", range), count, "{range:?}");
        }
        // Each was named once.
        let lines: Vec<Value> = world
            .services
            .iter()
            .flat_map(|service| service.lines("\"target\":\"ess::store::summary::damaged\""))
            .collect();
        let errors = lines.iter().filter(|line| line["level"] == "ERROR").count();
        assert_eq!((lines.len(), errors), (2, 2), "{lines:?}");
    });
}

#[test]
fn two_events_far_apart_are_verified_and_rebuilt_at_once() {
    both(&[], |world| {
        for (id, time) in [("first", "1970-01-01T00:00:00Z"), ("last", "2199-12-31T23:59:59Z")] {
            let mut made = simple(id, "facebook");
            made["timestamp"] = json!(time);
            assert_eq!(world.post(&made.to_string()).status, 202);
        }
        world.settle();
        for command in ["verify", "rebuild"] {
            let started = std::time::Instant::now();
            let done = world.ess(&["rollups", command]);
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
            // It was 276 s when every day between them was asked for.
            assert!(started.elapsed() < Duration::from_secs(20), "{command}: {:?}", started.elapsed());
        }
    });
}
