//! Locating one event: its row, or its dead letters.

use crate::event::{Source, event_key};
use crate::store::connect::Store;
use crate::store::error::StoreError;
use crate::store::sql::Sql;

/// One row or dead letter of an event. Instants are in microseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// Source of the event; `None` where the event named no valid one.
    pub source: Option<Source>,
    /// Instant at which the gateway accepted or refused the event.
    pub accepted_at: Option<i64>,
    /// Instant at which the log took it.
    pub logged_at: Option<i64>,
    /// Instant at which a collector took it.
    pub collected_at: Option<i64>,
    /// Instant at which its row was inserted; `None` for a dead letter.
    pub stored_at: Option<i64>,
}

/// Maximum number of dead letters in an answer. A publisher may send a refused event any number of times.
const MAX_LETTERS: usize = 100;

/// All locations of one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Locations {
    /// Rows first, then dead letters, the oldest first.
    pub locations: Vec<Location>,
    /// True if there are more dead letters than the answer holds.
    pub truncated: bool,
}

impl Store {
    /// Finds the rows and the first hundred dead letters of an eventId, of one source or of all.
    ///
    /// # Errors
    ///
    /// If the store is unavailable.
    pub async fn locate_event(&self, event_id: &str, only: Option<Source>) -> Result<Locations, StoreError> {
        let mut locations = Vec::new();
        for source in Source::all().filter(|source| only.is_none_or(|only| only == *source)) {
            locations.extend(self.locate_row(event_id, source).await?);
        }
        let mut letters = self.locate_letters(event_id, only).await?;
        let truncated = letters.len() > MAX_LETTERS;
        letters.truncate(MAX_LETTERS);
        locations.extend(letters);
        Ok(Locations { locations, truncated })
    }

    async fn locate_row(&self, event_id: &str, source: Source) -> Result<Option<Location>, StoreError> {
        let times = ["accepted_at", "logged_at", "collected_at", "ingested_at"]
            .map(|column| format!("{} AS {column}", self.micros(column)));
        let sql = format!("SELECT {} FROM event_rows WHERE key = $1", times.join(", "));
        let row = Sql::new(sql).bind(event_key(source, event_id)).row(self.lists()).await?;
        row.map(|row| {
            Ok(Location {
                source: Some(source),
                accepted_at: row.try_get("", "accepted_at")?,
                logged_at: row.try_get("", "logged_at")?,
                collected_at: row.try_get("", "collected_at")?,
                stored_at: row.try_get("", "ingested_at")?,
            })
        })
        .transpose()
    }

    /// Dead letters of an event: one more than an answer holds, if there are as many.
    async fn locate_letters(
        &self,
        event_id: &str,
        only: Option<Source>,
    ) -> Result<Vec<Location>, StoreError> {
        let time = self.micros("received_at");
        // PostgreSQL takes no text with U+0000, and no valid eventId contains it.
        let event_id = event_id.replace('\0', "\u{fffd}");
        let sql = format!("SELECT source, {time} AS accepted_at FROM dead_letters WHERE event_id = $1");
        let mut sql = Sql::new(sql).bind(event_id);
        if let Some(source) = only {
            sql.push(" AND source = ").push_bind(source.code());
        }
        sql.push(format!(" ORDER BY received_at, id LIMIT {}", MAX_LETTERS + 1));
        let rows = sql.rows(self.lists()).await?;
        let letter = |row: &sea_orm::QueryResult| {
            let code: Option<i16> = row.try_get("", "source")?;
            Ok(Location {
                source: code.and_then(Source::from_code),
                accepted_at: row.try_get("", "accepted_at")?,
                logged_at: None,
                collected_at: None,
                stored_at: None,
            })
        };
        rows.iter().map(letter).collect()
    }
}
