//! The log in one file, for a system in one process.
//!
//! redb keeps the frames: every commit is on the disk before it is acknowledged, and a file that a
//! crash left half-written is brought back to its last commit when it is opened. One thread writes;
//! whatever waits for it (appends, acknowledgements) goes into one commit together. Who has which
//! frame is known in memory alone: when the process ends, every frame that was not acknowledged is
//! there again.
//!
//! A write that fails (a full disk, a size limit) leaves redb closed to writes. Appends are refused at once then,
//! and the file is opened again every few seconds until a write works. What was acknowledged is remembered in a
//! file beside it ([`super::marks`]), so that a log that was lost or went back is told.
//!
//! Deliveries are counted in memory, too, and those of a frame that an earlier process left behind are committed
//! before the frame is handed out: a frame that ends its process is known by its count, and a frame that merely
//! waited while processes came and went has none. The deliveries of the process that appended it are not committed,
//! which keeps them cheap.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, TryLockError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use tokio::sync::{Notify, mpsc, oneshot};
use uuid::Uuid;

use crate::config::LogSettings;
use crate::event::Source;

use super::frame::{Frame, read_mark};
use super::marks::{FrameMark, Marks, Runs};
use super::recover::unpanicked;
use super::{
    AppendError, Appended, Delivery, Log, LogError, Pull, Receipt, Settlement, Token, Topic, TopicState,
};

/// (topic, sequence) → when it was logged (i64), the open of the file it was logged in (u64), frame.
pub(super) const FRAMES: TableDefinition<'_, (&str, u64), &[u8]> = TableDefinition::new("frames");
/// topic → the highest sequence given.
pub(super) const LAST: TableDefinition<'_, &str, u64> = TableDefinition::new("last_sequence");
/// The log's id and how often the file was opened.
pub(super) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
pub(super) const LOG_ID: &str = "log_id";
const OPENS: &str = "opens";
/// Bytes that were written to see whether there is room.
const ROOM_KEY: &str = "room";
/// (topic, sequence) → how often the frame was handed out by processes after the one that appended it.
const DELIVERIES: TableDefinition<'_, (&str, u64), u64> = TableDefinition::new("deliveries");
/// What stands before the frame in a value.
pub(super) const PREFIX: usize = 16;

/// Operations that wait for the writing thread.
const QUEUE: usize = 1_024;
/// Operations that go into one commit at most.
const GROUP: usize = 256;
/// redb's page cache, in bytes.
const CACHE: usize = 32 * 1024 * 1024;
/// The first wait until a file that could not be written is opened again; later waits grow with the time that takes.
const REOPEN: Duration = Duration::from_secs(2);
const REOPEN_AT_LATEST: Duration = Duration::from_secs(60);
/// Interval at which orders are answered while nothing can be written.
const REFUSING: Duration = Duration::from_millis(20);
/// Bytes that must fit into the file before it counts as writable again.
const ROOM: usize = 1 << 20;
/// Bytes of frames that one commit copies when the file is written anew.
const COPY: usize = 16 << 20;
/// The file of marks beside the log.
pub(crate) const MARKS_FILE: &str = "log.marks";
/// A file whose presence asks for the log's file to be written anew, without what it has let go of.
pub const FORGET_FILE: &str = "forget.pending";
/// How long a pull waits for frames.
const PULL_EXPIRES: Duration = Duration::from_millis(500);

/// A log in a file.
pub struct Embedded {
    shared: Arc<Shared>,
    writes: mpsc::Sender<Write>,
}

struct Shared {
    file: PathBuf,
    /// None while it is opened again.
    database: RwLock<Option<Database>>,
    log_id: Uuid,
    opens: u64,
    settings: LogSettings,
    queues: HashMap<Topic, (Mutex<Queue>, Notify)>,
    marks: Mutex<Marks>,
    /// Why nothing can be written now: redb refuses all after a write that failed.
    failed: Mutex<Option<String>>,
}

/// What a topic holds, in memory.
#[derive(Default)]
struct Queue {
    last: u64,
    bytes: u64,
    held: BTreeMap<u64, Held>,
    ready: BTreeSet<u64>,
    later: BTreeSet<(Instant, u64)>,
    recent: HashMap<String, u64>,
    recent_order: VecDeque<(Instant, String)>,
}

struct Held {
    bytes: u64,
    logged_at: i64,
    deliveries: u64,
    /// Its writer and number; none if it is no frame.
    name: Option<(Uuid, u64)>,
    /// True if an earlier process appended it: then its deliveries are committed.
    inherited: bool,
}

enum Write {
    Append {
        topic: Topic,
        id: String,
        frame: Bytes,
        reply: oneshot::Sender<Result<Appended, AppendError>>,
    },
    Ack {
        topic: Topic,
        sequence: u64,
        reply: oneshot::Sender<Result<(), LogError>>,
    },
    /// Writes the file anew if that was asked for.
    Forget {
        reply: oneshot::Sender<Result<(), LogError>>,
    },
    /// Counts of deliveries, by sequence.
    Deliveries {
        topic: Topic,
        counts: Vec<(u64, u64)>,
        reply: oneshot::Sender<Result<(), LogError>>,
    },
}

fn away(error: impl std::fmt::Display) -> LogError {
    LogError::Unavailable(error.to_string())
}

pub(super) fn now_micros() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

impl Queue {
    fn wake_due(&mut self) {
        let now = Instant::now();
        while let Some(&(due, sequence)) = self.later.first()
            && due <= now
        {
            self.later.pop_first();
            if self.held.contains_key(&sequence) {
                self.ready.insert(sequence);
            }
        }
    }

    fn remember(&mut self, id: String, sequence: u64, window: Duration) {
        let now = Instant::now();
        while let Some((at, _)) = self.recent_order.front()
            && now.duration_since(*at) > window
        {
            if let Some((_, old)) = self.recent_order.pop_front() {
                self.recent.remove(&old);
            }
        }
        self.recent.insert(id.clone(), sequence);
        self.recent_order.push_back((now, id));
    }

    fn drop_frame(&mut self, sequence: u64) {
        if let Some(held) = self.held.remove(&sequence) {
            self.bytes -= held.bytes;
            self.ready.remove(&sequence);
        }
    }
}

impl Shared {
    fn queue(&self, topic: Topic) -> (MutexGuard<'_, Queue>, &Notify) {
        let (queue, notify) = &self.queues[&topic];
        (queue.lock().unwrap_or_else(PoisonError::into_inner), notify)
    }

    fn marks(&self) -> MutexGuard<'_, Marks> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why nothing can be written now, if that is so.
    fn why_failed(&self) -> Option<String> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_failed(&self, why: Option<String>) {
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    fn read(&self, topic: Topic, sequence: u64) -> Result<Option<Bytes>, LogError> {
        // Opening takes its time; no caller may be held up for it.
        let database = match self.database.try_read() {
            Ok(database) => database,
            Err(TryLockError::Poisoned(database)) => database.into_inner(),
            Err(TryLockError::WouldBlock) => return Err(away("it is opened again")),
        };
        let database = database.as_ref().ok_or_else(|| away("it is opened again"))?;
        let read = database.begin_read().map_err(away)?;
        let frames = read.open_table(FRAMES).map_err(away)?;
        let value = frames.get((topic.to_string().as_str(), sequence)).map_err(away)?;
        Ok(value.and_then(|value| value.value().get(PREFIX..).map(Bytes::copy_from_slice)))
    }
}

impl Embedded {
    /// Opens the log's file, or makes it.
    ///
    /// An error says what is wrong with the file and what to do about it.
    pub fn open(file: &Path, settings: LogSettings) -> Result<Self, LogError> {
        let broken = |error: &dyn std::fmt::Display| {
            LogError::Misconfigured(format!(
                "the embedded log {} cannot be read: {error}. What it holds was accepted, and may not be stored yet: \
                 `ess log recover` brings what is intact into a new log and keeps the damaged file",
                file.display()
            ))
        };
        // What a killed process had begun to write beside it.
        for begun in ["redb.new", "redb.recovering", "redb.copying"] {
            let _ = std::fs::remove_file(file.with_extension(begun));
        }
        let opened = unpanicked(|| {
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
            tracing::warn!(%error, "the log was not written anew: what was forgotten may still be in its free pages");
        }
        let (writes, orders) = mpsc::channel(QUEUE);
        let writer = shared.clone();
        std::thread::Builder::new()
            .name("ess-embedded-log".to_owned())
            .spawn(move || write_all(&writer, orders))
            .map_err(away)?;
        Ok(Self { shared, writes })
    }

    /// Why an order was not answered.
    fn gone(&self) -> String {
        self.shared.why_failed().unwrap_or_else(|| "it is closed".to_owned())
    }

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

fn identify(database: &Database) -> Result<(Uuid, u64), redb::Error> {
    let write = database.begin_write()?;
    let found = {
        let mut meta = write.open_table(META)?;
        let id =
            meta.get(LOG_ID)?.and_then(|id| Uuid::from_slice(id.value()).ok()).unwrap_or_else(Uuid::new_v4);
        let opens =
            meta.get(OPENS)?.and_then(|opens| Some(u64::from_le_bytes(opens.value().try_into().ok()?)));
        let opens = opens.unwrap_or(0) + 1;
        meta.insert(LOG_ID, id.as_bytes().as_slice())?;
        meta.insert(OPENS, opens.to_le_bytes().as_slice())?;
        write.open_table(FRAMES)?;
        write.open_table(LAST)?;
        write.open_table(DELIVERIES)?;
        (id, opens)
    };
    write.commit()?;
    Ok(found)
}

type Queues = HashMap<Topic, (Mutex<Queue>, Notify)>;

fn load(database: &Database) -> Result<Queues, redb::Error> {
    let read = database.begin_read()?;
    let (frames, last) = (read.open_table(FRAMES)?, read.open_table(LAST)?);
    let counts = read.open_table(DELIVERIES)?;
    let mut queues = HashMap::new();
    for topic in Topic::all() {
        let name = topic.to_string();
        let mut queue =
            Queue { last: last.get(name.as_str())?.map_or(0, |last| last.value()), ..Queue::default() };
        for entry in frames.range((name.as_str(), 0)..=(name.as_str(), u64::MAX))? {
            let (key, value) = entry?;
            let (sequence, value) = (key.value().1, value.value());
            if value.len() < PREFIX {
                return Err(redb::Error::Corrupted(format!("{topic}: frame {sequence} is cut off")));
            }
            let deliveries = counts.get((name.as_str(), sequence))?.map_or(0, |count| count.value());
            let name = read_mark(&value[PREFIX..]).map(|(writer, mark)| (writer, mark.number));
            let number = |at: usize| value[at..at + 8].try_into().map_or(0, u64::from_le_bytes);
            let bytes = (value.len() - PREFIX) as u64;
            let logged_at = number(0).cast_signed();
            queue.held.insert(sequence, Held { bytes, logged_at, deliveries, name, inherited: true });
            queue.ready.insert(sequence);
            queue.bytes += bytes;
        }
        queues.insert(topic, (Mutex::new(queue), Notify::new()));
    }
    Ok(queues)
}

/// Holds what the log has against its marks: what it has and the marks lack is entered, what it lacks is told.
fn compare(file: &Path, database: &Database, queues: &Queues, marks: &mut Marks) -> Result<(), redb::Error> {
    let read = database.begin_read()?;
    let frames = read.open_table(FRAMES)?;
    for (topic, (queue, _)) in queues {
        let Topic::Events(source) = *topic else { continue };
        let queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
        let mut there: HashMap<Uuid, Runs> = HashMap::new();
        for (sequence, held) in &queue.held {
            let Some((writer, number)) = held.name else { continue };
            there.entry(writer).or_default().add(number, number);
            if marks.is_taken(source, writer, number) {
                continue;
            }
            let value = frames.get((topic.to_string().as_str(), *sequence))?;
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
                "the log lacks frames that it acknowledged and that are not known to be stored: its file was removed, \
                 cut or damaged, or went back. GET /ledger tells how many events are missing. Stop this process; if \
                 you have the file as it was, run `ess log recover FILE`, else `ess log recover` looks through this one"
            );
        }
    }
    marks.write();
    Ok(())
}

/// The writing thread: takes what waits, commits it as one, answers all.
fn write_all(shared: &Shared, mut orders: mpsc::Receiver<Write>) {
    loop {
        if shared.why_failed().is_some() && !refuse_until_writable(shared, &mut orders) {
            return;
        }
        let Some(first) = orders.blocking_recv() else { return };
        let mut group = vec![first];
        while group.len() < GROUP
            && let Ok(next) = orders.try_recv()
        {
            group.push(next);
        }
        commit(shared, group);
    }
}

/// Refuses what comes, and opens the file again from time to time until it can be written; false if the log's
/// owner is gone before that.
fn refuse_until_writable(shared: &Shared, orders: &mut mpsc::Receiver<Write>) -> bool {
    let mut next = Instant::now() + REOPEN;
    loop {
        if Instant::now() >= next {
            let begun = Instant::now();
            match reopen(shared) {
                Ok(()) => {
                    shared.set_failed(None);
                    tracing::info!(file = %shared.file.display(), "the embedded log takes events again");
                    return true;
                }
                Err(error) => {
                    tracing::debug!(%error, "the embedded log cannot be written yet");
                    shared.set_failed(Some(error.to_string()));
                }
            }
            next = Instant::now() + (begun.elapsed() * 4).clamp(REOPEN, REOPEN_AT_LATEST);
        }
        match orders.try_recv() {
            Ok(order) => refuse(shared, order),
            Err(mpsc::error::TryRecvError::Empty) => std::thread::sleep(REFUSING),
            Err(mpsc::error::TryRecvError::Disconnected) => return false,
        }
    }
}

/// Answers an order that was not tried: nothing of it is in the file.
fn refuse(shared: &Shared, order: Write) {
    match order {
        Write::Append { topic, reply, .. } => drop(reply.send(Err(shared.refusal(topic)))),
        Write::Ack { reply, .. } | Write::Deliveries { reply, .. } | Write::Forget { reply } => {
            drop(reply.send(Err(away(shared.why_failed().unwrap_or_default()))));
        }
    }
}

impl Shared {
    /// The answer to an append that is not tried.
    fn refusal(&self, topic: Topic) -> AppendError {
        let why = self.why_failed().unwrap_or_default();
        let why = format!("{} could not be written ({why})", self.file.display());
        match topic {
            Topic::Events(_) => AppendError::Refused(why),
            // Somebody waits for it to go in later.
            Topic::DeadLetters => AppendError::Unavailable(why),
        }
    }
}

/// Opens the file again after a write that failed, and finds out whether there is room.
fn reopen(shared: &Shared) -> Result<(), redb::Error> {
    let mut slot = shared.database.write().unwrap_or_else(PoisonError::into_inner);
    // A file is open once at a time.
    *slot = None;
    let database = Database::builder().set_cache_size(CACHE).open(&shared.file)?;
    let found = {
        let read = database.begin_read()?;
        let meta = read.open_table(META)?;
        meta.get(LOG_ID)?.and_then(|id| Uuid::from_slice(id.value()).ok())
    };
    if found != Some(shared.log_id) {
        return Err(redb::Error::Corrupted("another log was put in its place".to_owned()));
    }
    for room in [ROOM, 0] {
        let write = database.begin_write()?;
        write.open_table(META)?.insert(ROOM_KEY, vec![0; room].as_slice())?;
        write.commit()?;
    }
    // What became of the commit that failed is known to the file alone.
    for (topic, held) in load(&database)? {
        let held = held.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        shared.queue(topic).0.agree(held);
        shared.queue(topic).1.notify_one();
    }
    *slot = Some(database);
    Ok(())
}

impl Queue {
    /// Takes over what the file holds: frames that are new are ready, frames that are gone are dropped, others stay
    /// with whoever has them.
    fn agree(&mut self, file: Queue) {
        let gone: Vec<u64> =
            self.held.keys().filter(|known| !file.held.contains_key(known)).copied().collect();
        gone.into_iter().for_each(|sequence| self.drop_frame(sequence));
        self.last = self.last.max(file.last);
        for (sequence, held) in file.held {
            if !self.held.contains_key(&sequence) {
                self.bytes += held.bytes;
                self.held.insert(sequence, Held { deliveries: 0, ..held });
                self.ready.insert(sequence);
            }
        }
    }
}

/// Writes the file anew if somebody asked for it: what was let go of stays in free pages otherwise, and is to be
/// forgotten.
fn forget(shared: &Shared) -> Result<(), LogError> {
    let asked = shared.file.with_file_name(FORGET_FILE);
    if !asked.exists() {
        return Ok(());
    }
    let beside = shared.file.with_extension("redb.new");
    let mut slot = shared.database.write().unwrap_or_else(PoisonError::into_inner);
    let database = slot.as_ref().ok_or_else(|| away("it is opened again"))?;
    copy(database, &beside).map_err(away)?;
    *slot = None;
    let renamed = std::fs::rename(&beside, &shared.file).map_err(away);
    let opened = Database::builder().set_cache_size(CACHE).open(&shared.file);
    match opened {
        Ok(database) => *slot = Some(database),
        Err(error) => {
            shared.set_failed(Some(error.to_string()));
            return Err(away(error));
        }
    }
    renamed?;
    std::fs::remove_file(&asked).map_err(away)
}

/// Copies all that a log holds into a new file.
pub(super) fn copy(from: &Database, file: &Path) -> Result<(), redb::Error> {
    let _ = std::fs::remove_file(file);
    let to = Database::builder().set_cache_size(CACHE).create(file)?;
    let read = from.begin_read()?;
    let mut write = to.begin_write()?;
    for entry in read.open_table(META)?.iter()? {
        let (key, value) = entry?;
        write.open_table(META)?.insert(key.value(), value.value())?;
    }
    for entry in read.open_table(LAST)?.iter()? {
        let (key, value) = entry?;
        write.open_table(LAST)?.insert(key.value(), value.value())?;
    }
    write.open_table(FRAMES)?;
    write.open_table(DELIVERIES)?;
    // Versions before this one have no such table.
    if let Ok(counts) = read.open_table(DELIVERIES) {
        for entry in counts.iter()? {
            let (key, value) = entry?;
            write.open_table(DELIVERIES)?.insert(key.value(), value.value())?;
        }
    }
    let mut bytes = 0;
    for entry in read.open_table(FRAMES)?.iter()? {
        let (key, value) = entry?;
        write.open_table(FRAMES)?.insert(key.value(), value.value())?;
        bytes += value.value().len();
        if bytes > COPY {
            write.commit()?;
            write = to.begin_write()?;
            bytes = 0;
        }
    }
    write.commit()?;
    Ok(())
}

/// What an append will have done once it is committed.
struct Placed {
    topic: Topic,
    sequence: u64,
    bytes: u64,
    logged_at: i64,
    id: String,
    mark: Option<FrameMark>,
    reply: oneshot::Sender<Result<Appended, AppendError>>,
}

fn commit(shared: &Shared, group: Vec<Write>) {
    let mut placed: Vec<Placed> = Vec::new();
    let mut repeated = Vec::new();
    let mut acked = Vec::new();
    let mut dropped = Vec::new();
    let mut cleaning = Vec::new();
    let mut counted = Vec::new();
    let result = (|| -> Result<(), redb::Error> {
        let database = shared.database.read().unwrap_or_else(PoisonError::into_inner);
        let database = database.as_ref().ok_or(redb::Error::PreviousIo)?;
        let write = database.begin_write()?;
        for order in group {
            match order {
                Write::Forget { reply } => cleaning.push(reply),
                Write::Ack { topic, sequence, reply } => {
                    acked.push((topic, sequence, reply));
                    remove(shared, &write, topic, sequence)?;
                }
                Write::Deliveries { topic, counts, reply } => {
                    counted.push(reply);
                    let mut table = write.open_table(DELIVERIES)?;
                    for (sequence, count) in counts {
                        table.insert((topic.to_string().as_str(), sequence), count)?;
                    }
                }
                Write::Append { topic, id, frame, reply } => {
                    let mark = match topic {
                        Topic::Events(source) => shared.marks().look(source, &frame),
                        Topic::DeadLetters => None,
                    };
                    let twin = placed.iter().find(|placed| placed.id == id).map(|placed| placed.sequence);
                    if let Some(sequence) = twin.or_else(|| shared.queue(topic).0.recent.get(&id).copied()) {
                        repeated.push((Appended { sequence, duplicate: true, log_id: shared.log_id }, reply));
                        continue;
                    }
                    let size = frame.len() as u64;
                    let waiting = placed.iter().filter(|placed| placed.topic == topic);
                    let (count, bytes) =
                        waiting.fold((0, 0), |(count, bytes), placed| (count + 1, bytes + placed.bytes));
                    let max_bytes = shared.settings.topic_max_bytes(topic);
                    let (last, after) = {
                        let queue = shared.queue(topic).0;
                        (queue.last, queue.bytes + bytes + size)
                    };
                    if after > max_bytes {
                        let full = format!("{topic} holds {} of {max_bytes} bytes", after - size);
                        let _ = reply.send(Err(AppendError::Full(full)));
                        continue;
                    }
                    let (sequence, logged_at) = (last + count + 1, now_micros());
                    placed.push(Placed { topic, sequence, bytes: size, logged_at, id, mark, reply });
                    insert(&write, topic, sequence, logged_at, shared.opens, &frame)?;
                }
            }
        }
        for (topic, sequence) in expired(shared) {
            remove(shared, &write, topic, sequence)?;
            dropped.push((topic, sequence));
        }
        let acked = acked.iter().map(|(topic, sequence, _)| (*topic, *sequence));
        mark_done(shared, acked.chain(dropped.iter().copied()));
        write.commit()?;
        Ok(())
    })();
    match result {
        Ok(()) => {
            for (topic, sequence) in dropped {
                shared.queue(topic).0.drop_frame(sequence);
            }
            for (topic, sequence, reply) in acked {
                shared.queue(topic).0.drop_frame(sequence);
                let _ = reply.send(Ok(()));
            }
            let (mut taken, mut answers) = (Vec::new(), repeated);
            for Placed { topic, sequence, bytes, logged_at, id, mark, reply } in placed {
                let (mut queue, notify) = shared.queue(topic);
                queue.last = sequence;
                queue.bytes += bytes;
                let name = mark.map(|mark| (mark.writer, mark.number));
                queue.held.insert(sequence, Held { bytes, logged_at, deliveries: 0, name, inherited: false });
                queue.ready.insert(sequence);
                queue.remember(id, sequence, shared.settings.duplicate_window);
                drop(queue);
                notify.notify_one();
                if let (Topic::Events(source), Some(mark)) = (topic, mark) {
                    taken.push((source, mark));
                }
                answers.push((Appended { sequence, duplicate: false, log_id: shared.log_id }, reply));
            }
            // Behind the queue, so that marks never lead it; before anybody is told, so that a kill loses none.
            mark_taken(shared, &taken);
            for (appended, reply) in answers {
                let _ = reply.send(Ok(appended));
            }
            for reply in cleaning {
                let _ = reply.send(forget(shared));
            }
            for reply in counted {
                let _ = reply.send(Ok(()));
            }
        }
        Err(error) => {
            let error = error.to_string();
            let file = shared.file.display();
            tracing::error!(error, %file, "the embedded log could not be written: events are refused until it can");
            shared.set_failed(Some(error.clone()));
            for reply in placed
                .into_iter()
                .map(|placed| placed.reply)
                .chain(repeated.into_iter().map(|(_, reply)| reply))
            {
                let _ = reply.send(Err(AppendError::Unavailable(error.clone())));
            }
            for reply in acked.into_iter().map(|(_, _, reply)| reply).chain(cleaning).chain(counted) {
                let _ = reply.send(Err(LogError::Unavailable(error.clone())));
            }
        }
    }
}

/// Enters frames as done: collectors are, or their age is over. That is so whatever becomes of the commit.
fn mark_done(shared: &Shared, frames: impl Iterator<Item = (Topic, u64)>) {
    let mut done = Vec::new();
    for (topic, sequence) in frames {
        let Topic::Events(source) = topic else { continue };
        let name = shared.queue(topic).0.held.get(&sequence).and_then(|held| held.name);
        done.extend(name.map(|(writer, number)| (source, writer, number)));
    }
    let mut marks = shared.marks();
    for (source, writer, number) in done {
        marks.finish(source, writer, number);
    }
    marks.write();
}

fn mark_taken(shared: &Shared, frames: &[(Source, FrameMark)]) {
    let mut marks = shared.marks();
    frames.iter().for_each(|(source, frame)| marks.take(*source, *frame));
    marks.write();
}

pub(super) fn insert(
    write: &WriteTransaction,
    topic: Topic,
    sequence: u64,
    logged_at: i64,
    opens: u64,
    frame: &[u8],
) -> Result<(), redb::Error> {
    let name = topic.to_string();
    let mut frames = write.open_table(FRAMES)?;
    let mut value = frames.insert_reserve((name.as_str(), sequence), PREFIX + frame.len())?;
    let bytes = value.as_mut();
    bytes[..8].copy_from_slice(&logged_at.to_le_bytes());
    bytes[8..PREFIX].copy_from_slice(&opens.to_le_bytes());
    bytes[PREFIX..].copy_from_slice(frame);
    drop(value);
    write.open_table(LAST)?.insert(name.as_str(), sequence)?;
    Ok(())
}

fn remove(shared: &Shared, write: &WriteTransaction, topic: Topic, sequence: u64) -> Result<(), redb::Error> {
    let name = topic.to_string();
    write.open_table(FRAMES)?.remove((name.as_str(), sequence))?;
    if shared.queue(topic).0.held.get(&sequence).is_some_and(|held| held.inherited) {
        write.open_table(DELIVERIES)?.remove((name.as_str(), sequence))?;
    }
    Ok(())
}

/// Frames beyond the age that was set.
fn expired(shared: &Shared) -> Vec<(Topic, u64)> {
    let Some(max_age) = shared.settings.max_age else { return Vec::new() };
    let oldest = now_micros() - i64::try_from(max_age.as_micros()).unwrap_or(i64::MAX);
    let mut expired = Vec::new();
    for topic in Topic::all() {
        let queue = shared.queue(topic).0;
        let old = queue.held.iter().take_while(|(_, held)| held.logged_at < oldest);
        expired.extend(old.map(|(sequence, _)| (topic, *sequence)));
    }
    expired
}

struct Hold {
    topic: Topic,
    sequence: u64,
    shared: Arc<Shared>,
    writes: mpsc::Sender<Write>,
}

impl Hold {
    fn again(&self, delay: Duration) {
        let (mut queue, notify) = self.shared.queue(self.topic);
        if queue.held.contains_key(&self.sequence) {
            if delay.is_zero() {
                queue.ready.insert(self.sequence);
            } else {
                queue.later.insert((Instant::now() + delay, self.sequence));
            }
        }
        drop(queue);
        notify.notify_one();
    }
}

impl Token for Hold {
    fn settle(&self, settlement: Settlement) -> BoxFuture<'_, Result<(), LogError>> {
        Box::pin(async move {
            match settlement {
                Settlement::Retry(delay) => {
                    self.again(delay);
                    Ok(())
                }
                Settlement::Ack => {
                    let (reply, answer) = oneshot::channel();
                    let order = Write::Ack { topic: self.topic, sequence: self.sequence, reply };
                    self.writes.send(order).await.map_err(|_| away("it is closed"))?;
                    answer.await.map_err(|_| away("it is closed"))?
                }
            }
        })
    }

    fn progress(&self) -> BoxFuture<'static, Result<(), LogError>> {
        // A frame is out until its receipt is settled or dropped, however long that takes.
        Box::pin(async { Ok(()) })
    }

    fn abandon(&self) {
        self.again(Duration::ZERO);
    }
}

/// A pull under way.
struct Pulling {
    topic: Topic,
    left: usize,
    until: Instant,
    shared: Arc<Shared>,
    writes: mpsc::Sender<Write>,
    /// Frames whose deliveries are committed, to be handed out.
    counted: VecDeque<HandedOut>,
}

/// A frame that is out; it is ready again if this is dropped.
struct HandedOut {
    sequence: u64,
    deliveries: u64,
    logged_at: i64,
    receipt: Receipt,
}

impl Pulling {
    /// The next frame that is ready, if this is the kind of it.
    fn take(&self, inherited: bool) -> Option<HandedOut> {
        let (mut queue, _) = self.shared.queue(self.topic);
        queue.wake_due();
        let sequence = *queue.ready.first()?;
        let Some(held) = queue.held.get_mut(&sequence) else {
            queue.ready.pop_first();
            return None;
        };
        if held.inherited != inherited {
            return None;
        }
        held.deliveries += 1;
        let (deliveries, logged_at) = (held.deliveries, held.logged_at);
        queue.ready.pop_first();
        let (topic, shared) = (self.topic, self.shared.clone());
        let hold = Hold { topic, sequence, shared, writes: self.writes.clone() };
        Some(HandedOut { sequence, deliveries, logged_at, receipt: Receipt::new(Box::new(hold)) })
    }

    /// Takes frames that an earlier process left behind, and commits that they are handed out now.
    async fn take_inherited(&mut self) {
        while self.counted.len() < self.left
            && let Some(out) = self.take(true)
        {
            self.counted.push_back(out);
        }
        if !self.counted.is_empty() {
            let counts = self.counted.iter().map(|out| (out.sequence, out.deliveries)).collect();
            let (reply, answer) = oneshot::channel();
            // A log that cannot write says so elsewhere, and what it holds may be collected all the same.
            if self.writes.send(Write::Deliveries { topic: self.topic, counts, reply }).await.is_ok() {
                let _ = answer.await;
            }
        }
    }

    async fn next(&mut self) -> Option<Result<Delivery, LogError>> {
        if self.left == 0 {
            return None;
        }
        loop {
            if self.counted.is_empty() {
                self.take_inherited().await;
            }
            if let Some(out) = self.counted.pop_front().or_else(|| self.take(false)) {
                self.left -= 1;
                let (topic, log_id) = (self.topic, self.shared.log_id);
                let HandedOut { sequence, deliveries, logged_at, receipt } = out;
                return Some(match self.shared.read(topic, sequence) {
                    Ok(Some(frame)) => {
                        Ok(Delivery { topic, log_id, sequence, deliveries, logged_at, frame, receipt })
                    }
                    Ok(None) => Err(away(format!("frame {sequence} is no longer there"))),
                    Err(error) => Err(error),
                });
            }
            let due = self.shared.queue(self.topic).0.later.first().map(|(due, _)| *due);
            let until = due.map_or(self.until, |due| due.min(self.until));
            let notify = &self.shared.queues[&self.topic].1;
            let waited = tokio::time::timeout_at(until.into(), notify.notified()).await;
            if waited.is_err() && Instant::now() >= self.until {
                return None;
            }
        }
    }
}

impl Log for Embedded {
    fn append(&self, topic: Topic, id: String, frame: Bytes) -> BoxFuture<'_, Result<Appended, AppendError>> {
        Box::pin(async move {
            // Not tried at all: nobody waits for a disk that is full.
            if self.shared.why_failed().is_some() {
                return Err(self.shared.refusal(topic));
            }
            let gone = || AppendError::Unavailable(self.gone());
            self.write(move |reply| Write::Append { topic, id, frame, reply }, gone).await
        })
    }

    fn prepare(&self, _topic: Topic) -> BoxFuture<'_, Result<(), LogError>> {
        let prepared = match self.shared.why_failed() {
            None => Ok(()),
            Some(why) => Err(away(format!(
                "{} could not be written ({why}): events are refused; it goes on by itself when it can be",
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
        // Before the queue: a frame that comes in between is in the queue alone.
        let acknowledged = match topic {
            Topic::Events(source) => self.shared.marks().acknowledged(source),
            Topic::DeadLetters => HashMap::new(),
        };
        let (queue, _) = self.shared.queue(topic);
        let (last, bytes) = (queue.last, queue.bytes);
        let first = queue.held.keys().next().copied().unwrap_or(last + 1);
        let gone = (first..=last).filter(|sequence| !queue.held.contains_key(sequence)).collect();
        let max_bytes = self.shared.settings.topic_max_bytes(topic);
        let state =
            TopicState { log_id: self.shared.log_id, first, last, gone, bytes, max_bytes, acknowledged };
        Box::pin(async { Ok(state) })
    }

    fn peek(&self, topic: Topic, sequence: u64) -> BoxFuture<'_, Result<Option<Bytes>, LogError>> {
        Box::pin(async move { self.shared.read(topic, sequence) })
    }

    /// Everything that was settled has been committed; what was to be forgotten leaves the file now.
    fn flush(&self) -> BoxFuture<'_, Result<(), LogError>> {
        Box::pin(self.write(|reply| Write::Forget { reply }, || away(self.gone())))
    }
}
