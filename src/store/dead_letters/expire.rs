//! Deleting dead letters by age and size.

use std::time::Duration;

use crate::log::Reason;
use crate::store::connect::Store;
use crate::store::dead_letters::{COUNT_LETTERS, UNKNOWN_SOURCE};
use crate::store::error::StoreError;
use crate::store::sql::Sql;

/// Limits of the dead letters that are kept.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// Maximum age; `None` for no limit.
    pub age: Option<Duration>,
    /// Maximum size of all payloads, in bytes.
    pub bytes: u64,
}

/// Reason under which deleted letters are counted.
const FALLEN_OUT: &str = "fallen_out";

impl Store {
    /// Deletes letters that are too old, and the oldest of those that are too many; gives their number. If they are too
    /// many, refused events are deleted first: an event that was accepted and set aside by a collector is deleted only if
    /// such letters alone exceed the limit.
    ///
    /// # Errors
    ///
    /// If the store is unavailable.
    pub async fn expire_letters(&self, retention: Retention) -> Result<u64, StoreError> {
        let mut deleted = 0;
        if let Some(age) = retention.age {
            let age = i64::try_from(age.as_micros()).unwrap_or(i64::MAX);
            let oldest = chrono::Utc::now().timestamp_micros().saturating_sub(age);
            let mut sql = Sql::new("DELETE FROM dead_letters WHERE received_at < ");
            self.push_instant(&mut sql, oldest);
            deleted += sql.execute(self.db()).await?;
        }
        deleted += self.expire_by_size(retention.bytes).await?;
        if deleted > 0 {
            let count = i64::try_from(deleted).unwrap_or(i64::MAX);
            let sql = Sql::new(COUNT_LETTERS).bind(UNKNOWN_SOURCE).bind(FALLEN_OUT).bind(count);
            sql.execute(self.db()).await?;
        }
        Ok(deleted)
    }

    async fn expire_by_size(&self, bytes: u64) -> Result<u64, StoreError> {
        let size = if self.is_postgres() { "octet_length(payload)" } else { "length(payload)" };
        let refused = Reason::ALL.into_iter().filter(|reason| reason.at_gateway()).map(Reason::as_str);
        // A letter with a history was set aside by a collector, and got another reason when it was replayed.
        let mut sql = Sql::new(format!(
            "DELETE FROM dead_letters WHERE id IN (SELECT id FROM (
                SELECT id, sum({size}) OVER (ORDER BY (history IS NULL AND reason IN ("
        ));
        sql.push_list(refused);
        sql.push(")), received_at DESC, id) AS newer FROM dead_letters) sized WHERE newer > ");
        sql.push_bind(i64::try_from(bytes).unwrap_or(i64::MAX)).push(")");
        sql.execute(self.db()).await
    }
}
