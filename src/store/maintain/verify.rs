//! Comparing rollups and summaries with the rows, and repairing them.
//!
//! A day is compared in one snapshot, in which rows, rollups, summaries and deltas agree. A rollup is repaired by adding
//! the difference in a shard of its own, so that collectors go on counting meanwhile. A summary is repaired by marking it
//! as stale: reports use the rows of its hour until it has been computed again. Days whose rows were deleted by age are
//! not compared.

use std::ops::Range;

use super::retention::{NO_MINUTE, retain, retained_from};
pub use super::rollups::RollupDifference;
use super::rollups::{self, DAY};
use crate::event::{MICROS_PER_MINUTE, Source};
use crate::store::connect::Store;
use crate::store::error::StoreError;
use crate::store::sql::Sql;
use crate::store::transaction::{Snapshot, Transaction};

/// A day after all valid events: 2200-01-01 is day 84,006.
const LAST_DAY: i64 = 90_000;

/// Differences found on one day.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DayDifferences {
    /// Rollups that differ from the rows.
    pub rollups: Vec<RollupDifference>,
    /// Hours since 1970 whose summaries differ from the rows, by source.
    pub hours: Vec<(Source, i32)>,
}

impl DayDifferences {
    /// Number of differences.
    pub fn count(&self) -> usize {
        self.rollups.len() + self.hours.len()
    }
}

impl Store {
    /// Days since 1970, within a range of days, that have rows, rollups or summaries, in ascending order.
    ///
    /// # Errors
    ///
    /// If the store is unavailable.
    pub async fn days(&self, within: &Range<i64>) -> Result<Vec<i64>, StoreError> {
        let (first, end) = (within.start.clamp(0, LAST_DAY), within.end.clamp(0, LAST_DAY));
        let (from, to) = (self.instant("$3"), self.instant("$4"));
        let rows = if self.is_postgres() {
            format!(
                "SELECT DISTINCT floor(extract(epoch FROM occurred_at) / 86400)::bigint AS day FROM event_rows
                 WHERE occurred_at >= {from} AND occurred_at < {to}"
            )
        } else {
            // Steps from one day to the next by the index: there are far fewer days than rows.
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
        let micros = |day: i64| day * DAY * MICROS_PER_MINUTE;
        Sql::new(sql).bind(first).bind(end).bind(micros(first)).bind(micros(end)).scalars(self.db()).await
    }

    /// Compares rollups and summaries of a day with its rows, and repairs them if `mend` is true.
    ///
    /// # Errors
    ///
    /// If the store is unavailable, or other repairs conflict again and again.
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
            retain(&tx, source, NO_MINUTE).await?;
        }
        let from = retained_from(&tx, source).await?.unwrap_or(i64::MIN);
        if (day + 1) * DAY <= from {
            tx.rollback().await?;
            return Ok(DayDifferences::default());
        }
        let rollups = self.compare_rollups(&tx, source, day, from).await?;
        let hours = self.compare_hours(&tx, source, day, from).await?;
        if mend {
            rollups::add(&tx, &rollups).await?;
            self.mark_stale(&tx, source, &hours).await?;
            tx.commit().await?;
        } else {
            tx.rollback().await?;
        }
        Ok(DayDifferences { rollups, hours: hours.into_iter().map(|hour| (source, hour)).collect() })
    }

    /// Hours of a day, from a minute on, whose summaries differ from the rows.
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
}
