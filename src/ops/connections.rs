//! Connections that are open, as their requests and the sweeper know them.
//!
//! The HTTP library gives the first head of a connection its time, and none to those after it, and it takes a client
//! that is slow to read for one that rests. So each connection tells here what it waits for, and since when; one
//! sweeper looks at them all and wakes those whose time is over.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use actix_web::HttpRequest;
use futures::task::AtomicWaker;
use prometheus::IntGauge;

use super::head::Refusal;

/// Interval at which a request looks at whether its client has left.
const LOOK: Duration = Duration::from_millis(250);
/// Bounds of the interval between two looks at all connections.
const SWEEP: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(500));

/// Event that a connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    /// The first head.
    FirstHead = 0,
    /// A later head, of which some bytes have come.
    Head = 4,
    /// The next request.
    Idle = 1,
    /// A request's body, its handler, or the client to read the answer.
    Busy = 2,
    /// The client to end its side.
    Closing = 3,
}

/// One that is open. Its stream and its requests are on one thread; the sweeper is on another.
pub(super) struct Connection {
    /// The beginning of all times here.
    began: Instant,
    phase: AtomicU8,
    /// Milliseconds from `began` to the last change of the phase, or to the last progress of a write.
    since: AtomicU64,
    /// True while the client does not read what was written.
    pub write_blocked: AtomicBool,
    /// True once the answer to the current request was handed to the library whole.
    pub answered: AtomicBool,
    /// True if the connection ends with the current answer.
    pub last: AtomicBool,
    /// True while bytes of the current request's body are still to come.
    pub body_open: AtomicBool,
    /// True if the time of the phase is over.
    pub expired: AtomicBool,
    /// True if the client has ended its sending side.
    pub gone: AtomicBool,
    /// The answer to a head that cannot be served.
    refusal: Mutex<Option<Refusal>>,
    pub refused: AtomicBool,
    /// The task that serves the connection.
    pub task: AtomicWaker,
    gauge: IntGauge,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Connection {
    /// The first bytes of a head have come.
    pub fn begin_head(&self) {
        if self.phase.load(Ordering::Relaxed) != Phase::FirstHead as u8 {
            self.enter(Phase::Head);
        }
    }

    /// Begins a phase.
    pub fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
        self.progress();
    }

    /// Counts time from now on.
    pub fn progress(&self) {
        self.since.store(millis(self.began.elapsed()), Ordering::Relaxed);
    }

    /// Leaves a refusal for the handler of the request that stands for the refused one.
    pub fn refuse(&self, refusal: Refusal) {
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(refusal);
        self.refused.store(true, Ordering::Relaxed);
    }

    /// The refusal of the current request, if it was refused.
    pub fn take_refusal(&self) -> Option<Refusal> {
        if !self.refused.swap(false, Ordering::Relaxed) {
            return None;
        }
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Wakes the connection's task if its time is over.
    fn look(&self, now: u64, limits: &Limits) {
        let waits = Duration::from_millis(now.saturating_sub(self.since.load(Ordering::Relaxed)));
        let phase = self.phase.load(Ordering::Relaxed);
        let over = match phase {
            _ if self.write_blocked.load(Ordering::Relaxed) => waits > limits.idle,
            phase if phase == Phase::FirstHead as u8 => waits > limits.head,
            phase if phase == Phase::Head as u8 => waits > limits.head.min(limits.idle),
            phase if phase == Phase::Idle as u8 => waits > limits.idle,
            _ => false,
        };
        if over {
            self.expired.store(true, Ordering::Relaxed);
        }
        if over || phase == Phase::Closing as u8 {
            self.task.wake();
        }
    }
}

/// A connection as its requests know it.
#[derive(Clone)]
pub(super) struct Handle(pub Arc<Connection>);

/// Times of connections.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// For a head, from its first byte; for the first one, from the connection's beginning. A later one has no more
    /// than `idle`.
    pub head: Duration,
    /// Between two requests, and for a client that reads nothing.
    pub idle: Duration,
}

/// All that are open.
pub(super) struct Connections {
    open: Mutex<Vec<Weak<Connection>>>,
    began: Instant,
    limits: Limits,
    gauge: IntGauge,
}

impl Connections {
    /// Ends those whose time is over, as long as there is a listener.
    pub fn new(limits: Limits, gauge: IntGauge) -> Arc<Self> {
        let connections = Arc::new(Self { open: Mutex::default(), began: Instant::now(), limits, gauge });
        let known = Arc::downgrade(&connections);
        tokio::spawn(async move {
            let pause = (limits.idle.min(limits.head) / 8).clamp(SWEEP.0, SWEEP.1);
            while let Some(connections) = known.upgrade() {
                connections.sweep();
                drop(connections);
                tokio::time::sleep(pause).await;
            }
        });
        connections
    }

    /// Remembers a new connection.
    pub fn open(&self) -> Arc<Connection> {
        self.gauge.inc();
        let connection = Arc::new(Connection {
            began: self.began,
            phase: AtomicU8::new(Phase::FirstHead as u8),
            since: AtomicU64::new(millis(self.began.elapsed())),
            write_blocked: AtomicBool::new(false),
            answered: AtomicBool::new(false),
            last: AtomicBool::new(false),
            body_open: AtomicBool::new(false),
            expired: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            refusal: Mutex::default(),
            refused: AtomicBool::new(false),
            task: AtomicWaker::new(),
            gauge: self.gauge.clone(),
        });
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.push(Arc::downgrade(&connection));
        connection
    }

    fn sweep(&self) {
        let now = millis(self.began.elapsed());
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|connection| match connection.upgrade() {
            Some(connection) => {
                connection.look(now, &self.limits);
                true
            }
            None => false,
        });
    }
}

/// The connection of a request.
pub(super) fn connection(request: &HttpRequest) -> Option<&Arc<Connection>> {
    request.conn_data::<Handle>().map(|handle| &handle.0)
}

/// Marks a connection's request as answered when it is dropped.
pub(super) struct Answering(Arc<Connection>);

impl Answering {
    pub fn new(connection: Arc<Connection>) -> Self {
        Self(connection)
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.answered.store(true, Ordering::Relaxed);
    }
}

/// Ends when the client of a request has left. A client that closes its sending side alone counts as gone, as it
/// does elsewhere.
pub async fn left(request: &HttpRequest) {
    let Some(connection) = connection(request).cloned() else {
        return std::future::pending().await;
    };
    while !connection.gone.load(Ordering::Relaxed) {
        tokio::time::sleep(LOOK).await;
    }
}
