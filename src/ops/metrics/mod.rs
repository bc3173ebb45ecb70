//! Metrics: declared once in the [`catalog`], registered here, service by service.
//!
//! Labels come from enums alone, never from input. Counters exist, at 0, for every value of their labels from the
//! start, so that a rate counts the first event, too.

mod actors;
pub mod catalog;
mod collector;
mod gateway;
mod reporter;
mod service;

use prometheus::IntGaugeVec;

use crate::event::Source;

pub use collector::CollectorMetrics;
pub use gateway::{GatewayFailure, GatewayMetrics, RequestOutcome};
pub use reporter::{Report, ReporterMetrics};
pub use service::ServiceMetrics;

/// The label of an event whose source was not valid.
pub const UNKNOWN_SOURCE: &str = "unknown";

/// The label of a source.
pub fn source_label(source: Option<Source>) -> &'static str {
    source.map_or(UNKNOWN_SOURCE, Source::name)
}

/// A value for a gauge; one beyond its range is the largest.
fn level(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Sets a source's gauge. Removes it if its value is not known, so that no old value is shown.
fn set_known(gauge: &IntGaugeVec, source: Source, value: Option<u64>) {
    match value {
        Some(value) => gauge.with_label_values(&[source.name()]).set(level(value)),
        // The error says that it was removed before.
        None => drop(gauge.remove_label_values(&[source.name()])),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::catalog::{METRICS, Metric, Scope};
    use super::*;
    use crate::log::{Topic, TopicState};
    use crate::ops::readiness::Readiness;
    use crate::runtime::{Drain, Phase, Tree};

    /// Types of the metrics that a service serves, by name, without those of the library.
    fn served(service: &ServiceMetrics) -> BTreeMap<String, String> {
        let text = service.text(Phase::Running, &Readiness::new("gateway", &["database"])).unwrap();
        let text = String::from_utf8(text).unwrap();
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ess_")?.split_once(' '));
        types.map(|(name, kind)| (format!("ess_{name}"), kind.to_owned())).collect()
    }

    #[test]
    fn each_service_serves_the_metrics_of_the_catalogue_and_no_others() {
        for scope in Scope::ALL {
            let service = ServiceMetrics::new(Tree::new("service", Drain::default().handle()));
            service.count_request("/health", 200);
            match scope {
                Scope::Service => {}
                Scope::Gateway => {
                    let metrics = GatewayMetrics::new(&service, ["anonymous"]);
                    metrics.set_log(
                        Topic::DeadLetters,
                        &TopicState {
                            log_id: uuid::Uuid::nil(),
                            first: 1,
                            last: 1,
                            held: 1,
                            gone: None,
                            bytes: 1,
                            max_bytes: 2,
                            acknowledged: std::collections::HashMap::new(),
                            copies: None,
                        },
                    );
                    metrics.count_leader(Topic::DeadLetters);
                }
                Scope::Collector => {
                    let metrics = CollectorMetrics::new(&service);
                    metrics.set_lag(Source::FACEBOOK, Some(1));
                    metrics.set_damaged(Source::FACEBOOK, Some(0));
                }
                Scope::Reporter => drop(ReporterMetrics::new(&service)),
            }
            let of_service = |metric: &&Metric| metric.scope == scope || metric.scope == Scope::Service;
            // Actors' metrics are there as soon as there is an actor.
            let expected =
                METRICS.iter().filter(of_service).filter(|metric| !metric.labels.contains(&"actor"));
            let expected: BTreeMap<_, _> =
                expected.map(|metric| (metric.name.to_owned(), metric.kind.as_str().to_owned())).collect();
            assert_eq!(served(&service), expected, "{scope:?}");
        }
    }

    #[test]
    fn a_gauge_whose_value_is_not_known_is_absent() {
        let service = ServiceMetrics::new(Tree::new("service", Drain::default().handle()));
        let metrics = ReporterMetrics::new(&service);
        assert!(served(&service).contains_key("ess_ledger_missing_events"));
        for source in Source::all() {
            metrics.set_missing(source, None);
            metrics.set_missing(source, None);
        }
        assert!(!served(&service).contains_key("ess_ledger_missing_events"));
    }
}
