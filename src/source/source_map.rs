//! Values of the few sources that have one, such as those of one request.

use super::registry::Source;

/// Values of the sources that have one, in the order in which they came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceMap<T>(Vec<(Source, T)>);

impl<T> SourceMap<T> {
    /// The value of a source, made where it is missing.
    pub fn of_mut(&mut self, source: Source) -> &mut T
    where
        T: Default,
    {
        // A request has events of few sources.
        let at = self.0.iter().position(|(known, _)| *known == source).unwrap_or_else(|| {
            self.0.push((source, T::default()));
            self.0.len() - 1
        });
        &mut self.0[at].1
    }

    /// The value of a source, if it has one.
    pub fn get(&self, source: Source) -> Option<&T> {
        self.0.iter().find(|(known, _)| *known == source).map(|(_, value)| value)
    }

    /// Each source that has a value, with it.
    pub fn iter(&self) -> impl Iterator<Item = (Source, &T)> {
        self.0.iter().map(|(source, value)| (*source, value))
    }
}

impl<T> IntoIterator for SourceMap<T> {
    type Item = (Source, T);
    type IntoIter = std::vec::IntoIter<(Source, T)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<T> Default for SourceMap<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_has_a_value_from_its_first_use() {
        let mut counts = SourceMap::<u32>::default();
        for source in Source::built_in().chain(Source::built_in().rev()) {
            *counts.of_mut(source) += 1;
        }
        assert!(Source::built_in().all(|source| counts.get(source) == Some(&2)));
        assert_eq!(counts.iter().count(), Source::built_in().len());
        let later = Source::declare("map_later", "").unwrap();
        assert_eq!(counts.get(later), None);
        *counts.of_mut(later) = 7;
        assert_eq!(counts.into_iter().last(), Some((later, 7)));
    }
}
