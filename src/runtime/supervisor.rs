//! Decisions after a failure, by level.
//!
//! | level | strategy | gives up after |
//! |---|---|---|
//! | group | restart the one child that failed, with a backoff | [`CHILDREN`]: 20 restarts of its children in a minute |
//! | service | restart all children of the group that gave up | [`GROUPS`]: 2 restarts of groups in ten minutes |
//! | isolated group | restart all children after [`ISOLATED_WAIT`]; the service goes on | never |
//! | process | end with exit code 1, so that the supervisor outside starts it anew | |
//!
//! The number of restarts within a time is what OTP calls a supervisor's intensity. A supervisor is state behind a lock,
//! no task: the loop of the child that failed asks it ([`Supervisor::child_failed`]) and carries the verdict out, so that
//! no supervisor can itself end unseen.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::drain::DrainHandle;
use super::node::{Node, RestartReason, State};

/// Restarts that a supervisor tolerates, and the wait before each.
#[derive(Debug, Clone, Copy)]
struct Intensity {
    restarts: usize,
    within: Duration,
    /// Wait before the first restart; it doubles with each failure within the time.
    backoff: Duration,
    max_backoff: Duration,
}

/// Intensity of a group. A poison event makes its actor panic with each delivery of its frame until it is searched for:
/// `ESS_MAX_DELIVERIES`, 10 by default, and some more must be tolerated.
const CHILDREN: Intensity = Intensity {
    restarts: 20,
    within: Duration::from_secs(60),
    backoff: Duration::from_millis(5),
    max_backoff: Duration::from_millis(500),
};
/// Intensity of a service. Its time is longer than a group needs to give up twice.
const GROUPS: Intensity = Intensity {
    restarts: 2,
    within: Duration::from_secs(600),
    backoff: Duration::from_secs(1),
    max_backoff: Duration::from_secs(10),
};

/// Wait before an isolated group is restarted.
const ISOLATED_WAIT: Duration = Duration::from_secs(30);

/// Failures of a supervisor's children.
struct Failures {
    intensity: Intensity,
    /// Times of the failures within [`Intensity::within`]; at most [`Intensity::restarts`] and one.
    times: VecDeque<Instant>,
}

impl Failures {
    fn new(intensity: Intensity) -> Mutex<Self> {
        Mutex::new(Self { intensity, times: VecDeque::new() })
    }

    /// Adds a failure. Gives the wait before the restart; `None` if there were too many.
    fn add(&mut self) -> Option<Duration> {
        let Intensity { restarts, within, backoff, max_backoff } = self.intensity;
        while self.times.front().is_some_and(|at| at.elapsed() > within) {
            self.times.pop_front();
        }
        self.times.push_back(Instant::now());
        if self.times.len() > restarts {
            self.times.clear();
            return None;
        }
        let doublings = u32::try_from(self.times.len() - 1).unwrap_or(0).min(16);
        Some((backoff * 2_u32.pow(doublings)).min(max_backoff))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change under these locks is whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The supervisor of a service's groups.
pub(super) struct Root {
    pub node: Node,
    pub drain: DrainHandle,
    failures: Mutex<Failures>,
    /// Reason for which the service has failed.
    failed: watch::Sender<Option<String>>,
    /// True once every child has to end for good.
    pub stopping: watch::Sender<bool>,
}

impl Root {
    pub fn new(name: &str, drain: DrainHandle) -> Self {
        let node = Node::new(name.to_owned());
        node.set_state(State::Running);
        let (failed, stopping) = (watch::Sender::new(None), watch::Sender::new(false));
        Self { node, drain, failures: Failures::new(GROUPS), failed, stopping }
    }

    /// Reason for which the service has failed, if it has.
    pub fn failure(&self) -> Option<String> {
        self.failed.borrow().clone()
    }

    /// Waits until the service has failed; gives the reason.
    pub async fn failed(&self) -> String {
        let mut failed = self.failed.subscribe();
        match failed.wait_for(Option::is_some).await {
            Ok(why) => why.clone().unwrap_or_default(),
            // The sender is this root's own.
            Err(_) => std::future::pending().await,
        }
    }

    /// Decides about a group that gave up: the wait before its restart, or `None` if the service has failed.
    fn group_failed(&self, why: &str) -> Option<Duration> {
        let wait = lock(&self.failures).add();
        if wait.is_none() {
            self.node.set_last_failure(why);
            self.failed
                .send_if_modified(|failed| failed.is_none() && failed.replace(why.to_owned()).is_none());
        }
        wait
    }
}

/// Permission for a group's children to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Gate {
    Open,
    /// The group gave up, for this reason, and is restarted soon.
    Closed(String),
    /// The service has failed: the group is not restarted.
    Stopped,
}

/// The supervisor of one group's children.
pub(super) struct Supervisor {
    pub node: Node,
    pub root: Arc<Root>,
    pub gate: watch::Sender<Gate>,
    /// True if the service goes on when the group gives up.
    pub is_isolated: bool,
    failures: Mutex<Failures>,
}

/// Verdict about a child that failed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Restart it after this wait.
    Restart(Duration),
    /// The group gave up: open its gate again after this wait.
    RestartGroup(Duration),
    /// Another child made the group give up meanwhile: wait for its gate.
    AwaitGroup,
    /// The service has failed.
    Stop,
}

impl Supervisor {
    pub fn new(name: String, root: Arc<Root>, is_isolated: bool) -> Self {
        let node = Node::new(name);
        node.set_state(State::Running);
        let (gate, failures) = (watch::Sender::new(Gate::Open), Failures::new(CHILDREN));
        Self { node, root, gate, is_isolated, failures }
    }

    /// Decides about a child that failed, and counts the failure of the group if it gives up.
    pub fn child_failed(&self, child: &str, reason: RestartReason, why: &str) -> Verdict {
        let mut failures = lock(&self.failures);
        match *self.gate.borrow() {
            Gate::Open => {}
            Gate::Closed(_) => return Verdict::AwaitGroup,
            Gate::Stopped => return Verdict::Stop,
        }
        if let Some(wait) = failures.add() {
            return Verdict::Restart(wait);
        }
        let Intensity { restarts, within, .. } = CHILDREN;
        let group = self.node.name();
        let why = format!(
            "{group} gave up: {restarts} restarts within {within:?} did not help, lastly {child}: {why}"
        );
        self.node.set_last_failure(&why);
        let wait = if self.is_isolated { Some(ISOLATED_WAIT) } else { self.root.group_failed(&why) };
        match wait {
            Some(wait) => {
                tracing::error!(group, why, ?wait, "all actors of the group are restarted");
                self.node.count_restart(reason);
                self.gate.send_replace(Gate::Closed(why));
                Verdict::RestartGroup(wait)
            }
            None => {
                tracing::error!(group, why, "the service has failed: a group gave up again");
                self.gate.send_replace(Gate::Stopped);
                Verdict::Stop
            }
        }
    }

    /// Reason for which the group gave up, while it is not restarted yet.
    pub fn gave_up(&self) -> Option<String> {
        match &*self.gate.borrow() {
            Gate::Closed(why) => Some(why.clone()),
            Gate::Open | Gate::Stopped => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::drain::Drain;
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_supervisor_gives_up_after_more_restarts_than_its_intensity_within_its_time() {
        let failures = Failures::new(CHILDREN);
        let waits: Vec<_> = (0..20).map(|_| lock(&failures).add()).collect();
        assert_eq!(waits[0], Some(Duration::from_millis(5)));
        assert_eq!(waits[3], Some(Duration::from_millis(40)));
        assert_eq!(waits[19], Some(Duration::from_millis(500)));
        assert_eq!(lock(&failures).add(), None, "the 21st within a minute");
        for _ in 0..100 {
            tokio::time::advance(Duration::from_secs(4)).await;
            assert!(lock(&failures).add().is_some(), "fifteen a minute are tolerated for ever");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_isolated_group_is_restarted_for_ever_and_its_service_goes_on() {
        let root = Arc::new(Root::new("service", Drain::default().handle()));
        let group = Supervisor::new("service.sick".to_owned(), root.clone(), true);
        for _ in 0..20 {
            for _ in 0..20 {
                assert!(matches!(
                    group.child_failed("service.sick.child", RestartReason::Panic, "boom"),
                    Verdict::Restart(_)
                ));
            }
            let verdict = group.child_failed("service.sick.child", RestartReason::Panic, "boom");
            assert_eq!(verdict, Verdict::RestartGroup(ISOLATED_WAIT));
            assert!(group.gave_up().is_some());
            group.gate.send_replace(Gate::Open);
        }
        assert_eq!(root.failure(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_group_gives_up_to_the_service_and_the_service_to_the_process() {
        let root = Arc::new(Root::new("service", Drain::default().handle()));
        let group = Supervisor::new("service.group".to_owned(), root.clone(), false);
        let fail = || group.child_failed("service.child", RestartReason::Panic, "boom");
        for round in 1..=2 {
            for _ in 0..20 {
                assert!(matches!(fail(), Verdict::Restart(_)));
            }
            assert!(matches!(fail(), Verdict::RestartGroup(_)), "round {round}");
            assert_eq!(fail(), Verdict::AwaitGroup);
            assert_eq!(group.node.restarts(RestartReason::Panic), round);
            assert_eq!(root.failure(), None);
            group.gate.send_replace(Gate::Open);
        }
        for _ in 0..20 {
            fail();
        }
        assert_eq!(fail(), Verdict::Stop);
        let why = root.failed().await;
        for part in ["service.group", "service.child", "boom"] {
            assert!(why.contains(part), "{part}: {why}");
        }
    }
}
