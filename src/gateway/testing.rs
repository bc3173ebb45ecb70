//! Real parts for the gateway's tests: an embedded log in a temporary folder, and actors in a tree.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use actix::Arbiter;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use prometheus::IntGauge;
use tempfile::TempDir;

use super::body::{Budget, Reservation};
use super::dead_letters::{self, DeadLetters};
use super::publish::FramePublisher;
use crate::config::LogSettings;
use crate::event::Source;
use crate::log::embedded::Embedded;
use crate::log::{
    AppendError, Appended, Bus, Frame, Log, LogError, Origin, Pull, SharedLog, Topic, TopicState,
};
use crate::ops::metrics::{GatewayMetrics, ServiceMetrics};
use crate::runtime::{Drain, Group, Mailbox, Tree};

/// Requests that one mailbox holds.
const BOUND: usize = 1_000;

/// An embedded log whose answers to the first appends can be replaced.
pub struct FaultyLog {
    log: Embedded,
    /// Answers to the next appends; true if the frame is appended nevertheless.
    faults: Mutex<Vec<(AppendError, bool)>>,
    /// True while no append is answered.
    pub away: AtomicBool,
    /// Ids of all frames that were appended, in order.
    pub ids: Mutex<Vec<String>>,
    /// Number of appends.
    pub appends: AtomicUsize,
}

impl FaultyLog {
    /// Replaces the answer to the next append that has none yet. The frame is in the log if `appended` is true.
    pub fn fail_next(&self, fault: AppendError, appended: bool) {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).push((fault, appended));
    }

    /// Frames of a topic, in order.
    pub async fn frames(&self, topic: Topic) -> Vec<Bytes> {
        let last = self.log.state(topic).await.unwrap().last;
        let mut frames = Vec::new();
        for sequence in 1..=last {
            frames.push(self.log.peek(topic, sequence).await.unwrap().unwrap());
        }
        frames
    }

    /// Events of one source's topic, in order.
    pub async fn events(&self, source: Source) -> Vec<String> {
        let frames = self.frames(Topic::Events(source)).await.into_iter();
        let frames = frames.map(|frame| Frame::read(frame).unwrap());
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        frames.flat_map(|frame| frame.events().map(|event| text(event.bytes)).collect::<Vec<_>>()).collect()
    }
}

impl Log for FaultyLog {
    fn append(&self, topic: Topic, id: String, frame: Bytes) -> BoxFuture<'_, Result<Appended, AppendError>> {
        async move {
            self.appends.fetch_add(1, Ordering::Relaxed);
            self.ids.lock().unwrap_or_else(PoisonError::into_inner).push(id.clone());
            if self.away.load(Ordering::Relaxed) {
                return Err(AppendError::Unavailable("away".into()));
            }
            let fault = {
                let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
                (!faults.is_empty()).then(|| faults.remove(0))
            };
            match fault {
                None => self.log.append(topic, id, frame).await,
                Some((fault, false)) => Err(fault),
                Some((fault, true)) => self.log.append(topic, id, frame).await.and(Err(fault)),
            }
        }
        .boxed()
    }

    fn prepare(&self, topic: Topic) -> BoxFuture<'_, Result<(), LogError>> {
        self.log.prepare(topic)
    }

    fn pull(&self, topic: Topic, most: usize) -> BoxFuture<'_, Result<Pull, LogError>> {
        self.log.pull(topic, most)
    }

    fn state(&self, topic: Topic) -> BoxFuture<'_, Result<TopicState, LogError>> {
        self.log.state(topic)
    }

    fn peek(&self, topic: Topic, sequence: u64) -> BoxFuture<'_, Result<Option<Bytes>, LogError>> {
        self.log.peek(topic, sequence)
    }

    fn topics(&self) -> BoxFuture<'_, Result<Vec<String>, LogError>> {
        self.log.topics()
    }

    fn bus(&self) -> Bus {
        self.log.bus()
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), LogError>> {
        self.log.flush()
    }
}

/// The parts of a gateway beneath its routes.
pub struct TestGateway {
    pub log: Arc<FaultyLog>,
    pub group: Group,
    pub metrics: GatewayMetrics,
    pub budget: Budget,
    /// Time during which the log recognises a frame.
    window: Duration,
    _drain: Drain,
    _folder: TempDir,
}

impl TestGateway {
    /// Parts with a log of `max_bytes` a source.
    pub async fn start(max_bytes: u64, window: Duration) -> Self {
        let (folder, drain) = (tempfile::tempdir().unwrap(), Drain::default());
        let settings = LogSettings {
            max_bytes,
            dead_letter_max_bytes: 1 << 20,
            max_age: None,
            duplicate_window: window,
            replicas: 1,
            streams: 1,
        };
        let log = Embedded::open(&folder.path().join("log.redb"), settings).unwrap();
        for topic in Topic::all() {
            log.prepare(topic).await.unwrap();
        }
        let log = FaultyLog {
            log,
            faults: Mutex::default(),
            away: AtomicBool::new(false),
            ids: Mutex::default(),
            appends: AtomicUsize::new(0),
        };
        let tree = Tree::new("gateway", drain.handle());
        Self {
            log: Arc::new(log),
            group: tree.group("requests"),
            metrics: GatewayMetrics::new(&ServiceMetrics::new(tree), ["anonymous"]),
            budget: Budget::new(64 << 20, IntGauge::new("held", "Bytes held").unwrap()),
            window,
            _drain: drain,
            _folder: folder,
        }
    }

    pub fn shared_log(&self) -> SharedLog {
        self.log.clone()
    }

    /// Starts the frame publisher of a source.
    pub fn publisher(&self, source: Source) -> Mailbox<FramePublisher> {
        self.starts_publishers(usize::MAX)(source)
    }

    /// Starts the frame publisher of a source, whose waiting requests hold at most `share` bytes while the log is away.
    pub fn publisher_with_share(&self, source: Source, share: usize) -> Mailbox<FramePublisher> {
        self.starts_publishers(share)(source)
    }

    /// Starts the frame publisher of any source, each with such a share.
    pub fn starts_publishers(
        &self,
        share: usize,
    ) -> impl Fn(Source) -> Mailbox<FramePublisher> + Send + Sync + 'static {
        let (log, metrics, window) = (self.shared_log(), self.metrics.clone(), self.window);
        let (group, thread) = (self.group.clone(), Arbiter::current());
        move |source| {
            let (log, metrics) = (log.clone(), metrics.clone());
            group.actor(&format!("publish.{source}"), BOUND, &thread, move || {
                FramePublisher::new(source, log.clone(), metrics.clone(), window, share)
            })
        }
    }

    pub fn dead_letters(&self) -> DeadLetters {
        DeadLetters::new(&self.shared_log(), &self.metrics, |make| {
            self.group.actor("publish.dead_letters", dead_letters::BOUND, &Arbiter::current(), make)
        })
    }

    pub fn reservation(&self) -> Arc<Reservation> {
        Arc::new(self.budget.reservation(true))
    }
}

/// The origin of a request.
pub fn origin(correlation_id: &str) -> Arc<Origin> {
    Arc::new(Origin { correlation_id: correlation_id.to_owned(), traceparent: None, accepted_at: 1 })
}
