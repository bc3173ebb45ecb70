//! Names of a declared source's events while they are decoded: their numbers, and those that have none yet.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::event_type::EventType;
use super::learnt::{MAX_TYPES, MAX_WORDS, Vocabulary, WordColumn};
use super::registry::{OTHER, Source};
use super::stage::FunnelStage;

/// A name that the database's dictionary is asked for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum NewName {
    /// A type of event and its stage.
    Type(FunnelStage, String),
    /// A word of a column.
    Word(WordColumn, String),
}

/// Names of one source, as they are known when decoding begins.
#[derive(Debug)]
pub struct Names {
    vocabulary: Arc<Vocabulary>,
    /// True if no word can be given a number any more.
    is_full: bool,
    missing: BTreeSet<NewName>,
}

impl Names {
    /// The names of a source. `is_full` is true if no word can be given a number any more.
    pub fn new(source: Source, is_full: bool) -> Self {
        Self { vocabulary: source.vocabulary(), is_full, missing: BTreeSet::new() }
    }

    /// The type of this name and stage; `None` if it has no number, or not yet.
    pub fn kind(&mut self, name: &str, stage: FunnelStage) -> Option<&'static EventType> {
        let known = self.vocabulary.get(name, stage);
        if known.is_none() && self.vocabulary.type_count() < MAX_TYPES {
            self.missing.insert(NewName::Type(stage, name.to_owned()));
        }
        known
    }

    /// The number of a word; that of [`OTHER`] if it has none, or not yet.
    pub fn word(&mut self, column: WordColumn, word: &str) -> i16 {
        let known = self.vocabulary.word(column, word);
        if known.is_none() && !self.is_full && self.vocabulary.word_count(column) < MAX_WORDS {
            self.missing.insert(NewName::Word(column, word.to_owned()));
        }
        known.unwrap_or(OTHER.number)
    }

    /// Names that may be given a number, each once.
    pub fn missing(&self) -> &BTreeSet<NewName> {
        &self.missing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_without_a_number_are_asked_for_once_and_words_beyond_the_bound_never() {
        let source = Source::declare("named", "").unwrap();
        let (top, device) = (FunnelStage::TOP, WordColumn::Device);
        let mut names = Names::new(source, false);
        for _ in 0..3 {
            assert_eq!(names.kind("view", top), None);
            assert_eq!(names.word(device, "mobile"), OTHER.number);
        }
        let expected = [NewName::Type(top, "view".to_owned()), NewName::Word(device, "mobile".to_owned())];
        assert_eq!(names.missing().iter().cloned().collect::<Vec<_>>(), expected);

        let kind = source.learn_type(20_000, "view", top).unwrap();
        for number in 0..i16::try_from(MAX_WORDS).unwrap() {
            source.learn_word(device, 20_001 + number, &format!("word {number}")).unwrap();
        }
        let mut names = Names::new(source, false);
        assert_eq!(names.kind("view", top), Some(kind));
        assert_eq!((names.word(device, "word 0"), names.word(device, "mobile")), (20_001, OTHER.number));
        assert!(names.missing().is_empty(), "the column is full");
        let mut names = Names::new(source, true);
        assert_eq!(names.word(WordColumn::Gender, "x"), OTHER.number);
        assert!(names.missing().is_empty(), "no column has room");
    }
}
