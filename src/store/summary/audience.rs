//! Whom a range of hours reached: the groups that are asked for, out of all that were read.
//!
//! Countries and cities can be very many, and a set of users for each of them very much. A place has no more
//! users than events, and events are simply added up: so users are counted from the place with the most
//! events down, until no other can be among the first.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::Map;
use super::body::{OfGroup, Summary};
use super::group::{Group, Sum};
use super::users::{GrowingUsers, Users};

/// Whom a range of hours reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Audience {
    /// Events.
    pub events: u64,
    /// Users, each once.
    pub users: u64,
    /// Whether some count of users is an estimate.
    pub estimated: bool,
    /// Followers of the users, over events.
    pub followers: Sum,
    /// Billionths of seconds.
    pub watch_time: Sum,
    /// Billionths of percent.
    pub percentage_watched: Sum,
    /// Users by group, but for places; ascending.
    pub groups: Vec<(Group, u64)>,
    /// The countries with the most users, those first.
    pub countries: Vec<(Group, u64)>,
    /// The cities with the most users, those first.
    pub cities: Vec<(Group, u64)>,
    /// Whether there are cities that are not told.
    pub cities_truncated: bool,
}

/// A place by its rank: events, and of equals the one whose name comes first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Ranked<'s> {
    events: u64,
    group: Reverse<&'s Group>,
    /// The last of its sets.
    last: Option<usize>,
}

/// Places, with the sets of their users: each set says which one of the same place was before it.
#[derive(Default)]
struct Places<'s> {
    sets: Vec<(&'s Users, Option<usize>)>,
    of: Map<&'s Group, (u64, Option<usize>)>,
}

impl<'s> Places<'s> {
    fn add(&mut self, group: &'s Group, events: u64, users: &'s Users) {
        let place = self.of.entry(group).or_default();
        place.0 += events;
        self.sets.push((users, place.1.replace(self.sets.len())));
    }

    /// The places with the most users, those first.
    fn first(self, limit: usize) -> Vec<(Group, u64)> {
        let rank = |(group, (events, last))| Ranked { events, group: Reverse(group), last };
        // From the one with the most events down, equals by name; only as many are put in order as are looked at.
        let mut places: BinaryHeap<Ranked<'_>> = self.of.into_iter().map(rank).collect();
        let mut first: Vec<(&Group, u64)> = Vec::with_capacity(limit + 1);
        while let Some(Ranked { events, group: Reverse(group), last }) = places.pop() {
            // Whoever follows has fewer events, or another name behind.
            let beaten = |last: &(&Group, u64)| last.1 > events || (last.1 == events && last.0 < group);
            if first.len() == limit && first.last().is_none_or(beaten) {
                break;
            }
            let sets = std::iter::successors(last.and_then(|last| self.sets.get(last)), |(_, before)| {
                before.and_then(|before| self.sets.get(before))
            });
            let users = GrowingUsers::of(sets.map(|(users, _)| *users));
            let counted = (group, users.among(events).0);
            let at = first.partition_point(|known| (counted.1, known.0) < (known.1, counted.0));
            first.insert(at, counted);
            first.truncate(limit);
        }
        first.into_iter().map(|(group, users)| (group.clone(), users)).collect()
    }
}

/// The places of a kind that a range of hours reached.
#[derive(Debug, Default)]
pub(in crate::store) struct Reached {
    /// Those with the most users, those first.
    first: Vec<(Group, u64)>,
    /// Whether there are others.
    truncated: bool,
}

impl Reached {
    /// The first so many countries of spans that do not meet.
    pub(super) fn countries<'s>(parts: impl Iterator<Item = &'s Summary>, limit: usize) -> Self {
        let countries = parts.flat_map(|part| part.cities_apart().0).filter(|(group, ..)| group.is_country());
        Self::of(countries, limit)
    }

    /// The first so many cities.
    pub(super) fn cities<'s>(mut parts: impl Iterator<Item = &'s Summary> + Clone, limit: usize) -> Self {
        let mut cities = Self::of(parts.clone().flat_map(|part| part.cities_apart().1), limit);
        cities.truncated |= parts.any(|part| part.truncated);
        cities
    }

    fn of<'s>(found: impl Iterator<Item = &'s OfGroup>, limit: usize) -> Self {
        let mut places = Places::default();
        found.for_each(|(place, events, users)| places.add(place, *events, users));
        Self { truncated: places.of.len() > limit, first: places.first(limit) }
    }
}

impl Audience {
    /// Adds up what spans that do not meet tell, without places.
    pub(super) fn of<'s>(parts: impl Iterator<Item = &'s Summary>) -> Self {
        let mut audience = Self::default();
        let mut sets: Vec<&Users> = Vec::new();
        let mut groups: Map<&Group, (u64, Vec<&Users>)> = Map::default();
        for part in parts {
            audience.events += part.events;
            audience.followers.merge(part.followers);
            audience.watch_time.merge(part.watch_time);
            audience.percentage_watched.merge(part.percentage_watched);
            sets.push(&part.users);
            let apart = part.cities_apart().0.iter().filter(|(group, ..)| !group.is_place());
            for (group, events, users) in apart {
                let known = groups.entry(group).or_default();
                known.0 += events;
                known.1.push(users);
            }
        }
        let count = |events, sets: Vec<&Users>| GrowingUsers::of(sets.into_iter()).among(events);
        (audience.users, audience.estimated) = count(audience.events, sets);
        audience.groups = groups
            .into_iter()
            .map(|(group, (events, sets))| (group.clone(), count(events, sets).0))
            .collect();
        audience.groups.sort();
        audience
    }

    /// The same, with its places.
    pub(in crate::store) fn with(mut self, countries: Reached, cities: Reached) -> Self {
        self.countries = countries.first;
        (self.cities, self.cities_truncated) = (cities.first, cities.truncated);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::super::users::Few;
    use super::*;

    #[test]
    fn the_places_with_the_most_users_are_found_among_those_with_many_events() {
        let place = |name: &str, events: u64, users: u64| {
            (Group::Country(name.into()), events, Users::Few(Few::of((0..users).collect())))
        };
        // Ever fewer events, and the most users where there are not the most events.
        let groups = vec![
            place("a", 100, 3),
            place("b", 90, 3),
            place("c", 80, 50),
            place("d", 60, 60),
            place("e", 55, 2),
            place("f", 49, 49),
            place("g", 1, 1),
        ];
        let summary = Summary { groups, ..Summary::default() };
        let told = Reached::countries([&summary].into_iter(), 3);
        let names: Vec<_> = told.first.iter().map(|(group, users)| format!("{group:?} {users}")).collect();
        assert_eq!(names, ["Country(\"d\") 60", "Country(\"c\") 50", "Country(\"f\") 49"]);
        assert!(told.truncated);
        let told = Reached::countries([&summary, &summary].into_iter(), 1_000);
        assert!(!told.truncated);
        let users: Vec<u64> = told.first.iter().map(|(_, users)| *users).collect();
        assert_eq!(users, [60, 50, 49, 3, 3, 2, 1]);
        assert_eq!(told.first[3].0, Group::Country("a".into()), "equally many go by name");
    }
}
