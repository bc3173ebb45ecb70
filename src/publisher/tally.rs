//! What became of what was sent.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// The longest latency that is told apart, in microseconds.
const LONGEST: u64 = 120_000_000;

/// Counts, in events, and latencies, by POST.
#[derive(Debug)]
pub struct Tally {
    /// Events that were sent.
    pub sent: u64,
    /// Events that the gateway took.
    pub accepted: u64,
    /// Events that the gateway refused.
    pub rejected: u64,
    /// Events of POSTs without an answer that says more.
    pub failed: u64,
    /// POSTs.
    pub posts: u64,
    /// POSTs that failed, and why the last one did.
    pub last_failure: Option<String>,
    latencies: Histogram<u64>,
}

impl Default for Tally {
    fn default() -> Self {
        #[allow(clippy::expect_used)]
        let latencies = Histogram::new_with_bounds(1, LONGEST, 3).expect("the bounds are in order");
        Self { sent: 0, accepted: 0, rejected: 0, failed: 0, posts: 0, last_failure: None, latencies }
    }
}

impl Tally {
    /// Counts a POST that was answered.
    pub fn answered(&mut self, latency: Duration, accepted: u64, rejected: u64) {
        self.accepted += accepted;
        self.rejected += rejected;
        self.latencies.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(LONGEST));
    }

    /// Counts a POST of so many events that failed.
    pub fn failed(&mut self, events: u64, why: String) {
        self.failed += events;
        self.last_failure = Some(why);
    }

    fn percentiles(&self) -> [(&'static str, f64); 5] {
        let at = |quantile| self.latencies.value_at_quantile(quantile) as f64 / 1_000.0;
        [("p50", at(0.5)), ("p90", at(0.9)), ("p99", at(0.99)), ("p999", at(0.999)), ("max", at(1.0))]
    }

    /// All of it as JSON; latencies in milliseconds.
    pub fn json(&self, elapsed: Duration) -> Value {
        let latencies: serde_json::Map<String, Value> =
            self.percentiles().into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
        json!({
            "sent": self.sent,
            "accepted": self.accepted,
            "rejected": self.rejected,
            "failed": self.failed,
            "posts": self.posts,
            "seconds": elapsed.as_secs_f64(),
            "latencyMs": latencies,
            "lastFailure": self.last_failure,
        })
    }

    /// All of it in lines for people.
    pub fn lines(&self, elapsed: Duration) -> Vec<String> {
        let seconds = elapsed.as_secs_f64();
        let rate = self.sent as f64 / seconds.max(0.001);
        let latencies: Vec<_> =
            self.percentiles().iter().map(|(name, value)| format!("{name} {value:.1} ms")).collect();
        let mut lines = vec![
            format!(
                "sent      {} events in {} POSTs, {seconds:.1} s, {rate:.0} events/s",
                self.sent, self.posts
            ),
            format!("accepted  {}", self.accepted),
            format!("rejected  {}", self.rejected),
            format!("failed    {}", self.failed),
            format!("latency   {}", latencies.join(", ")),
        ];
        lines.extend(self.last_failure.iter().map(|why| format!("last failure: {why}")));
        lines
    }
}
