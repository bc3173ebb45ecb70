//! One value for each source, in place of lists that are matched by position.

use super::source::Source;

/// One value for each source that this system knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BySource<T>(Box<[T]>);

impl<T> BySource<T> {
    /// Makes each source's value.
    pub fn new(make: impl FnMut(Source) -> T) -> Self {
        Self(Source::ALL.iter().copied().map(make).collect())
    }

    /// The source's value.
    pub fn of(&self, source: Source) -> &T {
        &self.0[source.index()]
    }

    /// The source's value, to be changed.
    pub fn of_mut(&mut self, source: Source) -> &mut T {
        &mut self.0[source.index()]
    }

    /// Each source with its value, in the order of [`Source::ALL`].
    pub fn iter(&self) -> impl Iterator<Item = (Source, &T)> {
        Source::ALL.iter().copied().zip(&self.0)
    }
}

impl<T> IntoIterator for BySource<T> {
    type Item = (Source, T);
    type IntoIter =
        std::iter::Zip<std::iter::Copied<std::slice::Iter<'static, Source>>, std::vec::IntoIter<T>>;

    fn into_iter(self) -> Self::IntoIter {
        Source::ALL.iter().copied().zip(self.0.into_vec())
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
        let mut names = BySource::new(|source| source.as_str().to_owned());
        for &source in Source::ALL {
            assert_eq!(names.of(source), source.as_str());
        }
        names.of_mut(Source::Tiktok).push('!');
        let all: Vec<_> = names.into_iter().collect();
        assert_eq!(all, [(Source::Facebook, "facebook".to_owned()), (Source::Tiktok, "tiktok!".to_owned())]);
    }
}
