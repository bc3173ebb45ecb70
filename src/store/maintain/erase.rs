//! Erasing one user.
//!
//! Rows stay: they were counted, and an event that is sent again must be recognised as a duplicate. Their user id is
//! replaced by a random one; the name and unknown keys are removed. Summaries hold hashes of user ids: the hours of these
//! rows are marked as stale, so that they are computed from the rows again. Dead letters that name the user are deleted.

use std::collections::BTreeSet;

use serde_json::Value;
use uuid::Uuid;

use super::windows::Window;
use crate::event::{Source, names_user};
use crate::store::connect::Store;
use crate::store::dead_letters::DeadLetterFilter;
use crate::store::error::StoreError;
use crate::store::maintain::retention::{NO_MINUTE, retain, retained_from};
use crate::store::sql::Sql;
use crate::store::transaction::Snapshot;

/// Number of dead letters that are read at one time.
const LETTERS: usize = 200;

/// Outcome of an erasure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Erasure {
    /// Rows that no longer name the user.
    pub rows: u64,
    /// Dead letters that were deleted.
    pub letters: u64,
    /// Hours whose summaries will be computed again.
    pub hours: u64,
    /// Hours that have lost rows by age: their summaries cannot be computed again and keep a hash of the user.
    pub kept_hours: u64,
}

/// Outcome of an erasure in one window.
struct ErasedWindow {
    rows: u64,
    /// Hours that were marked as stale.
    stale: Vec<i32>,
    /// Hours that have lost rows by age.
    kept: BTreeSet<i64>,
}

impl Store {
    /// Erases a user, known by any of these ids, from a source's rows and from all dead letters.
    ///
    /// # Errors
    ///
    /// If the store is unavailable. Windows that were done stay done, and doing it again is safe.
    pub async fn erase_user(&self, source: Source, ids: &[String]) -> Result<Erasure, StoreError> {
        let mut erased = Erasure::default();
        // One id for all rows, so that they still count as one user.
        let nobody = format!("forgotten-{}", Uuid::new_v4().simple());
        let (mut hours, mut kept) = (BTreeSet::new(), BTreeSet::new());
        for window in self.windows().await? {
            let found =
                self.retry_conflicts(async || self.erase_window(source, ids, &nobody, window).await).await?;
            erased.rows += found.rows;
            hours.extend(found.stale);
            kept.extend(found.kept);
        }
        erased.hours = hours.len() as u64;
        erased.kept_hours = kept.len() as u64;
        erased.letters = self.erase_letters(source, ids).await?;
        Ok(erased)
    }

    async fn erase_window(
        &self,
        source: Source,
        ids: &[String],
        nobody: &str,
        window: Window,
    ) -> Result<ErasedWindow, StoreError> {
        let tx = self.snapshot(Snapshot::Write).await?;
        self.mark_as_writer(&tx, source).await?;
        // No row of a stale hour is deleted by age before this transaction ends.
        retain(&tx, source, NO_MINUTE).await?;
        let from = retained_from(&tx, source).await?.unwrap_or(i64::MIN);
        let update =
            "UPDATE event_rows SET user_id = $2, user_name = NULL, rest = NULL WHERE source = $1 AND ";
        let mut sql = Sql::new(update).bind(source.code()).bind(nobody);
        self.push_window(&mut sql, window);
        sql.push(" AND user_id IN (").push_list(ids.iter().cloned());
        sql.push(format!(") RETURNING CAST({} AS bigint)", self.minute()));
        let minutes: Vec<i64> = sql.scalars(&tx).await?;
        let (complete, kept): (BTreeSet<i64>, BTreeSet<i64>) =
            minutes.iter().map(|minute| minute.div_euclid(60)).partition(|hour| hour * 60 >= from);
        let stale: Vec<i32> = complete.iter().filter_map(|hour| i32::try_from(*hour).ok()).collect();
        if !stale.is_empty() {
            self.mark_stale(&tx, source, &stale).await?;
        }
        tx.commit().await?;
        Ok(ErasedWindow { rows: minutes.len() as u64, stale, kept })
    }

    /// Deletes the letters of a source, or without a source, that name a user.
    async fn erase_letters(&self, source: Source, ids: &[String]) -> Result<u64, StoreError> {
        let all: Vec<Uuid> = Sql::new("SELECT id FROM dead_letters").scalars(self.db()).await?;
        let mut deleted = 0;
        for part in all.chunks(LETTERS) {
            let limit = part.len() as u64;
            let filter = DeadLetterFilter { ids: part.to_vec(), limit, replayed: true, ..Default::default() };
            let letters = self.letters(&filter).await?;
            let of_source = |of: Option<&str>| of.is_none_or(|of| of == source.name());
            let naming = letters
                .iter()
                .filter(|letter| {
                    let is_declared = letter.source.is_some() && !source.is_built_in();
                    of_source(letter.source) && names(&letter.payload, ids, is_declared)
                })
                .map(|letter| letter.id);
            let naming: Vec<Uuid> = naming.collect();
            if !naming.is_empty() {
                let mut sql = Sql::new("DELETE FROM dead_letters WHERE id IN (");
                sql.push_list(naming).push(")");
                deleted += sql.execute(self.db()).await?;
            }
        }
        Ok(deleted)
    }
}

/// True if bytes name a user. JSON does so by a user id; that of a declared source, whose keys are not known here, by any
/// value that is an id; bytes that are no JSON by containing an id, plain or with escapes.
fn names(payload: &[u8], ids: &[String], is_declared: bool) -> bool {
    if let Ok(json) = serde_json::from_slice::<Value>(payload) {
        return if is_declared { holds(&json, ids) } else { names_user(&json, ids) };
    }
    let found = |text: &str| memchr::memmem::find(payload, text.as_bytes()).is_some();
    // The digits of an escape may be in upper or lower case.
    let escaped = |id: &str, escape: fn(u16) -> String| -> String {
        let unit = |unit: u16| match u8::try_from(unit) {
            Ok(byte) if byte.is_ascii_graphic() || byte == b' ' => char::from(byte).to_string(),
            _ => escape(unit),
        };
        id.encode_utf16().map(unit).collect()
    };
    ids.iter().any(|id| {
        let json = Value::from(id.as_str()).to_string();
        found(id)
            || found(json.trim_matches('"'))
            || found(&escaped(id, |unit| format!("\\u{unit:04x}")))
            || found(&escaped(id, |unit| format!("\\u{unit:04X}")))
    })
}

/// True if a value at any depth is one of these ids. JSON is parsed with a bound on its depth.
fn holds(json: &Value, ids: &[String]) -> bool {
    match json {
        Value::Array(items) => items.iter().any(|item| holds(item, ids)),
        Value::Object(members) => members.values().any(|member| holds(member, ids)),
        Value::String(text) => ids.contains(text),
        Value::Number(number) => ids.contains(&number.to_string()),
        Value::Bool(_) | Value::Null => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_in_bytes_that_are_no_json_however_the_id_is_escaped() {
        let ids = ["Zoë-jay".to_owned()];
        for cut in [r#"{"userId":"Zoë-jay","#, r#"{"userId":"Zo\u00eb-jay","#, r#"{"userId":"Zo\u00EB-jay","#]
        {
            assert!(names(cut.as_bytes(), &ids, false), "{cut}");
        }
        assert!(!names(br#"{"userId":"Zoe-jay","#, &ids, false));
        let by_name = "{\"name\":[{\"x\":\"Zoë-jay\"}]}".as_bytes();
        assert!(!names(by_name, &ids, false), "JSON names users by its keys alone");
        assert!(names(by_name, &ids, true), "the keys of a declared source are its platform's");
        assert!(names(br#"{"buyer":45}"#, &["45".to_owned()], true));
    }
}
