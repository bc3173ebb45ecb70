//! Sets of frame numbers, which are mostly without gaps.

use std::collections::BTreeMap;
use std::ops::Bound;

/// A set of numbers, stored as runs without gaps: first → last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Runs(BTreeMap<u64, u64>);

impl FromIterator<u64> for Runs {
    fn from_iter<T: IntoIterator<Item = u64>>(numbers: T) -> Self {
        let mut runs = Self::default();
        numbers.into_iter().for_each(|number| runs.add(number, number));
        runs
    }
}

impl Runs {
    /// Adds the numbers from `first` to `last`.
    pub fn add(&mut self, mut first: u64, mut last: u64) {
        let next = last.saturating_add(1);
        while let Some((&from, &to)) = self.0.range(..=next).next_back()
            && to.saturating_add(1) >= first
        {
            first = first.min(from);
            last = last.max(to);
            self.0.remove(&from);
        }
        self.0.insert(first, last);
    }

    /// True if the set has the number.
    pub fn contains(&self, number: u64) -> bool {
        self.0.range(..=number).next_back().is_some_and(|(_, last)| *last >= number)
    }

    /// Size of the set.
    pub fn len(&self) -> u64 {
        self.0.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// True if the set is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The highest number.
    pub fn last(&self) -> Option<u64> {
        self.0.last_key_value().map(|(_, last)| *last)
    }

    /// Numbers of `self` that are not in `other`.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        let mut left = Self::default();
        for (&first, &last) in &self.0 {
            let mut from = first;
            let before = other.0.range(..=first).next_back();
            for (&start, &end) in
                before.into_iter().chain(other.0.range((Bound::Excluded(first), Bound::Included(last))))
            {
                if start > from {
                    left.add(from, start - 1);
                }
                from = from.max(end.saturating_add(1));
            }
            if from <= last {
                left.add(from, last);
            }
        }
        left
    }

    /// The runs, first and last number each, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        self.0.iter().map(|(first, last)| (*first, *last))
    }

    /// Number of runs.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn runs_behave_as_sets(pieces in proptest::collection::vec((0u64..60, 0u64..6), 0..20),
                         others in proptest::collection::vec((0u64..60, 0u64..6), 0..20)) {
            let build = |pieces: &[(u64, u64)]| {
                let (mut runs, mut set) = (Runs::default(), std::collections::BTreeSet::new());
                for (first, more) in pieces {
                    runs.add(*first, first + more);
                    set.extend(*first..=first + more);
                }
                (runs, set)
            };
            let ((runs, set), (other, others)) = (build(&pieces), build(&others));
            let left = runs.without(&other);
            let expected: std::collections::BTreeSet<u64> = set.difference(&others).copied().collect();
            prop_assert_eq!(runs.len(), set.len() as u64);
            prop_assert_eq!(left.len(), expected.len() as u64);
            for number in 0..70 {
                prop_assert_eq!(runs.contains(number), set.contains(&number));
                prop_assert_eq!(left.contains(number), expected.contains(&number));
            }
            let apart = runs.0.iter().zip(runs.0.iter().skip(1)).all(|((_, last), (first, _))| last + 1 < *first);
            prop_assert!(apart, "{:?}", runs);
        }
    }
}
