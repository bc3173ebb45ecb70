//! Events and revenue by type, in spans of a minute to a day.
//!
//! They count the rows of a transaction in that transaction. A range is told by the days within it, the six
//! hours beside those, and so on down to minutes: so many rows at most, whatever is stored.

use sea_orm::sea_query::{Condition, Expr, SimpleExpr};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect, QueryTrait, Select};

use crate::store::entity::rollups::{Column, Entity};
use crate::store::error::StoreError;
use crate::store::money::{REVENUE_MILLIONS, REVENUE_UNITS};
use crate::store::report::{EventCount, Filter, Report, RevenueSum};
use crate::store::write::counts::WIDTHS;

/// A range of spans of one width, counted in them; open where it is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    minutes: i16,
    from: Option<i64>,
    to: Option<i64>,
}

/// The parts that make up a range of minutes, none of them wider than `widest` minutes.
fn parts(from: Option<i64>, to: Option<i64>, widest: i64) -> Vec<Part> {
    fn add(parts: &mut Vec<Part>, from: Option<i64>, to: Option<i64>, widths: &[i16]) {
        let Some((&minutes, finer)) = widths.split_last() else { return };
        let width = i64::from(minutes);
        if from.zip(to).is_some_and(|(from, to)| from >= to) {
            return;
        }
        let first = from.map(|from| -(-from).div_euclid(width));
        let end = to.map(|to| to.div_euclid(width));
        if first.zip(end).is_some_and(|(first, end)| first >= end) {
            return add(parts, from, to, finer);
        }
        parts.push(Part { minutes, from: first, to: end });
        if let Some(first) = first {
            add(parts, from, Some(first * width), finer);
        }
        if let Some(end) = end {
            add(parts, Some(end * width), to, finer);
        }
    }
    let widths = WIDTHS.iter().filter(|minutes| i64::from(**minutes) <= widest).count();
    let mut all = Vec::new();
    add(&mut all, from, to, &WIDTHS[..widths]);
    all
}

/// The rollups that tell a filter's range, in buckets of so many minutes.
fn rollups(filter: &Filter, interval: Option<i64>) -> Select<Entity> {
    let whole = |at: i64| i32::try_from(at).unwrap_or(if at < 0 { i32::MIN } else { i32::MAX });
    let mut any = Condition::any();
    for part in parts(filter.from, filter.to, interval.unwrap_or(i64::MAX)) {
        let range = Condition::all()
            .add(Column::Minutes.eq(part.minutes))
            .add_option(part.from.map(|from| Column::At.gte(whole(from))))
            .add_option(part.to.map(|to| Column::At.lt(whole(to))));
        any = any.add(range);
    }
    if any.is_empty() {
        // No minute at all.
        any = any.add(Column::Minutes.lt(0));
    }
    Entity::find()
        .select_only()
        .filter(any)
        .apply_if(filter.source, |query, source| query.filter(Column::Source.eq(source.code())))
        .apply_if(filter.stage, |query, stage| query.filter(Column::FunnelStage.eq(stage.code())))
        .apply_if(filter.event_types.clone(), |query, types| query.filter(Column::EventType.is_in(types)))
}

/// The bucket that a row is in.
fn bucket(interval: Option<i64>) -> SimpleExpr {
    let Some(interval) = interval else { return Expr::cust("CAST(0 AS bigint)") };
    // Instants are never before 1970, so that this rounds down. No span is wider than the interval.
    Expr::cust(format!("CAST(at / ({interval} / minutes) AS bigint)"))
}

fn sum(column: &str) -> SimpleExpr {
    whole(&format!("sum({column})"))
}

fn whole(sum: &str) -> SimpleExpr {
    Expr::cust(format!("CAST(coalesce({sum}, 0) AS bigint)"))
}

impl Report<'_> {
    /// Counts events by source, stage and type, and by interval (in minutes) where one is given.
    ///
    /// # Errors
    ///
    /// If the store is away.
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

    /// Sums revenue by source and type, and by interval (in minutes) where one is given.
    ///
    /// # Errors
    ///
    /// If the store is away.
    pub async fn sum_revenue(
        &self,
        filter: &Filter,
        interval: Option<i64>,
    ) -> Result<Vec<RevenueSum>, StoreError> {
        if filter.campaign_id.is_some() {
            return self.sum_campaign(filter, interval).await;
        }
        let query = rollups(filter, interval)
            // What was mended may be of money alone.
            .filter(
                Condition::any()
                    .add(Column::Transactions.ne(0))
                    .add(Column::RevenueUnits.ne(0))
                    .add(Column::RevenueMicros.ne(0))
                    .add(Column::RevenueHigh.ne(0)),
            )
            .having(Expr::cust("sum(transactions) > 0"))
            .column_as(bucket(interval), "bucket")
            .columns([Column::Source, Column::EventType])
            .column_as(sum("transactions"), "transactions")
            .column_as(whole(REVENUE_MILLIONS), "millions")
            .column_as(whole(REVENUE_UNITS), "units")
            .column_as(sum("revenue_micros"), "micros")
            .group_by(Expr::col("bucket"))
            .group_by(Column::Source)
            .group_by(Column::EventType)
            .order_by_asc(Expr::col("bucket"))
            .order_by_asc(Column::Source)
            .order_by_asc(Column::EventType);
        Ok(query.into_model::<RevenueSum>().all(self.tx()?).await?)
    }

    /// How many buckets of so many minutes hold something of a filter, or something that made revenue, of
    /// whatever campaign; counted up to `most`.
    ///
    /// # Errors
    ///
    /// If the store is away.
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
    fn an_open_range_is_days_alone() {
        assert_eq!(parts(None, None, i64::MAX), [Part { minutes: 1_440, from: None, to: None }]);
        let all = parts(None, Some(1_500), i64::MAX);
        assert_eq!(all[0], Part { minutes: 1_440, from: None, to: Some(1) });
        assert_eq!(all[1..], [Part { minutes: 60, from: Some(24), to: Some(25) }]);
    }

    proptest! {
        #[test]
        fn parts_make_up_the_range_and_are_few(from in 0_i64..100_000, minutes in 0_i64..1_000_000,
            widest in prop::sample::select(vec![1, 60, 1_440, i64::MAX])) {
            let mut ranges: Vec<(i64, i64)> = Vec::new();
            let mut rows = 0;
            for part in parts(Some(from), Some(from + minutes), widest) {
                let width = i64::from(part.minutes);
                prop_assert!(width <= widest);
                let (first, end) = (part.from.unwrap(), part.to.unwrap());
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
