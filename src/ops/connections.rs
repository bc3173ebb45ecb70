//! State and timeouts of open connections.
//!
//! The HTTP library limits the time of the first head of a connection only, and treats a client that reads slowly as
//! idle. Its timers are therefore off. Each connection records its phase and the time of its last progress here; one
//! background task checks all connections and wakes the ones whose time is over.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use actix_web::HttpRequest;
use futures::task::AtomicWaker;
use prometheus::IntGauge;

use super::head::Refusal;

/// Interval at which a request checks that its client is still connected.
const CLIENT_CHECK: Duration = Duration::from_millis(250);
/// Bounds of the interval between two checks of all connections.
const SWEEP: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(500));

/// The event that a connection waits for.
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

/// State of an open connection. Its stream and its requests run on one thread, the check of timeouts on another.
pub(super) struct Connection {
    /// Origin of `since`; the same for all connections of a listener.
    began: Instant,
    phase: AtomicU8,
    /// Milliseconds from `began` to the last change of the phase, or to the last progress of a write.
    since: AtomicU64,
    /// True while the socket takes no more bytes, because the client does not read.
    pub write_blocked: AtomicBool,
    /// True once the library has the whole answer to the current request.
    pub answered: AtomicBool,
    /// True if the connection closes after the current answer.
    pub last: AtomicBool,
    /// True while the body of the current request is incomplete.
    pub body_open: AtomicBool,
    /// True if the time of the phase is over.
    pub expired: AtomicBool,
    /// True if the client has ended its sending side.
    pub gone: AtomicBool,
    /// The error answer to a head that was refused, until a handler takes it.
    refusal: Mutex<Option<Refusal>>,
    /// True if there is a refusal; spares other requests the lock.
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
    /// Records the arrival of the first bytes of a head.
    pub fn begin_head(&self) {
        if self.phase.load(Ordering::Relaxed) != Phase::FirstHead as u8 {
            self.enter(Phase::Head);
        }
    }

    /// Enters a phase.
    pub fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
        self.progress();
    }

    /// Restarts the timeout of the phase.
    pub fn progress(&self) {
        self.since.store(millis(self.began.elapsed()), Ordering::Relaxed);
    }

    /// Stores a refusal for the handler of the placeholder request.
    pub fn refuse(&self, refusal: Refusal) {
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(refusal);
        self.refused.store(true, Ordering::Relaxed);
    }

    /// Takes the refusal of the current request.
    pub fn take_refusal(&self) -> Option<Refusal> {
        if !self.refused.swap(false, Ordering::Relaxed) {
            return None;
        }
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Wakes the connection's task if its time is over.
    fn check_timeout(&self, now: u64, limits: &Limits) {
        let waited = Duration::from_millis(now.saturating_sub(self.since.load(Ordering::Relaxed)));
        let phase = self.phase.load(Ordering::Relaxed);
        let over = match phase {
            _ if self.write_blocked.load(Ordering::Relaxed) => waited > limits.idle,
            phase if phase == Phase::FirstHead as u8 => waited > limits.head,
            phase if phase == Phase::Head as u8 => waited > limits.head.min(limits.idle),
            phase if phase == Phase::Idle as u8 => waited > limits.idle,
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

/// A connection in the data of its requests.
#[derive(Clone)]
pub(super) struct Handle(pub Arc<Connection>);

/// Timeouts of connections.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Time for a head, from its first byte; for the first head, from the connection's start. Later heads have `idle`
    /// at most.
    pub head: Duration,
    /// Time between two requests, and for a client that reads nothing.
    pub idle: Duration,
}

/// All open connections of a listener.
pub(super) struct Connections {
    open: Mutex<Vec<Weak<Connection>>>,
    began: Instant,
    limits: Limits,
    gauge: IntGauge,
}

impl Connections {
    /// Starts the task that enforces the timeouts; it ends with the listener.
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

    /// Registers a new connection.
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
                connection.check_timeout(now, &self.limits);
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

/// Completes when the client of a request has disconnected. A half-closed connection counts as disconnected, as in
/// most HTTP servers.
pub async fn left(request: &HttpRequest) {
    let Some(connection) = connection(request).cloned() else {
        return std::future::pending().await;
    };
    while !connection.gone.load(Ordering::Relaxed) {
        tokio::time::sleep(CLIENT_CHECK).await;
    }
}
