//! How actors live.
//!
//! ```text
//! sender ──room──▶ Mailbox ──address──▶ actor (an actix context on an arbiter's thread)
//!                     ▲                    │ panics, ends, is told to restart
//!                     └── new address ── supervisor (holds the factory)
//! ```
//!
//! A [`Mailbox`] is the only way to an actor. Its bound is hard: a permit is taken before a message
//! is sent, travels inside it and comes back when its work is done, so what an actor holds is
//! bounded as well as what waits for it. Behind the mailbox a [`supervisor`](supervise) puts a new
//! actor in the place of one that panicked. The [`Registry`] is the live tree that `/actors` shows.

mod drain;
mod mailbox;
mod registry;
mod supervisor;

pub use drain::{Drain, DrainHandle, Phase};
pub use mailbox::{Held, Mailbox, Room, Undelivered};
pub use registry::{ActorView, Command, MailboxView, Registry, RestartReason, State, Stats};
pub use supervisor::{Spec, supervise};
