//! What one transaction of rows adds.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use sea_orm::FromQueryResult;
use serde::{Deserialize, Serialize};

use super::body::{GrowingSummary, Summary, SummaryBefore};
use super::seen::{Events, Sale, Seen};
use super::span::{HOUR, whole};
use super::{decode, encode};
use crate::event::MICROS_PER_UNIT;
use crate::store::error::StoreError;
use crate::store::money::{HIGH_UNITS, total};
use crate::store::write::row::Row;

/// The version of the encoding of a [`Delta`]; the one before had an [`AddedBefore`].
const VERSION: u8 = 2;
const SUMMED_UP: u8 = 1;

/// What one transaction added, by hours since 1970: as it rests until it is folded.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Delta {
    /// Ascending; where a version before this one put several together, in the order of those, and the same hour
    /// again.
    hours: Vec<(i32, Events)>,
}

/// Delta of one transaction, as a reader keeps it.
#[derive(Debug)]
pub enum Left {
    Events(Delta),
    /// A version before this one summed up at once.
    SummedUp(Vec<(i32, Summary)>, Vec<CampaignRevenue>),
}

impl Left {
    /// What one transaction left.
    pub fn read(body: &[u8]) -> Result<Self, StoreError> {
        match Delta::decode(body)? {
            Some(delta) => Ok(Self::Events(delta)),
            None => {
                let added: AddedBefore = decode(body, SUMMED_UP)?;
                let hours = added.hours.into_iter().map(|(hour, summary)| Ok((hour, summary.whole()?)));
                Ok(Self::SummedUp(hours.collect::<Result<_, StoreError>>()?, added.campaigns))
            }
        }
    }

    /// The hour of each of its parts.
    pub fn hours(&self) -> Box<dyn Iterator<Item = i32> + '_> {
        match self {
            Self::Events(delta) => Box::new(delta.hours()),
            Self::SummedUp(hours, _) => Box::new(hours.iter().map(|(hour, _)| *hour)),
        }
    }

    /// One of its parts.
    pub(super) fn part(&self, part: usize) -> Part<'_> {
        match self {
            Self::Events(delta) => Part::Events(&delta.hours[part].1),
            Self::SummedUp(hours, _) => Part::SummedUp(&hours[part].1),
        }
    }

    /// The same as several, with fewer parts: each hour's events are put together.
    pub fn together(all: &[Arc<Self>]) -> Vec<Arc<Self>> {
        let (mut events, mut left) = (Vec::new(), Vec::new());
        for one in all {
            match &**one {
                Self::Events(delta) => events.extend(delta.hours.iter().map(|(hour, part)| (*hour, part))),
                Self::SummedUp(..) => left.push(one.clone()),
            }
        }
        let hours = by_hour(events).into_iter().map(|(hour, parts)| (hour, Events::merged(&parts)));
        left.push(Arc::new(Self::Events(Delta { hours: hours.collect() })));
        left
    }

    /// All campaigns' revenue, ascending by id.
    pub fn campaigns<'l>(all: impl IntoIterator<Item = &'l Arc<Self>>) -> Vec<CampaignRevenue> {
        let mut campaigns = Vec::new();
        for left in all {
            match &**left {
                Self::Events(delta) => {
                    let sales = delta.hours.iter().flat_map(|(_, events)| &events.sales);
                    campaigns.extend(sales.map(CampaignRevenue::of));
                }
                Self::SummedUp(_, of_all) => campaigns.extend_from_slice(of_all),
            }
        }
        merge_campaigns(campaigns)
    }

    /// Bytes that it takes in memory, about.
    pub fn size(&self) -> usize {
        match self {
            Self::Events(delta) => delta.hours.iter().map(|(_, events)| events.size()).sum(),
            Self::SummedUp(hours, _) => hours.iter().map(|(_, summary)| summary.size()).sum(),
        }
    }
}

/// Part of one transaction's delta that is of one hour.
pub(super) enum Part<'l> {
    Events(&'l Events),
    SummedUp(&'l Summary),
}

/// Parts of the same hour together, hours ascending.
fn by_hour(mut parts: Vec<(i32, &Events)>) -> Vec<(i32, Vec<&Events>)> {
    parts.sort_by_key(|part| part.0);
    let same = parts.chunk_by(|left, right| left.0 == right.0);
    same.filter_map(|same| Some((same.first()?.0, same.iter().map(|part| part.1).collect()))).collect()
}

/// What a version before this one summed up at once.
#[derive(Deserialize)]
struct AddedBefore {
    hours: Vec<(i32, SummaryBefore)>,
    campaigns: Vec<CampaignRevenue>,
}

/// What transactions added, while more is added.
#[derive(Default)]
pub struct Adding {
    pub hours: BTreeMap<i32, GrowingSummary>,
    campaigns: Vec<CampaignRevenue>,
}

impl Adding {
    /// Adds what one transaction left.
    pub fn add(&mut self, body: &[u8]) -> Result<(), StoreError> {
        if body.first() == Some(&SUMMED_UP) {
            let added: AddedBefore = decode(body, SUMMED_UP)?;
            // All of it or nothing.
            let hours = added.hours.into_iter().map(|(hour, summary)| Ok((hour, summary.whole()?)));
            for (hour, summary) in hours.collect::<Result<Vec<_>, StoreError>>()? {
                self.hours.entry(hour).or_default().add(&summary);
            }
            self.campaigns.extend(added.campaigns);
            return Ok(());
        }
        if let Some(delta) = Delta::decode(body)? {
            for (hour, parts) in Delta::by_hour(&[delta]) {
                self.add_hour(hour, &parts);
            }
        }
        Ok(())
    }

    /// Adds what was added to an hour: to put events together and add those costs far less than to add them one
    /// transaction after another.
    pub(super) fn add_hour(&mut self, hour: i32, parts: &[&Events]) {
        for events in parts {
            self.campaigns.extend(events.sales.iter().map(CampaignRevenue::of));
        }
        self.hours.entry(hour).or_default().add_all(parts);
    }

    pub fn campaigns(&mut self) -> Vec<CampaignRevenue> {
        merge_campaigns(std::mem::take(&mut self.campaigns))
    }
}

/// What a campaign earned: by one transaction, or over all time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, FromQueryResult)]
pub struct CampaignRevenue {
    /// The campaign.
    pub campaign_id: String,
    /// Events that made revenue.
    pub transactions: i64,
    /// Whole units of it, less than [`HIGH_UNITS`].
    pub units: i64,
    /// Millionths beside them, less than one unit.
    pub micros: i64,
    /// The first event's minute since 1970.
    pub first_minute: i32,
    /// The last one's.
    pub last_minute: i32,
    /// Whole units that those in the first minute made, each rounded down.
    #[serde(skip)]
    pub first_units: i64,
    /// The same of the last minute.
    #[serde(skip)]
    pub last_units: i64,
    /// Of how many transactions these two are known: where that is not all, they say nothing.
    #[serde(skip)]
    pub ends_of: i64,
    /// [`HIGH_UNITS`] units that do not fit into the units.
    #[serde(skip)]
    pub high: i64,
}

impl CampaignRevenue {
    /// What one sale is.
    fn of(sale: &Sale) -> Self {
        let units = sale.revenue / MICROS_PER_UNIT;
        Self {
            campaign_id: sale.campaign_id.to_string(),
            transactions: 1,
            units,
            micros: sale.revenue % MICROS_PER_UNIT,
            first_minute: sale.minute,
            last_minute: sale.minute,
            first_units: units,
            last_units: units,
            ends_of: 1,
            high: 0,
        }
    }

    /// The sum, in millionths.
    pub fn total(&self) -> i128 {
        total(0, self.units, self.micros) + i128::from(self.high) * total(0, HIGH_UNITS, 0)
    }

    /// The most that it can have earned in the minutes from `from` up to `to`.
    pub fn bound(&self, from: i64, to: i64) -> i128 {
        if self.ends_of != self.transactions {
            return self.total();
        }
        let before = if i64::from(self.first_minute) < from { self.first_units } else { 0 };
        let behind = if i64::from(self.last_minute) >= to { self.last_units } else { 0 };
        self.total() - total(0, before, 0) - total(0, behind, 0)
    }

    /// Adds to a campaign what it earned besides.
    pub fn merge(&mut self, other: &Self) {
        let known = self.ends_of == self.transactions && other.ends_of == other.transactions;
        self.ends_of = if known { self.ends_of + other.ends_of } else { 0 };
        self.first_units = match self.first_minute.cmp(&other.first_minute) {
            Ordering::Less => self.first_units,
            Ordering::Equal => self.first_units.saturating_add(other.first_units).min(HIGH_UNITS),
            Ordering::Greater => other.first_units,
        };
        self.last_units = match self.last_minute.cmp(&other.last_minute) {
            Ordering::Less => other.last_units,
            Ordering::Equal => self.last_units.saturating_add(other.last_units).min(HIGH_UNITS),
            Ordering::Greater => self.last_units,
        };
        self.transactions += other.transactions;
        let micros = self.micros + other.micros;
        let units = i128::from(self.units) + i128::from(other.units) + i128::from(micros / MICROS_PER_UNIT);
        // Both fit: of two numbers of 64 bits and little more.
        self.units = i64::try_from(units % i128::from(HIGH_UNITS)).unwrap_or(0);
        self.high += other.high + i64::try_from(units / i128::from(HIGH_UNITS)).unwrap_or(0);
        self.micros = micros % MICROS_PER_UNIT;
        self.first_minute = self.first_minute.min(other.first_minute);
        self.last_minute = self.last_minute.max(other.last_minute);
    }
}

/// Puts those of one campaign together; ascending by id.
pub fn merge_campaigns(mut campaigns: Vec<CampaignRevenue>) -> Vec<CampaignRevenue> {
    campaigns.sort_unstable_by(|left, right| left.campaign_id.cmp(&right.campaign_id));
    campaigns.dedup_by(|next, kept| {
        let same = next.campaign_id == kept.campaign_id;
        if same {
            kept.merge(next);
        }
        same
    });
    campaigns
}

impl Delta {
    /// What rows add that are all new, and of one source.
    pub fn of(rows: &[&Row<'_>]) -> Self {
        let mut rows = rows.to_vec();
        let hour = |row: &Row<'_>| whole(row.event.occurred_at.div_euclid(HOUR));
        rows.sort_by_key(|row| hour(row));
        let mut delta = Self::default();
        for part in rows.chunk_by(|left, right| hour(left) == hour(right)) {
            let events = Events::of(part.iter().map(|row| Seen::of(row)));
            delta.hours.push((hour(part[0]), events));
        }
        delta
    }

    /// What rests, if it can be split; what a version before this one left cannot.
    pub fn decode(body: &[u8]) -> Result<Option<Self>, StoreError> {
        if body.first() == Some(&SUMMED_UP) {
            return Ok(None);
        }
        let delta: Self = decode(body, VERSION)?;
        if !delta.hours.iter().all(|(_, events)| events.is_whole()) {
            return Err(StoreError::corrupt("a delta is not readable"));
        }
        Ok(Some(delta))
    }

    /// The hours of some, ascending, with what each of them added.
    pub(super) fn by_hour(deltas: &[Self]) -> Vec<(i32, Vec<&Events>)> {
        let hours = deltas.iter().flat_map(|delta| &delta.hours);
        by_hour(hours.map(|(hour, events)| (*hour, events)).collect())
    }

    /// Its hours.
    pub fn hours(&self) -> impl Iterator<Item = i32> {
        self.hours.iter().map(|(hour, _)| *hour)
    }

    /// Adds an hour behind those that it has, with what some added to it put together. Gives how many events that
    /// were.
    pub(super) fn push(&mut self, hour: i32, parts: &[&Events]) -> u64 {
        let events = Events::merged(parts);
        let count = events.users.len() as u64;
        self.hours.push((hour, events));
        count
    }

    /// As it rests until it is folded.
    pub fn encode(&self) -> Result<Vec<u8>, StoreError> {
        encode(self, VERSION, self.hours.iter().map(|(_, events)| events.size()).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(user: u64, campaign_id: Option<&'static str>) -> Seen<'static> {
        Seen {
            user,
            event_type: 3,
            minute: 61,
            revenue: Some(1_250_000),
            age: Some(20),
            gender: None,
            followers: None,
            device: None,
            watch_time: Some(5),
            percentage_watched: None,
            country: Some("Chad"),
            city: (user.is_multiple_of(2)).then_some("Abéché"),
            campaign_id,
        }
    }

    const SUMMED_UP_BEFORE: &str = "\
        0101020400000428000000180100000000000000020000000000000004000000000000000300240400180100000000000000\
        0200000000000000040000000000000004044368616404001801000000000000000200000000000000040000000000000005\
        0443686164084162c3a96368c3a90300100200000000000000040000000000000000010206016101a0cb980106016202c096\
        b1020201610202a0c21e7a7a01620404c0843d7a7a";

    fn bytes(hex: &str) -> Vec<u8> {
        let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        (0..hex.len()).step_by(2).map(byte).collect()
    }

    #[test]
    fn what_a_version_before_summed_up_is_read_like_what_is_left_now() {
        let events = [seen(1, None), seen(2, Some("b")), seen(2, Some("b")), seen(4, Some("a"))];
        let delta = Delta { hours: vec![(1, Events::of(events.into_iter()))] };
        let read = |body: &[u8]| {
            let left = Arc::new(Left::read(body).unwrap());
            let mut growing = GrowingSummary::default();
            match left.part(0) {
                Part::Events(events) => growing.add_events(events),
                Part::SummedUp(summary) => growing.add(summary),
            }
            let hours: Vec<i32> = left.hours().collect();
            (hours, growing.finish(), Left::campaigns([&left]))
        };
        let now = read(&delta.encode().unwrap());
        let (hours, summary, campaigns) = &now;
        assert_eq!((&hours[..], summary.events, summary.users.count()), (&[1][..], 4, (3, false)));
        assert_eq!((summary.watch_time.count, summary.watch_time.sum), (4, 20));
        let groups: Vec<_> =
            summary.groups.iter().map(|(group, events, users)| (group, events, users)).collect();
        assert_eq!(format!("{groups:?}"), "[(Age(18), 4, 3 users)]");
        assert_eq!(format!("{:?}", summary.countries), "[((\"Chad\", \"\"), 4, 3 users)]");
        assert_eq!(format!("{:?}", summary.cities), "[((\"Chad\", \"Abéché\"), 3, 2 users)]");
        let campaigns: Vec<_> =
            campaigns.iter().map(|one| (&*one.campaign_id, one.transactions, one.total())).collect();
        assert_eq!(campaigns, [("a", 1, 1_250_000), ("b", 2, 2_500_000)]);
        // As that version left it.
        let before = read(&bytes(SUMMED_UP_BEFORE));
        assert!(before.0 == now.0 && before.1.agrees(summary));
        let of_before =
            |now: CampaignRevenue| CampaignRevenue { first_units: 0, last_units: 0, ends_of: 0, ..now };
        assert_eq!(before.2, now.2.iter().cloned().map(of_before).collect::<Vec<_>>());
        let all = |(.., campaigns): &(Vec<i32>, Summary, Vec<CampaignRevenue>)| -> Vec<_> {
            let earned = |one: &CampaignRevenue| (one.transactions, one.total(), one.bound(62, i64::MAX));
            campaigns.iter().map(earned).collect()
        };
        // What its first minute earned is not known of that version.
        assert_eq!(all(&before), [(1, 1_250_000, 1_250_000), (2, 2_500_000, 2_500_000)]);
        assert_eq!(all(&now), [(1, 1_250_000, 250_000), (2, 2_500_000, 500_000)]);
    }

    #[test]
    fn what_lies_beside_a_range_lowers_what_can_be_earned_within() {
        let sale = |minute, revenue| {
            CampaignRevenue::of(&Sale { event_type: 3, campaign_id: "c".into(), revenue, minute })
        };
        // In whatever order they come: two sales in the first minute, one within, one in the last.
        let sales = [sale(5, 2_900_000), sale(9, 50_000_000), sale(5, 1_000_000), sale(7, 4_000_000)];
        for first in 0..4 {
            let mut campaign = sales[first].clone();
            (1..4).for_each(|next| campaign.merge(&sales[(first + next) % 4]));
            let bound = |from, to| campaign.bound(from, to);
            assert_eq!(bound(5, 10), 57_900_000, "all of it");
            assert_eq!(bound(6, 10), 54_900_000, "without whole units of the first minute");
            assert_eq!(bound(5, 9), 7_900_000, "without the last");
            assert_eq!(bound(6, 9), 4_900_000, "what is within, and less than a unit a sale beside");
            // One sale of which only the sum is known.
            campaign.merge(&CampaignRevenue { ends_of: 0, ..sale(1, 1_000_000) });
            assert_eq!(campaign.bound(6, 9), 58_900_000);
        }
    }
}
