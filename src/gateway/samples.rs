//! Samples of validated events for those who look at the live feed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;

use super::validated::Validated;
use crate::event::decode;
use crate::fleet::{Lease, Outcome, Sample, Sampling};
use crate::log::{Bus, Subject};
use crate::source::CanonicalEvent;

/// Interval at which leases that were not renewed end.
const EXPIRY: Duration = Duration::from_secs(1);
/// Maximum events of a slice that are compared with filters: bounds the cost of a filter that hardly any event passes.
const LOOKED_AT: usize = 200;

/// Sends samples while a reporter asks for them.
#[derive(Clone)]
pub(super) struct Samples {
    sampling: Arc<Sampling>,
    bus: Bus,
}

impl Samples {
    /// No sample is sent until a reporter asks.
    pub fn new(bus: Bus) -> Self {
        Self { sampling: Arc::default(), bus }
    }

    /// Takes leases from the bus and ends those that were not renewed; `counted` is called for each lease.
    pub async fn listen(self, counted: impl Fn()) {
        let mut leases = self.bus.subscribe(Subject::Lease).await;
        let mut tick = tokio::time::interval(EXPIRY);
        loop {
            tokio::select! {
                Some(lease) = leases.next() => {
                    counted();
                    match serde_json::from_slice::<Lease>(&lease) {
                        Ok(lease) => self.sampling.renew(lease, Instant::now()),
                        Err(error) => tracing::debug!(%error, "a lease was not readable"),
                    }
                }
                _ = tick.tick() => self.sampling.expire(Instant::now()),
            }
        }
    }

    /// Sends samples of a slice, if any are asked for.
    pub fn offer(&self, body: &Bytes, validated: &Validated) {
        if !self.sampling.asked() || !self.sampling.has_room(Instant::now()) {
            return;
        }
        let samples = self.choose(body, validated);
        if !samples.is_empty() {
            let bus = self.bus.clone();
            actix::spawn(async move {
                for sample in samples {
                    bus.publish(Subject::Sample, sample).await;
                }
            });
        }
    }

    fn choose(&self, body: &Bytes, validated: &Validated) -> Vec<Bytes> {
        let mut samples = Vec::new();
        for rejected in validated.rejected.iter().take(LOOKED_AT) {
            let refusal = &rejected.refusal;
            let source = refusal.source.map(crate::source::Source::name);
            // A refused event has no valid type to filter by.
            if self.sampling.take(source, None, Outcome::Refused) {
                let kept = rejected.redacted.as_deref().unwrap_or(&body[rejected.bytes.clone()]);
                let id = refusal.event_id.as_deref();
                samples.push(Sample::new(source, None, id, Some(&refusal.errors), kept));
            }
        }
        let kept = validated.redacted.as_deref().unwrap_or(body);
        let accepted = validated.accepted.iter();
        let accepted = accepted.flat_map(|(source, ranges)| ranges.iter().map(move |range| (source, range)));
        for (source, range) in accepted.take(LOOKED_AT) {
            let bytes = &kept[range.clone()];
            if !source.is_built_in() {
                let Ok(event) = CanonicalEvent::read(bytes) else { continue };
                let (name, kind) = (Some(source.name()), Some(&*event.event_type));
                if self.sampling.take(name, kind, Outcome::Accepted) {
                    samples.push(Sample::new(name, kind, Some(&event.id), None, event.raw.as_bytes()));
                }
                continue;
            }
            // Without personal data the event may be valid no more: what is shown is read anew, and only a few are.
            let Ok(event) = decode(bytes, None) else { continue };
            let (source, kind) = (event.source.name(), event.kind.name());
            if self.sampling.take(Some(source), Some(kind), Outcome::Accepted) {
                samples.push(Sample::new(Some(source), Some(kind), Some(&event.id), None, bytes));
            }
        }
        samples.iter().filter_map(|sample| Some(serde_json::to_vec(sample).ok()?.into())).collect()
    }
}
