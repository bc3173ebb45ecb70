//! The sources that a collector serves.

use std::sync::LazyLock;

use crate::config::Config;
use crate::event::{BySource, Source};

/// The sources that a collector serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// These.
    Only(Vec<Source>),
    /// Every built-in source, and every other one that the log has a topic for.
    All,
    /// Every source that the log has a topic for, except built-in ones: another collector of the process serves these.
    Declared,
}

impl Selection {
    /// The source, if there is one alone.
    pub fn single(&self) -> Option<Source> {
        match self {
            Self::Only(sources) if sources.len() == 1 => sources.first().copied(),
            _ => None,
        }
    }

    /// Name of the collector in logs and to the servers that it connects to.
    pub fn name(&self) -> &'static str {
        static NAMES: LazyLock<BySource<String>> =
            LazyLock::new(|| BySource::new(|source| format!("collector-{source}")));
        self.single().map_or("collector", |source| NAMES.of(source).as_str())
    }

    /// Port of the collector where `PORT` does not say another.
    pub fn port(&self, config: &Config) -> u16 {
        self.single().map_or(config.ports.collector, |source| config.sources.of(source).collector_port)
    }

    /// The sources to begin with.
    pub(super) fn sources(&self) -> Vec<Source> {
        match self {
            Self::Only(sources) => sources.clone(),
            Self::All => Source::built_in().collect(),
            Self::Declared => Vec::new(),
        }
    }

    /// True if a source that the log has a topic for is to be collected.
    pub(super) fn wants(&self, source: Source) -> bool {
        match self {
            Self::Only(sources) => sources.contains(&source),
            Self::All => true,
            Self::Declared => !source.is_built_in(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_of_one_source_has_its_name() {
        let mut sources = Source::built_in();
        let (first, second) = (sources.next().unwrap(), sources.next().unwrap());
        assert_eq!(Selection::Only(vec![first]).name(), format!("collector-{first}"));
        for several in [Selection::Only(vec![first, second]), Selection::All, Selection::Declared] {
            assert_eq!((several.name(), several.single()), ("collector", None));
        }
        assert!(Selection::All.wants(first) && !Selection::Declared.wants(first));
    }
}
