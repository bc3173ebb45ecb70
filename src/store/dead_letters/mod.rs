//! Dead letters: events that the gateway refused for ever or that a collector set aside, with their bytes.
//!
//! Letters are inserted by the writer (`write::letters`), listed and read by [`list`], and deleted by age and size in
//! [`expire`]. `dead_letter_counts` counts their events for ever.

mod expire;
mod list;

use std::collections::BTreeMap;

use serde_json::json;
use uuid::Uuid;

use crate::event::FieldError;
use crate::log::Reason;
use crate::store::connect::Store;
pub use crate::store::dead_letters::expire::Retention;
pub use crate::store::dead_letters::list::{DeadLetterFilter, LetterSize, ListedLetter, StoredLetter};
use crate::store::error::StoreError;
use crate::store::sql::Sql;

/// Value of the column `source` of `dead_letter_counts` for letters without a valid source.
pub(in crate::store) const UNKNOWN_SOURCE: i16 = 0;

/// Adds to the number of events in letters of a source and reason; the parameters are these three.
pub(in crate::store) const COUNT_LETTERS: &str =
    "INSERT INTO dead_letter_counts (source, reason, letters) VALUES ($1, $2, $3)
    ON CONFLICT (source, reason) DO UPDATE SET letters = dead_letter_counts.letters + excluded.letters";

/// Reason for which letters cannot be changed over a store's connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReadOnly {
    /// The server is a standby.
    #[error("its database is a standby")]
    Standby,
    /// The role's transactions are read-only by default.
    #[error("transactions of its database role are read-only")]
    Transactions,
    /// The role has no right to change letters.
    #[error("its database role may not change dead letters")]
    Role,
}

impl Store {
    /// Reason for which letters cannot be changed; `None` if they can.
    ///
    /// # Errors
    ///
    /// If the store is unavailable, or has no schema yet.
    pub async fn letters_are_read_only(&self) -> Result<Option<ReadOnly>, StoreError> {
        if !self.is_postgres() {
            return Ok(None);
        }
        let sql = "SELECT CASE WHEN pg_is_in_recovery() THEN 1
                WHEN current_setting('transaction_read_only') = 'on' THEN 2
                WHEN NOT has_table_privilege('dead_letters', 'UPDATE') THEN 3 ELSE 0 END";
        let found: Option<i32> = Sql::new(sql).scalar(self.db()).await?;
        Ok(match found {
            Some(1) => Some(ReadOnly::Standby),
            Some(2) => Some(ReadOnly::Transactions),
            Some(3) => Some(ReadOnly::Role),
            _ => None,
        })
    }

    /// Number of events that the gateway ever refused, by the code of their source; `None` where that was unknown.
    ///
    /// # Errors
    ///
    /// If the store is unavailable.
    pub async fn rejected(&self) -> Result<BTreeMap<Option<i16>, i64>, StoreError> {
        let rows = Sql::new("SELECT source, reason, letters FROM dead_letter_counts").rows(self.db()).await?;
        let mut rejected = BTreeMap::new();
        for row in rows {
            let (source, reason): (i16, String) = (row.try_get("", "source")?, row.try_get("", "reason")?);
            if Reason::parse(&reason).is_some_and(Reason::at_gateway) {
                let source = (source != UNKNOWN_SOURCE).then_some(source);
                *rejected.entry(source).or_default() += row.try_get::<i64>("", "letters")?;
            }
        }
        Ok(rejected)
    }

    /// Records that a letter was sent again and accepted.
    ///
    /// # Errors
    ///
    /// If the store is unavailable.
    pub async fn letter_replayed(&self, id: Uuid) -> Result<(), StoreError> {
        let mut sql = Sql::new("UPDATE dead_letters SET replayed_at = ");
        self.push_instant(&mut sql, chrono::Utc::now().timestamp_micros());
        sql.push(" WHERE id = ").push_bind(id);
        sql.execute(self.db()).await.map(drop)
    }

    /// Records that a letter was refused again. The reason that it had before is added to its history.
    ///
    /// # Errors
    ///
    /// If the store is unavailable.
    pub async fn letter_failed_again(
        &self,
        letter: &StoredLetter,
        errors: &[FieldError],
    ) -> Result<(), StoreError> {
        let mut history: Vec<serde_json::Value> = match &letter.history {
            Some(history) => serde_json::from_str(history.get()).unwrap_or_default(),
            None => Vec::new(),
        };
        history
            .push(json!({ "reason": letter.reason, "errors": letter.errors, "until": chrono::Utc::now() }));
        let cast = if self.is_postgres() { "::json" } else { "" };
        let sql = format!(
            "UPDATE dead_letters SET reason = $2, errors = $3{cast}, history = $4{cast} WHERE id = $1"
        );
        let sql = Sql::new(sql)
            .bind(letter.id)
            .bind(Reason::Invalid.as_str())
            .bind(json!(errors).to_string())
            .bind(serde_json::Value::from(history).to_string());
        sql.execute(self.db()).await.map(drop)
    }
}
