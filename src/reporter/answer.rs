//! The shapes of the reports.

use serde::Serialize;

use super::query::{Interval, Range};
use crate::event::{MICROS_PER_UNIT, NANOS_PER_ONE, all_words};
use crate::store::report::{AudienceSums, CampaignSum, EventCount, RevenueSum, UserCount};

/// The word of a number; rows hold no number that has none.
pub(super) fn word(code: i16) -> &'static str {
    all_words().find(|word| word.code == code).map_or("unknown", |word| word.text)
}

/// An amount in millionths as a decimal with at least two decimals.
pub(super) fn money(micros: i128) -> String {
    let (unit, cent) = (i128::from(MICROS_PER_UNIT), i128::from(MICROS_PER_UNIT) / 100);
    let (whole, fraction) = (micros / unit, micros % unit);
    if fraction % cent == 0 {
        return format!("{whole}.{:02}", fraction / cent);
    }
    format!("{whole}.{fraction:06}").trim_end_matches('0').to_owned()
}

/// The mean of so many amounts, rounded half up to two decimals.
pub(super) fn mean_money(micros: i128, count: i64) -> String {
    let cent = i128::from(MICROS_PER_UNIT) / 100;
    let count = i128::from(count);
    if count <= 0 {
        return money(0);
    }
    let cents = (2 * micros + count * cent) / (2 * count * cent);
    money(cents * cent)
}

/// A mean of integers that were summed in two parts; 0 over nothing.
fn mean(high: i64, low: i64, unit: i64, scale: i64, count: i64) -> f64 {
    if count <= 0 {
        return 0.0;
    }
    let total = i128::from(high) * i128::from(unit) + i128::from(low);
    total as f64 / (i128::from(count) * i128::from(scale)) as f64
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EventsReport {
    pub range: Range,
    pub total_events: i64,
    pub events: Vec<EventsEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub series: Option<Vec<EventsEntry>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EventsEntry {
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<String>,
    source: &'static str,
    funnel_stage: &'static str,
    event_type: &'static str,
    count: i64,
}

impl EventsEntry {
    pub fn new(count: &EventCount, interval: Option<Interval>) -> Self {
        Self {
            at: interval.map(|interval| interval.at(count.bucket)),
            source: word(count.source),
            funnel_stage: word(count.funnel_stage),
            event_type: word(count.event_type),
            count: count.events,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RevenueReport {
    pub range: Range,
    pub total_revenue: String,
    pub transactions: i64,
    pub average_order_value: String,
    pub revenue: Vec<RevenueEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub series: Option<Vec<RevenueEntry>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub campaigns: Option<Vec<CampaignEntry>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RevenueEntry {
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<String>,
    source: &'static str,
    event_type: &'static str,
    total_revenue: String,
    transactions: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    average_order_value: Option<String>,
}

impl RevenueEntry {
    pub fn new(sum: &RevenueSum, interval: Option<Interval>) -> Self {
        Self {
            at: interval.map(|interval| interval.at(sum.bucket)),
            source: word(sum.source),
            event_type: word(sum.event_type),
            total_revenue: money(sum.total()),
            transactions: sum.transactions,
            average_order_value: interval.is_none().then(|| mean_money(sum.total(), sum.transactions)),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CampaignEntry {
    source: &'static str,
    campaign_id: String,
    total_revenue: String,
    transactions: i64,
}

impl CampaignEntry {
    pub fn new(sum: CampaignSum) -> Self {
        let total = i128::from(sum.units) * i128::from(MICROS_PER_UNIT) + i128::from(sum.micros);
        Self {
            source: word(sum.source),
            campaign_id: sum.campaign_id,
            total_revenue: money(total),
            transactions: sum.transactions,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DemographicsReport {
    pub range: Range,
    pub users_estimated: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub facebook: Option<FacebookAudience>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tiktok: Option<TiktokAudience>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FacebookAudience {
    pub events: i64,
    pub users: i64,
    pub age_groups: Vec<RangeUsers>,
    pub genders: Vec<GenderUsers>,
    pub countries: Vec<CountryUsers>,
    pub cities: Vec<CityUsers>,
    pub cities_truncated: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TiktokAudience {
    pub events: i64,
    pub users: i64,
    pub followers: Followers,
    pub countries: Vec<CountryUsers>,
    pub devices: Vec<DeviceUsers>,
    pub average_watch_time: f64,
    pub average_percentage_watched: f64,
}

#[derive(Serialize)]
pub(super) struct Followers {
    average: f64,
    ranges: Vec<RangeUsers>,
}

#[derive(Serialize)]
pub(super) struct RangeUsers {
    range: &'static str,
    users: i64,
}

#[derive(Serialize)]
pub(super) struct GenderUsers {
    gender: &'static str,
    users: i64,
}

#[derive(Serialize)]
pub(super) struct CountryUsers {
    country: String,
    users: i64,
}

#[derive(Serialize)]
pub(super) struct CityUsers {
    country: String,
    city: String,
    users: i64,
}

#[derive(Serialize)]
pub(super) struct DeviceUsers {
    device: &'static str,
    users: i64,
}

const AGE_RANGES: [(&str, &str); 7] = [
    ("0", "0-17"),
    ("18", "18-24"),
    ("25", "25-34"),
    ("35", "35-44"),
    ("45", "45-54"),
    ("55", "55-64"),
    ("65", "65+"),
];

const FOLLOWER_RANGES: [(&str, &str); 5] =
    [("0", "0-999"), ("1000", "1K-10K"), ("10000", "10K-100K"), ("100000", "100K-1M"), ("1000000", "1M+")];

/// Counts in the order of their ranges.
fn ranges(counts: &[UserCount], ranges: &[(&str, &'static str)]) -> Vec<RangeUsers> {
    let of = |low: &str| counts.iter().find(|count| count.name.as_deref() == Some(low));
    ranges.iter().filter_map(|(low, range)| Some(RangeUsers { range, users: of(low)?.users })).collect()
}

pub(super) fn age_groups(counts: &[UserCount]) -> Vec<RangeUsers> {
    ranges(counts, &AGE_RANGES)
}

fn named(count: &UserCount) -> &'static str {
    count.name.as_deref().and_then(|code| code.parse().ok()).map_or("unknown", word)
}

pub(super) fn genders(counts: &[UserCount]) -> Vec<GenderUsers> {
    counts.iter().map(|count| GenderUsers { gender: named(count), users: count.users }).collect()
}

pub(super) fn devices(counts: &[UserCount]) -> Vec<DeviceUsers> {
    counts.iter().map(|count| DeviceUsers { device: named(count), users: count.users }).collect()
}

pub(super) fn countries(counts: Vec<UserCount>) -> Vec<CountryUsers> {
    let entry =
        |count: UserCount| CountryUsers { country: count.name.unwrap_or_default(), users: count.users };
    counts.into_iter().map(entry).collect()
}

pub(super) fn cities(counts: Vec<UserCount>) -> Vec<CityUsers> {
    let entry = |count: UserCount| CityUsers {
        country: count.detail.unwrap_or_default(),
        city: count.name.unwrap_or_default(),
        users: count.users,
    };
    counts.into_iter().map(entry).collect()
}

pub(super) fn followers(sums: &AudienceSums, counts: &[UserCount]) -> Followers {
    let average = mean(sums.followers_high, sums.followers_low, 1_000_000, 1, sums.with_followers);
    Followers { average, ranges: ranges(counts, &FOLLOWER_RANGES) }
}

pub(super) fn average_watch_time(sums: &AudienceSums) -> f64 {
    mean(sums.watch_high, sums.watch_low, NANOS_PER_ONE, NANOS_PER_ONE, sums.with_watch_time)
}

pub(super) fn average_percentage(sums: &AudienceSums) -> f64 {
    mean(sums.percentage_high, sums.percentage_low, NANOS_PER_ONE, NANOS_PER_ONE, sums.with_watch_time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_has_at_least_two_decimals_and_all_that_it_needs() {
        let shown = [0, 10_000, 261_960_000, 2_415_600_000, 1, 100_000, 1_234_567].map(money);
        assert_eq!(shown, ["0.00", "0.01", "261.96", "2415.60", "0.000001", "0.10", "1.234567"]);
    }

    #[test]
    fn a_mean_of_money_is_rounded_half_up() {
        assert_eq!(mean_money(0, 0), "0.00");
        assert_eq!(mean_money(10_000_000, 3), "3.33");
        assert_eq!(mean_money(20_000_000, 3), "6.67");
        assert_eq!(mean_money(10_000, 2), "0.01", "0.005 goes up");
        assert_eq!(mean_money(9_998, 2), "0.00");
    }

    #[test]
    fn a_mean_is_exact() {
        let sums = AudienceSums {
            watch_high: 3,
            watch_low: 500_000_000,
            with_watch_time: 2,
            ..AudienceSums::default()
        };
        assert!((average_watch_time(&sums) - 1.75).abs() < f64::EPSILON);
        assert!(average_percentage(&AudienceSums::default()).abs() < f64::EPSILON);
    }
}
