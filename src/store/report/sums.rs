//! Counts and sums that reports return.

use std::cmp::Ordering;

use sea_orm::FromQueryResult;

use crate::event::Source;
use crate::store::money::total;

/// Number of events of one type.
#[derive(Debug, Clone, PartialEq, Eq, FromQueryResult)]
pub struct EventCount {
    /// Bucket, in intervals since 1970; 0 without an interval.
    pub bucket: i64,
    /// Code of the source.
    pub source: i16,
    /// Code of the funnel stage.
    pub funnel_stage: i16,
    /// Code of the type of event.
    pub event_type: i16,
    /// Number of events.
    pub events: i64,
}

/// Revenue of one type of event in one currency.
#[derive(Debug, Clone, PartialEq, Eq, FromQueryResult)]
pub struct RevenueSum {
    /// Bucket, in intervals since 1970; 0 without an interval.
    pub bucket: i64,
    /// Code of the source.
    pub source: i16,
    /// Code of the type of event.
    pub event_type: i16,
    /// Number of the currency in ISO 4217.
    pub currency: i16,
    /// Events with revenue.
    pub transactions: i64,
    /// Whole millions of units.
    pub millions: i64,
    /// Whole units beside the millions.
    pub units: i64,
    /// Millionths beside the units.
    pub micros: i64,
}

impl RevenueSum {
    /// The sum in millionths.
    pub fn total(&self) -> i128 {
        total(self.millions, self.units, self.micros)
    }
}

/// Revenue of one campaign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CampaignSum {
    /// Source of the campaign.
    pub source: Source,
    /// The campaign's id.
    pub campaign_id: String,
    /// Events with revenue.
    pub transactions: u64,
    /// The sum in millionths.
    pub total: i128,
}

impl CampaignSum {
    /// Order of ranks: the highest revenue first, equal ones by campaign id and source.
    pub(super) fn rank(left: &Self, right: &Self) -> Ordering {
        let by_id =
            || (&left.campaign_id, left.source.code()).cmp(&(&right.campaign_id, right.source.code()));
        right.total.cmp(&left.total).then_with(by_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn campaigns_are_ranked_by_revenue_then_by_id_then_by_source() {
        let sum = |source, id: &str, total| CampaignSum {
            source,
            campaign_id: id.to_owned(),
            transactions: 1,
            total,
        };
        let mut sums = [
            sum(Source::TIKTOK, "b", 5),
            sum(Source::FACEBOOK, "c", 9),
            sum(Source::FACEBOOK, "b", 5),
            sum(Source::TIKTOK, "a", 5),
        ];
        sums.sort_unstable_by(CampaignSum::rank);
        let order: Vec<_> = sums.iter().map(|sum| (sum.source, &*sum.campaign_id)).collect();
        let (facebook, tiktok) = (Source::FACEBOOK, Source::TIKTOK);
        assert_eq!(order, [(facebook, "c"), (tiktok, "a"), (facebook, "b"), (tiktok, "b")]);
    }
}
