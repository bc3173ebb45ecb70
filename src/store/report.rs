//! What the reports ask the store.
//!
//! Events and revenue come from the rollup; revenue by campaign from an index over the rows that make
//! revenue; demographics from the rows in range. All sums are integers until they are shown.

use sea_orm::sea_query::{Expr, SimpleExpr};
use sea_orm::{
    ColumnTrait, ConnectionTrait, EntityTrait, FromQueryResult, QueryFilter, QueryOrder, QuerySelect,
    QueryTrait, Select, Statement, Value,
};

use super::connect::Store;
use super::entity::event_rollup::{Column, Entity};
use super::error::StoreError;
use crate::event::{FunnelStage, MICROS_PER_UNIT, Source};

/// The rows that a report is over. Bounds are minutes since 1970, `from` inclusive, `to` exclusive.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// The first minute.
    pub from: Option<i64>,
    /// The minute after the last.
    pub to: Option<i64>,
    /// One source alone.
    pub source: Option<Source>,
    /// One stage alone.
    pub stage: Option<FunnelStage>,
    /// Types of these numbers alone.
    pub event_types: Option<Vec<i16>>,
    /// One campaign alone; for revenue.
    pub campaign_id: Option<String>,
}

/// A count of events.
#[derive(Debug, Clone, PartialEq, Eq, FromQueryResult)]
pub struct EventCount {
    /// The bucket, counted in intervals since 1970; 0 without an interval.
    pub bucket: i64,
    /// A word's number.
    pub source: i16,
    /// A word's number.
    pub funnel_stage: i16,
    /// A word's number.
    pub event_type: i16,
    /// How many.
    pub events: i64,
}

/// Revenue of one type of event.
#[derive(Debug, Clone, PartialEq, Eq, FromQueryResult)]
pub struct RevenueSum {
    /// The bucket, counted in intervals since 1970; 0 without an interval.
    pub bucket: i64,
    /// A word's number.
    pub source: i16,
    /// A word's number.
    pub event_type: i16,
    /// Events that made revenue.
    pub transactions: i64,
    /// The sum of whole units.
    pub units: i64,
    /// The sum of the millionths beside them.
    pub micros: i64,
}

impl RevenueSum {
    /// The sum, in millionths.
    pub fn total(&self) -> i128 {
        i128::from(self.units) * i128::from(MICROS_PER_UNIT) + i128::from(self.micros)
    }
}

/// Revenue of one campaign.
#[derive(Debug, Clone, PartialEq, Eq, FromQueryResult)]
pub struct CampaignSum {
    /// A word's number.
    pub source: i16,
    /// The campaign.
    pub campaign_id: String,
    /// Events that made revenue.
    pub transactions: i64,
    /// The sum of whole units.
    pub units: i64,
    /// The sum of the millionths beside them.
    pub micros: i64,
}

/// How many users are in a group.
#[derive(Debug, Clone, PartialEq, Eq, FromQueryResult)]
pub struct UserCount {
    /// The group: a name, or a number as text.
    pub name: Option<String>,
    /// A second name, for cities.
    pub detail: Option<String>,
    /// Users, each once.
    pub users: i64,
}

/// Sums over a source's events in range.
#[derive(Debug, Clone, Default, PartialEq, Eq, FromQueryResult)]
pub struct AudienceSums {
    /// Events.
    pub events: i64,
    /// Users, each once.
    pub users: i64,
    /// Events that carry followers, and their sum in two parts.
    pub with_followers: i64,
    /// Millions.
    pub followers_high: i64,
    /// What is left of them.
    pub followers_low: i64,
    /// Events that carry a watch time, and its sum in two parts.
    pub with_watch_time: i64,
    /// Seconds.
    pub watch_high: i64,
    /// Billionths beside them.
    pub watch_low: i64,
    /// Percent.
    pub percentage_high: i64,
    /// Billionths beside them.
    pub percentage_low: i64,
}

/// What users are grouped by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// The lower bound of an age range.
    AgeRange,
    /// The gender's number.
    Gender,
    /// The country.
    Country,
    /// City and country.
    City,
    /// The lower bound of a range of followers.
    FollowerRange,
    /// The device's number.
    Device,
}

impl Group {
    const fn sql(self) -> (&'static str, &'static str) {
        match self {
            Self::AgeRange => (
                "CASE WHEN age < 18 THEN '0' WHEN age < 25 THEN '18' WHEN age < 35 THEN '25' WHEN age < 45 THEN '35'
                 WHEN age < 55 THEN '45' WHEN age < 65 THEN '55' ELSE '65' END",
                "NULL",
            ),
            Self::Gender => ("CAST(gender AS text)", "NULL"),
            Self::Country => ("country", "NULL"),
            Self::City => ("city", "country"),
            Self::FollowerRange => (
                "CASE WHEN followers < 1000 THEN '0' WHEN followers < 10000 THEN '1000'
                 WHEN followers < 100000 THEN '10000' WHEN followers < 1000000 THEN '100000' ELSE '1000000' END",
                "NULL",
            ),
            Self::Device => ("CAST(device AS text)", "NULL"),
        }
    }

    const fn present(self) -> &'static str {
        match self {
            Self::AgeRange => "age",
            Self::Gender => "gender",
            Self::Country => "country",
            Self::City => "city",
            Self::FollowerRange => "followers",
            Self::Device => "device",
        }
    }
}

fn rollup(filter: &Filter) -> Select<Entity> {
    let minute = |minute: i64| i32::try_from(minute).unwrap_or(if minute < 0 { i32::MIN } else { i32::MAX });
    Entity::find()
        .select_only()
        .apply_if(filter.from, |query, from| query.filter(Column::Minute.gte(minute(from))))
        .apply_if(filter.to, |query, to| query.filter(Column::Minute.lt(minute(to))))
        .apply_if(filter.source, |query, source| query.filter(Column::Source.eq(source.code())))
        .apply_if(filter.stage, |query, stage| query.filter(Column::FunnelStage.eq(stage.code())))
        .apply_if(filter.event_types.clone(), |query, types| query.filter(Column::EventType.is_in(types)))
}

fn bucket(interval: Option<i64>) -> SimpleExpr {
    match interval {
        // Minutes are never negative, so that this rounds down.
        Some(minutes) => Expr::cust(format!("CAST(minute / {minutes} AS bigint)")),
        None => Expr::cust("CAST(0 AS bigint)"),
    }
}

fn sum(column: &str) -> SimpleExpr {
    Expr::cust(format!("CAST(coalesce(sum({column}), 0) AS bigint)"))
}

impl Store {
    /// Counts events by source, stage and type, and by interval (in minutes) where one is given.
    pub async fn count_events(
        &self,
        filter: &Filter,
        interval: Option<i64>,
    ) -> Result<Vec<EventCount>, StoreError> {
        let query = rollup(filter)
            .column_as(bucket(interval), "bucket")
            .columns([Column::Source, Column::FunnelStage, Column::EventType])
            .column_as(sum("events"), "events")
            .group_by(Expr::col("bucket"))
            .group_by(Column::Source)
            .group_by(Column::FunnelStage)
            .group_by(Column::EventType)
            .order_by_asc(Expr::col("bucket"))
            .order_by_asc(Column::Source)
            .order_by_asc(Column::FunnelStage)
            .order_by_asc(Column::EventType);
        Ok(query.into_model::<EventCount>().all(self.db()).await?)
    }

    /// Sums revenue by source and type, and by interval (in minutes) where one is given.
    pub async fn sum_revenue(
        &self,
        filter: &Filter,
        interval: Option<i64>,
    ) -> Result<Vec<RevenueSum>, StoreError> {
        if filter.campaign_id.is_some() {
            return self.sum_campaign_revenue(filter, interval).await;
        }
        let query = rollup(filter)
            .filter(Column::Transactions.gt(0))
            .column_as(bucket(interval), "bucket")
            .columns([Column::Source, Column::EventType])
            .column_as(sum("transactions"), "transactions")
            .column_as(sum("revenue_units"), "units")
            .column_as(sum("revenue_micros"), "micros")
            .group_by(Expr::col("bucket"))
            .group_by(Column::Source)
            .group_by(Column::EventType)
            .order_by_asc(Expr::col("bucket"))
            .order_by_asc(Column::Source)
            .order_by_asc(Column::EventType);
        Ok(query.into_model::<RevenueSum>().all(self.db()).await?)
    }

    async fn sum_campaign_revenue(
        &self,
        filter: &Filter,
        interval: Option<i64>,
    ) -> Result<Vec<RevenueSum>, StoreError> {
        let (condition, values) = self.row_condition(filter);
        let minute = if self.is_postgres() {
            "extract(epoch FROM date_bin('1 minute', occurred_at, 'epoch'))::bigint / 60"
        } else {
            "occurred_at / 60000000"
        };
        let bucket = interval.map_or("0".to_owned(), |minutes| format!("{minute} / {minutes}"));
        let sql = format!(
            "SELECT CAST({bucket} AS bigint) AS bucket, source, event_type, count(*) AS transactions,
                CAST(sum(revenue / 1000000) AS bigint) AS units, CAST(sum(revenue % 1000000) AS bigint) AS micros
             FROM event_rows WHERE revenue IS NOT NULL AND {condition}
             GROUP BY 1, source, event_type ORDER BY 1, source, event_type"
        );
        self.select(sql, values).await
    }

    /// Sums revenue by campaign, the highest first.
    pub async fn sum_campaigns(&self, filter: &Filter, limit: u64) -> Result<Vec<CampaignSum>, StoreError> {
        let (condition, mut values) = self.row_condition(filter);
        values.push(i64::try_from(limit).unwrap_or(i64::MAX).into());
        let sql = format!(
            "SELECT source, campaign_id, count(*) AS transactions, CAST(sum(revenue / 1000000) AS bigint) AS units,
                CAST(sum(revenue % 1000000) AS bigint) AS micros
             FROM event_rows WHERE revenue IS NOT NULL AND campaign_id IS NOT NULL AND {condition}
             GROUP BY source, campaign_id
             ORDER BY sum(revenue / 1000000) + sum(revenue % 1000000) / 1000000 DESC,
                sum(revenue % 1000000) % 1000000 DESC, campaign_id, source LIMIT ${}",
            values.len()
        );
        self.select(sql, values).await
    }

    /// Sums over a source's events in range.
    pub async fn audience(&self, filter: &Filter) -> Result<AudienceSums, StoreError> {
        let (condition, values) = self.row_condition(filter);
        let halves = |column: &str, by: &str, name: &str| {
            format!(
                "CAST(coalesce(sum({column} / {by}), 0) AS bigint) AS {name}_high,
                 CAST(coalesce(sum({column} % {by}), 0) AS bigint) AS {name}_low"
            )
        };
        let sql = format!(
            "SELECT count(*) AS events, count(DISTINCT user_id) AS users, count(followers) AS with_followers, {},
                count(watch_time) AS with_watch_time, {}, {}
             FROM event_rows WHERE {condition}",
            halves("followers", "1000000", "followers"),
            halves("watch_time", "1000000000", "watch"),
            halves("percentage_watched", "1000000000", "percentage"),
        );
        Ok(self.select(sql, values).await?.pop().unwrap_or_default())
    }

    /// Counts users by group, the most first; at most `limit` groups.
    pub async fn count_users(
        &self,
        filter: &Filter,
        group: Group,
        limit: u64,
    ) -> Result<Vec<UserCount>, StoreError> {
        let (condition, mut values) = self.row_condition(filter);
        values.push(i64::try_from(limit).unwrap_or(i64::MAX).into());
        let (name, detail) = group.sql();
        let sql = format!(
            "SELECT {name} AS name, CAST({detail} AS text) AS detail, count(DISTINCT user_id) AS users
             FROM event_rows WHERE {} IS NOT NULL AND {condition} GROUP BY 1, 2
             ORDER BY users DESC, name, detail LIMIT ${}",
            group.present(),
            values.len()
        );
        self.select(sql, values).await
    }

    /// A condition over `event_rows`, with its parameters from $1.
    fn row_condition(&self, filter: &Filter) -> (String, Vec<Value>) {
        let mut values: Vec<Value> = Vec::new();
        let mut wheres = vec!["1 = 1".to_owned()];
        let instant =
            if self.is_postgres() { "('epoch'::timestamptz + {} * interval '1 microsecond')" } else { "{}" };
        let mut also = |left: &str, value: Option<Value>, form: &str| {
            if let Some(value) = value {
                values.push(value);
                wheres.push(format!("{left} {}", form.replace("{}", &format!("${}", values.len()))));
            }
        };
        let micros =
            |minute: Option<i64>| minute.map(|minute| Value::from(minute.saturating_mul(60_000_000)));
        also("occurred_at >=", micros(filter.from), instant);
        also("occurred_at <", micros(filter.to), instant);
        also("source =", filter.source.map(|source| source.code().into()), "{}");
        also("funnel_stage =", filter.stage.map(|stage| stage.code().into()), "{}");
        also("campaign_id =", filter.campaign_id.clone().map(Value::from), "{}");
        (wheres.join(" AND "), values)
    }

    async fn select<T: FromQueryResult>(
        &self,
        sql: String,
        values: Vec<Value>,
    ) -> Result<Vec<T>, StoreError> {
        let statement = Statement::from_sql_and_values(self.db().get_database_backend(), sql, values);
        let rows = self.db().query_all_raw(statement).await?;
        Ok(rows.iter().map(|row| T::from_query_result(row, "")).collect::<Result<_, _>>()?)
    }
}
