//! State of one node of the tree: of the service, of a group, of an actor or of a task.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, watch};

/// State of a node, the best first: a node with children has the worst of their states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// At work.
    Running,
    /// Finishing its work, because the service drains.
    Draining,
    /// Between two instances, after a failure or on request.
    Restarting,
    /// Ended for good.
    Stopped,
}

/// Reason of a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartReason {
    /// A panic.
    Panic,
    /// An end that nobody had asked for.
    Ended,
    /// The whole group was restarted, because another of its children failed too often.
    Group,
    /// An operator's request.
    Requested,
}

impl RestartReason {
    /// Every reason, for metrics.
    pub const ALL: [Self; 4] = [Self::Panic, Self::Ended, Self::Group, Self::Requested];

    /// The reason as a metric's label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Panic => "panic",
            Self::Ended => "ended",
            Self::Group => "group",
            Self::Requested => "requested",
        }
    }
}

/// State and counters of one node, kept across its restarts.
pub struct Node {
    name: String,
    /// The mailbox's bound and its free room, in its unit; only actors have one.
    mailbox: Option<(usize, Arc<Semaphore>)>,
    state: watch::Sender<State>,
    handled: AtomicU64,
    blocked_nanos: AtomicU64,
    restarts: [AtomicU64; RestartReason::ALL.len()],
    last_failure: Mutex<Option<String>>,
}

impl Node {
    /// A node without a mailbox.
    pub(super) fn new(name: String) -> Self {
        Self {
            name,
            mailbox: None,
            state: watch::Sender::new(State::Restarting),
            handled: AtomicU64::new(0),
            blocked_nanos: AtomicU64::new(0),
            restarts: Default::default(),
            last_failure: Mutex::new(None),
        }
    }

    /// A node with a mailbox of this bound, whose free room is `room`.
    pub(super) fn with_mailbox(name: String, bound: usize, room: Arc<Semaphore>) -> Self {
        Self { mailbox: Some((bound, room)), ..Self::new(name) }
    }

    /// Full name, such as `gateway.ingest`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The mailbox's bound, in its unit; `None` for a node without a mailbox.
    pub fn bound(&self) -> Option<usize> {
        self.mailbox.as_ref().map(|(bound, _)| *bound)
    }

    /// Messages that wait or are being worked on, in the mailbox's unit.
    pub fn depth(&self) -> usize {
        self.mailbox.as_ref().map_or(0, |(bound, room)| bound.saturating_sub(room.available_permits()))
    }

    /// Messages of an actor, or rounds of a task, whose work is done.
    pub fn handled(&self) -> u64 {
        self.handled.load(Ordering::Relaxed)
    }

    /// Time for which senders have waited for room, all together.
    pub fn blocked(&self) -> Duration {
        Duration::from_nanos(self.blocked_nanos.load(Ordering::Relaxed))
    }

    /// Number of restarts for one reason.
    pub fn restarts(&self, reason: RestartReason) -> u64 {
        self.restarts[reason as usize].load(Ordering::Relaxed)
    }

    /// The node's own state. Draining is a state of the whole tree, and is added by [`Tree::view`](super::Tree::view).
    pub fn state(&self) -> State {
        *self.state.borrow()
    }

    /// Waits until the node has ended for good.
    pub async fn stopped(&self) {
        // The sender is this node's own: the wait ends with the state alone.
        let _ = self.state.subscribe().wait_for(|state| *state == State::Stopped).await;
    }

    /// Counts a message or a round whose work is done.
    pub fn count_handled(&self) {
        self.handled.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn set_state(&self, state: State) {
        self.state.send_replace(state);
        if state == State::Stopped
            && let Some((_, room)) = &self.mailbox
        {
            room.close();
        }
    }

    pub(super) fn count_blocked(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.blocked_nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    pub(super) fn count_restart(&self, reason: RestartReason) {
        self.restarts[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn set_last_failure(&self, why: &str) {
        *self.last_failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(why.to_owned());
    }

    /// The node as `/actors` shows it; `draining` if the service drains.
    pub(super) fn view(&self, draining: bool, children: Vec<ActorView>) -> ActorView {
        let own = match self.state() {
            State::Running if draining => State::Draining,
            state => state,
        };
        ActorView {
            name: self.name.clone(),
            state: children.iter().map(|child| child.state).max().unwrap_or(own),
            mailbox: MailboxView { depth: self.depth(), bound: self.bound().unwrap_or(0) },
            handled: self.handled(),
            blocked_seconds: self.blocked().as_secs_f64(),
            restarts: RestartReason::ALL.iter().map(|&reason| self.restarts(reason)).sum(),
            last_failure: self.last_failure.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            children,
        }
    }
}

/// A node of the tree: the service, a group, an actor or a background task.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ActorView {
    /// Full name.
    pub name: String,
    /// State; of a node with children the worst of theirs.
    pub state: State,
    /// Mailbox; empty for a node that takes no messages.
    pub mailbox: MailboxView,
    /// Messages of an actor, or rounds of a task, whose work is done.
    pub handled: u64,
    /// Time for which senders have waited for room, in seconds.
    pub blocked_seconds: f64,
    /// Number of restarts.
    pub restarts: u64,
    /// Reason of the last failure.
    pub last_failure: Option<String>,
    /// Nodes below this one.
    #[schema(no_recursion)]
    pub children: Vec<ActorView>,
}

/// A mailbox, in its own unit.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, utoipa::ToSchema)]
pub struct MailboxView {
    /// Messages that wait or are being worked on.
    pub depth: usize,
    /// Upper bound of the depth.
    pub bound: usize,
}
