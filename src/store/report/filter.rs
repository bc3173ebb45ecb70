//! Filters of reports.

use crate::event::{FunnelStage, Source};
use crate::money::Currency;

/// Events that a report counts. Bounds are minutes since 1970, `from` inclusive, `to` exclusive; `None` is open.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// First minute.
    pub from: Option<i64>,
    /// Minute after the last.
    pub to: Option<i64>,
    /// Events of this source only.
    pub source: Option<Source>,
    /// Events of this stage only.
    pub stage: Option<FunnelStage>,
    /// Events of the types with these codes only.
    pub event_types: Option<Vec<i16>>,
    /// Events of this campaign only. Only revenue can be filtered by it.
    pub campaign_id: Option<String>,
    /// Currency in which campaigns are ranked. Sums of revenue name theirs.
    pub currency: Currency,
}

impl Filter {
    /// The sources whose events are counted.
    pub fn sources(&self) -> impl Iterator<Item = Source> + use<> {
        let only = self.source;
        // A source without a number has no rows.
        let stored = Source::all().filter(|source| source.code() != 0);
        stored.filter(move |source| only.is_none_or(|only| only == *source))
    }

    /// The same filter for one source.
    pub fn of(&self, source: Source) -> Self {
        Self { source: Some(source), ..self.clone() }
    }
}
