//! The live feed: rates of each source once a second, and samples of events, for its viewers.
//!
//! One task of the reporter listens to the bus, keeps the board of processes, and gives each viewer what its filter
//! takes. A viewer has a bounded queue: one that reads slowly misses samples and is told how many; it never slows
//! others.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use serde::Serialize;
use tokio::sync::mpsc;

use crate::event::Source;
use crate::fleet::{Board, Flow, KnownInstance, Lease, Sample, SampleFilter, Status};
use crate::ledger::{LogBytes, Reconciler, Reconciliation};
use crate::log::{Bus, Subject};
use crate::runtime::DrainHandle;

/// Viewers of one reporter at one time.
const MAX_VIEWERS: usize = 256;
/// Messages that wait for a viewer that reads slowly: some seconds of the feed.
const QUEUE: usize = 64;
/// Interval of flows.
const INTERVAL: Duration = Duration::from_secs(1);
/// Samples a second for each viewer.
const SAMPLES_PER_SECOND: u32 = 20;
/// Longest wait for the ledger of a flow.
const LEDGER_TIMEOUT: Duration = Duration::from_secs(2);

/// The feed's state, shared by its task and the handlers.
pub(super) struct Live {
    bus: Bus,
    ledger: Option<Arc<Reconciler>>,
    board: Mutex<Board>,
    viewers: Mutex<Vec<Viewer>>,
}

/// Somebody who looks at the feed.
struct Viewer {
    filter: SampleFilter,
    queue: mpsc::Sender<Bytes>,
    /// Samples that may still be sent in this second.
    left: u32,
    /// Samples that were left out since the viewer was told last.
    missed: u64,
}

/// The sources whose ledger is known now.
type Ledger = Vec<(Source, Reconciliation)>;

#[derive(Serialize)]
struct Missed {
    samples: u64,
}

/// A message of the feed, as Server-Sent Events have it.
fn message<T: Serialize>(event: &str, data: &T) -> Option<Bytes> {
    // An event's own JSON may have line breaks between its tokens, which would end the line of the message.
    let data = serde_json::to_string(data).ok()?.replace(['\n', '\r'], " ");
    Some(format!("event: {event}\ndata: {data}\n\n").into())
}

impl Live {
    /// A feed without viewers.
    pub fn new(bus: Bus, ledger: Option<Arc<Reconciler>>) -> Self {
        Self { bus, ledger, board: Mutex::default(), viewers: Mutex::default() }
    }

    /// Services that were heard of in the last 10 s.
    pub fn instances(&self) -> Vec<KnownInstance> {
        let mut board = self.board.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        board.forget(now);
        board.instances(now).collect()
    }

    /// The bus, to ask another process for something.
    pub fn bus(&self) -> &Bus {
        &self.bus
    }

    /// Adds a viewer; `None` if there are too many.
    pub fn watch(&self, filter: SampleFilter) -> Option<mpsc::Receiver<Bytes>> {
        let (queue, messages) = mpsc::channel(QUEUE);
        let mut viewers = self.viewers.lock().unwrap_or_else(PoisonError::into_inner);
        viewers.retain(|viewer| !viewer.queue.is_closed());
        if viewers.len() >= MAX_VIEWERS {
            return None;
        }
        viewers.push(Viewer { filter, queue, left: SAMPLES_PER_SECOND, missed: 0 });
        Some(messages)
    }

    /// Listens to the bus and feeds the viewers until the service drains; `counted` is called for each message.
    pub async fn run(&self, drain: DrainHandle, counted: impl Fn()) {
        let mut statuses = self.bus.subscribe(Subject::Status).await;
        let mut samples = self.bus.subscribe(Subject::Sample).await;
        let mut tick = tokio::time::interval(INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = drain.started() => break,
                Some(status) = statuses.next() => {
                    counted();
                    self.note(&status);
                }
                Some(sample) = samples.next() => {
                    counted();
                    self.show(&sample);
                }
                _ = tick.tick() => self.tick().await,
                // Both subscriptions have ended: the task begins again.
                else => return,
            }
        }
        // Ends each viewer's answer.
        self.viewers.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn note(&self, status: &[u8]) {
        match serde_json::from_slice::<Status>(status) {
            Ok(status) => {
                self.board.lock().unwrap_or_else(PoisonError::into_inner).note(status, Instant::now())
            }
            Err(error) => tracing::debug!(%error, "a status was not readable"),
        }
    }

    /// Gives a sample to each viewer whose filter takes it.
    fn show(&self, bytes: &[u8]) {
        let Ok(sample) = serde_json::from_slice::<Sample>(bytes) else { return };
        let Some(text) = message("sample", &sample) else { return };
        let mut viewers = self.viewers.lock().unwrap_or_else(PoisonError::into_inner);
        for viewer in viewers.iter_mut() {
            if !viewer.filter.takes(sample.source.as_deref(), sample.event_type.as_deref(), sample.outcome) {
                continue;
            }
            // Half of the queue is left for flows.
            if viewer.left == 0
                || viewer.queue.capacity() <= QUEUE / 2
                || viewer.queue.try_send(text.clone()).is_err()
            {
                viewer.missed += 1;
            } else {
                viewer.left -= 1;
            }
        }
    }

    /// Once a second: renews leases, and tells what flows.
    async fn tick(&self) {
        let filters = self.filters();
        if filters.is_empty() {
            // Rates are since the last look.
            let _ = self.board.lock().unwrap_or_else(PoisonError::into_inner).look();
            return;
        }
        for filter in filters {
            if let Ok(lease) = serde_json::to_vec(&Lease { filter }) {
                self.bus.publish(Subject::Lease, lease.into()).await;
            }
        }
        let ledger = self.ledger().await;
        let (mut sources, post_to_row) = self.board.lock().unwrap_or_else(PoisonError::into_inner).look();
        for flow in &mut sources {
            let Some((_, known)) = ledger.iter().find(|(source, _)| source.name() == flow.source) else {
                continue;
            };
            (flow.in_flight, flow.missing) = (Some(known.ledger.in_flight), Some(known.ledger.missing));
            let LogBytes { held, bound } = known.log_bytes;
            (flow.log_bytes, flow.log_max_bytes) = (Some(held), Some(bound));
        }
        let at = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
        let Some(flow) = message("flow", &Flow { at, sources, post_to_row }) else { return };
        let mut viewers = self.viewers.lock().unwrap_or_else(PoisonError::into_inner);
        for viewer in viewers.iter_mut() {
            viewer.left = SAMPLES_PER_SECOND;
            // A full queue misses this flow; the next one is newer.
            let _ = viewer.queue.try_send(flow.clone());
            if viewer.missed > 0
                && let Some(missed) = message("missed", &Missed { samples: viewer.missed })
                && viewer.queue.try_send(missed).is_ok()
            {
                viewer.missed = 0;
            }
        }
    }

    /// Filters of those who look, each once.
    fn filters(&self) -> HashSet<SampleFilter> {
        let mut viewers = self.viewers.lock().unwrap_or_else(PoisonError::into_inner);
        viewers.retain(|viewer| !viewer.queue.is_closed());
        viewers.iter().map(|viewer| viewer.filter.clone()).collect()
    }

    async fn ledger(&self) -> Ledger {
        let Some(reconciler) = &self.ledger else { return Vec::new() };
        let all = async {
            let mut all = Ledger::new();
            for source in Source::all() {
                // A source whose ledger is not known now has no figures.
                if let Ok(of) = reconciler.reconcile(source).await {
                    all.push((source, of));
                }
            }
            all
        };
        tokio::time::timeout(LEDGER_TIMEOUT, all).await.unwrap_or_default()
    }
}
