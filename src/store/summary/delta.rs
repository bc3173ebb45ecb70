//! Deltas: the rows that one transaction added, by hour, until they are folded into summaries.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::campaign_revenue::{CampaignRevenue, merge_campaigns};
use super::earlier::{DELTA_V1, DeltaV1};
use super::encoding::{Encoded, assign_currencies, decode, encode_amounts};
use super::hour_input::{EventInput, HourInput};
use super::span::{HOUR, to_i32};
use super::summary::Summary;
use crate::store::error::StoreError;

/// Versions of a delta's encoding, for sales in one currency and in several; see [`super::earlier`] for the one before.
const VERSION: u8 = 2;
const SEVERAL_CURRENCIES: u8 = 3;

/// An event that summaries count.
pub trait Summarized {
    /// Time of the event, in microseconds since 1970.
    fn occurred_at(&self) -> i64;

    /// The columns that are counted.
    fn input(&self) -> EventInput<'_>;
}

/// Rows that one transaction added, by hour.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Delta {
    /// Hours since 1970, ascending. An hour can be there several times where an earlier version put several deltas
    /// together.
    hours: Vec<(i32, HourInput)>,
}

impl Delta {
    /// The delta of new rows of one source.
    pub fn of<E: Summarized>(events: &[&E]) -> Self {
        let mut events = events.to_vec();
        let hour = |event: &E| to_i32(event.occurred_at().div_euclid(HOUR));
        events.sort_by_key(|event| hour(event));
        let mut delta = Self::default();
        for part in events.chunk_by(|left, right| hour(left) == hour(right)) {
            let input = HourInput::of(part.iter().map(|event| event.input()));
            delta.hours.push((hour(part[0]), input));
        }
        delta
    }

    /// Decodes a stored delta; `None` if an earlier version wrote it, which cannot be split by hours.
    pub(super) fn decode(stored: &Encoded) -> Result<Option<Self>, StoreError> {
        let delta = match stored.body.first() {
            Some(&DELTA_V1) => return Ok(None),
            Some(&SEVERAL_CURRENCIES) => {
                let (mut delta, list): (Self, Vec<i16>) = decode(&stored.body, SEVERAL_CURRENCIES)?;
                assign_currencies(delta.sales_mut(), list)?;
                delta
            }
            _ => {
                let mut delta: Self = decode(&stored.body, VERSION)?;
                delta.sales_mut().for_each(|currency| *currency = stored.currency);
                delta
            }
        };
        if !delta.hours.iter().all(|(_, input)| input.is_valid()) {
            return Err(StoreError::corrupt("its dimension numbers do not match its events"));
        }
        Ok(Some(delta))
    }

    /// Encodes the delta for its row.
    pub fn encode(&self) -> Result<Encoded, StoreError> {
        let currencies =
            self.hours.iter().flat_map(|(_, input)| input.sales.iter().map(|sale| sale.currency));
        let size = self.hours.iter().map(|(_, input)| input.size()).sum();
        encode_amounts(self, currencies, (VERSION, SEVERAL_CURRENCIES), size)
    }

    /// The currency of each sale.
    fn sales_mut(&mut self) -> impl Iterator<Item = &mut i16> {
        self.hours.iter_mut().flat_map(|(_, input)| input.sales.iter_mut().map(|sale| &mut sale.currency))
    }

    /// Hours since 1970.
    pub(super) fn hours(&self) -> impl Iterator<Item = i32> {
        self.hours.iter().map(|(hour, _)| *hour)
    }

    /// The hours of several deltas, ascending, each with its inputs.
    pub(super) fn by_hour(deltas: &[Self]) -> Vec<(i32, Vec<&HourInput>)> {
        let hours = deltas.iter().flat_map(|delta| &delta.hours);
        group_by_hour(hours.map(|(hour, input)| (*hour, input)).collect())
    }

    /// Appends an hour with its inputs merged; returns their number of events.
    pub(super) fn push_hour(&mut self, hour: i32, inputs: &[&HourInput]) -> u64 {
        let input = HourInput::merge(inputs);
        let events = input.users.len() as u64;
        self.hours.push((hour, input));
        events
    }
}

/// Groups inputs by hour, ascending.
fn group_by_hour(mut inputs: Vec<(i32, &HourInput)>) -> Vec<(i32, Vec<&HourInput>)> {
    inputs.sort_by_key(|input| input.0);
    let same = inputs.chunk_by(|left, right| left.0 == right.0);
    same.filter_map(|same| Some((same.first()?.0, same.iter().map(|input| input.1).collect()))).collect()
}

/// A delta of any version, decoded for a reader.
#[derive(Debug)]
pub(super) enum DecodedDelta {
    Current(Delta),
    V1(DeltaV1),
}

/// One hour of a [`DecodedDelta`].
pub(super) enum DeltaHour<'d> {
    Input(&'d HourInput),
    Summary(&'d Summary),
}

impl DecodedDelta {
    /// Decodes a stored delta.
    pub(super) fn decode(stored: &Encoded) -> Result<Self, StoreError> {
        match Delta::decode(stored)? {
            Some(delta) => Ok(Self::Current(delta)),
            None => Ok(Self::V1(DeltaV1::decode(stored)?)),
        }
    }

    /// The hour of each entry, since 1970.
    pub(super) fn hours(&self) -> Box<dyn Iterator<Item = i32> + '_> {
        match self {
            Self::Current(delta) => Box::new(delta.hours()),
            Self::V1(delta) => Box::new(delta.hours.iter().map(|(hour, _)| *hour)),
        }
    }

    /// The entry at a position of [`DecodedDelta::hours`].
    pub(super) fn entry(&self, index: usize) -> DeltaHour<'_> {
        match self {
            Self::Current(delta) => DeltaHour::Input(&delta.hours[index].1),
            Self::V1(delta) => DeltaHour::Summary(&delta.hours[index].1),
        }
    }

    /// Merges deltas into fewer with the same sum: the inputs of each hour become one.
    pub(super) fn merge(deltas: &[Arc<Self>]) -> Vec<Arc<Self>> {
        let (mut inputs, mut merged) = (Vec::new(), Vec::new());
        for delta in deltas {
            match &**delta {
                Self::Current(delta) => inputs.extend(delta.hours.iter().map(|(hour, input)| (*hour, input))),
                Self::V1(_) => merged.push(delta.clone()),
            }
        }
        let hours = group_by_hour(inputs).into_iter().map(|(hour, inputs)| (hour, HourInput::merge(&inputs)));
        merged.push(Arc::new(Self::Current(Delta { hours: hours.collect() })));
        merged
    }

    /// Revenue of all campaigns of several deltas, ascending by campaign id and currency.
    pub(super) fn campaigns<'d>(deltas: impl IntoIterator<Item = &'d Arc<Self>>) -> Vec<CampaignRevenue> {
        let mut campaigns = Vec::new();
        for delta in deltas {
            match &**delta {
                Self::Current(delta) => {
                    let sales = delta.hours.iter().flat_map(|(_, input)| &input.sales);
                    campaigns.extend(sales.map(CampaignRevenue::of));
                }
                Self::V1(delta) => campaigns.extend_from_slice(&delta.campaigns),
            }
        }
        merge_campaigns(campaigns)
    }

    /// Approximate bytes in memory.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Current(delta) => delta.hours.iter().map(|(_, input)| input.size()).sum(),
            Self::V1(delta) => delta.hours.iter().map(|(_, summary)| summary.size()).sum(),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::builder::SummaryBuilder;
    use super::super::encoding::encode;
    use super::super::hour_input::tests::event;
    use super::*;

    /// The delta of version 1 of the events of [`first_hour`].
    const DELTA_V1_BODY: &str = "\
        0101020400000428000000180100000000000000020000000000000004000000000000000300240400180100000000000000\
        0200000000000000040000000000000004044368616404001801000000000000000200000000000000040000000000000005\
        0443686164084162c3a96368c3a90300100200000000000000040000000000000000010206016101a0cb980106016202c096\
        b1020201610202a0c21e7a7a01620404c0843d7a7a";
    /// The delta and the summary that version 0.1.0 encoded of [`first_hour`] and [`second_hour`].
    const DELTA_V2_BODY: &str = "\
        0202020000042800002001000000000000000200000000000000020000000000000004000000000000000300240404436861\
        64050443686164084162c3a96368c3a91801000000020001000000020301000000020301000000020303060162a0cb98017a\
        060162a0cb98017a060161a0cb98017a0401b817010a0111080300000000000000050024010e02d00f030604044368616406\
        01020304050001060161a0cb9801fa01";
    const SUMMARY_V3_BODY: &str = "\
        030501b817053201110020010000000000000002000000000000000300000000000000040000000000000004002405002001\
        00000000000000020000000000000003000000000000000400000000000000010e010008030000000000000002d00f010008\
        0300000000000000030601000803000000000000000001050128280443686164000020010000000000000002000000000000\
        00030000000000000004000000000000000001030120200443686164084162c3a96368c3a900100200000000000000040000\
        0000000000010206016102c096b10206016202c096b102";

    fn bytes(hex: &str) -> Vec<u8> {
        let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        (0..hex.len()).step_by(2).map(byte).collect()
    }

    /// A stored body of amounts in US dollars.
    fn dollars(hex: &str) -> Encoded {
        Encoded { currency: 840, body: bytes(hex) }
    }

    fn of(user: u64, campaign_id: Option<&'static str>) -> EventInput<'static> {
        EventInput { city: (user.is_multiple_of(2)).then_some("Abéché"), campaign_id, ..event(user) }
    }

    /// Four events, in hour 1.
    fn first_hour() -> HourInput {
        let events = [of(1, None), of(2, Some("b")), of(2, Some("b")), of(4, Some("a"))];
        HourInput::of(events.into_iter())
    }

    /// One event with all dimensions but a city, in hour 2.
    fn second_hour() -> HourInput {
        let full = EventInput {
            minute: 125,
            gender: Some(7),
            followers: Some(1_500),
            device: Some(3),
            percentage_watched: Some(-9),
            ..of(3, Some("a"))
        };
        HourInput::of([full].into_iter())
    }

    #[test]
    fn the_stored_bytes_of_deltas_and_summaries_stay_the_same() {
        let delta = Delta { hours: vec![(1, first_hour()), (2, second_hour())] };
        assert_eq!(delta.encode().unwrap(), dollars(DELTA_V2_BODY));
        let mut builder = SummaryBuilder::default();
        delta.hours.iter().for_each(|(_, input)| builder.add_input(input));
        let summary = builder.finish();
        assert_eq!(summary.encode().unwrap(), dollars(SUMMARY_V3_BODY));
        // And they are read.
        let stored = Summary::decode(&dollars(SUMMARY_V3_BODY)).unwrap();
        assert!(stored.agrees(&summary) && stored.countries == summary.countries, "{stored:?}");
        let read = Delta::decode(&dollars(DELTA_V2_BODY)).unwrap().unwrap();
        assert_eq!(read.hours().collect::<Vec<_>>(), [1, 2]);
        let mut builder = SummaryBuilder::default();
        read.hours.iter().for_each(|(_, input)| builder.add_input(input));
        assert!(builder.finish().agrees(&summary));
    }

    #[test]
    fn amounts_of_several_currencies_are_read_as_they_were_written() {
        let euro = |user, campaign| EventInput { currency: 978, ..of(user, Some(campaign)) };
        let input = HourInput::of([of(1, Some("a")), euro(2, "a"), of(3, None), euro(4, "b")].into_iter());
        let delta = Delta { hours: vec![(1, first_hour()), (2, input)] };
        let stored = delta.encode().unwrap();
        assert_eq!((stored.body[0], stored.currency), (SEVERAL_CURRENCIES, 0));
        let summary_of = |delta: &Delta| {
            let mut builder = SummaryBuilder::default();
            delta.hours.iter().for_each(|(_, input)| builder.add_input(input));
            builder.finish()
        };
        let summary = summary_of(&delta);
        let keys: Vec<_> = summary
            .campaigns
            .iter()
            .flatten()
            .map(|(key, sum)| (key.campaign_id.as_str(), key.currency, sum.count, sum.sum))
            .collect();
        let expected = [
            ("a", 840, 2, 2_500_000),
            ("a", 978, 1, 1_250_000),
            ("b", 840, 2, 2_500_000),
            ("b", 978, 1, 1_250_000),
        ];
        assert_eq!(keys, expected);
        let read = Delta::decode(&stored).unwrap().unwrap();
        assert!(summary_of(&read).agrees(&summary));
        let body = summary.encode().unwrap();
        assert_eq!(body.currency, 0);
        assert!(Summary::decode(&body).unwrap().agrees(&summary));
        let campaigns: Vec<_> = DecodedDelta::campaigns([&Arc::new(DecodedDelta::Current(read))])
            .iter()
            .map(|one| (one.campaign_id.clone(), one.currency, one.transactions, one.total()))
            .collect();
        assert_eq!(
            campaigns,
            expected.map(|(id, currency, count, sum)| (id.to_owned(), currency, count as i64, sum))
        );
    }

    #[test]
    fn a_body_without_a_currency_for_each_amount_is_corrupt() {
        let sales = HourInput::of([of(1, Some("a")), of(2, Some("b"))].into_iter());
        let delta = Delta { hours: vec![(1, sales)] };
        for list in [vec![840_i16], vec![840, 978, 978]] {
            let body = encode(&(&delta, list), SEVERAL_CURRENCIES, 64).unwrap();
            let refused = Delta::decode(&Encoded { currency: 0, body });
            assert!(matches!(refused, Err(StoreError::Corrupt { .. })), "{refused:?}");
        }
    }

    #[test]
    fn a_delta_of_version_1_counts_like_one_of_today() {
        let delta = Delta { hours: vec![(1, first_hour())] };
        let read = |stored: &Encoded| {
            let delta = Arc::new(DecodedDelta::decode(stored).unwrap());
            let mut builder = SummaryBuilder::default();
            match delta.entry(0) {
                DeltaHour::Input(input) => builder.add_input(input),
                DeltaHour::Summary(summary) => builder.add(summary),
            }
            let hours: Vec<i32> = delta.hours().collect();
            (hours, builder.finish(), DecodedDelta::campaigns([&delta]))
        };
        let now = read(&delta.encode().unwrap());
        let (hours, summary, campaigns) = &now;
        assert_eq!((&hours[..], summary.events, summary.users.count()), (&[1][..], 4, (3, false)));
        assert_eq!((summary.watch_time.count, summary.watch_time.sum), (4, 20));
        assert_eq!(format!("{:?}", summary.groups), "[(Age(18), 4, 3 users)]");
        assert_eq!(format!("{:?}", summary.countries), "[((\"Chad\", \"\"), 4, 3 users)]");
        assert_eq!(format!("{:?}", summary.cities), "[((\"Chad\", \"Abéché\"), 3, 2 users)]");
        let campaigns: Vec<_> =
            campaigns.iter().map(|one| (&*one.campaign_id, one.transactions, one.total())).collect();
        assert_eq!(campaigns, [("a", 1, 1_250_000), ("b", 2, 2_500_000)]);

        let before = read(&dollars(DELTA_V1_BODY));
        assert!(before.0 == now.0 && before.1.agrees(summary));
        let without_edges = |now: CampaignRevenue| CampaignRevenue {
            first_minute_units: 0,
            last_minute_units: 0,
            edge_transactions: 0,
            ..now
        };
        assert_eq!(before.2, now.2.iter().cloned().map(without_edges).collect::<Vec<_>>());
        let bounds = |(.., campaigns): &(Vec<i32>, Summary, Vec<CampaignRevenue>)| -> Vec<_> {
            let bound =
                |one: &CampaignRevenue| (one.transactions, one.total(), one.upper_bound(62, i64::MAX));
            campaigns.iter().map(bound).collect()
        };
        // Version 1 did not count the revenue of the first minute.
        assert_eq!(bounds(&before), [(1, 1_250_000, 1_250_000), (2, 2_500_000, 2_500_000)]);
        assert_eq!(bounds(&now), [(1, 1_250_000, 250_000), (2, 2_500_000, 500_000)]);
    }
}
