//! Acknowledged frames by writer, in a small file beside the embedded log.
//!
//! The log forgets a frame once that was processed, and a log that is lost forgets everything. This file tells what
//! is gone then: which frames were acknowledged to a gateway ("taken"), and which a collector was done with ("done").
//! A frame is entered as taken after the log's commit and before anybody is told of it, and as done before the log
//! lets it go. A killed process loses nothing of this; after a power cut the end of the file may be missing, so that
//! the file lags behind the log and never leads.
//!
//! ```text
//! "ESSMARK1" | records of 48 bytes: kind u8, 0 u8, source i16, writer 16 bytes, first number u64, last number u64,
//!                                   events u64, CRC-32 of the bytes before it u32
//! ```
//!
//! Numbers are little-endian. A damaged record is passed over. The file is written anew once most of it is history;
//! writers whose frames are all done are left out then.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Read;
use std::ops::Bound;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::frame::{Frame, WriterMark, read_mark};
use crate::event::Source;

const MAGIC: &[u8; 8] = b"ESSMARK1";
const RECORD: usize = 48;
const TAKEN: u8 = 1;
const DONE: u8 = 2;
/// Bytes of records above which the file may be written anew.
const MAX_HISTORY: u64 = 256 * 1024;
/// Writers whose last frame is remembered, to know how many events the next one holds.
const MAX_SEEN: usize = 1_024;
/// Time without a frame after which a writer is known to write no more, where another one took its place.
const REST: Duration = Duration::from_secs(300);

/// Numbers, as runs without gaps: first → last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Runs(BTreeMap<u64, u64>);

impl Runs {
    /// Adds the numbers from `first` to `last`.
    pub fn add(&mut self, mut first: u64, mut last: u64) {
        let next = last.saturating_add(1);
        while let Some((&from, &to)) = self.0.range(..=next).next_back()
            && to.saturating_add(1) >= first
        {
            first = first.min(from);
            last = last.max(to);
            self.0.remove(&from);
        }
        self.0.insert(first, last);
    }

    /// True if the number is one of them.
    pub fn contains(&self, number: u64) -> bool {
        self.0.range(..=number).next_back().is_some_and(|(_, last)| *last >= number)
    }

    /// How many there are.
    pub fn len(&self) -> u64 {
        self.0.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The highest one.
    fn last(&self) -> Option<u64> {
        self.0.last_key_value().map(|(_, last)| *last)
    }

    /// Those of `self` that are not in `other`.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        let mut left = Self::default();
        for (&first, &last) in &self.0 {
            let mut from = first;
            let before = other.0.range(..=first).next_back();
            for (&start, &end) in
                before.into_iter().chain(other.0.range((Bound::Excluded(first), Bound::Included(last))))
            {
                if start > from {
                    left.add(from, start - 1);
                }
                from = from.max(end.saturating_add(1));
            }
            if from <= last {
                left.add(from, last);
            }
        }
        left
    }
}

/// Frames of one writer.
#[derive(Debug, Clone, Default)]
struct Marked {
    taken: Runs,
    done: Runs,
    /// Events of the frames that were taken.
    events: u64,
    /// When a frame was entered last, by this process.
    used: Option<Instant>,
}

impl Marked {
    fn is_finished(&self) -> bool {
        self.taken.without(&self.done).is_empty()
    }
}

/// A frame, as far as marks go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameMark {
    /// Its writer.
    pub writer: Uuid,
    /// Its number.
    pub number: u64,
    /// The events that it holds.
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
    /// True while the file lacks something: it is written anew then.
    stale: bool,
}

impl Marks {
    /// The marks beside a log's file. One that cannot be read counts as empty, and a line says so.
    pub fn open(path: &Path) -> Self {
        let mut marks = Self {
            path: path.to_owned(),
            file: None,
            size: 0,
            pending: Vec::new(),
            marked: HashMap::new(),
            seen: HashMap::new(),
            current: HashMap::new(),
            stale: false,
        };
        if let Err(error) = marks.read() {
            tracing::warn!(file = %path.display(), %error, "the log's marks cannot be read: what was lost before is not known");
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
            return Err(std::io::Error::other("it does not begin as one"));
        };
        records.chunks_exact(RECORD).for_each(|record| self.enter(record));
        Ok(())
    }

    fn enter(&mut self, record: &[u8]) {
        let (body, crc) = record.split_at(RECORD - 4);
        if crc32fast::hash(body).to_le_bytes() != crc {
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

    /// Looks at a frame that is offered, in the order of its writer; `None` if these are no frame's bytes.
    pub fn look(&mut self, source: Source, frame: &[u8]) -> Option<FrameMark> {
        let (writer, mark) = read_mark(frame)?;
        let key = (source.code(), writer);
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

    /// Enters a frame that the log holds and is about to acknowledge.
    pub fn take(&mut self, source: Source, frame: FrameMark) {
        let key = (source.code(), frame.writer);
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

    /// Enters a frame that a collector is done with.
    pub fn finish(&mut self, source: Source, writer: Uuid, number: u64) {
        let key = (source.code(), writer);
        let marked = self.marked.entry(key).or_default();
        if !marked.done.contains(number) {
            marked.done.add(number, number);
            record(&mut self.pending, DONE, key, (number, number), 0);
        }
    }

    /// True if this frame was acknowledged.
    pub fn is_taken(&self, source: Source, writer: Uuid, number: u64) -> bool {
        self.marked.get(&(source.code(), writer)).is_some_and(|marked| marked.taken.contains(number))
    }

    /// True if a collector was done with this frame.
    pub fn is_done(&self, source: Source, writer: Uuid, number: u64) -> bool {
        self.marked.get(&(source.code(), writer)).is_some_and(|marked| marked.done.contains(number))
    }

    /// Writes what was entered. A failure is told once; it is tried again with the next frame.
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

    /// The file is behind: it is to be written anew.
    fn lag(&mut self, error: &std::io::Error) {
        if !self.stale {
            tracing::warn!(file = %self.path.display(), %error, "the log's marks were not written; they lag behind");
        }
        self.stale = true;
        // All of it is known here.
        self.pending.clear();
    }

    /// Bytes that the file would have if it were written anew.
    fn live(&self) -> u64 {
        let runs: usize = self.marked.values().map(|marked| marked.taken.0.len() + marked.done.0.len()).sum();
        (MAGIC.len() + runs * RECORD) as u64
    }

    /// Lets writers go that write no more and whose frames are all done.
    fn forget_finished(&mut self) {
        let current = &self.current;
        self.marked.retain(|(source, writer), marked| {
            current.get(source) == Some(writer)
                || marked.used.is_some_and(|used| used.elapsed() < REST)
                || !marked.is_finished()
        });
    }

    /// Writes the file anew and puts it in the place of the old one.
    fn rewrite(&mut self) {
        let mut bytes = MAGIC.to_vec();
        for (key, marked) in &self.marked {
            let mut events = marked.events;
            for (first, last) in &marked.taken.0 {
                // The sum stands in the first record.
                record(&mut bytes, TAKEN, *key, (*first, *last), std::mem::take(&mut events));
            }
            for (first, last) in &marked.done.0 {
                record(&mut bytes, DONE, *key, (*first, *last), 0);
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

    /// What was acknowledged, by writer: the highest number, and the events of the acknowledged frames alone.
    pub fn acknowledged(&self, source: Source) -> HashMap<Uuid, WriterMark> {
        let of_source = self.marked.iter().filter(|((code, _), _)| *code == source.code());
        of_source
            .filter_map(|((_, writer), marked)| {
                let number = marked.taken.last()?;
                Some((*writer, WriterMark { number, total: marked.events }))
            })
            .collect()
    }

    /// Numbers of frames by writer that were taken, are not done, and are not among those that are there.
    pub fn lost(&self, source: Source, there: &HashMap<Uuid, Runs>) -> HashMap<Uuid, Runs> {
        let of_source = self.marked.iter().filter(|((code, _), _)| *code == source.code());
        let nothing = Runs::default();
        of_source
            .map(|((_, writer), marked)| {
                let left = marked.taken.without(&marked.done);
                (*writer, left.without(there.get(writer).unwrap_or(&nothing)))
            })
            .filter(|(_, lost)| !lost.is_empty())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::log::{FrameWriter, Origin, Piece};

    const SOURCE: Source = Source::FACEBOOK;

    fn mark(writer: Uuid, number: u64, events: u64) -> FrameMark {
        FrameMark { writer, number, events }
    }

    #[test]
    fn what_was_entered_is_there_after_a_kill() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.marks");
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let mut marks = Marks::open(&path);
        for number in [1, 2, 4, 5] {
            marks.take(SOURCE, mark(one, number, 10));
        }
        marks.take(SOURCE, mark(one, 2, 10));
        marks.take(SOURCE, mark(other, 1, 3));
        marks.finish(SOURCE, one, 2);
        marks.finish(SOURCE, other, 1);
        marks.write();
        drop(marks);
        let marks = Marks::open(&path);
        let known = HashMap::from([(one, WriterMark { number: 5, total: 40 })]);
        assert_eq!(marks.acknowledged(SOURCE), known, "a writer that is done with is left out");
        assert!(marks.acknowledged(Source::TIKTOK).is_empty());
        let mut there = Runs::default();
        there.add(4, 4);
        let lost = marks.lost(SOURCE, &HashMap::from([(one, there)]));
        assert_eq!(lost[&one].len(), 2, "1 and 5: {lost:?}");
        assert!(marks.is_done(SOURCE, one, 2) && !marks.is_done(SOURCE, one, 1));
    }

    #[test]
    fn a_damaged_record_costs_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.marks");
        let writer = Uuid::from_u128(1);
        let mut marks = Marks::open(&path);
        for number in 1..=3 {
            marks.take(SOURCE, mark(writer, number, 1));
            marks.write();
        }
        drop(marks);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[MAGIC.len() + RECORD + 30] ^= 1;
        bytes.truncate(bytes.len() - 1);
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(Marks::open(&path).acknowledged(SOURCE)[&writer].number, 1);
        std::fs::write(&path, b"something else").unwrap();
        assert!(Marks::open(&path).acknowledged(SOURCE).is_empty());
    }

    #[test]
    fn the_file_does_not_grow_with_what_is_done() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.marks");
        let mut marks = Marks::open(&path);
        let writer = Uuid::from_u128(1);
        for number in 1..=20_000 {
            marks.take(SOURCE, mark(writer, number, 1));
            marks.write();
            marks.finish(SOURCE, writer, number);
            marks.write();
        }
        assert!(std::fs::metadata(&path).unwrap().len() <= MAX_HISTORY + 1_000);
        assert_eq!(marks.acknowledged(SOURCE)[&writer], WriterMark { number: 20_000, total: 20_000 });
    }

    #[test]
    fn events_of_refused_frames_are_in_no_sum() {
        let folder = tempfile::tempdir().unwrap();
        let mut marks = Marks::open(&folder.path().join("log.marks"));
        let mut writer = FrameWriter::default();
        let origin = Origin { correlation_id: "a".to_owned(), traceparent: None, accepted_at: 1 };
        let mut frame = |events: usize| {
            let whole = vec![0..2; events];
            writer.write(&[Piece { origin: &origin, body: b"{}", events: &whole }]).1
        };
        let (first, refused, third) = (frame(2), frame(50), frame(3));
        let first = marks.look(SOURCE, &first).unwrap();
        let refused = marks.look(SOURCE, &refused).unwrap();
        let third = marks.look(SOURCE, &third).unwrap();
        assert_eq!((first.events, refused.events, third.events), (2, 50, 3));
        marks.take(SOURCE, first);
        marks.take(SOURCE, third);
        assert_eq!(marks.acknowledged(SOURCE)[&first.writer], WriterMark { number: 3, total: 5 });
        // One that comes out of turn is counted by itself.
        let (_, late) = (frame(7), frame(4));
        assert_eq!(marks.look(SOURCE, &late).unwrap().events, 4);
        assert_eq!(marks.look(SOURCE, b"no frame"), None);
    }

    proptest! {
        #[test]
        fn runs_are_sets(pieces in proptest::collection::vec((0u64..60, 0u64..6), 0..20),
                         others in proptest::collection::vec((0u64..60, 0u64..6), 0..20)) {
            let build = |pieces: &[(u64, u64)]| {
                let (mut runs, mut set) = (Runs::default(), std::collections::BTreeSet::new());
                for (first, more) in pieces {
                    runs.add(*first, first + more);
                    set.extend(*first..=first + more);
                }
                (runs, set)
            };
            let ((runs, set), (other, others)) = (build(&pieces), build(&others));
            let left = runs.without(&other);
            let expected: std::collections::BTreeSet<u64> = set.difference(&others).copied().collect();
            prop_assert_eq!(runs.len(), set.len() as u64);
            prop_assert_eq!(left.len(), expected.len() as u64);
            for number in 0..70 {
                prop_assert_eq!(runs.contains(number), set.contains(&number));
                prop_assert_eq!(left.contains(number), expected.contains(&number));
            }
            let apart = runs.0.iter().zip(runs.0.iter().skip(1)).all(|((_, last), (first, _))| last + 1 < *first);
            prop_assert!(apart, "{:?}", runs);
        }
    }
}
