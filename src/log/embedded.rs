//! The log in one file, for a system in one process.
//!
//! redb keeps the frames: every commit is on the disk before it is acknowledged, and a file that a
//! crash left half-written is brought back to its last commit when it is opened. One thread writes;
//! whatever waits for it (appends, acknowledgements) goes into one commit together. Who has which
//! frame is known in memory alone: when the process ends, every frame that was not acknowledged is
//! there again.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use tokio::sync::{Notify, mpsc, oneshot};
use uuid::Uuid;

use crate::config::LogSettings;

use super::{
    AppendError, Appended, Delivery, Log, LogError, Pull, Receipt, Settlement, Token, Topic, TopicState,
};

/// (topic, sequence) → when it was logged (i64), the open of the file it was logged in (u64), frame.
const FRAMES: TableDefinition<'_, (&str, u64), &[u8]> = TableDefinition::new("frames");
/// topic → the highest sequence given.
const LAST: TableDefinition<'_, &str, u64> = TableDefinition::new("last_sequence");
/// The log's id and how often the file was opened.
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const LOG_ID: &str = "log_id";
const OPENS: &str = "opens";
/// What stands before the frame in a value.
const PREFIX: usize = 16;

/// Operations that wait for the writing thread.
const QUEUE: usize = 1_024;
/// Operations that go into one commit at most.
const GROUP: usize = 256;
/// redb's page cache, in bytes.
const CACHE: usize = 32 * 1024 * 1024;
/// Frames that collectors can have had in hand when the process ended.
const HANDED_OUT: usize = 128;
/// How long a pull waits for frames.
const PULL_EXPIRES: Duration = Duration::from_millis(500);

/// A log in a file.
pub struct Embedded {
    shared: Arc<Shared>,
    writes: mpsc::Sender<Write>,
}

struct Shared {
    database: Database,
    log_id: Uuid,
    opens: u64,
    settings: LogSettings,
    queues: HashMap<Topic, (Mutex<Queue>, Notify)>,
    /// Why nothing can be written any more: redb refuses all after a write that failed.
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
}

enum Write {
    Append { topic: Topic, id: String, frame: Bytes, reply: oneshot::Sender<Result<Appended, AppendError>> },
    Ack { topic: Topic, sequence: u64, reply: oneshot::Sender<Result<(), LogError>> },
}

fn away(error: impl std::fmt::Display) -> LogError {
    LogError::Unavailable(error.to_string())
}

fn now_micros() -> i64 {
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

    fn read(&self, topic: Topic, sequence: u64) -> Result<Option<Bytes>, LogError> {
        let read = self.database.begin_read().map_err(away)?;
        let frames = read.open_table(FRAMES).map_err(away)?;
        let value = frames.get((topic.to_string().as_str(), sequence)).map_err(away)?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value.value()[PREFIX..])))
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
        let database =
            Database::builder().set_cache_size(CACHE).create(file).map_err(|error| match error {
                redb::DatabaseError::DatabaseAlreadyOpen => LogError::Misconfigured(format!(
                    "the embedded log {} is in use by another process",
                    file.display()
                )),
                error => broken(&error),
            })?;
        let (log_id, opens) = identify(&database).map_err(|error| broken(&error))?;
        let queues = load(&database, opens).map_err(|error| broken(&error))?;
        let shared = Arc::new(Shared { database, log_id, opens, settings, queues, failed: Mutex::default() });
        let (writes, orders) = mpsc::channel(QUEUE);
        let writer = shared.clone();
        std::thread::Builder::new()
            .name("ess-embedded-log".to_owned())
            .spawn(move || write_all(&writer, orders))
            .map_err(away)?;
        Ok(Self { shared, writes })
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
        (id, opens)
    };
    write.commit()?;
    Ok(found)
}

type Queues = HashMap<Topic, (Mutex<Queue>, Notify)>;

fn load(database: &Database, opens: u64) -> Result<Queues, redb::Error> {
    let read = database.begin_read()?;
    let (frames, last) = (read.open_table(FRAMES)?, read.open_table(LAST)?);
    let mut queues = HashMap::new();
    for topic in Topic::all() {
        let name = topic.to_string();
        let mut queue =
            Queue { last: last.get(name.as_str())?.map_or(0, |last| last.value()), ..Queue::default() };
        for entry in frames.range((name.as_str(), 0)..=(name.as_str(), u64::MAX))? {
            let (key, value) = entry?;
            let (sequence, value) = (key.value().1, value.value());
            let number = |at: usize| value[at..at + 8].try_into().map_or(0, u64::from_le_bytes);
            let bytes = (value.len() - PREFIX) as u64;
            // Each open after the one it was written in may have handed it out, if it stood in front.
            let in_front = queue.held.len() < HANDED_OUT;
            let deliveries = if in_front { opens.saturating_sub(number(8)) } else { 0 };
            queue.held.insert(sequence, Held { bytes, logged_at: number(0).cast_signed(), deliveries });
            queue.ready.insert(sequence);
            queue.bytes += bytes;
        }
        queues.insert(topic, (Mutex::new(queue), Notify::new()));
    }
    Ok(queues)
}

/// The writing thread: takes what waits, commits it as one, answers all.
fn write_all(shared: &Shared, mut orders: mpsc::Receiver<Write>) {
    while let Some(first) = orders.blocking_recv() {
        let mut group = vec![first];
        while group.len() < GROUP
            && let Ok(next) = orders.try_recv()
        {
            group.push(next);
        }
        commit(shared, group);
    }
}

/// What an append will have done once it is committed.
struct Placed {
    topic: Topic,
    sequence: u64,
    bytes: u64,
    logged_at: i64,
    id: String,
    reply: oneshot::Sender<Result<Appended, AppendError>>,
}

fn commit(shared: &Shared, group: Vec<Write>) {
    let mut placed: Vec<Placed> = Vec::new();
    let mut repeated = Vec::new();
    let mut acked = Vec::new();
    let mut dropped = Vec::new();
    let result = (|| -> Result<(), redb::Error> {
        let write = shared.database.begin_write()?;
        for order in group {
            match order {
                Write::Ack { topic, sequence, reply } => {
                    remove(&write, topic, sequence)?;
                    acked.push((topic, sequence, reply));
                }
                Write::Append { topic, id, frame, reply } => {
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
                    insert(&write, topic, sequence, logged_at, shared.opens, &frame)?;
                    placed.push(Placed { topic, sequence, bytes: size, logged_at, id, reply });
                }
            }
        }
        for (topic, sequence) in expired(shared) {
            remove(&write, topic, sequence)?;
            dropped.push((topic, sequence));
        }
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
            for Placed { topic, sequence, bytes, logged_at, id, reply } in placed {
                let (mut queue, notify) = shared.queue(topic);
                queue.last = sequence;
                queue.bytes += bytes;
                queue.held.insert(sequence, Held { bytes, logged_at, deliveries: 0 });
                queue.ready.insert(sequence);
                queue.remember(id, sequence, shared.settings.duplicate_window);
                drop(queue);
                notify.notify_one();
                let _ = reply.send(Ok(Appended { sequence, duplicate: false, log_id: shared.log_id }));
            }
            for (appended, reply) in repeated {
                let _ = reply.send(Ok(appended));
            }
        }
        Err(error) => {
            let error = error.to_string();
            tracing::error!(error, "the embedded log could not write; it takes events again after a restart");
            *shared.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.clone());
            for reply in placed
                .into_iter()
                .map(|placed| placed.reply)
                .chain(repeated.into_iter().map(|(_, reply)| reply))
            {
                let _ = reply.send(Err(AppendError::Unavailable(error.clone())));
            }
            for (_, _, reply) in acked {
                let _ = reply.send(Err(LogError::Unavailable(error.clone())));
            }
        }
    }
}

fn insert(
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

fn remove(write: &WriteTransaction, topic: Topic, sequence: u64) -> Result<(), redb::Error> {
    write.open_table(FRAMES)?.remove((topic.to_string().as_str(), sequence))?;
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
}

impl Pulling {
    fn take(&self) -> Option<(u64, u64, i64)> {
        let (mut queue, _) = self.shared.queue(self.topic);
        queue.wake_due();
        let sequence = queue.ready.pop_first()?;
        let held = queue.held.get_mut(&sequence)?;
        held.deliveries += 1;
        Some((sequence, held.deliveries, held.logged_at))
    }

    async fn next(&mut self) -> Option<Result<Delivery, LogError>> {
        if self.left == 0 {
            return None;
        }
        loop {
            if let Some((sequence, deliveries, logged_at)) = self.take() {
                self.left -= 1;
                let (topic, shared) = (self.topic, self.shared.clone());
                let hold = Hold { topic, sequence, shared: shared.clone(), writes: self.writes.clone() };
                let receipt = Receipt::new(Box::new(hold));
                return Some(match shared.read(topic, sequence) {
                    Ok(Some(frame)) => {
                        let log_id = shared.log_id;
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
        Box::pin(self.write(
            move |reply| Write::Append { topic, id, frame, reply },
            || AppendError::Unavailable("it is closed".to_owned()),
        ))
    }

    fn prepare(&self, _topic: Topic) -> BoxFuture<'_, Result<(), LogError>> {
        let failed = self.shared.failed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let prepared = match failed {
            None => Ok(()),
            Some(why) => {
                Err(away(format!("a write failed ({why}): restart the process when there is space")))
            }
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
        };
        let pull: Pull = Box::pin(stream::unfold(pulling, |mut pulling| async move {
            let next = pulling.next().await?;
            Some((next, pulling))
        }));
        Box::pin(async { Ok(pull) })
    }

    fn state(&self, topic: Topic) -> BoxFuture<'_, Result<TopicState, LogError>> {
        let (queue, _) = self.shared.queue(topic);
        let (last, bytes) = (queue.last, queue.bytes);
        let first = queue.held.keys().next().copied().unwrap_or(last + 1);
        let gone = (first..=last).filter(|sequence| !queue.held.contains_key(sequence)).collect();
        let max_bytes = self.shared.settings.topic_max_bytes(topic);
        let state = TopicState {
            log_id: self.shared.log_id,
            first,
            last,
            gone,
            bytes,
            max_bytes,
            acknowledged: HashMap::new(),
        };
        Box::pin(async { Ok(state) })
    }

    fn peek(&self, topic: Topic, sequence: u64) -> BoxFuture<'_, Result<Option<Bytes>, LogError>> {
        Box::pin(async move { self.shared.read(topic, sequence) })
    }

    fn flush(&self) -> BoxFuture<'_, Result<(), LogError>> {
        Box::pin(async { Ok(()) })
    }
}
