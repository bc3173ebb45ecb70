//! Consecutive numbers as ranges: sequence numbers of a log, and frames of a writer with its running totals.

use crate::log::WriterMark;

/// Numbers as disjoint inclusive ranges in ascending order, none adjacent to the next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ranges(Vec<(u64, u64)>);

impl FromIterator<(u64, u64)> for Ranges {
    fn from_iter<T: IntoIterator<Item = (u64, u64)>>(ranges: T) -> Self {
        let mut all = Self::default();
        ranges.into_iter().for_each(|(first, last)| all.insert(first, last));
        all
    }
}

impl Ranges {
    /// The ranges.
    pub fn as_slice(&self) -> &[(u64, u64)] {
        &self.0
    }

    /// Adds the numbers from `first` to `last`.
    pub fn insert(&mut self, mut first: u64, mut last: u64) {
        let from = self.0.partition_point(|range| range.1.saturating_add(1) < first);
        let mut to = from;
        while let Some(range) = self.0.get(to).filter(|range| range.0 <= last.saturating_add(1)) {
            (first, last) = (first.min(range.0), last.max(range.1));
            to += 1;
        }
        self.0.splice(from..to, [(first, last)]);
    }

    /// Removes the numbers from `first` to `last`.
    pub fn remove(&mut self, first: u64, last: u64) {
        let from = self.0.partition_point(|range| range.1 < first);
        let mut to = from;
        let mut rest = Vec::new();
        while let Some(&(start, end)) = self.0.get(to).filter(|range| range.0 <= last) {
            if start < first {
                rest.push((start, first - 1));
            }
            if end > last {
                rest.push((last + 1, end));
            }
            to += 1;
        }
        self.0.splice(from..to, rest);
    }

    /// True if the number is in one of the ranges.
    pub fn contains(&self, number: u64) -> bool {
        let at = self.0.partition_point(|range| range.1 < number);
        self.0.get(at).is_some_and(|range| range.0 <= number)
    }

    /// Number of numbers.
    pub fn count(&self) -> u64 {
        self.0.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// The highest number; 0 if there is none.
    pub fn highest(&self) -> u64 {
        self.0.last().map_or(0, |range| range.1)
    }

    /// The numbers from `first` to `last` that are in none of the ranges.
    pub fn gaps(&self, first: u64, last: u64) -> Self {
        let mut gaps = Vec::new();
        let mut next = first;
        for &(start, end) in &self.0[self.0.partition_point(|range| range.1 < first)..] {
            if next > last || start > last {
                break;
            }
            if start > next {
                gaps.push((next, start - 1));
            }
            next = next.max(end.saturating_add(1));
        }
        if next <= last {
            gaps.push((next, last));
        }
        Self(gaps)
    }

    /// The numbers up to `edge`, and those above it.
    pub fn split(&self, edge: u64) -> (Self, Self) {
        let (mut low, mut high) = (self.clone(), self.clone());
        low.remove(edge.saturating_add(1), u64::MAX);
        high.remove(0, edge);
        (low, high)
    }

    /// The number at a position, counted from 0 in ascending order.
    pub fn nth(&self, mut position: u64) -> Option<u64> {
        for (first, last) in &self.0 {
            let length = last - first + 1;
            if position < length {
                return Some(first + position);
            }
            position -= length;
        }
        None
    }
}

/// Consecutive frames of one writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// The number of the first frame.
    pub first: u64,
    /// The number of the last frame.
    pub last: u64,
    /// Events of the writer before the first frame.
    pub before: u64,
    /// Events of the writer up to and with the last frame.
    pub total: u64,
}

/// Frames and their events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lost {
    /// Frames.
    pub frames: u64,
    /// Events in these frames.
    pub events: u64,
}

impl Lost {
    fn add(&mut self, frames: u64, events: u64) {
        self.frames += frames;
        self.events += events;
    }
}

/// Frames of one writer as disjoint runs in ascending order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Runs(Vec<Run>);

impl Runs {
    /// The runs.
    pub fn as_slice(&self) -> &[Run] {
        &self.0
    }

    /// Adds frames.
    pub fn add(&mut self, mut run: Run) {
        let from = self.0.partition_point(|known| known.last.saturating_add(1) < run.first);
        let mut to = from;
        while let Some(known) = self.0.get(to).filter(|known| known.first <= run.last.saturating_add(1)) {
            if known.first < run.first {
                (run.first, run.before) = (known.first, known.before);
            }
            if known.last > run.last {
                (run.last, run.total) = (known.last, known.total);
            }
            to += 1;
        }
        self.0.splice(from..to, [run]);
    }

    /// Adds the frames of other runs.
    pub fn extend(&mut self, others: &Self) {
        others.0.iter().for_each(|run| self.add(*run));
    }

    /// The highest frame.
    pub fn end(&self) -> WriterMark {
        self.0
            .last()
            .map_or_else(WriterMark::default, |run| WriterMark { number: run.last, total: run.total })
    }

    /// Number of events.
    pub fn events(&self) -> u64 {
        self.0.iter().map(|run| run.total.saturating_sub(run.before)).sum()
    }

    /// Number of frames from the first one on without a gap.
    pub fn prefix(&self) -> u64 {
        self.0.first().filter(|run| run.first == 1).map_or(0, |run| run.last)
    }

    /// True if the frame is in one of the runs.
    pub fn contains(&self, number: u64) -> bool {
        let at = self.0.partition_point(|run| run.last < number);
        self.0.get(at).is_some_and(|run| run.first <= number)
    }

    /// The frames up to `acked` that are in none of the runs.
    pub fn missing(&self, acked: WriterMark) -> Lost {
        let mut lost = Lost::default();
        let mut before = WriterMark::default();
        for run in &self.0 {
            if acked.number <= before.number {
                return lost;
            }
            let upto = (run.first - 1).min(acked.number);
            if upto > before.number {
                let total = if acked.number >= run.first { run.before } else { acked.total };
                lost.add(upto - before.number, total.saturating_sub(before.total));
            }
            before = WriterMark { number: run.last, total: run.total };
        }
        if acked.number > before.number {
            lost.add(acked.number - before.number, acked.total.saturating_sub(before.total));
        }
        lost
    }

    /// The last frame of the run that contains `acked` or begins right after it; `acked` itself if there is none.
    pub fn extend_acked(&self, acked: WriterMark) -> WriterMark {
        let at = self.0.partition_point(|run| run.last <= acked.number);
        let run = self.0.get(at).filter(|run| run.first <= acked.number.saturating_add(1));
        run.map_or(acked, |run| WriterMark { number: run.last, total: run.total })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn run(first: u64, last: u64) -> Run {
        Run { first, last, before: (first - 1) * 10, total: last * 10 }
    }

    #[test]
    fn missing_frames_below_an_acknowledged_one_are_sized_by_the_running_totals() {
        let mut runs = Runs::default();
        let acked = |number| WriterMark { number, total: number * 10 };
        assert_eq!(runs.missing(acked(4)), Lost { frames: 4, events: 40 });
        for (first, last) in [(3, 5), (9, 9), (6, 6)] {
            runs.add(run(first, last));
        }
        assert_eq!(runs.as_slice(), [run(3, 6), run(9, 9)]);
        assert_eq!(runs.missing(acked(0)), Lost::default());
        assert_eq!(runs.missing(acked(1)), Lost { frames: 1, events: 10 });
        assert_eq!(runs.missing(acked(6)), Lost { frames: 2, events: 20 });
        assert_eq!(runs.missing(acked(7)), Lost { frames: 3, events: 30 });
        assert_eq!(runs.missing(acked(12)), Lost { frames: 7, events: 70 });
        assert_eq!(runs.extend_acked(acked(1)), acked(1));
        assert_eq!(runs.extend_acked(acked(2)), acked(6));
        assert_eq!(runs.extend_acked(acked(9)), acked(9));
        assert_eq!((runs.prefix(), runs.end().number), (0, 9));
    }

    proptest! {
        #[test]
        fn ranges_and_runs_hold_the_same_numbers_as_a_set(steps in prop::collection::vec((any::<bool>(), 1..60_u64, 0..12_u64), 0..40)) {
            let (mut ranges, mut runs, mut set) = (Ranges::default(), Runs::default(), BTreeSet::new());
            for (insert, first, more) in steps {
                if insert {
                    ranges.insert(first, first + more);
                    set.extend(first..=first + more);
                } else {
                    ranges.remove(first, first + more);
                    (first..=first + more).for_each(|number| { set.remove(&number); });
                }
                runs = Runs::default();
                set.iter().rev().for_each(|number| runs.add(run(*number, *number)));
            }
            let held: Vec<u64> = ranges.as_slice().iter().flat_map(|(first, last)| *first..=*last).collect();
            prop_assert_eq!(&held, &set.iter().copied().collect::<Vec<_>>());
            prop_assert!(ranges.as_slice().windows(2).all(|pair| pair[0].1 + 1 < pair[1].0));
            let of_runs: Vec<_> = runs.as_slice().iter().map(|run| (run.first, run.last)).collect();
            prop_assert_eq!(&of_runs, ranges.as_slice());
            prop_assert_eq!(ranges.count(), set.len() as u64);
            let gaps: Vec<u64> =
                ranges.gaps(5, 70).as_slice().iter().flat_map(|(first, last)| *first..=*last).collect();
            prop_assert_eq!(gaps, (5..=70).filter(|number| !set.contains(number)).collect::<Vec<_>>());
            for position in 0..held.len() as u64 {
                prop_assert_eq!(ranges.nth(position), Some(held[position as usize]));
            }
            for number in 1..75 {
                prop_assert_eq!(ranges.contains(number), set.contains(&number));
                prop_assert_eq!(runs.contains(number), set.contains(&number));
                let missing = (1..=number).filter(|number| !set.contains(number)).count() as u64;
                let acked = WriterMark { number, total: number * 10 };
                prop_assert_eq!(runs.missing(acked), Lost { frames: missing, events: missing * 10 });
            }
        }
    }
}
