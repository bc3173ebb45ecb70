//! Money is never added across currencies.

use std::collections::BTreeMap;

use ess::event::Source;
use ess::money::Currency;
use ess::store::report::{Filter, Reports};
use ess::store::{Batch, BatchFrame, Store};
use sea_orm::ConnectionTrait;
use serde_json::{Value, json};

use crate::support::block_on;
use crate::support::events::{Chance, simple};
use crate::support::stores::{frame, log, number, open, origin, plain, stores};

const EURO: &str = "EUR";
/// First minute of the sales: 2026-03-01.
const FIRST: i64 = 29_538_720;

fn currency(code: &str) -> Currency {
    Currency::parse(code).unwrap()
}

/// A sale as the test knows it.
#[derive(Debug, Clone)]
struct Sale {
    /// The currency that the event tells.
    told: Option<&'static str>,
    campaign: String,
    minute: i64,
    micros: i64,
}

impl Sale {
    fn event(&self, id: usize) -> String {
        let mut made: Value = simple(&format!("s-{id}"), "facebook");
        let time = chrono::DateTime::from_timestamp(self.minute * 60 + 7, 0).unwrap().to_rfc3339();
        made["timestamp"] = json!(time);
        made["funnelStage"] = json!("bottom");
        made["eventType"] = json!("checkout.complete");
        made["data"]["engagement"] = json!({"adId": "a", "campaignId": self.campaign, "clickPosition": "center",
            "device": "mobile", "browser": "Safari",
            "purchaseAmount": format!("{}.{:06}", self.micros / 1_000_000, self.micros % 1_000_000)});
        made.to_string()
    }
}

/// Random sales of two days in dollars (told or not), euros and yen; two of each three in one of few campaigns.
fn sales(seed: u64, count: usize, campaigns: u64) -> Vec<Sale> {
    let mut chance = Chance(seed);
    let one = |_| Sale {
        told: [None, None, Some("USD"), Some(EURO), Some("JPY")][chance.below(5) as usize],
        campaign: format!("c-{}", chance.below(campaigns)),
        minute: FIRST + if chance.below(3) == 0 { 5 } else { chance.below(2_880) as i64 },
        micros: chance.below(90_000_000_000) as i64,
    };
    (0..count).map(one).collect()
}

/// Stores sales as one frame, whose amounts are in the store's currency where they tell none.
async fn write(store: &Store, place: u64, sales: &[Sale]) {
    let origin = origin();
    let events: Vec<String> =
        sales.iter().enumerate().map(|(n, sale)| sale.event(place as usize * 100_000 + n)).collect();
    let mut frame: BatchFrame<'_> = frame(place, place, &origin, &events);
    for (row, sale) in frame.rows.iter_mut().zip(sales) {
        row.event.columns.currency = sale.told.map(currency);
    }
    let mut batch = Batch { source: Source::FACEBOOK, log_id: log(), frames: vec![frame] };
    batch.set_currency(store.currency());
    assert_eq!(store.write(&batch).await.unwrap().stored, sales.len() as u64);
}

type Totals = BTreeMap<String, (i64, i128)>;

/// Transactions and revenue by currency of sales in a range, computed apart from the code under test.
fn expected(sales: &[Sale], (from, to): (i64, i64), campaign: Option<&str>) -> Totals {
    let mut totals = Totals::new();
    let within = sales.iter().filter(|sale| (from..to).contains(&sale.minute));
    for sale in within.filter(|sale| campaign.is_none_or(|campaign| campaign == sale.campaign)) {
        let total = totals.entry(sale.told.unwrap_or("USD").to_owned()).or_default();
        total.0 += 1;
        total.1 += i128::from(sale.micros);
    }
    totals
}

/// The same by the report.
async fn reported(
    reports: &Reports,
    (from, to): (i64, i64),
    campaign: Option<&str>,
    interval: Option<i64>,
) -> Totals {
    let report = reports.begin().await.unwrap();
    let campaign_id = campaign.map(str::to_owned);
    let filter = Filter { from: Some(from), to: Some(to), campaign_id, ..Filter::default() };
    let mut totals = Totals::new();
    for sum in report.sum_revenue(&filter, interval).await.unwrap() {
        let total = totals.entry(Currency::from_number(sum.currency).to_string()).or_default();
        total.0 += sum.transactions;
        total.1 += sum.total();
    }
    totals
}

/// The campaigns of sales in one currency, ranked.
fn expected_campaigns(sales: &[Sale], (from, to): (i64, i64), code: &str) -> Vec<(String, u64, i128)> {
    let mut sums: BTreeMap<&str, (u64, i128)> = BTreeMap::new();
    let within = sales.iter().filter(|sale| (from..to).contains(&sale.minute));
    for sale in within.filter(|sale| sale.told.unwrap_or("USD") == code) {
        let sum = sums.entry(&sale.campaign).or_default();
        sum.0 += 1;
        sum.1 += i128::from(sale.micros);
    }
    let mut sums: Vec<_> =
        sums.into_iter().map(|(name, (count, sum))| (name.to_owned(), count, sum)).collect();
    sums.sort_by(|left, right| right.2.cmp(&left.2).then_with(|| left.0.cmp(&right.0)));
    sums.truncate(50);
    sums
}

async fn assert_reports(store: &Store, sales: &[Sale]) {
    for cache in [0, 16 << 20] {
        let reports = Reports::new(store.clone(), cache);
        for range in [(FIRST, FIRST + 2_880), (FIRST + 5, FIRST + 6), (FIRST + 61, FIRST + 1_500)] {
            for interval in [None, Some(60)] {
                assert_eq!(reported(&reports, range, None, interval).await, expected(sales, range, None));
                let one = Some("c-1");
                assert_eq!(reported(&reports, range, one, interval).await, expected(sales, range, one));
            }
            for code in ["USD", EURO, "JPY", "CHF"] {
                let filter = Filter {
                    from: Some(range.0),
                    to: Some(range.1),
                    currency: currency(code),
                    ..Filter::default()
                };
                let report = reports.begin().await.unwrap();
                let found = report.top_campaigns(&filter, 50).await.unwrap();
                let found: Vec<_> =
                    found.into_iter().map(|sum| (sum.campaign_id, sum.transactions, sum.total)).collect();
                assert_eq!(found, expected_campaigns(sales, range, code), "{code} {range:?}");
            }
        }
    }
}

async fn assert_agrees(store: &Store) {
    for day in store.days(&(0..i64::MAX)).await.unwrap() {
        let found = store.compare_day(day, false).await.unwrap();
        assert_eq!(found.count(), 0, "{found:?}");
    }
    assert_eq!(store.compare_spans(Source::FACEBOOK, false).await.unwrap(), 0);
    assert_eq!(store.compare_campaigns(Source::FACEBOOK, false).await.unwrap(), Some(0));
}

/// Reports of as many campaigns, unfolded, folded and refreshed, equal the sums over the sales.
fn assert_all(campaigns: u64) {
    let stores = stores();
    for url in &stores.urls {
        block_on(async {
            let store = open(url).await;
            let mut all = Vec::new();
            for place in 1..=4 {
                let some = sales(campaigns + place, 2_500, campaigns);
                write(&store, place, &some).await;
                all.extend(some);
                assert_reports(&store, &all).await;
                if place == 2 {
                    store.fold_summaries(Source::FACEBOOK).await.unwrap();
                    assert_reports(&store, &all).await;
                }
            }
            store.fold_summaries(Source::FACEBOOK).await.unwrap();
            store.execute("UPDATE summaries SET touched_at = 0").await.unwrap();
            store.refresh_all_summaries(Source::FACEBOOK).await.unwrap();
            assert_reports(&store, &all).await;
            assert_agrees(&store).await;
        });
    }
}

#[test]
fn campaigns_and_minutes_of_several_currencies_are_summed_up_by_currency() {
    assert_all(7);
}

#[test]
fn more_campaigns_than_summaries_list_are_ranked_by_currency() {
    assert_all(1 << 30);
}

#[test]
fn a_wrong_currency_is_found_and_mended() {
    let stores = stores();
    for url in &stores.urls {
        block_on(async {
            let store = open(url).await;
            let all = sales(3, 1_500, 5);
            write(&store, 1, &all).await;
            store.fold_summaries(Source::FACEBOOK).await.unwrap();
            assert_agrees(&store).await;
            let (euro, yen, franc) = (978, 392, 756);
            for damage in [
                format!("UPDATE rollups SET currency = {franc} WHERE currency = {euro} AND minutes = 60"),
                format!("UPDATE rollups SET revenue_units = revenue_units + 1 WHERE currency = {yen}"),
                format!("UPDATE campaigns SET currency = {franc} WHERE currency = {yen}"),
                format!("UPDATE campaigns SET units = units + 1 WHERE currency = {euro}"),
                // The rows of one hour are in another currency than its summary says.
                "UPDATE summaries SET version = version + 1, body = (SELECT o.body FROM summaries o
                    WHERE o.level = 0 AND o.body IS NOT NULL ORDER BY o.at LIMIT 1)
                    WHERE level = 0 AND at % 5 = 0"
                    .to_owned(),
            ] {
                store.execute(&damage).await.unwrap();
                let (mut found, mut mended) = (0, 0);
                for mend in [false, true] {
                    let mut differences = 0;
                    for day in store.days(&(0..i64::MAX)).await.unwrap() {
                        differences += store.compare_day(day, mend).await.unwrap().count();
                    }
                    let wrong = store.compare_campaigns(Source::FACEBOOK, mend).await.unwrap().unwrap();
                    differences += wrong as usize;
                    (found, mended) = if mend { (found, differences) } else { (differences, 0) };
                }
                assert!(found > 0 && found == mended, "{damage}: {found} and {mended}");
                store.refresh_all_summaries(Source::FACEBOOK).await.unwrap();
                store.execute("UPDATE summaries SET touched_at = 0").await.unwrap();
                store.refresh_all_summaries(Source::FACEBOOK).await.unwrap();
                assert_agrees(&store).await;
                assert_reports(&store, &all).await;
            }
        });
    }
}

#[test]
fn the_view_has_the_code_of_each_amount_and_none_without_one() {
    let stores = stores();
    for url in &stores.urls {
        block_on(async {
            let store = open(url).await.with_currency(currency("CHF"));
            let all: Vec<Sale> = [None, Some(EURO), Some("JPY")]
                .map(|told| Sale { told, campaign: "c".to_owned(), minute: FIRST, micros: 5_000_000 })
                .to_vec();
            write(&store, 1, &all).await;
            let view = simple("view", "facebook").to_string();
            let origin = origin();
            let mut no_sale: Value = serde_json::from_str(&view).unwrap();
            no_sale["funnelStage"] = json!("top");
            no_sale["eventType"] = json!("ad.view");
            no_sale["data"]["engagement"] =
                json!({"actionTime": "2026-03-01T00:00:00Z", "referrer": "groups", "videoId": null});
            let events = [no_sale.to_string()];
            let mut batch = Batch {
                source: Source::FACEBOOK,
                log_id: log(),
                frames: vec![frame(2, 2, &origin, &events)],
            };
            batch.set_currency(store.currency());
            store.write(&batch).await.unwrap();
            let connection = plain(url).await;
            let sql = "SELECT coalesce(currency, '-') AS code FROM events ORDER BY event_id";
            let query = sea_orm::Statement::from_string(connection.get_database_backend(), sql);
            let rows = connection.query_all_raw(query).await.unwrap();
            let codes: Vec<String> = rows.iter().map(|row| row.try_get("", "code").unwrap()).collect();
            assert_eq!(codes, ["CHF", "EUR", "JPY", "-"]);
            assert_agrees(&store).await;
        });
    }
}

#[test]
fn amounts_of_a_version_without_currencies_are_in_the_configured_one() {
    use migration::{Migrator, MigratorTrait};
    let stores = stores();
    for url in &stores.urls {
        block_on(async {
            let store = open(url).await;
            let before: Vec<Sale> =
                sales(9, 900, 4).into_iter().map(|sale| Sale { told: None, ..sale }).collect();
            write(&store, 1, &before[..500]).await;
            store.fold_summaries(Source::FACEBOOK).await.unwrap();
            // These stay deltas.
            write(&store, 2, &before[500..]).await;
            let steps = Migrator::migrations().len()
                - Migrator::migrations().iter().position(|one| one.name().contains("currencies")).unwrap();
            Migrator::down(&plain(url).await, Some(steps as u32)).await.unwrap();
            assert_eq!(number(&store, "SELECT count(*) FROM event_rows").await, 900);

            let euros = store.clone().with_currency(currency(EURO));
            euros.migrate().await.unwrap();
            let mut all: Vec<Sale> =
                before.into_iter().map(|sale| Sale { told: Some(EURO), ..sale }).collect();
            assert_reports(&euros, &all).await;
            assert_agrees(&euros).await;
            // Another currency than that of the upgrade adds nothing to the amounts from before.
            let some = sales(10, 700, 4);
            write(&store, 3, &some).await;
            all.extend(some);
            euros.fold_summaries(Source::FACEBOOK).await.unwrap();
            assert_reports(&euros, &all).await;
            assert_agrees(&euros).await;
            let refused = Migrator::down(&plain(url).await, Some(steps as u32)).await;
            assert!(
                refused.unwrap_err().to_string().contains("several currencies"),
                "they would be added up"
            );
            assert_reports(&euros, &all).await;
        });
    }
}
