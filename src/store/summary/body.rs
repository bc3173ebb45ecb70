//! What a span of hours of one source adds up to.

use std::collections::HashMap;

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use super::users::{GrowingUsers, Mark, Users, mark};
use crate::event::{Columns, Event};

/// The most countries, and the most cities, that a summary holds: those with the most events stay.
const MAX_PLACES: usize = 1_000;
/// The most campaigns that a summary holds; with more it holds none.
const MAX_CAMPAIGNS: usize = 1_000;

/// What users are grouped by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Group {
    /// The lower bound of an age range.
    Age(i16),
    /// The gender's number.
    Gender(i16),
    /// The lower bound of a range of followers.
    Followers(i64),
    /// The device's number.
    Device(i16),
    /// The country.
    Country(CompactString),
    /// The country and the city.
    City(CompactString, CompactString),
}

/// Lower bounds of the age ranges.
pub const AGES: [i16; 7] = [0, 18, 25, 35, 45, 55, 65];
/// Lower bounds of the ranges of followers.
pub const FOLLOWERS: [i64; 5] = [0, 1_000, 10_000, 100_000, 1_000_000];

/// The bound that a value stands above.
fn lower<T: Copy + PartialOrd>(bounds: &[T], value: T) -> T {
    let above = bounds.partition_point(|bound| *bound <= value);
    bounds[above.saturating_sub(1)]
}

/// A count and a sum, both exact.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sum {
    /// How many.
    pub count: u64,
    /// What they add up to.
    pub sum: i128,
}

impl Sum {
    fn add(&mut self, value: Option<i64>) {
        if let Some(value) = value {
            self.count += 1;
            self.sum += i128::from(value);
        }
    }

    pub(super) fn merge(&mut self, other: Self) {
        self.count += other.count;
        self.sum += other.sum;
    }
}

/// One type of event of one campaign.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CampaignKey {
    /// The type's number.
    pub event_type: i16,
    /// The campaign.
    pub campaign_id: String,
}

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
    pub groups: Vec<(Group, u64, Users)>,
    /// Whether cities, or countries, were left out.
    pub truncated: bool,
    /// Revenue by campaign, in millionths; `None` if those were too many.
    pub campaigns: Option<Vec<(CampaignKey, Sum)>>,
}

impl Summary {
    /// Whether two are of the same events. Places are compared where none was left out.
    pub fn agrees(&self, other: &Self) -> bool {
        let sums = |summary: &Self| {
            (summary.events, summary.followers, summary.watch_time, summary.percentage_watched)
        };
        let truncated = self.truncated || other.truncated;
        let compared = |summary: &Self| -> Vec<(Group, u64, Users)> {
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
        let groups: usize = self.groups.iter().map(|(_, _, users)| users.size() + 96).sum();
        groups
            + self.users.size()
            + self.campaigns.as_ref().map_or(0, |campaigns| campaigns.len() * 128)
            + 256
    }
}

impl Group {
    /// Whether it is a city.
    pub fn is_city(&self) -> bool {
        matches!(self, Self::City(..))
    }

    /// Whether it is a country.
    pub fn is_country(&self) -> bool {
        matches!(self, Self::Country(_))
    }

    /// Whether it is one of those that may be very many.
    pub fn is_place(&self) -> bool {
        self.is_city() || self.is_country()
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
    groups: HashMap<Group, (u64, GrowingUsers), foldhash::fast::RandomState>,
    truncated: bool,
    campaigns: HashMap<CampaignKey, Sum>,
    too_many_campaigns: bool,
}

/// Of a row, what is summed up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen<'a> {
    pub user: Mark,
    pub event_type: i16,
    pub revenue: Option<i64>,
    pub age: Option<i16>,
    pub gender: Option<i16>,
    pub followers: Option<i64>,
    pub device: Option<i16>,
    pub watch_time: Option<i64>,
    pub percentage_watched: Option<i64>,
    pub country: Option<&'a str>,
    pub city: Option<&'a str>,
    pub campaign_id: Option<&'a str>,
}

impl<'a> Seen<'a> {
    pub fn of(event: &'a Event<'_>) -> Self {
        let Columns { age, gender, followers, device, watch_time, percentage_watched, .. } = event.columns;
        Self {
            user: mark(&event.columns.user_id),
            event_type: event.kind.word.code,
            revenue: event.revenue(),
            age,
            gender,
            followers,
            device,
            watch_time,
            percentage_watched,
            country: event.columns.country.as_deref(),
            city: event.columns.city.as_deref(),
            campaign_id: event.columns.campaign_id.as_deref(),
        }
    }
}

/// A group of an event, with its texts borrowed.
#[derive(PartialEq, Eq, Hash, Clone, Copy)]
enum SeenGroup<'a> {
    Age(i16),
    Gender(i16),
    Followers(i64),
    Device(i16),
    Country(&'a str),
    City(&'a str, &'a str),
}

impl SeenGroup<'_> {
    fn owned(self) -> Group {
        match self {
            Self::Age(age) => Group::Age(age),
            Self::Gender(gender) => Group::Gender(gender),
            Self::Followers(followers) => Group::Followers(followers),
            Self::Device(device) => Group::Device(device),
            Self::Country(country) => Group::Country(country.into()),
            Self::City(country, city) => Group::City(country.into(), city.into()),
        }
    }
}

impl GrowingSummary {
    /// Adds events.
    pub fn add_events(&mut self, events: &[Seen<'_>]) {
        let mut marks: Vec<Mark> = events.iter().map(|seen| seen.user).collect();
        self.users.add_marks(&mut marks);
        // Groups by number: sorting texts would be most of the work.
        let mut numbers: HashMap<SeenGroup<'_>, u32, foldhash::fast::RandomState> = HashMap::default();
        let mut groups: Vec<(u32, Mark)> = Vec::with_capacity(events.len() * 5);
        for seen in events {
            self.events += 1;
            self.followers.add(seen.followers);
            self.watch_time.add(seen.watch_time);
            self.percentage_watched.add(seen.percentage_watched);
            if let (Some(campaign_id), Some(_)) = (seen.campaign_id, seen.revenue) {
                let key = CampaignKey { event_type: seen.event_type, campaign_id: campaign_id.to_owned() };
                self.campaigns.entry(key).or_default().add(seen.revenue);
            }
            let city = seen.country.zip(seen.city).map(|(country, city)| SeenGroup::City(country, city));
            let all = [
                seen.age.map(|age| SeenGroup::Age(lower(&AGES, age))),
                seen.gender.map(SeenGroup::Gender),
                seen.followers.map(|followers| SeenGroup::Followers(lower(&FOLLOWERS, followers))),
                seen.device.map(SeenGroup::Device),
                seen.country.map(SeenGroup::Country),
                city,
            ];
            for group in all.into_iter().flatten() {
                let next = numbers.len() as u32;
                groups.push((*numbers.entry(group).or_insert(next), seen.user));
            }
        }
        groups.sort_unstable();
        let mut numbers: Vec<(SeenGroup<'_>, u32)> = numbers.into_iter().collect();
        numbers.sort_unstable_by_key(|(_, number)| *number);
        for (of_group, (group, _)) in groups.chunk_by(|left, right| left.0 == right.0).zip(numbers) {
            marks.extend(of_group.iter().map(|(_, mark)| *mark));
            let known = self.groups.entry(group.owned()).or_default();
            known.0 += of_group.len() as u64;
            known.1.add_marks(&mut marks);
        }
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
