//! One value for each source, in place of lists that are matched by position.

use super::registry::Source;

/// One value for each source of the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BySource<T>(Box<[T]>);

impl<T> BySource<T> {
    /// Makes each source's value.
    pub fn new(make: impl FnMut(Source) -> T) -> Self {
        Self(Source::all().map(make).collect())
    }

    /// Makes each source's value, or returns the first error.
    ///
    /// # Errors
    ///
    /// If a value cannot be made.
    pub fn try_new<E>(make: impl FnMut(Source) -> Result<T, E>) -> Result<Self, E> {
        Source::all().map(make).collect::<Result<_, _>>().map(Self)
    }

    /// The source's value.
    pub fn of(&self, source: Source) -> &T {
        &self.0[source.index()]
    }

    /// The source's value, to be changed.
    pub fn of_mut(&mut self, source: Source) -> &mut T {
        &mut self.0[source.index()]
    }

    /// Each source with its value, in the order of [`Source::all`].
    pub fn iter(&self) -> impl Iterator<Item = (Source, &T)> {
        Source::all().zip(&self.0)
    }

    /// Each source with its value, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Source, &mut T)> {
        Source::all().zip(&mut self.0)
    }
}

impl<T> IntoIterator for BySource<T> {
    type Item = (Source, T);
    type IntoIter = std::iter::Zip<std::vec::IntoIter<Source>, std::vec::IntoIter<T>>;

    fn into_iter(self) -> Self::IntoIter {
        Source::all().collect::<Vec<_>>().into_iter().zip(self.0.into_vec())
    }
}

impl<T: Default> Default for BySource<T> {
    fn default() -> Self {
        Self::new(|_| T::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_source_has_the_value_that_was_made_for_it() {
        let mut names = BySource::new(|source| source.name().to_owned());
        for source in Source::all() {
            assert_eq!(names.of(source), source.name());
        }
        names.of_mut(Source::TIKTOK).push('!');
        for (source, name) in names {
            assert_eq!(name == source.name(), source != Source::TIKTOK, "{name}");
        }
    }
}
