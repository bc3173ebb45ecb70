//! Percentiles of a histogram whose buckets are counted by several processes.

use serde::{Deserialize, Serialize};

/// Median and 99th percentile, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Latency {
    /// Median.
    pub p50: f64,
    /// 99th percentile.
    pub p99: f64,
}

impl Latency {
    /// Percentiles of what buckets have counted; each bucket is its upper bound, in seconds, and the number of values up to
    /// it. `None` if nothing was counted. Within a bucket, values are taken to be spread evenly.
    pub fn of(buckets: &[(f64, u64)]) -> Option<Self> {
        let all = buckets.last()?.1;
        (all > 0).then(|| Self { p50: quantile(buckets, all, 0.5), p99: quantile(buckets, all, 0.99) })
    }
}

fn quantile(buckets: &[(f64, u64)], all: u64, share: f64) -> f64 {
    let wanted = all as f64 * share;
    let mut below = (0.0, 0);
    for &(bound, count) in buckets {
        if count as f64 >= wanted {
            if !bound.is_finite() {
                return below.0;
            }
            let within = (wanted - below.1 as f64) / (count - below.1).max(1) as f64;
            return below.0 + (bound - below.0) * within;
        }
        below = (bound, count);
    }
    below.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_lie_within_their_buckets() {
        let buckets = [(0.01, 50), (0.1, 90), (1.0, 100), (f64::INFINITY, 100)];
        let Latency { p50, p99 } = Latency::of(&buckets).unwrap();
        assert!((p50 - 0.01).abs() < 1e-9, "{p50}");
        assert!((p99 - 0.91).abs() < 1e-9, "{p99}");
    }

    #[test]
    fn values_beyond_the_last_bound_are_told_as_that_bound() {
        assert_eq!(Latency::of(&[(0.5, 0), (f64::INFINITY, 4)]), Some(Latency { p50: 0.5, p99: 0.5 }));
    }

    #[test]
    fn nothing_counted_has_no_percentiles() {
        assert_eq!(Latency::of(&[(0.5, 0)]), None);
        assert_eq!(Latency::of(&[]), None);
    }
}
