//! Deltas as a reader keeps them, alone and in blocks, so that a report asks few of them whatever waits to be folded.
//!
//! A backfill leaves hundreds of deltas, each of hundreds of hours, and a report that looked at all of them would
//! take the longer the more there are. So deltas whose ids have the same upper bits make a block, of eight and of
//! 64. A block is summed up by spans, as they are asked for or before, once for all reports; so a range asks a
//! few spans of each block.
//!
//! A block is known by the ids and tags of its deltas: one more, or one that was folded, and it is another block.
//! So whatever a report's snapshot holds, it is told by blocks of that and no other.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher, Hasher};
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::body::{GrowingSummary, Summary};
use super::delta::{CampaignRevenue, Left, Part};
use super::span::Span;
use crate::store::error::StoreError;

/// Bits of ids that the deltas of a block differ in, of large blocks and of small ones.
const BITS: [u32; 2] = [6, 3];
/// The narrowest spans that are summed up before they are asked for.
const BEFOREHAND: i16 = 2;
/// Events that are added up by themselves, and not by the narrower spans.
const ONE_BY_ONE: usize = 8_192;
/// Bytes of a delta, with all that it is summed up to, for each of its own, about.
const SUMMED_UP: usize = 4;

/// A delta, as a reader knows it: its id, and its tag, for ids are given again after a failover.
pub(super) type DeltaKey = (i64, i64);

/// A summary, once it was made.
type Sum = Arc<OnceLock<Arc<Summary>>>;

/// Deltas that were not folded yet: one, or those of a block.
pub(super) struct Unfolded {
    deltas: Vec<Arc<Left>>,
    /// Hours, ascending, and where they are: the delta, and the place in it.
    hours: Vec<(i32, u32, u32)>,
    /// What was summed up, by places in `hours`.
    sums: Mutex<HashMap<(usize, usize), Sum>>,
    campaigns: OnceLock<Vec<CampaignRevenue>>,
}

impl Unfolded {
    /// What one transaction left.
    pub fn read(body: &[u8]) -> Result<Self, StoreError> {
        Ok(Self::of(vec![Arc::new(Left::read(body)?)]))
    }

    fn of(deltas: Vec<Arc<Left>>) -> Self {
        let mut hours: Vec<(i32, u32, u32)> = (0..)
            .zip(&deltas)
            .flat_map(|(number, delta)| (0..).zip(delta.hours()).map(move |(at, hour)| (hour, number, at)))
            .collect();
        hours.sort_unstable();
        Self { deltas, hours, sums: Mutex::default(), campaigns: OnceLock::new() }
    }

    /// Puts some together, each hour once.
    pub fn block(parts: &[Arc<Self>]) -> Self {
        let deltas: Vec<_> = parts.iter().flat_map(|part| &part.deltas).cloned().collect();
        Self::of(Left::together(&deltas))
    }

    /// Sums up what is asked for most, before it is.
    pub fn prepare(&self) {
        let hours = self.hours().flat_map(|hour| Span::hour(hour).ancestors());
        let spans: BTreeSet<Span> = hours.filter(|span| span.level >= BEFOREHAND).collect();
        for span in spans {
            self.get(span);
        }
    }

    /// Its hours, each once.
    pub fn hours(&self) -> impl Iterator<Item = i32> {
        self.hours
            .chunk_by(|left, right| left.0 == right.0)
            .filter_map(|same| same.first())
            .map(|hour| hour.0)
    }

    /// What a span's hours add up to, if there are any.
    pub fn get(&self, span: Span) -> Option<Arc<Summary>> {
        let before = |bound: i64| self.hours.partition_point(|hour| i64::from(hour.0) < bound);
        let range = before(span.first_hour())..before(span.end_hour());
        if range.is_empty() {
            return None;
        }
        let cell = {
            let mut sums = self.sums.lock().unwrap_or_else(PoisonError::into_inner);
            sums.entry((range.start, range.end)).or_default().clone()
        };
        Some(cell.get_or_init(|| Arc::new(self.sum(range))).clone())
    }

    fn sum(&self, range: Range<usize>) -> Summary {
        let hours = &self.hours[range];
        let mut growing = GrowingSummary::default();
        let (Some(first), Some(last)) = (hours.first(), hours.last()) else { return growing.finish() };
        let (mut events, mut count) = (Vec::new(), 0);
        let mut summed_up = Vec::new();
        for (_, delta, at) in hours {
            match self.deltas[*delta as usize].part(*at as usize) {
                Part::Events(part) => {
                    count += part.users.len();
                    events.push(part);
                }
                Part::SummedUp(summary) => summed_up.push(summary),
            }
        }
        // The narrowest one, so that each beneath it has fewer hours: a sum never waits for itself.
        let span = Span::holding(first.0, last.0);
        if span.level > BEFOREHAND && count > ONE_BY_ONE {
            span.beneath().filter_map(|span| self.get(span)).for_each(|part| growing.add(&part));
        } else {
            growing.add_all(&events);
            summed_up.into_iter().for_each(|summary| growing.add(summary));
        }
        growing.finish()
    }

    /// All campaigns' revenue, ascending by id.
    pub fn campaigns(&self) -> &[CampaignRevenue] {
        self.campaigns.get_or_init(|| Left::campaigns(&self.deltas))
    }

    /// Bytes that it takes in memory with all that it is summed up to, about.
    pub fn size(&self) -> usize {
        self.deltas.iter().map(|delta| delta.size()).sum::<usize>() * SUMMED_UP
    }
}

/// Deltas that make a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BlockPlan {
    /// By what the block is known.
    pub key: u64,
    pub deltas: Vec<DeltaKey>,
    /// The smaller blocks that it can be made of.
    pub smaller: Vec<BlockPlan>,
}

/// Groups of one source's deltas, ascending by id, that make blocks; `newest` is the newest delta of all. What the
/// newest ones will be grouped with is not there yet.
pub(super) fn groups(deltas: &[DeltaKey], newest: i64) -> Vec<BlockPlan> {
    grouped(deltas, newest, &BITS)
}

fn grouped(deltas: &[DeltaKey], newest: i64, bits: &[u32]) -> Vec<BlockPlan> {
    let Some((bits, smaller)) = bits.split_first() else { return Vec::new() };
    let mut groups = Vec::new();
    for deltas in deltas.chunk_by(|left, right| left.0 >> bits == right.0 >> bits) {
        let smaller = grouped(deltas, newest, smaller);
        let complete = deltas.first().is_some_and(|first| first.0 >> bits < newest >> bits);
        if complete && deltas.len() > 1 {
            groups.push(BlockPlan { key: key(deltas), deltas: deltas.to_vec(), smaller });
        } else {
            groups.extend(smaller);
        }
    }
    groups
}

fn key(deltas: &[DeltaKey]) -> u64 {
    let mut hasher = foldhash::fast::FixedState::default().build_hasher();
    for (id, tag) in deltas {
        hasher.write_i64(*id);
        hasher.write_i64(*tag);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::super::delta::Delta;
    use super::super::seen::{Events, Seen};
    use super::*;

    /// A few events of chance.
    fn events(chance: &mut u64) -> Events {
        let mut next = |below: u64| {
            *chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (*chance >> 33) % below
        };
        let seen: Vec<_> = (0..1 + next(12))
            .map(|_| Seen {
                user: next(5_000),
                event_type: 3,
                minute: 60,
                revenue: (next(3) == 0).then_some(1_250_000),
                age: (next(2) == 0).then_some(20 + next(40) as i16),
                gender: Some(next(2) as i16),
                followers: (next(2) == 0).then_some(next(1_000).cast_signed()),
                device: None,
                watch_time: Some(5),
                percentage_watched: None,
                country: (next(4) > 0).then_some("Chad"),
                city: Some(["Abéché", "Moundou", "Sarh"][next(3) as usize]),
                campaign_id: (next(2) == 0).then_some(["a", "b"][next(2) as usize]),
            })
            .collect();
        Events::of(seen.into_iter())
    }

    #[test]
    fn blocks_add_up_to_what_their_deltas_do_one_by_one() {
        let mut chance = 1;
        let (mut parts, mut truth) = (Vec::new(), Vec::new());
        for _ in 0..12 {
            let mut delta = Delta::default();
            for hour in 100..400 {
                let of_hour = events(&mut chance);
                delta.push(hour, &[&of_hour]);
                truth.push((hour, of_hour));
            }
            parts.push(Arc::new(Unfolded::read(&delta.encode().unwrap()).unwrap()));
        }
        let count: usize = truth.iter().map(|(_, events)| events.users.len()).sum();
        assert!(count > 2 * ONE_BY_ONE, "{count} events");
        let (small, alone) = parts.split_at(8);
        let small = Arc::new(Unfolded::block(small));
        let all: Vec<_> = alone.iter().chain([&small]).cloned().collect();
        let block = Unfolded::block(&all);
        assert_eq!(block.hours.len(), 300, "each hour is once in it");
        let hours = (100..400).flat_map(|hour| Span::hour(hour).ancestors().chain([Span::hour(hour)]));
        let spans: BTreeSet<Span> = hours.collect();
        for unfolded in [&block, &*small, &*parts[0]] {
            unfolded.prepare();
        }
        for span in spans {
            let mut expected = GrowingSummary::default();
            let within = truth
                .iter()
                .filter(|(hour, _)| (span.first_hour()..span.end_hour()).contains(&i64::from(*hour)));
            within.for_each(|(_, events)| expected.add_events(events));
            let told = block.get(span).unwrap();
            assert!(told.agrees(&expected.finish()), "{span:?}");
        }
        let of_all: Vec<_> = parts.iter().flat_map(|part| part.campaigns().to_vec()).collect();
        assert_eq!(block.campaigns(), super::super::delta::merge_campaigns(of_all));
    }

    #[test]
    fn deltas_are_grouped_once_what_follows_them_is_there() {
        let keys = |ids: std::ops::Range<i64>| ids.map(|id| (id, 7 * id)).collect::<Vec<_>>();
        let lengths =
            |groups: &[BlockPlan]| groups.iter().map(|group| group.deltas.len()).collect::<Vec<_>>();
        let some = groups(&keys(1..70), 69);
        assert_eq!(lengths(&some), [63]);
        assert_eq!(lengths(&some[0].smaller), [7, 8, 8, 8, 8, 8, 8, 8]);
        // One more changes nothing of what is before it.
        assert_eq!(groups(&keys(1..72), 71), some);
        assert_eq!(lengths(&groups(&keys(1..73), 72)), [63, 8]);
        // A delta that was committed late, or another one of the same id, is another block.
        let mut late = keys(1..70);
        late.remove(4);
        assert_ne!(groups(&late, 69)[0].key, some[0].key);
        let mut other = keys(1..70);
        other[4].1 += 1;
        assert_ne!(groups(&other, 69)[0].key, some[0].key);
        assert_eq!(groups(&other, 69)[0].smaller[1..], some[0].smaller[1..]);
        assert!(groups(&keys(64..65), 200).is_empty(), "a single one needs no block");
    }
}
