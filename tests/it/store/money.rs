//! Amounts and their sums are exact.

use ess::event::Source;
use ess::store::report::Filter;
use sea_orm::ConnectionTrait;
use serde_json::{Value, json};

use super::{at, write};
use crate::support::block_on;
use crate::support::events::{Chance, simple};
use crate::support::stores::{frame, number, open, origin, plain, stores};

#[test]
fn amounts_survive_the_round_trip_through_both_databases() {
    let stores = stores();
    let mut chance = Chance(77);
    let mut amounts: Vec<String> = [
        "0",
        "0.1",
        "0.10",
        "0.000001",
        "999999999999.999999",
        "261.96",
        "007.50",
        "1000000",
        "123456789012.5",
    ]
    .map(str::to_owned)
    .to_vec();
    for _ in 0..300 {
        let whole = chance.below(10_u64.pow(1 + chance.clone().below(12) as u32));
        let decimals = chance.below(7) as usize;
        let fraction = format!("{:06}", chance.below(1_000_000));
        amounts.push(if decimals == 0 {
            whole.to_string()
        } else {
            format!("{whole}.{}", &fraction[..decimals])
        });
    }
    // The expected sum, in millionths, computed apart from the code under test.
    let micros = |text: &str| -> i128 {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        format!("{whole}{fraction:0<6}").parse().unwrap()
    };
    let expected: i128 = amounts.iter().map(|text| micros(text)).sum();
    let events: Vec<String> = amounts
        .iter()
        .enumerate()
        .map(|(n, amount)| {
            let mut made: Value = simple(&format!("m-{n}"), "facebook");
            made["funnelStage"] = json!("bottom");
            made["eventType"] = json!("checkout.complete");
            made["data"]["engagement"] = json!({"adId": "a", "campaignId": "c", "clickPosition": "center",
                "device": "mobile", "browser": "Safari", "purchaseAmount": amount});
            made.to_string()
        })
        .collect();
    for url in &stores.urls {
        block_on(async {
            let store = open(url).await;
            let origin = origin();
            assert_eq!(write(&store, vec![frame(1, 1, &origin, &events)]).await.stored, events.len() as u64);
            let reports = ess::store::report::Reports::new(store.clone(), 0);
            let report = reports.begin().await.unwrap();
            let sums = report.sum_revenue(&Filter::default(), None).await.unwrap();
            report.end().await.unwrap();
            assert_eq!(sums.iter().map(|sum| sum.total()).sum::<i128>(), expected);
            let sql_connection = plain(url).await;
            for (n, amount) in amounts.iter().enumerate() {
                let sql =
                    format!("SELECT CAST(revenue AS text) AS revenue FROM events WHERE event_id = 'm-{n}'");
                let query = sea_orm::Statement::from_string(sql_connection.get_database_backend(), sql);
                let row = sql_connection.query_one_raw(query).await.unwrap().unwrap();
                let read: String = row.try_get("", "revenue").unwrap();
                assert_eq!(micros(&read), micros(amount), "{amount} came back as {read}");
            }
        });
    }
}

/// A sale of a campaign, with the largest valid amount.
fn largest_sale(id: &str) -> String {
    let mut made: Value = simple(id, "facebook");
    made["funnelStage"] = json!("bottom");
    made["eventType"] = json!("checkout.complete");
    made["data"]["engagement"] = json!({"adId": "a", "campaignId": "c", "clickPosition": "center",
        "device": "mobile", "browser": "Safari", "purchaseAmount": "999999999999.999999"});
    made.to_string()
}

#[test]
fn sums_beyond_64_bits_are_exact_and_can_be_rebuilt() {
    const LARGEST: i128 = 999_999_999_999_999_999;
    /// Units that are put into the tables as counted before.
    const BEFORE: i128 = 999_999_999_999_999_990;
    let stores = stores();
    for url in &stores.urls {
        block_on(async {
            let store = open(url).await;
            let origin = origin();
            let reports = ess::store::report::Reports::new(store.clone(), 0);
            let totals = async || {
                let report = reports.begin().await.unwrap();
                let filter = Filter::default();
                let sum: i128 =
                    report.sum_revenue(&filter, None).await.unwrap().iter().map(|sum| sum.total()).sum();
                let one = Filter { campaign_id: Some("c".to_owned()), ..filter.clone() };
                let rows: i128 =
                    report.sum_revenue(&one, None).await.unwrap().iter().map(|sum| sum.total()).sum();
                report.end().await.unwrap();
                let high = number(&store, "SELECT max(high) FROM campaigns").await;
                let units = number(&store, "SELECT max(units) FROM campaigns").await;
                let micros = number(&store, "SELECT max(micros) FROM campaigns").await;
                let campaign = (i128::from(high) * 1_000_000_000_000_000_000 + i128::from(units)) * 1_000_000
                    + i128::from(micros);
                (sum, rows, campaign)
            };
            let mut places = 1..;
            let mut add = async |count: usize| {
                let place = places.next().unwrap();
                let ids: Vec<String> = (0..count).map(|n| largest_sale(&format!("{place}-{n}"))).collect();
                assert_eq!(write(&store, at(place, &origin, &ids)).await.stored, count as u64);
                store.fold_summaries(Source::FACEBOOK).await.unwrap();
            };
            add(3).await;
            assert_eq!(totals().await, (3 * LARGEST, 3 * LARGEST, 3 * LARGEST));
            for (table, column) in [("rollups", "revenue_units"), ("campaigns", "units")] {
                let sql = format!("UPDATE {table} SET {column} = {BEFORE}");
                store.execute(&sql).await.unwrap();
            }
            add(5).await;
            let counted = BEFORE * 1_000_000 + 3 * 999_999 + 5 * LARGEST;
            // The campaign carried three whole units from its millionths before.
            let carried = BEFORE * 1_000_000 + 999_997 + 5 * LARGEST;
            assert_eq!(totals().await, (counted, 8 * LARGEST, carried));
            let (mut found, mut days) = (0, 0);
            for day in store.days(&(0..i64::MAX)).await.unwrap() {
                found += store.compare_day(day, true).await.unwrap().count();
                days += 1;
                assert_eq!(store.compare_day(day, false).await.unwrap().count(), 0, "mended");
            }
            assert!(days == 1 && found >= 5, "{found} differences of {days} days");
            assert_eq!(store.compare_campaigns(Source::FACEBOOK, true).await.unwrap(), Some(1));
            assert_eq!(store.compare_campaigns(Source::FACEBOOK, true).await.unwrap(), Some(0));
            assert_eq!(totals().await, (8 * LARGEST, 8 * LARGEST, 8 * LARGEST));
        });
    }
}
