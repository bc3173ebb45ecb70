//! The report of demographics: for each source the breakdowns that it declares.

use serde::ser::{SerializeMap, Serializer};
use serde::{Serialize, ser};
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::openapi::{Ref, RefOr};
use utoipa::{PartialSchema, ToSchema};

use super::answer::mean;
use super::form::{Table, range_line};
use super::query::Range;
use crate::event::{NANOS_PER_ONE, Source, name_of_code};
use crate::source::{Breakdown, DECLARED_DEMOGRAPHICS};
use crate::store::report::{AGE_BOUNDS, Audience, Dimension, FOLLOWER_BOUNDS};

/// Users that the events of a range reached, by source.
pub(super) struct DemographicsReport {
    pub range: Range,
    /// True if a count of users is an estimate: counts of 1,000 and more are.
    pub users_estimated: bool,
    pub sources: Vec<(Source, SourceDemographics)>,
}

/// Users that one source's events reached.
pub(super) struct SourceDemographics {
    events: u64,
    users: u64,
    parts: Vec<Part>,
}

/// The answer to one [`Breakdown`].
enum Part {
    AgeGroups(Vec<RangeUsers>),
    Genders(Vec<GenderUsers>),
    Followers(Followers),
    Countries(Vec<CountryUsers>),
    Cities {
        cities: Vec<CityUsers>,
        truncated: bool,
        /// Upper bound of the users that a shown city may have beyond its count, and that a city may have without being
        /// shown. It is 0, so that cities are as exact as `users`, unless a span of hours has more than 262,144 cities.
        estimated: u64,
    },
    Devices(Vec<DeviceUsers>),
    AverageWatchTime(f64),
    AveragePercentageWatched(f64),
}

/// Followers of the users.
#[derive(Serialize, ToSchema)]
struct Followers {
    average: f64,
    ranges: Vec<RangeUsers>,
}

/// Users in a range.
#[derive(Serialize, ToSchema)]
struct RangeUsers {
    #[schema(value_type = String)]
    range: &'static str,
    users: u64,
}

/// Users of a gender.
#[derive(Serialize, ToSchema)]
struct GenderUsers {
    #[schema(value_type = String)]
    gender: &'static str,
    users: u64,
}

/// Users in a country.
#[derive(Serialize, ToSchema)]
struct CountryUsers {
    country: String,
    users: u64,
}

/// Users in a city.
#[derive(Serialize, ToSchema)]
struct CityUsers {
    country: String,
    city: String,
    users: u64,
}

/// Users of a device.
#[derive(Serialize, ToSchema)]
struct DeviceUsers {
    #[schema(value_type = String)]
    device: &'static str,
    users: u64,
}

const AGE_RANGES: [&str; AGE_BOUNDS.len()] = ["0-17", "18-24", "25-34", "35-44", "45-54", "55-64", "65+"];
const FOLLOWER_RANGES: [&str; FOLLOWER_BOUNDS.len()] = ["0-999", "1K-10K", "10K-100K", "100K-1M", "1M+"];

/// Users by range of a dimension, in the order of the groups. `of` gives the lower bound of a group of that dimension.
fn ranges<T: PartialEq + Copy>(
    groups: &[(Dimension, u64)],
    bounds: &[T],
    names: &[&'static str],
    of: impl Fn(&Dimension) -> Option<T>,
) -> Vec<RangeUsers> {
    let entry = |(group, users): &(Dimension, u64)| {
        let low = of(group)?;
        let place = bounds.iter().position(|bound| *bound == low)?;
        Some(RangeUsers { range: names.get(place)?, users: *users })
    };
    groups.iter().filter_map(entry).collect()
}

/// Users by the name of an enum code, the most users first. `of` gives the code of a group of that dimension.
fn names(groups: &[(Dimension, u64)], of: impl Fn(&Dimension) -> Option<i16>) -> Vec<(&'static str, u64)> {
    let mut names: Vec<_> =
        groups.iter().filter_map(|(group, users)| Some((name_of_code(of(group)?), *users))).collect();
    names.sort_by_key(|(_, users)| std::cmp::Reverse(*users));
    names
}

fn countries(countries: &[(Dimension, u64)]) -> Vec<CountryUsers> {
    let entry = |(group, users): &(Dimension, u64)| match group {
        Dimension::Country(country) => Some(CountryUsers { country: country.to_string(), users: *users }),
        _ => None,
    };
    countries.iter().filter_map(entry).collect()
}

fn cities(cities: &[(Dimension, u64)]) -> Vec<CityUsers> {
    let entry = |(group, users): &(Dimension, u64)| match group {
        Dimension::City(country, city) => {
            Some(CityUsers { country: country.to_string(), city: city.to_string(), users: *users })
        }
        _ => None,
    };
    cities.iter().filter_map(entry).collect()
}

impl SourceDemographics {
    /// An audience by the breakdowns that its source declares.
    pub fn new(source: Source, audience: Audience) -> Self {
        let (events, users) = (audience.events, audience.users);
        let parts = source.demographics().iter().map(|breakdown| Part::new(*breakdown, &audience));
        // A built-in source's part has all breakdowns, empty or not.
        let parts = parts.filter(|part| source.is_built_in() || !part.is_empty()).collect();
        Self { events, users, parts }
    }
}

impl Part {
    fn new(breakdown: Breakdown, audience: &Audience) -> Self {
        let groups = &audience.groups;
        match breakdown {
            Breakdown::AgeGroups => {
                Self::AgeGroups(ranges(groups, &AGE_BOUNDS, &AGE_RANGES, |group| match group {
                    Dimension::Age(low) => Some(*low),
                    _ => None,
                }))
            }
            Breakdown::Genders => {
                let genders = names(groups, |group| match group {
                    Dimension::Gender(gender) => Some(*gender),
                    _ => None,
                });
                Self::Genders(
                    genders.into_iter().map(|(gender, users)| GenderUsers { gender, users }).collect(),
                )
            }
            Breakdown::Followers => Self::Followers(Followers {
                average: mean(audience.followers, 1),
                ranges: ranges(groups, &FOLLOWER_BOUNDS, &FOLLOWER_RANGES, |group| match group {
                    Dimension::Followers(low) => Some(*low),
                    _ => None,
                }),
            }),
            Breakdown::Countries => Self::Countries(countries(&audience.countries)),
            Breakdown::Cities => Self::Cities {
                cities: cities(&audience.cities),
                truncated: audience.cities_truncated,
                estimated: audience.cities_error_bound,
            },
            Breakdown::Devices => {
                let devices = names(groups, |group| match group {
                    Dimension::Device(device) => Some(*device),
                    _ => None,
                });
                Self::Devices(
                    devices.into_iter().map(|(device, users)| DeviceUsers { device, users }).collect(),
                )
            }
            Breakdown::AverageWatchTime => Self::AverageWatchTime(mean(audience.watch_time, NANOS_PER_ONE)),
            Breakdown::AveragePercentageWatched => {
                Self::AveragePercentageWatched(mean(audience.percentage_watched, NANOS_PER_ONE))
            }
        }
    }
}

impl Part {
    /// True if no event has a value for it.
    fn is_empty(&self) -> bool {
        match self {
            Self::AgeGroups(groups) => groups.is_empty(),
            Self::Genders(genders) => genders.is_empty(),
            Self::Followers(followers) => followers.ranges.is_empty(),
            Self::Countries(countries) => countries.is_empty(),
            Self::Cities { cities, .. } => cities.is_empty(),
            Self::Devices(devices) => devices.is_empty(),
            Self::AverageWatchTime(mean) | Self::AveragePercentageWatched(mean) => *mean == 0.0,
        }
    }
}

impl Serialize for DemographicsReport {
    fn serialize<S: Serializer>(&self, ser: S) -> Result<S::Ok, S::Error> {
        let mut map = ser.serialize_map(Some(2 + self.sources.len()))?;
        map.serialize_entry("range", &self.range)?;
        map.serialize_entry("usersEstimated", &self.users_estimated)?;
        for (source, demographics) in &self.sources {
            map.serialize_entry(source.name(), demographics)?;
        }
        map.end()
    }
}

impl Serialize for SourceDemographics {
    fn serialize<S: Serializer>(&self, ser: S) -> Result<S::Ok, S::Error> {
        let mut map = ser.serialize_map(None)?;
        map.serialize_entry("events", &self.events)?;
        map.serialize_entry("users", &self.users)?;
        for part in &self.parts {
            part.serialize_entries::<S::SerializeMap>(&mut map)?;
        }
        map.end()
    }
}

impl Part {
    fn serialize_entries<M: ser::SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        match self {
            Self::AgeGroups(groups) => map.serialize_entry("ageGroups", groups),
            Self::Genders(genders) => map.serialize_entry("genders", genders),
            Self::Followers(followers) => map.serialize_entry("followers", followers),
            Self::Countries(countries) => map.serialize_entry("countries", countries),
            Self::Cities { cities, truncated, estimated } => {
                map.serialize_entry("cities", cities)?;
                map.serialize_entry("citiesTruncated", truncated)?;
                map.serialize_entry("citiesEstimated", estimated)
            }
            Self::Devices(devices) => map.serialize_entry("devices", devices),
            Self::AverageWatchTime(mean) => map.serialize_entry("averageWatchTime", mean),
            Self::AveragePercentageWatched(mean) => map.serialize_entry("averagePercentageWatched", mean),
        }
    }
}

impl PartialSchema for DemographicsReport {
    fn schema() -> RefOr<Schema> {
        let estimated = ObjectBuilder::new()
            .schema_type(Type::Boolean)
            .description(Some("True if a count of users is an estimate: counts of 1,000 and more are"));
        let report = ObjectBuilder::new()
            .description(Some("Users that the events of a range reached, by source"))
            .property("range", Ref::from_schema_name(Range::name()))
            .required("range")
            .property("usersEstimated", estimated)
            .required("usersEstimated");
        let report = Source::built_in().fold(report, |report, source| {
            report.property(source.name(), Ref::from_schema_name(schema_name(source)))
        });
        // Any other member is a declared source.
        let declared = RefOr::<Schema>::Ref(Ref::from_schema_name(DECLARED_AUDIENCE));
        report.additional_properties(Some(declared)).into()
    }
}

impl ToSchema for DemographicsReport {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        fn add<T: ToSchema>(schemas: &mut Vec<(String, RefOr<Schema>)>) {
            schemas.push((T::name().into_owned(), T::schema()));
            T::schemas(schemas);
        }
        add::<Range>(schemas);
        add::<Followers>(schemas);
        add::<RangeUsers>(schemas);
        add::<GenderUsers>(schemas);
        add::<CountryUsers>(schemas);
        add::<CityUsers>(schemas);
        add::<DeviceUsers>(schemas);
        schemas.extend(Source::built_in().map(|source| {
            let about = format!("Users that the events of {} reached", source.title());
            (schema_name(source), source_schema(&about, source.demographics(), true))
        }));
        let about =
            "Users that the events of a declared source reached; breakdowns that its events have values for";
        schemas.push((DECLARED_AUDIENCE.to_owned(), source_schema(about, DECLARED_DEMOGRAPHICS, false)));
    }
}

/// The name of the schema of all declared sources.
const DECLARED_AUDIENCE: &str = "DeclaredSourceAudience";

/// The name of a source's schema, by its prefix.
fn schema_name(source: Source) -> String {
    format!("{}Audience", source.schema_prefix())
}

/// The schema of a source's part; `complete` if it has all breakdowns, empty or not.
fn source_schema(about: &str, breakdowns: &[Breakdown], complete: bool) -> RefOr<Schema> {
    let count = || ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0));
    let number = || ObjectBuilder::new().schema_type(Type::Number);
    let list = |name: std::borrow::Cow<'static, str>| Ref::from_schema_name(name).to_array_builder();
    let mut schema = ObjectBuilder::new()
        .description(Some(about))
        .property("events", count())
        .required("events")
        .property("users", count())
        .required("users");
    for breakdown in breakdowns {
        schema = match breakdown {
            Breakdown::AgeGroups => schema.property("ageGroups", list(RangeUsers::name())).required("ageGroups"),
            Breakdown::Genders => schema.property("genders", list(GenderUsers::name())).required("genders"),
            Breakdown::Followers => {
                schema.property("followers", Ref::from_schema_name(Followers::name())).required("followers")
            }
            Breakdown::Countries => schema.property("countries", list(CountryUsers::name())).required("countries"),
            Breakdown::Cities => schema
                .property("cities", list(CityUsers::name()))
                .required("cities")
                .property(
                    "citiesTruncated",
                    ObjectBuilder::new()
                        .schema_type(Type::Boolean)
                        .description(Some("True if there are cities that are not shown")),
                )
                .required("citiesTruncated")
                .property(
                    "citiesEstimated",
                    count().description(Some(
                        "Upper bound of the users that a shown city may have beyond its count, and that a city may \
                         have without being shown. It is 0, so that cities are as exact as `users`, unless a span of \
                         hours has more than 262,144 cities.",
                    )),
                )
                .required("citiesEstimated"),
            Breakdown::Devices => schema.property("devices", list(DeviceUsers::name())).required("devices"),
            Breakdown::AverageWatchTime => schema
                .property("averageWatchTime", number().description(Some("Seconds")))
                .required("averageWatchTime"),
            Breakdown::AveragePercentageWatched => {
                schema.property("averagePercentageWatched", number()).required("averagePercentageWatched")
            }
        };
    }
    let mut object = schema.build();
    if !complete {
        object.required.retain(|member| member == "events" || member == "users");
    }
    Schema::Object(object).into()
}

impl Table for DemographicsReport {
    const COLUMNS: &'static [&'static str] =
        &["section", "from", "to", "source", "group", "country", "events", "users", "average"];

    fn lines(&self) -> Vec<Vec<String>> {
        let mut lines = vec![range_line(&self.range, Self::COLUMNS.len())];
        lines.push(line("usersEstimated", ["", &self.users_estimated.to_string(), ""], Numbers::None));
        for (source, SourceDemographics { events, users, parts }) in &self.sources {
            lines.push(line("total", [source.name(), "", ""], Numbers::Total(*events, *users)));
            parts.iter().for_each(|part| part.add_lines(source.name(), &mut lines));
        }
        lines
    }
}

/// The numbers of a line of CSV.
#[derive(Clone, Copy)]
enum Numbers {
    None,
    Total(u64, u64),
    Users(u64),
    Average(f64),
}

/// A line of CSV; `cells` are source, group and country.
fn line(section: &str, cells: [&str; 3], numbers: Numbers) -> Vec<String> {
    let none = String::new;
    let numbers = match numbers {
        Numbers::None => [none(), none(), none()],
        Numbers::Total(events, users) => [events.to_string(), users.to_string(), none()],
        Numbers::Users(users) => [none(), users.to_string(), none()],
        Numbers::Average(average) => [none(), none(), average.to_string()],
    };
    let [source, group, country] = cells;
    [section, "", "", source, group, country].map(str::to_owned).into_iter().chain(numbers).collect()
}

impl Part {
    fn add_lines(&self, source: &str, lines: &mut Vec<Vec<String>>) {
        use Numbers::{Average, None, Users};
        let ranges = |section: &str, ranges: &[RangeUsers], lines: &mut Vec<Vec<String>>| {
            lines.extend(ranges.iter().map(|it| line(section, [source, it.range, ""], Users(it.users))));
        };
        match self {
            Self::AgeGroups(groups) => ranges("ageGroups", groups, lines),
            Self::Genders(genders) => lines
                .extend(genders.iter().map(|it| line("genders", [source, it.gender, ""], Users(it.users)))),
            Self::Followers(followers) => {
                lines.push(line("followers", [source, "", ""], Average(followers.average)));
                ranges("followers.ranges", &followers.ranges, lines);
            }
            Self::Countries(countries) => lines.extend(
                countries.iter().map(|it| line("countries", [source, "", &it.country], Users(it.users))),
            ),
            Self::Cities { cities, truncated, estimated } => {
                let each = |it: &CityUsers| line("cities", [source, &it.city, &it.country], Users(it.users));
                lines.extend(cities.iter().map(each));
                lines.push(line("citiesTruncated", [source, &truncated.to_string(), ""], None));
                lines.push(line("citiesEstimated", [source, "", ""], Users(*estimated)));
            }
            Self::Devices(devices) => lines
                .extend(devices.iter().map(|it| line("devices", [source, it.device, ""], Users(it.users)))),
            Self::AverageWatchTime(mean) => {
                lines.push(line("averageWatchTime", [source, "", ""], Average(*mean)));
            }
            Self::AveragePercentageWatched(mean) => {
                lines.push(line("averagePercentageWatched", [source, "", ""], Average(*mean)));
            }
        }
    }
}
