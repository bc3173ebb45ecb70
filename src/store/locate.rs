//! Where one event is.

use sea_orm::{ConnectionTrait, Statement};

use crate::event::{Source, event_key};
use crate::store::connect::Store;
use crate::store::dialect::places as marks;
use crate::store::error::StoreError;

/// A place where an event is, with the times of its way, in microseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its source, where that was valid.
    pub source: Option<Source>,
    /// When the gateway took it.
    pub accepted_at: Option<i64>,
    /// When the log took it.
    pub logged_at: Option<i64>,
    /// When a collector took it.
    pub collected_at: Option<i64>,
    /// When it became a row; `None` for a dead letter.
    pub stored_at: Option<i64>,
}

/// Dead letters of an event that are told; a publisher can send a refused one again and again.
const LETTERS: usize = 100;

/// Places of one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// The rows, then the dead letters, the oldest first.
    pub places: Vec<Place>,
    /// True if there are more dead letters than these.
    pub truncated: bool,
}

impl Store {
    /// The rows and dead letters of an eventId, of all sources or of one; of letters the first hundred.
    pub async fn trace_event(&self, event_id: &str, only: Option<Source>) -> Result<Trace, StoreError> {
        let backend = self.lists().get_database_backend();
        let mut places = Vec::new();
        let times = ["accepted_at", "logged_at", "collected_at", "ingested_at"]
            .map(|column| format!("{} AS {column}", self.micros(column)));
        let sql = format!("SELECT {} FROM event_rows WHERE key = $1", times.join(", "));
        for &source in Source::ALL.iter().filter(|source| only.is_none_or(|only| only == **source)) {
            let statement =
                Statement::from_sql_and_values(backend, &sql, [event_key(source, event_id).into()]);
            if let Some(row) = self.lists().query_one_raw(statement).await? {
                places.push(Place {
                    source: Some(source),
                    accepted_at: row.try_get("", "accepted_at")?,
                    logged_at: row.try_get("", "logged_at")?,
                    collected_at: row.try_get("", "collected_at")?,
                    stored_at: row.try_get("", "ingested_at")?,
                });
            }
        }
        let time = self.micros("received_at");
        // A text with U+0000 is no parameter for PostgreSQL, and no eventId either.
        let mut values = vec![event_id.replace('\0', "\u{fffd}").into()];
        let of_source = match only {
            Some(source) => format!(" AND source = {}", marks(&mut values, [source.code()])),
            None => String::new(),
        };
        // One more than is told shows that there are more.
        let sql = format!(
            "SELECT source, {time} AS accepted FROM dead_letters WHERE event_id = $1{of_source}
             ORDER BY received_at, id LIMIT {}",
            LETTERS + 1
        );
        let rows = self.lists().query_all_raw(Statement::from_sql_and_values(backend, sql, values)).await?;
        for row in rows.iter().take(LETTERS) {
            let code: Option<i16> = row.try_get("", "source")?;
            let source = code.and_then(Source::from_code);
            let accepted_at = row.try_get("", "accepted")?;
            places.push(Place { source, accepted_at, logged_at: None, collected_at: None, stored_at: None });
        }
        Ok(Trace { places, truncated: rows.len() > LETTERS })
    }
}
