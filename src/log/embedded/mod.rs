//! The log in one file, for a system in one process.
//!
//! ```text
//! append, ack ──▶ queue of orders ──▶ writing thread ──commit──▶ file (redb), then marks, then answers
//! pull ◀── frames that are ready (in memory) ◀── file
//! ```
//!
//! Every commit is on the disk before it is acknowledged, and redb brings a file that a crash left half-written back
//! to its last commit. One thread writes: the orders that wait for it (appends, acknowledgements) go into one commit.
//! Memory alone knows which frames are handed out; when the process ends, each frame that was not acknowledged is
//! ready again.
//!
//! After a write that fails (a full disk, a size limit) redb refuses all writes. Appends are then refused at once,
//! and the file is opened again every few seconds until a write works. The file of [`marks`](super::marks) remembers
//! which frames were acknowledged, so that a log that was lost or went back in time is noticed.
//!
//! Deliveries are counted in memory. Those of a frame that an earlier process appended are also committed before the
//! frame is handed out: so a frame that ends its process has a high count, and one that merely waited while processes
//! came and went has none. Deliveries by the process that appended the frame are not committed, which is cheap.

mod file;
mod pull;
mod queue;
mod shared;
mod writer;

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream;
use redb::{Database, ReadableDatabase};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use crate::config::LogSettings;

use super::catch_panic::catch_panic;
use super::frame::Frame;
use super::marks::{FrameMark, Marks};
use super::runs::Runs;
use super::{AppendError, Appended, Bus, Log, LogError, Pull, Topic, TopicState};
use file::{CACHE, Queues, identify, load};
use pull::Pulling;
use shared::{Shared, away};
use writer::{Write, forget, write_all};

pub(super) use file::{FRAMES, LAST, LOG_ID, META, PREFIX, copy, declare_topics, insert};
pub use shared::FORGET_FILE;
pub(super) use shared::now_micros;

/// Orders that wait for the writing thread.
const QUEUE: usize = 1_024;
/// The file of marks beside the log.
pub(crate) const MARKS_FILE: &str = "log.marks";
/// Time for which a pull waits for frames.
const PULL_EXPIRES: Duration = Duration::from_millis(500);

/// A log in a file.
pub struct Embedded {
    shared: Arc<Shared>,
    writes: mpsc::Sender<Write>,
    bus: Bus,
}

impl Embedded {
    /// Opens the log's file, or creates it.
    ///
    /// # Errors
    ///
    /// If the file is damaged or in use; the error says what to do about it.
    pub fn open(file: &Path, settings: LogSettings) -> Result<Self, LogError> {
        let broken = |error: &dyn std::fmt::Display| {
            LogError::Misconfigured(format!(
                "the embedded log {} cannot be read: {error}. What it holds was accepted, and may not be stored yet: \
                 `ess log recover` brings what is intact into a new log and keeps the damaged file",
                file.display()
            ))
        };
        // Files that a killed process left half-written.
        for left in ["redb.new", "redb.recovering", "redb.copying"] {
            let _ = std::fs::remove_file(file.with_extension(left));
        }
        let opened = catch_panic(|| {
            let database = Database::builder().set_cache_size(CACHE).create(file)?;
            let (log_id, opens) = identify(&database)?;
            let queues = load(&database)?;
            Ok((database, log_id, opens, queues))
        });
        let (database, log_id, opens, queues) = match opened {
            Ok(Ok(opened)) => opened,
            Ok(Err(redb::Error::DatabaseAlreadyOpen)) => {
                let why = format!("the embedded log {} is in use by another process", file.display());
                return Err(LogError::Misconfigured(why));
            }
            Ok(Err(error)) => return Err(broken(&error)),
            Err(why) => return Err(broken(&why)),
        };
        let mut marks = Marks::open(&file.with_file_name(MARKS_FILE));
        compare(file, &database, &queues, &mut marks).map_err(|error| broken(&error))?;
        let shared = Arc::new(Shared {
            file: file.to_owned(),
            database: RwLock::new(Some(database)),
            log_id,
            opens,
            settings,
            queues,
            marks: Mutex::new(marks),
            failed: Mutex::default(),
        });
        if let Err(error) = forget(&shared) {
            tracing::warn!(%error, "the log's file was not copied: data that was to be forgotten may still be in its free pages; it is tried again at the next start");
        }
        let (writes, orders) = mpsc::channel(QUEUE);
        let writer = shared.clone();
        std::thread::Builder::new()
            .name("ess-embedded-log".to_owned())
            .spawn(move || write_all(&writer, orders))
            .map_err(away)?;
        Ok(Self { shared, writes, bus: Bus::local() })
    }

    /// Reason for which an order was not answered.
    fn gone(&self) -> String {
        self.shared.why_failed().unwrap_or_else(|| "the log is closed".to_owned())
    }

    /// Gives an order to the writing thread, and waits for its answer.
    async fn write<T, E>(
        &self,
        make: impl FnOnce(oneshot::Sender<Result<T, E>>) -> Write,
        gone: impl Fn() -> E,
    ) -> Result<T, E> {
        let (reply, answer) = oneshot::channel();
        self.writes.send(make(reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

/// Compares the log with its marks: enters frames that the marks lack, and logs an error if the log lacks frames.
fn compare(file: &Path, database: &Database, queues: &Queues, marks: &mut Marks) -> Result<(), redb::Error> {
    let read = database.begin_read()?;
    let frames = read.open_table(FRAMES)?;
    for (source, (queue, _)) in queues.of_sources() {
        let queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
        let mut there: HashMap<Uuid, Runs> = HashMap::new();
        for (sequence, held) in &queue.held {
            let Some((writer, number)) = held.name else { continue };
            there.entry(writer).or_default().add(number, number);
            if marks.is_taken(source, writer, number) {
                continue;
            }
            let value = frames.get((source.name(), *sequence))?;
            let frame = value.map(|value| Bytes::copy_from_slice(&value.value()[PREFIX..]));
            let events =
                frame.and_then(|frame| Frame::read(frame).ok()).map_or(0, |frame| frame.len() as u64);
            marks.take(source, FrameMark { writer, number, events });
        }
        let lost: u64 = marks.lost(source, &there).values().map(Runs::len).sum();
        if lost > 0 {
            tracing::error!(
                %source,
                frames = lost,
                file = %file.display(),
                "the log lacks frames that it acknowledged and that no collector stored: its file was removed, \
                 truncated or damaged, or replaced by an older one. GET /ledger shows how many events are missing. \
                 Stop this process. If you have the file as it was, run `ess log recover FILE`; otherwise \
                 `ess log recover` searches this one"
            );
        }
    }
    marks.write();
    Ok(())
}

impl Log for Embedded {
    fn append(&self, topic: Topic, id: String, frame: Bytes) -> BoxFuture<'_, Result<Appended, AppendError>> {
        Box::pin(async move {
            // Nothing is queued while the file cannot be written.
            if self.shared.why_failed().is_some() {
                return Err(self.shared.refusal(topic));
            }
            let gone = || AppendError::Unavailable(self.gone().into());
            self.write(move |reply| Write::Append { topic, id, frame, reply }, gone).await
        })
    }

    fn prepare(&self, _topic: Topic) -> BoxFuture<'_, Result<(), LogError>> {
        let prepared = match self.shared.why_failed() {
            None => Ok(()),
            Some(why) => Err(away(format!(
                "{} could not be written ({why}): events are refused until it can",
                self.shared.file.display()
            ))),
        };
        Box::pin(async { prepared })
    }

    fn pull(&self, topic: Topic, most: usize) -> BoxFuture<'_, Result<Pull, LogError>> {
        let pulling = Pulling {
            topic,
            left: most,
            until: Instant::now() + PULL_EXPIRES,
            shared: self.shared.clone(),
            writes: self.writes.clone(),
            counted: VecDeque::new(),
        };
        let pull: Pull = Box::pin(stream::unfold(pulling, |mut pulling| async move {
            let next = pulling.next().await?;
            Some((next, pulling))
        }));
        Box::pin(async { Ok(pull) })
    }

    fn state(&self, topic: Topic) -> BoxFuture<'_, Result<TopicState, LogError>> {
        // Marks are read before the queue: a frame that is appended in between is in the queue only, so that marks
        // never lead.
        let acknowledged = match topic {
            Topic::Events(source) => self.shared.marks().acknowledged(source),
            Topic::Further(..) | Topic::DeadLetters => HashMap::new(),
        };
        let (queue, _) = self.shared.queue(topic);
        let (last, bytes) = (queue.last, queue.bytes);
        let first = queue.held.keys().next().copied().unwrap_or(last + 1);
        let held = queue.held.len() as u64;
        let mut all = Runs::default();
        if held > 0 {
            all.add(first, last);
        }
        let gone = Some(all.without(&queue.held.keys().copied().collect()));
        let max_bytes = self.shared.settings.topic_max_bytes(topic);
        let log_id = self.shared.log_id;
        let state =
            TopicState { log_id, first, last, held, gone, bytes, max_bytes, acknowledged, copies: None };
        Box::pin(async { Ok(state) })
    }

    fn peek(&self, topic: Topic, sequence: u64) -> BoxFuture<'_, Result<Option<Bytes>, LogError>> {
        Box::pin(async move { self.shared.read(topic, sequence) })
    }

    fn topics(&self) -> BoxFuture<'_, Result<Vec<String>, LogError>> {
        let used = self.shared.queues.of_sources();
        let used = used.filter(|(source, (queue, _))| {
            source.is_built_in() || queue.lock().unwrap_or_else(PoisonError::into_inner).last > 0
        });
        let names = used.map(|(source, _)| source.name().to_owned()).collect();
        Box::pin(async { Ok(names) })
    }

    fn bus(&self) -> Bus {
        self.bus.clone()
    }

    /// Settled frames are committed already; deleted frames leave the file now, if that was asked for.
    fn flush(&self) -> BoxFuture<'_, Result<(), LogError>> {
        Box::pin(self.write(|reply| Write::Forget { reply }, || away(self.gone())))
    }
}
