//! The dictionary: numbers of declared sources, their types and their words, the same for ever.
//!
//! ```text
//! collector ──names that it does not know──▶ Store::learn ──one transaction under a lock──▶ dictionary, words
//! any process ◀──rows with numbers that it has not read── Store::read_dictionary ◀─────────┘
//!      └──▶ the registry of sources, from which all rooms read
//! ```
//!
//! A number is the one after the highest, and transactions that give numbers exclude each other until they are
//! committed. So whoever has read up to a number has read all before it.

use std::collections::BTreeSet;

use sea_orm::{ConnectionTrait, FromQueryResult, Value};

use crate::event::{FunnelStage, Source};
use crate::source::{DeclareError, FIRST_LEARNT, MAX_DECLARED, MAX_TYPES, MAX_WORDS, NewName, WordColumn};
use crate::store::connect::{Backend, Store};
use crate::store::error::StoreError;
use crate::store::locks::DICTIONARY_LOCK;
use crate::store::sql::Sql;
use crate::store::transaction::Transaction;

/// The number after the last that a word may have, so that sources and types always find one.
const WORDS_END: i16 = 24_000;

/// Kinds of names in the table.
const SOURCE: i16 = 1;
const TYPE: i16 = 2;
const WORD_COLUMNS: [(i16, WordColumn); 4] =
    [(3, WordColumn::Device), (4, WordColumn::Browser), (5, WordColumn::Gender), (6, WordColumn::Referrer)];

/// A row of the table.
#[derive(Debug, FromQueryResult)]
struct Entry {
    code: i16,
    kind: i16,
    source: i16,
    stage: i16,
    word: String,
}

impl Entry {
    /// Brings the name into the registry. A kind of a later version is skipped.
    fn learn(&self) -> Result<(), DeclareError> {
        if self.kind == SOURCE {
            return Source::declare(&self.word, "")?.learn_code(self.code);
        }
        let Some(source) = Source::from_code(self.source) else { return Ok(()) };
        if self.kind == TYPE {
            return match FunnelStage::from_code(self.stage) {
                Some(stage) => source.learn_type(self.code, &self.word, stage).map(drop),
                None => Ok(()),
            };
        }
        match WORD_COLUMNS.iter().find(|(kind, _)| *kind == self.kind) {
            Some((_, column)) => source.learn_word(*column, self.code, &self.word),
            None => Ok(()),
        }
    }
}

impl Store {
    /// Brings names that were added to the dictionary since the last call into the registry of sources; gives their
    /// number. The first call reads all.
    ///
    /// # Errors
    ///
    /// If the database does not answer, this process has read another database's dictionary before, or the dictionary
    /// lacks names that it had.
    pub async fn read_dictionary(&self) -> Result<usize, StoreError> {
        self.read_names(self.unblocked()).await
    }

    async fn read_names(&self, db: &impl ConnectionTrait) -> Result<usize, StoreError> {
        let last = self.names.get();
        let sql = "SELECT code, kind, source, stage, word FROM dictionary WHERE code >= $1 ORDER BY code";
        let mut entries: Vec<Entry> = Sql::new(sql).bind(last).all(db).await?;
        if last > 0 {
            // Numbers that this process knows could be given to other names there.
            if entries.first().is_none_or(|entry| entry.code != last) {
                return Err(StoreError::internal(
                    "the database's dictionary went back, or it is another database: restart this process",
                ));
            }
            entries.remove(0);
        }
        for entry in &entries {
            entry.learn().map_err(|error| StoreError::internal(error.to_string()).because(error))?;
        }
        if let Some(entry) = entries.last() {
            self.names.reach(entry.code);
        }
        Ok(entries.len())
    }

    /// Gives a declared source its number, if it has none.
    ///
    /// # Errors
    ///
    /// If the database does not answer, or there are too many sources.
    pub async fn register(&self, source: Source) -> Result<(), StoreError> {
        if source.code() != 0 {
            return Ok(());
        }
        self.give(async |tx| {
            if source.code() == 0 {
                if Source::declared().filter(|source| source.code() != 0).count() >= MAX_DECLARED {
                    let error = DeclareError::TooManySources;
                    return Err(StoreError::internal(error.to_string()).because(error));
                }
                insert(tx, self.next_code(), &[(SOURCE, 0, 0, source.name())]).await?;
            }
            Ok(())
        })
        .await
    }

    /// Gives numbers to names of a declared source, except those for which there is no room: more than [`MAX_TYPES`]
    /// types, or [`MAX_WORDS`] words of a column.
    ///
    /// # Errors
    ///
    /// If the database does not answer.
    pub async fn learn(&self, source: Source, names: &BTreeSet<NewName>) -> Result<(), StoreError> {
        self.register(source).await?;
        self.give(async |tx| {
            // Another process may have given some of these numbers meanwhile.
            let known = source.vocabulary();
            let mut types = known.type_count();
            let mut words = WordColumn::ALL.map(|column| known.word_count(column));
            let mut next = self.next_code();
            let mut given = Vec::new();
            for name in names {
                let row = match name {
                    NewName::Type(stage, name) => {
                        if known.get(name, *stage).is_some() || types == MAX_TYPES || next == i16::MAX {
                            continue;
                        }
                        types += 1;
                        (TYPE, source.code(), stage.code(), name.as_str())
                    }
                    NewName::Word(column, word) => {
                        let count = &mut words[*column as usize];
                        if known.word(*column, word).is_some() || *count == MAX_WORDS || next >= WORDS_END {
                            continue;
                        }
                        *count += 1;
                        let kind = WORD_COLUMNS.iter().find(|(_, known)| known == column);
                        (kind.map_or(0, |(kind, _)| *kind), source.code(), 0, word.as_str())
                    }
                };
                next = next.saturating_add(1);
                given.push(row);
            }
            insert(tx, self.next_code(), &given).await
        })
        .await
    }

    /// Runs `work` in a transaction that holds the dictionary's lock and has read all names; then reads what it added.
    async fn give(
        &self,
        work: impl AsyncFn(&Transaction) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.retry_conflicts(async || {
            let mode = "ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = '3s'";
            let tx = self.db().begin(mode).await?;
            if let Backend::Postgres(..) = self.backend() {
                // SQLite's transactions that write exclude each other.
                Sql::new("SELECT pg_advisory_xact_lock($1)").bind(DICTIONARY_LOCK).row(&tx).await?;
            }
            self.read_names(&tx).await?;
            work(&tx).await?;
            tx.commit().await
        })
        .await?;
        self.read_names(self.db()).await.map(drop)
    }

    /// The number of the next name, once all names were read under the lock.
    fn next_code(&self) -> i16 {
        self.names.get().max(FIRST_LEARNT - 1).saturating_add(1)
    }

    /// True if no word can be given a number any more, in any column.
    pub fn has_no_room_for_words(&self) -> bool {
        self.next_code() >= WORDS_END
    }
}

/// Inserts names under the numbers from `first` on, with kind, source and stage.
async fn insert(tx: &Transaction, first: i16, names: &[(i16, i16, i16, &str)]) -> Result<(), StoreError> {
    if names.is_empty() {
        return Ok(());
    }
    let mut entries = Sql::new("INSERT INTO dictionary (code, kind, source, stage, word) VALUES ");
    let mut words = Sql::new("INSERT INTO words (code, word) VALUES ");
    for (code, (kind, source, stage, word)) in (first..=i16::MAX).zip(names) {
        let open = if code == first { "(" } else { ", (" };
        let values = [code, *kind, *source, *stage].map(Value::from).into_iter().chain([(*word).into()]);
        entries.push(open).push_list(values).push(")");
        words.push(open).push_list([Value::from(code), (*word).into()]).push(")");
    }
    // A database that was restored without its dictionary may have words of such numbers.
    words.push(" ON CONFLICT (code) DO UPDATE SET word = excluded.word");
    entries.execute(tx).await?;
    words.execute(tx).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Purpose;

    async fn store(folder: &std::path::Path) -> Store {
        let url = format!("sqlite://{}?mode=rwc", folder.join("ess.db").display());
        let store = Store::connect(&url, Purpose::Write { transactions: 1 }).await.unwrap();
        store.migrate().await.unwrap();
        store
    }

    #[tokio::test]
    async fn numbers_begin_after_those_of_the_program_and_are_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).await;
        let source = Source::declare("numbers", "").unwrap();
        store.register(source).await.unwrap();
        store.register(source).await.unwrap();
        assert_eq!(source.code(), FIRST_LEARNT);
        let bottom = FunnelStage::BOTTOM;
        let names = BTreeSet::from([
            NewName::Type(bottom, "lead".to_owned()),
            NewName::Type(FunnelStage::TOP, "lead".to_owned()),
            NewName::Word(WordColumn::Device, "mobile".to_owned()),
            NewName::Word(WordColumn::Browser, "mobile".to_owned()),
        ]);
        for _ in 0..2 {
            store.learn(source, &names).await.unwrap();
        }
        let vocabulary = source.vocabulary();
        let lead = vocabulary.get("lead", bottom).unwrap();
        assert!(lead.code() > FIRST_LEARNT && lead.code() <= FIRST_LEARNT + 4);
        assert_ne!(
            vocabulary.word(WordColumn::Device, "mobile"),
            vocabulary.word(WordColumn::Browser, "mobile")
        );
        assert_eq!(store.query_number("SELECT count(*) FROM dictionary").await.unwrap(), 5);
        let in_view = "SELECT count(*) FROM dictionary d JOIN words w ON w.code = d.code AND w.word = d.word";
        assert_eq!(store.query_number(in_view).await.unwrap(), 5);
        let url = format!("sqlite://{}", folder.path().join("ess.db").display());
        let reading = Store::connect(&url, Purpose::Read { connections: 1 }).await.unwrap();
        assert_eq!(reading.read_dictionary().await.unwrap(), 5, "the first time all");
        assert_eq!(reading.read_dictionary().await.unwrap(), 0, "then what is new");
    }

    #[tokio::test]
    async fn a_database_that_went_back_gives_no_numbers_to_a_process_that_knows_more() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).await;
        let source = Source::declare("restored", "").unwrap();
        let names = |name: &str| BTreeSet::from([NewName::Type(FunnelStage::TOP, name.to_owned())]);
        store.learn(source, &names("before")).await.unwrap();
        store.execute("DELETE FROM dictionary WHERE word = 'before'").await.unwrap();
        for error in
            [store.read_dictionary().await.unwrap_err(), store.learn(source, &names("x")).await.unwrap_err()]
        {
            assert!(error.to_string().contains("went back"), "{error}");
        }
        assert_eq!(store.query_number("SELECT count(*) FROM dictionary").await.unwrap(), 1);
    }

    #[tokio::test]
    async fn words_beyond_the_bound_have_no_number() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).await;
        let source = Source::declare("wordy", "").unwrap();
        let word = |number| NewName::Word(WordColumn::Referrer, format!("word {number}"));
        store.learn(source, &(0..200).map(word).collect()).await.unwrap();
        store.learn(source, &(100..400).map(word).collect()).await.unwrap();
        let vocabulary = source.vocabulary();
        assert_eq!(vocabulary.word_count(WordColumn::Referrer), MAX_WORDS);
        let known =
            (0..400).filter(|n| vocabulary.word(WordColumn::Referrer, &format!("word {n}")).is_some());
        assert_eq!(known.count(), MAX_WORDS);
    }

    #[tokio::test]
    async fn another_database_whose_numbers_differ_is_refused() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (first, second) = (store(one.path()).await, store(other.path()).await);
        first.register(Source::declare("first", "").unwrap()).await.unwrap();
        second.execute("INSERT INTO dictionary VALUES (1000, 1, 0, 0, 'second')").await.unwrap();
        let error = second.read_dictionary().await.unwrap_err().to_string();
        assert!(error.contains("another database"), "{error}");
    }
}
