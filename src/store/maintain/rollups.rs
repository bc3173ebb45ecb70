//! Comparing rollups with the rows.

use sea_orm::FromQueryResult;

use crate::event::{MICROS_PER_MINUTE, Source};
use crate::money::Currency;
use crate::store::connect::Store;
use crate::store::error::StoreError;
use crate::store::locks::SHARDS;
use crate::store::money::{REVENUE_MILLIONS, REVENUE_UNITS};
use crate::store::sql::Sql;
use crate::store::transaction::Transaction;
use crate::store::write::counts::{INSERT_WIDE_ROLLUP, WIDTHS};

/// Minutes of a day.
pub(super) const DAY: i64 = 1_440;

/// Shard of repairs, which no writer adds to.
const REPAIR_SHARD: i32 = SHARDS;
/// Units of revenue that the column `revenue_high` counts as one.
const HIGH: i128 = 1_000_000_000_000_000_000;

/// A rollup that differs from the rows, and the difference: rows less rollup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RollupDifference {
    /// Width of its span, in minutes.
    pub minutes: i16,
    /// Number of spans of that width since 1970.
    pub at: i32,
    /// Code of the source.
    pub source: i16,
    /// Code of the funnel stage.
    pub funnel_stage: i16,
    /// Code of the event type.
    pub event_type: i16,
    /// Currency of the revenue.
    pub currency: Currency,
    /// Events.
    pub events: i64,
    /// Events with revenue.
    pub transactions: i64,
    /// Whole units of revenue.
    pub units: i128,
    /// Millionths of revenue beside the whole units.
    pub micros: i64,
}

/// A row of the comparison.
#[derive(Debug, FromQueryResult)]
struct Difference {
    minutes: i16,
    at: i32,
    source: i16,
    funnel_stage: i16,
    event_type: i16,
    currency: i16,
    events: i64,
    transactions: i64,
    millions: i64,
    units: i64,
    micros: i64,
}

impl From<Difference> for RollupDifference {
    fn from(found: Difference) -> Self {
        let Difference {
            minutes, at, source, funnel_stage, event_type, events, transactions, micros, ..
        } = found;
        let currency = Currency::from_number(found.currency);
        let units = i128::from(found.millions) * 1_000_000 + i128::from(found.units);
        Self { minutes, at, source, funnel_stage, event_type, currency, events, transactions, units, micros }
    }
}

impl RollupDifference {
    /// First minute of its span, since 1970.
    pub fn first_minute(&self) -> i64 {
        i64::from(self.at) * i64::from(self.minutes)
    }
}

impl Store {
    /// Differences of the rollups of a day. `from` is the minute from which on the source has all its rows.
    pub(super) async fn compare_rollups(
        &self,
        tx: &Transaction,
        source: Source,
        day: i64,
        from: i64,
    ) -> Result<Vec<RollupDifference>, StoreError> {
        let minute = self.minute();
        let widths = WIDTHS.map(|minutes| format!("({minutes})")).join(", ");
        let whole = |sum: &str| format!("CAST(coalesce({sum}, 0) AS bigint)");
        let sql = format!(
            "WITH widths (minutes) AS (VALUES {widths}), by_minute AS (
                SELECT {minute} AS minute, event_type, funnel_stage, currency, count(*) AS events,
                    count(revenue) AS transactions, {} AS millions, {} AS units, {} AS micros
                FROM event_rows WHERE source = $1 AND occurred_at >= {} AND occurred_at < {}
                GROUP BY 1, 2, 3, 4
            ), truth AS (
                SELECT minutes, minute / minutes AS at, event_type, funnel_stage, currency, {} AS events, {} AS transactions,
                    {} AS millions, {} AS units, {} AS micros
                FROM by_minute, widths GROUP BY 1, 2, 3, 4, 5
            ), kept AS (
                SELECT r.minutes, r.at, r.event_type, r.funnel_stage, r.currency, {} AS events, {} AS transactions,
                    {} AS millions, {} AS units, {} AS micros
                FROM rollups r JOIN widths w ON w.minutes = r.minutes
                WHERE r.source = $1 AND r.at >= $2 / w.minutes AND r.at < $3 / w.minutes GROUP BY 1, 2, 3, 4, 5
            )
            SELECT CAST(coalesce(t.minutes, k.minutes) AS smallint) AS minutes,
                CAST(coalesce(t.at, k.at) AS integer) AS at, CAST($1 AS smallint) AS source,
                coalesce(t.funnel_stage, k.funnel_stage) AS funnel_stage,
                coalesce(t.event_type, k.event_type) AS event_type,
                coalesce(t.currency, k.currency) AS currency,
                coalesce(t.events, 0) - coalesce(k.events, 0) AS events,
                coalesce(t.transactions, 0) - coalesce(k.transactions, 0) AS transactions,
                coalesce(t.millions, 0) - coalesce(k.millions, 0) AS millions,
                coalesce(t.units, 0) - coalesce(k.units, 0) AS units,
                coalesce(t.micros, 0) - coalesce(k.micros, 0) AS micros
            FROM truth t FULL JOIN kept k ON k.minutes = t.minutes AND k.at = t.at AND k.event_type = t.event_type
                AND k.currency = t.currency
            WHERE (t.events, t.transactions, t.millions + t.units / 1000000, t.units % 1000000, t.micros)
                IS DISTINCT FROM (k.events, k.transactions, k.millions + k.units / 1000000, k.units % 1000000, k.micros)
            ORDER BY 1, 2, 5, 6",
            whole("sum(revenue / 1000000000000)"),
            whole("sum(revenue / 1000000 % 1000000)"),
            whole("sum(revenue % 1000000)"),
            self.instant("$4"),
            self.instant("$5"),
            whole("sum(events)"),
            whole("sum(transactions)"),
            whole("sum(millions)"),
            whole("sum(units)"),
            whole("sum(micros)"),
            whole("sum(r.events)"),
            whole("sum(r.transactions)"),
            whole(REVENUE_MILLIONS),
            whole(REVENUE_UNITS),
            whole("sum(r.revenue_micros)"),
        );
        let (first, end) = (day * DAY, (day + 1) * DAY);
        let micros = |minute: i64| minute * MICROS_PER_MINUTE;
        let sql =
            Sql::new(sql).bind(source.code()).bind(first).bind(end).bind(micros(first)).bind(micros(end));
        let found = sql.all::<Difference>(tx).await?.into_iter().map(RollupDifference::from);
        // A span that begins before `from` has lost some of its rows.
        let complete = |found: &RollupDifference| found.first_minute() >= from;
        let real = |found: &RollupDifference| {
            (found.events, found.transactions, found.micros) != (0, 0, 0) || found.units != 0
        };
        Ok(found.filter(|found| complete(found) && real(found)).collect())
    }
}

fn part(units: i128) -> Result<i64, StoreError> {
    i64::try_from(units).map_err(|_| StoreError::internal(format!("a sum of {units} units exceeds 64 bits")))
}

/// Adds differences to the rollups, in the shard of repairs.
pub(super) async fn add(tx: &Transaction, differences: &[RollupDifference]) -> Result<(), StoreError> {
    for difference in differences {
        let sql = Sql::new(&*INSERT_WIDE_ROLLUP)
            .bind(difference.minutes)
            .bind(difference.at)
            .bind(difference.event_type)
            .bind(REPAIR_SHARD)
            .bind(difference.currency.number())
            .bind(difference.source)
            .bind(difference.funnel_stage)
            .bind(difference.events)
            .bind(difference.transactions)
            .bind(part(difference.units.rem_euclid(HIGH))?)
            .bind(difference.micros)
            .bind(part(difference.units.div_euclid(HIGH))?);
        sql.execute(tx).await?;
    }
    Ok(())
}
