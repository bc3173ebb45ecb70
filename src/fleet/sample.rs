//! Samples of events as a gateway validates them, sent only while a reporter asks for them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::event::FieldError;

/// Duration of a lease; a reporter renews it while somebody looks.
pub(super) const LEASE: Duration = Duration::from_secs(6);
/// Leases that a gateway keeps: one for each filter that somebody has chosen.
const MAX_LEASES: usize = 32;
/// Samples a second for each lease.
pub(super) const SAMPLES_PER_SECOND: u32 = 20;
/// Largest event that a sample carries whole, in bytes.
const MAX_EVENT_BYTES: usize = 8 * 1_024;
/// Errors that a sample carries.
const MAX_ERRORS: usize = 20;

/// Result of validating an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The event is valid.
    Accepted,
    /// The event was refused.
    Refused,
}

/// Filter of samples; an empty one takes all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SampleFilter {
    /// Events of this source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Events of this type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_type: Option<String>,
    /// Events with this outcome.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
}

impl SampleFilter {
    /// True if an event of this source, type and outcome passes.
    pub fn takes(&self, source: Option<&str>, event_type: Option<&str>, outcome: Outcome) -> bool {
        self.source.as_deref().is_none_or(|wanted| source == Some(wanted))
            && self.event_type.as_deref().is_none_or(|wanted| event_type == Some(wanted))
            && self.outcome.is_none_or(|wanted| outcome == wanted)
    }
}

/// A reporter's request for samples, for the next few seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Events that are asked for.
    pub filter: SampleFilter,
}

/// An event as it was validated.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sample {
    /// Time of validation, RFC 3339.
    pub at: String,
    /// The source; null if it could not be read.
    pub source: Option<String>,
    /// The type of event; null if it could not be read.
    pub event_type: Option<String>,
    /// The event's id; null if it could not be read.
    pub event_id: Option<String>,
    /// Result.
    pub outcome: Outcome,
    /// Errors of a refused event.
    pub errors: Vec<SampleError>,
    /// The event without what `ESS_PII` takes out; null if it is larger than 8 KiB or is no JSON.
    pub event: Option<Box<RawValue>>,
    /// Length of the event, in bytes.
    pub bytes: usize,
}

/// An error of a refused event, at its path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SampleError {
    /// Dotted path; empty for the event itself.
    pub path: String,
    /// The fault.
    pub message: String,
}

impl Sample {
    /// A sample of an event; `kept` are its bytes as they may be shown.
    pub fn new(
        source: Option<&str>,
        event_type: Option<&str>,
        event_id: Option<&str>,
        errors: Option<&[FieldError]>,
        kept: &[u8],
    ) -> Self {
        let error =
            |error: &FieldError| SampleError { path: error.path.clone(), message: error.message.clone() };
        let text = (kept.len() <= MAX_EVENT_BYTES).then(|| std::str::from_utf8(kept).ok()).flatten();
        Self {
            at: chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
            source: source.map(str::to_owned),
            event_type: event_type.map(str::to_owned),
            event_id: event_id.map(str::to_owned),
            outcome: if errors.is_some() { Outcome::Refused } else { Outcome::Accepted },
            errors: errors.unwrap_or_default().iter().take(MAX_ERRORS).map(error).collect(),
            event: text.and_then(|text| RawValue::from_string(text.to_owned()).ok()),
            bytes: kept.len(),
        }
    }
}

struct Active {
    lease: Lease,
    until: Instant,
    second: Instant,
    left: u32,
}

/// Leases of a gateway: the decision whether an event is sampled. Costs one atomic load for each slice of a body while
/// nobody looks.
#[derive(Default)]
pub struct Sampling {
    asked: AtomicBool,
    leases: Mutex<Vec<Active>>,
}

impl Sampling {
    /// True if samples are asked for.
    pub fn asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// Begins a lease, or renews it.
    pub fn renew(&self, lease: Lease, now: Instant) {
        let mut leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        let until = now + LEASE;
        if let Some(known) = leases.iter_mut().find(|known| known.lease == lease) {
            known.until = until;
        } else if leases.len() < MAX_LEASES {
            leases.push(Active { lease, until, second: now, left: SAMPLES_PER_SECOND });
        } else {
            return;
        }
        self.asked.store(true, Ordering::Relaxed);
    }

    /// Ends leases that were not renewed.
    pub fn expire(&self, now: Instant) {
        let mut leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        leases.retain(|known| known.until > now);
        self.asked.store(!leases.is_empty(), Ordering::Relaxed);
    }

    /// True if any lease may still give a sample this second. Nothing is taken.
    pub fn has_room(&self, now: Instant) -> bool {
        let mut leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        leases.iter_mut().for_each(|known| known.begin_second(now));
        leases.iter().any(|known| known.left > 0)
    }

    /// Takes room for a sample of each lease whose filter it passes; false if no lease wants it.
    pub fn take(&self, source: Option<&str>, event_type: Option<&str>, outcome: Outcome) -> bool {
        let mut leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = false;
        for known in leases.iter_mut().filter(|known| known.left > 0) {
            if known.lease.filter.takes(source, event_type, outcome) {
                known.left -= 1;
                taken = true;
            }
        }
        taken
    }
}

impl Active {
    fn begin_second(&mut self, now: Instant) {
        if now.duration_since(self.second) >= Duration::from_secs(1) {
            self.second = now;
            self.left = SAMPLES_PER_SECOND;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(source: Option<&str>, outcome: Option<Outcome>) -> Lease {
        Lease { filter: SampleFilter { source: source.map(str::to_owned), event_type: None, outcome } }
    }

    #[test]
    fn nothing_is_sampled_unless_asked_for_and_no_longer_than_a_lease() {
        let sampling = Sampling::default();
        let now = Instant::now();
        assert!(!sampling.asked() && !sampling.take(Some("facebook"), None, Outcome::Accepted));
        sampling.renew(lease(None, None), now);
        assert!(sampling.asked() && sampling.take(Some("facebook"), None, Outcome::Accepted));
        sampling.expire(now + LEASE / 2);
        assert!(sampling.asked());
        sampling.expire(now + LEASE);
        assert!(!sampling.asked() && !sampling.take(Some("facebook"), None, Outcome::Accepted));
    }

    #[test]
    fn each_lease_has_its_own_rate_so_that_rare_events_are_not_crowded_out() {
        let sampling = Sampling::default();
        let now = Instant::now();
        sampling.renew(lease(None, None), now);
        sampling.renew(lease(None, Some(Outcome::Refused)), now);
        let accepted =
            (0..1_000).filter(|_| sampling.take(Some("facebook"), None, Outcome::Accepted)).count();
        assert_eq!(accepted, SAMPLES_PER_SECOND as usize);
        assert!(sampling.has_room(now));
        let refused = (0..1_000).filter(|_| sampling.take(None, None, Outcome::Refused)).count();
        assert_eq!(refused, SAMPLES_PER_SECOND as usize);
        assert!(!sampling.has_room(now));
        assert!(sampling.has_room(now + Duration::from_secs(1)));
    }

    #[test]
    fn leases_are_bounded() {
        let sampling = Sampling::default();
        for number in 0..2 * MAX_LEASES {
            sampling.renew(lease(Some(&number.to_string()), None), Instant::now());
        }
        assert_eq!(sampling.leases.lock().unwrap().len(), MAX_LEASES);
    }

    #[test]
    fn a_sample_carries_no_event_beyond_its_bound_and_few_errors() {
        let large = format!("\"{}\"", "x".repeat(MAX_EVENT_BYTES));
        let errors: Vec<FieldError> = (0..100)
            .map(|number| FieldError { path: format!("data.x{number}"), message: "is unknown".to_owned() })
            .collect();
        let sample = Sample::new(Some("facebook"), None, None, Some(&errors), large.as_bytes());
        assert!(
            sample.event.is_none() && sample.errors.len() == MAX_ERRORS && sample.outcome == Outcome::Refused
        );
        assert_eq!(sample.bytes, large.len());
        let sample = Sample::new(Some("facebook"), Some("ad.view"), Some("1"), None, br#"{"a":1}"#);
        assert_eq!(sample.event.unwrap().get(), r#"{"a":1}"#);
        assert!(Sample::new(None, None, None, Some(&[]), b"not json").event.is_none());
    }
}
