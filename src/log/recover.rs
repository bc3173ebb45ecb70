//! Recovery of a damaged embedded log: copies all intact frames into a new log.
//!
//! The damaged file is only read. The new log is written next to it, verified, and renamed over it in the last step;
//! the damaged file is kept under another name. A recovery that ends before that step, by a full disk or a kill,
//! changes nothing.
//!
//! The whole file is searched for frames, in windows, without the help of redb's structure, which may be damaged. Freed
//! pages of redb still hold frames that were processed; the marks identify them, and they are left out.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use redb::{Database, ReadableDatabase, ReadableTable, WriteTransaction};
use uuid::Uuid;

use super::Topic;
use super::catch_panic::{StructureDamaged, catch_panic};
use super::embedded::{self, MARKS_FILE};
use super::frame::{Frame, FrameError};
use super::marks::Marks;
use super::overlay::Overlay;
use super::runs::Runs;
use super::search::find_frames;
use crate::event::{Source, decode};
use crate::source::canonical::CanonicalEvent;

/// Bytes of messages in one commit.
const COMMIT: usize = 16 << 20;

/// Outcome of a recovery.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// True if the log was intact and nothing was done.
    pub whole: bool,
    /// Frames that were copied into the log.
    pub frames: u64,
    /// Events of these frames.
    pub events: u64,
    /// Frames that were left out because they were processed before.
    pub done: u64,
    /// Frames that were left out because this version knows the source of none of their events.
    pub unknown: u64,
    /// Messages with refused events that were copied into the log.
    pub letters: u64,
    /// Frames that were acknowledged and not processed, and that were not found.
    pub lost: u64,
    /// Path of the damaged file, if it was kept.
    pub kept: Option<PathBuf>,
}

/// Error of a recovery, which then changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// A file cannot be read or written.
    #[error("{0}")]
    File(#[from] std::io::Error),
    /// The new log could not be written.
    #[error("{0}")]
    Log(#[from] redb::Error),
    /// redb cannot read the file.
    #[error(transparent)]
    Damaged(#[from] StructureDamaged),
    /// The recovery is not possible.
    #[error("{0}")]
    Refused(String),
}

macro_rules! from_redb {
    ($($error:ident),+) => {
        $(impl From<redb::$error> for RecoverError {
            fn from(error: redb::$error) -> Self {
                Self::Log(error.into())
            }
        })+
    };
}
from_redb!(DatabaseError, TransactionError, TableError, StorageError, CommitError);

/// Frame numbers by source and writer.
type FrameNumbers = HashMap<Source, HashMap<Uuid, Runs>>;

/// Recovers the log at `log` from itself, or adds the frames of the file `from` to it. With `all`, frames that were
/// processed before are included, for the case that the store is lost as well.
///
/// # Errors
///
/// If a file cannot be read or written, or `log` is damaged and `from` is another file.
pub fn recover(log: &Path, from: Option<&Path>, all: bool) -> Result<Recovery, RecoverError> {
    let marks = Marks::open(&log.with_file_name(MARKS_FILE));
    let source = from.unwrap_or(log);
    let itself = source.canonicalize().is_ok_and(|source| log.canonicalize().is_ok_and(|log| log == source));
    let from = from.filter(|_| !itself);
    if !source.exists() {
        return Err(RecoverError::Refused(format!("there is no file {}", source.display())));
    }
    let found = log.exists().then(|| read_intact(log));
    let complete = |found: &FrameNumbers| lost(&marks, found) == 0;
    match (&found, from) {
        (Some(Ok(frames)), None) if complete(frames) && !all => {
            return Ok(Recovery { whole: true, ..Recovery::default() });
        }
        (Some(Err(why)), Some(_)) => {
            return Err(RecoverError::Refused(format!(
                "{} is damaged itself ({why}): run `ess log recover` without a file first",
                log.display()
            )));
        }
        _ => {}
    }
    let beside = log.with_extension("redb.recovering");
    let _ = std::fs::remove_file(&beside);
    let written = (|| {
        let mut new_log = match (&found, from) {
            // An intact log keeps its id and its sequence numbers; frames of the other file are appended.
            (Some(Ok(frames)), Some(_)) => NewLog::copy_of(log, &beside, frames.clone())?,
            _ => NewLog::new(&beside)?,
        };
        if from.is_none() {
            new_log.copy_dead_letters(log)?;
        }
        step();
        find_frames(File::open(source)?, |frame| {
            step();
            new_log.add(&marks, frame, all)
        })?;
        let (mut recovery, frames) = new_log.finish()?;
        step();
        verify(&beside, &frames)?;
        step();
        recovery.lost = lost(&marks, &frames);
        Ok(recovery)
    })();
    let mut recovery: Recovery = match written {
        Ok(recovery) => recovery,
        Err(error) => {
            let _ = std::fs::remove_file(&beside);
            return Err(error);
        }
    };
    if from.is_none() {
        recovery.kept = Some(keep_damaged(log)?);
    }
    step();
    std::fs::rename(&beside, log)?;
    step();
    if let Some(folder) = log.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        File::open(folder)?.sync_all()?;
    }
    Ok(recovery)
}

/// Ends the process at the step that `ESS_FAULT_RECOVERY_STEP` numbers, from 0, as a kill would.
#[cfg(feature = "faults")]
fn step() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static STEPS: AtomicUsize = AtomicUsize::new(0);
    let step = STEPS.fetch_add(1, Ordering::Relaxed);
    let wanted = std::env::var("ESS_FAULT_RECOVERY_STEP").ok().and_then(|wanted| wanted.parse().ok());
    if wanted == Some(step) {
        std::process::abort();
    }
}

#[cfg(not(feature = "faults"))]
fn step() {}

/// Number of frames that were acknowledged and not processed, and that are not among `found`.
fn lost(marks: &Marks, found: &FrameNumbers) -> u64 {
    let none = HashMap::new();
    let of = |source: Source| marks.lost(source, found.get(&source).unwrap_or(&none));
    Source::all().flat_map(|source| of(source).into_values()).map(|runs| runs.len()).sum()
}

/// Opens a log without writing to its file; redb checks the integrity of the whole file.
fn open(file: &Path) -> Result<Database, RecoverError> {
    let overlay = Overlay::new(File::open(file)?)?;
    let mut builder = Database::builder();
    Ok(builder.set_check_integrity_on_open(true).create_with_backend(overlay)?)
}

/// Runs work on a file that may be damaged; panics of redb become errors.
fn on_damaged<T>(work: impl FnOnce() -> Result<T, RecoverError>) -> Result<T, RecoverError> {
    catch_panic(work)?
}

/// The frames of a log, if it is intact; else the fault.
fn read_intact(file: &Path) -> Result<FrameNumbers, RecoverError> {
    if std::fs::metadata(file).is_ok_and(|about| about.len() == 0) {
        return Err(RecoverError::Refused("it is empty".to_owned()));
    }
    on_damaged(|| {
        let database = open(file)?;
        let read = database.begin_read()?;
        let mut found = FrameNumbers::new();
        if let Ok(last) = read.open_table(embedded::LAST) {
            embedded::declare_topics(&last)?;
        }
        for entry in read.open_table(embedded::FRAMES)?.iter()? {
            let (key, value) = entry?;
            let (topic, sequence) = key.value();
            let Some(source) = Source::parse(topic) else { continue };
            let bytes = value.value().get(embedded::PREFIX..).unwrap_or_default();
            match Frame::read(Bytes::copy_from_slice(bytes)) {
                Ok(frame) => {
                    let runs = found.entry(source).or_default().entry(frame.writer).or_default();
                    runs.add(frame.number, frame.number);
                }
                Err(FrameError::Newer(_)) => {}
                Err(error) => {
                    return Err(RecoverError::Refused(format!("frame {sequence} of {topic}: {error}")));
                }
            }
        }
        Ok(found)
    })
}

/// Keeps the damaged file under a second name that no file has; returns it.
fn keep_damaged(file: &Path) -> Result<PathBuf, RecoverError> {
    let now = chrono::Utc::now().format("%Y%m%dT%H%M%S%.3f").to_string();
    for n in 1..1_000 {
        let name = if n == 1 { format!("broken-{now}") } else { format!("broken-{now}-{n}") };
        let kept = file.with_extension(name);
        match std::fs::hard_link(file, &kept) {
            Ok(()) => return Ok(kept),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            // The file system has no hard links: copy.
            Err(_) if !kept.exists() => {
                let copy = file.with_extension("redb.copying");
                std::fs::copy(file, &copy)?;
                File::open(&copy)?.sync_all()?;
                std::fs::rename(&copy, &kept)?;
                return Ok(kept);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(RecoverError::Refused(format!("{}: 1,000 damaged files are kept already", file.display())))
}

/// Reads the new log from its file, and checks that it has exactly these frames.
fn verify(file: &Path, frames: &FrameNumbers) -> Result<(), RecoverError> {
    match read_intact(file) {
        Ok(found) if found == *frames => Ok(()),
        Ok(_) => Err(RecoverError::Refused("the new log does not hold what was written to it".to_owned())),
        Err(why) => Err(RecoverError::Refused(format!("the new log cannot be read: {why}"))),
    }
}

/// A new log that is being written.
struct NewLog {
    database: Database,
    /// The open transaction, and the bytes of its messages.
    write: Option<WriteTransaction>,
    bytes: usize,
    /// The last sequence number of each topic.
    last: HashMap<Topic, u64>,
    frames: FrameNumbers,
    recovery: Recovery,
}

impl NewLog {
    /// An empty log with a new id, because its sequence numbers do not continue those of another log.
    fn new(file: &Path) -> Result<Self, RecoverError> {
        let database = Database::builder().create(file)?;
        let write = database.begin_write()?;
        write.open_table(embedded::META)?.insert(embedded::LOG_ID, Uuid::new_v4().as_bytes().as_slice())?;
        write.open_table(embedded::FRAMES)?;
        write.open_table(embedded::LAST)?;
        Ok(Self {
            database,
            write: Some(write),
            bytes: 0,
            last: HashMap::new(),
            frames: FrameNumbers::new(),
            recovery: Recovery::default(),
        })
    }

    /// A copy of an intact log, which has these frames.
    fn copy_of(log: &Path, file: &Path, frames: FrameNumbers) -> Result<Self, RecoverError> {
        embedded::copy(&open(log)?, file)?;
        let database = Database::builder().open(file)?;
        let mut last = HashMap::new();
        let read = database.begin_read()?;
        let table = read.open_table(embedded::LAST)?;
        for topic in Topic::all() {
            last.insert(topic, table.get(topic.to_string().as_str())?.map_or(0, |last| last.value()));
        }
        drop((table, read));
        Ok(Self { database, write: None, bytes: 0, last, frames, recovery: Recovery::default() })
    }

    fn insert(&mut self, topic: Topic, message: &[u8]) -> Result<(), RecoverError> {
        let write = match self.write.take() {
            Some(write) => write,
            None => self.database.begin_write()?,
        };
        let last = self.last.entry(topic).or_default();
        *last += 1;
        embedded::insert(&write, topic, *last, embedded::now_micros(), 1, message)?;
        self.bytes += message.len();
        if self.bytes > COMMIT {
            self.bytes = 0;
            write.commit()?;
        } else {
            self.write = Some(write);
        }
        Ok(())
    }

    /// Adds a frame, unless it was processed before or was added already.
    fn add(&mut self, marks: &Marks, frame: Frame, all: bool) -> Result<(), RecoverError> {
        let Some(source) = source_of(&frame) else {
            self.recovery.unknown += 1;
            return Ok(());
        };
        let (writer, number, events) = (frame.writer, frame.number, frame.len() as u64);
        if !all && marks.is_done(source, writer, number) {
            self.recovery.done += 1;
            return Ok(());
        }
        let runs = self.frames.entry(source).or_default().entry(writer).or_default();
        if runs.contains(number) {
            return Ok(());
        }
        runs.add(number, number);
        self.insert(Topic::Events(source), &frame.into_bytes())?;
        self.recovery.frames += 1;
        self.recovery.events += events;
        Ok(())
    }

    /// Copies the messages with refused events, as far as redb can still read them.
    fn copy_dead_letters(&mut self, log: &Path) -> Result<(), RecoverError> {
        let mut found = Vec::new();
        let name = Topic::DeadLetters.to_string();
        // Messages before the first damage are copied; ESS_DEAD_LETTER_MAX_BYTES bounds them.
        let _ = on_damaged(|| {
            let database = open(log)?;
            let read = database.begin_read()?;
            let frames = read.open_table(embedded::FRAMES)?;
            for entry in frames.range((name.as_str(), 0)..=(name.as_str(), u64::MAX))? {
                let (_, value) = entry?;
                found.extend(value.value().get(embedded::PREFIX..).map(<[u8]>::to_vec));
            }
            Ok(())
        });
        for message in found {
            self.insert(Topic::DeadLetters, &message)?;
            self.recovery.letters += 1;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<(Recovery, FrameNumbers), RecoverError> {
        if let Some(write) = self.write.take() {
            write.commit()?;
        }
        self.frames.retain(|_, writers| !writers.is_empty());
        Ok((self.recovery, self.frames))
    }
}

/// The source of a frame: the one of its first event that this version can decode.
fn source_of(frame: &Frame) -> Option<Source> {
    frame.events().find_map(|event| match decode(event.bytes, None) {
        Ok(event) => Some(event.source),
        Err(_) => Source::declare(&CanonicalEvent::read(event.bytes).ok()?.source, "").ok(),
    })
}
