//! ESS, the Event Spawning System: an event pipeline for ad-platform webhooks.
//!
//! ```text
//! publisher ──POST──▶ gateway: ingest ▶ validate ▶ publish ──frame──▶ LOG (JetStream | embedded)
//!                                                                       │
//! reporter: report ◀── STORE (PostgreSQL | SQLite) ◀── batch_write ◀ consume :collector
//! ```
//!
//! # The path of an event
//! 1. A publisher POSTs it to the [`gateway`]. `ingest` carries the request, `validate` judges the
//!    event by the contract of its source ([`event`]), `publish` puts it with others into a frame.
//! 2. The frame waits in the [`log`], durable; its acknowledgement is the publisher's 202.
//! 3. A [`collector`] takes the frame: `consume` pulls it, `batch_write` makes rows of it.
//! 4. The rows rest in the [`store`], each once, and with them the rollups, what they add to the summaries,
//!    and the ledger, in one transaction; its commit is the log's acknowledgement.
//! 5. The [`reporter`] answers from rollups and summaries.
//!
//! # Rooms
//! Arrows point down only: [`cli`] starts services ([`service`]) and shows a running system ([`terminal`]); services stand
//! on [`ops`], [`store`] and [`log`]; these on [`runtime`] and [`event`]; this on [`config`], [`source`], `json` and
//! [`money`], in this order. No service knows another.
//!
//! # Invariants
//! 1. An event ends as stored, duplicate or set aside, and the ledger counts all three.
//! 2. A 2xx follows the log's acknowledgement; the log's acknowledgement follows the commit.
//! 3. The receipt travels inside the message that carries its frame; dropping it asks for redelivery.
//! 4. Every mailbox, queue, pool and buffer has a named bound. Full means wait or 503, never grow.
//! 5. Draining is ownership: sources stop first, sinks last.

pub mod cli;
pub mod collector;
pub mod config;
pub mod console;
pub mod event;
pub mod fleet;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod gateway;
mod json;
pub mod ledger;
pub mod log;
pub mod money;
pub mod ops;
mod plan;
pub mod publisher;
pub mod replay;
pub mod reporter;
pub mod runtime;
pub mod service;
mod sketch;
pub mod source;
pub mod store;
pub mod terminal;
