//! The writing thread: one transaction for the orders that wait, and the recovery from a file that cannot be written.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use bytes::Bytes;
use redb::{Database, ReadableDatabase, WriteTransaction};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::file::{CACHE, DELIVERIES, LOG_ID, META, ROOM_KEY, copy, insert, read, remove};
use super::queue::Held;
use super::shared::{FORGET_FILE, Shared, away, now_micros};
use crate::event::Source;
use crate::log::marks::FrameMark;
use crate::log::{AppendError, Appended, LogError, Topic};

/// Orders of one commit, at most.
const GROUP: usize = 256;
/// First wait until a file that could not be written is opened again; later waits are four times what opening takes.
const REOPEN: Duration = Duration::from_secs(2);
/// The longest such wait.
const REOPEN_AT_LATEST: Duration = Duration::from_secs(60);
/// Interval at which orders are refused while the file cannot be written.
const REFUSING: Duration = Duration::from_millis(20);
/// Bytes that must fit into the file before it counts as writable again.
const ROOM: usize = 1 << 20;
/// Size from which on an empty log gives back the space of its file, in bytes.
const SHRINK_FROM: u64 = 64 << 20;
/// Shortest time between two such attempts: a log that is filled and emptied again and again keeps its space meanwhile.
const SHRINK_AT_MOST_EVERY: Duration = Duration::from_secs(10);

/// An order to the writing thread.
pub(super) enum Write {
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
    /// Copies the file, without deleted frames, if [`FORGET_FILE`](super::shared::FORGET_FILE) asks for it.
    Forget {
        reply: oneshot::Sender<Result<(), LogError>>,
    },
    /// Commits counts of deliveries, by sequence.
    Deliveries {
        topic: Topic,
        counts: Vec<(u64, u64)>,
        reply: oneshot::Sender<Result<(), LogError>>,
    },
}

/// The writing thread: commits the orders that wait together, and answers them.
pub(super) fn write_all(shared: &Shared, mut orders: mpsc::Receiver<Write>) {
    let mut shrunk: Option<Instant> = None;
    loop {
        if shared.why_failed().is_some() && !refuse_until_writable(shared, &mut orders) {
            return;
        }
        if shrunk.is_none_or(|shrunk| shrunk.elapsed() >= SHRINK_AT_MOST_EVERY) && shrink(shared) {
            shrunk = Some(Instant::now());
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

/// Refuses orders, and opens the file again at intervals until it can be written; false if the log was dropped before.
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

/// Answers an order that was not tried.
fn refuse(shared: &Shared, order: Write) {
    match order {
        Write::Append { topic, reply, .. } => drop(reply.send(Err(shared.refusal(topic)))),
        Write::Ack { reply, .. } | Write::Deliveries { reply, .. } | Write::Forget { reply } => {
            drop(reply.send(Err(away(shared.why_failed().unwrap_or_default()))));
        }
    }
}

impl Shared {
    /// Answer to an append that is not tried.
    pub(super) fn refusal(&self, topic: Topic) -> AppendError {
        let why = self.why_failed().unwrap_or_default();
        let why = format!("{} could not be written ({why})", self.file.display());
        match topic {
            Topic::Events(_) | Topic::Further(..) => AppendError::Refused(why.into()),
            // Its sender tries again later.
            Topic::DeadLetters => AppendError::Unavailable(why.into()),
        }
    }
}

/// Opens the file again after a write that failed, and checks that there is room.
fn reopen(shared: &Shared) -> Result<(), redb::Error> {
    let mut slot = shared.database.write().unwrap_or_else(PoisonError::into_inner);
    // redb opens a file only once at a time.
    *slot = None;
    let database = Database::builder().set_cache_size(CACHE).open(&shared.file)?;
    let found = {
        let read = database.begin_read()?;
        let meta = read.open_table(META)?;
        meta.get(LOG_ID)?.and_then(|id| Uuid::from_slice(id.value()).ok())
    };
    if found != Some(shared.log_id) {
        return Err(redb::Error::Corrupted(
            "another log was put in its place: stop this process and put the file back".to_owned(),
        ));
    }
    for room in [ROOM, 0] {
        let write = database.begin_write()?;
        write.open_table(META)?.insert(ROOM_KEY, vec![0; room].as_slice())?;
        write.commit()?;
    }
    // Only the file knows if the failed commit reached it.
    for (topic, held) in read(&database)? {
        shared.queue(topic).0.agree(held);
        shared.queue(topic).1.notify_one();
    }
    *slot = Some(database);
    Ok(())
}

/// Copies the file over itself if [`FORGET_FILE`] asks for it: deleted frames, which may hold data of a person who is
/// to be forgotten, otherwise stay in free pages.
pub(super) fn forget(shared: &Shared) -> Result<(), LogError> {
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

/// Gives the space of the file back to the disk if the log is empty and its file large; true if that was tried. Frames
/// that were deleted leave free pages, which are used again but never given back otherwise.
fn shrink(shared: &Shared) -> bool {
    let is_empty = || shared.queues.are_empty();
    let size = || std::fs::metadata(&shared.file).map_or(0, |file| file.len());
    if !is_empty() || size() < SHRINK_FROM {
        return false;
    }
    let before = size();
    let mut slot = shared.database.write().unwrap_or_else(PoisonError::into_inner);
    let Some(database) = slot.as_mut() else { return false };
    match database.compact() {
        Ok(_) => tracing::debug!(before, after = size(), "the emptied log gave back the space of its file"),
        Err(redb::CompactionError::TransactionInProgress) => {}
        // If the file cannot be written, the next commit fails as well, and the file is opened again.
        Err(error) => tracing::warn!(%error, "the emptied log kept the space of its file"),
    }
    true
}

/// An append within a transaction.
struct Placed {
    topic: Topic,
    sequence: u64,
    bytes: u64,
    logged_at: i64,
    id: String,
    mark: Option<FrameMark>,
    reply: Reply<Appended, AppendError>,
}

/// Sender of an order's result.
type Reply<T, E> = oneshot::Sender<Result<T, E>>;

/// The orders of one transaction, with their replies.
#[derive(Default)]
struct Group {
    placed: Vec<Placed>,
    /// Appends of frames that the log has already.
    repeated: Vec<(Appended, Reply<Appended, AppendError>)>,
    acked: Vec<(Topic, u64, Reply<(), LogError>)>,
    /// Frames that are older than `ESS_LOG_MAX_AGE`.
    dropped: Vec<(Topic, u64)>,
    forgets: Vec<Reply<(), LogError>>,
    counted: Vec<Reply<(), LogError>>,
}

/// Commits orders in one transaction, and answers them.
fn commit(shared: &Shared, orders: Vec<Write>) {
    let mut group = Group::default();
    match group.write(shared, orders) {
        Ok(()) => group.succeed(shared),
        Err(error) => {
            let error = error.to_string();
            tracing::error!(
                error, file = %shared.file.display(),
                "the embedded log could not be written: events are refused until it can; free disk space or raise the limit"
            );
            shared.set_failed(Some(error.clone()));
            group.fail(&error);
        }
    }
}

impl Group {
    fn write(&mut self, shared: &Shared, orders: Vec<Write>) -> Result<(), redb::Error> {
        let database = shared.database.read().unwrap_or_else(PoisonError::into_inner);
        let database = database.as_ref().ok_or(redb::Error::PreviousIo)?;
        let write = database.begin_write()?;
        for order in orders {
            match order {
                Write::Forget { reply } => self.forgets.push(reply),
                Write::Ack { topic, sequence, reply } => {
                    self.acked.push((topic, sequence, reply));
                    remove(&write, topic, sequence, shared.is_inherited(topic, sequence))?;
                }
                Write::Deliveries { topic, counts, reply } => {
                    self.counted.push(reply);
                    let mut table = write.open_table(DELIVERIES)?;
                    for (sequence, count) in counts {
                        table.insert((topic.to_string().as_str(), sequence), count)?;
                    }
                }
                Write::Append { topic, id, frame, reply } => {
                    self.append(shared, &write, (topic, id, frame), reply)?;
                }
            }
        }
        for (topic, sequence) in expired(shared) {
            remove(&write, topic, sequence, shared.is_inherited(topic, sequence))?;
            self.dropped.push((topic, sequence));
        }
        let acked = self.acked.iter().map(|(topic, sequence, _)| (*topic, *sequence));
        mark_done(shared, acked.chain(self.dropped.iter().copied()));
        write.commit()?;
        Ok(())
    }

    /// Appends a frame, unless the log has it already or has no room for it.
    fn append(
        &mut self,
        shared: &Shared,
        write: &WriteTransaction,
        (topic, id, frame): (Topic, String, Bytes),
        reply: Reply<Appended, AppendError>,
    ) -> Result<(), redb::Error> {
        let mark = match topic {
            Topic::Events(source) => shared.marks().look(source, &frame),
            Topic::Further(..) | Topic::DeadLetters => None,
        };
        let twin = self.placed.iter().find(|placed| placed.id == id).map(|placed| placed.sequence);
        if let Some(sequence) = twin.or_else(|| shared.queue(topic).0.recent.get(&id).copied()) {
            self.repeated.push((Appended { sequence, duplicate: true, log_id: shared.log_id }, reply));
            return Ok(());
        }
        let size = frame.len() as u64;
        let waiting = self.placed.iter().filter(|placed| placed.topic == topic);
        let (count, bytes) = waiting.fold((0, 0), |(count, bytes), placed| (count + 1, bytes + placed.bytes));
        let max_bytes = shared.settings.topic_max_bytes(topic);
        let (last, after) = {
            let queue = shared.queue(topic).0;
            (queue.last, queue.bytes + bytes + size)
        };
        if after > max_bytes {
            let full = format!("{topic} holds {} of {max_bytes} bytes", after - size);
            // A sender that waits no more needs no answer; so below.
            let _ = reply.send(Err(AppendError::Full(full)));
            return Ok(());
        }
        let (sequence, logged_at) = (last + count + 1, now_micros());
        self.placed.push(Placed { topic, sequence, bytes: size, logged_at, id, mark, reply });
        insert(write, topic, sequence, logged_at, shared.opens, &frame)
    }

    /// Brings memory and marks to what was committed, and answers.
    fn succeed(self, shared: &Shared) {
        for (topic, sequence) in self.dropped {
            shared.queue(topic).0.drop_frame(sequence);
        }
        for (topic, sequence, reply) in self.acked {
            shared.queue(topic).0.drop_frame(sequence);
            let _ = reply.send(Ok(()));
        }
        let (mut taken, mut answers) = (Vec::new(), self.repeated);
        for Placed { topic, sequence, bytes, logged_at, id, mark, reply } in self.placed {
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
        // After the queue, so that marks never lead the log; before the answers, so that a kill loses no mark.
        mark_taken(shared, &taken);
        for (appended, reply) in answers {
            let _ = reply.send(Ok(appended));
        }
        for reply in self.forgets {
            let _ = reply.send(forget(shared));
        }
        for reply in self.counted {
            let _ = reply.send(Ok(()));
        }
    }

    /// Answers that nothing was committed.
    fn fail(self, error: &str) {
        let placed = self.placed.into_iter().map(|placed| placed.reply);
        for reply in placed.chain(self.repeated.into_iter().map(|(_, reply)| reply)) {
            let _ = reply.send(Err(AppendError::Unavailable(error.into())));
        }
        let acked = self.acked.into_iter().map(|(_, _, reply)| reply);
        for reply in acked.chain(self.forgets).chain(self.counted) {
            let _ = reply.send(Err(LogError::Unavailable(error.into())));
        }
    }
}

/// Marks frames as done, before the commit that removes them: they are done even if it fails.
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

/// Marks frames as acknowledged.
fn mark_taken(shared: &Shared, frames: &[(Source, FrameMark)]) {
    let mut marks = shared.marks();
    frames.iter().for_each(|(source, frame)| marks.take(*source, *frame));
    marks.write();
}

/// Frames older than `ESS_LOG_MAX_AGE`.
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
