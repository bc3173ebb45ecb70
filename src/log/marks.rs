//! Marks: the frames that the embedded log has acknowledged, by writer, in a small file beside it.
//!
//! The log deletes a frame once it was processed, and a log that is lost has nothing left. The marks tell which frames
//! are lost then: they record which frames were acknowledged to a gateway ("taken"), and which a collector was done
//! with ("done"). A frame is marked as taken after the log's commit and before the gateway is answered, and as done
//! before the log deletes it. A killed process loses no mark. After a power cut the end of the file may be missing: the
//! marks may lag behind the log, and never lead.
//!
//! ```text
//! "ESSMARK1" | records of 48 bytes: kind u8, 0 u8, source i16, writer 16 bytes, first number u64, last number u64,
//!                                   events u64, CRC-32 of the bytes before it u32
//! ```
//!
//! A built-in source has the number that rows keep. A declared one has a negative number of this file alone: a record of
//! the kind 3 has it, with the name in the 40 bytes behind it, filled up with zeros.
//!
//! Numbers are little-endian. A damaged record is skipped. The file is rewritten once most of its records are
//! superseded; writers whose frames are all done are left out then.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::frame::{Frame, WriterMark, read_mark};
use super::runs::Runs;
use crate::event::Source;

const MAGIC: &[u8; 8] = b"ESSMARK1";
const RECORD: usize = 48;
const TAKEN: u8 = 1;
const DONE: u8 = 2;
const NAME: u8 = 3;
/// Size in bytes above which the file may be rewritten.
const MAX_HISTORY: u64 = 256 * 1024;
/// Writers whose last frame is remembered, to know how many events the next one holds.
const MAX_SEEN: usize = 1_024;
/// Time without a frame after which a writer that another one replaced is known to write no more.
const REST: Duration = Duration::from_secs(300);

/// Frames of one writer.
#[derive(Debug, Clone, Default)]
struct Marked {
    taken: Runs,
    done: Runs,
    /// Events of the frames that were taken.
    events: u64,
    /// Time of the last frame that this process marked.
    used: Option<Instant>,
}

impl Marked {
    fn is_finished(&self) -> bool {
        self.taken.without(&self.done).is_empty()
    }
}

/// Identity and size of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameMark {
    /// Writer.
    pub writer: Uuid,
    /// Number within its writer, starting at 1.
    pub number: u64,
    /// Number of its events.
    pub events: u64,
}

type Key = (i16, Uuid);

fn record(out: &mut Vec<u8>, kind: u8, (source, writer): Key, (first, last): (u64, u64), events: u64) {
    let begin = out.len();
    out.extend([kind, 0]);
    out.extend(source.to_le_bytes());
    out.extend(writer.as_bytes());
    for number in [first, last, events] {
        out.extend(number.to_le_bytes());
    }
    let crc = crc32fast::hash(&out[begin..]);
    out.extend(crc.to_le_bytes());
}

/// Appends the record of a declared source's number; longer names than a source can have are cut off.
fn name_record(out: &mut Vec<u8>, number: i16, name: &str) {
    let begin = out.len();
    out.extend([NAME, 0]);
    out.extend(number.to_le_bytes());
    let mut text = [0; RECORD - 8];
    text.iter_mut().zip(name.bytes()).for_each(|(to, byte)| *to = byte);
    out.extend(text);
    let crc = crc32fast::hash(&out[begin..]);
    out.extend(crc.to_le_bytes());
}

/// The marks of a log.
#[derive(Debug)]
pub struct Marks {
    path: PathBuf,
    file: Option<File>,
    /// Bytes of the file.
    size: u64,
    /// Records that are not in the file yet.
    pending: Vec<u8>,
    marked: HashMap<Key, Marked>,
    /// The last frame of a writer that was offered, refused or not.
    seen: HashMap<Key, WriterMark>,
    /// The last writer of each source.
    current: HashMap<i16, Uuid>,
    /// Numbers of declared sources by name.
    numbers: HashMap<String, i16>,
    /// True while the file lacks marks; it is then rewritten.
    stale: bool,
}

impl Marks {
    /// Opens the file of marks. A file that cannot be read counts as empty, with a warning.
    pub fn open(path: &Path) -> Self {
        let mut marks = Self {
            path: path.to_owned(),
            file: None,
            size: 0,
            pending: Vec::new(),
            marked: HashMap::new(),
            seen: HashMap::new(),
            current: HashMap::new(),
            numbers: HashMap::new(),
            stale: false,
        };
        if let Err(error) = marks.read() {
            tracing::warn!(file = %path.display(), %error, "the log's marks cannot be read: frames that the log lost before this start are not noticed");
        }
        marks.marked.retain(|_, marked| !marked.is_finished());
        marks.rewrite();
        marks
    }

    fn read(&mut self) -> std::io::Result<()> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let Some(records) = bytes.strip_prefix(MAGIC) else {
            return Err(std::io::Error::other("it is not a file of marks"));
        };
        records.chunks_exact(RECORD).for_each(|record| self.enter(record));
        Ok(())
    }

    fn enter(&mut self, record: &[u8]) {
        let (body, crc) = record.split_at(RECORD - 4);
        if crc32fast::hash(body).to_le_bytes() != crc {
            return;
        }
        if body[0] == NAME {
            let name = body[4..].split(|byte| *byte == 0).next().unwrap_or_default();
            if let Ok(name) = std::str::from_utf8(name) {
                // A log that lost all frames of a source has its name here alone.
                let _ = Source::declare(name, "");
                self.numbers.insert(name.to_owned(), i16::from_le_bytes([body[2], body[3]]));
            }
            return;
        }
        let number = |at: usize| body[at..at + 8].try_into().map_or(0, u64::from_le_bytes);
        let source = i16::from_le_bytes([body[2], body[3]]);
        let Ok(writer) = Uuid::from_slice(&body[4..20]) else { return };
        let (first, last) = (number(20), number(28));
        if first > last {
            return;
        }
        let marked = self.marked.entry((source, writer)).or_default();
        match body[0] {
            TAKEN => {
                marked.taken.add(first, last);
                marked.events += number(36);
            }
            DONE => marked.done.add(first, last),
            _ => {}
        }
    }

    /// The number of a source; 0 for a declared one that has no marks.
    fn number(&self, source: Source) -> i16 {
        if source.is_built_in() {
            return source.code();
        }
        self.numbers.get(source.name()).copied().unwrap_or(0)
    }

    /// The number of a source that gets its first mark.
    fn give_number(&mut self, source: Source) -> i16 {
        let known = self.number(source);
        if known != 0 {
            return known;
        }
        let number = self.numbers.values().min().copied().unwrap_or(0).saturating_sub(1);
        self.numbers.insert(source.name().to_owned(), number);
        name_record(&mut self.pending, number, source.name());
        number
    }

    /// Identity and size of a frame that is to be appended; `None` if the bytes are no frame. The frames of a writer come
    /// in their order, so that the difference of two running totals is the size of the later one.
    pub fn look(&mut self, source: Source, frame: &[u8]) -> Option<FrameMark> {
        let (writer, mark) = read_mark(frame)?;
        let key = (self.give_number(source), writer);
        if self.seen.len() >= MAX_SEEN {
            self.seen.clear();
        }
        let before = self.seen.insert(key, mark).unwrap_or_default();
        let events = if before.number + 1 == mark.number {
            mark.total.saturating_sub(before.total)
        } else {
            Frame::read(bytes::Bytes::copy_from_slice(frame)).ok()?.len() as u64
        };
        Some(FrameMark { writer, number: mark.number, events })
    }

    /// Marks a frame as taken: the log holds it, and is about to acknowledge it.
    pub fn take(&mut self, source: Source, frame: FrameMark) {
        let key = (self.give_number(source), frame.writer);
        self.current.insert(key.0, frame.writer);
        let marked = self.marked.entry(key).or_default();
        marked.used = Some(Instant::now());
        if marked.taken.contains(frame.number) {
            return;
        }
        marked.taken.add(frame.number, frame.number);
        marked.events += frame.events;
        record(&mut self.pending, TAKEN, key, (frame.number, frame.number), frame.events);
    }

    /// Marks a frame as done.
    pub fn finish(&mut self, source: Source, writer: Uuid, number: u64) {
        let key = (self.give_number(source), writer);
        let marked = self.marked.entry(key).or_default();
        if !marked.done.contains(number) {
            marked.done.add(number, number);
            record(&mut self.pending, DONE, key, (number, number), 0);
        }
    }

    /// True if this frame was acknowledged.
    pub fn is_taken(&self, source: Source, writer: Uuid, number: u64) -> bool {
        self.marked.get(&(self.number(source), writer)).is_some_and(|marked| marked.taken.contains(number))
    }

    /// True if a collector was done with this frame.
    pub fn is_done(&self, source: Source, writer: Uuid, number: u64) -> bool {
        self.marked.get(&(self.number(source), writer)).is_some_and(|marked| marked.done.contains(number))
    }

    /// Writes new marks to the file. A failure is logged once, and the write is tried again with the next frame.
    pub fn write(&mut self) {
        if self.pending.is_empty() && !self.stale {
            return;
        }
        if let Some(file) = self.file.as_ref().filter(|_| !self.stale) {
            match file.write_all_at(&self.pending, self.size) {
                Ok(()) => {
                    self.size += self.pending.len() as u64;
                    self.pending.clear();
                }
                Err(error) => self.lag(&error),
            }
        }
        if self.stale || self.size > MAX_HISTORY && self.size > 4 * self.live() {
            self.forget_finished();
            self.rewrite();
        }
    }

    /// Records that the file lacks marks, and logs it the first time.
    fn lag(&mut self, error: &std::io::Error) {
        if !self.stale {
            tracing::warn!(file = %self.path.display(), %error, "the log's marks could not be written and lag behind; they are written again with the next frame");
        }
        self.stale = true;
        // The rewrite takes all marks from memory.
        self.pending.clear();
    }

    /// Size that a rewritten file would have, in bytes.
    fn live(&self) -> u64 {
        let runs: usize = self.marked.values().map(|marked| marked.taken.count() + marked.done.count()).sum();
        (MAGIC.len() + (runs + self.numbers.len()) * RECORD) as u64
    }

    /// Forgets writers that write no more and whose frames are all done.
    fn forget_finished(&mut self) {
        let current = &self.current;
        self.marked.retain(|(source, writer), marked| {
            current.get(source) == Some(writer)
                || marked.used.is_some_and(|used| used.elapsed() < REST)
                || !marked.is_finished()
        });
    }

    /// Rewrites the file: a new file takes the place of the old one.
    fn rewrite(&mut self) {
        let mut bytes = MAGIC.to_vec();
        for (name, number) in &self.numbers {
            name_record(&mut bytes, *number, name);
        }
        for (key, marked) in &self.marked {
            let mut events = marked.events;
            for (first, last) in marked.taken.iter() {
                // The first record has the sum of events.
                record(&mut bytes, TAKEN, *key, (first, last), std::mem::take(&mut events));
            }
            for (first, last) in marked.done.iter() {
                record(&mut bytes, DONE, *key, (first, last), 0);
            }
        }
        let beside = self.path.with_extension("marks.new");
        let written = (|| {
            let file = File::options().create(true).truncate(true).read(true).write(true).open(&beside)?;
            file.write_all_at(&bytes, 0)?;
            file.sync_data()?;
            std::fs::rename(&beside, &self.path)?;
            Ok::<_, std::io::Error>(file)
        })();
        match written {
            Ok(file) => {
                self.file = Some(file);
                self.size = bytes.len() as u64;
                self.stale = false;
                self.pending.clear();
            }
            Err(error) => {
                let _ = std::fs::remove_file(&beside);
                self.lag(&error);
            }
        }
    }

    /// Acknowledged frames by writer: the highest number, and the number of their events.
    pub fn acknowledged(&self, source: Source) -> HashMap<Uuid, WriterMark> {
        let number = self.number(source);
        let of_source = self.marked.iter().filter(|((of, _), _)| *of == number);
        of_source
            .filter_map(|((_, writer), marked)| {
                let number = marked.taken.last()?;
                Some((*writer, WriterMark { number, total: marked.events }))
            })
            .collect()
    }

    /// Frames by writer that were taken, are not done, and are not among `present`.
    pub fn lost(&self, source: Source, present: &HashMap<Uuid, Runs>) -> HashMap<Uuid, Runs> {
        let number = self.number(source);
        let of_source = self.marked.iter().filter(|((of, _), _)| *of == number);
        let nothing = Runs::default();
        of_source
            .map(|((_, writer), marked)| {
                let left = marked.taken.without(&marked.done);
                (*writer, left.without(present.get(writer).unwrap_or(&nothing)))
            })
            .filter(|(_, lost)| !lost.is_empty())
            .collect()
    }
}

#[cfg(test)]
mod tests;
