//! Revenue by campaign.
//!
//! One campaign is found by the index over its rows. All campaigns are told by the summaries where those are
//! few; by the rows where the range has few; else from the highest down ([`crate::store::report::top_campaigns`]).

use std::collections::HashMap;

use compact_str::CompactString;
use sea_orm::{FromQueryResult, Value};

use crate::event::{MICROS_PER_MINUTE, Source};
use crate::store::dialect::{Condition, places};
use crate::store::error::StoreError;
use crate::store::money::total;
use crate::store::report::{CampaignSum, Filter, Report, RevenueSum};
use crate::store::summary::{Asked, Reading};

/// Transactions in a range that are summed up one by one.
const FEW: i64 = 4_000;

/// A campaign's revenue in a range, as the rows tell it.
#[derive(Debug, FromQueryResult)]
struct RowSum {
    campaign_id: String,
    transactions: i64,
    millions: i64,
    units: i64,
    micros: i64,
}

/// Whether a source has campaigns, and whether there is something that was not folded yet.
#[derive(Debug, FromQueryResult)]
struct Known {
    source: i16,
    told: bool,
    more: bool,
}

/// The columns of a [`RowSum`] but for the campaign. No part is beyond 64 bits, however many rows there are.
const SUMS: &str = "count(*) AS transactions, CAST(sum(revenue / 1000000000000) AS bigint) AS millions,
    CAST(sum(revenue / 1000000 % 1000000) AS bigint) AS units, CAST(sum(revenue % 1000000) AS bigint) AS micros";

impl Report<'_> {
    /// Sums the revenue of the filter's campaign by source and type, and by interval (in minutes).
    pub(in crate::store) async fn sum_campaign(
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
        let mut top = if filter.campaign_id.is_some() {
            let mut top = Vec::new();
            for source in filter.sources() {
                top.extend(self.by_rows(source, filter, Some(limit)).await?);
            }
            top
        } else {
            self.top_of_all(filter, limit).await?
        };
        top.sort_unstable_by(CampaignSum::rank);
        top.truncate(limit);
        Ok(top)
    }

    /// The first campaigns of each source.
    async fn top_of_all(&self, filter: &Filter, limit: usize) -> Result<Vec<CampaignSum>, StoreError> {
        // The whole hours in range, and the minutes beside them.
        let hours = (filter.from.map(|from| -(-from).div_euclid(60)), filter.to.map(|to| to.div_euclid(60)));
        let no_hour = matches!(hours, (Some(first), Some(end)) if first >= end);
        let (mut top, mut many) = (Vec::new(), Vec::new());
        let sums = self.sum_revenue(filter, None).await?;
        for source in filter.sources() {
            let of_source = sums.iter().filter(|sum| sum.source == source.code());
            match of_source.map(|sum| sum.transactions).sum::<i64>() {
                0 => {}
                some if some <= FEW || no_hour => {
                    top.extend(self.by_rows(source, filter, Some(limit)).await?);
                }
                _ => many.push(source),
            }
        }
        let many = self.with_campaigns(many).await?;
        for reading in self.read_campaigns(&many, hours).await? {
            let source = reading.source;
            if let Some(sums) = reading.sum_campaigns() {
                top.extend(self.beside_hours(source, filter, hours, sums).await?);
                continue;
            }
            top.extend(match self.search_down(source, filter, limit, &reading).await? {
                Some(found) => found,
                None => self.by_rows(source, filter, Some(limit)).await?,
            });
        }
        Ok(top)
    }

    /// The sources that have ever had a campaign: some never do, and would be read for nothing.
    async fn with_campaigns(&self, sources: Vec<Source>) -> Result<Vec<Source>, StoreError> {
        if sources.is_empty() {
            return Ok(sources);
        }
        let (mut with, mut folded_later) = (Vec::new(), Vec::new());
        let mut values = Vec::new();
        let asked: Vec<String> =
            sources.iter().map(|source| format!("({})", places(&mut values, [source.code()]))).collect();
        // The highest, since that is one look at the index.
        let sql = format!(
            "WITH asked (source) AS (VALUES {})
             SELECT source,
                (SELECT max(high) FROM campaigns c WHERE c.source = asked.source) IS NOT NULL AS told,
                EXISTS (SELECT 1 FROM summary_deltas d WHERE d.source = asked.source) AS more FROM asked",
            asked.join(", ")
        );
        for known in self.select::<Known>(sql, values).await? {
            let source = Source::from_code(known.source);
            if known.told {
                with.extend(source);
            } else if known.more {
                folded_later.extend(source);
            }
        }
        // What is not folded, of no hour.
        let readings = self.read_campaigns(&folded_later, (Some(0), Some(0))).await?;
        let found = readings.iter().filter(|reading| reading.has_campaign_deltas());
        with.extend(found.map(|reading| reading.source));
        Ok(with)
    }

    /// What tells the campaigns of hours.
    async fn read_campaigns(
        &self,
        sources: &[Source],
        hours: (Option<i64>, Option<i64>),
    ) -> Result<Vec<Reading>, StoreError> {
        self.store.read_summaries(self.tx()?, sources, hours, Asked::Campaigns, self.cache).await
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

    /// The campaigns of a source's rows in range: all, or those that earned the most.
    async fn by_rows(
        &self,
        source: Source,
        filter: &Filter,
        limit: Option<usize>,
    ) -> Result<Vec<CampaignSum>, StoreError> {
        let (condition, values) = self.rows_with_revenue(&filter.of(source));
        let mut sql = by_campaign(&condition);
        if let Some(limit) = limit {
            // In the order of bytes, as ranks are.
            let bytes = if self.store.is_postgres() { " COLLATE \"C\"" } else { "" };
            sql = format!(
                "SELECT * FROM ({sql}) AS sums
                 ORDER BY millions + (units + micros / 1000000) / 1000000 DESC,
                    (units + micros / 1000000) % 1000000 DESC, micros % 1000000 DESC, campaign_id{bytes} LIMIT {limit}"
            );
        }
        self.campaign_sums(source, sql, values).await
    }

    /// What some of a source's campaigns earned in range, as the rows tell it.
    pub(in crate::store) async fn earned(
        &self,
        source: Source,
        filter: &Filter,
        ids: impl Iterator<Item = String>,
    ) -> Result<Vec<CampaignSum>, StoreError> {
        let (condition, mut values) = self.rows_with_revenue(&filter.of(source));
        let places = places(&mut values, ids);
        let sql = by_campaign(&format!("{condition} AND campaign_id IN ({places})"));
        self.campaign_sums(source, sql, values).await
    }

    async fn campaign_sums(
        &self,
        source: Source,
        sql: String,
        values: Vec<Value>,
    ) -> Result<Vec<CampaignSum>, StoreError> {
        let rows: Vec<RowSum> = self.select(sql, values).await?;
        Ok(rows.into_iter().map(|row| row.sum(source)).collect())
    }

    /// The rows of a filter that made revenue for a campaign: a condition, with its parameters from $1.
    fn rows_with_revenue(&self, filter: &Filter) -> (String, Vec<Value>) {
        let instant = self.store.instant();
        let micros = |minute: i64| minute.saturating_mul(MICROS_PER_MINUTE);
        let mut condition = Condition::new("revenue IS NOT NULL AND campaign_id IS NOT NULL");
        condition.also("occurred_at >=", filter.from.map(micros), instant);
        condition.also("occurred_at <", filter.to.map(micros), instant);
        condition.also("source =", filter.source.map(Source::code), "{}");
        condition.also("campaign_id =", filter.campaign_id.clone(), "{}");
        (condition.sql(), condition.values)
    }
}

/// What rows that meet a condition tell, by campaign.
fn by_campaign(condition: &str) -> String {
    format!("SELECT campaign_id, {SUMS} FROM event_rows WHERE {condition} GROUP BY campaign_id")
}

impl RowSum {
    fn sum(self, source: Source) -> CampaignSum {
        CampaignSum {
            source,
            campaign_id: self.campaign_id,
            transactions: self.transactions.unsigned_abs(),
            total: total(self.millions, self.units, self.micros),
        }
    }
}
