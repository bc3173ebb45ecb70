//! Summaries and deltas that together have each event of a range once, in one snapshot.

use std::collections::HashMap;
use std::sync::Arc;

use compact_str::CompactString;

use super::audience::{Audience, TopDimensions};
use super::builder::SummaryBuilder;
use super::campaign_revenue::{CampaignRevenue, merge_campaigns};
use super::span::{Span, cover};
use super::summary::Summary;
use super::unfolded::UnfoldedDeltas;
use crate::event::Source;
use crate::money::Currency;

/// Sections of summaries that a report reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sections {
    All,
    /// Campaigns alone: nothing is read if a summary of the range has none because there were too many.
    Campaigns,
}

/// Summaries and deltas of a source's range of hours.
pub struct SummaryView {
    pub source: Source,
    /// The range, in hours since 1970.
    from: i64,
    to: i64,
    /// Spans that cover the range.
    spans: Vec<Span>,
    /// Summaries that cover the range together.
    pub(super) summaries: Vec<Arc<Summary>>,
    /// True if campaigns were asked for, and a summary has none. Then no summary is here.
    pub(super) too_many_campaigns: bool,
    /// Deltas that are not folded yet, of any hours.
    pub(super) unfolded: Vec<Arc<UnfoldedDeltas>>,
    /// Hours of which the rows were summed up, deltas included.
    pub(super) hours_from_rows: Vec<i32>,
}

impl SummaryView {
    pub(super) fn new(source: Source, from: Option<i64>, to: Option<i64>) -> Self {
        Self {
            source,
            from: from.unwrap_or(0),
            to: to.unwrap_or(i64::MAX),
            spans: cover(from, to),
            summaries: Vec::new(),
            too_many_campaigns: false,
            unfolded: Vec::new(),
            hours_from_rows: Vec::new(),
        }
    }

    /// Summaries that together have each event of the range once.
    fn parts(&self) -> Vec<Arc<Summary>> {
        let mut parts = self.summaries.clone();
        for deltas in &self.unfolded {
            if self.hours_from_rows.is_empty() {
                parts.extend(self.spans.iter().filter_map(|span| deltas.sum(*span)));
            } else {
                let hours = deltas.hours().filter(|hour| self.needs_deltas_of(*hour));
                parts.extend(hours.filter_map(|hour| deltas.sum(Span::hour(hour))));
            }
        }
        parts
    }

    /// True if an hour is in the range and its rows were not summed up.
    fn needs_deltas_of(&self, hour: i32) -> bool {
        (self.from..self.to).contains(&i64::from(hour)) && !self.hours_from_rows.contains(&hour)
    }

    /// The summary of the whole range.
    pub(super) fn sum(&self) -> Summary {
        let mut builder = SummaryBuilder::default();
        self.parts().iter().for_each(|part| builder.add(part));
        builder.finish()
    }

    /// The audience without its countries and cities.
    pub fn audience(&self) -> Audience {
        Audience::of(self.parts().iter().map(|part| &**part))
    }

    /// The first countries by users.
    pub(in crate::store) fn countries(&self, limit: usize) -> TopDimensions {
        TopDimensions::countries(self.parts().iter().map(|part| &**part), limit)
    }

    /// The first cities by users.
    pub(in crate::store) fn cities(&self, limit: usize) -> TopDimensions {
        TopDimensions::cities(self.parts().iter().map(|part| &**part), limit)
    }

    /// Transactions, and revenue in millionths, by campaign, in one currency; `None` if there were too many campaigns for a summary.
    pub fn sum_campaigns(&self, currency: Currency) -> Option<HashMap<CompactString, (u64, i128)>> {
        if self.too_many_campaigns {
            return None;
        }
        let mut sums: HashMap<CompactString, (u64, i128)> = HashMap::new();
        for summary in self.parts() {
            let campaigns = summary.campaigns.as_ref()?.iter();
            for (key, sum) in campaigns.filter(|(key, _)| key.currency == currency.number()) {
                let known = match sums.get_mut(&key.campaign_id) {
                    Some(known) => known,
                    None => sums.entry(key.campaign_id.clone()).or_default(),
                };
                known.0 += sum.count;
                known.1 += sum.sum;
            }
        }
        Some(sums)
    }

    /// True if the rows of an hour were summed up, because its summary is stale.
    pub(super) fn is_from_rows(&self) -> bool {
        !self.hours_from_rows.is_empty()
    }

    /// True if a delta has revenue of a campaign in a currency.
    pub fn has_campaign_deltas(&self, currency: Currency) -> bool {
        let mut all = self.unfolded.iter().flat_map(|deltas| deltas.campaigns());
        all.any(|revenue| revenue.currency == currency.number())
    }

    /// Revenue in the deltas, by campaign, of any hours, in one currency.
    pub fn campaign_deltas(&self, currency: Currency) -> HashMap<String, CampaignRevenue> {
        let all = self.unfolded.iter().flat_map(|deltas| deltas.campaigns());
        let all = all.filter(|revenue| revenue.currency == currency.number()).cloned().collect();
        merge_campaigns(all).into_iter().map(|revenue| (revenue.campaign_id.clone(), revenue)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::delta::Delta;
    use super::super::hour_input::tests::event;
    use super::super::hour_input::{EventInput, HourInput};
    use super::*;

    /// A delta with one event of a campaign in each of some hours.
    fn deltas(hours: std::ops::Range<i32>) -> Arc<UnfoldedDeltas> {
        let mut delta = Delta::default();
        for hour in hours {
            let sale = EventInput { campaign_id: Some("c"), ..event(hour as u64) };
            delta.push_hour(hour, &[&HourInput::of([sale].into_iter())]);
        }
        Arc::new(UnfoldedDeltas::decode(&delta.encode().unwrap()).unwrap())
    }

    #[test]
    fn deltas_count_in_the_range_alone() {
        let mut view = SummaryView::new(Source::FACEBOOK, Some(10), Some(15));
        view.unfolded.push(deltas(0..100));
        assert_eq!(view.sum().events, 5);
        assert_eq!(view.audience().users, 5);
        // Campaigns over all time are not of a range.
        assert_eq!(view.campaign_deltas(Currency::USD)["c"].transactions, 100);
        assert!(view.has_campaign_deltas(Currency::USD));
        let euro = Currency::parse("EUR").unwrap();
        assert!(!view.has_campaign_deltas(euro) && view.campaign_deltas(euro).is_empty());
        assert_eq!(view.sum_campaigns(euro), Some(HashMap::new()));
        assert_eq!(view.sum_campaigns(Currency::USD).unwrap()["c"], (5, 5 * 1_250_000));
    }

    #[test]
    fn deltas_of_an_hour_whose_rows_were_summed_up_do_not_count_again() {
        let mut view = SummaryView::new(Source::FACEBOOK, Some(10), Some(15));
        view.unfolded.push(deltas(0..100));
        view.summaries.push(Arc::new(Summary { events: 7, ..Summary::default() }));
        view.hours_from_rows.push(12);
        assert!(view.is_from_rows());
        assert_eq!(view.sum().events, 4 + 7);
    }

    #[test]
    fn no_campaigns_are_summed_if_a_summary_has_none() {
        let mut view = SummaryView::new(Source::FACEBOOK, None, None);
        assert_eq!(view.sum_campaigns(Currency::USD), Some(HashMap::new()), "empty, with campaigns");
        view.summaries.push(Arc::new(Summary { campaigns: None, ..Summary::default() }));
        assert_eq!(view.sum_campaigns(Currency::USD), None);
    }
}
