//! The file of the embedded log: its tables, and reading, writing and copying them.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Mutex;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use tokio::sync::Notify;
use uuid::Uuid;

use super::queue::{Held, Queue};
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

/// Queues by topic, each with the signal that a frame is ready.
pub(super) type Queues = HashMap<Topic, (Mutex<Queue>, Notify)>;

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
