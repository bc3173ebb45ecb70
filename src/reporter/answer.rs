//! JSON of the reports on events and revenue, and the numbers in it.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use super::query::{Interval, Range};
use crate::event::{MICROS_PER_UNIT, name_of_code};
use crate::money::Currency;
use crate::store::report::{CampaignSum, EventCount, RevenueSum, Sum};

/// Formats an amount in millionths as a decimal with at least two decimal places.
pub(super) fn money(micros: i128) -> String {
    let (unit, cent) = (i128::from(MICROS_PER_UNIT), i128::from(MICROS_PER_UNIT) / 100);
    let (whole, fraction) = (micros / unit, micros % unit);
    if fraction % cent == 0 {
        return format!("{whole}.{:02}", fraction / cent);
    }
    format!("{whole}.{fraction:06}").trim_end_matches('0').to_owned()
}

/// Mean of `count` amounts with the sum `micros`, rounded half up to two decimal places; 0 if there are none.
pub(super) fn mean_money(micros: i128, count: i64) -> String {
    let cent = i128::from(MICROS_PER_UNIT) / 100;
    let count = i128::from(count);
    if count <= 0 {
        return money(0);
    }
    let cents = (2 * micros + count * cent) / (2 * count * cent);
    money(cents * cent)
}

/// Mean as the nearest double; 0 if there are no values. The sum is in units of `1 / scale`.
pub(super) fn mean(sum: Sum, scale: i64) -> f64 {
    let nearest = quotient(sum.sum.unsigned_abs(), u128::from(sum.count) * u128::from(scale.unsigned_abs()));
    if sum.sum < 0 { -nearest } else { nearest }
}

/// Nearest double to a quotient, ties to even; 0 for a divisor of 0. The divisor must be below 2^127.
fn quotient(dividend: u128, divisor: u128) -> f64 {
    /// Lower bound of an integer quotient of 55 bits: the 53 of a double, one to round by, and one that is set if any
    /// lower bit would be (a sticky bit).
    const ENOUGH_BITS: u128 = 1 << 54;
    if dividend == 0 || divisor == 0 {
        return 0.0;
    }
    let (mut bits, mut rest) = (dividend / divisor, dividend % divisor);
    let mut halvings = 0;
    while bits < ENOUGH_BITS {
        rest *= 2;
        bits = bits * 2 + u128::from(rest >= divisor);
        rest %= divisor;
        halvings += 1;
    }
    // The remainder sets the sticky bit, so that the conversion rounds correctly.
    (bits | u128::from(rest != 0)) as f64 * 0.5_f64.powi(halvings)
}

/// Report on numbers of events.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct EventsReport {
    pub range: Range,
    pub total_events: i64,
    pub events: Vec<EventsEntry>,
    /// Present if an interval is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub series: Option<Vec<EventsEntry>>,
}

/// Number of events of one type.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct EventsEntry {
    /// Start of the bucket; present in a series.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub at: Option<String>,
    #[schema(value_type = String)]
    pub source: &'static str,
    #[schema(value_type = String)]
    pub funnel_stage: &'static str,
    #[schema(value_type = String)]
    pub event_type: &'static str,
    pub count: i64,
}

impl EventsEntry {
    pub fn new(count: &EventCount, interval: Option<Interval>) -> Self {
        Self {
            at: interval.map(|interval| interval.at(count.bucket)),
            source: name_of_code(count.source),
            funnel_stage: name_of_code(count.funnel_stage),
            event_type: name_of_code(count.event_type),
            count: count.events,
        }
    }
}

/// Report on revenue in one currency. Amounts are decimals with at least two places.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct RevenueReport {
    pub range: Range,
    /// Currency of all amounts but those of `otherCurrencies`, by its code of ISO 4217.
    #[schema(example = "USD")]
    pub currency: String,
    #[schema(example = "2415.60")]
    pub total_revenue: String,
    pub transactions: i64,
    #[schema(example = "12.34")]
    pub average_order_value: String,
    pub revenue: Vec<RevenueEntry>,
    /// Revenue of the same filter in other currencies, ascending by code.
    pub other_currencies: Vec<CurrencyEntry>,
    /// Present if an interval is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub series: Option<Vec<RevenueEntry>>,
    /// Present with `groupBy=campaign`; highest revenue first.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub campaigns: Option<Vec<CampaignEntry>>,
}

/// Revenue in another currency than the report's.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct CurrencyEntry {
    /// Code of ISO 4217.
    #[schema(example = "EUR")]
    pub currency: String,
    #[schema(example = "2415.60")]
    pub total_revenue: String,
    pub transactions: i64,
}

impl CurrencyEntry {
    /// Totals of sums, by currency.
    pub fn of<'s>(sums: impl Iterator<Item = &'s RevenueSum>) -> Vec<Self> {
        let mut totals: BTreeMap<String, (i128, i64)> = BTreeMap::new();
        for sum in sums {
            let total = totals.entry(Currency::from_number(sum.currency).to_string()).or_default();
            total.0 += sum.total();
            total.1 += sum.transactions;
        }
        let entry =
            |(currency, (total, transactions))| Self { currency, total_revenue: money(total), transactions };
        totals.into_iter().map(entry).collect()
    }
}

/// Revenue of one event type.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct RevenueEntry {
    /// Start of the bucket; present in a series.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub at: Option<String>,
    #[schema(value_type = String)]
    pub source: &'static str,
    #[schema(value_type = String)]
    pub event_type: &'static str,
    #[schema(example = "2415.60")]
    pub total_revenue: String,
    pub transactions: i64,
    /// Absent in a series.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub average_order_value: Option<String>,
}

impl RevenueEntry {
    pub fn new(sum: &RevenueSum, interval: Option<Interval>) -> Self {
        Self {
            at: interval.map(|interval| interval.at(sum.bucket)),
            source: name_of_code(sum.source),
            event_type: name_of_code(sum.event_type),
            total_revenue: money(sum.total()),
            transactions: sum.transactions,
            average_order_value: interval.is_none().then(|| mean_money(sum.total(), sum.transactions)),
        }
    }
}

/// Revenue of one campaign.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct CampaignEntry {
    #[schema(value_type = String)]
    pub source: &'static str,
    pub campaign_id: String,
    #[schema(example = "2415.60")]
    pub total_revenue: String,
    pub transactions: u64,
}

impl CampaignEntry {
    pub fn new(sum: CampaignSum) -> Self {
        Self {
            source: sum.source.name(),
            campaign_id: sum.campaign_id,
            total_revenue: money(sum.total),
            transactions: sum.transactions,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::NANOS_PER_ONE;

    #[test]
    fn amounts_have_two_decimals_or_as_many_as_they_need() {
        let shown = [0, 10_000, 261_960_000, 2_415_600_000, 1, 100_000, 1_234_567].map(money);
        assert_eq!(shown, ["0.00", "0.01", "261.96", "2415.60", "0.000001", "0.10", "1.234567"]);
    }

    #[test]
    fn a_mean_amount_is_rounded_half_up() {
        assert_eq!(mean_money(0, 0), "0.00");
        assert_eq!(mean_money(10_000_000, 3), "3.33");
        assert_eq!(mean_money(20_000_000, 3), "6.67");
        assert_eq!(mean_money(10_000, 2), "0.01", "0.005 goes up");
        assert_eq!(mean_money(9_998, 2), "0.00");
    }

    #[test]
    fn other_currencies_are_summed_up_apart_and_listed_by_code() {
        let sum = |currency, units| RevenueSum {
            bucket: 0,
            source: 1,
            event_type: 2,
            currency,
            transactions: 1,
            millions: 0,
            units,
            micros: 500_000,
        };
        let sums = [sum(826, 1), sum(978, 3), sum(392, 5), sum(978, 4), sum(7, 9)];
        let found: Vec<_> = CurrencyEntry::of(sums.iter())
            .into_iter()
            .map(|one| (one.currency, one.total_revenue, one.transactions))
            .collect();
        let expected = [("007", "9.50", 1), ("EUR", "8.00", 2), ("GBP", "1.50", 1), ("JPY", "5.50", 1)];
        assert_eq!(found, expected.map(|(code, total, count)| (code.to_owned(), total.to_owned(), count)));
    }

    #[test]
    fn a_mean_is_scaled_and_0_without_values() {
        let sum = Sum { count: 2, sum: 3_500_000_000 };
        assert!((mean(sum, NANOS_PER_ONE) - 1.75).abs() < f64::EPSILON);
        assert!(mean(Sum::default(), 1).abs() < f64::EPSILON);
    }

    #[test]
    fn a_mean_is_the_nearest_double_to_the_exact_quotient() {
        // Parsing a decimal rounds correctly, so quotients with a finite decimal are compared with its parsed value.
        for (dividend, divisor, nearest) in [
            (1, 3, 1.0 / 3.0),
            (812_414_051_070_702_449_999, 1_000_000, "812414051070702.449999".parse().unwrap()),
            (9_007_199_254_740_993, 1, 9_007_199_254_740_992.0),
            (9_007_199_254_740_993_000_000_001, 1_000_000_000, "9007199254740993.000000001".parse().unwrap()),
            (1, 1_000_000_000, 1e-9),
            (u128::from(u64::MAX), 1 << 40, 16_777_216.0),
            (123_456_789_012_345_678_901_234, 100_000, "1234567890123456789.01234".parse().unwrap()),
        ] {
            assert_eq!(quotient(dividend, divisor).to_bits(), f64::to_bits(nearest), "{dividend}/{divisor}");
        }
        // Pseudo-random quotients with powers of ten as divisors, which have a finite decimal.
        let mut state = 1_u128;
        for round in 0..2_000_u32 {
            state = state.wrapping_mul(0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645).wrapping_add(1);
            let (dividend, places) = (state >> 30, 1 + round % 18);
            let divisor = 10_u128.pow(places);
            let written =
                format!("{}.{:0width$}", dividend / divisor, dividend % divisor, width = places as usize);
            let nearest: f64 = written.parse().unwrap();
            assert_eq!(quotient(dividend, divisor).to_bits(), nearest.to_bits(), "{written}");
        }
    }
}
