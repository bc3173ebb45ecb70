//! The tree of a service: the service, its groups, their actors and tasks.

use std::rc::Rc;
use std::sync::{Arc, PoisonError, RwLock};

use actix::{Actor, ArbiterHandle, AsyncContext, Context};
use tokio::sync::{Semaphore, mpsc, watch};

use super::child::{COMMANDS, Child, Command};
use super::drain::DrainHandle;
use super::mailbox::Mailbox;
use super::node::{ActorView, Node};
use super::supervisor::{Root, Supervisor};

/// The nodes of one service.
pub struct Tree {
    root: Arc<Root>,
    groups: RwLock<Vec<Branch>>,
}

/// A group and its children, each with the queue of its commands.
struct Branch {
    supervisor: Arc<Supervisor>,
    children: Vec<(Arc<Node>, mpsc::Sender<Command>)>,
}

impl Tree {
    /// A tree of one node: the service, by its name in `/actors`. A child that ends while `drain` says that the service
    /// drains has ended for good.
    pub fn new(name: &str, drain: DrainHandle) -> Arc<Self> {
        Arc::new(Self { root: Arc::new(Root::new(name, drain)), groups: RwLock::default() })
    }

    /// Adds a group; its name is the service's and this one.
    pub fn group(self: &Arc<Self>, name: &str) -> Group {
        let supervisor = Arc::new(Supervisor::new(self.name_of(name), self.root.clone()));
        let branch = Branch { supervisor: supervisor.clone(), children: Vec::new() };
        self.groups.write().unwrap_or_else(PoisonError::into_inner).push(branch);
        Group { tree: self.clone(), supervisor }
    }

    fn name_of(&self, name: &str) -> String {
        format!("{}.{name}", self.root.node.name())
    }

    /// Adds a child to a group; gives the queue of its commands.
    fn add(&self, supervisor: &Arc<Supervisor>, node: &Arc<Node>) -> mpsc::Receiver<Command> {
        let (sender, commands) = mpsc::channel(COMMANDS);
        let mut groups = self.groups.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(branch) = groups.iter_mut().find(|branch| Arc::ptr_eq(&branch.supervisor, supervisor)) {
            branch.children.push((node.clone(), sender));
        }
        commands
    }

    /// Calls `visit` with each node below the service's, a group's before its children's.
    pub fn each_node(&self, mut visit: impl FnMut(&Node)) {
        for branch in self.groups.read().unwrap_or_else(PoisonError::into_inner).iter() {
            visit(&branch.supervisor.node);
            branch.children.iter().for_each(|(node, _)| visit(node));
        }
    }

    /// The tree as `/actors` shows it.
    pub fn view(&self) -> ActorView {
        let draining = self.root.drain.draining();
        let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
        let group = |branch: &Branch| {
            let children = branch.children.iter().map(|(node, _)| node.view(draining, Vec::new()));
            branch.supervisor.node.view(draining, children.collect())
        };
        self.root.node.view(draining, groups.iter().map(group).collect())
    }

    /// Gives a command to a child by its name; to all children of a group, or of the service, by theirs; or to several
    /// of one kind, such as `gateway.validate.1` and `.2`, by their name without the number. False if there is none.
    pub fn command(&self, name: &str, command: Command) -> bool {
        let numbered = |full: &str| {
            let number = full.strip_prefix(name).and_then(|rest| rest.strip_prefix('.'));
            number.is_some_and(|number| number.parse::<usize>().is_ok())
        };
        let mut known = name == self.root.node.name();
        let all = known;
        for branch in self.groups.read().unwrap_or_else(PoisonError::into_inner).iter() {
            let group = branch.supervisor.node.name() == name;
            known |= group;
            for (node, commands) in &branch.children {
                if all || group || node.name() == name || numbered(node.name()) {
                    known = true;
                    // A full queue already holds a restart that has not been carried out.
                    let _ = commands.try_send(command);
                }
            }
        }
        known
    }

    /// Reason for which the service has failed, if it has: a group gave up too often.
    pub fn failure(&self) -> Option<String> {
        self.root.failure()
    }

    /// Reasons for which the service is not at work: it has failed, or a group gave up and waits for its restart.
    pub fn faults(&self) -> Vec<String> {
        let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
        let gave_up = groups.iter().filter_map(|branch| branch.supervisor.gave_up());
        self.failure().into_iter().chain(gave_up).collect()
    }

    /// Waits until the service has failed; gives the reason.
    pub async fn failed(&self) -> String {
        self.root.failed().await
    }

    /// Ends all children for good, and waits until they have ended.
    pub async fn stop(&self) {
        self.root.stopping.send_replace(true);
        let children: Vec<Arc<Node>> = {
            let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
            groups.iter().flat_map(|branch| &branch.children).map(|(node, _)| node.clone()).collect()
        };
        for child in children {
            child.stopped().await;
        }
    }
}

/// A group of a service, to which children are added.
#[derive(Clone)]
pub struct Group {
    tree: Arc<Tree>,
    supervisor: Arc<Supervisor>,
}

impl Group {
    /// Starts an actor on a thread, and keeps it alive. `factory` makes each instance; senders reserve `bound` units of
    /// room all together.
    pub fn actor<A, F>(&self, name: &str, bound: usize, thread: &ArbiterHandle, factory: F) -> Mailbox<A>
    where
        A: Actor<Context = Context<A>>,
        F: Fn() -> A + Send + 'static,
    {
        let room = Arc::new(Semaphore::new(bound));
        let node = Arc::new(Node::with_mailbox(self.tree.name_of(name), bound, room.clone()));
        let (address, slot) = watch::channel(None);
        let mailbox = Mailbox::new(slot, node.clone(), room);
        self.start(node, thread, move || {
            let (factory, address) = (Rc::new(factory), Rc::new(address));
            move || {
                let (factory, address) = (factory.clone(), address.clone());
                async move {
                    let mut context = Context::<A>::new();
                    // The permits bound the mailbox; actix's own bound must not be the smaller one.
                    context.set_mailbox_capacity(bound.saturating_add(1));
                    let instance = context.address();
                    let work = context.into_future((*factory)());
                    address.send_replace(Some(instance));
                    // However the instance ends, senders wait for the next one.
                    let _unpublish = OnDrop(|| drop(address.send_replace(None)));
                    work.await;
                }
            }
        });
        mailbox
    }

    /// Starts a background task on a thread, and keeps it alive. `work` makes each instance, and counts what it has
    /// handled with its node.
    pub fn task<F, W>(&self, name: &str, thread: &ArbiterHandle, work: F) -> Arc<Node>
    where
        F: Fn(Arc<Node>) -> W + Send + 'static,
        W: Future<Output = ()> + 'static,
    {
        let node = Arc::new(Node::new(self.tree.name_of(name)));
        let own = node.clone();
        self.start(node.clone(), thread, move || {
            let work = Rc::new(work);
            move || {
                let (work, node) = (work.clone(), own.clone());
                // A panic of `work` itself is the instance's, too.
                async move { work(node).await }
            }
        });
        node
    }

    /// Starts a child's loop on a thread, where `start` makes the maker of its instances.
    fn start<S, W>(&self, node: Arc<Node>, thread: &ArbiterHandle, start: impl FnOnce() -> S + Send + 'static)
    where
        S: Fn() -> W + 'static,
        W: Future<Output = ()> + 'static,
    {
        let commands = self.tree.add(&self.supervisor, &node);
        let supervisor = self.supervisor.clone();
        thread.spawn_fn(move || {
            actix::spawn(Child { node, supervisor, commands, start: start() }.run());
        });
    }
}

/// Calls a function when it is dropped.
struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[cfg(test)]
mod tests {
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
}
