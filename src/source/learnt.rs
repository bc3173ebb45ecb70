//! Sources, types and words that the process learns while it runs: from source files, the log and the database.
//!
//! All of them are kept for ever, so their numbers are bounded.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use super::canonical::{is_source_name, is_type_name};
use super::event_type::EventType;
use super::stage::FunnelStage;

/// Maximum number of declared sources of a process.
pub const MAX_DECLARED: usize = 200;
/// The first number of a learnt name; the numbers below are those of tables of this program.
pub const FIRST_LEARNT: i16 = 1_000;
/// Maximum number of words of a column of a source; further ones have the number of `other`.
pub const MAX_WORDS: usize = 256;
/// Maximum number of types of a declared source.
pub const MAX_TYPES: usize = 1_000;

/// Names that no declared source can have: words with a meaning of their own in labels, commands and topics.
pub(super) const RESERVED: [&str; 4] = ["all", "unknown", "other", "dead_letters"];

/// Error of a declaration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeclareError {
    /// The name is not allowed.
    #[error("`{0}` is no name of a source: a letter of a-z, then up to 31 of a-z, 0-9, _")]
    Name(String),
    /// The name of a type is not allowed.
    #[error("`{0}` is no name of a type: up to 64 of a-z, 0-9, `.`, `_`, `-`")]
    TypeName(String),
    /// There are as many declared sources as there can be.
    #[error("there are already {MAX_DECLARED} sources beside the built-in ones")]
    TooManySources,
    /// The source has as many types as there can be.
    #[error("{0} already has {MAX_TYPES} types of events")]
    TooManyTypes(&'static str),
    /// The number belongs to another name, or the name to another number: the process knows another database's.
    #[error(
        "the number {code} of {name} differs from what this process knows: it has read another database before"
    )]
    Conflict {
        /// The name.
        name: String,
        /// The number.
        code: i16,
    },
    /// A built-in source declares its own numbers and types.
    #[error("{0} is built in")]
    BuiltIn(&'static str),
}

/// A declared source, as far as the process knows it.
#[derive(Debug)]
pub(super) struct Declared {
    pub name: &'static str,
    pub title: &'static str,
    code: OnceLock<i16>,
    vocabulary: RwLock<Arc<Vocabulary>>,
}

/// A column of declared sources whose words rows keep as numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WordColumn {
    /// Device.
    Device,
    /// Browser.
    Browser,
    /// Gender.
    Gender,
    /// Referrer.
    Referrer,
}

impl WordColumn {
    /// All columns, in the order of their variants.
    pub const ALL: [Self; 4] = [Self::Device, Self::Browser, Self::Gender, Self::Referrer];
}

/// Words of one column.
type Words = HashMap<&'static str, i16>;

/// Types and words of a declared source.
#[derive(Debug, Clone, Default)]
pub struct Vocabulary {
    /// Types in the order in which they were learnt.
    all: Vec<&'static EventType>,
    by_name: HashMap<&'static str, Vec<&'static EventType>>,
    words: [Words; WordColumn::ALL.len()],
}

/// The declared sources; the first [`count`] slots are filled.
static DECLARED: [OnceLock<Declared>; MAX_DECLARED] = [const { OnceLock::new() }; MAX_DECLARED];
static COUNT: AtomicUsize = AtomicUsize::new(0);
/// Held while a source is added.
static GROWTH: Mutex<()> = Mutex::new(());
/// Names of numbers of the database's dictionary.
static WORDS: RwLock<Option<HashMap<i16, &'static str>>> = RwLock::new(None);

/// Number of declared sources.
pub(super) fn count() -> usize {
    COUNT.load(Ordering::Acquire)
}

/// The declared source at a position.
pub(super) fn at(index: usize) -> Option<&'static Declared> {
    DECLARED.get(index)?.get()
}

/// Adds a source that is not built in, if it is not known yet; gives its position.
pub(super) fn declare(name: &str, title: &str) -> Result<usize, DeclareError> {
    if !is_name(name) {
        return Err(DeclareError::Name(name.to_owned()));
    }
    let _growing = GROWTH.lock().unwrap_or_else(PoisonError::into_inner);
    let index = count();
    if let Some(known) = (0..index).find(|index| at(*index).is_some_and(|declared| declared.name == name)) {
        return Ok(known);
    }
    let Some(slot) = DECLARED.get(index) else { return Err(DeclareError::TooManySources) };
    let title = if title.is_empty() { title_of(name) } else { title.to_owned() };
    slot.get_or_init(|| Declared {
        name: leaked(name),
        title: leaked(&title),
        code: OnceLock::new(),
        vocabulary: RwLock::default(),
    });
    COUNT.store(index + 1, Ordering::Release);
    Ok(index)
}

/// A text that is kept for ever.
fn leaked(text: &str) -> &'static str {
    Box::leak(text.into())
}

fn is_name(name: &str) -> bool {
    is_source_name(name) && !RESERVED.contains(&name)
}

/// A title of a name: `meta_leads` is "Meta leads".
fn title_of(name: &str) -> String {
    super::codes::capitalized(&name.replace('_', " "))
}

impl Declared {
    /// The number that rows keep; 0 while it is not known.
    pub fn code(&self) -> i16 {
        self.code.get().copied().unwrap_or(0)
    }

    pub fn learn_code(&self, code: i16) -> Result<(), DeclareError> {
        if *self.code.get_or_init(|| code) != code {
            return Err(DeclareError::Conflict { name: self.name.to_owned(), code });
        }
        learn_word(code, self.name);
        Ok(())
    }

    /// The types and words that are known now.
    pub fn vocabulary(&self) -> Arc<Vocabulary> {
        self.vocabulary.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn learn_type(
        &self,
        code: i16,
        name: &str,
        stage: FunnelStage,
    ) -> Result<&'static EventType, DeclareError> {
        if !is_type_name(name) {
            return Err(DeclareError::TypeName(name.to_owned()));
        }
        let mut types = self.vocabulary.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = types.get(name, stage) {
            let conflict = || DeclareError::Conflict { name: name.to_owned(), code };
            return if known.code() == code { Ok(known) } else { Err(conflict()) };
        }
        if types.all.iter().any(|kind| kind.code() == code) {
            return Err(DeclareError::Conflict { name: name.to_owned(), code });
        }
        if types.all.len() == MAX_TYPES {
            return Err(DeclareError::TooManyTypes(self.name));
        }
        let kind: &'static EventType = Box::leak(Box::new(EventType::new(code, leaked(name), stage)));
        learn_word(code, name);
        let table = Arc::make_mut(&mut types);
        table.all.push(kind);
        table.by_name.entry(kind.name()).or_default().push(kind);
        Ok(kind)
    }

    pub fn learn_word(&self, column: WordColumn, code: i16, text: &str) -> Result<(), DeclareError> {
        let mut vocabulary = self.vocabulary.write().unwrap_or_else(PoisonError::into_inner);
        match vocabulary.word(column, text) {
            Some(known) if known == code => Ok(()),
            Some(_) => Err(DeclareError::Conflict { name: text.to_owned(), code }),
            None => {
                let text = learn_word(code, text);
                Arc::make_mut(&mut vocabulary).words[column as usize].insert(text, code);
                Ok(())
            }
        }
    }
}

impl Vocabulary {
    /// The type of this name and stage.
    pub fn get(&self, name: &str, stage: FunnelStage) -> Option<&'static EventType> {
        self.by_name.get(name)?.iter().find(|kind| kind.stage == stage).copied()
    }

    /// The number of a word of a column.
    pub fn word(&self, column: WordColumn, text: &str) -> Option<i16> {
        self.words[column as usize].get(text).copied()
    }

    /// Number of words of a column.
    pub fn word_count(&self, column: WordColumn) -> usize {
        self.words[column as usize].len()
    }

    /// Number of types.
    pub fn type_count(&self) -> usize {
        self.all.len()
    }

    /// All types, in the order in which they were learnt.
    pub(super) fn all(&self) -> Vec<&'static EventType> {
        self.all.clone()
    }
}

/// The name of a number of the dictionary.
pub(super) fn word(number: i16) -> Option<&'static str> {
    WORDS.read().unwrap_or_else(PoisonError::into_inner).as_ref()?.get(&number).copied()
}

/// Keeps the name of a number; gives the one that stays for ever, which is the first.
fn learn_word(number: i16, name: &str) -> &'static str {
    let mut words = WORDS.write().unwrap_or_else(PoisonError::into_inner);
    words.get_or_insert_default().entry(number).or_insert_with(|| leaked(name))
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::super::Source;
    use super::*;

    #[test]
    fn a_source_is_declared_once_however_many_threads_declare_it() {
        let names: Vec<String> = (0..20).map(|number| format!("once_{number}")).collect();
        let declare = || names.iter().map(|name| Source::declare(name, "").unwrap()).collect::<Vec<_>>();
        let found: Vec<Vec<Source>> = thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(declare)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        for (name, source) in names.iter().zip(&found[0]) {
            assert_eq!((source.name(), Source::parse(name)), (name.as_str(), Some(*source)));
            assert!(Source::all().any(|known| known == *source) && !source.is_built_in());
        }
        assert!(found.iter().all(|sources| *sources == found[0]));
        assert_eq!(found[0][3].title(), "Once 3");
    }

    #[test]
    fn a_name_that_is_not_allowed_and_one_too_many_are_refused() {
        for name in ["", "A", "1a", "a-b", "a b", "all", "unknown", "dead_letters", &"a".repeat(33)] {
            assert_eq!(Source::declare(name, ""), Err(DeclareError::Name(name.to_owned())), "{name}");
        }
        let built_in = Source::built_in().next().unwrap();
        assert_eq!(Source::declare(built_in.name(), ""), Ok(built_in));
        let all: Vec<_> =
            (0..=MAX_DECLARED).map(|number| Source::declare(&format!("many_{number}"), "")).collect();
        assert_eq!(all.last(), Some(&Err(DeclareError::TooManySources)));
        assert_eq!(Source::declared().len(), MAX_DECLARED);
        assert_eq!(all[0], Ok(Source::parse("many_0").unwrap()), "a known source stays");
    }

    #[test]
    fn numbers_of_a_source_and_its_types_are_learnt_once() {
        let source = Source::declare("numbered", "Numbered!").unwrap();
        assert_eq!((source.title(), source.code(), source.event_types().count()), ("Numbered!", 0, 0));
        assert_eq!(Source::from_code(0), None);
        source.learn_code(31_000).unwrap();
        source.learn_code(31_000).unwrap();
        assert!(matches!(source.learn_code(31_001), Err(DeclareError::Conflict { code: 31_001, .. })));
        assert_eq!(Source::from_code(31_000), Some(source));
        let other = Source::declare("other_numbered", "").unwrap();
        assert!(other.learn_code(31_000).is_err() && other.learn_code(1).is_err());
        let built_in = Source::built_in().next().unwrap();
        assert_eq!(built_in.learn_code(31_002), Err(DeclareError::BuiltIn(built_in.name())));

        let (top, bottom) = (FunnelStage::TOP, FunnelStage::BOTTOM);
        let kind = source.learn_type(31_100, "form.submission", bottom).unwrap();
        assert!(std::ptr::eq(source.learn_type(31_100, "form.submission", bottom).unwrap(), kind));
        let in_top = source.learn_type(31_101, "form.submission", top).unwrap();
        assert_eq!((in_top.stage, in_top.code(), in_top.name()), (top, 31_101, "form.submission"));
        assert_eq!(source.vocabulary().get("form.submission", bottom), Some(kind));
        assert_eq!(source.vocabulary().get("form", bottom), None);
        assert_eq!(source.event_types().count(), 2);
        assert!(source.learn_type(31_100, "purchase", bottom).is_err(), "the number of another type");
        assert!(source.learn_type(31_103, "form.submission", top).is_err(), "another number");
        assert!(source.learn_type(31_104, "Form", top).is_err());
        assert_eq!(super::super::name_of_code(31_101), "form.submission");
        source.learn_word(WordColumn::Device, 31_200, "Pixel 9 \u{2603}").unwrap();
        source.learn_word(WordColumn::Device, 31_200, "Pixel 9 \u{2603}").unwrap();
        assert!(source.learn_word(WordColumn::Device, 31_201, "Pixel 9 \u{2603}").is_err(), "another number");
        source.learn_word(WordColumn::Browser, 31_202, "Pixel 9 \u{2603}").unwrap();
        let vocabulary = source.vocabulary();
        assert_eq!(vocabulary.word(WordColumn::Device, "Pixel 9 \u{2603}"), Some(31_200));
        assert_eq!(vocabulary.word(WordColumn::Gender, "Pixel 9 \u{2603}"), None);
        assert_eq!((vocabulary.word_count(WordColumn::Browser), vocabulary.type_count()), (1, 2));
        assert_eq!(super::super::name_of_code(31_202), "Pixel 9 \u{2603}");
        assert_eq!(super::super::name_of_code(31_000), "numbered");
        for number in 0..i16::try_from(MAX_TYPES).unwrap() - 2 {
            source.learn_type(30_000 + number, &format!("type.{number}"), top).unwrap();
        }
        assert_eq!(source.learn_type(31_105, "one.more", top), Err(DeclareError::TooManyTypes("numbered")));
    }
}
