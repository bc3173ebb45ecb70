//! The bounded mailbox of an actor. It stays the same when the actor is restarted.

use std::sync::Arc;
use std::time::Duration;

use actix::dev::ToEnvelope;
use actix::{Actor, Addr, Context, Handler, Message};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, watch};
use tokio::time::Instant;

use super::node::Node;

/// Maximum deliveries of one message, so that a message that makes its actor panic is not sent for ever.
const MAX_SENDS: usize = 3;

/// A message in its mailbox, and its room there.
pub struct Held<M> {
    message: M,
    room: Room,
}

impl<M> Held<M> {
    /// The message and its room. Dropping the room frees it.
    pub fn open(self) -> (M, Room) {
        (self.message, self.room)
    }
}

impl<M: Message> Message for Held<M> {
    type Result = M::Result;
}

/// Room in a mailbox, in the mailbox's unit. Dropping it frees the room, and counts the message as handled if one was
/// sent into it.
#[must_use = "dropping it frees the room"]
pub struct Room {
    permit: OwnedSemaphorePermit,
    node: Arc<Node>,
    used: bool,
}

impl Room {
    /// Adds other room of the same mailbox.
    pub fn merge(&mut self, mut other: Self) {
        let all = other.permit.num_permits();
        if let Some(permit) = other.permit.split(all) {
            self.permit.merge(permit);
        }
    }
}

#[cfg(test)]
impl Room {
    /// Room of no mailbox, for tests.
    pub(crate) fn detached() -> Self {
        let room = Arc::new(Semaphore::new(1));
        #[allow(clippy::unwrap_used, reason = "the semaphore is new")]
        let permit = room.try_acquire_owned().unwrap();
        Self { permit, node: Arc::new(Node::new("detached".to_owned())), used: false }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if self.used {
            self.node.count_handled();
        }
    }
}

/// Reason for which a message has no answer. It may have been worked on: the sender decides what follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Undelivered {
    /// The actor ended while it had the message; another instance follows.
    #[error("the actor was restarted while it had the message")]
    Lost,
    /// The actor has stopped for good.
    #[error("the actor has stopped")]
    Stopped,
    /// Neither room nor an actor within the time limit.
    #[error("the mailbox had no room within the deadline")]
    Full,
}

/// The bounded mailbox of an actor, whichever instance of it is at work.
pub struct Mailbox<A: Actor<Context = Context<A>>> {
    /// Address of the instance; `None` while the actor is restarted.
    address: watch::Receiver<Option<Addr<A>>>,
    room: Arc<Semaphore>,
    node: Arc<Node>,
}

impl<A: Actor<Context = Context<A>>> Clone for Mailbox<A> {
    fn clone(&self) -> Self {
        Self { address: self.address.clone(), room: self.room.clone(), node: self.node.clone() }
    }
}

impl<A: Actor<Context = Context<A>>> Mailbox<A> {
    pub(super) fn new(
        address: watch::Receiver<Option<Addr<A>>>,
        node: Arc<Node>,
        room: Arc<Semaphore>,
    ) -> Self {
        Self { address, room, node }
    }

    /// Waits for `weight` units of room. Time that is spent waiting is counted as blocked.
    pub async fn reserve(&self, weight: u32) -> Result<Room, Undelivered> {
        let permit = match self.room.clone().try_acquire_many_owned(weight) {
            Ok(permit) => permit,
            Err(TryAcquireError::Closed) => return Err(Undelivered::Stopped),
            Err(TryAcquireError::NoPermits) => {
                let blocked = Blocked { since: Instant::now(), node: &self.node };
                let permit = self.room.clone().acquire_many_owned(weight).await;
                drop(blocked);
                permit.map_err(|_| Undelivered::Stopped)?
            }
        };
        Ok(Room { permit, node: self.node.clone(), used: false })
    }

    /// Takes `weight` units of room if they are free now.
    pub fn try_reserve(&self, weight: u32) -> Option<Room> {
        let permit = self.room.clone().try_acquire_many_owned(weight).ok()?;
        Some(Room { permit, node: self.node.clone(), used: false })
    }

    /// Sends a message into room that was reserved, and waits for the answer.
    ///
    /// While the actor is being restarted the message waits here for the new one.
    pub async fn send_in<M>(&self, mut room: Room, message: M) -> Result<M::Result, Undelivered>
    where
        M: Message + Send + 'static,
        M::Result: Send,
        A: Handler<Held<M>>,
        A::Context: ToEnvelope<A, Held<M>>,
    {
        let mut address = self.address.clone();
        let address = match address.wait_for(Option::is_some).await {
            Ok(address) => address.clone().ok_or(Undelivered::Stopped)?,
            Err(_) => return Err(Undelivered::Stopped),
        };
        room.used = true;
        address.send(Held { message, room }).await.map_err(|_| Undelivered::Lost)
    }

    /// Sends a message as soon as there is one unit of room, and waits for the answer.
    pub async fn send<M>(&self, message: M) -> Result<M::Result, Undelivered>
    where
        M: Message + Send + 'static,
        M::Result: Send,
        A: Handler<Held<M>>,
        A::Context: ToEnvelope<A, Held<M>>,
    {
        let room = self.reserve(1).await?;
        self.send_in(room, message).await
    }

    /// Sends a message, and sends it again if the actor was restarted while it had the message: up to [`MAX_SENDS`] times
    /// and until `within` is over. For messages whose work may be done twice.
    pub async fn ask<M>(&self, message: M, within: Duration) -> Result<M::Result, Undelivered>
    where
        M: Message + Clone + Send + 'static,
        M::Result: Send,
        A: Handler<Held<M>>,
        A::Context: ToEnvelope<A, Held<M>>,
    {
        tokio::time::timeout(within, async {
            let mut address = self.address.clone();
            for _ in 1..MAX_SENDS {
                address.mark_unchanged();
                match self.send(message.clone()).await {
                    // The next instance is behind another address.
                    Err(Undelivered::Lost) => drop(address.changed().await),
                    other => return other,
                }
            }
            self.send(message).await
        })
        .await
        .unwrap_or(Err(Undelivered::Full))
    }

    /// Waits until no message is in the mailbox or in the actor's hands.
    pub async fn idle(&self) {
        let all = u32::try_from(self.node.bound().unwrap_or(0)).unwrap_or(u32::MAX);
        // A closed mailbox holds nothing.
        drop(self.room.acquire_many(all).await);
    }

    /// The actor's node in the tree.
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }
}

/// Counts the time for which a sender waits, also if it gives up.
struct Blocked<'a> {
    since: Instant,
    node: &'a Node,
}

impl Drop for Blocked<'_> {
    fn drop(&mut self) {
        self.node.count_blocked(self.since.elapsed());
    }
}
