//! Formats of earlier versions, which are only read.
//!
//! | version | summary | delta |
//! |---|---|---|
//! | 1 | countries and cities among the groups, registers of 8 bits only | summed up in the transaction of the rows |
//! | 2 | the same, with registers of 4 bits | events ([`super::delta::Delta`]) |
//! | 3 | [`super::summary::Summary`] | the same, with the currencies of its sales |
//! | 4 | the same, with the currencies of its campaigns | |
//!
//! Version 2 of a delta and version 3 of a summary are still written where all amounts are in one currency.

use serde::Deserialize;

use super::campaign_revenue::CampaignRevenue;
use super::dimension::{Dimension, Sum};
use super::encoding::{Encoded, decode};
use super::geo_counts::GeoCountsBuilder;
use super::summary::{CampaignKey, Group, Summary, validate_users};
use crate::sketch::UserSet;
use crate::store::error::StoreError;

/// Versions of summaries that a [`SummaryV2`] is decoded from.
pub(super) const V1: u8 = 1;
pub(super) const V2: u8 = 2;
/// Version of a [`DeltaV1`].
pub(super) const DELTA_V1: u8 = 1;

/// Countries, and cities, that versions 1 and 2 kept.
const LOCATIONS_MAX: usize = 1_000;

/// A summary of version 1 or 2.
#[derive(Deserialize)]
pub(super) struct SummaryV2 {
    events: u64,
    followers: Sum,
    watch_time: Sum,
    percentage_watched: Sum,
    users: UserSet,
    /// Includes the 1,000 countries and the 1,000 cities with the most events.
    groups: Vec<Group>,
    /// True if countries or cities were left out.
    truncated: bool,
    campaigns: Option<Vec<(CampaignKey, Sum)>>,
}

impl SummaryV2 {
    /// The same summary in today's form. The events of all locations that were left out may be those of a single one.
    pub(super) fn upgrade(self) -> Result<Summary, StoreError> {
        let Self { events, followers, watch_time, percentage_watched, users, campaigns, .. } = self;
        validate_users(&users, &self.groups)?;
        let (mut countries, mut cities) = (GeoCountsBuilder::default(), GeoCountsBuilder::default());
        let mut groups = Vec::new();
        for (dimension, events, users) in self.groups {
            match &dimension {
                Dimension::Country(country) => countries.add((country, ""), events, &users),
                Dimension::City(country, city) => cities.add((country, city), events, &users),
                _ => groups.push((dimension, events, users)),
            }
        }
        let (mut countries, mut cities) = (countries.finish(), cities.finish());
        if self.truncated {
            if countries.len() >= LOCATIONS_MAX {
                countries = countries.with_error(events.saturating_sub(countries.events()));
            }
            cities = cities.with_error(events.saturating_sub(cities.events()));
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

/// A delta of version 1: summaries by hour, and the revenue of all campaigns.
#[derive(Debug)]
pub(super) struct DeltaV1 {
    pub(super) hours: Vec<(i32, Summary)>,
    pub(super) campaigns: Vec<CampaignRevenue>,
}

impl DeltaV1 {
    /// Decodes a stored delta of version 1.
    pub(super) fn decode(stored: &Encoded) -> Result<Self, StoreError> {
        #[derive(Deserialize)]
        struct Stored {
            hours: Vec<(i32, SummaryV2)>,
            campaigns: Vec<CampaignRevenue>,
        }
        let Stored { hours, mut campaigns } = decode(&stored.body, DELTA_V1)?;
        campaigns.iter_mut().for_each(|campaign| campaign.currency = stored.currency);
        let hours = hours.into_iter().map(|(hour, summary)| {
            let mut summary = summary.upgrade()?;
            summary.currencies_mut().for_each(|currency| *currency = stored.currency);
            Ok((hour, summary))
        });
        Ok(Self { hours: hours.collect::<Result<_, StoreError>>()?, campaigns })
    }
}

#[cfg(test)]
mod tests {
    use super::super::builder::SummaryBuilder;
    use super::super::summary::VERSION;
    use super::*;

    #[test]
    fn a_summary_of_version_1_is_read_and_written_as_version_3() {
        // One event, one group, registers of 8 bits.
        let mut body = vec![V1, 12, 0, 0, 0, 0, 0, 0];
        let dense8 = |body: &mut Vec<u8>| {
            body.extend([2, 0x80, 0x80, 2]);
            body.extend(vec![3; 1 << 15]);
        };
        dense8(&mut body);
        body.extend([2, 1, 2, 9]);
        dense8(&mut body);
        // A city of 4 events, with one user; other cities were left out.
        body.extend([5, 1, b'a', 1, b'b', 4, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8]);
        body.extend([1, 0]);
        let read = Summary::decode(&Encoded { currency: 840, body }).unwrap();
        assert_eq!((read.events, read.campaigns.as_deref()), (12, None));
        assert_eq!(read.groups[0].0, Dimension::Gender(1));
        assert_eq!((read.groups.len(), read.groups[0].1, read.groups[0].2 == read.users), (1, 9, true));
        assert_eq!(format!("{:?}", read.cities), "[((\"a\", \"b\"), 4, 1 users)]");
        assert_eq!((read.cities.error_bound(), read.countries.error_bound()), (8, 0));
        let mut builder = SummaryBuilder::default();
        builder.add(&read);
        let stored = builder.finish().encode().unwrap();
        assert_eq!(stored.body[0], VERSION);
        assert!(stored.body.len() < 1 << 16, "{} bytes", stored.body.len());
        let again = Summary::decode(&stored).unwrap();
        assert!(again.agrees(&read) && again.cities == read.cities);
    }
}
