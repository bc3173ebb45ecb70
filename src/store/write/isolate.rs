//! Finding the rows that the database refuses, so that all others of a batch can be stored.
//!
//! Results about rows are kept in a [`WriteProgress`]: a transaction that ends on the way, because a connection or the
//! time ended, is continued by the next one.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use crate::event::{FieldError, Refusal};
use crate::log::{DeadLetter, Reason};
use crate::store::error::StoreError;
use crate::store::write::batch::Write;
use crate::store::write::row::Row;

/// State of a batch over several tries; it belongs to the batch for which it was made.
#[derive(Debug)]
pub struct WriteProgress {
    /// Maximum number of rows in one statement.
    pub(super) rows: usize,
    /// True once the database refused a row of the batch.
    pub(super) isolate: bool,
    /// Rows that the database accepted, by their address in the batch.
    accepted: HashSet<usize>,
    /// Rows that the database refused, by their address in the batch, and its reason.
    refused: HashMap<usize, String>,
}

impl WriteProgress {
    /// Progress of a new batch, with a maximum number of rows in one statement.
    pub fn new(rows: usize) -> Self {
        Self { rows: rows.max(1), isolate: false, accepted: HashSet::new(), refused: HashMap::new() }
    }

    /// Sets the maximum number of rows in one statement.
    pub fn limit_rows(&mut self, rows: usize) {
        self.rows = rows.max(1);
    }

    /// True if the next try looks for rows that are refused.
    pub fn isolates(&self) -> bool {
        self.isolate
    }
}

impl Default for WriteProgress {
    fn default() -> Self {
        Self::new(usize::MAX)
    }
}

/// Identity of a row within its batch: two rows of a batch may be equal.
fn address(row: &Row<'_>) -> usize {
    std::ptr::from_ref(row).addr()
}

/// Rows of a batch that were tried.
pub(super) struct Isolated<'r, 'a> {
    /// Rows that are new.
    pub new: Vec<&'r Row<'a>>,
    /// Dead letters of the rows that were refused, with their ids.
    pub letters: Vec<(Uuid, DeadLetter)>,
}

/// Inserts the rows that the database accepts. `rows` are sorted by key, with duplicates: of rows with one key the
/// first is tried, and the next one only if that is refused.
pub(super) async fn insert_isolating<'r, 'a>(
    tx: &mut impl Write,
    mut rows: Vec<&'r Row<'a>>,
    progress: &mut WriteProgress,
) -> Result<Isolated<'r, 'a>, StoreError> {
    let mut duplicates = take_duplicates(&mut rows);
    let mut isolated = Isolated { new: Vec::new(), letters: Vec::new() };
    let mut round = 0;
    while !rows.is_empty() {
        let (stored, refused) = insert_accepted(tx, &rows, progress).await?;
        isolated.new.extend(stored);
        let keys: HashSet<Uuid> = refused.iter().map(|(row, _)| row.key).collect();
        isolated.letters.extend(refused.into_iter().map(|(row, reason)| {
            let id = if round == 0 { row.key } else { letter_id((row.key, 0), round) };
            (id, refused_row(row, reason))
        }));
        (rows, duplicates) = duplicates.into_iter().partition(|row| keys.contains(&row.key));
        duplicates.extend(take_duplicates(&mut rows));
        duplicates.sort_by_key(|row| row.key);
        round += 1;
    }
    Ok(isolated)
}

/// Removes all but the first row of each key from rows sorted by key; gives the removed ones.
fn take_duplicates<'r, 'a>(rows: &mut Vec<&'r Row<'a>>) -> Vec<&'r Row<'a>> {
    let duplicates = rows.windows(2).filter(|pair| pair[0].key == pair[1].key).map(|pair| pair[1]).collect();
    rows.dedup_by_key(|row| row.key);
    duplicates
}

/// Id of a dead letter: the same whenever the same frame is processed.
pub(super) fn letter_id((writer, number): (Uuid, u64), index: u64) -> Uuid {
    use sha2::{Digest, Sha256};
    let mut hash = Sha256::new();
    hash.update(writer.as_bytes());
    hash.update(number.to_be_bytes());
    hash.update(index.to_be_bytes());
    Uuid::from_slice(&hash.finalize()[..16]).unwrap_or_default()
}

fn refused_row(row: &Row<'_>, reason: String) -> DeadLetter {
    let refusal = Refusal {
        event_id: Some(row.event.id.to_string()),
        source: Some(row.event.source),
        errors: vec![FieldError { path: String::new(), message: reason }],
        truncated: false,
    };
    DeadLetter::new(row.origin.accepted_at, &row.origin.correlation_id, Reason::Database, row.bytes, refusal)
}

/// Rows that were refused, each with the database's reason.
type Refused<'r, 'a> = Vec<(&'r Row<'a>, String)>;

/// Inserts the rows that the database accepts, of rows with different keys; gives the new ones and the refused ones.
///
/// Each part is a savepoint. A part that is refused is halved, one that is accepted doubles the next: one refused row
/// among many takes some thirty steps, and many refused rows take two round trips each. Rows whose outcome is known
/// from an earlier try are not tried again.
async fn insert_accepted<'r, 'a>(
    tx: &mut impl Write,
    rows: &[&'r Row<'a>],
    progress: &mut WriteProgress,
) -> Result<(Vec<&'r Row<'a>>, Refused<'r, 'a>), StoreError> {
    let (known, unknown): (Vec<&Row<'_>>, Vec<&Row<'_>>) =
        rows.iter().partition(|row| progress.accepted.contains(&address(row)));
    let untried: Vec<&Row<'_>> =
        unknown.into_iter().filter(|row| !progress.refused.contains_key(&address(row))).collect();
    let mut stored = insert_known(tx, &known, progress).await?;
    let (mut at, mut width) = (0, progress.rows);
    if !untried.is_empty() {
        tx.run("SAVEPOINT part").await?;
    }
    while at < untried.len() {
        let part = &untried[at..at.saturating_add(width).min(untried.len())];
        match tx.insert(part).await {
            Ok(new) => {
                tx.run("RELEASE SAVEPOINT part; SAVEPOINT part").await?;
                stored.extend(new);
                progress.accepted.extend(part.iter().map(|row| address(row)));
                at += part.len();
                width = part.len().saturating_mul(2).min(progress.rows);
            }
            Err(StoreError::Refused { message, .. }) => {
                // The savepoint itself remains.
                tx.run("ROLLBACK TO SAVEPOINT part").await?;
                if let [row] = part {
                    progress.refused.insert(address(row), message);
                    at += 1;
                }
                width = (part.len() / 2).max(1);
            }
            Err(error) => return Err(error),
        }
    }
    let reason = |row: &&'r Row<'a>| Some((*row, progress.refused.get(&address(row))?.clone()));
    Ok((stored, rows.iter().filter_map(reason).collect()))
}

/// Inserts rows that an earlier try found to be accepted; gives the new ones.
async fn insert_known<'r, 'a>(
    tx: &mut impl Write,
    rows: &[&'r Row<'a>],
    progress: &mut WriteProgress,
) -> Result<Vec<&'r Row<'a>>, StoreError> {
    let mut stored = Vec::new();
    for part in rows.chunks(progress.rows) {
        match tx.insert(part).await {
            Ok(new) => stored.extend(new),
            Err(error) => {
                // A row that was accepted is refused now, after a change of the schema: all of them are tried anew.
                if matches!(error, StoreError::Refused { .. }) {
                    progress.accepted.clear();
                }
                return Err(error);
            }
        }
    }
    Ok(stored)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Source;
    use crate::log::Origin;
    use crate::store::summary::Encoded;
    use crate::store::write::batch::{Batch, BatchFrame, Written};
    use crate::store::write::samples::{origin, row, view};

    /// A database in memory that refuses some events, and counts statements.
    #[derive(Default)]
    struct Fake {
        refuse: HashSet<String>,
        stored: Vec<Uuid>,
        since_savepoint: usize,
        inserts: usize,
        /// Number of inserts after which the connection ends.
        ends_after: Option<usize>,
    }

    impl Write for Fake {
        async fn claim(&mut self, _: &Batch<'_>) -> Result<HashSet<(Uuid, u64)>, StoreError> {
            Ok(HashSet::new())
        }

        async fn repeat(&mut self, _: &Batch<'_>, _: &[&BatchFrame<'_>]) -> Result<(), StoreError> {
            Ok(())
        }

        async fn insert<'r, 'a>(&mut self, rows: &[&'r Row<'a>]) -> Result<Vec<&'r Row<'a>>, StoreError> {
            self.inserts += 1;
            if self.ends_after.is_some_and(|most| self.inserts > most) {
                return Err(StoreError::unavailable("the connection ended"));
            }
            if let Some(row) = rows.iter().find(|row| self.refuse.contains(&*row.event.columns.user_id)) {
                return Err(StoreError::refused(format!("user {}", row.event.columns.user_id)));
            }
            let new: Vec<_> = rows.iter().filter(|row| !self.stored.contains(&row.key)).copied().collect();
            self.stored.extend(new.iter().map(|row| row.key));
            Ok(new)
        }

        async fn summarize(&mut self, _: Source, _: u64, _: Encoded) -> Result<(), StoreError> {
            Ok(())
        }

        async fn run(&mut self, sql: &'static str) -> Result<(), StoreError> {
            match sql {
                "ROLLBACK TO SAVEPOINT part" => self.stored.truncate(self.since_savepoint),
                _ => self.since_savepoint = self.stored.len(),
            }
            Ok(())
        }

        async fn set_aside(&mut self, _: &[(Uuid, DeadLetter)]) -> Result<(), StoreError> {
            Ok(())
        }

        async fn count(
            &mut self,
            _: &Batch<'_>,
            _: &[&BatchFrame<'_>],
            _: &Written,
        ) -> Result<(), StoreError> {
            Ok(())
        }

        async fn roll_back(self) -> Result<(), StoreError> {
            Ok(())
        }

        async fn commit(self) -> Result<(), StoreError> {
            Ok(())
        }
    }

    fn rows<'a>(texts: &'a [String], origin: &'a Origin) -> Vec<Row<'a>> {
        let mut rows: Vec<_> = texts.iter().map(|text| row(text, origin)).collect();
        rows.sort_by_key(|row| row.key);
        rows
    }

    fn refusing(users: &[&str]) -> Fake {
        Fake { refuse: users.iter().map(|user| (*user).to_owned()).collect(), ..Fake::default() }
    }

    #[tokio::test]
    async fn one_refused_row_among_a_thousand_is_found_in_few_statements() {
        let origin = origin();
        for at in [0, 499, 999] {
            let user = |n| if n == at { "bad" } else { "good" };
            let texts: Vec<_> = (0..1_000).map(|n| view(&format!("e-{n}"), user(n))).collect();
            let rows = rows(&texts, &origin);
            let mut tx = refusing(&["bad"]);
            let mut progress = WriteProgress::default();
            let found = insert_isolating(&mut tx, rows.iter().collect(), &mut progress).await.unwrap();
            assert_eq!((found.new.len(), found.letters.len(), tx.stored.len()), (999, 1, 999));
            assert_eq!(found.letters[0].1.event_id.as_deref(), Some(&*format!("e-{at}")));
            assert!(tx.inserts <= 32, "{} statements", tx.inserts);
        }
    }

    #[tokio::test]
    async fn an_event_with_one_key_is_stored_once_and_tried_until_one_is_accepted() {
        let origin = origin();
        let texts = [
            view("twin", "bad"),
            view("twin", "bad"),
            view("twin", "good"),
            view("twin", "good"),
            view("refused", "bad"),
            view("refused", "bad"),
        ];
        let rows = rows(&texts, &origin);
        let mut tx = refusing(&["bad"]);
        let found =
            insert_isolating(&mut tx, rows.iter().collect(), &mut WriteProgress::default()).await.unwrap();
        assert_eq!((found.new.len(), tx.stored.len(), found.letters.len()), (1, 1, 4));
        let ids: HashSet<_> = found.letters.iter().map(|(id, _)| *id).collect();
        assert_eq!(ids.len(), 4, "each refused event has a letter of its own");
    }

    #[tokio::test]
    async fn the_next_transaction_continues_where_one_ended() {
        let origin = origin();
        let user = |n: usize| if n.is_multiple_of(2) { "bad" } else { "good" };
        let texts: Vec<_> = (0..200).map(|n| view(&format!("e-{n}"), user(n))).collect();
        let rows = rows(&texts, &origin);
        let mut progress = WriteProgress::new(50);
        let (mut tries, mut inserts) = (0, 0);
        let found = loop {
            let mut tx = Fake { ends_after: Some(60), ..refusing(&["bad"]) };
            tries += 1;
            let tried = insert_isolating(&mut tx, rows.iter().collect(), &mut progress).await;
            inserts += tx.inserts;
            match tried {
                Ok(found) => break found,
                Err(error) => {
                    assert!(matches!(error, StoreError::Unavailable { .. }) && tries < 50, "{error}")
                }
            }
        };
        assert_eq!((found.new.len(), found.letters.len()), (100, 100));
        assert!((4..20).contains(&tries), "{tries} tries");
        assert!(inserts < 800, "{inserts} statements");
    }

    #[test]
    fn a_letters_id_follows_from_its_frame_and_position() {
        let writer = Uuid::from_u128(9);
        assert_eq!(letter_id((writer, 1), 0), letter_id((writer, 1), 0));
        let ids = [letter_id((writer, 1), 0), letter_id((writer, 1), 1), letter_id((writer, 2), 0)];
        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), 3);
    }
}
