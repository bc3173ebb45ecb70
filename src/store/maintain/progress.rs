//! State of long work in the table `progress`, so that a later process continues it.

use std::ops::Range;

use crate::store::connect::Store;
use crate::store::error::StoreError;
use crate::store::sql::Sql;

/// The saved number of a piece of work.
pub(super) async fn load(store: &Store, work: &str) -> Result<Option<i64>, StoreError> {
    Sql::new("SELECT next FROM progress WHERE work = $1").bind(work).scalar(store.db()).await
}

/// Saves the number of a piece of work.
pub(super) async fn save(store: &Store, work: &str, next: i64) -> Result<(), StoreError> {
    let sql = "INSERT INTO progress (work, next) VALUES ($1, $2) ON CONFLICT (work) DO UPDATE SET next = excluded.next";
    Sql::new(sql).bind(work).bind(next).execute(store.db()).await.map(drop)
}

fn rebuild_of(days: &Range<i64>) -> String {
    format!("rollups rebuild {}..{}", days.start, days.end)
}

impl Store {
    /// The next day of a rebuild that was interrupted. A rebuild is identified by its range of days.
    ///
    /// # Errors
    ///
    /// If the store is unavailable.
    pub async fn rebuild_progress(&self, days: &Range<i64>) -> Result<Option<i64>, StoreError> {
        load(self, &rebuild_of(days)).await
    }

    /// Saves the next day of a rebuild; `None` once it is complete.
    ///
    /// # Errors
    ///
    /// If the store is unavailable.
    pub async fn set_rebuild_progress(&self, days: &Range<i64>, next: Option<i64>) -> Result<(), StoreError> {
        match next {
            Some(next) => save(self, &rebuild_of(days), next).await,
            None => {
                let sql = Sql::new("DELETE FROM progress WHERE work = $1").bind(rebuild_of(days));
                sql.execute(self.db()).await.map(drop)
            }
        }
    }
}
