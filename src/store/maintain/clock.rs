//! The clock by which rows are deleted.
//!
//! A clock that jumps years ahead, if only for a moment, would delete all rows. So the last trusted reading is kept in the
//! database. A reading that is much further ahead, because the system was off for days or because of a fault, is trusted
//! only after the clock ran evenly for an hour in this process. With PostgreSQL its clock is read as well, and the earlier
//! reading counts.

use std::time::{Duration, Instant};

use crate::event::MICROS_PER_MINUTE;
use crate::store::connect::Store;
use crate::store::error::StoreError;
use crate::store::maintain::progress;
use crate::store::sql::Sql;

/// Name of the last trusted reading in `progress`.
const CLOCK: &str = "retention clock";
/// Time by which a reading may be ahead of the last trusted one: passes are at most a day apart.
const MAX_STEP: Duration = Duration::from_hours(48);
/// Time for which a clock that is further ahead has to run evenly.
const CONFIRMATION: Duration = Duration::from_hours(1);
/// Maximum deviation of a clock that runs evenly, in microseconds.
const MAX_DEVIATION: i64 = 60_000_000;

/// A clock that is checked before it is trusted. Readings are in microseconds since 1970.
#[derive(Debug, Default)]
pub struct RetentionClock {
    /// Moment and value of the first reading that is not trusted.
    doubted: Option<(Instant, i64)>,
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

impl RetentionClock {
    /// The present instant; `None` if the clock is not trusted.
    ///
    /// # Errors
    ///
    /// If the store is unavailable.
    pub async fn now(&mut self, store: &Store) -> Result<Option<i64>, StoreError> {
        let reading = chrono::Utc::now().timestamp_micros();
        let reading = store.database_clock().await?.map_or(reading, |other| reading.min(other));
        self.check(store, reading, Instant::now()).await
    }

    /// The reading of a clock at a moment of this process, if it is trusted. It becomes the last trusted one.
    ///
    /// # Errors
    ///
    /// If the store is unavailable.
    pub async fn check(
        &mut self,
        store: &Store,
        reading: i64,
        moment: Instant,
    ) -> Result<Option<i64>, StoreError> {
        let last = store.last_trusted_reading().await?;
        let near = last.is_none_or(|last| reading <= last.saturating_add(micros(MAX_STEP)));
        if !near && !self.is_confirmed(reading, moment) {
            return Ok(None);
        }
        self.doubted = None;
        progress::save(store, CLOCK, reading).await?;
        store.correct_retained(reading).await?;
        Ok(Some(reading))
    }

    /// True if the clock has run evenly for [`CONFIRMATION`] since its first doubted reading.
    fn is_confirmed(&mut self, reading: i64, moment: Instant) -> bool {
        let Some((since, first)) = self.doubted else {
            self.doubted = Some((moment, reading));
            return false;
        };
        let passed = moment.saturating_duration_since(since);
        if (reading - first - micros(passed)).abs() > MAX_DEVIATION {
            self.doubted = Some((moment, reading));
            return false;
        }
        passed >= CONFIRMATION
    }
}

impl Store {
    /// The last trusted reading. Where none is kept yet, the last change of a summary; `None` if there is none, and so no
    /// row that could be deleted too early.
    async fn last_trusted_reading(&self) -> Result<Option<i64>, StoreError> {
        match progress::load(self, CLOCK).await? {
            Some(last) => Ok(Some(last)),
            None => {
                let sql = "SELECT coalesce(max(touched_at), -1) FROM summaries";
                let touched: Option<i64> = Sql::new(sql).scalar(self.db()).await?;
                Ok(touched.filter(|touched| *touched >= 0))
            }
        }
    }

    /// The reading of the database's own clock, if it has one.
    async fn database_clock(&self) -> Result<Option<i64>, StoreError> {
        if !self.is_postgres() {
            return Ok(None);
        }
        let sql = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
        Sql::new(sql).scalar(self.db()).await
    }

    /// Corrects `retained` after rows were deleted by a clock that was ahead: rows from the next minute on are complete.
    async fn correct_retained(&self, now: i64) -> Result<(), StoreError> {
        let next = now.div_euclid(MICROS_PER_MINUTE) + 1;
        let sql = Sql::new("UPDATE retained SET from_minute = $1 WHERE from_minute > $1").bind(next);
        if sql.execute(self.db()).await? > 0 {
            tracing::warn!(
                "rows were deleted by a clock that was ahead; rows from now on are compared with the rollups again"
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_confirmed_by_an_even_hour_and_by_nothing_less() {
        let (start, hour) = (Instant::now(), 3_600);
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let ahead = |seconds: i64| 9_000_000_000_000_000 + seconds * 1_000_000;
        let mut clock = RetentionClock::default();
        assert!(!clock.is_confirmed(ahead(0), at(0)));
        assert!(!clock.is_confirmed(ahead(1_800), at(1_800)));
        assert!(clock.is_confirmed(ahead(3_600 + 59), at(hour)), "within a minute");
        assert!(!clock.is_confirmed(ahead(3_600 + 61), at(hour)), "uneven: it begins again");
        assert!(!clock.is_confirmed(ahead(3_600 + 61 + 1_800), at(hour + 1_800)));
        assert!(clock.is_confirmed(ahead(3_600 + 61 + 3_600), at(2 * hour)));
    }
}
