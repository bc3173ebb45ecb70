//! A summary that grows by events and by other summaries.

use std::collections::HashMap;

use super::Map;
use super::dimension::{Dimension, Sum};
use super::geo_counts::{GeoCountsBuilder, GeoCountsMerger};
use super::hour_input::HourInput;
use super::summary::{CampaignKey, Summary};
use crate::sketch::UserSetBuilder;

/// Largest number of campaigns in a summary. With more it has none.
const CAMPAIGNS_MAX: usize = 1_000;

/// A summary that grows.
#[derive(Default, Clone)]
pub(super) struct SummaryBuilder {
    events: u64,
    followers: Sum,
    watch_time: Sum,
    percentage_watched: Sum,
    users: UserSetBuilder,
    groups: Map<Dimension, (u64, UserSetBuilder)>,
    countries: GeoCountsMerger,
    cities: GeoCountsMerger,
    campaigns: HashMap<CampaignKey, Sum>,
    too_many_campaigns: bool,
}

impl SummaryBuilder {
    /// Adds events.
    pub(super) fn add_input(&mut self, input: &HourInput) {
        self.events += input.users.len() as u64;
        self.followers.merge(input.followers);
        self.watch_time.merge(input.watch_time);
        self.percentage_watched.merge(input.percentage_watched);
        self.users.add_hashes(&mut input.users.to_vec());
        for sale in input.sales.iter().filter(|_| !self.too_many_campaigns) {
            let key = CampaignKey {
                event_type: sale.event_type,
                campaign_id: sale.campaign_id.clone(),
                currency: sale.currency,
            };
            self.campaigns.entry(key).or_default().add(Some(sale.revenue));
        }
        let (mut countries, mut cities) = (GeoCountsBuilder::default(), GeoCountsBuilder::default());
        input.for_each_dimension(|dimension, users| match dimension {
            Dimension::Country(country) => countries.add_users((country, ""), users),
            Dimension::City(country, city) => cities.add_users((country, city), users),
            _ => self.add_to_group(dimension, |group| {
                group.0 += users.len() as u64;
                group.1.add_hashes(users);
            }),
        });
        self.countries.add(&countries.finish());
        self.cities.add(&cities.finish());
        self.bound_campaigns();
    }

    /// Adds events of several transactions. They are merged first, since the cost of adding depends on the number of
    /// inputs and dimensions more than on that of events.
    pub(super) fn add_inputs(&mut self, inputs: &[&HourInput]) {
        match inputs {
            [] => {}
            [one] => self.add_input(one),
            several => self.add_input(&HourInput::merge(several)),
        }
    }

    /// Adds the summary of another span.
    pub(super) fn add(&mut self, other: &Summary) {
        self.events += other.events;
        self.followers.merge(other.followers);
        self.watch_time.merge(other.watch_time);
        self.percentage_watched.merge(other.percentage_watched);
        self.users.add(&other.users);
        for (dimension, events, users) in &other.groups {
            self.add_to_group(dimension, |group| {
                group.0 += events;
                group.1.add(users);
            });
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
        self.bound_campaigns();
    }

    /// Adds to the events and users of a dimension, which is cloned only if it is new.
    fn add_to_group(&mut self, dimension: &Dimension, add: impl FnOnce(&mut (u64, UserSetBuilder))) {
        match self.groups.get_mut(dimension) {
            Some(group) => add(group),
            None => add(self.groups.entry(dimension.clone()).or_default()),
        }
    }

    /// Drops all campaigns if there are too many.
    fn bound_campaigns(&mut self) {
        if self.campaigns.len() > CAMPAIGNS_MAX || self.too_many_campaigns {
            self.too_many_campaigns = true;
            self.campaigns = HashMap::new();
        }
    }

    pub(super) fn finish(self) -> Summary {
        let group =
            |(dimension, (events, users)): (_, (_, UserSetBuilder))| (dimension, events, users.finish());
        let mut groups: Vec<_> = self.groups.into_iter().map(group).collect();
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
    use super::super::hour_input::EventInput;
    use super::super::hour_input::tests::event;
    use super::*;

    fn sales(campaigns: std::ops::Range<usize>) -> HourInput {
        let names: Vec<String> = campaigns.map(|campaign| format!("c-{campaign}")).collect();
        let sale = |name| EventInput { campaign_id: Some(name), ..event(1) };
        HourInput::of(names.iter().map(|name| sale(name.as_str())).collect::<Vec<_>>().into_iter())
    }

    #[test]
    fn a_summary_has_no_campaigns_once_there_are_more_than_a_thousand() {
        let mut builder = SummaryBuilder::default();
        builder.add_input(&sales(0..1_000));
        let thousand = builder.clone().finish();
        assert_eq!(thousand.campaigns.as_ref().map(Vec::len), Some(1_000));
        builder.add_input(&sales(1_000..1_001));
        let more = builder.finish();
        assert_eq!((more.events, more.campaigns.as_ref()), (1_001, None));
        // A sum of such a summary has none either.
        let mut sum = SummaryBuilder::default();
        sum.add(&more);
        sum.add(&SummaryBuilder::default().finish());
        assert_eq!(sum.finish().campaigns, None);
    }

    #[test]
    fn events_add_up_the_same_in_one_input_or_several() {
        let inputs = [sales(0..3), sales(1..5), sales(0..1)];
        let mut together = SummaryBuilder::default();
        together.add_inputs(&inputs.iter().collect::<Vec<_>>());
        let mut apart = SummaryBuilder::default();
        for input in &inputs {
            let mut one = SummaryBuilder::default();
            one.add_input(input);
            apart.add(&one.finish());
        }
        let (together, apart) = (together.finish(), apart.finish());
        assert!(together.agrees(&apart), "{together:?} {apart:?}");
        assert_eq!((together.events, together.campaigns.map_or(0, |campaigns| campaigns.len())), (8, 5));
    }
}
