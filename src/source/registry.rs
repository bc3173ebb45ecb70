//! The handle of a source, and the registry that it points into.
//!
//! The registry begins with the built-in sources and grows by declared ones, which are never removed. Reading it takes
//! no lock.

use std::fmt;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer};

use super::codes::{Code, Named, capitalized, read_named};
use super::description::{Breakdown, Contract};
use super::event_type::EventType;
use super::learnt::{self, DeclareError, Declared, Vocabulary, WordColumn};
use super::setting::SourceSetting;
use super::stage::FunnelStage;
use super::{BUILT_IN, Handshake, Signature};

/// A platform that events come from: a position in the registry.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source(u16);

impl Source {
    /// Every source that is known now, in the order of the registry.
    pub fn all() -> impl DoubleEndedIterator<Item = Self> + ExactSizeIterator + Clone {
        Self::first(BUILT_IN.len() + learnt::count())
    }

    /// The sources whose contract is compiled in.
    pub fn built_in() -> impl DoubleEndedIterator<Item = Self> + ExactSizeIterator + Clone {
        Self::first(BUILT_IN.len())
    }

    /// The declared sources that are known now.
    pub fn declared() -> impl DoubleEndedIterator<Item = Self> + ExactSizeIterator + Clone {
        Self::all().skip(BUILT_IN.len())
    }

    fn first(count: usize) -> impl DoubleEndedIterator<Item = Self> + ExactSizeIterator + Clone {
        (0..count).map(Self::at)
    }

    /// The source at a position; there are at most [`MAX_DECLARED`](super::MAX_DECLARED) behind the built-in ones.
    #[allow(clippy::cast_possible_truncation, reason = "a few hundred")]
    const fn at(index: usize) -> Self {
        Self(index as u16)
    }

    /// The built-in source of this name, for constants: a name that is not registered does not compile.
    pub(super) const fn constant(name: &str) -> Self {
        let mut at = 0;
        while at < BUILT_IN.len() {
            if same(BUILT_IN[at].entry.name.as_bytes(), name.as_bytes()) {
                return Self::at(at);
            }
            at += 1;
        }
        panic!("no built-in source has this name")
    }

    /// Declares a source by its name, if it is not known yet. An empty title is made of the name.
    ///
    /// # Errors
    ///
    /// If the name is not allowed, or there are too many sources.
    pub fn declare(name: &str, title: &str) -> Result<Self, DeclareError> {
        match Self::parse(name) {
            Some(known) => Ok(known),
            None => learnt::declare(name, title).map(|index| Self::at(BUILT_IN.len() + index)),
        }
    }

    /// The contract of a built-in source.
    pub(crate) fn contract(self) -> Option<&'static Contract> {
        BUILT_IN.get(self.index()).copied()
    }

    /// The registration of a declared source.
    fn learnt(self) -> Option<&'static Declared> {
        learnt::at(self.index().checked_sub(BUILT_IN.len())?)
    }

    /// True if its contract is compiled in.
    pub const fn is_built_in(self) -> bool {
        self.index() < BUILT_IN.len()
    }

    /// The name on the wire, in routes, settings, metrics and logs.
    pub fn name(self) -> &'static str {
        match self.contract() {
            Some(contract) => contract.entry.name,
            None => self.learnt().map_or("unknown", |declared| declared.name),
        }
    }

    /// The name for people.
    pub fn title(self) -> &'static str {
        match self.contract() {
            Some(contract) => contract.title,
            None => self.learnt().map_or("unknown", |declared| declared.title),
        }
    }

    /// The number that rows keep. That of a declared source is 0, which no row has, until the database's dictionary
    /// gives one.
    pub fn code(self) -> i16 {
        match self.contract() {
            Some(contract) => contract.entry.number,
            None => self.learnt().map_or(0, Declared::code),
        }
    }

    /// Sets the number of a declared source, as the database's dictionary has it.
    ///
    /// # Errors
    ///
    /// If the source has another number, or the number is another source's.
    pub fn learn_code(self, code: i16) -> Result<(), DeclareError> {
        if Self::from_code(code).is_some_and(|other| other != self) {
            return Err(DeclareError::Conflict { name: self.name().to_owned(), code });
        }
        match self.learnt() {
            Some(declared) => declared.learn_code(code),
            None => Err(DeclareError::BuiltIn(self.name())),
        }
    }

    /// Adds a type of event to a declared source, as the database's dictionary has it, if it is not known yet.
    ///
    /// # Errors
    ///
    /// If the name is not allowed, the number is another type's, or there are too many types.
    pub fn learn_type(
        self,
        code: i16,
        name: &str,
        stage: FunnelStage,
    ) -> Result<&'static EventType, DeclareError> {
        match self.learnt() {
            Some(declared) => declared.learn_type(code, name, stage),
            None => Err(DeclareError::BuiltIn(self.name())),
        }
    }

    /// The position in [`Source::all`], for tables by source.
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// The source of this name, compared exactly.
    pub fn parse(name: &str) -> Option<Self> {
        Self::all().find(|source| source.name() == name)
    }

    /// The source of this number.
    pub fn from_code(code: i16) -> Option<Self> {
        Self::all().find(|source| source.code() == code).filter(|_| code != 0)
    }

    /// The types of its events that are known now.
    pub fn event_types(self) -> impl Iterator<Item = &'static EventType> {
        let contract = self.contract().map(|contract| contract.event_types).unwrap_or_default();
        let learnt = self.learnt().map(|declared| declared.vocabulary().all()).unwrap_or_default();
        contract.iter().chain(learnt)
    }

    /// The type of this name, if the source is built in.
    pub(crate) fn contract_type(self, name: &str) -> Option<&'static EventType> {
        self.contract()?.event_types.iter().find(|kind| kind.name() == name)
    }

    /// The types and words of a declared source that are known now; to be asked for once for many events.
    pub fn vocabulary(self) -> Arc<Vocabulary> {
        self.learnt().map(Declared::vocabulary).unwrap_or_default()
    }

    /// Adds a word of a column to a declared source, as the database's dictionary has it, if it is not known yet.
    ///
    /// # Errors
    ///
    /// If the word has another number.
    pub fn learn_word(self, column: WordColumn, code: i16, text: &str) -> Result<(), DeclareError> {
        match self.learnt() {
            Some(declared) => declared.learn_word(column, code, text),
            None => Err(DeclareError::BuiltIn(self.name())),
        }
    }

    /// The prefix of its schemas in `/openapi.json`.
    pub fn schema_prefix(self) -> String {
        self.name().split('_').map(capitalized).collect()
    }

    /// The setting of its collector's port, if the source is built in.
    pub fn collector_port(self) -> Option<SourceSetting> {
        self.contract().map(|contract| contract.collector_port)
    }

    /// The signature of its webhook requests, where a built-in source's platform signs.
    pub fn signature(self) -> Option<&'static Signature> {
        self.contract()?.signature.as_ref()
    }

    /// The handshake, where a built-in source's platform has one.
    pub fn handshake(self) -> Option<&'static Handshake> {
        self.contract()?.handshake.as_ref()
    }

    /// The members that its part of `/reports/demographics` can have. A declared source's part has those of them that
    /// its events have values for.
    pub fn demographics(self) -> &'static [Breakdown] {
        self.contract().map_or(DECLARED_DEMOGRAPHICS, |contract| contract.demographics)
    }
}

/// The breakdowns that columns of declared sources can fill.
pub(crate) const DECLARED_DEMOGRAPHICS: &[Breakdown] = &[
    Breakdown::AgeGroups,
    Breakdown::Genders,
    Breakdown::Followers,
    Breakdown::Countries,
    Breakdown::Cities,
    Breakdown::Devices,
];

const fn same(left: &[u8], right: &[u8]) -> bool {
    if left.len() != right.len() {
        return false;
    }
    let mut at = 0;
    while at < left.len() {
        if left[at] != right[at] {
            return false;
        }
        at += 1;
    }
    true
}

/// The sources that an event in the contract's own form can name: those that are built in.
impl Named for Source {
    fn names() -> Vec<&'static str> {
        Self::built_in().map(Self::name).collect()
    }

    fn parse(name: &str) -> Option<Self> {
        Self::built_in().find(|source| source.name() == name)
    }

    fn not_allowed(name: &str) -> String {
        let allowed = format!("must be one of {}", <Self as Named>::names().join(", "));
        match Self::parse(name) {
            Some(declared) => format!("{allowed}; events of {declared} are taken at /webhook/{declared}"),
            None => allowed,
        }
    }
}

impl<'de> Deserialize<'de> for Source {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        read_named(de)
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Every entry of every code table of this program, for the store's table `words`.
pub fn all_codes() -> impl Iterator<Item = Code> {
    let of_sources = BUILT_IN.iter().flat_map(|Contract { entry, event_types, codes, .. }| {
        let types = event_types.iter().map(|kind| kind.entry);
        [*entry].into_iter().chain(types).chain(codes.iter().flat_map(|table| table.iter().copied()))
    });
    FunnelStage::all().map(FunnelStage::entry).chain(of_sources)
}

/// The word of values that have no number of their own, because their column has as many words as it can have.
pub const OTHER: Code = Code { number: 20, name: "other" };

/// The name of a number; `unknown` for a number that neither a table of this program nor the database's dictionary, as
/// far as it was read, has.
pub fn name_of_code(number: i16) -> &'static str {
    name(number).unwrap_or("unknown")
}

/// True if the name of a number is known.
pub fn has_name(number: i16) -> bool {
    name(number).is_some()
}

fn name(number: i16) -> Option<&'static str> {
    let own = all_codes().chain([OTHER]).find(|code| code.number == number).map(|code| code.name);
    own.or_else(|| learnt::word(number))
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;
    use crate::source::FIRST_LEARNT;

    #[test]
    fn each_code_has_a_number_of_its_own() {
        let mut seen = HashMap::new();
        for code in all_codes().chain([OTHER]) {
            assert!(code.number < FIRST_LEARNT, "{code:?}");
            let before = seen.insert(code.number, code.name);
            assert_eq!(before, None, "{} is {:?} and {}", code.number, before, code.name);
        }
        assert!(seen.len() > 10);
    }

    #[test]
    fn names_ports_and_settings_of_sources_are_their_own() {
        let mut names = HashSet::new();
        for source in Source::all() {
            assert_eq!(Source::parse(source.name()), Some(source));
            assert_eq!(Source::from_code(source.code()), (source.code() != 0).then_some(source));
            let Some(Contract { signature, handshake, collector_port, .. }) = source.contract() else {
                continue;
            };
            let settings = [signature.as_ref().map(|it| it.setting), handshake.as_ref().map(|it| it.setting)];
            let settings = settings.into_iter().flatten().chain([*collector_port]);
            for name in settings.map(|setting| setting.name).chain([source.name(), collector_port.default]) {
                assert!(names.insert(name), "{name} is another source's, too");
            }
        }
    }

    #[test]
    fn every_type_of_event_lies_in_a_stage_that_its_source_can_read() {
        for source in Source::built_in() {
            for kind in source.event_types() {
                let contract = source.contract().unwrap();
                assert!(contract.engagement(kind.stage).is_some(), "{source} {}", kind.name());
            }
        }
    }
}
