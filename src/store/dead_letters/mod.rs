//! Dead letters at rest.

use std::collections::BTreeMap;
use std::time::Duration;

use sea_orm::{ConnectionTrait, QueryResult, Statement, Value};
use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::event::{FieldError, Source, format_micros};
use crate::log::Reason;
use crate::store::connect::Store;
use crate::store::dialect::{Condition, places};
use crate::store::error::StoreError;

/// Which letters are asked for.
#[derive(Debug, Clone, Default)]
pub struct DeadLetterFilter {
    /// Of this reason.
    pub reason: Option<Reason>,
    /// Of this source.
    pub source: Option<Source>,
    /// Received at or after, in microseconds since 1970.
    pub from: Option<i64>,
    /// Received before, in microseconds since 1970.
    pub to: Option<i64>,
    /// Of these ids alone; empty for all.
    pub ids: Vec<Uuid>,
    /// Those that were replayed as well.
    pub replayed: bool,
    /// At most so many, the newest first.
    pub limit: u64,
}

/// How much is kept of dead letters.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// How long; `None` for ever.
    pub age: Option<Duration>,
    /// Bytes of payload, the newest first.
    pub bytes: u64,
}

/// A dead letter as a list shows it: without its payload, and with as many of its errors as there is room for.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ListedLetter {
    /// Its id.
    #[schema(value_type = String)]
    pub id: Uuid,
    /// When it was received.
    pub received_at: String,
    /// Its source, where that was valid.
    #[schema(value_type = Option<String>)]
    pub source: Option<&'static str>,
    /// Why it was set aside.
    pub reason: String,
    /// Its eventId, where that could be read.
    pub event_id: Option<String>,
    /// The request it came with.
    pub correlation_id: String,
    /// What is wrong with it.
    #[schema(value_type = Vec<Object>)]
    pub errors: Box<RawValue>,
    /// True if the letter has more errors, or more history, than are shown here.
    pub errors_truncated: bool,
    /// How many bytes were sent.
    pub payload_length: i64,
    /// When it was sent again and taken.
    pub replayed_at: Option<String>,
    /// The reasons that it had before replays that failed.
    #[schema(value_type = Option<Vec<Object>>)]
    pub history: Option<Box<RawValue>>,
}

/// A whole dead letter.
#[derive(Debug, Serialize)]
pub struct StoredLetter {
    #[serde(flatten)]
    letter: ListedLetter,
    /// What is kept of its bytes.
    #[serde(skip)]
    pub payload: Vec<u8>,
}

impl std::ops::Deref for StoredLetter {
    type Target = ListedLetter;

    fn deref(&self) -> &ListedLetter {
        &self.letter
    }
}

/// Bytes of all errors that a list shows, and as many of all history.
const LISTED_BYTES: u64 = 2 << 20;
/// Bounds of what a list shows of the errors of one letter, in bytes.
const LISTED_ERRORS: std::ops::RangeInclusive<u64> = 1 << 10..=16 << 10;
/// Characters that a list shows of an event id; valid ones are shorter.
const LISTED_ID: u32 = 1_024;

/// The reason under which letters are counted that left by age or size.
const FALLEN_OUT: &str = "fallen_out";

/// The source column of `dead_letter_counts` where there was no valid source.
pub(in crate::store) const UNKNOWN_SOURCE: i16 = 0;

/// Adds to the number of events in letters of a source and reason; the parameters are these three.
pub(in crate::store) const COUNT_LETTERS: &str =
    "INSERT INTO dead_letter_counts (source, reason, letters) VALUES ($1, $2, $3)
    ON CONFLICT (source, reason) DO UPDATE SET letters = dead_letter_counts.letters + excluded.letters";

impl Store {
    /// How many events were refused by the gateway for ever, by source; `None` where that was unknown.
    pub async fn rejected(&self) -> Result<BTreeMap<Option<i16>, i64>, StoreError> {
        let sql = "SELECT source, reason, letters FROM dead_letter_counts";
        let rows =
            self.db().query_all_raw(Statement::from_string(self.db().get_database_backend(), sql)).await?;
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

    /// Lists letters, the newest first, in memory that grows with neither their payload nor their errors.
    pub async fn list_letters(&self, filter: &DeadLetterFilter) -> Result<Vec<ListedLetter>, StoreError> {
        let share = (LISTED_BYTES / filter.limit.max(1)).clamp(*LISTED_ERRORS.start(), *LISTED_ERRORS.end());
        let rows = self.lists().query_all_raw(self.select_letters(filter, Some(share), "")).await?;
        rows.iter().map(|row| read_letter(row, usize::try_from(share).ok())).collect()
    }

    /// The ids of letters, the newest first.
    pub async fn letter_ids(&self, filter: &DeadLetterFilter) -> Result<Vec<Uuid>, StoreError> {
        let rows = self.lists().query_all_raw(self.select_letters(filter, Some(1), "")).await?;
        rows.iter().map(|row| row.try_get("", "id").map_err(StoreError::from)).collect()
    }

    /// Whole letters, the newest first.
    pub async fn letters(&self, filter: &DeadLetterFilter) -> Result<Vec<StoredLetter>, StoreError> {
        let rows = self.db().query_all_raw(self.select_letters(filter, None, ", payload")).await?;
        rows.iter()
            .map(|row| {
                Ok(StoredLetter { letter: read_letter(row, None)?, payload: row.try_get("", "payload")? })
            })
            .collect()
    }

    /// The query for letters: `share` bounds the characters of errors and of history, `more` are columns to add.
    fn select_letters(&self, filter: &DeadLetterFilter, share: Option<u64>, more: &str) -> Statement {
        let (time, instant) = (self.micros("received_at"), self.instant());
        let mut condition = Condition::new("1 = 1");
        condition.also("reason =", filter.reason.map(Reason::as_str), "{}");
        condition.also("source =", filter.source.map(Source::code), "{}");
        condition.also("received_at >=", filter.from, instant);
        condition.also("received_at <", filter.to, instant);
        let mut wheres = condition.sql();
        let mut values = condition.values;
        if !filter.ids.is_empty() {
            wheres += &format!(" AND id IN ({})", places(&mut values, filter.ids.iter().copied()));
        }
        if !filter.replayed {
            wheres += " AND replayed_at IS NULL";
        }
        values.push(i64::try_from(filter.limit).unwrap_or(i64::MAX).into());
        let limit = values.len();
        let text = if self.is_postgres() { "::text" } else { "" };
        let cut = |column: &str| match share {
            Some(share) => format!("substr({column}, 1, {share})"),
            None => column.to_owned(),
        };
        let (errors, history) = (cut("errors"), cut("history"));
        let event_id =
            if share.is_some() { format!("substr(event_id, 1, {LISTED_ID})") } else { "event_id".into() };
        let replayed = self.micros("replayed_at");
        // What is long is read of the letters that are shown alone, and once. OFFSET 0 keeps the parts apart.
        let sql = format!(
            "SELECT id, {time} AS received, source, reason, {event_id} AS event_id, correlation_id,
                {errors} AS errors, CAST(octet_length(errors) AS bigint) AS errors_length, payload_length, {replayed} AS replayed,
                {history} AS history, CAST(octet_length(history) AS bigint) AS history_length{more}
             FROM (
                SELECT id, received_at, source, reason, event_id, correlation_id, errors{text} AS errors,
                    payload_length, replayed_at, history{text} AS history{more}
                FROM (
                    SELECT id, received_at, source, reason, event_id, correlation_id, errors, payload_length,
                        replayed_at, history{more}
                    FROM dead_letters WHERE {wheres} ORDER BY received_at DESC, id LIMIT ${limit}
                ) listed LIMIT ALL_ROWS OFFSET 0
             ) texts ORDER BY received_at DESC, id"
        );
        // SQLite has no OFFSET without LIMIT.
        let sql = sql.replace("LIMIT ALL_ROWS", if self.is_postgres() { "" } else { "LIMIT -1" });
        Statement::from_sql_and_values(self.db().get_database_backend(), sql, values)
    }

    /// A letter was sent again, and taken.
    pub async fn letter_replayed(&self, id: Uuid) -> Result<(), StoreError> {
        let now = chrono::Utc::now();
        let now: Value = if self.is_postgres() { now.into() } else { now.timestamp_micros().into() };
        let sql = "UPDATE dead_letters SET replayed_at = $2 WHERE id = $1";
        self.change(sql, vec![id.into(), now]).await.map(drop)
    }

    /// A letter was tried again, and refused again: the new reason stands beside those before it.
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
        let values = vec![
            letter.id.into(),
            Reason::Invalid.as_str().into(),
            json!(errors).to_string().into(),
            serde_json::Value::from(history).to_string().into(),
        ];
        self.change(&sql, values).await.map(drop)
    }

    /// Lets letters go that are too old or too many; gives how many went. Of those that are too many, refused events
    /// leave first, the oldest before all others: an event that was accepted and set aside by a collector leaves only
    /// when such events alone are too many.
    pub async fn expire_letters(&self, retention: Retention) -> Result<u64, StoreError> {
        let size = if self.is_postgres() { "octet_length(payload)" } else { "length(payload)" };
        let mut gone = 0;
        if let Some(age) = retention.age {
            let age = i64::try_from(age.as_micros()).unwrap_or(i64::MAX);
            let oldest = chrono::Utc::now().timestamp_micros().saturating_sub(age);
            let instant = self.instant().replace("{}", "$1");
            let sql = format!("DELETE FROM dead_letters WHERE received_at < {instant}");
            gone += self.change(&sql, vec![oldest.into()]).await?;
        }
        // A letter with a history was set aside under another reason before it was replayed.
        let refused = Reason::ALL.into_iter().filter(|reason| reason.at_gateway());
        let refused: Vec<_> = refused.map(|reason| format!("'{reason}'")).collect();
        let refused = format!("(history IS NULL AND reason IN ({}))", refused.join(", "));
        let bytes = i64::try_from(retention.bytes).unwrap_or(i64::MAX);
        let sql = format!(
            "DELETE FROM dead_letters WHERE id IN (SELECT id FROM (
                SELECT id, sum({size}) OVER (ORDER BY {refused}, received_at DESC, id) AS newer FROM dead_letters
             ) sized WHERE newer > $1)"
        );
        gone += self.change(&sql, vec![bytes.into()]).await?;
        if gone > 0 {
            let count = i64::try_from(gone).unwrap_or(i64::MAX);
            self.change(COUNT_LETTERS, vec![UNKNOWN_SOURCE.into(), FALLEN_OUT.into(), count.into()]).await?;
        }
        Ok(gone)
    }
}

/// A letter of a row; its errors and history are cut to `share` bytes each.
fn read_letter(row: &QueryResult, share: Option<usize>) -> Result<ListedLetter, StoreError> {
    let source: Option<i16> = row.try_get("", "source")?;
    let read = |text: String, length: Option<i64>| {
        let whole = length.and_then(|length| usize::try_from(length).ok()).unwrap_or(usize::MAX);
        let fits = share.is_none_or(|share| whole <= share);
        let json = if fits { text } else { whole_elements(&text, share.unwrap_or(usize::MAX)) };
        let json = RawValue::from_string(json).map_err(|error| StoreError::unavailable(error.to_string()))?;
        Ok::<_, StoreError>((json, !fits))
    };
    let (mut errors, mut truncated) = read(row.try_get("", "errors")?, row.try_get("", "errors_length")?)?;
    if truncated && errors.get() == "[]" {
        let message = "longer than a list shows; `ess dead-letters show` tells it".to_owned();
        let none = [FieldError { path: String::new(), message }];
        errors = serde_json::value::to_raw_value(&none)
            .map_err(|error| StoreError::unavailable(error.to_string()))?;
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

/// The elements of a JSON array that are whole within its first `most` bytes, as an array.
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
