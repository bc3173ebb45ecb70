//! What a span of hours of one source adds up to.

use std::collections::HashMap;

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use super::Map;
use super::group::{Group, Sum};
use super::seen::Events;
use super::users::{GrowingUsers, Users};
use super::{decode, encode};
use crate::store::error::StoreError;

/// The most countries, and the most cities, that a summary holds: those with the most events stay.
const MAX_PLACES: usize = 1_000;
/// The most campaigns that a summary holds; with more it holds none.
const MAX_CAMPAIGNS: usize = 1_000;

/// One type of event of one campaign.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CampaignKey {
    /// The type's number.
    pub event_type: i16,
    /// The campaign.
    pub campaign_id: CompactString,
}

/// A group, its events and its users.
pub type OfGroup = (Group, u64, Users);

/// What a span of hours adds up to.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Summary {
    /// Events.
    pub events: u64,
    /// Followers of the users, over events.
    pub followers: Sum,
    /// Billionths of seconds.
    pub watch_time: Sum,
    /// Billionths of percent.
    pub percentage_watched: Sum,
    /// All users.
    pub users: Users,
    /// Events and users by group, ascending.
    pub groups: Vec<OfGroup>,
    /// Whether cities, or countries, were left out.
    pub truncated: bool,
    /// Revenue by campaign, in millionths; `None` if those were too many.
    pub campaigns: Option<Vec<(CampaignKey, Sum)>>,
}

/// The version of a summary's encoding: it packs registers. The one before did not, and is read as well.
const VERSION: u8 = 2;
const UNPACKED: u8 = 1;

impl Summary {
    /// As it rests.
    pub(super) fn encode(&self) -> Result<Vec<u8>, StoreError> {
        encode(self, VERSION, self.size())
    }

    /// As it was before it rested.
    pub(super) fn decode(body: &[u8]) -> Result<Self, StoreError> {
        let version = if body.first() == Some(&UNPACKED) { UNPACKED } else { VERSION };
        let summary: Self = decode(body, version)?;
        summary.whole()
    }

    /// Itself, unless a set of users in it was damaged.
    pub(super) fn whole(self) -> Result<Self, StoreError> {
        if !self.users.is_whole() || !self.groups.iter().all(|(_, _, users)| users.is_whole()) {
            return Err(StoreError::Transient("a summary is not readable".to_owned()));
        }
        Ok(self)
    }

    /// The groups but for cities, and the cities, which are the last of them.
    pub(super) fn cities_apart(&self) -> (&[OfGroup], &[OfGroup]) {
        self.groups.split_at(self.groups.partition_point(|(group, ..)| !group.is_city()))
    }

    /// Whether two are of the same events. Places are compared where none was left out.
    pub fn agrees(&self, other: &Self) -> bool {
        let sums = |summary: &Self| {
            (summary.events, summary.followers, summary.watch_time, summary.percentage_watched)
        };
        let truncated = self.truncated || other.truncated;
        let compared = |summary: &Self| -> Vec<OfGroup> {
            summary.groups.iter().filter(|(group, ..)| !truncated || !group.is_place()).cloned().collect()
        };
        // Equal users have equal marks and registers, in whatever order they came.
        sums(self) == sums(other)
            && self.users == other.users
            && compared(self) == compared(other)
            && (self.campaigns.is_none() || other.campaigns.is_none() || self.campaigns == other.campaigns)
    }

    /// Bytes that it takes in memory, about.
    pub fn size(&self) -> usize {
        let beside: usize = self.groups.iter().map(|(_, _, users)| users.size()).sum();
        let campaigns = self.campaigns.as_ref().map_or(0, Vec::len);
        size_of::<Self>()
            + size_of_val(self.groups.as_slice())
            + beside
            + self.users.size()
            + campaigns * size_of::<(CampaignKey, Sum)>()
    }
}

/// A summary that grows.
#[derive(Default, Clone)]
pub(super) struct GrowingSummary {
    events: u64,
    followers: Sum,
    watch_time: Sum,
    percentage_watched: Sum,
    users: GrowingUsers,
    groups: Map<Group, (u64, GrowingUsers)>,
    truncated: bool,
    campaigns: HashMap<CampaignKey, Sum>,
    too_many_campaigns: bool,
}

impl GrowingSummary {
    /// Adds events.
    pub fn add_events(&mut self, events: &Events) {
        self.events += events.users.len() as u64;
        self.followers.merge(events.followers);
        self.watch_time.merge(events.watch_time);
        self.percentage_watched.merge(events.percentage_watched);
        self.users.add_marks(&mut events.users.to_vec());
        for sale in events.sales.iter().filter(|_| !self.too_many_campaigns) {
            let key = CampaignKey { event_type: sale.event_type, campaign_id: sale.campaign_id.clone() };
            self.campaigns.entry(key).or_default().add(Some(sale.revenue));
        }
        events.each_group(|group, marks| {
            let known = match self.groups.get_mut(group) {
                Some(known) => known,
                None => self.groups.entry(group.clone()).or_default(),
            };
            known.0 += marks.len() as u64;
            known.1.add_marks(marks);
        });
        self.bound();
    }

    /// Adds what another span adds up to.
    pub fn add(&mut self, other: &Summary) {
        self.events += other.events;
        self.followers.merge(other.followers);
        self.watch_time.merge(other.watch_time);
        self.percentage_watched.merge(other.percentage_watched);
        self.users.add(&other.users);
        for (group, events, users) in &other.groups {
            let known = match self.groups.get_mut(group) {
                Some(known) => known,
                None => self.groups.entry(group.clone()).or_default(),
            };
            known.0 += events;
            known.1.add(users);
        }
        self.truncated |= other.truncated;
        match &other.campaigns {
            Some(campaigns) if !self.too_many_campaigns => {
                for (key, sum) in campaigns {
                    match self.campaigns.get_mut(key) {
                        Some(known) => known.merge(*sum),
                        None => drop(self.campaigns.insert(key.clone(), *sum)),
                    }
                }
            }
            Some(_) => {}
            None => self.too_many_campaigns = true,
        }
        self.bound();
    }

    /// Keeps what is bounded within its bounds, with room to grow.
    fn bound(&mut self) {
        if self.campaigns.len() > MAX_CAMPAIGNS || self.too_many_campaigns {
            self.too_many_campaigns = true;
            self.campaigns = HashMap::new();
        }
        if self.groups.len() > 4 * MAX_PLACES {
            self.truncate();
        }
    }

    /// Leaves out the cities, and the countries, with the fewest events, where there are too many.
    fn truncate(&mut self) {
        for of_kind in [Group::is_city as fn(&Group) -> bool, Group::is_country] {
            if self.groups.keys().filter(|group| of_kind(group)).count() <= MAX_PLACES {
                continue;
            }
            self.truncated = true;
            let mut places: Vec<_> = self.groups.extract_if(|group, _| of_kind(group)).collect();
            places.select_nth_unstable_by(MAX_PLACES, |left, right| {
                right.1.0.cmp(&left.1.0).then_with(|| left.0.cmp(&right.0))
            });
            places.truncate(MAX_PLACES);
            self.groups.extend(places);
        }
    }

    pub fn finish(mut self) -> Summary {
        self.truncate();
        let mut groups: Vec<_> =
            self.groups.into_iter().map(|(group, (events, users))| (group, events, users.finish())).collect();
        groups.sort_by(|left, right| left.0.cmp(&right.0));
        let mut campaigns: Vec<_> = self.campaigns.into_iter().collect();
        campaigns.sort_unstable_by(|left, right| left.0.cmp(&right.0));
        Summary {
            events: self.events,
            followers: self.followers,
            watch_time: self.watch_time,
            percentage_watched: self.percentage_watched,
            users: self.users.finish(),
            groups,
            truncated: self.truncated,
            campaigns: (!self.too_many_campaigns).then_some(campaigns),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_version_before_wrote_is_read() {
        // One event, one group, every register a byte.
        let mut body = vec![UNPACKED, 1, 0, 0, 0, 0, 0, 0];
        let many = |body: &mut Vec<u8>| {
            body.extend([2, 0x80, 0x80, 2]);
            body.extend(vec![3; 1 << 15]);
        };
        many(&mut body);
        body.extend([1, 1, 2, 9]);
        many(&mut body);
        body.extend([1, 0]);
        let read = Summary::decode(&body).unwrap();
        assert_eq!((read.events, read.truncated, read.campaigns.as_deref()), (1, true, None));
        assert_eq!(read.groups[0].0, Group::Gender(1));
        assert_eq!((read.groups[0].1, read.groups[0].2 == read.users), (9, true));
        let mut growing = GrowingSummary::default();
        growing.add(&read);
        let body = growing.finish().encode().unwrap();
        assert_eq!(body[0], VERSION);
        assert!(body.len() < 1 << 16, "{} bytes", body.len());
        assert_eq!(Summary::decode(&body).unwrap().users, read.users);
    }

    #[test]
    fn a_summary_with_a_damaged_set_is_refused() {
        for users in [vec![1, 2, 7, 7], vec![2, 1, 7], vec![3, 9, 1, 7, 0]] {
            let mut body = vec![VERSION, 1, 0, 0, 0, 0, 0, 0];
            body.extend(users);
            body.extend([0, 0, 0]);
            let refused = Summary::decode(&body).unwrap_err();
            // What is too short for its entries is found where it is decoded, which says so behind.
            let refused = refused.to_string();
            let (told, _) = refused.split_once(": Serde").unwrap_or((&refused, ""));
            assert!(told.ends_with("a summary is not readable"), "{body:?}: {refused}");
        }
    }
}
