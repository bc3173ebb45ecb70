//! Spans of hours, and how few of them cover a range.
//!
//! A span of level n is 4^n hours, at a multiple of as many since 1970. At most six spans of each level below the
//! highest cover any range of hours: 48 and a few of the highest, however long the range is.

use std::ops::Range;

use crate::event::MICROS_PER_MINUTE;

/// Microseconds of an hour.
pub(super) const HOUR: i64 = 60 * MICROS_PER_MINUTE;

/// An hour or a minute since 1970 as the tables hold it.
pub fn to_i32(number: i64) -> i32 {
    // Times of events are within 1970 to 2199: their minutes fit.
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// The highest level: 4^8 hours, seven and a half years.
pub(super) const HIGHEST: i16 = 8;

/// Level of a chunk: 64 hours, which are folded together.
pub(super) const CHUNK_LEVEL: i16 = 3;

/// Number of the chunk of an hour.
pub(super) fn chunk_of(hour: i32) -> i32 {
    hour >> (2 * CHUNK_LEVEL)
}

/// A span of hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Span {
    /// 0, an hour, to [`HIGHEST`].
    pub(super) level: i16,
    /// Number of the span among those of its level, since 1970.
    pub(super) at: i32,
}

impl Span {
    /// One hour.
    pub(super) const fn hour(at: i32) -> Self {
        Self { level: 0, at }
    }

    /// The narrowest span that contains two hours, or the widest around `left` if none does.
    pub(super) fn containing(left: i32, right: i32) -> Self {
        let mut span = Self::hour(left);
        while !(span.first_hour()..span.end_hour()).contains(&i64::from(right))
            && let Some(parent) = span.parent()
        {
            span = parent;
        }
        span
    }

    /// The span around it, one level up.
    pub(super) fn parent(self) -> Option<Self> {
        (self.level < HIGHEST).then(|| Self { level: self.level + 1, at: self.at >> 2 })
    }

    /// All spans around it, the narrowest first.
    pub(super) fn ancestors(self) -> impl Iterator<Item = Self> {
        std::iter::successors(self.parent(), |span| span.parent())
    }

    /// The four spans in it, one level down.
    pub(super) fn children(self) -> impl Iterator<Item = Self> {
        (self.at * 4..self.at * 4 + 4).map(move |at| Self { level: self.level - 1, at })
    }

    /// Its first hour.
    pub(super) const fn first_hour(self) -> i64 {
        (self.at as i64) << (2 * self.level)
    }

    /// The hour after its last.
    pub(super) const fn end_hour(self) -> i64 {
        (self.at as i64 + 1) << (2 * self.level)
    }
}

/// Hours that events can be in: 1970 to 2199, and some more.
const ALL: Range<i64> = 0..1 << 21;

/// The fewest spans that cover the hours from `from` up to `to` and no other, ascending.
pub(super) fn cover(from: Option<i64>, to: Option<i64>) -> Vec<Span> {
    let from = from.unwrap_or(ALL.start).clamp(ALL.start, ALL.end);
    let to = to.unwrap_or(ALL.end).clamp(from, ALL.end);
    let mut spans = Vec::new();
    let mut hour = from;
    while hour < to {
        let mut level = 0;
        while level < HIGHEST {
            let width = 1_i64 << (2 * (level + 1));
            if hour % width != 0 || hour + width > to {
                break;
            }
            level += 1;
        }
        spans.push(Span { level, at: to_i32(hour >> (2 * level)) });
        hour += 1 << (2 * level);
    }
    spans
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn all_time_is_covered_by_at_most_32_spans() {
        let spans = cover(None, None);
        assert!(spans.len() <= 32 && spans.iter().all(|span| span.level == HIGHEST), "{}", spans.len());
    }

    proptest! {
        #[test]
        fn a_cover_is_exact_and_short(from in 400_000_i64..600_000, hours in 0_i64..200_000) {
            let spans = cover(Some(from), Some(from + hours));
            let mut next = from;
            for span in &spans {
                prop_assert_eq!(span.first_hour(), next);
                next = span.end_hour();
            }
            prop_assert_eq!(next, from + hours);
            prop_assert!(spans.len() <= 6 * 8 + 8, "{} spans", spans.len());
        }

        #[test]
        fn the_narrowest_span_of_two_hours_contains_both(left in 0_i32..2_000_000, apart in 0_i32..60_000) {
            let (right, span) = (left + apart, Span::containing(left, left + apart));
            let holds = |span: Span, hour: i32| (span.first_hour()..span.end_hour()).contains(&i64::from(hour));
            prop_assert!(span.level == HIGHEST || (holds(span, left) && holds(span, right)));
            let in_a_child = |span: Span| span.children().any(|span| holds(span, left) && holds(span, right));
            prop_assert!(span.level == 0 || !in_a_child(span));
            prop_assert_eq!(Span::containing(right, left).level, span.level);
        }

        #[test]
        fn each_ancestor_contains_the_hour(hour in 0_i32..2_000_000) {
            for span in Span::hour(hour).ancestors() {
                prop_assert!(span.first_hour() <= hour.into() && i64::from(hour) < span.end_hour());
            }
        }
    }
}
