//! Revenue by campaign, in one currency.
//!
//! | campaigns asked for | read from |
//! |---|---|
//! | one | its rows, by the index over campaign and time |
//! | all, in a range of few transactions or of less than an hour | the rows of the range |
//! | all, at most 1,000 in each summary | the summaries of whole hours, and the rows in the minutes beside |
//! | all, more of them | table `campaigns`, from the highest revenue down ([`super::top_campaigns`]) |

use std::collections::HashMap;

use compact_str::CompactString;
use sea_orm::FromQueryResult;

use crate::event::{MICROS_PER_MINUTE, Source};
use crate::money::Currency;
use crate::store::error::StoreError;
use crate::store::money::total;
use crate::store::report::{CampaignSum, Filter, Report, RevenueSum};
use crate::store::sql::Sql;
use crate::store::summary::{Sections, SummaryView};

/// Transactions in a range up to which its rows are summed up.
const ROWS_SUMMED: i64 = 4_000;

/// First hour, and the hour after the last, since 1970; `None` is open.
type Hours = (Option<i64>, Option<i64>);

/// Revenue of a campaign in a range, summed up from rows.
#[derive(Debug, FromQueryResult)]
struct RowSum {
    campaign_id: String,
    transactions: i64,
    millions: i64,
    units: i64,
    micros: i64,
}

impl RowSum {
    fn into_sum(self, source: Source) -> CampaignSum {
        CampaignSum {
            source,
            campaign_id: self.campaign_id,
            transactions: self.transactions.unsigned_abs(),
            total: total(self.millions, self.units, self.micros),
        }
    }
}

/// A source, whether table `campaigns` has any of it, and whether deltas of it are not folded yet.
#[derive(Debug, FromQueryResult)]
struct SourceCampaigns {
    source: i16,
    has_campaigns: bool,
    has_deltas: bool,
}

/// SQL: columns of a [`RowSum`] but the campaign. No part exceeds 64 bits, however many rows there are.
const SUMS: &str = "count(*) AS transactions, CAST(sum(revenue / 1000000000000) AS bigint) AS millions,
    CAST(sum(revenue / 1000000 % 1000000) AS bigint) AS units, CAST(sum(revenue % 1000000) AS bigint) AS micros";

/// The SQL of this file stays text: these queries were measured, and the databases hold times in different types.
impl Report<'_> {
    /// Sums the revenue of the filter's campaign by source, type and currency, and by interval (in minutes).
    pub(super) async fn sum_campaign(
        &self,
        filter: &Filter,
        interval: Option<i64>,
    ) -> Result<Vec<RevenueSum>, StoreError> {
        let minute = self.store.minute();
        let bucket = interval.map_or("0".to_owned(), |minutes| format!("{minute} / {minutes}"));
        let mut sql = Sql::new(format!(
            "SELECT CAST({bucket} AS bigint) AS bucket, source, event_type, currency, {SUMS} FROM event_rows WHERE "
        ));
        self.push_condition(&mut sql, filter);
        sql.push(" GROUP BY 1, source, event_type, currency ORDER BY 1, source, event_type, currency");
        sql.all(self.tx()?).await
    }

    /// The campaigns with the highest revenue in the filter's currency, the highest first.
    ///
    /// # Errors
    ///
    /// [`StoreError::Corrupt`] if a summary that is needed cannot be decoded; any other if the store is unavailable.
    pub async fn top_campaigns(&self, filter: &Filter, limit: usize) -> Result<Vec<CampaignSum>, StoreError> {
        let mut top = if filter.campaign_id.is_some() {
            let mut top = Vec::new();
            for source in filter.sources() {
                top.extend(self.sum_rows_by_campaign(source, filter, Some(limit)).await?);
            }
            top
        } else {
            self.top_of_all(filter, limit).await?
        };
        top.sort_unstable_by(CampaignSum::rank);
        top.truncate(limit);
        Ok(top)
    }

    /// The first campaigns of each source, in no order.
    async fn top_of_all(&self, filter: &Filter, limit: usize) -> Result<Vec<CampaignSum>, StoreError> {
        let hours: Hours =
            (filter.from.map(|from| -(-from).div_euclid(60)), filter.to.map(|to| to.div_euclid(60)));
        let has_whole_hour = !matches!(hours, (Some(first), Some(end)) if first >= end);
        let (mut top, mut large) = (Vec::new(), Vec::new());
        let sums = self.sum_revenue(filter, None).await?;
        for source in filter.sources() {
            let of_source = || sums.iter().filter(|sum| sum.source == source.code());
            if !of_source().any(|sum| sum.currency == filter.currency.number()) {
                continue;
            }
            // The rows of all currencies are read.
            match of_source().map(|sum| sum.transactions).sum::<i64>() {
                few if few <= ROWS_SUMMED || !has_whole_hour => {
                    top.extend(self.sum_rows_by_campaign(source, filter, Some(limit)).await?);
                }
                _ => large.push(source),
            }
        }
        let large = self.sources_with_campaigns(large, filter.currency).await?;
        for view in self.read_campaigns(&large, hours).await? {
            let source = view.source;
            if let Some(sums) = view.sum_campaigns(filter.currency) {
                top.extend(self.add_minutes_beside(source, filter, hours, sums).await?);
                continue;
            }
            top.extend(match self.search_top_campaigns(source, filter, limit, &view).await? {
                Some(found) => found,
                None => self.sum_rows_by_campaign(source, filter, Some(limit)).await?,
            });
        }
        Ok(top)
    }

    /// The sources that ever had a campaign in a currency. Those that never had are not read for nothing.
    async fn sources_with_campaigns(
        &self,
        sources: Vec<Source>,
        currency: Currency,
    ) -> Result<Vec<Source>, StoreError> {
        if sources.is_empty() {
            return Ok(sources);
        }
        let (mut with, mut with_deltas) = (Vec::new(), Vec::new());
        let mut sql = Sql::new("WITH asked (source) AS (VALUES ");
        for (number, source) in sources.iter().enumerate() {
            sql.push(if number == 0 { "(" } else { ", (" }).push_bind(source.code()).push(")");
        }
        // The maximum is one look at the index.
        sql.push(
            ") SELECT source,
                (SELECT max(high) FROM campaigns c WHERE c.source = asked.source AND c.currency = ",
        );
        sql.push_bind(currency.number()).push(
            ") IS NOT NULL AS has_campaigns,
                EXISTS (SELECT 1 FROM summary_deltas d WHERE d.source = asked.source) AS has_deltas FROM asked",
        );
        for found in sql.all::<SourceCampaigns>(self.tx()?).await? {
            let source = Source::from_code(found.source);
            if found.has_campaigns {
                with.extend(source);
            } else if found.has_deltas {
                with_deltas.extend(source);
            }
        }
        // An empty range: only the deltas are read.
        let views = self.read_campaigns(&with_deltas, (Some(0), Some(0))).await?;
        let found = views.iter().filter(|view| view.has_campaign_deltas(currency));
        with.extend(found.map(|view| view.source));
        Ok(with)
    }

    async fn read_campaigns(&self, sources: &[Source], hours: Hours) -> Result<Vec<SummaryView>, StoreError> {
        self.store.read_summaries(self.tx()?, sources, hours, Sections::Campaigns, self.cache).await
    }

    /// Adds the rows of the minutes before and after whole hours to the sums of those hours.
    async fn add_minutes_beside(
        &self,
        source: Source,
        filter: &Filter,
        hours: Hours,
        mut sums: HashMap<CompactString, (u64, i128)>,
    ) -> Result<Vec<CampaignSum>, StoreError> {
        let before = hours.0.map(|hour| (filter.from, Some(hour * 60)));
        let after = hours.1.map(|hour| (Some(hour * 60), filter.to));
        for (from, to) in [before, after].into_iter().flatten().filter(|(from, to)| from < to) {
            let minutes = Filter { from, to, ..filter.clone() };
            for sum in self.sum_rows_by_campaign(source, &minutes, None).await? {
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

    /// Sums the rows of a range by campaign: of all campaigns, or of the first by revenue.
    async fn sum_rows_by_campaign(
        &self,
        source: Source,
        filter: &Filter,
        limit: Option<usize>,
    ) -> Result<Vec<CampaignSum>, StoreError> {
        let mut sql = Sql::new(if limit.is_some() { "SELECT * FROM (" } else { "" });
        self.push_sums_by_campaign(&mut sql, &filter.of(source), None);
        if let Some(limit) = limit {
            // The order of bytes, as in the order of ranks.
            let bytes = if self.store.is_postgres() { " COLLATE \"C\"" } else { "" };
            sql.push(format!(
                ") AS sums
                 ORDER BY millions + (units + micros / 1000000) / 1000000 DESC,
                    (units + micros / 1000000) % 1000000 DESC, micros % 1000000 DESC, campaign_id{bytes} LIMIT {limit}"
            ));
        }
        self.campaign_sums(source, sql).await
    }

    /// Sums the rows of some campaigns in a range.
    pub(super) async fn sum_rows_of_campaigns(
        &self,
        source: Source,
        filter: &Filter,
        campaign_ids: Vec<String>,
    ) -> Result<Vec<CampaignSum>, StoreError> {
        let mut sql = Sql::new("");
        self.push_sums_by_campaign(&mut sql, &filter.of(source), Some(campaign_ids));
        self.campaign_sums(source, sql).await
    }

    async fn campaign_sums(&self, source: Source, sql: Sql) -> Result<Vec<CampaignSum>, StoreError> {
        let sums: Vec<RowSum> = sql.all(self.tx()?).await?;
        Ok(sums.into_iter().map(|sum| sum.into_sum(source)).collect())
    }

    /// Appends the sums of a filter's rows in its currency by campaign, or of the campaigns with some ids.
    fn push_sums_by_campaign(&self, sql: &mut Sql, filter: &Filter, campaign_ids: Option<Vec<String>>) {
        sql.push(format!("SELECT campaign_id, {SUMS} FROM event_rows WHERE "));
        self.push_condition(sql, filter);
        sql.push(" AND currency = ").push_bind(filter.currency.number());
        if let Some(campaign_ids) = campaign_ids {
            sql.push(" AND campaign_id IN (").push_list(campaign_ids).push(")");
        }
        sql.push(" GROUP BY campaign_id");
    }

    /// Appends the condition of rows that have revenue, in any currency, and a campaign and pass a filter.
    fn push_condition(&self, sql: &mut Sql, filter: &Filter) {
        let micros = |minute: i64| minute.saturating_mul(MICROS_PER_MINUTE);
        sql.push("revenue IS NOT NULL AND campaign_id IS NOT NULL");
        if let Some(from) = filter.from {
            sql.push(" AND occurred_at >= ");
            self.store.push_instant(sql, micros(from));
        }
        if let Some(to) = filter.to {
            sql.push(" AND occurred_at < ");
            self.store.push_instant(sql, micros(to));
        }
        if let Some(source) = filter.source {
            sql.push(" AND source = ").push_bind(source.code());
        }
        if let Some(campaign_id) = &filter.campaign_id {
            sql.push(" AND campaign_id = ").push_bind(campaign_id.clone());
        }
    }
}
