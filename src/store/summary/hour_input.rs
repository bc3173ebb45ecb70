//! Events of one hour as a delta holds them: per event its user and its dimensions, and its revenue.
//!
//! Nothing is sorted or merged here, because a collector builds this in the transaction that stores the rows. Folding
//! does that work later.

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use super::Map;
use super::dimension::{AGE_BOUNDS, Dimension, FOLLOWER_BOUNDS, Sum};
use crate::sketch::{UserHash, UserHashes, hash_bytes};

/// Columns of an event that a summary counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventInput<'a> {
    pub user: UserHash,
    pub event_type: i16,
    /// Minutes since 1970.
    pub minute: i32,
    /// Millionths.
    pub revenue: Option<i64>,
    /// Number of the revenue's currency.
    pub currency: i16,
    pub age: Option<i16>,
    pub gender: Option<i16>,
    pub followers: Option<i64>,
    pub device: Option<i16>,
    /// Billionths of a second.
    pub watch_time: Option<i64>,
    /// Billionths of a percent.
    pub percentage_watched: Option<i64>,
    pub country: Option<&'a str>,
    pub city: Option<&'a str>,
    pub campaign_id: Option<&'a str>,
}

/// A [`Dimension`] with borrowed texts.
#[derive(PartialEq, Eq, Hash, Clone, Copy)]
enum DimensionRef<'a> {
    Age(i16),
    Gender(i16),
    Followers(i64),
    Device(i16),
    Country(&'a str),
    City(&'a str, &'a str),
}

/// Dimensions of an event, at most.
const DIMENSIONS: usize = 6;

/// Events of one hour. The order of the fields is part of the stored format.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct HourInput {
    pub(super) followers: Sum,
    pub(super) watch_time: Sum,
    pub(super) percentage_watched: Sum,
    /// The user of each event.
    #[serde(with = "hash_bytes")]
    pub(super) users: UserHashes,
    /// Distinct dimensions of the events.
    dimensions: Vec<Dimension>,
    /// Per event [`DIMENSIONS`] numbers: positions in `dimensions` from 1, or 0 for none.
    dimension_numbers: Vec<u32>,
    /// Events with revenue and a campaign.
    pub(super) sales: Vec<CampaignSale>,
}

/// An event with revenue and a campaign.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct CampaignSale {
    pub(super) event_type: i16,
    pub(super) campaign_id: CompactString,
    /// Millionths.
    pub(super) revenue: i64,
    /// Minutes since 1970.
    pub(super) minute: i32,
    /// Number of the currency; stored apart, see [`super::encoding`].
    #[serde(skip)]
    pub(super) currency: i16,
}

/// Largest bound that is not above a value. `bounds` ascend, and none of the values is below the first.
fn lower_bound<T: Copy + PartialOrd>(bounds: &[T], value: T) -> T {
    let end = bounds.partition_point(|bound| *bound <= value);
    bounds[end.saturating_sub(1)]
}

impl<'a> EventInput<'a> {
    fn dimensions(&self) -> [Option<DimensionRef<'a>>; DIMENSIONS] {
        [
            self.age.map(|age| DimensionRef::Age(lower_bound(&AGE_BOUNDS, age))),
            self.gender.map(DimensionRef::Gender),
            self.followers.map(|followers| DimensionRef::Followers(lower_bound(&FOLLOWER_BOUNDS, followers))),
            self.device.map(DimensionRef::Device),
            self.country.map(DimensionRef::Country),
            self.country.zip(self.city).map(|(country, city)| DimensionRef::City(country, city)),
        ]
    }
}

impl DimensionRef<'_> {
    fn to_dimension(self) -> Dimension {
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

impl HourInput {
    pub(super) fn of<'a>(events: impl ExactSizeIterator<Item = EventInput<'a>>) -> Self {
        let mut input = Self::default();
        let mut numbers: Map<DimensionRef<'a>, u32> = Map::default();
        input.users.reserve(events.len());
        input.dimension_numbers.reserve(events.len() * DIMENSIONS);
        for event in events {
            input.users.push(event.user);
            input.followers.add(event.followers);
            input.watch_time.add(event.watch_time);
            input.percentage_watched.add(event.percentage_watched);
            for dimension in event.dimensions() {
                let number = dimension.map_or(0, |dimension| {
                    *numbers.entry(dimension).or_insert_with(|| {
                        input.dimensions.push(dimension.to_dimension());
                        // A transaction has far fewer than 2^32 of them.
                        u32::try_from(input.dimensions.len()).unwrap_or(0)
                    })
                });
                input.dimension_numbers.push(number);
            }
            if let Some((campaign_id, revenue)) = event.campaign_id.zip(event.revenue) {
                let EventInput { event_type, minute, currency, .. } = event;
                input.sales.push(CampaignSale {
                    event_type,
                    campaign_id: campaign_id.into(),
                    revenue,
                    minute,
                    currency,
                });
            }
        }
        input
    }

    /// Inputs of several transactions as one. A dimension that several have is stored once.
    pub(super) fn merge(parts: &[&Self]) -> Self {
        let mut merged = Self::default();
        let count = parts.iter().map(|part| part.users.len()).sum();
        merged.users.reserve(count);
        merged.dimension_numbers.reserve(count * DIMENSIONS);
        let mut numbers: Map<&Dimension, u32> = Map::default();
        let mut renumbered = Vec::new();
        for part in parts {
            merged.followers.merge(part.followers);
            merged.watch_time.merge(part.watch_time);
            merged.percentage_watched.merge(part.percentage_watched);
            merged.users.extend_from_slice(&part.users);
            merged.sales.extend_from_slice(&part.sales);
            renumbered.clear();
            // 0, no dimension, stays 0.
            renumbered.push(0);
            renumbered.extend(part.dimensions.iter().map(|dimension| {
                *numbers.entry(dimension).or_insert_with(|| {
                    merged.dimensions.push(dimension.clone());
                    // At most six times the events of some transactions.
                    u32::try_from(merged.dimensions.len()).unwrap_or(0)
                })
            }));
            let renumber = |number: &u32| renumbered.get(*number as usize).copied().unwrap_or(0);
            merged.dimension_numbers.extend(part.dimension_numbers.iter().map(renumber));
        }
        merged
    }

    /// False if the decoded bytes were corrupt: an event lacks dimension numbers, or a number has no dimension.
    pub(super) fn is_valid(&self) -> bool {
        self.dimension_numbers.len() == self.users.len() * DIMENSIONS
            && self.dimension_numbers.iter().all(|number| *number as usize <= self.dimensions.len())
    }

    /// Calls `visit` with each dimension and the users of its events, one hash per event. `visit` may take the hashes.
    pub(super) fn for_each_dimension(&self, mut visit: impl FnMut(&Dimension, &mut Vec<UserHash>)) {
        // A counting sort. `ends` first has the number of events of each dimension, then the position at which its
        // hashes begin, and once these are in place the position at which they end.
        let mut ends = vec![0_usize; self.dimensions.len() + 1];
        let position = |number: &u32| (*number as usize).checked_sub(1);
        for dimension in self.dimension_numbers.iter().filter_map(position) {
            ends[dimension + 1] += 1;
        }
        for dimension in 1..ends.len() {
            ends[dimension] += ends[dimension - 1];
        }
        let mut sorted = vec![0; ends.last().copied().unwrap_or(0)];
        for (numbers, user) in self.dimension_numbers.chunks(DIMENSIONS).zip(&self.users) {
            for dimension in numbers.iter().filter_map(position) {
                sorted[ends[dimension]] = *user;
                ends[dimension] += 1;
            }
        }
        let mut users = Vec::new();
        let mut begin = 0;
        for (dimension, end) in self.dimensions.iter().zip(ends) {
            users.clear();
            users.extend_from_slice(&sorted[begin..end]);
            visit(dimension, &mut users);
            begin = end;
        }
    }

    /// Approximate encoded size in bytes.
    pub(super) fn size(&self) -> usize {
        self.users.len() * 8
            + self.dimensions.len() * 24
            + self.dimension_numbers.len() * 2
            + self.sales.len() * 40
            + 64
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// An event of the type 3 in minute 61.
    pub(in crate::store::summary) fn event(user: u64) -> EventInput<'static> {
        EventInput {
            user,
            event_type: 3,
            minute: 61,
            revenue: Some(1_250_000),
            currency: 840,
            age: Some(20),
            gender: None,
            followers: None,
            device: None,
            watch_time: Some(5),
            percentage_watched: None,
            country: Some("Chad"),
            city: None,
            campaign_id: None,
        }
    }

    fn users_by_dimension(input: &HourInput) -> Vec<(Dimension, Vec<u64>)> {
        let mut found = Vec::new();
        input.for_each_dimension(|dimension, users| found.push((dimension.clone(), users.clone())));
        found.sort();
        found
    }

    #[test]
    fn users_are_listed_by_dimension_once_per_event() {
        let of_city = |user, city| EventInput { city: Some(city), ..event(user) };
        let adult = EventInput { age: Some(90), country: None, ..of_city(3, "nowhere") };
        let input = HourInput::of([of_city(1, "Sarh"), of_city(1, "Sarh"), event(2), adult].into_iter());
        let expected = vec![
            (Dimension::Age(18), vec![1, 1, 2]),
            (Dimension::Age(65), vec![3]),
            (Dimension::Country("Chad".into()), vec![1, 1, 2]),
            // A city without a country is not counted.
            (Dimension::City("Chad".into(), "Sarh".into()), vec![1, 1]),
        ];
        assert_eq!(users_by_dimension(&input), expected);
        assert!(input.is_valid() && input.sales.is_empty());
    }

    #[test]
    fn merged_inputs_have_the_same_users_as_all_events_at_once() {
        let of = |user: u64| EventInput {
            city: Some(["Sarh", "Moundou", "Abéché"][user as usize % 3]),
            gender: (user.is_multiple_of(2)).then_some(user as i16 % 5),
            campaign_id: (user.is_multiple_of(4)).then_some("c"),
            ..event(user)
        };
        let whole = HourInput::of((0..60).map(of).collect::<Vec<_>>().into_iter());
        let parts: Vec<_> = [0..7, 7..8, 8..60]
            .into_iter()
            .map(|range| HourInput::of(range.map(of).collect::<Vec<_>>().into_iter()))
            .collect();
        let merged = HourInput::merge(&parts.iter().collect::<Vec<_>>());
        assert_eq!(users_by_dimension(&merged), users_by_dimension(&whole));
        assert_eq!((merged.watch_time, merged.sales.len()), (whole.watch_time, 15));
        assert!(merged.is_valid());
    }

    #[test]
    fn an_input_with_missing_or_wrong_dimension_numbers_is_corrupt() {
        let mut input = HourInput::of([event(1)].into_iter());
        input.dimension_numbers[0] = 9;
        assert!(!input.is_valid(), "no dimension has this number");
        input.dimension_numbers.clear();
        assert!(!input.is_valid(), "the event has no numbers");
    }

    #[test]
    fn a_value_belongs_to_the_range_with_the_largest_lower_bound() {
        let ages = [0, 17, 18, 24, 25, 64, 65, 150].map(|age| lower_bound(&AGE_BOUNDS, age));
        assert_eq!(ages, [0, 0, 18, 18, 25, 55, 65, 65]);
        let followers = [999, 1_000, 1_000_000].map(|count| lower_bound(&FOLLOWER_BOUNDS, count));
        assert_eq!(followers, [0, 1_000, 1_000_000]);
    }
}
