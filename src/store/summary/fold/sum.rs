//! Decoding of deltas and their sum by hour.

use std::collections::{BTreeMap, BTreeSet};

use super::super::builder::SummaryBuilder;
use super::super::campaign_revenue::{CampaignRevenue, merge_campaigns};
use super::super::delta::Delta;
use super::super::earlier::DeltaV1;
use super::super::encoding::Encoded;
use super::super::hour_input::HourInput;
use crate::store::entity::summary_deltas;
use crate::store::error::StoreError;

/// Hours up to which deltas are folded as they are. Deltas of more hours are split by chunks first.
const DIRECT_HOURS: usize = 128;
/// Inputs of one hour that are merged without yielding to other tasks: all deltas may be of the present hour.
const INPUTS_MERGED: usize = 16;

/// Sum of deltas: summaries by hour, and the revenue of campaigns.
#[derive(Default)]
pub(super) struct HourSums {
    pub(super) hours: BTreeMap<i32, SummaryBuilder>,
    campaigns: Vec<CampaignRevenue>,
}

impl HourSums {
    fn add_v1(&mut self, delta: DeltaV1) {
        for (hour, summary) in &delta.hours {
            self.hours.entry(*hour).or_default().add(summary);
        }
        self.campaigns.extend(delta.campaigns);
    }

    fn add_inputs(&mut self, hour: i32, inputs: &[&HourInput]) {
        for input in inputs {
            self.campaigns.extend(input.sales.iter().map(CampaignRevenue::of));
        }
        self.hours.entry(hour).or_default().add_inputs(inputs);
    }

    /// Revenue of all campaigns, ascending by campaign id and currency.
    pub(super) fn take_campaigns(&mut self) -> Vec<CampaignRevenue> {
        merge_campaigns(std::mem::take(&mut self.campaigns))
    }
}

/// Decoded deltas: either summed up, or to be split.
pub(super) struct Decoded {
    pub(super) sums: HourSums,
    /// Deltas that are to be split by chunks. If there are any, `sums` is empty.
    pub(super) scattered: Vec<Delta>,
    /// Ids of deltas that cannot be decoded, with the reason.
    pub(super) corrupt: Vec<(i64, String)>,
}

/// Decodes deltas and sums them up by hour. Deltas of many hours are returned as they are, unless they are `of_chunks`
/// already. Runs on the caller's thread, whose allocator reuses the memory of the fold before, and yields to other
/// tasks between deltas.
pub(super) async fn decode_and_sum(
    deltas: Vec<summary_deltas::Model>,
    of_chunks: bool,
) -> Result<Decoded, StoreError> {
    let mut sums = HourSums::default();
    let (mut current, mut corrupt) = (Vec::new(), Vec::new());
    for delta in deltas {
        let summary_deltas::Model { id, currency, body, .. } = delta;
        let stored = Encoded { currency, body };
        let decoded = match Delta::decode(&stored) {
            Ok(Some(delta)) => {
                current.push(delta);
                Ok(())
            }
            Ok(None) => DeltaV1::decode(&stored).map(|delta| sums.add_v1(delta)),
            Err(error) => Err(error),
        };
        match decoded {
            Err(StoreError::Corrupt { reason, .. }) => corrupt.push((id, reason)),
            decoded => decoded?,
        }
        tokio::task::yield_now().await;
    }
    let hours: BTreeSet<i32> = current.iter().flat_map(Delta::hours).collect();
    if !of_chunks && hours.len() > DIRECT_HOURS && sums.hours.is_empty() {
        return Ok(Decoded { sums, scattered: current, corrupt });
    }
    for (hour, inputs) in Delta::by_hour(&current) {
        for inputs in inputs.chunks(INPUTS_MERGED) {
            sums.add_inputs(hour, inputs);
            tokio::task::yield_now().await;
        }
    }
    Ok(Decoded { sums, scattered: Vec::new(), corrupt })
}

#[cfg(test)]
mod tests {
    use super::super::super::hour_input::EventInput;
    use super::super::super::hour_input::tests::event;
    use super::*;

    fn row(id: i64, body: Vec<u8>) -> summary_deltas::Model {
        summary_deltas::Model { id, source: 1, events: 1, chunk: None, currency: 840, body }
    }

    fn delta(hours: std::ops::Range<i32>) -> Vec<u8> {
        let mut delta = Delta::default();
        for hour in hours {
            let sale = EventInput { campaign_id: Some("c"), ..event(7) };
            delta.push_hour(hour, &[&HourInput::of([sale].into_iter())]);
        }
        delta.encode().unwrap().body
    }

    #[tokio::test]
    async fn corrupt_deltas_are_named_and_all_others_are_summed_up() {
        let deltas =
            vec![row(1, delta(3..5)), row(2, vec![2, 9]), row(3, delta(4..5)), row(4, vec![9, 1, 2])];
        let mut decoded = decode_and_sum(deltas, false).await.unwrap();
        assert_eq!(decoded.corrupt.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [2, 4]);
        assert!(decoded.scattered.is_empty());
        let campaigns = decoded.sums.take_campaigns();
        assert_eq!((campaigns.len(), campaigns[0].transactions), (1, 3));
        let events: Vec<_> =
            decoded.sums.hours.into_iter().map(|(hour, builder)| (hour, builder.finish().events)).collect();
        assert_eq!(events, [(3, 1), (4, 2)]);
    }

    #[tokio::test]
    async fn deltas_of_many_hours_are_returned_to_be_split_unless_they_are_of_chunks() {
        let many = 0..DIRECT_HOURS as i32 + 1;
        let decoded = decode_and_sum(vec![row(1, delta(many.clone()))], false).await.unwrap();
        assert_eq!((decoded.scattered.len(), decoded.sums.hours.len()), (1, 0));
        let decoded = decode_and_sum(vec![row(1, delta(many))], true).await.unwrap();
        assert_eq!((decoded.scattered.len(), decoded.sums.hours.len()), (0, DIRECT_HOURS + 1));
    }
}
