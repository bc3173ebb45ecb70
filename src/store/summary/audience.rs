//! Users and events of a range of hours, as reports show them.

use super::Map;
use super::dimension::{Dimension, Sum};
use super::geo_counts::{GeoCounts, Name, TopLocations};
use super::summary::Summary;
use crate::sketch::{UserSet, UserSetBuilder};

/// Users that a range of hours reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Audience {
    /// Events.
    pub events: u64,
    /// Users, each counted once.
    pub users: u64,
    /// True if a number of users is an estimate.
    pub estimated: bool,
    /// Followers of the users, one value per event.
    pub followers: Sum,
    /// Billionths of seconds.
    pub watch_time: Sum,
    /// Billionths of percent.
    pub percentage_watched: Sum,
    /// Users by dimension, ascending, without countries and cities.
    pub groups: Vec<(Dimension, u64)>,
    /// The countries with the most users, those first.
    pub countries: Vec<(Dimension, u64)>,
    /// The cities with the most users, those first.
    pub cities: Vec<(Dimension, u64)>,
    /// True if there are more cities than are listed.
    pub cities_truncated: bool,
    /// Largest number of users that a city may have beyond its count, or without being listed; 0 if all is exact.
    pub cities_error_bound: u64,
}

/// The countries, or the cities, with the most users.
pub(in crate::store) type TopDimensions = TopLocations<Dimension>;

impl TopDimensions {
    /// The first countries of spans that do not overlap.
    pub(super) fn countries<'s>(parts: impl Iterator<Item = &'s Summary>, limit: usize) -> Self {
        let dimension = |(country, _): Name<'_>| Dimension::Country(country.into());
        Self::of(parts.map(|part| &part.countries), limit, dimension)
    }

    /// The first cities of spans that do not overlap.
    pub(super) fn cities<'s>(parts: impl Iterator<Item = &'s Summary>, limit: usize) -> Self {
        let dimension = |(country, city): Name<'_>| Dimension::City(country.into(), city.into());
        Self::of(parts.map(|part| &part.cities), limit, dimension)
    }

    fn of<'s>(
        parts: impl Iterator<Item = &'s GeoCounts>,
        limit: usize,
        dimension: impl Fn(Name<'_>) -> Dimension,
    ) -> Self {
        let parts: Vec<GeoCounts> = parts.cloned().collect();
        let TopLocations { locations, truncated, error_bound } = GeoCounts::top(&parts, limit);
        let locations = locations.into_iter().map(|(name, users)| (dimension(name), users)).collect();
        Self { locations, truncated, error_bound }
    }
}

impl Audience {
    /// Sums spans that do not overlap, without countries and cities.
    pub(super) fn of<'s>(parts: impl Iterator<Item = &'s Summary>) -> Self {
        let mut audience = Self::default();
        let mut sets: Vec<&UserSet> = Vec::new();
        let mut groups: Map<&Dimension, (u64, Vec<&UserSet>)> = Map::default();
        for part in parts {
            audience.events += part.events;
            audience.followers.merge(part.followers);
            audience.watch_time.merge(part.watch_time);
            audience.percentage_watched.merge(part.percentage_watched);
            sets.push(&part.users);
            for (dimension, events, users) in &part.groups {
                let known = groups.entry(dimension).or_default();
                known.0 += events;
                known.1.push(users);
            }
        }
        let count =
            |events, sets: Vec<&UserSet>| UserSetBuilder::union(sets.into_iter()).count_of_events(events);
        (audience.users, audience.estimated) = count(audience.events, sets);
        audience.groups = groups
            .into_iter()
            .map(|(dimension, (events, sets))| (dimension.clone(), count(events, sets).0))
            .collect();
        audience.groups.sort();
        audience
    }

    /// The same audience with its countries and cities.
    #[must_use]
    pub(in crate::store) fn with_locations(
        mut self,
        countries: TopDimensions,
        cities: TopDimensions,
    ) -> Self {
        self.countries = countries.locations;
        self.estimated |= countries.error_bound > 0;
        (self.cities, self.cities_truncated) = (cities.locations, cities.truncated);
        self.cities_error_bound = cities.error_bound;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::super::geo_counts::GeoCountsBuilder;
    use super::*;
    use crate::sketch::Exact;

    fn summary_of(countries: &[(&str, u64, u64)]) -> Summary {
        let mut builder = GeoCountsBuilder::default();
        for (name, events, users) in countries {
            builder.add((name, ""), *events, &UserSet::Exact(Exact::new((0..*users).collect())));
        }
        Summary { countries: builder.finish(), ..Summary::default() }
    }

    #[test]
    fn the_countries_with_the_most_users_are_found_among_those_with_many_events() {
        // The most users are not where the most events are.
        let summary = summary_of(&[
            ("a", 100, 3),
            ("b", 90, 3),
            ("c", 80, 50),
            ("d", 60, 60),
            ("e", 55, 2),
            ("f", 49, 49),
            ("g", 1, 1),
        ]);
        let top = TopDimensions::countries([&summary].into_iter(), 3);
        let country = |name: &str, users| (Dimension::Country(name.into()), users);
        assert_eq!(top.locations, [country("d", 60), country("c", 50), country("f", 49)]);
        assert!(top.truncated);
        let top = TopDimensions::countries([&summary, &summary].into_iter(), 1_000);
        assert!(!top.truncated);
        let users: Vec<u64> = top.locations.iter().map(|(_, users)| *users).collect();
        assert_eq!(users, [60, 50, 49, 3, 3, 2, 1]);
        assert_eq!(top.locations[3], country("a", 3), "equal ones are ordered by name");
    }

    #[test]
    fn a_user_of_several_spans_is_counted_once() {
        let users = |ids: std::ops::Range<u64>| UserSet::Exact(Exact::new(ids.collect()));
        let of = |ids: std::ops::Range<u64>, age| Summary {
            events: 10,
            users: users(ids.clone()),
            groups: vec![(Dimension::Age(age), 10, users(ids))],
            ..Summary::default()
        };
        let parts = [of(0..4, 18), of(2..6, 18), of(5..6, 25)];
        let audience = Audience::of(parts.iter());
        assert_eq!((audience.events, audience.users, audience.estimated), (30, 6, false));
        assert_eq!(audience.groups, [(Dimension::Age(18), 6), (Dimension::Age(25), 1)]);
    }
}
