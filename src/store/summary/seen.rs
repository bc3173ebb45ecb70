//! Events as a delta has them: of each its user and its groups, and what it earned. Nothing is put in order or
//! together here, in the transaction of the rows; folding does that.

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use super::Map;
use super::dimension::{AGE_BOUNDS, Dimension, FOLLOWER_BOUNDS, Sum};
use super::span::whole;
use crate::event::{Columns, MICROS_PER_MINUTE};
use crate::sketch::{UserHash, UserHashes, marks};
use crate::store::write::row::Row;

/// Of a row, what is summed up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen<'a> {
    pub user: UserHash,
    pub event_type: i16,
    pub minute: i32,
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

/// A group, with its texts borrowed.
#[derive(PartialEq, Eq, Hash, Clone, Copy)]
enum DimensionRef<'a> {
    Age(i16),
    Gender(i16),
    Followers(i64),
    Device(i16),
    Country(&'a str),
    City(&'a str, &'a str),
}

/// Groups that an event may be of.
const GROUPS: usize = 6;

/// Events of one hour.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Events {
    pub followers: Sum,
    pub watch_time: Sum,
    pub percentage_watched: Sum,
    /// The user of each.
    #[serde(with = "marks")]
    pub users: UserHashes,
    /// The groups that they are of.
    groups: Vec<Dimension>,
    /// Of each, the numbers of its groups: [`GROUPS`], with 0 for none and 1 for the first.
    of_event: Vec<u32>,
    /// Those that made revenue for a campaign.
    pub sales: Vec<Sale>,
}

/// An event that made revenue for a campaign.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Sale {
    pub event_type: i16,
    pub campaign_id: CompactString,
    /// Millionths.
    pub revenue: i64,
    /// When, in minutes since 1970.
    pub minute: i32,
}

/// The bound that a value stands above.
fn lower<T: Copy + PartialOrd>(bounds: &[T], value: T) -> T {
    let above = bounds.partition_point(|bound| *bound <= value);
    bounds[above.saturating_sub(1)]
}

impl<'a> Seen<'a> {
    pub fn of(row: &'a Row<'_>) -> Self {
        let event = &row.event;
        let Columns { age, gender, followers, device, watch_time, percentage_watched, .. } = event.columns;
        Self {
            user: row.user,
            event_type: event.kind.word.code,
            minute: whole(event.occurred_at.div_euclid(MICROS_PER_MINUTE)),
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

    fn groups(&self) -> [Option<DimensionRef<'a>>; GROUPS] {
        [
            self.age.map(|age| DimensionRef::Age(lower(&AGE_BOUNDS, age))),
            self.gender.map(DimensionRef::Gender),
            self.followers.map(|followers| DimensionRef::Followers(lower(&FOLLOWER_BOUNDS, followers))),
            self.device.map(DimensionRef::Device),
            self.country.map(DimensionRef::Country),
            self.country.zip(self.city).map(|(country, city)| DimensionRef::City(country, city)),
        ]
    }
}

impl DimensionRef<'_> {
    fn owned(self) -> Dimension {
        match self {
            Self::Age(age) => Dimension::Age(age),
            Self::Gender(gender) => Dimension::Gender(gender),
            Self::Followers(followers) => Dimension::Followers(followers),
            Self::Device(device) => Dimension::Device(device),
            Self::Country(country) => Dimension::Country(country.into()),
            Self::City(country, city) => Dimension::City(country.into(), city.into()),
        }
    }
}

impl Events {
    pub fn of<'a>(seen: impl ExactSizeIterator<Item = Seen<'a>>) -> Self {
        let mut events = Self::default();
        let mut numbers: Map<DimensionRef<'a>, u32> = Map::default();
        events.users.reserve(seen.len());
        events.of_event.reserve(seen.len() * GROUPS);
        for seen in seen {
            events.users.push(seen.user);
            events.followers.add(seen.followers);
            events.watch_time.add(seen.watch_time);
            events.percentage_watched.add(seen.percentage_watched);
            for group in seen.groups() {
                let number = group.map_or(0, |group| {
                    *numbers.entry(group).or_insert_with(|| {
                        events.groups.push(group.owned());
                        // One transaction has far fewer.
                        u32::try_from(events.groups.len()).unwrap_or(0)
                    })
                });
                events.of_event.push(number);
            }
            if let Some((campaign_id, revenue)) = seen.campaign_id.zip(seen.revenue) {
                let Seen { event_type, minute, .. } = seen;
                events.sales.push(Sale { event_type, campaign_id: campaign_id.into(), revenue, minute });
            }
        }
        events
    }

    /// Events of several transactions, put together: a group that several have is one from then on.
    pub fn merged(parts: &[&Self]) -> Self {
        let mut merged = Self::default();
        let count = parts.iter().map(|part| part.users.len()).sum();
        merged.users.reserve(count);
        merged.of_event.reserve(count * GROUPS);
        let mut numbers: Map<&Dimension, u32> = Map::default();
        let mut of_part = Vec::new();
        for part in parts {
            merged.followers.merge(part.followers);
            merged.watch_time.merge(part.watch_time);
            merged.percentage_watched.merge(part.percentage_watched);
            merged.users.extend_from_slice(&part.users);
            merged.sales.extend_from_slice(&part.sales);
            of_part.clear();
            // None stays none.
            of_part.push(0);
            of_part.extend(part.groups.iter().map(|group| {
                *numbers.entry(group).or_insert_with(|| {
                    merged.groups.push(group.clone());
                    // As many as there are events of some transactions, times six, at most.
                    u32::try_from(merged.groups.len()).unwrap_or(0)
                })
            }));
            let number = |of_event: &u32| of_part.get(*of_event as usize).copied().unwrap_or(0);
            merged.of_event.extend(part.of_event.iter().map(number));
        }
        merged
    }

    /// Whether every event has its groups, and those are there: anything else was damaged.
    pub fn is_whole(&self) -> bool {
        self.of_event.len() == self.users.len() * GROUPS
            && self.of_event.iter().all(|number| *number as usize <= self.groups.len())
    }

    /// Gives each group the marks of its users, as often as there are events of them. The marks may be taken.
    pub fn each_group(&self, mut give: impl FnMut(&Dimension, &mut Vec<UserHash>)) {
        // How many each has; then where its marks begin; then where they end.
        let mut place = vec![0_usize; self.groups.len() + 1];
        let known = |number: &u32| (*number as usize).checked_sub(1);
        for group in self.of_event.iter().filter_map(known) {
            place[group + 1] += 1;
        }
        for group in 1..place.len() {
            place[group] += place[group - 1];
        }
        let mut all = vec![0; place.last().copied().unwrap_or(0)];
        for (numbers, mark) in self.of_event.chunks(GROUPS).zip(&self.users) {
            for group in numbers.iter().filter_map(known) {
                all[place[group]] = *mark;
                place[group] += 1;
            }
        }
        let mut marks = Vec::new();
        let mut begin = 0;
        for (group, end) in self.groups.iter().zip(place) {
            marks.clear();
            marks.extend_from_slice(&all[begin..end]);
            give(group, &mut marks);
            begin = end;
        }
    }

    /// Bytes that they take encoded, about.
    pub fn size(&self) -> usize {
        self.users.len() * 8 + self.groups.len() * 24 + self.of_event.len() * 2 + self.sales.len() * 40 + 64
    }
}
