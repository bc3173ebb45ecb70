//! Keeps one actor alive.
//!
//! actix's own supervisor does not see panics. This one holds a factory: it makes the context
//! first, builds the actor, runs both as a task of the arbiter's thread and keeps the task's
//! handle, so that a panic is an answer like any other and a new actor takes the old one's place
//! behind the same [`Mailbox`]. Too many panics in a minute end the service: a process manager
//! then starts it from scratch, and the log delivers again what was in flight.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, Addr, ArbiterHandle, AsyncContext, Context};
use futures::future::{self, Either};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinError;

use super::mailbox::Mailbox;
use super::registry::{Command, Registry, RestartReason, State, Stats};

/// Panics within [`BUDGET_WINDOW`] after which the service ends.
const BUDGET: usize = 20;
/// The time in which panics are counted.
const BUDGET_WINDOW: Duration = Duration::from_secs(60);
/// The wait before the first restart; it doubles with each panic in the window.
const BACKOFF: Duration = Duration::from_millis(5);
/// The longest wait before a restart.
const MAX_BACKOFF: Duration = Duration::from_millis(500);
/// Commands that wait for one supervisor.
const COMMANDS: usize = 4;

/// What an actor is called, and how much its mailbox takes.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Its name, such as `collector.tiktok.consume`.
    pub name: String,
    /// The mailbox's bound, in whatever unit its senders reserve.
    pub bound: usize,
}

/// Starts an actor on an arbiter and keeps it alive; `factory` makes each instance.
///
/// The actor ends for good when it stops its own context.
pub fn supervise<A, F>(registry: &Arc<Registry>, spec: Spec, home: &ArbiterHandle, factory: F) -> Mailbox<A>
where
    A: Actor<Context = Context<A>>,
    F: Fn() -> A + Send + 'static,
{
    let room = Arc::new(Semaphore::new(spec.bound));
    let stats = Arc::new(Stats::new(spec.name, spec.bound, room.clone()));
    let (commands, orders) = mpsc::channel(COMMANDS);
    let (address, slot) = watch::channel(None);
    registry.add(stats.clone(), commands);
    let mailbox = Mailbox::new(slot, room.clone(), stats.clone());
    let supervisor = Supervisor { registry: registry.clone(), stats, room, address, orders, factory };
    home.spawn_fn(move || {
        actix::spawn(supervisor.run());
    });
    mailbox
}

struct Supervisor<A: Actor<Context = Context<A>>, F> {
    registry: Arc<Registry>,
    stats: Arc<Stats>,
    room: Arc<Semaphore>,
    address: watch::Sender<Option<Addr<A>>>,
    orders: mpsc::Receiver<Command>,
    factory: F,
}

/// How one instance of an actor ended.
enum Ending {
    Finished,
    Restart(RestartReason, String),
}

impl<A, F> Supervisor<A, F>
where
    A: Actor<Context = Context<A>>,
    F: Fn() -> A + Send + 'static,
{
    async fn run(mut self) {
        let mut panics: VecDeque<Instant> = VecDeque::new();
        loop {
            let ending = self.live().await;
            self.address.send_replace(None);
            let (reason, why) = match ending {
                Ending::Finished => break,
                Ending::Restart(reason, why) => (reason, why),
            };
            self.stats.set_state(State::Restarting);
            self.stats.count_restart(reason, &why);
            let actor = self.stats.name();
            if reason == RestartReason::Requested {
                tracing::info!(actor, "actor restarted on request");
                continue;
            }
            while panics.front().is_some_and(|at| at.elapsed() > BUDGET_WINDOW) {
                panics.pop_front();
            }
            panics.push_back(Instant::now());
            tracing::error!(actor, why, panics = panics.len(), "actor panicked");
            if panics.len() > BUDGET {
                self.registry.fail(format!("{actor} panicked {} times in a minute: {why}", panics.len()));
                break;
            }
            let doublings = u32::try_from(panics.len() - 1).unwrap_or(0).min(16);
            tokio::time::sleep((BACKOFF * 2_u32.pow(doublings)).min(MAX_BACKOFF)).await;
        }
        self.stats.set_state(State::Stopped);
        self.room.close();
    }

    /// Runs one instance to its end.
    #[cfg_attr(
        not(feature = "faults"),
        expect(clippy::never_loop, reason = "the only order that an instance survives is for tests")
    )]
    async fn live(&mut self) -> Ending {
        let mut context = Context::<A>::new();
        // The permits bound the mailbox; actix's own bound must not be the smaller one.
        context.set_mailbox_capacity(self.stats.bound().saturating_add(1));
        let address = context.address();
        let body = context.into_future((self.factory)());
        let (fault, faulted) = oneshot::channel::<()>();
        let mut task = tokio::task::spawn_local(async move {
            match future::select(body, faulted).await {
                Either::Left(((), _)) => {}
                Either::Right((Err(_), body)) => body.await,
                Either::Right((Ok(()), _)) => panic!("asked to panic"),
            }
        });
        #[cfg(feature = "faults")]
        let mut fault = Some(fault);
        #[cfg(not(feature = "faults"))]
        drop(fault);
        self.stats.set_state(State::Running);
        self.address.send_replace(Some(address));
        loop {
            tokio::select! {
                outcome = &mut task => return ending(outcome),
                Some(order) = self.orders.recv() => match order {
                    Command::Restart => {
                        task.abort();
                        return match ending(task.await) {
                            Ending::Finished => {
                                Ending::Restart(RestartReason::Requested, "requested".to_owned())
                            }
                            panicked => panicked,
                        };
                    }
                    #[cfg(feature = "faults")]
                    Command::Panic => {
                        if let Some(fault) = fault.take() {
                            let _ = fault.send(());
                        }
                    }
                },
            }
        }
    }
}

fn ending(outcome: Result<(), JoinError>) -> Ending {
    match outcome.map_err(JoinError::try_into_panic) {
        Ok(()) => Ending::Finished,
        Err(Err(_aborted)) => Ending::Restart(RestartReason::Requested, "requested".to_owned()),
        Err(Ok(panic)) => Ending::Restart(RestartReason::Panic, panic_text(&*panic)),
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "panic".to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use actix::{Handler, Message, ResponseActFuture, WrapFuture};

    use super::super::mailbox::{Held, Undelivered};
    use super::*;

    struct Worker {
        made: usize,
    }

    impl Actor for Worker {
        type Context = Context<Self>;
    }

    #[derive(Clone, Copy)]
    enum Job {
        Which,
        Panic,
        PanicLater,
        Wait,
    }

    impl Message for Job {
        type Result = usize;
    }

    impl Handler<Held<Job>> for Worker {
        type Result = ResponseActFuture<Self, usize>;
        fn handle(&mut self, held: Held<Job>, _: &mut Context<Self>) -> Self::Result {
            let (job, room) = held.open();
            assert!(!matches!(job, Job::Panic), "now");
            let made = self.made;
            let work = async move {
                let _room = room;
                match job {
                    Job::PanicLater => {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                        panic!("later")
                    }
                    Job::Wait => tokio::time::sleep(Duration::from_secs(60)).await,
                    Job::Which | Job::Panic => {}
                }
                made
            };
            Box::pin(work.into_actor(self))
        }
    }

    fn start(bound: usize) -> (Arc<Registry>, Mailbox<Worker>) {
        let registry = Arc::new(Registry::default());
        let made = AtomicUsize::new(0);
        let spec = Spec { name: "worker".to_owned(), bound };
        let mailbox = supervise(&registry, spec, &actix::Arbiter::current(), move || Worker {
            made: made.fetch_add(1, Ordering::Relaxed) + 1,
        });
        (registry, mailbox)
    }

    #[actix::test]
    async fn a_panic_is_answered_and_the_next_instance_takes_over() {
        let (registry, mailbox) = start(8);
        assert_eq!(mailbox.send(Job::Which).await, Ok(1));
        for (round, job) in [(2, Job::Panic), (3, Job::PanicLater)] {
            let waiting = mailbox.clone();
            let waiting = actix::spawn(async move { waiting.send(Job::Wait).await });
            tokio::task::yield_now().await;
            assert_eq!(mailbox.send(job).await, Err(Undelivered::Lost));
            assert_eq!(waiting.await.unwrap(), Err(Undelivered::Lost));
            assert_eq!(mailbox.ask(Job::Which, Duration::from_secs(1)).await, Ok(round));
        }
        assert_eq!(mailbox.stats().depth(), 0, "all room came back");
        let view = registry.view().remove(0);
        assert_eq!((view.restarts, view.last_failure.as_deref()), (2, Some("later")));
        assert!(registry.alive());
    }

    #[actix::test]
    async fn the_bound_is_hard_and_waiting_is_measured() {
        let (_registry, mailbox) = start(2);
        for _ in 0..2 {
            let mailbox = mailbox.clone();
            actix::spawn(async move { mailbox.send(Job::Wait).await });
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert_eq!(mailbox.stats().depth(), 2);
        assert_eq!(mailbox.ask(Job::Which, Duration::from_millis(50)).await, Err(Undelivered::Full));
        assert!(mailbox.stats().blocked() >= Duration::from_millis(45));
    }

    #[actix::test]
    async fn a_restart_on_request_loses_no_room() {
        let (registry, mailbox) = start(4);
        let waiting = mailbox.clone();
        let waiting = actix::spawn(async move { waiting.send(Job::Wait).await });
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert!(registry.command("worker", Command::Restart));
        assert!(!registry.command("nobody", Command::Restart));
        assert_eq!(waiting.await.unwrap(), Err(Undelivered::Lost));
        assert_eq!(mailbox.ask(Job::Which, Duration::from_secs(1)).await, Ok(2));
        mailbox.idle().await;
    }

    #[actix::test]
    async fn too_many_panics_end_the_service() {
        let (registry, mailbox) = start(4);
        actix::spawn(async move { while mailbox.send(Job::Panic).await != Err(Undelivered::Stopped) {} });
        let why = tokio::time::timeout(Duration::from_secs(30), registry.failed()).await.unwrap();
        assert!(why.contains("worker"), "{why}");
        assert!(!registry.alive());
    }
}
