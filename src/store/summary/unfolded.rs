//! Deltas that are not folded yet, as a reader caches them: one, or those of a block, with sums by span.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::builder::SummaryBuilder;
use super::campaign_revenue::CampaignRevenue;
use super::delta::{DecodedDelta, DeltaHour};
use super::encoding::Encoded;
use super::span::Span;
use super::summary::Summary;
use crate::store::error::StoreError;

/// Level of the narrowest spans whose sums are computed before a report needs them.
const PREPARED_LEVEL: i16 = 2;
/// Events up to which a sum is computed from the events, not from the sums of narrower spans.
const DIRECT_EVENTS: usize = 8_192;
/// Approximate bytes in memory, sums included, per byte of the deltas.
const SIZE_WITH_SUMS: usize = 4;

/// A sum, once it is computed.
type LazySum = Arc<OnceLock<Arc<Summary>>>;

/// One hour of one delta.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct HourEntry {
    hour: i32,
    delta: u32,
    /// Position in [`DecodedDelta::hours`].
    index: u32,
}

/// Deltas that are not folded yet: one, or those of a block.
pub(super) struct UnfoldedDeltas {
    deltas: Vec<Arc<DecodedDelta>>,
    /// Ascending.
    entries: Vec<HourEntry>,
    /// Sums of ranges of `entries`.
    sums: Mutex<HashMap<(usize, usize), LazySum>>,
    campaigns: OnceLock<Vec<CampaignRevenue>>,
}

impl UnfoldedDeltas {
    /// Decodes one delta.
    pub(super) fn decode(stored: &Encoded) -> Result<Self, StoreError> {
        Ok(Self::of(vec![Arc::new(DecodedDelta::decode(stored)?)]))
    }

    fn of(deltas: Vec<Arc<DecodedDelta>>) -> Self {
        let mut entries: Vec<HourEntry> = (0..)
            .zip(&deltas)
            .flat_map(|(delta, decoded)| {
                (0..).zip(decoded.hours()).map(move |(index, hour)| HourEntry { hour, delta, index })
            })
            .collect();
        entries.sort_unstable();
        Self { deltas, entries, sums: Mutex::default(), campaigns: OnceLock::new() }
    }

    /// Merges deltas and smaller blocks into a block, in which each hour is once.
    pub(super) fn block(parts: &[Arc<Self>]) -> Self {
        let deltas: Vec<_> = parts.iter().flat_map(|part| &part.deltas).cloned().collect();
        Self::of(DecodedDelta::merge(&deltas))
    }

    /// Computes the sums that reports need most.
    pub(super) fn prepare(&self) {
        let spans = self.hours().flat_map(|hour| Span::hour(hour).ancestors());
        let spans: BTreeSet<Span> = spans.filter(|span| span.level >= PREPARED_LEVEL).collect();
        for span in spans {
            self.sum(span);
        }
    }

    /// Distinct hours since 1970, ascending.
    pub(super) fn hours(&self) -> impl Iterator<Item = i32> {
        self.entries
            .chunk_by(|left, right| left.hour == right.hour)
            .filter_map(|same| same.first())
            .map(|entry| entry.hour)
    }

    /// Sum of a span; `None` if the deltas have none of its hours.
    pub(super) fn sum(&self, span: Span) -> Option<Arc<Summary>> {
        let first_not_before =
            |bound: i64| self.entries.partition_point(|entry| i64::from(entry.hour) < bound);
        let range = first_not_before(span.first_hour())..first_not_before(span.end_hour());
        if range.is_empty() {
            return None;
        }
        let cell = {
            let mut sums = self.sums.lock().unwrap_or_else(PoisonError::into_inner);
            sums.entry((range.start, range.end)).or_default().clone()
        };
        Some(cell.get_or_init(|| Arc::new(self.compute(range))).clone())
    }

    fn compute(&self, range: Range<usize>) -> Summary {
        let entries = &self.entries[range];
        let mut builder = SummaryBuilder::default();
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return builder.finish() };
        let (mut inputs, mut summaries, mut events) = (Vec::new(), Vec::new(), 0);
        for HourEntry { delta, index, .. } in entries {
            match self.deltas[*delta as usize].entry(*index as usize) {
                DeltaHour::Input(input) => {
                    events += input.users.len();
                    inputs.push(input);
                }
                DeltaHour::Summary(summary) => summaries.push(summary),
            }
        }
        // The narrowest span of these hours: each of its children has fewer of them, so that no sum waits for itself.
        let span = Span::containing(first.hour, last.hour);
        if span.level > PREPARED_LEVEL && events > DIRECT_EVENTS {
            span.children().filter_map(|child| self.sum(child)).for_each(|sum| builder.add(&sum));
        } else {
            builder.add_inputs(&inputs);
            summaries.into_iter().for_each(|summary| builder.add(summary));
        }
        builder.finish()
    }

    /// Revenue of all campaigns, ascending by campaign id and currency.
    pub(super) fn campaigns(&self) -> &[CampaignRevenue] {
        self.campaigns.get_or_init(|| DecodedDelta::campaigns(&self.deltas))
    }

    /// Approximate bytes in memory, with all sums.
    pub(super) fn size(&self) -> usize {
        self.deltas.iter().map(|delta| delta.size()).sum::<usize>() * SIZE_WITH_SUMS
    }
}

#[cfg(test)]
mod tests {
    use super::super::campaign_revenue::merge_campaigns;
    use super::super::delta::Delta;
    use super::super::hour_input::{EventInput, HourInput};
    use super::*;

    /// Up to 12 random events.
    fn random_input(random: &mut u64) -> HourInput {
        let mut next = |below: u64| {
            *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (*random >> 33) % below
        };
        let events: Vec<_> = (0..1 + next(12))
            .map(|_| EventInput {
                user: next(5_000),
                event_type: 3,
                minute: 60,
                revenue: (next(3) == 0).then_some(1_250_000),
                currency: [840, 978][next(2) as usize],
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
        HourInput::of(events.into_iter())
    }

    #[test]
    fn a_block_has_the_sums_of_its_deltas() {
        let mut random = 1;
        let (mut parts, mut truth) = (Vec::new(), Vec::new());
        for _ in 0..12 {
            let mut delta = Delta::default();
            for hour in 100..400 {
                let input = random_input(&mut random);
                delta.push_hour(hour, &[&input]);
                truth.push((hour, input));
            }
            parts.push(Arc::new(UnfoldedDeltas::decode(&delta.encode().unwrap()).unwrap()));
        }
        let count: usize = truth.iter().map(|(_, input)| input.users.len()).sum();
        assert!(count > 2 * DIRECT_EVENTS, "{count} events");
        let (small, alone) = parts.split_at(8);
        let small = Arc::new(UnfoldedDeltas::block(small));
        let all: Vec<_> = alone.iter().chain([&small]).cloned().collect();
        let block = UnfoldedDeltas::block(&all);
        assert_eq!(block.entries.len(), 300, "each hour is once in it");
        let hours = (100..400).flat_map(|hour| Span::hour(hour).ancestors().chain([Span::hour(hour)]));
        let spans: BTreeSet<Span> = hours.collect();
        for unfolded in [&block, &*small, &*parts[0]] {
            unfolded.prepare();
        }
        for span in spans {
            let mut expected = SummaryBuilder::default();
            let within = truth
                .iter()
                .filter(|(hour, _)| (span.first_hour()..span.end_hour()).contains(&i64::from(*hour)));
            within.for_each(|(_, input)| expected.add_input(input));
            let found = block.sum(span).unwrap();
            assert!(found.agrees(&expected.finish()), "{span:?}");
        }
        let of_all: Vec<_> = parts.iter().flat_map(|part| part.campaigns().to_vec()).collect();
        assert_eq!(block.campaigns(), merge_campaigns(of_all));
    }
}
