//! The first campaigns of a range by revenue in one currency, where there are too many campaigns for summaries.
//!
//! The revenue of a campaign over all time, in table `campaigns`, is an upper bound of its revenue in any range. So
//! campaigns are read from the highest such revenue down, until no further one can be among the first. The revenue of a
//! campaign that lies within the range is known. For one that lies in it in part, the revenue of its first and last
//! minute lowers the bound; its rows are summed up, from the highest bound down, while it can be among the first.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::collections::binary_heap::{BinaryHeap, PeekMut};

use sea_orm::FromQueryResult;

use crate::event::Source;
use crate::money::Currency;
use crate::store::error::StoreError;
use crate::store::report::{CampaignSum, Filter, Report};
use crate::store::sql::Sql;
use crate::store::summary::{CampaignRevenue, SummaryView};

/// Campaigns that the first statement reads, from the highest revenue down. Each next one reads twice as many.
const FIRST_PAGE: usize = 400;
/// Campaigns that are read before the search is given up.
const READ_MAX: usize = 20_000;
/// Campaigns whose rows the first statement of a page sums up; each next one sums up twice as many, up to the most.
const FIRST_LOOKUP: usize = 64;
const LOOKUP_MAX: usize = 512;
/// Campaigns whose rows are summed up before the search is given up.
const LOOKUPS_MAX: usize = 4_000;
/// Campaign ids in one statement.
const IDS: usize = 400;
/// SQL: columns of a [`CampaignRevenue`].
const COLUMNS: &str =
    "campaign_id, transactions, high, units, micros, first_minute, last_minute, first_units, last_units,
    ends_of, currency";

/// A campaign and its rank by revenue over all time, from 1.
#[derive(Debug, FromQueryResult)]
struct RankedCampaign {
    #[sea_orm(nested)]
    campaign: CampaignRevenue,
    rank: i64,
}

/// The first campaigns of a range, as far as they are known.
struct TopCampaigns {
    limit: usize,
    /// In the order of ranks, at most `limit`.
    top: Vec<CampaignSum>,
    /// Campaigns partly in the range, by the upper bound of their revenue in it.
    candidates: BinaryHeap<(i128, String)>,
    /// Number of candidates that were looked up.
    looked_up: usize,
}

impl TopCampaigns {
    fn new(limit: usize) -> Self {
        Self { limit, top: Vec::new(), candidates: BinaryHeap::new(), looked_up: 0 }
    }

    /// Adds campaigns whose revenue in the range is known.
    fn add(&mut self, sums: impl IntoIterator<Item = CampaignSum>) {
        self.top.extend(sums);
        self.top.sort_unstable_by(CampaignSum::rank);
        self.top.truncate(self.limit);
    }

    /// Adds the campaigns that lie within the range, and as candidates those that lie in it in part.
    fn add_campaigns(
        &mut self,
        source: Source,
        filter: &Filter,
        campaigns: impl Iterator<Item = CampaignRevenue>,
    ) {
        let (from, to) = (filter.from.unwrap_or(i64::MIN), filter.to.unwrap_or(i64::MAX));
        let mut within = Vec::new();
        for campaign in campaigns {
            let (first, last) = (i64::from(campaign.first_minute), i64::from(campaign.last_minute));
            if first >= from && last < to {
                within.push(CampaignSum {
                    source,
                    transactions: campaign.transactions.unsigned_abs(),
                    total: campaign.total(),
                    campaign_id: campaign.campaign_id,
                });
            } else if last >= from && first < to {
                self.candidates.push((campaign.upper_bound(from, to), campaign.campaign_id));
            }
        }
        self.add(within);
    }

    /// The last campaign of a full list.
    fn last(&self) -> Option<&CampaignSum> {
        self.top.get(self.limit.checked_sub(1)?)
    }

    /// True if the top list is final: nothing ranked after (bound, id) can enter it.
    fn is_final(&self, (bound, id): &(i128, String)) -> bool {
        self.last()
            .is_some_and(|last| last.total > *bound || (last.total == *bound && last.campaign_id <= *id))
    }

    /// Takes the candidates that can enter the list and whose bound is at least `bound`: at most `most`, the highest
    /// first.
    fn take_candidates(&mut self, bound: Option<i128>, most: usize) -> Vec<String> {
        let lowest_total = self.last().map(|last| last.total);
        let mut taken = Vec::new();
        while taken.len() < most
            && let Some(next) = self.candidates.peek_mut()
            && bound.is_none_or(|bound| next.0 >= bound)
            // With the same revenue as the last one a candidate enters the list if its id comes first.
            && lowest_total.is_none_or(|lowest| next.0 >= lowest)
        {
            taken.push(PeekMut::pop(next).1);
        }
        taken
    }
}

impl Report<'_> {
    /// The first `limit` campaigns of a source in a range; `None` if the search was given up, since it would read more
    /// than the rows of the range.
    pub(super) async fn search_top_campaigns(
        &self,
        source: Source,
        filter: &Filter,
        limit: usize,
        view: &SummaryView,
    ) -> Result<Option<Vec<CampaignSum>>, StoreError> {
        let unfolded = self.campaigns_with_deltas(source, filter.currency, view).await?;
        let mut waiting = unfolded.clone();
        waiting.sort_unstable_by_key(|campaign| Reverse(campaign.total()));
        let unfolded: HashSet<&str> = unfolded.iter().map(|campaign| campaign.campaign_id.as_str()).collect();
        let mut top = TopCampaigns::new(limit);
        let mut read = 0;
        let mut page = FIRST_PAGE.max(2 * limit);
        while read < READ_MAX {
            let ranked = self.ranked_campaigns(source, filter, read, page).await?;
            read += page;
            // No campaign that was not read has more revenue than the last of the page, but for those with deltas.
            // `None` at the end of the table.
            let last = ranked.last().filter(|last| usize::try_from(last.rank) == Ok(read));
            let last = last.map(|last| (last.campaign.total(), last.campaign.campaign_id.clone()));
            let bound = last.as_ref().map(|(bound, _)| *bound);
            let above =
                waiting.partition_point(|campaign| bound.is_none_or(|bound| campaign.total() >= bound));
            let folded = ranked.into_iter().map(|ranked| ranked.campaign);
            let folded = folded.filter(|campaign| !unfolded.contains(campaign.campaign_id.as_str()));
            top.add_campaigns(source, filter, folded.chain(waiting.drain(..above)));
            if !self.look_up_candidates(source, filter, bound, &mut top).await? {
                return Ok(None);
            }
            if last.is_none_or(|last| top.is_final(&last)) {
                return Ok(Some(top.top));
            }
            page = (page * 2).min(READ_MAX - read.min(READ_MAX));
        }
        Ok(None)
    }

    /// Sums up the rows of candidates that can be among the first and whose bound is at least `bound`. False if these
    /// were too many.
    async fn look_up_candidates(
        &self,
        source: Source,
        filter: &Filter,
        bound: Option<i128>,
        top: &mut TopCampaigns,
    ) -> Result<bool, StoreError> {
        let mut most = FIRST_LOOKUP;
        loop {
            let ids = top.take_candidates(bound, most);
            let Some(last) = ids.last() else { return Ok(true) };
            top.looked_up += ids.len();
            if top.looked_up > LOOKUPS_MAX {
                return Ok(false);
            }
            most = LOOKUP_MAX.min(2 * most);
            // Padded with the last id to a power of two, so that few different statements are prepared.
            let padded = ids.iter().chain(std::iter::repeat(last)).take(ids.len().next_power_of_two());
            top.add(self.sum_rows_of_campaigns(source, filter, padded.cloned().collect()).await?);
        }
    }

    /// Reads `count` campaigns after the first `from` by revenue over all time, as far as it is folded. Those outside
    /// the filter's range are left out, but for the last one.
    async fn ranked_campaigns(
        &self,
        source: Source,
        filter: &Filter,
        from: usize,
        count: usize,
    ) -> Result<Vec<RankedCampaign>, StoreError> {
        // SQL text: a window function over a page in the order of the index.
        let sql = format!(
            "SELECT {COLUMNS}, rank FROM (
                SELECT {COLUMNS}, row_number() OVER (ORDER BY high DESC, units DESC, micros DESC, campaign_id) AS rank
                FROM campaigns WHERE source = $1 AND currency = $7 ORDER BY high DESC, units DESC, micros DESC, campaign_id
                LIMIT $2 OFFSET $3) AS ranked
             WHERE (last_minute >= $4 AND first_minute < $5) OR rank = $6 ORDER BY rank"
        );
        let to_bigint = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        Sql::new(sql)
            .bind(source.code())
            .bind(to_bigint(count))
            .bind(to_bigint(from))
            .bind(filter.from.unwrap_or(i64::MIN))
            .bind(filter.to.unwrap_or(i64::MAX))
            .bind(to_bigint(from + count))
            .bind(filter.currency.number())
            .all(self.tx()?)
            .await
    }

    /// The campaigns that have deltas in a currency, with their folded revenue.
    async fn campaigns_with_deltas(
        &self,
        source: Source,
        currency: Currency,
        view: &SummaryView,
    ) -> Result<Vec<CampaignRevenue>, StoreError> {
        let mut deltas = view.campaign_deltas(currency);
        let ids: Vec<String> = deltas.keys().cloned().collect();
        let mut campaigns = Vec::new();
        for part in ids.chunks(IDS) {
            let sql = format!(
                "SELECT {COLUMNS} FROM campaigns WHERE source = $1 AND currency = $2 AND campaign_id IN ("
            );
            let mut sql = Sql::new(sql).bind(source.code()).bind(currency.number());
            sql.push_list(part.iter().cloned()).push(")");
            for mut campaign in sql.all::<CampaignRevenue>(self.tx()?).await? {
                if let Some(delta) = deltas.remove(&campaign.campaign_id) {
                    campaign.merge(&delta);
                }
                campaigns.push(campaign);
            }
        }
        campaigns.extend(deltas.into_values());
        Ok(campaigns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A campaign with one transaction in each of two minutes.
    fn campaign(id: &str, (first, last): (i32, i32), units: (i64, i64)) -> CampaignRevenue {
        CampaignRevenue {
            campaign_id: id.to_owned(),
            transactions: 2,
            units: units.0 + units.1,
            micros: 0,
            first_minute: first,
            last_minute: last,
            first_minute_units: units.0,
            last_minute_units: units.1,
            edge_transactions: 2,
            high: 0,
            currency: 840,
        }
    }

    fn sum(id: &str, units: i128) -> CampaignSum {
        CampaignSum {
            source: Source::FACEBOOK,
            campaign_id: id.to_owned(),
            transactions: 1,
            total: units * 1_000_000,
        }
    }

    fn ids(top: &TopCampaigns) -> Vec<&str> {
        top.top.iter().map(|sum| &*sum.campaign_id).collect()
    }

    fn range(from: i64, to: i64) -> Filter {
        Filter { from: Some(from), to: Some(to), ..Filter::default() }
    }

    #[test]
    fn campaigns_within_the_range_are_listed_and_those_partly_in_it_are_candidates() {
        let mut top = TopCampaigns::new(2);
        let campaigns = [
            campaign("within", (10, 19), (1, 1)),
            campaign("begins before", (9, 15), (70, 5)),
            campaign("ends at the end", (15, 20), (6, 90)),
            campaign("before", (1, 9), (99, 99)),
            campaign("after", (20, 30), (99, 99)),
            campaign("higher", (12, 13), (2, 2)),
            campaign("lower", (12, 13), (1, 0)),
        ];
        top.add_campaigns(Source::FACEBOOK, &range(10, 20), campaigns.into_iter());
        assert_eq!(ids(&top), ["higher", "within"]);
        // By their bounds, 6 and 5 units without what is outside.
        assert_eq!(top.take_candidates(None, 10), ["ends at the end", "begins before"]);
    }

    #[test]
    fn the_list_is_final_once_nothing_after_it_can_enter() {
        let mut top = TopCampaigns::new(2);
        top.add([sum("a", 9)]);
        assert!(!top.is_final(&(0, "z".to_owned())), "there is room");
        top.add([sum("m", 5)]);
        let bound = |units: i128, id: &str| (units * 1_000_000, id.to_owned());
        assert!(top.is_final(&bound(4, "a")), "the next one has less revenue");
        assert!(top.is_final(&bound(5, "m")), "as much, and comes after the last one's id");
        assert!(!top.is_final(&bound(5, "b")), "as much, and may come before the last one's id");
        assert!(!top.is_final(&bound(6, "z")));
    }

    #[test]
    fn candidates_are_looked_up_only_while_they_can_enter_the_list() {
        let mut top = TopCampaigns::new(1);
        for (units, id) in [(3, "c"), (9, "a"), (5, "x"), (7, "b")] {
            top.candidates.push((units * 1_000_000, id.to_owned()));
        }
        assert_eq!(top.take_candidates(Some(8_000_000), 10), ["a"], "those above the bound of the page");
        top.add([sum("listed", 5)]);
        assert_eq!(top.take_candidates(None, 1), ["b"], "at most as many as were asked for");
        assert_eq!(top.take_candidates(None, 10), ["x"], "one with as much revenue can come before");
        assert!(top.take_candidates(None, 10).is_empty(), "3 units are too few");
    }

    #[test]
    fn a_list_of_limit_0_stays_empty() {
        let mut top = TopCampaigns::new(0);
        top.add([sum("a", 1)]);
        assert!(top.top.is_empty() && top.last().is_none());
    }
}
