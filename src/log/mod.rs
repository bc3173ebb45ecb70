//! Where events wait: a durable log between gateway and collectors.
//!
//! ```text
//! gateway ──append(frame)──▶ Log ──pull──▶ Delivery { frame, Receipt } ──ack, retry──▶ gone, again
//! ```
//!
//! [`Log`] is a port with two adapters that keep one contract: [`jetstream`], for services that run
//! apart, and [`embedded`], a file for one process. A topic is a work queue: it delivers in order,
//! to whichever consumer asks, until a [`Receipt`] acknowledges; it never drops what was not
//! acknowledged, and refuses new frames when it is full. What is in a message is a [`Frame`].

mod dead_letter;
pub mod embedded;
mod frame;
pub mod jetstream;
mod marks;
mod overlay;
mod receipt;
pub mod recover;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use uuid::Uuid;

use crate::config::LogSettings;
use crate::event::Source;

pub use dead_letter::{DeadLetter, MAX_UNREADABLE_PAYLOAD, Reason};
pub use frame::{
    FRAME_VERSION, Frame, FrameError, FrameEvent, FrameWriter, MAX_FRAME_BYTES, MAX_FRAME_EVENTS, Origin,
    Piece, WriterMark, find_frames,
};
pub use receipt::{Receipt, Settlement, Token};

/// One queue of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Topic {
    /// A source's events, in frames.
    Events(Source),
    /// What the gateway refused, on its way to the store.
    DeadLetters,
}

impl Topic {
    /// Every topic.
    pub fn all() -> impl Iterator<Item = Self> {
        Source::all().map(Self::Events).chain([Self::DeadLetters])
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Events(source) => f.write_str(source.name()),
            Self::DeadLetters => f.write_str("dead_letters"),
        }
    }
}

impl LogSettings {
    /// The bound of one topic, in bytes.
    pub fn topic_max_bytes(&self, topic: Topic) -> u64 {
        match topic {
            Topic::Events(_) => self.max_bytes,
            Topic::DeadLetters => self.dead_letter_max_bytes,
        }
    }
}

/// Where a frame was put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Its place in the topic, from 1.
    pub sequence: u64,
    /// Whether a frame of this id was there already.
    pub duplicate: bool,
    /// Which log took it.
    pub log_id: Uuid,
}

/// Why a frame was not appended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The topic is full. The frame is not in the log.
    #[error("the log is full: {0}")]
    Full(String),
    /// The log will not take this frame. It is not in the log.
    #[error("the log refused the frame: {0}")]
    Refused(String),
    /// No answer: whether the frame is in the log is not known.
    #[error("the log did not answer: {0}")]
    Unavailable(String),
}

/// Why the log could not do something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// It is away, or has a passing fault.
    #[error("the log is away: {0}")]
    Unavailable(String),
    /// It is set up in a way that cannot be changed to what is asked for.
    #[error("{0}")]
    Misconfigured(String),
}

/// A frame that was handed out, until its receipt is settled.
#[derive(Debug)]
pub struct Delivery {
    /// Which topic it came from.
    pub topic: Topic,
    /// Which log: a log that was made anew has another id, and counts from 1 again.
    pub log_id: Uuid,
    /// Its place in the topic.
    pub sequence: u64,
    /// How often it was handed out, this time included.
    pub deliveries: u64,
    /// When the log took it, in microseconds since 1970.
    pub logged_at: i64,
    /// The frame's bytes.
    pub frame: Bytes,
    /// To be settled; dropping it asks for another delivery.
    pub receipt: Receipt,
}

/// What a topic holds at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicState {
    /// Which log it is.
    pub log_id: Uuid,
    /// The lowest place that is held; one more than `last` where nothing is.
    pub first: u64,
    /// The highest place that was ever given.
    pub last: u64,
    /// Places between the two that are no longer held, in order.
    pub gone: Vec<u64>,
    /// Bytes held.
    pub bytes: u64,
    /// Bytes that it may hold.
    pub max_bytes: u64,
    /// What the log remembers to have acknowledged, beyond the frames that it holds: by writer the highest
    /// number, and the events of the acknowledged frames alone (a frame that was refused is in no sum). It may lag
    /// after a power cut and never leads. Empty where the log keeps none.
    pub acknowledged: HashMap<Uuid, WriterMark>,
}

impl TopicState {
    /// How many frames are held.
    pub fn held(&self) -> u64 {
        (self.last + 1).saturating_sub(self.first).saturating_sub(self.gone.len() as u64)
    }
}

/// Frames as they come, in order, at most as many as were asked for; it ends after a while.
pub type Pull = BoxStream<'static, Result<Delivery, LogError>>;

/// Rights of a process over the topics of a shared log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogRole {
    /// Makes topics that are missing, and brings those that exist to its settings.
    Gateway,
    /// Makes topics that are missing, and leaves those that exist as they are.
    Collector,
    /// Makes and changes nothing.
    Observer,
}

/// The port to a log. See the module's documentation for the contract.
pub trait Log: Send + Sync {
    /// Makes the frame durable. `id` is the frame's own: a frame that is appended again within the
    /// duplicate window stands in the log once.
    fn append(&self, topic: Topic, id: String, frame: Bytes) -> BoxFuture<'_, Result<Appended, AppendError>>;

    /// Makes the topic if it is not there, or brings it to its settings, as far as the process's [`LogRole`] allows.
    fn prepare(&self, topic: Topic) -> BoxFuture<'_, Result<(), LogError>>;

    /// Asks for up to `most` frames; what is there comes at once, then what arrives within a second
    /// or less. All consumers of a topic share its frames.
    fn pull(&self, topic: Topic, most: usize) -> BoxFuture<'_, Result<Pull, LogError>>;

    /// What a topic holds.
    fn state(&self, topic: Topic) -> BoxFuture<'_, Result<TopicState, LogError>>;

    /// One frame that is held, without taking it.
    fn peek(&self, topic: Topic, sequence: u64) -> BoxFuture<'_, Result<Option<Bytes>, LogError>>;

    /// Makes sure that everything that was settled has reached the log.
    fn flush(&self) -> BoxFuture<'_, Result<(), LogError>>;
}

/// A log that several actors share.
pub type SharedLog = Arc<dyn Log>;
