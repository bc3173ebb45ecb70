//! What a span of hours of one source adds up to.

use std::collections::HashMap;

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use super::Map;
use super::dimension::{Dimension, Sum};
use super::places::{GrowingPlaces, Listing, Places};
use super::seen::Events;
use super::{decode, encode};
use crate::sketch::{GrowingUsers, Users};
use crate::store::error::StoreError;

/// Places of a kind that versions before this one kept.
const BOUND_BEFORE: usize = 1_000;
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
pub type OfGroup = (Dimension, u64, Users);

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
    /// Events and users by group, ascending, but for countries and cities.
    pub groups: Vec<OfGroup>,
    /// Events and users by country.
    pub countries: Places,
    /// Events and users by city.
    pub cities: Places,
    /// Revenue by campaign, in millionths; `None` if those were too many.
    pub campaigns: Option<Vec<(CampaignKey, Sum)>>,
}

/// A summary as versions before this one wrote it.
#[derive(Deserialize)]
pub(super) struct SummaryBefore {
    events: u64,
    followers: Sum,
    watch_time: Sum,
    percentage_watched: Sum,
    users: Users,
    /// Countries and cities as well: the 1,000 of each with the most events.
    groups: Vec<OfGroup>,
    /// True if places were left out.
    truncated: bool,
    campaigns: Option<Vec<(CampaignKey, Sum)>>,
}

/// The version of a summary's encoding. Those before had 1,000 countries and 1,000 cities among the groups, and the
/// first one did not pack registers; both are read as well.
const VERSION: u8 = 3;
const PLACES_AMONG_GROUPS: u8 = 2;
const UNPACKED: u8 = 1;

impl SummaryBefore {
    /// The same as this version has it. Events of places that were left out may all be of one.
    pub fn whole(self) -> Result<Summary, StoreError> {
        let Self { events, followers, watch_time, percentage_watched, users, campaigns, .. } = self;
        if !users.is_whole() || !self.groups.iter().all(|(_, _, users)| users.is_whole()) {
            return Err(StoreError::unavailable("a summary is not readable"));
        }
        let (mut countries, mut cities) = (Listing::default(), Listing::default());
        let mut groups = Vec::new();
        for (group, events, users) in self.groups {
            match &group {
                Dimension::Country(country) => countries.add((country, ""), events, &users),
                Dimension::City(country, city) => cities.add((country, city), events, &users),
                _ => groups.push((group, events, users)),
            }
        }
        let (mut countries, mut cities) = (countries.finish(), cities.finish());
        if self.truncated {
            if countries.len() >= BOUND_BEFORE {
                countries = countries.lacking(events.saturating_sub(countries.events()));
            }
            cities = cities.lacking(events.saturating_sub(cities.events()));
        }
        Ok(Summary {
            events,
            followers,
            watch_time,
            percentage_watched,
            users,
            groups,
            countries,
            cities,
            campaigns,
        })
    }
}

impl Summary {
    /// As it rests.
    pub(super) fn encode(&self) -> Result<Vec<u8>, StoreError> {
        encode(self, VERSION, self.size())
    }

    /// As it was before it rested.
    pub(super) fn decode(body: &[u8]) -> Result<Self, StoreError> {
        match body.first() {
            Some(&version @ (UNPACKED | PLACES_AMONG_GROUPS)) => {
                decode::<SummaryBefore>(body, version)?.whole()
            }
            _ => decode::<Self>(body, VERSION)?.whole(),
        }
    }

    /// Itself, unless a set of users in it was damaged.
    pub(super) fn whole(self) -> Result<Self, StoreError> {
        if !self.users.is_whole() || !self.groups.iter().all(|(_, _, users)| users.is_whole()) {
            return Err(StoreError::corrupt("a summary is not readable"));
        }
        Ok(self)
    }

    /// True if two are of the same events. Places are compared as far as none is missing.
    pub fn agrees(&self, other: &Self) -> bool {
        let sums = |summary: &Self| {
            (summary.events, summary.followers, summary.watch_time, summary.percentage_watched)
        };
        // Equal users have equal marks and registers, in whatever order they came.
        sums(self) == sums(other)
            && self.users == other.users
            && self.groups == other.groups
            && self.countries.agrees(&other.countries)
            && self.cities.agrees(&other.cities)
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
            + self.countries.size()
            + self.cities.size()
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
    groups: Map<Dimension, (u64, GrowingUsers)>,
    countries: GrowingPlaces,
    cities: GrowingPlaces,
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
        let (mut countries, mut cities) = (Listing::default(), Listing::default());
        events.each_group(|group, marks| match group {
            Dimension::Country(country) => countries.add_marks((country, ""), marks),
            Dimension::City(country, city) => cities.add_marks((country, city), marks),
            _ => {
                let known = match self.groups.get_mut(group) {
                    Some(known) => known,
                    None => self.groups.entry(group.clone()).or_default(),
                };
                known.0 += marks.len() as u64;
                known.1.add_marks(marks);
            }
        });
        self.countries.add(&countries.finish());
        self.cities.add(&cities.finish());
        self.bound();
    }

    /// Adds events of several transactions: together, for what that costs goes by parts and groups more than by
    /// events.
    pub fn add_all(&mut self, parts: &[&Events]) {
        match parts {
            [] => {}
            [one] => self.add_events(one),
            several => self.add_events(&Events::merged(several)),
        }
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
        self.countries.add(&other.countries);
        self.cities.add(&other.cities);
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

    /// Keeps campaigns within their bound.
    fn bound(&mut self) {
        if self.campaigns.len() > MAX_CAMPAIGNS || self.too_many_campaigns {
            self.too_many_campaigns = true;
            self.campaigns = HashMap::new();
        }
    }

    pub fn finish(self) -> Summary {
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
            countries: self.countries.finish(),
            cities: self.cities.finish(),
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
        let mut body = vec![UNPACKED, 12, 0, 0, 0, 0, 0, 0];
        let many = |body: &mut Vec<u8>| {
            body.extend([2, 0x80, 0x80, 2]);
            body.extend(vec![3; 1 << 15]);
        };
        many(&mut body);
        body.extend([2, 1, 2, 9]);
        many(&mut body);
        // A city of 4 events, with one user; others were left out.
        body.extend([5, 1, b'a', 1, b'b', 4, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8]);
        body.extend([1, 0]);
        let read = Summary::decode(&body).unwrap();
        assert_eq!((read.events, read.campaigns.as_deref()), (12, None));
        assert_eq!(read.groups[0].0, Dimension::Gender(1));
        assert_eq!((read.groups.len(), read.groups[0].1, read.groups[0].2 == read.users), (1, 9, true));
        assert_eq!(format!("{:?}", read.cities), "[((\"a\", \"b\"), 4, 1 users)]");
        assert_eq!((read.cities.missing(), read.countries.missing()), (8, 0));
        let mut growing = GrowingSummary::default();
        growing.add(&read);
        let body = growing.finish().encode().unwrap();
        assert_eq!(body[0], VERSION);
        assert!(body.len() < 1 << 16, "{} bytes", body.len());
        let again = Summary::decode(&body).unwrap();
        assert!(again.agrees(&read) && again.cities == read.cities);
    }

    #[test]
    fn a_summary_with_a_damaged_set_is_refused() {
        for users in [vec![1, 2, 7, 7], vec![2, 1, 7], vec![3, 9, 1, 7, 0]] {
            let mut body = vec![VERSION, 1, 0, 0, 0, 0, 0, 0];
            body.extend(users);
            body.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            let refused = Summary::decode(&body).unwrap_err();
            // What is too short for its entries is found where it is decoded, which says so behind.
            let refused = refused.to_string();
            let (told, _) = refused.split_once(": Serde").unwrap_or((&refused, ""));
            assert!(told.ends_with("a summary is not readable"), "{body:?}: {refused}");
        }
    }
}
