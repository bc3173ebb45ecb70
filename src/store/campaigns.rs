//! Revenue by campaign.
//!
//! One campaign is found by the index over its rows. All campaigns are told by the summaries where those are
//! few; by the rows where the range has few; else from the highest down: what a campaign earned over all
//! time is the most that it can have earned in a range, so that the first few by that bound hold the first
//! few of any range, and the search ends when no other can be among them.

use std::collections::{HashMap, HashSet};

use compact_str::CompactString;
use sea_orm::{FromQueryResult, Value};

use super::batch::big;
use super::dialect::{Condition, places};
use super::error::StoreError;
use super::report::{CampaignSum, Filter, Report, RevenueSum, total};
use super::summary::{Asked, CampaignRevenue, Reading};
use crate::event::Source;

/// Transactions in a range that are summed up one by one.
const FEW: i64 = 4_000;
/// Campaigns of one look at their rows.
const STEP: usize = 400;
/// Campaigns that are looked at from the highest down before all rows in range are.
const MANY: usize = 20_000;

/// A campaign's revenue in a range, as the rows tell it.
#[derive(Debug, FromQueryResult)]
struct RowSum {
    campaign_id: String,
    transactions: i64,
    units: i64,
    micros: i64,
}

/// The columns of a campaign's revenue over all time.
const CAMPAIGN: &str = "campaign_id, transactions, units, micros, first_minute, last_minute";

const SUMS: &str = "count(*) AS transactions, CAST(sum(revenue / 1000000) AS bigint) AS units,
    CAST(sum(revenue % 1000000) AS bigint) AS micros";

impl Report<'_> {
    /// Sums the revenue of the filter's campaign by source and type, and by interval (in minutes).
    pub(super) async fn sum_campaign(
        &self,
        filter: &Filter,
        interval: Option<i64>,
    ) -> Result<Vec<RevenueSum>, StoreError> {
        let (condition, values) = self.rows_with_revenue(filter);
        let minute = self.store.minute();
        let bucket = interval.map_or("0".to_owned(), |minutes| format!("{minute} / {minutes}"));
        let sql = format!(
            "SELECT CAST({bucket} AS bigint) AS bucket, source, event_type, {SUMS}
             FROM event_rows WHERE {condition} GROUP BY 1, source, event_type ORDER BY 1, source, event_type"
        );
        self.select(sql, values).await
    }

    /// The campaigns that earned the most, the highest first.
    ///
    /// # Errors
    ///
    /// If the store is away.
    pub async fn top_campaigns(&self, filter: &Filter, limit: usize) -> Result<Vec<CampaignSum>, StoreError> {
        let mut top = Vec::new();
        for &source in Source::ALL.iter().filter(|source| filter.asks(**source)) {
            let filter = Filter { source: Some(source), ..filter.clone() };
            top.extend(self.top_of(source, &filter, limit).await?);
        }
        top.sort_unstable_by(CampaignSum::rank);
        top.truncate(limit);
        Ok(top)
    }

    async fn top_of(
        &self,
        source: Source,
        filter: &Filter,
        limit: usize,
    ) -> Result<Vec<CampaignSum>, StoreError> {
        if filter.campaign_id.is_some() {
            return self.by_rows(source, filter, Some(limit)).await;
        }
        if !self.has_campaigns(source).await? {
            return Ok(Vec::new());
        }
        let in_range: i64 = self.sum_revenue(filter, None).await?.iter().map(|sum| sum.transactions).sum();
        // The whole hours in range, and the minutes beside them.
        let hours = (filter.from.map(|from| -(-from).div_euclid(60)), filter.to.map(|to| to.div_euclid(60)));
        let no_hour = matches!(hours, (Some(first), Some(end)) if first >= end);
        if in_range <= FEW || no_hour {
            return self.by_rows(source, filter, Some(limit)).await;
        }
        let reading =
            self.store.read_summaries(self.tx()?, source, hours, Asked::Campaigns, self.cache).await?;
        if let Some(sums) = reading.sum_campaigns() {
            return self.beside_hours(source, filter, hours, sums).await;
        }
        match self.search_down(source, filter, limit, &reading).await? {
            Some(top) => Ok(top),
            None => self.by_rows(source, filter, Some(limit)).await,
        }
    }

    /// Whether a source has ever had a campaign: some never do, and would be read for nothing.
    async fn has_campaigns(&self, source: Source) -> Result<bool, StoreError> {
        if !self.ranked(source, 0, 1).await?.is_empty() {
            return Ok(true);
        }
        // No hour, and what is not folded.
        let none = (Some(0), Some(0));
        let reading =
            self.store.read_summaries(self.tx()?, source, none, Asked::Campaigns, self.cache).await?;
        Ok(!reading.campaign_deltas().is_empty())
    }

    /// Adds the rows in the minutes before and after whole hours.
    async fn beside_hours(
        &self,
        source: Source,
        filter: &Filter,
        hours: (Option<i64>, Option<i64>),
        mut sums: HashMap<CompactString, (u64, i128)>,
    ) -> Result<Vec<CampaignSum>, StoreError> {
        let before = hours.0.map(|hour| (filter.from, Some(hour * 60)));
        let after = hours.1.map(|hour| (Some(hour * 60), filter.to));
        for (from, to) in [before, after].into_iter().flatten().filter(|(from, to)| from < to) {
            for sum in self.by_rows(source, &Filter { from, to, ..filter.clone() }, None).await? {
                let known = sums.entry(sum.campaign_id.into()).or_default();
                known.0 += sum.transactions;
                known.1 += sum.total;
            }
        }
        let sum = |(campaign_id, (transactions, total)): (CompactString, _)| CampaignSum {
            source,
            campaign_id: campaign_id.into(),
            transactions,
            total,
        };
        Ok(sums.into_iter().map(sum).collect())
    }

    /// The campaigns of the rows in range: all, or those that earned the most.
    async fn by_rows(
        &self,
        source: Source,
        filter: &Filter,
        limit: Option<usize>,
    ) -> Result<Vec<CampaignSum>, StoreError> {
        let (condition, values) = self.rows_with_revenue(filter);
        let mut sql =
            format!("SELECT campaign_id, {SUMS} FROM event_rows WHERE {condition} GROUP BY campaign_id");
        if let Some(limit) = limit {
            // In the order of bytes, as ranks are.
            let bytes = if self.store.is_postgres() { " COLLATE \"C\"" } else { "" };
            sql = format!(
                "SELECT * FROM ({sql}) AS sums
                 ORDER BY units + micros / 1000000 DESC, micros % 1000000 DESC, campaign_id{bytes} LIMIT {limit}"
            );
        }
        let rows: Vec<RowSum> = self.select(sql, values).await?;
        Ok(rows.into_iter().map(|row| row.sum(source)).collect())
    }

    /// The first `limit` campaigns of a range; `None` if the search would not end soon.
    async fn search_down(
        &self,
        source: Source,
        filter: &Filter,
        limit: usize,
        reading: &Reading,
    ) -> Result<Option<Vec<CampaignSum>>, StoreError> {
        let fresh = self.not_folded(source, reading).await?;
        let mut waiting = fresh.clone();
        waiting.sort_unstable_by_key(|campaign| std::cmp::Reverse(campaign.total()));
        let fresh: HashSet<&str> = fresh.iter().map(|ranked| ranked.campaign_id.as_str()).collect();
        let mut top: Vec<CampaignSum> = Vec::new();
        let mut looked_at = 0;
        let mut step = STEP.max(2 * limit);
        while looked_at < MANY {
            let ranked = self.ranked(source, looked_at, step).await?;
            let end = ranked.len() < step;
            looked_at += ranked.len();
            // Nobody who was not looked at earned more than this, but for those that are fresh.
            let bound = ranked.last().map_or(0, CampaignRevenue::total);
            let mut candidates: Vec<CampaignRevenue> =
                ranked.into_iter().filter(|ranked| !fresh.contains(ranked.campaign_id.as_str())).collect();
            let near = waiting.partition_point(|campaign| end || campaign.total() >= bound);
            candidates.extend(waiting.drain(..near));
            top.extend(self.in_range(source, filter, &candidates).await?);
            top.sort_unstable_by(CampaignSum::rank);
            top.truncate(limit);
            let full = top.len() == limit && top.last().is_some_and(|last| last.total > bound);
            if full || end {
                return Ok(Some(top));
            }
            step = (step * 2).min(MANY);
        }
        Ok(None)
    }

    /// What campaigns earned in a range, of those that earned anything.
    async fn in_range(
        &self,
        source: Source,
        filter: &Filter,
        campaigns: &[CampaignRevenue],
    ) -> Result<Vec<CampaignSum>, StoreError> {
        let (from, to) = (filter.from.unwrap_or(i64::MIN), filter.to.unwrap_or(i64::MAX));
        let meets = |ranked: &&CampaignRevenue| {
            i64::from(ranked.last_minute) >= from && i64::from(ranked.first_minute) < to
        };
        let (whole, parts): (Vec<&CampaignRevenue>, Vec<&CampaignRevenue>) = campaigns
            .iter()
            .filter(meets)
            .partition(|ranked| i64::from(ranked.first_minute) >= from && i64::from(ranked.last_minute) < to);
        let mut sums: Vec<CampaignSum> = whole
            .into_iter()
            .map(|ranked| CampaignSum {
                source,
                campaign_id: ranked.campaign_id.clone(),
                transactions: ranked.transactions.unsigned_abs(),
                total: ranked.total(),
            })
            .collect();
        for part in parts.chunks(STEP) {
            let (condition, mut values) = self.rows_with_revenue(filter);
            let places = places(&mut values, part.iter().map(|ranked| ranked.campaign_id.clone()));
            let sql = format!(
                "SELECT campaign_id, {SUMS} FROM event_rows
                 WHERE {condition} AND campaign_id IN ({places}) GROUP BY campaign_id"
            );
            let rows: Vec<RowSum> = self.select(sql, values).await?;
            sums.extend(rows.into_iter().map(|row| row.sum(source)));
        }
        Ok(sums)
    }

    async fn ranked(
        &self,
        source: Source,
        from: usize,
        count: usize,
    ) -> Result<Vec<CampaignRevenue>, StoreError> {
        let sql = format!(
            "SELECT {CAMPAIGN} FROM campaigns WHERE source = $1
             ORDER BY units DESC, micros DESC, campaign_id LIMIT $2 OFFSET $3"
        );
        let values = vec![source.code().into(), big(count as u64).into(), big(from as u64).into()];
        self.select(sql, values).await
    }

    /// The campaigns to which something was added that is not folded yet, with it.
    async fn not_folded(
        &self,
        source: Source,
        reading: &Reading,
    ) -> Result<Vec<CampaignRevenue>, StoreError> {
        let mut deltas = reading.campaign_deltas();
        let ids: Vec<String> = deltas.keys().cloned().collect();
        let mut fresh = Vec::new();
        for part in ids.chunks(STEP) {
            let mut values = vec![source.code().into()];
            let places = places(&mut values, part.iter().cloned());
            let sql =
                format!("SELECT {CAMPAIGN} FROM campaigns WHERE source = $1 AND campaign_id IN ({places})");
            for mut ranked in self.select::<CampaignRevenue>(sql, values).await? {
                if let Some(delta) = deltas.remove(&ranked.campaign_id) {
                    ranked.merge(&delta);
                }
                fresh.push(ranked);
            }
        }
        fresh.extend(deltas.into_values());
        Ok(fresh)
    }

    /// The rows of a filter that made revenue for a campaign: a condition, with its parameters from $1.
    fn rows_with_revenue(&self, filter: &Filter) -> (String, Vec<Value>) {
        let instant = self.store.instant();
        let micros = |minute: i64| minute.saturating_mul(60_000_000);
        let mut condition = Condition::new("revenue IS NOT NULL AND campaign_id IS NOT NULL");
        condition.also("occurred_at >=", filter.from.map(micros), instant);
        condition.also("occurred_at <", filter.to.map(micros), instant);
        condition.also("source =", filter.source.map(Source::code), "{}");
        condition.also("campaign_id =", filter.campaign_id.clone(), "{}");
        (condition.sql(), condition.values)
    }
}

impl RowSum {
    fn sum(self, source: Source) -> CampaignSum {
        CampaignSum {
            source,
            campaign_id: self.campaign_id,
            transactions: self.transactions.unsigned_abs(),
            total: total(self.units, self.micros),
        }
    }
}
