//! Events and revenue by type, from the rollups of spans of a minute to a day.
//!
//! The writer counts the rows of a transaction in that transaction. A range is read from the days within it, the spans
//! of six hours beside those, and so on down to minutes: so the number of rows read is bounded, whatever is stored.

use sea_orm::sea_query::{Condition, Expr, SimpleExpr};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect, QueryTrait, Select};

use crate::store::entity::rollups::{Column, Entity};
use crate::store::error::StoreError;
use crate::store::money::{REVENUE_MILLIONS, REVENUE_UNITS};
use crate::store::report::{EventCount, Filter, Report, RevenueSum};
use crate::store::write::counts::WIDTHS;

/// A range of spans of one width, numbered since 1970; `None` is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SpanRange {
    /// Width of the spans.
    minutes: i16,
    first: Option<i64>,
    end: Option<i64>,
}

/// Splits a range of minutes into spans that are as wide as possible, but not wider than `widest` minutes.
fn split(from: Option<i64>, to: Option<i64>, widest: i64) -> Vec<SpanRange> {
    fn add(ranges: &mut Vec<SpanRange>, from: Option<i64>, to: Option<i64>, widths: &[i16]) {
        let Some((&minutes, narrower)) = widths.split_last() else { return };
        let width = i64::from(minutes);
        if from.zip(to).is_some_and(|(from, to)| from >= to) {
            return;
        }
        let first = from.map(|from| -(-from).div_euclid(width));
        let end = to.map(|to| to.div_euclid(width));
        if first.zip(end).is_some_and(|(first, end)| first >= end) {
            return add(ranges, from, to, narrower);
        }
        ranges.push(SpanRange { minutes, first, end });
        if let Some(first) = first {
            add(ranges, from, Some(first * width), narrower);
        }
        if let Some(end) = end {
            add(ranges, Some(end * width), to, narrower);
        }
    }
    let widths = WIDTHS.iter().filter(|minutes| i64::from(**minutes) <= widest).count();
    let mut ranges = Vec::new();
    add(&mut ranges, from, to, &WIDTHS[..widths]);
    ranges
}

/// The rollups of a filter's range, for buckets of `interval` minutes.
fn rollups(filter: &Filter, interval: Option<i64>) -> Select<Entity> {
    let saturate = |at: i64| i32::try_from(at).unwrap_or(if at < 0 { i32::MIN } else { i32::MAX });
    let mut any = Condition::any();
    for range in split(filter.from, filter.to, interval.unwrap_or(i64::MAX)) {
        let spans = Condition::all()
            .add(Column::Minutes.eq(range.minutes))
            .add_option(range.first.map(|first| Column::At.gte(saturate(first))))
            .add_option(range.end.map(|end| Column::At.lt(saturate(end))));
        any = any.add(spans);
    }
    if any.is_empty() {
        // An empty range. No rollup has such a width, while an empty condition would be true.
        any = any.add(Column::Minutes.lt(0));
    }
    Entity::find()
        .select_only()
        .filter(any)
        .apply_if(filter.source, |query, source| query.filter(Column::Source.eq(source.code())))
        .apply_if(filter.stage, |query, stage| query.filter(Column::FunnelStage.eq(stage.code())))
        .apply_if(filter.event_types.clone(), |query, types| query.filter(Column::EventType.is_in(types)))
}

/// The bucket of a rollup.
fn bucket(interval: Option<i64>) -> SimpleExpr {
    let Some(interval) = interval else { return Expr::cust("CAST(0 AS bigint)") };
    // Times are never before 1970, so that the division rounds down. No span is wider than the interval.
    Expr::cust(format!("CAST(at / ({interval} / minutes) AS bigint)"))
}

fn sum(column: &str) -> SimpleExpr {
    to_bigint(&format!("sum({column})"))
}

fn to_bigint(sum: &str) -> SimpleExpr {
    Expr::cust(format!("CAST(coalesce({sum}, 0) AS bigint)"))
}

impl Report<'_> {
    /// Counts events by source, stage and type, and by interval (in minutes) where one is given.
    ///
    /// # Errors
    ///
    /// If the store is unavailable.
    pub async fn count_events(
        &self,
        filter: &Filter,
        interval: Option<i64>,
    ) -> Result<Vec<EventCount>, StoreError> {
        let query = rollups(filter, interval)
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
        Ok(query.into_model::<EventCount>().all(self.tx()?).await?)
    }

    /// Sums revenue by source, type and currency, and by interval (in minutes) where one is given.
    ///
    /// # Errors
    ///
    /// If the store is unavailable.
    pub async fn sum_revenue(
        &self,
        filter: &Filter,
        interval: Option<i64>,
    ) -> Result<Vec<RevenueSum>, StoreError> {
        if filter.campaign_id.is_some() {
            return self.sum_campaign(filter, interval).await;
        }
        let query = rollups(filter, interval)
            // A correction of a rollup can be of money alone.
            .filter(
                Condition::any()
                    .add(Column::Transactions.ne(0))
                    .add(Column::RevenueUnits.ne(0))
                    .add(Column::RevenueMicros.ne(0))
                    .add(Column::RevenueHigh.ne(0)),
            )
            .having(Expr::cust("sum(transactions) > 0"))
            .column_as(bucket(interval), "bucket")
            .columns([Column::Source, Column::EventType, Column::Currency])
            .column_as(sum("transactions"), "transactions")
            .column_as(to_bigint(REVENUE_MILLIONS), "millions")
            .column_as(to_bigint(REVENUE_UNITS), "units")
            .column_as(sum("revenue_micros"), "micros")
            .group_by(Expr::col("bucket"))
            .group_by(Column::Source)
            .group_by(Column::EventType)
            .group_by(Column::Currency)
            .order_by_asc(Expr::col("bucket"))
            .order_by_asc(Column::Source)
            .order_by_asc(Column::EventType)
            .order_by_asc(Column::Currency);
        Ok(query.into_model::<RevenueSum>().all(self.tx()?).await?)
    }

    /// Number of buckets of `interval` minutes that have events of a filter, or only those with revenue of any
    /// campaign; counted up to `most`.
    ///
    /// # Errors
    ///
    /// If the store is unavailable.
    pub async fn count_buckets(
        &self,
        filter: &Filter,
        interval: i64,
        revenue: bool,
        most: u64,
    ) -> Result<u64, StoreError> {
        let query = rollups(filter, Some(interval))
            .apply_if(revenue.then_some(()), |query, ()| query.filter(Column::Transactions.gt(0)))
            .column_as(bucket(Some(interval)), "bucket")
            .distinct()
            .limit(most);
        let buckets: Vec<i64> = query.into_tuple().all(self.tx()?).await?;
        Ok(buckets.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_open_range_is_read_from_days_alone() {
        assert_eq!(split(None, None, i64::MAX), [SpanRange { minutes: 1_440, first: None, end: None }]);
        let all = split(None, Some(1_500), i64::MAX);
        assert_eq!(all[0], SpanRange { minutes: 1_440, first: None, end: Some(1) });
        assert_eq!(all[1..], [SpanRange { minutes: 60, first: Some(24), end: Some(25) }]);
    }

    proptest! {
        #[test]
        fn spans_make_up_the_range_and_are_few(from in 0_i64..100_000, minutes in 0_i64..1_000_000,
            widest in prop::sample::select(vec![1, 60, 1_440, i64::MAX])) {
            let mut ranges: Vec<(i64, i64)> = Vec::new();
            let mut rows = 0;
            for range in split(Some(from), Some(from + minutes), widest) {
                let width = i64::from(range.minutes);
                prop_assert!(width <= widest);
                let (first, end) = (range.first.unwrap(), range.end.unwrap());
                rows += end - first;
                ranges.push((first * width, end * width));
            }
            ranges.sort_unstable();
            let mut next = from;
            for (first, end) in ranges {
                prop_assert_eq!(first, next);
                next = end;
            }
            prop_assert_eq!(next, from + minutes);
            if widest > 60 {
                prop_assert!(rows <= minutes / 1_440 + 2 * (9 + 5 + 5 + 3), "{} rows", rows);
            }
        }
    }
}
