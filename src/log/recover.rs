//! Brings what is intact of a damaged log into a new one.
//!
//! The damaged file is only read. The new log is written beside it, read again, and takes the name in the last step;
//! the damaged file keeps its bytes under a name that nothing else had. Whatever ends a recovery before that step, a
//! full disk or a kill, leaves all as it was.
//!
//! A file is searched for frames from its first byte to its last, in windows: it does not matter how much of redb's
//! structure is left. Pages that redb let go of hold frames that were processed long ago; the marks tell which.

use std::collections::HashMap;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use redb::{Database, ReadableDatabase, ReadableTable, WriteTransaction};
use uuid::Uuid;

use super::Topic;
use super::embedded::{self, MARKS_FILE};
use super::frame::{Frame, FrameError};
use super::marks::Marks;
use super::overlay::Overlay;
use super::runs::Runs;
use super::search::find_frames;
use crate::event::{Source, decode};

/// Bytes of frames in one commit.
const COMMIT: usize = 16 << 20;

/// Outcome of a recovery.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// True if the log was whole and nothing was done.
    pub whole: bool,
    /// Frames that were brought into the log.
    pub frames: u64,
    /// Their events.
    pub events: u64,
    /// Frames that were processed before, and left out.
    pub done: u64,
    /// Frames none of whose events is of a source that this version knows, and left out.
    pub unknown: u64,
    /// Messages of refused events that were brought into the log.
    pub letters: u64,
    /// Frames that the log had acknowledged, were not processed, and were not found.
    pub lost: u64,
    /// The damaged file.
    pub kept: Option<PathBuf>,
}

/// Why nothing was recovered. Nothing was changed then.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// A file cannot be read or written.
    #[error("{0}")]
    File(#[from] std::io::Error),
    /// The new log could not be written.
    #[error("{0}")]
    Log(#[from] redb::Error),
    /// It was asked for what is not possible.
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

/// Frames by source and writer.
type There = HashMap<Source, HashMap<Uuid, Runs>>;

/// Recovers the log at `log` from itself, or from another file. With `all`, frames are taken that were processed
/// before, too: for a store that was lost as well.
pub fn recover(log: &Path, from: Option<&Path>, all: bool) -> Result<Recovery, RecoverError> {
    let marks = Marks::open(&log.with_file_name(MARKS_FILE));
    let source = from.unwrap_or(log);
    let itself = source.canonicalize().is_ok_and(|source| log.canonicalize().is_ok_and(|log| log == source));
    let from = from.filter(|_| !itself);
    if !source.exists() {
        return Err(RecoverError::Refused(format!("there is no file {}", source.display())));
    }
    let found = log.exists().then(|| look(log));
    let nothing = |there: &There| lost(&marks, there) == 0;
    match (&found, from) {
        (Some(Ok(there)), None) if nothing(there) && !all => {
            return Ok(Recovery { whole: true, ..Recovery::default() });
        }
        (Some(Err(why)), Some(_)) => {
            return Err(RecoverError::Refused(format!(
                "{} is damaged itself ({why}): `ess log recover` comes first",
                log.display()
            )));
        }
        _ => {}
    }
    let beside = log.with_extension("redb.recovering");
    let _ = std::fs::remove_file(&beside);
    let made = (|| {
        let mut rescue = match (&found, from) {
            // A log that is whole keeps its id and its places; frames of the other file come behind.
            (Some(Ok(there)), Some(_)) => Rescue::onto(log, &beside, there.clone())?,
            _ => Rescue::new(&beside)?,
        };
        if from.is_none() {
            rescue.letters(log)?;
        }
        find_frames(File::open(source)?, |frame| rescue.take(&marks, frame, all))?;
        let (mut recovery, there) = rescue.finish()?;
        verify(&beside, &there)?;
        recovery.lost = lost(&marks, &there);
        Ok(recovery)
    })();
    let mut recovery: Recovery = match made {
        Ok(recovery) => recovery,
        Err(error) => {
            let _ = std::fs::remove_file(&beside);
            return Err(error);
        }
    };
    if from.is_none() {
        recovery.kept = Some(keep(log)?);
    }
    std::fs::rename(&beside, log)?;
    if let Some(folder) = log.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        File::open(folder)?.sync_all()?;
    }
    Ok(recovery)
}

/// Frames that were acknowledged, not processed, and are not there.
fn lost(marks: &Marks, there: &There) -> u64 {
    let nothing = HashMap::new();
    let of = |source: Source| marks.lost(source, there.get(&source).unwrap_or(&nothing));
    Source::all().flat_map(|source| of(source).into_values()).map(|runs| runs.len()).sum()
}

/// Opens a file without writing to it. redb checks all of it.
fn open(file: &Path) -> Result<Database, RecoverError> {
    let overlay = Overlay::new(File::open(file)?)?;
    let mut builder = Database::builder();
    Ok(builder.set_check_integrity_on_open(true).create_with_backend(overlay)?)
}

/// Does something with a file that may be damaged in any way.
fn guarded<T>(work: impl FnOnce() -> Result<T, RecoverError>) -> Result<T, String> {
    unpanicked(work)?.map_err(|error| error.to_string())
}

/// redb panics at some damages of a file: that is an answer, too, and nothing to print.
pub(super) fn unpanicked<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let result = catch_unwind(AssertUnwindSafe(work));
    std::panic::set_hook(hook);
    result.map_err(|_| "its structure is damaged".to_owned())
}

/// The frames that a log holds, if all of it is intact; else what is wrong.
fn look(file: &Path) -> Result<There, String> {
    if std::fs::metadata(file).is_ok_and(|about| about.len() == 0) {
        return Err("it is empty".to_owned());
    }
    guarded(|| {
        let database = open(file)?;
        let read = database.begin_read()?;
        let mut there = There::new();
        for entry in read.open_table(embedded::FRAMES)?.iter()? {
            let (key, value) = entry?;
            let (topic, sequence) = key.value();
            let Some(source) = Source::parse(topic) else { continue };
            let bytes = value.value().get(embedded::PREFIX..).unwrap_or_default();
            match Frame::read(Bytes::copy_from_slice(bytes)) {
                Ok(frame) => {
                    let runs = there.entry(source).or_default().entry(frame.writer).or_default();
                    runs.add(frame.number, frame.number);
                }
                Err(FrameError::Newer(_)) => {}
                Err(error) => {
                    return Err(RecoverError::Refused(format!("frame {sequence} of {topic}: {error}")));
                }
            }
        }
        Ok(there)
    })
}

/// Gives the damaged file a second name that nothing has.
fn keep(file: &Path) -> Result<PathBuf, RecoverError> {
    let now = chrono::Utc::now().format("%Y%m%dT%H%M%S%.3f").to_string();
    for n in 1..1_000 {
        let name = if n == 1 { format!("broken-{now}") } else { format!("broken-{now}-{n}") };
        let kept = file.with_extension(name);
        match std::fs::hard_link(file, &kept) {
            Ok(()) => return Ok(kept),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            // A file system without hard links: its bytes a second time.
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
    Err(RecoverError::Refused(format!("{}: a thousand damaged files are kept already", file.display())))
}

/// Reads the new log as the next start will: every frame must be in it.
fn verify(file: &Path, there: &There) -> Result<(), RecoverError> {
    match look(file) {
        Ok(found) if found == *there => Ok(()),
        Ok(_) => Err(RecoverError::Refused("the new log does not hold what was written to it".to_owned())),
        Err(why) => Err(RecoverError::Refused(format!("the new log cannot be read: {why}"))),
    }
}

/// A new log that is being filled.
struct Rescue {
    database: Database,
    write: Option<WriteTransaction>,
    bytes: usize,
    next: HashMap<Topic, u64>,
    there: There,
    recovery: Recovery,
}

impl Rescue {
    /// An empty log with an id of its own: its places are no other log's.
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
            next: HashMap::new(),
            there: There::new(),
            recovery: Recovery::default(),
        })
    }

    /// A copy of a log that is whole.
    fn onto(log: &Path, file: &Path, there: There) -> Result<Self, RecoverError> {
        embedded::copy(&open(log)?, file)?;
        let database = Database::builder().open(file)?;
        let mut next = HashMap::new();
        let read = database.begin_read()?;
        let last = read.open_table(embedded::LAST)?;
        for topic in Topic::all() {
            next.insert(topic, last.get(topic.to_string().as_str())?.map_or(0, |last| last.value()));
        }
        drop((last, read));
        Ok(Self { database, write: None, bytes: 0, next, there, recovery: Recovery::default() })
    }

    fn insert(&mut self, topic: Topic, message: &[u8]) -> Result<(), RecoverError> {
        let write = match self.write.take() {
            Some(write) => write,
            None => self.database.begin_write()?,
        };
        let last = self.next.entry(topic).or_default();
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

    /// Takes a frame that was found, unless it was processed before or is there already.
    fn take(&mut self, marks: &Marks, frame: Frame, all: bool) -> Result<(), RecoverError> {
        let Some(source) = source_of(&frame) else {
            self.recovery.unknown += 1;
            return Ok(());
        };
        let (writer, number, events) = (frame.writer, frame.number, frame.len() as u64);
        if !all && marks.is_done(source, writer, number) {
            self.recovery.done += 1;
            return Ok(());
        }
        let runs = self.there.entry(source).or_default().entry(writer).or_default();
        if runs.contains(number) {
            return Ok(());
        }
        runs.add(number, number);
        self.insert(Topic::Events(source), &frame.into_bytes())?;
        self.recovery.frames += 1;
        self.recovery.events += events;
        Ok(())
    }

    /// Takes refused events on their way to the store, as far as the log's structure still leads to them.
    fn letters(&mut self, log: &Path) -> Result<(), RecoverError> {
        let mut found = Vec::new();
        let name = Topic::DeadLetters.to_string();
        // What comes before a damage counts; they are bounded by ESS_DEAD_LETTER_MAX_BYTES.
        let _ = guarded(|| {
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

    fn finish(mut self) -> Result<(Recovery, There), RecoverError> {
        if let Some(write) = self.write.take() {
            write.commit()?;
        }
        self.there.retain(|_, writers| !writers.is_empty());
        Ok((self.recovery, self.there))
    }
}

/// A frame is of one source: that of its events.
fn source_of(frame: &Frame) -> Option<Source> {
    frame.events().find_map(|event| decode(event.bytes, None).ok().map(|event| event.source))
}
