//! The sources, and what each is asked for. A new source is one new module and one line here.

use super::spec::{EventType, FunnelStage, SourceSpec};
use super::words::{Word, words};
use super::{facebook, tiktok};

/// Registers the sources: `Variant = code => "name", module;`.
macro_rules! sources {
    ($($variant:ident = $code:literal => $name:literal, $module:ident;)+) => {
        words! {
            /// Where events come from: an ad platform.
            Source { $($variant = $code => $name),+ }
        }

        impl Source {
            /// What the source's module declares.
            pub(super) fn spec(self) -> &'static SourceSpec {
                match self { $(Self::$variant => &$module::SPEC),+ }
            }
        }
    };
}

sources! {
    Facebook = 1 => "facebook", facebook;
    Tiktok = 2 => "tiktok", tiktok;
}

impl Source {
    /// The types of event that the source sends.
    pub fn event_types(self) -> &'static [EventType] {
        self.spec().event_types
    }

    /// The type of event that is written so.
    pub fn event_type(self, text: &str) -> Option<&'static EventType> {
        self.event_types().iter().find(|kind| kind.word.text == text)
    }

    /// The source of this number.
    pub fn from_code(code: i16) -> Option<Self> {
        Self::ALL.iter().copied().find(|source| source.code() == code)
    }

    /// Its place in [`Source::ALL`], for tables by source.
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// Every word of the contract, for the store's table of words.
pub fn all_words() -> impl Iterator<Item = Word> {
    let of_sources = Source::ALL.iter().flat_map(|source| {
        let spec = source.spec();
        let types = spec.event_types.iter().map(|kind| kind.word);
        types.chain(spec.words.iter().flat_map(|words| words.iter().copied()))
    });
    Source::WORDS.iter().chain(FunnelStage::WORDS).copied().chain(of_sources)
}

/// The word of a number; rows hold no number that has none.
pub fn word_of(code: i16) -> &'static str {
    all_words().find(|word| word.code == code).map_or("unknown", |word| word.text)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn each_word_has_a_number_of_its_own() {
        let mut seen = HashMap::new();
        for word in all_words() {
            let before = seen.insert(word.code, word.text);
            assert_eq!(before, None, "{} is {:?} and {}", word.code, before, word.text);
        }
    }
}
