//! The live tree of a service's actors.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::{Semaphore, mpsc, watch};

/// What an actor is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum State {
    /// It takes messages.
    Running,
    /// It failed, and the next instance is being made.
    Restarting,
    /// The service drains: it finishes what it has.
    Draining,
    /// It has ended for good.
    Stopped,
}

/// Why an actor was restarted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartReason {
    /// It panicked.
    Panic,
    /// An operator asked for it.
    Requested,
}

impl RestartReason {
    /// Every reason, for metrics.
    pub const ALL: [Self; 2] = [Self::Panic, Self::Requested];

    /// The reason as a metric's label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Panic => "panic",
            Self::Requested => "requested",
        }
    }
}

/// What is known of one actor, kept across its restarts.
pub struct Stats {
    name: String,
    bound: usize,
    room: Arc<Semaphore>,
    state: AtomicU8,
    handled: AtomicU64,
    blocked_nanos: AtomicU64,
    restarts: [AtomicU64; 2],
    last_failure: Mutex<Option<String>>,
}

impl Stats {
    pub(super) fn new(name: String, bound: usize, room: Arc<Semaphore>) -> Self {
        Self {
            name,
            bound,
            room,
            state: AtomicU8::new(State::Restarting as u8),
            handled: AtomicU64::new(0),
            blocked_nanos: AtomicU64::new(0),
            restarts: [AtomicU64::new(0), AtomicU64::new(0)],
            last_failure: Mutex::new(None),
        }
    }

    /// The actor's name, such as `gateway.publish.facebook`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The mailbox's bound, in its unit.
    pub fn bound(&self) -> usize {
        self.bound
    }

    /// What waits in the mailbox or is being worked on, in its unit.
    pub fn depth(&self) -> usize {
        self.bound.saturating_sub(self.room.available_permits())
    }

    /// Messages whose work is done.
    pub fn handled(&self) -> u64 {
        self.handled.load(Ordering::Relaxed)
    }

    /// How long senders have waited for room, all together.
    pub fn blocked(&self) -> Duration {
        Duration::from_nanos(self.blocked_nanos.load(Ordering::Relaxed))
    }

    /// Restarts for one reason.
    pub fn restarts(&self, reason: RestartReason) -> u64 {
        self.restarts[reason as usize].load(Ordering::Relaxed)
    }

    /// What the actor is doing.
    pub fn state(&self) -> State {
        match self.state.load(Ordering::Relaxed) {
            0 => State::Running,
            1 => State::Restarting,
            2 => State::Draining,
            _ => State::Stopped,
        }
    }

    pub(super) fn set_state(&self, state: State) {
        self.state.store(state as u8, Ordering::Relaxed);
    }

    pub(super) fn count_handled(&self) {
        self.handled.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_blocked(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.blocked_nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    pub(super) fn count_restart(&self, reason: RestartReason, why: &str) {
        self.restarts[reason as usize].fetch_add(1, Ordering::Relaxed);
        if reason == RestartReason::Requested {
            return;
        }
        *self.last_failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(why.to_owned());
    }

    fn view(&self) -> ActorView {
        ActorView {
            name: self.name.clone(),
            state: self.state(),
            mailbox: MailboxView { depth: self.depth(), bound: self.bound },
            handled: self.handled(),
            blocked_seconds: self.blocked().as_secs_f64(),
            restarts: RestartReason::ALL.iter().map(|&reason| self.restarts(reason)).sum(),
            last_failure: self.last_failure.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            children: Vec::new(),
        }
    }
}

/// An actor as `/actors` shows it.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ActorView {
    /// Its name.
    pub name: String,
    /// What it is doing.
    pub state: State,
    /// Its mailbox.
    pub mailbox: MailboxView,
    /// Messages whose work is done.
    pub handled: u64,
    /// How long senders have waited for room, in seconds.
    pub blocked_seconds: f64,
    /// How often it was restarted.
    pub restarts: u64,
    /// Why it failed the last time.
    pub last_failure: Option<String>,
    /// The actors below it.
    #[schema(no_recursion)]
    pub children: Vec<ActorView>,
}

/// A mailbox as `/actors` shows it, in the mailbox's own unit.
#[derive(Debug, Clone, Copy, Serialize, utoipa::ToSchema)]
pub struct MailboxView {
    /// What waits or is being worked on.
    pub depth: usize,
    /// The most that can.
    pub bound: usize,
}

/// What an operator can tell a supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Put a new actor in the place of this one.
    Restart,
    /// Make it panic, to see that nothing is lost.
    #[cfg(feature = "faults")]
    Panic,
}

struct Entry {
    stats: Arc<Stats>,
    commands: mpsc::Sender<Command>,
}

/// All actors of one service.
pub struct Registry {
    entries: RwLock<Vec<Entry>>,
    failed: watch::Sender<Option<String>>,
}

impl Default for Registry {
    fn default() -> Self {
        Self { entries: RwLock::default(), failed: watch::Sender::new(None) }
    }
}

impl Registry {
    pub(super) fn add(&self, stats: Arc<Stats>, commands: mpsc::Sender<Command>) {
        self.entries.write().unwrap_or_else(PoisonError::into_inner).push(Entry { stats, commands });
    }

    pub(super) fn fail(&self, why: String) {
        self.failed.send_if_modified(|failed| {
            let first = failed.is_none();
            if first {
                *failed = Some(why);
            }
            first
        });
    }

    /// What is known of every actor.
    pub fn stats(&self) -> Vec<Arc<Stats>> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        entries.iter().map(|entry| entry.stats.clone()).collect()
    }

    /// The tree as `/actors` shows it.
    pub fn view(&self) -> Vec<ActorView> {
        self.stats().iter().map(|stats| stats.view()).collect()
    }

    /// Tells an actor's supervisor something; false if there is no such actor. The name of several of one
    /// kind, without their numbers, means all of them.
    pub fn command(&self, name: &str, command: Command) -> bool {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        let numbered = |full: &str| {
            let number = full.strip_prefix(name).and_then(|rest| rest.strip_prefix('.'));
            number.is_some_and(|number| number.parse::<usize>().is_ok())
        };
        let mut known = false;
        for entry in entries.iter().filter(|entry| entry.stats.name() == name || numbered(entry.stats.name()))
        {
            // A full queue already holds a restart that has not been carried out.
            let _ = entry.commands.try_send(command);
            known = true;
        }
        known
    }

    /// Shows that the service drains.
    pub fn set_draining(&self) {
        for stats in self.stats() {
            if stats.state() != State::Stopped {
                stats.set_state(State::Draining);
            }
        }
    }

    /// Whether every actor lives or is being restarted.
    pub fn alive(&self) -> bool {
        self.failed.borrow().is_none()
    }

    /// Waits until an actor has used up its restarts; says which and why.
    pub async fn failed(&self) -> String {
        let mut failed = self.failed.subscribe();
        match failed.wait_for(Option::is_some).await {
            Ok(why) => why.clone().unwrap_or_default(),
            Err(_) => std::future::pending().await,
        }
    }
}
