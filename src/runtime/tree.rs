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
        self.add_group(name, false)
    }

    /// Adds a group whose failure is not the service's: it is restarted again and again, and others go on.
    pub fn isolated_group(self: &Arc<Self>, name: &str) -> Group {
        self.add_group(name, true)
    }

    fn add_group(self: &Arc<Self>, name: &str, is_isolated: bool) -> Group {
        let supervisor = Arc::new(Supervisor::new(self.name_of(name), self.root.clone(), is_isolated));
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
        let gave_up = groups.iter().map(|branch| &branch.supervisor).filter(|group| !group.is_isolated);
        let gave_up = gave_up.filter_map(|group| group.gave_up());
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
mod tests;
