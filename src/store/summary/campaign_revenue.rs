//! Revenue of a campaign over all time, and the bound that it sets for a range.

use std::cmp::Ordering;

use sea_orm::FromQueryResult;
use serde::{Deserialize, Serialize};

use super::hour_input::CampaignSale;
use crate::event::MICROS_PER_UNIT;
use crate::store::money::{HIGH_UNITS, total};

/// Revenue of a campaign in one currency: in one transaction, or over all time as in table `campaigns`. The order of the fields is
/// part of the stored format of deltas of version 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, FromQueryResult)]
pub struct CampaignRevenue {
    /// The campaign's id.
    pub campaign_id: String,
    /// Events with revenue.
    pub transactions: i64,
    /// Whole units of revenue, less than [`HIGH_UNITS`].
    pub units: i64,
    /// Millionths beside the units, less than one unit.
    pub micros: i64,
    /// Minute of the first transaction, since 1970.
    pub first_minute: i32,
    /// Minute of the last transaction, since 1970.
    pub last_minute: i32,
    /// Whole units of the transactions in the first minute, each rounded down.
    #[serde(skip)]
    #[sea_orm(from_alias = "first_units")]
    pub first_minute_units: i64,
    /// Whole units of the transactions in the last minute, each rounded down.
    #[serde(skip)]
    #[sea_orm(from_alias = "last_units")]
    pub last_minute_units: i64,
    /// Number of transactions that `first_minute_units` and `last_minute_units` take into account. Unless it equals
    /// `transactions`, both are ignored: an earlier version did not record them.
    #[serde(skip)]
    #[sea_orm(from_alias = "ends_of")]
    pub edge_transactions: i64,
    /// [`HIGH_UNITS`] units each, beside the units.
    #[serde(skip)]
    pub high: i64,
    /// Number of the currency.
    #[serde(skip)]
    pub currency: i16,
}

impl CampaignRevenue {
    /// The revenue of one sale.
    pub(super) fn of(sale: &CampaignSale) -> Self {
        let units = sale.revenue / MICROS_PER_UNIT;
        Self {
            campaign_id: sale.campaign_id.to_string(),
            transactions: 1,
            units,
            micros: sale.revenue % MICROS_PER_UNIT,
            first_minute: sale.minute,
            last_minute: sale.minute,
            first_minute_units: units,
            last_minute_units: units,
            edge_transactions: 1,
            high: 0,
            currency: sale.currency,
        }
    }

    /// The sum in millionths.
    pub fn total(&self) -> i128 {
        total(0, self.units, self.micros) + i128::from(self.high) * total(0, HIGH_UNITS, 0)
    }

    /// Largest possible revenue in the minutes from `from` up to `to`, in millionths: the total without the whole
    /// units of a first and of a last minute that are outside.
    pub fn upper_bound(&self, from: i64, to: i64) -> i128 {
        if self.edge_transactions != self.transactions {
            return self.total();
        }
        let before = if i64::from(self.first_minute) < from { self.first_minute_units } else { 0 };
        let after = if i64::from(self.last_minute) >= to { self.last_minute_units } else { 0 };
        self.total() - total(0, before, 0) - total(0, after, 0)
    }

    /// Adds other revenue of the same campaign and currency.
    pub fn merge(&mut self, other: &Self) {
        let edges_known =
            self.edge_transactions == self.transactions && other.edge_transactions == other.transactions;
        self.edge_transactions =
            if edges_known { self.edge_transactions + other.edge_transactions } else { 0 };
        let capped_sum = |left: i64, right: i64| left.saturating_add(right).min(HIGH_UNITS);
        self.first_minute_units = match self.first_minute.cmp(&other.first_minute) {
            Ordering::Less => self.first_minute_units,
            Ordering::Equal => capped_sum(self.first_minute_units, other.first_minute_units),
            Ordering::Greater => other.first_minute_units,
        };
        self.last_minute_units = match self.last_minute.cmp(&other.last_minute) {
            Ordering::Less => other.last_minute_units,
            Ordering::Equal => capped_sum(self.last_minute_units, other.last_minute_units),
            Ordering::Greater => self.last_minute_units,
        };
        self.transactions += other.transactions;
        let micros = self.micros + other.micros;
        let units = i128::from(self.units) + i128::from(other.units) + i128::from(micros / MICROS_PER_UNIT);
        // Both parts fit: the sum of two numbers of 64 bits is less than 20 times HIGH_UNITS.
        self.units = i64::try_from(units % i128::from(HIGH_UNITS)).unwrap_or(0);
        self.high += other.high + i64::try_from(units / i128::from(HIGH_UNITS)).unwrap_or(0);
        self.micros = micros % MICROS_PER_UNIT;
        self.first_minute = self.first_minute.min(other.first_minute);
        self.last_minute = self.last_minute.max(other.last_minute);
    }
}

/// Merges entries of the same campaign and currency; returns them ascending by campaign id and currency.
pub(super) fn merge_campaigns(mut campaigns: Vec<CampaignRevenue>) -> Vec<CampaignRevenue> {
    fn key(one: &CampaignRevenue) -> (&str, i16) {
        (&one.campaign_id, one.currency)
    }
    campaigns.sort_unstable_by(|left, right| key(left).cmp(&key(right)));
    campaigns.dedup_by(|next, kept| {
        let same = key(next) == key(kept);
        if same {
            kept.merge(next);
        }
        same
    });
    campaigns
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sale(minute: i32, revenue: i64) -> CampaignRevenue {
        CampaignRevenue::of(&CampaignSale {
            event_type: 3,
            campaign_id: "c".into(),
            revenue,
            minute,
            currency: 840,
        })
    }

    #[test]
    fn sales_outside_a_range_lower_the_upper_bound_in_any_order() {
        // Two sales in the first minute, one within, one in the last.
        let sales = [sale(5, 2_900_000), sale(9, 50_000_000), sale(5, 1_000_000), sale(7, 4_000_000)];
        for first in 0..4 {
            let mut campaign = sales[first].clone();
            (1..4).for_each(|next| campaign.merge(&sales[(first + next) % 4]));
            let bound = |from, to| campaign.upper_bound(from, to);
            assert_eq!(bound(5, 10), 57_900_000, "all of it");
            assert_eq!(bound(6, 10), 54_900_000, "without whole units of the first minute");
            assert_eq!(bound(5, 9), 7_900_000, "without the last minute");
            assert_eq!(bound(6, 9), 4_900_000, "the sale within, and less than a unit for each outside");
            // With one sale whose minute an earlier version did not count, the bound is the total.
            campaign.merge(&CampaignRevenue { edge_transactions: 0, ..sale(1, 1_000_000) });
            assert_eq!(campaign.upper_bound(6, 9), 58_900_000);
        }
    }

    #[test]
    fn a_sum_carries_over_from_micros_to_units_to_high() {
        let mut campaign = CampaignRevenue { units: HIGH_UNITS - 1, micros: 999_999, ..sale(5, 0) };
        campaign.merge(&sale(5, 1));
        assert_eq!((campaign.high, campaign.units, campaign.micros), (1, 0, 0));
        assert_eq!(campaign.total(), i128::from(HIGH_UNITS) * 1_000_000);
    }

    #[test]
    fn entries_of_one_campaign_are_merged() {
        let named =
            |name: &str, revenue| CampaignRevenue { campaign_id: name.to_owned(), ..sale(5, revenue) };
        let merged = merge_campaigns(vec![named("b", 1), named("a", 2), named("b", 4)]);
        let found: Vec<_> =
            merged.iter().map(|one| (&*one.campaign_id, one.transactions, one.total())).collect();
        assert_eq!(found, [("a", 1, 2), ("b", 2, 5)]);
        // Money is never added across currencies.
        let euro = CampaignRevenue { currency: 978, ..named("a", 9) };
        let merged = merge_campaigns(vec![named("a", 1), euro.clone(), named("a", 2), euro]);
        let found: Vec<_> = merged.iter().map(|one| (one.currency, one.transactions, one.total())).collect();
        assert_eq!(found, [(840, 2, 3), (978, 2, 18)]);
    }
}
