//! Listing dead letters, in memory that does not grow with their payloads or errors, and reading whole ones.

use sea_orm::QueryResult;
use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::event::{FieldError, MAX_EVENT_BYTES, Source, format_micros};
use crate::log::Reason;
use crate::store::connect::Store;
use crate::store::error::StoreError;
use crate::store::sql::Sql;

/// Conditions on letters; all of them have to hold.
#[derive(Debug, Clone, Default)]
pub struct DeadLetterFilter {
    /// Reason.
    pub reason: Option<Reason>,
    /// Source.
    pub source: Option<Source>,
    /// Earliest instant of receipt, in microseconds since 1970.
    pub from: Option<i64>,
    /// Instant before which they were received, in microseconds since 1970.
    pub to: Option<i64>,
    /// Ids; empty for any.
    pub ids: Vec<Uuid>,
    /// True to include letters that were replayed.
    pub replayed: bool,
    /// Maximum number of letters, the newest first.
    pub limit: u64,
}

/// A dead letter in a list: without its payload, and with as many of its errors as there is room for.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ListedLetter {
    /// Id.
    #[schema(value_type = String)]
    pub id: Uuid,
    /// Instant at which it was received.
    pub received_at: String,
    /// Source, if that was valid.
    #[schema(value_type = Option<String>)]
    pub source: Option<&'static str>,
    /// Reason for which it was refused or set aside.
    pub reason: String,
    /// eventId, if that could be read.
    pub event_id: Option<String>,
    /// Correlation id of its request.
    pub correlation_id: String,
    /// Errors of the event.
    #[schema(value_type = Vec<Object>)]
    pub errors: Box<RawValue>,
    /// True if the letter has more errors, or more history, than are shown here.
    pub errors_truncated: bool,
    /// Number of bytes that were sent.
    pub payload_length: i64,
    /// Instant at which it was sent again and accepted.
    pub replayed_at: Option<String>,
    /// Reasons that it had before replays that failed.
    #[schema(value_type = Option<Vec<Object>>)]
    pub history: Option<Box<RawValue>>,
}

/// A whole dead letter.
#[derive(Debug, Serialize)]
pub struct StoredLetter {
    #[serde(flatten)]
    letter: ListedLetter,
    /// Bytes of the event, as far as they are kept.
    #[serde(skip)]
    pub payload: Vec<u8>,
}

impl StoredLetter {
    /// True if all bytes that were sent are kept.
    pub fn is_whole(&self) -> bool {
        i64::try_from(self.payload.len()).is_ok_and(|length| length == self.payload_length)
    }
}

/// Id and size of a letter.
#[derive(Debug, Clone, Copy)]
pub struct LetterSize {
    /// Id.
    pub id: Uuid,
    /// Upper bound of the bytes that reading the letter takes.
    pub bytes: u64,
    /// True if it was replayed.
    pub replayed: bool,
}

impl std::ops::Deref for StoredLetter {
    type Target = ListedLetter;

    fn deref(&self) -> &ListedLetter {
        &self.letter
    }
}

/// Maximum size of all errors in a list, in bytes; the same for all histories.
const LISTED_BYTES: u64 = 2 << 20;
/// Bounds of the share of one letter, in bytes.
const LISTED_ERRORS: std::ops::RangeInclusive<u64> = 1 << 10..=16 << 10;
/// Maximum number of characters of an eventId in a list; valid ones are shorter.
const LISTED_ID: u32 = 1_024;

impl Store {
    /// Lists letters, the newest first.
    ///
    /// # Errors
    ///
    /// If the store is unavailable.
    pub async fn list_letters(&self, filter: &DeadLetterFilter) -> Result<Vec<ListedLetter>, StoreError> {
        let share = (LISTED_BYTES / filter.limit.max(1)).clamp(*LISTED_ERRORS.start(), *LISTED_ERRORS.end());
        let rows = self.select_letters(filter, Some(share), "").rows(self.lists()).await?;
        rows.iter().map(|row| read_letter(row, usize::try_from(share).ok())).collect()
    }

    /// Ids and sizes of letters, the newest first.
    ///
    /// # Errors
    ///
    /// If the store is unavailable.
    pub async fn letter_sizes(&self, filter: &DeadLetterFilter) -> Result<Vec<LetterSize>, StoreError> {
        let rows = self.select_letters(filter, Some(1), "").rows(self.lists()).await?;
        let size = |row: &QueryResult| {
            // Of a body that is larger than any event only the beginning is kept.
            let payload: i64 = row.try_get("", "payload_length")?;
            let errors: i64 = row.try_get("", "errors_length")?;
            let history: Option<i64> = row.try_get("", "history_length")?;
            let replayed: Option<i64> = row.try_get("", "replayed")?;
            let payload = payload.clamp(0, MAX_EVENT_BYTES as i64);
            let bytes = (payload + errors + history.unwrap_or(0)).unsigned_abs();
            Ok(LetterSize { id: row.try_get("", "id")?, bytes, replayed: replayed.is_some() })
        };
        rows.iter().map(size).collect()
    }

    /// Whole letters, the newest first.
    ///
    /// # Errors
    ///
    /// If the store is unavailable.
    pub async fn letters(&self, filter: &DeadLetterFilter) -> Result<Vec<StoredLetter>, StoreError> {
        let rows = self.select_letters(filter, None, ", payload").rows(self.db()).await?;
        rows.iter()
            .map(|row| {
                Ok(StoredLetter { letter: read_letter(row, None)?, payload: row.try_get("", "payload")? })
            })
            .collect()
    }

    /// The query for letters. Errors and history are cut to `share` characters each; `more` are additional columns.
    ///
    /// The innermost query selects and sorts short columns, so that long ones are read of the listed letters alone. The
    /// middle query reads each long column once; its OFFSET 0 keeps the planner from merging the queries. SQLite has no
    /// OFFSET without LIMIT.
    fn select_letters(&self, filter: &DeadLetterFilter, share: Option<u64>, more: &str) -> Sql {
        let (received, replayed) = (self.micros("received_at"), self.micros("replayed_at"));
        let (text, no_limit) = if self.is_postgres() { ("::text", "") } else { ("", "LIMIT -1") };
        let cut = |column: &str| match share {
            Some(share) => format!("substr({column}, 1, {share})"),
            None => column.to_owned(),
        };
        let (errors, history) = (cut("errors"), cut("history"));
        let event_id =
            if share.is_some() { format!("substr(event_id, 1, {LISTED_ID})") } else { "event_id".into() };
        let mut sql = Sql::new(format!(
            "SELECT id, {received} AS received, source, reason, {event_id} AS event_id, correlation_id,
                {errors} AS errors, CAST(octet_length(errors) AS bigint) AS errors_length, payload_length,
                {replayed} AS replayed, {history} AS history,
                CAST(octet_length(history) AS bigint) AS history_length{more}
             FROM (
                SELECT id, received_at, source, reason, event_id, correlation_id, errors{text} AS errors,
                    payload_length, replayed_at, history{text} AS history{more}
                FROM (
                    SELECT id, received_at, source, reason, event_id, correlation_id, errors, payload_length,
                        replayed_at, history{more}
                    FROM dead_letters WHERE "
        ));
        self.push_filter(&mut sql, filter);
        sql.push(" ORDER BY received_at DESC, id LIMIT ");
        sql.push_bind(i64::try_from(filter.limit).unwrap_or(i64::MAX));
        sql.push(format!(") listed {no_limit} OFFSET 0) texts ORDER BY received_at DESC, id"));
        sql
    }

    fn push_filter(&self, sql: &mut Sql, filter: &DeadLetterFilter) {
        sql.push(if filter.replayed { "1 = 1" } else { "replayed_at IS NULL" });
        if let Some(reason) = filter.reason {
            sql.push(" AND reason = ").push_bind(reason.as_str());
        }
        if let Some(source) = filter.source {
            sql.push(" AND source = ").push_bind(source.code());
        }
        if let Some(from) = filter.from {
            sql.push(" AND received_at >= ");
            self.push_instant(sql, from);
        }
        if let Some(to) = filter.to {
            sql.push(" AND received_at < ");
            self.push_instant(sql, to);
        }
        if !filter.ids.is_empty() {
            sql.push(" AND id IN (").push_list(filter.ids.iter().copied()).push(")");
        }
    }
}

fn corrupt(error: serde_json::Error) -> StoreError {
    StoreError::corrupt("errors or history of a dead letter are no JSON")
        .in_row("dead_letters")
        .because(error)
}

/// The letter in a row; its errors and history are cut to `share` bytes each.
fn read_letter(row: &QueryResult, share: Option<usize>) -> Result<ListedLetter, StoreError> {
    let source: Option<i16> = row.try_get("", "source")?;
    let read = |text: String, length: Option<i64>| {
        let whole = length.and_then(|length| usize::try_from(length).ok()).unwrap_or(usize::MAX);
        let fits = share.is_none_or(|share| whole <= share);
        let json = if fits { text } else { whole_elements(&text, share.unwrap_or(usize::MAX)) };
        let json = RawValue::from_string(json).map_err(corrupt)?;
        Ok::<_, StoreError>((json, !fits))
    };
    let (mut errors, mut truncated) = read(row.try_get("", "errors")?, row.try_get("", "errors_length")?)?;
    if truncated && errors.get() == "[]" {
        let message = "too long for a list; see `ess dead-letters show`".to_owned();
        let none = [FieldError { path: String::new(), message }];
        errors = serde_json::value::to_raw_value(&none).map_err(corrupt)?;
    }
    let history: Option<String> = row.try_get("", "history")?;
    let history = match history {
        Some(history) => {
            let (history, cut) = read(history, row.try_get("", "history_length")?)?;
            truncated |= cut;
            Some(history)
        }
        None => None,
    };
    Ok(ListedLetter {
        id: row.try_get("", "id")?,
        received_at: format_micros(row.try_get("", "received")?),
        source: source.and_then(Source::from_code).map(Source::name),
        reason: row.try_get("", "reason")?,
        event_id: row.try_get("", "event_id")?,
        correlation_id: row.try_get("", "correlation_id")?,
        errors,
        errors_truncated: truncated,
        payload_length: row.try_get("", "payload_length")?,
        replayed_at: row.try_get::<Option<i64>>("", "replayed")?.map(format_micros),
        history,
    })
}

/// The elements of a JSON array that end within its first `most` bytes, as an array.
fn whole_elements(text: &str, most: usize) -> String {
    let mut rest = text[..text.floor_char_boundary(most)].trim_start().strip_prefix('[').unwrap_or_default();
    let mut kept = String::from("[");
    loop {
        let mut elements = serde_json::Deserializer::from_str(rest).into_iter::<&RawValue>();
        let Some(Ok(element)) = elements.next() else { break };
        if kept.len() > 1 {
            kept.push(',');
        }
        kept.push_str(element.get());
        match rest[elements.byte_offset()..].trim_start().strip_prefix(',') {
            Some(more) => rest = more,
            None => break,
        }
    }
    kept.push(']');
    kept
}

#[cfg(test)]
mod tests {
    use super::whole_elements;

    #[test]
    fn an_array_is_cut_between_its_elements() {
        let text = r#" [{"a":"é]"}, {"b":[1,2]},{"c":3}]"#;
        for most in 0..text.len() + 5 {
            let kept: Vec<serde_json::Value> = serde_json::from_str(&whole_elements(text, most)).unwrap();
            let all: Vec<serde_json::Value> = serde_json::from_str(text).unwrap();
            assert_eq!(kept, all[..kept.len()], "{most}");
            let whole = [0, 13, 26, 34].iter().filter(|end| **end <= most).count() - 1;
            assert_eq!(kept.len(), whole, "{most}");
        }
        assert_eq!(whole_elements("null", 4), "[]");
    }
}
