//! One value for each source, in place of lists that are matched by position.

use std::fmt;
use std::sync::{Arc, OnceLock};

use super::MAX_DECLARED;
use super::registry::Source;

/// One value for each source of the registry. The value of a source that was declared later is made when it is first
/// asked for; clones share all values.
pub struct BySource<T>(Arc<Values<T>>);

struct Values<T> {
    slots: Box<[OnceLock<T>]>,
    make: Box<dyn Fn(Source) -> T + Send + Sync>,
}

impl<T> BySource<T> {
    /// Makes the value of each source that is known now, and keeps `make` for those that are declared later.
    pub fn new(make: impl Fn(Source) -> T + Send + Sync + 'static) -> Self {
        let slots = (0..Source::built_in().len() + MAX_DECLARED).map(|_| OnceLock::new()).collect();
        let all = Self(Arc::new(Values { slots, make: Box::new(make) }));
        for source in Source::all() {
            all.of(source);
        }
        all
    }

    /// The source's value.
    pub fn of(&self, source: Source) -> &T {
        self.0.slots[source.index()].get_or_init(|| (self.0.make)(source))
    }

    /// Each source that has a value, with it, in the order of [`Source::all`].
    pub fn iter(&self) -> impl Iterator<Item = (Source, &T)> {
        Source::all().zip(&self.0.slots).filter_map(|(source, slot)| Some((source, slot.get()?)))
    }
}

impl<T> Clone for BySource<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: fmt::Debug> fmt::Debug for BySource<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_source_has_the_value_that_was_made_for_it() {
        let names = BySource::new(|source| source.name().to_owned());
        assert!(names.iter().count() >= Source::built_in().len());
        let later = Source::declare("declared_later", "").unwrap();
        assert!(names.iter().all(|(source, _)| source != later), "not asked for yet");
        assert_eq!(names.of(later), "declared_later");
        let clone = names.clone();
        assert!(clone.iter().any(|(source, name)| source == later && name == "declared_later"));
        assert!(names.iter().all(|(source, name)| source.name() == name));
        assert!(std::ptr::eq(names.of(later), clone.of(later)));
    }
}
