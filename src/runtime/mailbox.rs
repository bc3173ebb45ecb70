//! A bounded address that survives its actor.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::dev::ToEnvelope;
use actix::{Actor, Addr, Context, Handler, Message};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::registry::Stats;

/// How often a message is sent at most: one that itself makes its actor panic must come to an end.
const ASKS: usize = 3;

/// A message in its mailbox, with the room that it takes there.
pub struct Held<M> {
    message: M,
    room: Room,
}

impl<M> Held<M> {
    /// The message and its room; the room is free again when it is dropped.
    pub fn open(self) -> (M, Room) {
        (self.message, self.room)
    }
}

impl<M: Message> Message for Held<M> {
    type Result = M::Result;
}

/// Room in a mailbox, in that mailbox's unit. Dropping it says that the work is done.
#[must_use = "the room is given back when this is dropped"]
pub struct Room {
    _permit: OwnedSemaphorePermit,
    stats: Arc<Stats>,
    used: bool,
}

impl Room {
    /// Adds other room of the same mailbox.
    pub fn merge(&mut self, mut other: Self) {
        let all = other._permit.num_permits();
        if let Some(permit) = other._permit.split(all) {
            self._permit.merge(permit);
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if self.used {
            self.stats.count_handled();
        }
    }
}

/// Why a message had no answer. The sender still has to decide what becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Undelivered {
    /// The actor ended or was restarted while it had the message.
    #[error("the actor was restarted while it had the message")]
    Lost,
    /// The actor has stopped for good.
    #[error("the actor has stopped")]
    Stopped,
    /// No room, or no actor, within the deadline.
    #[error("the mailbox had no room within the deadline")]
    Full,
}

/// The bounded way to one actor, whichever instance of it lives at the moment.
pub struct Mailbox<A: Actor<Context = Context<A>>> {
    address: watch::Receiver<Option<Addr<A>>>,
    room: Arc<Semaphore>,
    stats: Arc<Stats>,
}

impl<A: Actor<Context = Context<A>>> Clone for Mailbox<A> {
    fn clone(&self) -> Self {
        Self { address: self.address.clone(), room: self.room.clone(), stats: self.stats.clone() }
    }
}

impl<A: Actor<Context = Context<A>>> Mailbox<A> {
    pub(super) fn new(
        address: watch::Receiver<Option<Addr<A>>>,
        room: Arc<Semaphore>,
        stats: Arc<Stats>,
    ) -> Self {
        Self { address, room, stats }
    }

    /// Waits for `weight` units of room. Time that is spent waiting is counted as blocked.
    pub async fn reserve(&self, weight: u32) -> Result<Room, Undelivered> {
        let permit = match self.room.clone().try_acquire_many_owned(weight) {
            Ok(permit) => permit,
            Err(tokio::sync::TryAcquireError::Closed) => return Err(Undelivered::Stopped),
            Err(tokio::sync::TryAcquireError::NoPermits) => {
                let blocked = Blocked { since: Instant::now(), stats: &self.stats };
                let permit = self.room.clone().acquire_many_owned(weight).await;
                drop(blocked);
                permit.map_err(|_| Undelivered::Stopped)?
            }
        };
        Ok(Room { _permit: permit, stats: self.stats.clone(), used: false })
    }

    /// So much room, if there is at this moment.
    pub fn try_reserve(&self, weight: u32) -> Option<Room> {
        let permit = self.room.clone().try_acquire_many_owned(weight).ok()?;
        Some(Room { _permit: permit, stats: self.stats.clone(), used: false })
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

    /// Sends a message and, should the actor be restarted under it, sends it again, up to
    /// [`ASKS`] times and until `within` is over. For messages whose work may be done twice.
    pub async fn ask<M>(&self, message: M, within: Duration) -> Result<M::Result, Undelivered>
    where
        M: Message + Clone + Send + 'static,
        M::Result: Send,
        A: Handler<Held<M>>,
        A::Context: ToEnvelope<A, Held<M>>,
    {
        tokio::time::timeout(within, async {
            let mut address = self.address.clone();
            for _ in 1..ASKS {
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

    /// Waits until nothing is in the mailbox or in the actor's hands.
    pub async fn idle(&self) {
        let all = u32::try_from(self.stats.bound()).unwrap_or(u32::MAX);
        // A closed mailbox holds nothing.
        drop(self.room.acquire_many(all).await);
    }

    /// What is known of the actor.
    pub fn stats(&self) -> &Arc<Stats> {
        &self.stats
    }
}

/// Counts the time that a sender waits, also when it gives up.
struct Blocked<'a> {
    since: Instant,
    stats: &'a Stats,
}

impl Drop for Blocked<'_> {
    fn drop(&mut self) {
        self.stats.count_blocked(self.since.elapsed());
    }
}
