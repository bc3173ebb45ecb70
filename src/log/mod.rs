//! The log: a durable queue of frames between gateway and collectors.
//!
//! ```text
//! gateway ──append(frame)──▶ Log ──pull──▶ Delivery { frame, Receipt } ──ack──▶ removed, retry──▶ delivered again
//! ```
//!
//! [`Log`] is a port with two adapters of one contract: [`jetstream`], for services in processes of their own, and
//! [`embedded`], a file for a system in one process. A topic is a work queue: it delivers its frames in order to any
//! consumer that asks, until a [`Receipt`] acknowledges them. It never drops a frame that was not acknowledged, and
//! refuses new frames when it is full. A message is a [`Frame`].

mod bus;
mod catch_panic;
mod dead_letter;
pub mod embedded;
mod error;
mod frame;
pub mod jetstream;
mod marks;
mod overlay;
mod receipt;
pub mod recover;
mod runs;
mod search;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use uuid::Uuid;

use crate::config::LogSettings;
use crate::event::Source;

pub use bus::{Bus, LocalBus, Subject};
pub use catch_panic::StructureDamaged;
pub use dead_letter::{DeadLetter, MAX_UNREADABLE_PAYLOAD, Reason, redact_errors};
pub use error::{AppendError, Cause, LogError};
pub use frame::{
    FRAME_VERSION, Frame, FrameError, FrameEvent, FrameWriter, MAX_FRAME_BYTES, MAX_FRAME_EVENTS, Origin,
    Piece, WriterMark,
};
pub use receipt::{Receipt, Settlement, Token};
pub use runs::Runs;
pub use search::find_frames;

/// One queue of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Topic {
    /// A source's events, in frames: the only stream, or the first of several.
    Events(Source),
    /// A further stream of a source's events, by its number, from 2. A writer's frames stand in one stream.
    Further(Source, u8),
    /// Refused events, on their way to the store.
    DeadLetters,
}

impl Topic {
    /// Every topic.
    pub fn all() -> impl Iterator<Item = Self> {
        Source::all().map(Self::Events).chain([Self::DeadLetters])
    }

    /// The first streams of a source, so many.
    pub fn streams(source: Source, count: usize) -> impl Iterator<Item = Self> {
        (1..=count).map(move |number| match u8::try_from(number) {
            Ok(number @ 2..) => Self::Further(source, number),
            _ => Self::Events(source),
        })
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Events(source) => f.write_str(source.name()),
            Self::Further(source, number) => write!(f, "{source}.{number}"),
            Self::DeadLetters => f.write_str("dead_letters"),
        }
    }
}

impl LogSettings {
    /// The bound of one topic, in bytes. Streams of a source share its bytes.
    pub fn topic_max_bytes(&self, topic: Topic) -> u64 {
        match topic {
            Topic::Events(_) | Topic::Further(..) => self.max_bytes / self.streams.max(1) as u64,
            Topic::DeadLetters => self.dead_letter_max_bytes,
        }
    }
}

/// Answer to an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Sequence of the frame in the topic, starting at 1.
    pub sequence: u64,
    /// True if the topic had a frame of this id already.
    pub duplicate: bool,
    /// Id of the log.
    pub log_id: Uuid,
}

/// A frame that was handed out, with the receipt to settle.
#[derive(Debug)]
pub struct Delivery {
    /// Topic of the frame.
    pub topic: Topic,
    /// Id of the log. A log that was created anew has another id, and its sequences begin at 1 again.
    pub log_id: Uuid,
    /// Sequence of the frame in the topic.
    pub sequence: u64,
    /// Number of deliveries, this one included.
    pub deliveries: u64,
    /// Time of the append, in microseconds since 1970.
    pub logged_at: i64,
    /// The frame's bytes.
    pub frame: Bytes,
    /// Receipt to settle; dropping it asks for another delivery.
    pub receipt: Receipt,
}

/// Copies of a topic on the servers of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copies {
    /// Number of copies that the topic is to have.
    pub wanted: usize,
    /// Server that leads the others; `None` during an election.
    pub leader: Option<String>,
    /// Servers whose copies are not up to date, each with the reason.
    pub behind: Vec<String>,
}

/// Content of a topic at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicState {
    /// Id of the log.
    pub log_id: Uuid,
    /// Lowest sequence that is held; `last + 1` if the topic is empty.
    pub first: u64,
    /// Highest sequence that was ever given.
    pub last: u64,
    /// Number of frames held.
    pub held: u64,
    /// Sequences between the two that are no longer held; `None` if the log would have to list more than [`MAX_GONE`].
    pub gone: Option<Runs>,
    /// Bytes held.
    pub bytes: u64,
    /// Bytes that the topic may hold.
    pub max_bytes: u64,
    /// Acknowledged frames by writer, removed ones included: the highest number, and the number of events. It may lag
    /// after a power cut, and never leads. Empty for logs that keep no such record.
    pub acknowledged: HashMap<Uuid, WriterMark>,
    /// Copies of the topic; `None` for a log that is no cluster.
    pub copies: Option<Copies>,
}

/// Maximum number of sequences that a log is asked to list one by one, 80 kB: one frame that stays in the log while all
/// behind it are processed would make the list as long as the log is old.
pub const MAX_GONE: u64 = 10_000;

/// Deliveries in order, at most as many as were asked for; the stream ends after a while.
pub type Pull = BoxStream<'static, Result<Delivery, LogError>>;

/// Rights of a process over the topics of a shared log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogRole {
    /// Creates missing topics, and changes existing ones to its settings.
    Gateway,
    /// Creates missing topics, and leaves existing ones as they are.
    Collector,
    /// Creates and changes nothing.
    Observer,
}

/// Port to a log. The module's documentation has the contract.
pub trait Log: Send + Sync {
    /// Makes a frame durable. `id` identifies the frame: a frame that is appended again within the duplicate window is
    /// in the log once.
    fn append(&self, topic: Topic, id: String, frame: Bytes) -> BoxFuture<'_, Result<Appended, AppendError>>;

    /// Creates the topic or changes it to the settings, as far as the process's [`LogRole`] allows.
    fn prepare(&self, topic: Topic) -> BoxFuture<'_, Result<(), LogError>>;

    /// Asks for up to `most` frames: those that are ready at once, then those that arrive within a second or less. All
    /// consumers of a topic share its frames.
    fn pull(&self, topic: Topic, most: usize) -> BoxFuture<'_, Result<Pull, LogError>>;

    /// Content of a topic.
    fn state(&self, topic: Topic) -> BoxFuture<'_, Result<TopicState, LogError>>;

    /// Reads a frame without taking it; `None` if it is not held.
    fn peek(&self, topic: Topic, sequence: u64) -> BoxFuture<'_, Result<Option<Bytes>, LogError>>;

    /// Every stream of a source that exists, the first one in any case. All of them hold frames to be collected, also
    /// those beyond the number that gateways write to.
    fn streams(&self, source: Source) -> BoxFuture<'_, Result<Vec<Topic>, LogError>> {
        Box::pin(std::future::ready(Ok(vec![Topic::Events(source)])))
    }

    /// Number of streams over which a gateway spreads a source's frames.
    fn streams_per_source(&self) -> usize {
        1
    }

    /// Names of the sources that the log has a topic for, at most [`MAX_DECLARED`](crate::source::MAX_DECLARED) beside the built-in ones.
    fn topics(&self) -> BoxFuture<'_, Result<Vec<String>, LogError>>;

    /// The bus between the processes that share the log.
    fn bus(&self) -> Bus;

    /// Waits until every settlement has reached the log.
    fn flush(&self) -> BoxFuture<'_, Result<(), LogError>>;
}

/// A log that several actors share.
pub type SharedLog = Arc<dyn Log>;
