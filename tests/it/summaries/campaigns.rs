//! The first campaigns of a range are exact, however many campaigns there are.

use std::collections::BTreeMap;

use ess::event::Source;
use ess::store::report::{Filter, Reports};
use ess::store::{Purpose, Store};

use super::{checkout, execute, write};
use crate::support::block_on;
use crate::support::events::Chance;
use crate::support::stores::{number, open, stores};

/// Pages of `event_rows` and its indexes that all sessions have read.
const PAGES: &str = "SELECT sum(heap_blks_read + heap_blks_hit + idx_blks_read + idx_blks_hit)
    FROM pg_statio_user_tables WHERE relname = 'event_rows'";

/// The first campaigns of a range, computed without the code under test.
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

/// Compares the ranks of a number of campaigns with 48,000 checkouts over four days, at random prices in cents.
fn assert_ranked(campaigns: u64, cents: std::ops::Range<u64>) {
    let stores = stores();
    for url in &stores.urls {
        block_on(assert_ranked_in(url, campaigns, &cents));
    }
}

async fn assert_ranked_in(url: &str, campaigns: u64, cents: &std::ops::Range<u64>) {
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
            // As an earlier version leaves it: it does not count the revenue of the first and last minute.
            let added = "UPDATE campaigns SET ends_of = ends_of - 1, first_units = 1000000,
                    last_units = 1000000 WHERE units % 3 = 0";
            execute(&store, added).await;
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
fn campaigns_of_equal_revenue_are_ranked_by_id() {
    // Each with one sale, all at one price.
    assert_ranked(1 << 40, 5_000..5_001);
}

#[test]
pub fn few_campaigns_are_ranked_exactly() {
    assert_ranked(30, PRICES);
}

#[test]
fn as_many_campaigns_as_events_are_ranked_exactly() {
    assert_ranked(1 << 40, PRICES);
}

#[test]
fn campaigns_of_a_few_sales_each_are_ranked_exactly() {
    assert_ranked(20_000, PRICES);
}

#[test]
fn some_thousand_campaigns_are_ranked_exactly() {
    assert_ranked(4_000, PRICES);
}

#[test]
fn a_report_that_is_asked_often_reads_as_few_pages_as_at_first() {
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
        let mut pages = Vec::new();
        for _ in 0..16 {
            let report = reports.begin().await.unwrap();
            let top = report.top_campaigns(&filter, 50).await.unwrap();
            assert_eq!((top.len(), top[0].transactions, top[0].total), (50, 1, 11_002_990_000));
            report.end().await.unwrap();
            // The reader has one connection: its statistics are written out at the end of this statement.
            reports.store().query_number("SELECT count(pg_stat_force_next_flush())").await.unwrap();
            pages.push(number(&store, PAGES).await);
        }
        let each: Vec<i64> = pages.windows(2).map(|pair| pair[1] - pair[0]).collect();
        // A plan that is made for any range, after some executions, reads the rows of the whole range.
        let (early, late) = (each[..4].iter().max().unwrap(), each[10..].iter().max().unwrap());
        assert!(*early > 0 && *late <= 2 * early, "{each:?}");
    });
}
