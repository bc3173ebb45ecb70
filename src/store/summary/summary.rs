//! The summary of a span of hours of one source.

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use super::dimension::{Dimension, Sum};
use super::encoding::{Encoded, encode_amounts};
use super::geo_counts::GeoCounts;
use crate::sketch::UserSet;
use crate::store::error::StoreError;

/// Versions of a summary's encoding, for campaigns in one currency and in several; see [`super::earlier`] for those before.
pub(super) const VERSION: u8 = 3;
pub(super) const SEVERAL_CURRENCIES: u8 = 4;

/// One type of event of one campaign, in one currency.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) struct CampaignKey {
    /// Code of the type of event.
    pub(super) event_type: i16,
    pub(super) campaign_id: CompactString,
    /// Number of the currency; stored apart, see [`super::encoding`].
    #[serde(skip)]
    pub(super) currency: i16,
}

/// A dimension with its events and its users.
pub(super) type Group = (Dimension, u64, UserSet);

/// Summary of a span of hours of one source. The order of the fields is part of the stored format.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Summary {
    /// Events.
    pub(super) events: u64,
    /// Followers of the users, one value per event.
    pub(super) followers: Sum,
    /// Billionths of seconds.
    pub(super) watch_time: Sum,
    /// Billionths of percent.
    pub(super) percentage_watched: Sum,
    /// All users.
    pub(super) users: UserSet,
    /// Events and users by dimension, ascending, without countries and cities.
    pub(super) groups: Vec<Group>,
    /// Events and users by country.
    pub(super) countries: GeoCounts,
    /// Events and users by city.
    pub(super) cities: GeoCounts,
    /// Revenue by campaign in millionths, ascending; `None` if there were too many campaigns.
    pub(super) campaigns: Option<Vec<(CampaignKey, Sum)>>,
}

impl Summary {
    /// Encodes the summary for its row.
    pub(super) fn encode(&self) -> Result<Encoded, StoreError> {
        let currencies = self.campaigns.iter().flatten().map(|(key, _)| key.currency);
        encode_amounts(self, currencies, (VERSION, SEVERAL_CURRENCIES), self.size())
    }

    /// The currency of each campaign.
    pub(super) fn currencies_mut(&mut self) -> impl Iterator<Item = &mut i16> {
        self.campaigns.iter_mut().flatten().map(|(key, _)| &mut key.currency)
    }

    pub(super) fn validate(self) -> Result<Self, StoreError> {
        validate_users(&self.users, &self.groups)?;
        Ok(self)
    }

    /// True if both can be of the same events: equal within the error bounds of countries and cities, and in their
    /// campaigns if both have them.
    pub(super) fn agrees(&self, other: &Self) -> bool {
        let sums = |summary: &Self| {
            (summary.events, summary.followers, summary.watch_time, summary.percentage_watched)
        };
        // Equal users have equal hashes and registers, in whatever order they were added.
        sums(self) == sums(other)
            && self.users == other.users
            && self.groups == other.groups
            && self.countries.agrees(&other.countries)
            && self.cities.agrees(&other.cities)
            && (self.campaigns.is_none() || other.campaigns.is_none() || self.campaigns == other.campaigns)
    }

    /// Approximate bytes in memory.
    pub(super) fn size(&self) -> usize {
        let users: usize = self.groups.iter().map(|(_, _, users)| users.heap_size()).sum();
        let campaigns = self.campaigns.as_ref().map_or(0, Vec::len);
        size_of::<Self>()
            + size_of_val(self.groups.as_slice())
            + users
            + self.users.heap_size()
            + self.countries.size()
            + self.cities.size()
            + campaigns * size_of::<(CampaignKey, Sum)>()
    }
}

/// An error if a decoded set of users is corrupt.
pub(super) fn validate_users(users: &UserSet, groups: &[Group]) -> Result<(), StoreError> {
    if users.is_valid() && groups.iter().all(|(_, _, users)| users.is_valid()) {
        return Ok(());
    }
    Err(StoreError::corrupt("a set of users has too few or too many registers"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_with_a_corrupt_set_of_users_is_refused() {
        // Sparse registers of half an entry, dense ones of 8 and of 4 bits that are too few.
        for users in [vec![1, 2, 7, 7], vec![2, 1, 7], vec![3, 9, 1, 7, 0]] {
            let mut body = vec![VERSION, 1, 0, 0, 0, 0, 0, 0];
            body.extend(users);
            body.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            let refused = Summary::decode(&Encoded { currency: 0, body: body.clone() });
            assert!(matches!(refused, Err(StoreError::Corrupt { .. })), "{body:?}: {refused:?}");
        }
    }
}
