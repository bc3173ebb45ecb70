//! Spans of hours, and how a range is covered by few of them.
//!
//! A span of level n is 4^n hours, at a multiple of as many. Any range of hours is covered by at most six
//! spans of each level below the highest: 54 and a few of the highest, however long the range is.

use crate::event::MICROS_PER_MINUTE;

/// Microseconds of an hour.
pub(super) const HOUR: i64 = 60 * MICROS_PER_MINUTE;

/// The number of an hour, or of a minute, since 1970.
pub(super) fn whole(number: i64) -> i32 {
    // Instants of the contract are within 1970 to 2199: their minutes fit.
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// The highest level: 4^8 hours, seven and a half years.
pub(super) const HIGHEST: i16 = 8;

/// The level of a chunk, in which hours are folded together: 64 hours.
pub(super) const CHUNK: i16 = 3;

/// The chunk that an hour is in.
pub(super) fn chunk_of(hour: i32) -> i32 {
    hour >> (2 * CHUNK)
}

/// A span of hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Span {
    /// 0 to [`HIGHEST`].
    pub level: i16,
    /// How many spans of its level stand before it, since 1970.
    pub at: i32,
}

impl Span {
    /// One hour.
    pub const fn hour(at: i32) -> Self {
        Self { level: 0, at }
    }

    /// The narrowest one that holds two hours, or the widest if none does.
    pub fn holding(left: i32, right: i32) -> Self {
        let mut span = Self::hour(left);
        while !(span.first_hour()..span.end_hour()).contains(&i64::from(right))
            && let Some(around) = span.around()
        {
            span = around;
        }
        span
    }

    /// The span around it, one level up.
    pub fn around(self) -> Option<Self> {
        (self.level < HIGHEST).then(|| Self { level: self.level + 1, at: self.at >> 2 })
    }

    /// All that are around it, the nearest first.
    pub fn ancestors(self) -> impl Iterator<Item = Self> {
        std::iter::successors(self.around(), |span| span.around())
    }

    /// The four beneath it.
    pub fn beneath(self) -> impl Iterator<Item = Self> {
        (self.at * 4..self.at * 4 + 4).map(move |at| Self { level: self.level - 1, at })
    }

    /// Its first hour.
    pub const fn first_hour(self) -> i64 {
        (self.at as i64) << (2 * self.level)
    }

    /// The hour after its last.
    pub const fn end_hour(self) -> i64 {
        (self.at as i64 + 1) << (2 * self.level)
    }
}

/// The hours that events may be in: 1970 to 2199, and a little.
const ALL: std::ops::Range<i64> = 0..1 << 21;

/// The fewest spans that cover the hours from `from` up to `to` and no other.
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
        // Hours are within ALL, and so within 32 bits.
        spans.push(Span { level, at: i32::try_from(hour >> (2 * level)).unwrap_or(i32::MAX) });
        hour += 1 << (2 * level);
    }
    spans
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn everything_is_covered_by_a_few_spans() {
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
        fn the_narrowest_span_around_two_hours_holds_both(left in 0_i32..2_000_000, apart in 0_i32..60_000) {
            let (right, span) = (left + apart, Span::holding(left, left + apart));
            let holds = |span: Span, hour: i32| (span.first_hour()..span.end_hour()).contains(&i64::from(hour));
            prop_assert!(span.level == HIGHEST || (holds(span, left) && holds(span, right)));
            let beneath = |span: Span| span.beneath().any(|span| holds(span, left) && holds(span, right));
            prop_assert!(span.level == 0 || !beneath(span));
            prop_assert_eq!(Span::holding(right, left).level, span.level);
        }

        #[test]
        fn ancestors_are_around(hour in 0_i32..2_000_000) {
            for span in Span::hour(hour).ancestors() {
                prop_assert!(span.first_hour() <= hour.into() && i64::from(hour) < span.end_hour());
            }
        }
    }
}
