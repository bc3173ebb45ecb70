//! Metrics of the reporter.

use prometheus::{Histogram, HistogramVec, IntGaugeVec};

use super::catalog::{LEDGER_MISSING, REPORT_DURATION};
use super::{ServiceMetrics, set_known};
use crate::event::Source;

/// The reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Report {
    /// Counts of events.
    Events,
    /// Revenue.
    Revenue,
    /// Users by group.
    Demographics,
}

impl Report {
    const ALL: [Self; 3] = [Self::Events, Self::Revenue, Self::Demographics];

    /// The report as a label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Revenue => "revenue",
            Self::Demographics => "demographics",
        }
    }
}

/// Metrics of the reporter.
#[derive(Clone)]
pub struct ReporterMetrics {
    duration: HistogramVec,
    missing: IntGaugeVec,
}

impl ReporterMetrics {
    /// Registers the metrics with a service.
    pub fn new(service: &ServiceMetrics) -> Self {
        let duration = REPORT_DURATION.histograms(&service.registry);
        for report in Report::ALL {
            duration.with_label_values(&[report.as_str()]);
        }
        let missing = LEDGER_MISSING.gauges(&service.registry);
        for source in Source::all() {
            missing.with_label_values(&[source.name()]);
        }
        Self { duration, missing }
    }

    /// The histogram of a report.
    pub fn duration(&self, report: Report) -> Histogram {
        self.duration.with_label_values(&[report.as_str()])
    }

    /// Sets the number of published events that neither the log nor the store has; `None` if it is not known.
    pub fn set_missing(&self, source: Source, events: Option<u64>) {
        set_known(&self.missing, source, events);
    }
}
