//! Taking one person out of what is stored.
//!
//! Rows stay, for they were counted and earned money, and an event that comes again must still be seen as the
//! duplicate it is: their user becomes another one whom nobody knows, without a name, and keys that the
//! contract does not know go. Summaries know users by a hash of their id; the hours of those rows are told by
//! the rows until they were summed up anew. Dead letters that name the user are deleted.

use std::collections::BTreeSet;

use sea_orm::{ConnectionTrait, Statement};
use serde_json::Value;
use uuid::Uuid;

use crate::event::{Source, names_user};
use crate::store::connect::{Snapshot, Store};
use crate::store::dead_letters::DeadLetterFilter;
use crate::store::dialect::places;
use crate::store::error::StoreError;
use crate::store::maintain::retention::{retain, retained_from};
use crate::store::sql::Sql;

/// Dead letters that are read at one time.
const LETTERS: usize = 200;

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Erasure {
    /// Rows that tell nothing of the person any more.
    pub rows: u64,
    /// Dead letters that were deleted.
    pub letters: u64,
    /// Hours whose summaries are made anew.
    pub hours: u64,
    /// Hours that are not told by their rows alone, and keep their summaries.
    pub kept_hours: u64,
}

impl Store {
    /// Takes a user, by any of these ids, out of a source's rows and out of all dead letters.
    ///
    /// # Errors
    ///
    /// If the store is away; what was done before stays so, and doing it again is safe.
    pub async fn erase_user(&self, source: Source, ids: &[String]) -> Result<Erasure, StoreError> {
        let mut erased = Erasure::default();
        // One for all rows: the person still counts once.
        let nobody = format!("forgotten-{}", Uuid::new_v4().simple());
        let (mut hours, mut kept) = (BTreeSet::new(), BTreeSet::new());
        let (end, width) = self.windows().await?;
        let mut first = 0;
        while first <= end {
            let window = (first, first + width);
            let found =
                self.retry_conflicts(async || self.erase_window(source, ids, &nobody, window).await).await?;
            erased.rows += found.rows;
            hours.extend(found.anew);
            kept.extend(found.kept);
            first += width;
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
        (first, end): (i64, i64),
    ) -> Result<Window, StoreError> {
        let tx = self.snapshot(Snapshot::Write).await?;
        // No row leaves meanwhile whose hour is to be told by its rows.
        retain(&tx, source, -1).await?;
        let from = retained_from(&tx, source).await?.unwrap_or(i64::MIN);
        let window = self.window("$3", "$4");
        let mut values: Vec<sea_orm::Value> =
            vec![source.code().into(), nobody.into(), first.into(), end.into()];
        let ids = places(&mut values, ids.iter().cloned());
        let sql = format!(
            "UPDATE event_rows SET user_id = $2, user_name = NULL, rest = NULL
             WHERE {window} AND source = $1 AND user_id IN ({ids}) RETURNING CAST({} AS bigint) AS minute",
            self.minute()
        );
        let statement = Statement::from_sql_and_values(tx.get_database_backend(), sql, values);
        let rows = tx.query_all_raw(statement).await?;
        let minutes: Vec<i64> = rows.iter().map(|row| row.try_get("", "minute")).collect::<Result<_, _>>()?;
        let (whole, kept): (BTreeSet<i64>, BTreeSet<i64>) =
            minutes.iter().map(|minute| minute.div_euclid(60)).partition(|hour| hour * 60 >= from);
        let anew: Vec<i32> = whole.iter().filter_map(|hour| i32::try_from(*hour).ok()).collect();
        if !anew.is_empty() {
            self.mark_stale(&tx, source, &anew).await?;
        }
        tx.commit().await?;
        Ok(Window { rows: minutes.len() as u64, anew, kept })
    }

    /// Deletes the letters of a source, or of none, that name a user.
    async fn erase_letters(&self, source: Source, ids: &[String]) -> Result<u64, StoreError> {
        let all: Vec<Uuid> = Sql::new("SELECT id FROM dead_letters").scalars(self.db()).await?;
        let mut deleted = 0;
        for part in all.chunks(LETTERS) {
            let limit = part.len() as u64;
            let filter = DeadLetterFilter { ids: part.to_vec(), limit, replayed: true, ..Default::default() };
            let theirs = |of: Option<&str>| of.is_none_or(|of| of == source.name());
            let guilty: Vec<Uuid> = self
                .letters(&filter)
                .await?
                .iter()
                .filter(|letter| theirs(letter.source) && names(&letter.payload, ids))
                .map(|letter| letter.id)
                .collect();
            deleted += self.delete_letters(&guilty).await?;
        }
        Ok(deleted)
    }

    async fn delete_letters(&self, ids: &[Uuid]) -> Result<u64, StoreError> {
        if ids.is_empty() {
            return Ok(0);
        }
        let mut values = Vec::new();
        let places = places(&mut values, ids.iter().copied());
        self.change(&format!("DELETE FROM dead_letters WHERE id IN ({places})"), values).await
    }
}

/// What was found in a part of the rows.
struct Window {
    rows: u64,
    /// Hours that are told by their rows from now on.
    anew: Vec<i32>,
    /// Hours some of whose rows have left.
    kept: BTreeSet<i64>,
}

/// Whether bytes name a user: JSON by a user id, what cannot be read as JSON by containing one, written plainly
/// or with escapes.
fn names(payload: &[u8], ids: &[String]) -> bool {
    if let Ok(json) = serde_json::from_slice::<Value>(payload) {
        return names_user(&json, ids);
    }
    let found = |text: &str| memchr::memmem::find(payload, text.as_bytes()).is_some();
    // Only the digits of an escape may be in either case.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_in_what_is_no_json_however_their_id_is_written() {
        let ids = ["Zoë-jay".to_owned()];
        for cut in [r#"{"userId":"Zoë-jay","#, r#"{"userId":"Zo\u00eb-jay","#, r#"{"userId":"Zo\u00EB-jay","#]
        {
            assert!(names(cut.as_bytes(), &ids), "{cut}");
        }
        assert!(!names(br#"{"userId":"Zoe-jay","#, &ids));
        assert!(!names("{\"name\":\"Zoë-jay\"}".as_bytes(), &ids), "JSON is told by its keys");
    }
}
