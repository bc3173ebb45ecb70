use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix::{Arbiter, Handler, Message, ResponseActFuture, WrapFuture};

use super::super::drain::Drain;
use super::super::mailbox::{Held, Undelivered};
use super::super::node::{RestartReason, State};
use super::*;

struct Worker {
    number: usize,
    /// Held by each instance, so that one that is left behind is seen.
    _alive: Arc<()>,
}

impl Actor for Worker {
    type Context = Context<Self>;
}

#[derive(Clone, Copy)]
enum Job {
    Number,
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
        let number = self.number;
        let work = async move {
            let _room = room;
            match job {
                Job::PanicLater => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    panic!("later")
                }
                Job::Wait => tokio::time::sleep(Duration::from_secs(3_600)).await,
                Job::Number | Job::Panic => {}
            }
            number
        };
        Box::pin(work.into_actor(self))
    }
}

/// A service with a worker, on paused time.
struct Service {
    drain: Drain,
    tree: Arc<Tree>,
    group: Group,
    worker: Mailbox<Worker>,
    alive: Arc<()>,
}

impl Service {
    fn start(bound: usize) -> Self {
        tokio::time::pause();
        let drain = Drain::default();
        let tree = Tree::new("service", drain.handle());
        let group = tree.group("group");
        let (made, alive) = (AtomicUsize::new(0), Arc::new(()));
        let held = alive.clone();
        let worker = group.actor("worker", bound, &Arbiter::current(), move || Worker {
            number: made.fetch_add(1, Ordering::Relaxed) + 1,
            _alive: held.clone(),
        });
        Self { drain, tree, group, worker, alive }
    }

    fn node(&self, name: &str) -> ActorView {
        let root = self.tree.view();
        let groups = root.children.clone();
        let children = groups.iter().flat_map(|group| group.children.clone());
        let mut all = [root].into_iter().chain(groups.clone()).chain(children);
        all.find(|node| node.name == name).unwrap()
    }

    /// Ends everything, and fails if an actor is left.
    async fn end(self) {
        self.tree.stop().await;
        assert_eq!(self.worker.reserve(1).await.err(), Some(Undelivered::Stopped));
        let Self { tree, group, alive, worker, .. } = self;
        drop((tree, group, worker));
        assert_eq!(Arc::strong_count(&alive), 1, "an actor, or its factory, is left");
    }
}

const SOON: Duration = Duration::from_secs(10);

#[actix::test]
async fn a_panic_is_an_answer_and_the_next_instance_takes_over() {
    let service = Service::start(8);
    let worker = &service.worker;
    assert_eq!(worker.send(Job::Number).await, Ok(1));
    for (round, job) in [(2, Job::Panic), (3, Job::PanicLater)] {
        let waiting = worker.clone();
        let waiting = actix::spawn(async move { waiting.send(Job::Wait).await });
        tokio::task::yield_now().await;
        assert_eq!(worker.send(job).await, Err(Undelivered::Lost));
        assert_eq!(waiting.await.unwrap(), Err(Undelivered::Lost));
        assert_eq!(worker.ask(Job::Number, SOON).await, Ok(round));
    }
    assert_eq!(worker.node().depth(), 0, "all room came back");
    let view = service.node("service.worker");
    assert_eq!((view.restarts, view.last_failure.as_deref()), (2, Some("later")));
    assert_eq!(service.tree.failure(), None);
    service.end().await;
}

#[actix::test]
async fn the_bound_is_hard_and_waiting_is_measured() {
    let service = Service::start(2);
    for _ in 0..2 {
        let worker = service.worker.clone();
        actix::spawn(async move { worker.send(Job::Wait).await });
    }
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(service.worker.node().depth(), 2);
    let asked = service.worker.ask(Job::Number, Duration::from_millis(50)).await;
    assert_eq!(asked, Err(Undelivered::Full));
    assert!(service.worker.node().blocked() >= Duration::from_millis(45));
    service.end().await;
}

#[actix::test]
async fn a_restart_on_request_loses_no_room_and_is_no_failure() {
    let service = Service::start(4);
    let waiting = service.worker.clone();
    let waiting = actix::spawn(async move { waiting.send(Job::Wait).await });
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert!(!service.tree.command("service.nobody", Command::Restart));
    assert!(service.tree.command("service.worker", Command::Restart));
    assert_eq!(waiting.await.unwrap(), Err(Undelivered::Lost));
    assert_eq!(service.worker.ask(Job::Number, SOON).await, Ok(2));
    service.worker.idle().await;
    let view = service.node("service.worker");
    assert_eq!((view.restarts, view.last_failure), (1, None));
    for name in ["service", "service.group"] {
        assert!(service.tree.command(name, Command::Restart));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(service.node("service.worker").restarts, 3, "by its group's and its service's name");
    service.end().await;
}

#[actix::test]
async fn a_task_that_panics_or_ends_unasked_is_restarted_and_one_that_ends_in_draining_is_not() {
    let service = Service::start(1);
    let (made, drain) = (AtomicUsize::new(0), service.drain.handle());
    let task = service.group.task("task", &Arbiter::current(), move |node| {
        let (number, drain) = (made.fetch_add(1, Ordering::Relaxed), drain.clone());
        assert!(number != 0, "it does not even begin");
        async move {
            node.count_handled();
            match number {
                1 => panic!("once"),
                2 => {}
                _ => drain.started().await,
            }
        }
    });
    tokio::time::sleep(SOON).await;
    assert_eq!((task.restarts(RestartReason::Panic), task.restarts(RestartReason::Ended)), (2, 1));
    assert_eq!((task.handled(), task.state()), (3, State::Running));
    assert_eq!(service.node("service").state, State::Running);
    service.drain.start(SOON);
    task.stopped().await;
    assert_eq!(service.node("service.worker").state, State::Draining);
    assert_eq!(service.node("service").state, State::Stopped, "the worst of all below it");
    service.end().await;
}

#[actix::test]
async fn too_many_failures_restart_the_group_and_then_end_the_service() {
    let service = Service::start(4);
    let sibling = service.group.task("sibling", &Arbiter::current(), |_| std::future::pending());
    let other = service.tree.group("other").task("away", &Arbiter::current(), |_| std::future::pending());
    let worker = service.worker.clone();
    actix::spawn(async move { while worker.send(Job::Panic).await != Err(Undelivered::Stopped) {} });
    while service.tree.faults().is_empty() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let why = service.tree.faults().remove(0);
    assert!(why.contains("service.worker") && why.contains("now"), "{why}");
    assert_eq!(service.tree.failure(), None, "the group gave up, the service has not failed");
    assert_eq!(service.node("service").state, State::Restarting);
    let why = tokio::time::timeout(Duration::from_secs(120), service.tree.failed()).await.unwrap();
    assert!(why.contains("service.worker"), "{why}");
    let group = service.node("service.group");
    assert_eq!(group.restarts, 2);
    assert!(group.last_failure.unwrap().contains("service.worker"));
    sibling.stopped().await;
    assert_eq!((sibling.restarts(RestartReason::Group), sibling.restarts(RestartReason::Panic)), (2, 0));
    assert_eq!((other.restarts(RestartReason::Group), other.state()), (0, State::Running));
    service.end().await;
}
