//! The file of the embedded log: its tables, and reading, writing and copying them.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use tokio::sync::Notify;
use uuid::Uuid;

use super::queue::{Held, Queue};
use crate::event::{BySource, Source};
use crate::log::Topic;
use crate::log::frame::read_mark;

/// (topic, sequence) → time of the append in microseconds since 1970 (i64), number of the open of the file in which
/// it was appended (u64), frame.
pub(in crate::log) const FRAMES: TableDefinition<'_, (&str, u64), &[u8]> = TableDefinition::new("frames");
/// topic → highest sequence that was given to a frame.
pub(in crate::log) const LAST: TableDefinition<'_, &str, u64> = TableDefinition::new("last_sequence");
/// Id of the log, and number of times that the file was opened.
pub(in crate::log) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
pub(in crate::log) const LOG_ID: &str = "log_id";
pub(in crate::log) const OPENS: &str = "opens";
/// Bytes that are written to find out if there is room.
pub(in crate::log) const ROOM_KEY: &str = "room";
/// (topic, sequence) → deliveries of the frame by processes after the one that appended it.
pub(in crate::log) const DELIVERIES: TableDefinition<'_, (&str, u64), u64> =
    TableDefinition::new("deliveries");
/// Bytes before the frame in a value of [`FRAMES`].
pub(in crate::log) const PREFIX: usize = 16;

/// redb's page cache, in bytes.
pub(super) const CACHE: usize = 32 * 1024 * 1024;
/// Bytes of frames in one commit of a copy.
const COPY: usize = 16 << 20;

/// The queue of a topic, with the signal that a frame is ready.
pub(super) type Waiting = (Mutex<Queue>, Notify);

/// Queues by topic. That of a source that is declared later is made at its first use.
pub(super) struct Queues {
    events: BySource<Waiting>,
    dead_letters: Waiting,
}

impl Queues {
    /// Queues that begin with what the file holds.
    fn new(mut held: HashMap<Topic, Queue>) -> Self {
        let dead_letters = held.remove(&Topic::DeadLetters).unwrap_or_default();
        let held = Mutex::new(held);
        let events = BySource::new(move |source| {
            let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
            waiting(held.remove(&Topic::Events(source)).unwrap_or_default())
        });
        Self { events, dead_letters: waiting(dead_letters) }
    }

    /// The queue of a topic.
    pub fn of(&self, topic: Topic) -> &Waiting {
        match topic {
            // A file has one queue for each source.
            Topic::Events(source) | Topic::Further(source, _) => self.events.of(source),
            Topic::DeadLetters => &self.dead_letters,
        }
    }

    /// True if no topic holds a frame.
    pub fn are_empty(&self) -> bool {
        let all = self.events.iter().map(|(_, waiting)| waiting).chain([&self.dead_letters]);
        let mut all = all.map(|(queue, _)| queue.lock().unwrap_or_else(PoisonError::into_inner));
        all.all(|queue| queue.held.is_empty())
    }

    /// The queues of sources that were used.
    pub fn of_sources(&self) -> impl Iterator<Item = (Source, &Waiting)> {
        self.events.iter()
    }
}

fn waiting(queue: Queue) -> Waiting {
    (Mutex::new(queue), Notify::new())
}

/// Reads the log's id, made at the first open, and counts this open. Makes the tables.
pub(super) fn identify(database: &Database) -> Result<(Uuid, u64), redb::Error> {
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

/// Reads all frames into queues, each frame ready.
pub(super) fn load(database: &Database) -> Result<Queues, redb::Error> {
    Ok(Queues::new(read(database)?))
}

/// Declares the sources that the file has frames of, or had.
pub(in crate::log) fn declare_topics(
    last: &impl ReadableTable<&'static str, u64>,
) -> Result<(), redb::Error> {
    for entry in last.iter()? {
        let (name, _) = entry?;
        if name.value() != Topic::DeadLetters.to_string()
            && let Err(error) = Source::declare(name.value(), "")
        {
            tracing::error!(topic = name.value(), %error, "a topic of the log is left as it is");
        }
    }
    Ok(())
}

/// Reads all frames, each ready.
pub(super) fn read(database: &Database) -> Result<HashMap<Topic, Queue>, redb::Error> {
    let read = database.begin_read()?;
    let (frames, last) = (read.open_table(FRAMES)?, read.open_table(LAST)?);
    let counts = read.open_table(DELIVERIES)?;
    declare_topics(&last)?;
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
        queues.insert(topic, queue);
    }
    Ok(queues)
}

/// Puts a frame into a transaction.
pub(in crate::log) fn insert(
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

/// Takes a frame out. `counted` is true if its deliveries may be in the file.
pub(super) fn remove(
    write: &WriteTransaction,
    topic: Topic,
    sequence: u64,
    counted: bool,
) -> Result<(), redb::Error> {
    let name = topic.to_string();
    write.open_table(FRAMES)?.remove((name.as_str(), sequence))?;
    if counted {
        write.open_table(DELIVERIES)?.remove((name.as_str(), sequence))?;
    }
    Ok(())
}

/// Copies everything that a log holds into a new file; pages of deleted frames are not copied.
pub(in crate::log) fn copy(from: &Database, file: &Path) -> Result<(), redb::Error> {
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
    // Files of earlier versions have no such table.
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
