//! Counts and latencies of the events that were sent.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// Maximum latency of the histogram, in microseconds; longer ones count as this one.
const LONGEST: u64 = 120_000_000;

/// Failures in a row without a pause.
const TOLERATED: u32 = 8;
/// The first pause; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Pauses between POSTs while each of them fails, so that a gateway that is away or overloaded does not receive thousands
/// of requests a second. The next answer ends the pauses.
#[derive(Debug, Default)]
pub struct BackOff {
    /// Failures in a row.
    failures: u32,
    /// Pause before the next POST; zero for none.
    pause: Duration,
    next: Option<Instant>,
}

impl BackOff {
    fn failed(&mut self, why: &str) {
        self.failures = self.failures.saturating_add(1);
        if self.failures > TOLERATED && self.pause.is_zero() {
            tracing::warn!(why, "every POST fails; the next ones wait");
            self.pause = FIRST_PAUSE;
            self.next = Some(Instant::now() + FIRST_PAUSE);
        }
    }

    /// Time of the next POST while all fail; `None` for now. Each call doubles the pause.
    pub(super) fn turn(&mut self) -> Option<Instant> {
        let turn = self.next?.max(Instant::now());
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        self.next = Some(turn + self.pause);
        Some(turn)
    }
}

/// Counts of events and POSTs, and latencies of POSTs.
#[derive(Debug)]
pub struct Tally {
    /// Number of events that were sent.
    pub sent: u64,
    /// Number of events that the gateway accepted.
    pub accepted: u64,
    /// Number of events that the gateway rejected.
    pub rejected: u64,
    /// Number of events of POSTs that failed.
    pub failed: u64,
    /// Number of POSTs.
    pub posts: u64,
    /// Error of the last POST that failed.
    pub last_failure: Option<String>,
    /// Pauses after POSTs that failed.
    pub failing: BackOff,
    latencies: Histogram<u64>,
}

impl Default for Tally {
    fn default() -> Self {
        #[allow(clippy::expect_used)]
        let latencies = Histogram::new_with_bounds(1, LONGEST, 3).expect("the bounds are in order");
        Self {
            sent: 0,
            accepted: 0,
            rejected: 0,
            failed: 0,
            posts: 0,
            last_failure: None,
            failing: BackOff::default(),
            latencies,
        }
    }
}

impl Tally {
    /// Counts a POST that was answered with 202 or 422.
    pub fn answered(&mut self, latency: Duration, accepted: u64, rejected: u64) {
        self.failing = BackOff::default();
        self.accepted += accepted;
        self.rejected += rejected;
        self.latencies.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(LONGEST));
    }

    /// Counts a POST of so many events that failed.
    pub fn failed(&mut self, events: u64, why: String) {
        self.failed += events;
        self.failing.failed(&why);
        self.last_failure = Some(why);
    }

    fn percentiles(&self) -> [(&'static str, f64); 5] {
        let at = |quantile| self.latencies.value_at_quantile(quantile) as f64 / 1_000.0;
        [("p50", at(0.5)), ("p90", at(0.9)), ("p99", at(0.99)), ("p999", at(0.999)), ("max", at(1.0))]
    }

    /// The result as JSON; latencies in milliseconds.
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

    /// The result as lines of text.
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
