//! Holding what is kept for reports against the rows, and mending it.
//!
//! A day is compared in one snapshot, in which rows, rollups, summaries and what is not folded yet agree. A
//! rollup is mended by adding what it lacks, in a shard of its own: collectors go on counting meanwhile, and
//! nothing waits. A summary is mended by marking it as stale, so that the rows tell its hour until it was
//! summed up anew. Where rows have left, there is nothing to compare with.

use std::ops::Range;

use sea_orm::{ConnectionTrait, FromQueryResult, Statement};

use crate::event::{MICROS_PER_MINUTE, Source};
use crate::store::connect::{Snapshot, Store};
use crate::store::error::StoreError;
use crate::store::locks::SHARDS;
use crate::store::maintain::retention::{retain, retained_from};
use crate::store::money::{REVENUE_MILLIONS, REVENUE_UNITS};
use crate::store::sql::Sql;
use crate::store::summary::fold_all;
use crate::store::transaction::Transaction;
use crate::store::write::counts::{INSERT_WIDE_ROLLUP, WIDTHS};

/// The shard of what was mended.
const MENDED: i32 = SHARDS;
/// Before all minutes.
const NONE_LEAVES: i64 = -1;
/// Minutes of a day.
const DAY: i64 = 1_440;
/// A day behind all that can be stored: 2200-01-01 is day 84,006.
const LAST_DAY: i64 = 90_000;
/// Units of revenue that are counted apart.
const HIGH: i128 = 1_000_000_000_000_000_000;

/// A rollup that is not what the rows say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RollupDifference {
    /// The span's width.
    pub minutes: i16,
    /// So many of them since 1970.
    pub at: i32,
    /// A word's number.
    pub source: i16,
    /// A word's number.
    pub funnel_stage: i16,
    /// A word's number.
    pub event_type: i16,
    /// Events of the rows less those that are counted; and so on.
    pub events: i64,
    /// Events that made revenue.
    pub transactions: i64,
    /// Whole units of revenue.
    pub units: i128,
    /// Millionths beside them.
    pub micros: i64,
}

/// A difference as the database tells it.
#[derive(Debug, FromQueryResult)]
struct Difference {
    minutes: i16,
    at: i32,
    source: i16,
    funnel_stage: i16,
    event_type: i16,
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
        let units = i128::from(found.millions) * 1_000_000 + i128::from(found.units);
        Self { minutes, at, source, funnel_stage, event_type, events, transactions, units, micros }
    }
}

impl RollupDifference {
    /// The minute since 1970 with which it begins.
    pub fn first_minute(&self) -> i64 {
        i64::from(self.at) * i64::from(self.minutes)
    }
}

/// What one day's comparison found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DayDifferences {
    /// Rollups that are not what the rows say.
    pub rollups: Vec<RollupDifference>,
    /// Hours since 1970 whose summaries are not what the rows say, by source.
    pub hours: Vec<(Source, i32)>,
}

impl DayDifferences {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.rollups.len() + self.hours.len()
    }
}

impl Store {
    /// Days since 1970 that have rows, rollups or summaries, ascending, within a range of days.
    ///
    /// # Errors
    ///
    /// If the store is away.
    pub async fn days(&self, within: &Range<i64>) -> Result<Vec<i64>, StoreError> {
        // Instants of the contract are within 1970 to 2199.
        let (first, end) = (within.start.clamp(0, LAST_DAY), within.end.clamp(0, LAST_DAY));
        let instant = self.instant();
        let (from, to) = (instant.replace("{}", "$3"), instant.replace("{}", "$4"));
        let rows = if self.is_postgres() {
            format!(
                "SELECT DISTINCT floor(extract(epoch FROM occurred_at) / 86400)::bigint AS day FROM event_rows
                 WHERE occurred_at >= {from} AND occurred_at < {to}"
            )
        } else {
            // From one day to the next by the index: far fewer steps than rows.
            format!(
                "SELECT day FROM (WITH RECURSIVE days (day) AS (
                    SELECT min(occurred_at) / 86400000000 FROM event_rows
                    WHERE occurred_at >= {from} AND occurred_at < {to}
                    UNION ALL
                    SELECT (SELECT min(occurred_at) / 86400000000 FROM event_rows
                        WHERE occurred_at >= (day + 1) * 86400000000 AND occurred_at < {to})
                    FROM days WHERE day IS NOT NULL
                 ) SELECT day FROM days WHERE day IS NOT NULL)"
            )
        };
        let sql = format!(
            "{rows}
             UNION SELECT CAST(at AS bigint) FROM rollups WHERE minutes = 1440 AND at >= $1 AND at < $2
             UNION SELECT CAST(at / 24 AS bigint) FROM summaries WHERE level = 0 AND at / 24 >= $1 AND at / 24 < $2
             ORDER BY 1"
        );
        let micros = |day: i64| (day * DAY * MICROS_PER_MINUTE).into();
        let values = [first.into(), end.into(), micros(first), micros(end)];
        let statement = Statement::from_sql_and_values(self.db().get_database_backend(), sql, values);
        let rows = self.db().query_all_raw(statement).await?;
        Ok(rows.iter().map(|row| row.try_get("", "day")).collect::<Result<_, _>>()?)
    }

    /// Compares what is kept of a day with its rows, and mends it if that is asked for.
    ///
    /// # Errors
    ///
    /// If the store is away, or another one mends at the same time.
    pub async fn compare_day(&self, day: i64, mend: bool) -> Result<DayDifferences, StoreError> {
        let mut differences = DayDifferences::default();
        for source in Source::all() {
            let compare = async || self.compare_source(source, day, mend).await;
            let found = self.retry_conflicts(compare).await?;
            differences.rollups.extend(found.rollups);
            differences.hours.extend(found.hours);
        }
        Ok(differences)
    }

    async fn compare_source(
        &self,
        source: Source,
        day: i64,
        mend: bool,
    ) -> Result<DayDifferences, StoreError> {
        let tx = self.snapshot(if mend { Snapshot::Write } else { Snapshot::Read }).await?;
        if mend {
            retain(&tx, source, NONE_LEAVES).await?;
        }
        let from = retained_from(&tx, source).await?.unwrap_or(i64::MIN);
        if (day + 1) * DAY <= from {
            tx.rollback().await?;
            return Ok(DayDifferences::default());
        }
        let rollups = self.compare_rollups(&tx, source, day, from).await?;
        let hours = self.compare_hours(&tx, source, day, from).await?;
        if mend {
            add(&tx, &rollups).await?;
            self.mark_stale(&tx, source, &hours).await?;
            tx.commit().await?;
        } else {
            tx.rollback().await?;
        }
        Ok(DayDifferences { rollups, hours: hours.into_iter().map(|hour| (source, hour)).collect() })
    }

    async fn compare_rollups(
        &self,
        tx: &Transaction,
        source: Source,
        day: i64,
        from: i64,
    ) -> Result<Vec<RollupDifference>, StoreError> {
        let (minute, instant) = (self.minute(), self.instant());
        let widths = WIDTHS.map(|minutes| format!("({minutes})")).join(", ");
        let whole = |sum: &str| format!("CAST(coalesce({sum}, 0) AS bigint)");
        let sql = format!(
            "WITH widths (minutes) AS (VALUES {widths}), by_minute AS (
                SELECT {minute} AS minute, event_type, funnel_stage, count(*) AS events,
                    count(revenue) AS transactions, {} AS millions, {} AS units, {} AS micros
                FROM event_rows WHERE source = $1 AND occurred_at >= {} AND occurred_at < {}
                GROUP BY 1, 2, 3
            ), truth AS (
                SELECT minutes, minute / minutes AS at, event_type, funnel_stage, {} AS events, {} AS transactions,
                    {} AS millions, {} AS units, {} AS micros
                FROM by_minute, widths GROUP BY 1, 2, 3, 4
            ), kept AS (
                SELECT r.minutes, r.at, r.event_type, r.funnel_stage, {} AS events, {} AS transactions,
                    {} AS millions, {} AS units, {} AS micros
                FROM rollups r JOIN widths w ON w.minutes = r.minutes
                WHERE r.source = $1 AND r.at >= $2 / w.minutes AND r.at < $3 / w.minutes GROUP BY 1, 2, 3, 4
            )
            SELECT CAST(coalesce(t.minutes, k.minutes) AS smallint) AS minutes,
                CAST(coalesce(t.at, k.at) AS integer) AS at, CAST($1 AS smallint) AS source,
                coalesce(t.funnel_stage, k.funnel_stage) AS funnel_stage,
                coalesce(t.event_type, k.event_type) AS event_type,
                coalesce(t.events, 0) - coalesce(k.events, 0) AS events,
                coalesce(t.transactions, 0) - coalesce(k.transactions, 0) AS transactions,
                coalesce(t.millions, 0) - coalesce(k.millions, 0) AS millions,
                coalesce(t.units, 0) - coalesce(k.units, 0) AS units,
                coalesce(t.micros, 0) - coalesce(k.micros, 0) AS micros
            FROM truth t FULL JOIN kept k ON k.minutes = t.minutes AND k.at = t.at AND k.event_type = t.event_type
            WHERE (t.events, t.transactions, t.millions + t.units / 1000000, t.units % 1000000, t.micros)
                IS DISTINCT FROM (k.events, k.transactions, k.millions + k.units / 1000000, k.units % 1000000, k.micros)
            ORDER BY 1, 2, 5",
            whole("sum(revenue / 1000000000000)"),
            whole("sum(revenue / 1000000 % 1000000)"),
            whole("sum(revenue % 1000000)"),
            instant.replace("{}", "$4"),
            instant.replace("{}", "$5"),
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
        // A span that began before rows left has only some of them.
        let whole = |found: &RollupDifference| found.first_minute() >= from;
        let real = |found: &RollupDifference| {
            (found.events, found.transactions, found.micros) != (0, 0, 0) || found.units != 0
        };
        Ok(found.filter(|found| whole(found) && real(found)).collect())
    }

    /// The hours of a day whose summaries are not what the rows say.
    async fn compare_hours(
        &self,
        tx: &Transaction,
        source: Source,
        day: i64,
        from: i64,
    ) -> Result<Vec<i32>, StoreError> {
        let mut wrong = Vec::new();
        for hour in (day * 24..(day + 1) * 24).filter(|hour| hour * 60 >= from) {
            let hour = i32::try_from(hour).unwrap_or(i32::MAX);
            if !self.hour_agrees(tx, source, hour).await? {
                wrong.push(hour);
            }
        }
        Ok(wrong)
    }

    /// How many of a source's campaigns are not what the rows say; they are mended if that is asked for.
    /// `None` where rows have left: nothing tells then what they were.
    ///
    /// # Errors
    ///
    /// If the store is away, or another one folds all the time.
    pub async fn compare_campaigns(&self, source: Source, mend: bool) -> Result<Option<i64>, StoreError> {
        self.retry_conflicts(async || self.compare_campaigns_once(source, mend).await).await
    }

    async fn compare_campaigns_once(&self, source: Source, mend: bool) -> Result<Option<i64>, StoreError> {
        // Sums are in parts of which none is beyond 64 bits; the ends stop at 10^18 units.
        const ROWS: &str = "SELECT campaign_id, source, transactions,
                CAST(millions / 1000000000000 AS bigint) AS high,
                CAST(millions % 1000000000000 * 1000000 + units AS bigint) AS units, micros, first_minute, last_minute,
                CASE WHEN first_millions >= 1000000000000 THEN 1000000000000000000
                    ELSE first_millions * 1000000 + first_units END AS first_units,
                CASE WHEN last_millions >= 1000000000000 THEN 1000000000000000000
                    ELSE last_millions * 1000000 + last_units END AS last_units,
                transactions AS ends_of
            FROM (SELECT campaign_id, source, transactions, first_minute, last_minute,
                    millions + (units + micros / 1000000) / 1000000 AS millions,
                    (units + micros / 1000000) % 1000000 AS units, micros % 1000000 AS micros,
                    first_millions + first_units / 1000000 AS first_millions, first_units % 1000000 AS first_units,
                    last_millions + last_units / 1000000 AS last_millions, last_units % 1000000 AS last_units
                FROM (SELECT campaign_id, source, count(*) AS transactions,
                        CAST(min(minute) AS integer) AS first_minute, CAST(max(minute) AS integer) AS last_minute,
                        CAST(sum(revenue / 1000000000000) AS bigint) AS millions,
                        CAST(sum(revenue / 1000000 % 1000000) AS bigint) AS units,
                        CAST(sum(revenue % 1000000) AS bigint) AS micros,
                        CAST(sum(revenue / 1000000000000) FILTER (WHERE minute = first) AS bigint) AS first_millions,
                        CAST(sum(revenue / 1000000 % 1000000) FILTER (WHERE minute = first) AS bigint) AS first_units,
                        CAST(sum(revenue / 1000000000000) FILTER (WHERE minute = last) AS bigint) AS last_millions,
                        CAST(sum(revenue / 1000000 % 1000000) FILTER (WHERE minute = last) AS bigint) AS last_units
                    FROM (SELECT campaign_id, source, revenue, {minute} AS minute,
                            min({minute}) OVER campaign AS first, max({minute}) OVER campaign AS last
                        FROM event_rows WHERE source = $1 AND revenue IS NOT NULL AND campaign_id IS NOT NULL
                        WINDOW campaign AS (PARTITION BY campaign_id)) AS sales
                    GROUP BY campaign_id, source) AS sums) AS parts WHERE true";
        let rows = ROWS.replace("{minute}", self.minute());
        let busy = || StoreError::conflict("summaries are being folded");
        let tx = self.lock_summaries(source).await?.ok_or_else(busy)?;
        retain(&tx, source, NONE_LEAVES).await?;
        if retained_from(&tx, source).await?.is_some() {
            tx.rollback().await?;
            return Ok(None);
        }
        fold_all(&tx, source).await?;
        let sql = format!(
            "WITH truth AS ({rows}), kept AS (SELECT * FROM campaigns WHERE source = $1)
             SELECT count(*) FILTER (WHERE (t.transactions, t.high, t.units, t.micros, t.first_minute, t.last_minute)
                    IS DISTINCT FROM (k.transactions, k.high, k.units, k.micros, k.first_minute, k.last_minute)
                OR (k.ends_of = k.transactions AND (t.first_units, t.last_units)
                    IS DISTINCT FROM (k.first_units, k.last_units))) AS wrong,
                count(*) FILTER (WHERE k.ends_of <> k.transactions) AS unknown
             FROM truth t FULL JOIN kept k ON k.campaign_id = t.campaign_id"
        );
        let backend = tx.get_database_backend();
        let statement = |sql: String| Statement::from_sql_and_values(backend, sql, [source.code().into()]);
        let row = tx.query_one_raw(statement(sql)).await?;
        let counted = |name| row.as_ref().map_or(Ok(0), |row| row.try_get("", name));
        let (wrong, unknown): (i64, i64) = (counted("wrong")?, counted("unknown")?);
        // What versions before did not count is no difference, and counted now.
        if mend && wrong + unknown > 0 {
            // No more than what is another: whoever reads goes by the index, as long as little changes.
            let none = "DELETE FROM campaigns WHERE source = $1 AND NOT EXISTS (SELECT 1 FROM event_rows e
                WHERE e.campaign_id = campaigns.campaign_id AND e.source = $1 AND e.revenue IS NOT NULL)";
            tx.execute_raw(statement(none.to_owned())).await?;
            let sums = [
                "transactions",
                "high",
                "units",
                "micros",
                "first_minute",
                "last_minute",
                "first_units",
                "last_units",
                "ends_of",
            ];
            let each = |form: &dyn Fn(&str) -> String| sums.map(form).join(", ");
            let sql = format!(
                "INSERT INTO campaigns (campaign_id, source, {}) {rows}
                 ON CONFLICT (campaign_id, source) DO UPDATE SET {} WHERE ({}) IS DISTINCT FROM ({})",
                sums.join(", "),
                each(&|sum| format!("{sum} = excluded.{sum}")),
                each(&|sum| format!("campaigns.{sum}")),
                each(&|sum| format!("excluded.{sum}")),
            );
            tx.execute_raw(statement(sql)).await?;
        }
        tx.commit().await?;
        Ok(Some(wrong))
    }

    /// Where a rebuild that did not end has come to; each is known by its first day and the one after its last.
    ///
    /// # Errors
    ///
    /// If the store is away.
    pub async fn rebuild_progress(&self, days: &Range<i64>) -> Result<Option<i64>, StoreError> {
        let sql = "SELECT coalesce(max(next), -1) AS next FROM progress WHERE work = $1";
        let next = self.number(sql, vec![work(days).into()], "next").await?;
        Ok((next >= 0).then_some(next))
    }

    /// Remembers where a rebuild has come to; `None` when it has ended.
    ///
    /// # Errors
    ///
    /// If the store is away.
    pub async fn set_rebuild_progress(&self, days: &Range<i64>, next: Option<i64>) -> Result<(), StoreError> {
        match next {
            Some(next) => {
                let sql = "INSERT INTO progress (work, next) VALUES ($1, $2)
                    ON CONFLICT (work) DO UPDATE SET next = excluded.next";
                self.change(sql, vec![work(days).into(), next.into()]).await?;
            }
            None => {
                self.change("DELETE FROM progress WHERE work = $1", vec![work(days).into()]).await?;
            }
        }
        Ok(())
    }
}

/// The work, as its progress is kept.
fn work(days: &Range<i64>) -> String {
    format!("rollups rebuild {}..{}", days.start, days.end)
}

/// A part of a sum, which fits.
fn part(units: i128) -> Result<i64, StoreError> {
    i64::try_from(units).map_err(|_| StoreError::unavailable(format!("a sum of {units} units")))
}

/// Adds to rollups what they lack.
async fn add(tx: &Transaction, differences: &[RollupDifference]) -> Result<(), StoreError> {
    for difference in differences {
        let values = [
            difference.minutes.into(),
            difference.at.into(),
            difference.event_type.into(),
            MENDED.into(),
            difference.source.into(),
            difference.funnel_stage.into(),
            difference.events.into(),
            difference.transactions.into(),
            part(difference.units.rem_euclid(HIGH))?.into(),
            difference.micros.into(),
            part(difference.units.div_euclid(HIGH))?.into(),
        ];
        tx.execute_raw(Statement::from_sql_and_values(
            tx.get_database_backend(),
            &*INSERT_WIDE_ROLLUP,
            values,
        ))
        .await?;
    }
    Ok(())
}
