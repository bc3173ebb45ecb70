//! Supervised actors and tasks.
//!
//! ```text
//! service (Tree) ─┬─ group ─┬─ actor   behind a Mailbox
//!                 │         └─ task    a loop in the background
//!                 └─ group ─── …
//!
//! sender ──room──▶ Mailbox ──address──▶ actor (an actix context on an arbiter's thread)
//!                     ▲                    │ panics, ends, is told to restart
//!                     └── new address ── its supervisor's loop (holds the factory)
//! ```
//!
//! Each child of a group, actor or task, has a loop ([`child`]) that makes it, sees its end and makes the next instance.
//! Three strategies follow each other (see [`supervisor`]): a group restarts the one child that failed; when that happens
//! too often the service restarts all children of the group; when that happens too often the service has failed, and its
//! process ends with exit code 1.
//!
//! A [`Mailbox`] is the only way to an actor. Its bound is hard: a permit is taken before a message is sent, travels
//! inside it and comes back when its work is done, so that the bound covers the messages in the actor's hands as well as
//! those that wait.

mod child;
mod drain;
mod mailbox;
mod node;
mod supervisor;
mod tree;

pub use child::Command;
pub use drain::{Drain, DrainHandle, Phase};
pub use mailbox::{Held, Mailbox, Room, Undelivered};
pub use node::{ActorView, MailboxView, Node, RestartReason, State};
pub use tree::{Group, Tree};
