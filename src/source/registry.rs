//! The handle of a source, and the registry that it points into.

use std::fmt;

use serde::de::{Deserialize, Deserializer};

use super::codes::{Code, Named, read_named};
use super::description::{Breakdown, Description, EventType, SourceSetting};
use super::stage::FunnelStage;
use super::{BUILT_IN, Handshake, Signature};

/// A platform that events come from: a position in the registry of descriptions.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source(u16);

impl Source {
    /// Every source, in the order of the registry.
    pub fn all() -> impl DoubleEndedIterator<Item = Self> + ExactSizeIterator + Clone {
        #[allow(clippy::cast_possible_truncation, reason = "a line of code for each")]
        (0..BUILT_IN.len() as u16).map(Self)
    }

    /// The built-in source of this name, for constants: a name that is not registered does not compile.
    pub(super) const fn built_in(name: &str) -> Self {
        let mut at = 0;
        while at < BUILT_IN.len() {
            if same(BUILT_IN[at].entry.name.as_bytes(), name.as_bytes()) {
                #[allow(clippy::cast_possible_truncation, reason = "a line of code for each")]
                return Self(at as u16);
            }
            at += 1;
        }
        panic!("no built-in source has this name")
    }

    /// The description in the registry.
    pub(crate) fn description(self) -> &'static Description {
        BUILT_IN[self.index()]
    }

    /// The name on the wire, in routes, settings, metrics and logs.
    pub fn name(self) -> &'static str {
        self.description().entry.name
    }

    /// The name for people.
    pub fn title(self) -> &'static str {
        self.description().title
    }

    /// The number that rows keep.
    pub fn code(self) -> i16 {
        self.description().entry.number
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
        Self::all().find(|source| source.code() == code)
    }

    /// The types of its events.
    pub fn event_types(self) -> &'static [EventType] {
        self.description().event_types
    }

    /// The type of this name.
    pub fn event_type(self, name: &str) -> Option<&'static EventType> {
        self.event_types().iter().find(|kind| kind.name() == name)
    }

    /// The prefix of its schemas in `/openapi.json`.
    pub fn schema_prefix(self) -> String {
        self.name().split('_').map(capitalized).collect()
    }

    /// The setting of its collector's port.
    pub fn collector_port(self) -> SourceSetting {
        self.description().collector_port
    }

    /// The signature of its webhook requests, where the platform signs.
    pub fn signature(self) -> Option<&'static Signature> {
        self.description().signature.as_ref()
    }

    /// The handshake, where the platform has one.
    pub fn handshake(self) -> Option<&'static Handshake> {
        self.description().handshake.as_ref()
    }

    /// The members of its part of `/reports/demographics`.
    pub fn demographics(self) -> &'static [Breakdown] {
        self.description().demographics
    }
}

/// A name with a capital letter at its beginning.
pub(crate) fn capitalized(name: &str) -> String {
    let (first, rest) = name.split_at(name.len().min(1));
    first.to_ascii_uppercase() + rest
}

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

impl Named for Source {
    fn names() -> Vec<&'static str> {
        Self::all().map(Self::name).collect()
    }

    fn parse(name: &str) -> Option<Self> {
        Self::parse(name)
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

/// Every entry of every code table, for the store's table `words`.
pub fn all_codes() -> impl Iterator<Item = Code> {
    let of_sources = Source::all().flat_map(|source| {
        let Description { entry, event_types, codes, .. } = source.description();
        let types = event_types.iter().map(|kind| kind.entry);
        [*entry].into_iter().chain(types).chain(codes.iter().flat_map(|table| table.iter().copied()))
    });
    FunnelStage::all().map(FunnelStage::entry).chain(of_sources)
}

/// The name of a number; `unknown` for a number that no table has, which no row holds.
pub fn name_of_code(number: i16) -> &'static str {
    all_codes().find(|code| code.number == number).map_or("unknown", |code| code.name)
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;

    #[test]
    fn each_code_has_a_number_of_its_own() {
        let mut seen = HashMap::new();
        for code in all_codes() {
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
            assert_eq!(Source::from_code(source.code()), Some(source));
            let Description { signature, handshake, collector_port, .. } = source.description();
            let settings = [signature.as_ref().map(|it| it.setting), handshake.as_ref().map(|it| it.setting)];
            let settings = settings.into_iter().flatten().chain([*collector_port]);
            for name in settings.map(|setting| setting.name).chain([source.name(), collector_port.default]) {
                assert!(names.insert(name), "{name} is another source's, too");
            }
        }
    }

    #[test]
    fn every_type_of_event_lies_in_a_stage_that_its_source_can_read() {
        for source in Source::all() {
            for kind in source.event_types() {
                assert!(source.description().engagement(kind.stage).is_some(), "{source} {}", kind.name());
            }
        }
    }
}
