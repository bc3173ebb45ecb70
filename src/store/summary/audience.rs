//! Whom a range of hours reached: the groups that are asked for, out of all that were read.

use super::Map;
use super::body::Summary;
use super::dimension::{Dimension, Sum};
use super::places::{First, Name, Places};
use crate::sketch::{GrowingUsers, Users};

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
    pub groups: Vec<(Dimension, u64)>,
    /// The countries with the most users, those first.
    pub countries: Vec<(Dimension, u64)>,
    /// The cities with the most users, those first.
    pub cities: Vec<(Dimension, u64)>,
    /// Whether there are cities that are not told.
    pub cities_truncated: bool,
    /// The most users that a city may have beyond what is told of it, or without being told; 0 if all is exact.
    pub cities_missing: u64,
}

/// The places of a kind that a range of hours reached.
pub(in crate::store) type Reached = First<Dimension>;

impl Reached {
    /// The first so many countries of spans that do not meet.
    pub(super) fn countries<'s>(parts: impl Iterator<Item = &'s Summary>, limit: usize) -> Self {
        let name = |(country, _): Name<'_>| Dimension::Country(country.into());
        Self::of(parts.map(|part| &part.countries), limit, name)
    }

    /// The first so many cities.
    pub(super) fn cities<'s>(parts: impl Iterator<Item = &'s Summary>, limit: usize) -> Self {
        let name = |(country, city): Name<'_>| Dimension::City(country.into(), city.into());
        Self::of(parts.map(|part| &part.cities), limit, name)
    }

    fn of<'s>(
        parts: impl Iterator<Item = &'s Places>,
        limit: usize,
        group: impl Fn(Name<'_>) -> Dimension,
    ) -> Self {
        let parts: Vec<Places> = parts.cloned().collect();
        let First { places, truncated, missing } = Places::first(&parts, limit);
        let places = places.into_iter().map(|(name, users)| (group(name), users)).collect();
        Self { places, truncated, missing }
    }
}

impl Audience {
    /// Adds up what spans that do not meet tell, without places.
    pub(super) fn of<'s>(parts: impl Iterator<Item = &'s Summary>) -> Self {
        let mut audience = Self::default();
        let mut sets: Vec<&Users> = Vec::new();
        let mut groups: Map<&Dimension, (u64, Vec<&Users>)> = Map::default();
        for part in parts {
            audience.events += part.events;
            audience.followers.merge(part.followers);
            audience.watch_time.merge(part.watch_time);
            audience.percentage_watched.merge(part.percentage_watched);
            sets.push(&part.users);
            for (group, events, users) in &part.groups {
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
        self.countries = countries.places;
        self.estimated |= countries.missing > 0;
        (self.cities, self.cities_truncated) = (cities.places, cities.truncated);
        self.cities_missing = cities.missing;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::super::places::Listing;
    use super::*;
    use crate::sketch::Few;

    #[test]
    fn the_places_with_the_most_users_are_found_among_those_with_many_events() {
        let mut listing = Listing::default();
        // Ever fewer events, and the most users where there are not the most events.
        let places = [
            ("a", 100, 3),
            ("b", 90, 3),
            ("c", 80, 50),
            ("d", 60, 60),
            ("e", 55, 2),
            ("f", 49, 49),
            ("g", 1, 1),
        ];
        for (name, events, users) in places {
            listing.add((name, ""), events, &Users::Few(Few::of((0..users).collect())));
        }
        let summary = Summary { countries: listing.finish(), ..Summary::default() };
        let told = Reached::countries([&summary].into_iter(), 3);
        let names: Vec<_> = told.places.iter().map(|(group, users)| format!("{group:?} {users}")).collect();
        assert_eq!(names, ["Country(\"d\") 60", "Country(\"c\") 50", "Country(\"f\") 49"]);
        assert!(told.truncated);
        let told = Reached::countries([&summary, &summary].into_iter(), 1_000);
        assert!(!told.truncated);
        let users: Vec<u64> = told.places.iter().map(|(_, users)| *users).collect();
        assert_eq!(users, [60, 50, 49, 3, 3, 2, 1]);
        assert_eq!(told.places[3].0, Dimension::Country("a".into()), "equally many go by name");
    }
}
