//! The frame: many events of one source in one message of the log.
//!
//! ```text
//! "ESSF" | version: u8 | header length: u32 | header: JSON | events, end to end | CRC-32: u32
//! ```
//!
//! Numbers are little-endian; the CRC (IEEE) is over all bytes before it. The header has the writer of the frame and,
//! in a segment for each request, the request and the length of each of its events:
//!
//! ```json
//! {"writer":"<uuid>","number":7,"total":6120,"acknowledged":[4,3800],"segments":[
//!   {"correlationId":"…","traceparent":"00-…","acceptedAt":1764000000000000,"lengths":[431,398]}]}
//! ```
//!
//! - `writer` is a random id of one run of one gateway, `number` counts its frames of this topic from 1, and `total`
//!   its events, those of this frame included. Writer and number identify the frame wherever it is stored.
//! - `acknowledged` says that, when this frame was written, the log had acknowledged all frames up to the 4th, with
//!   3,800 events. If one of them is neither in the log nor in the store, it was lost, and the totals around it say how
//!   many events it held. A frame that the log refused or never confirmed ends its writer, so that no later frame
//!   counts it as acknowledged. A missing member means `[0,0]`.
//! - `acceptedAt` is in microseconds since 1970. The events are the publisher's bytes.
//!
//! Readers ignore members that they do not know.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The most events of one frame.
pub const MAX_FRAME_EVENTS: usize = 1_000;
/// The most bytes of a frame's events. The largest single event fits in as well.
pub const MAX_FRAME_BYTES: usize = 512 * 1024;
/// The version that is written. It and the one before are read.
pub const FRAME_VERSION: u8 = 1;

pub(super) const MAGIC: &[u8; 4] = b"ESSF";
pub(super) const PREFIX: usize = MAGIC.len() + 1 + 4;
pub(super) const CRC: usize = 4;

/// The request that events came with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Origin {
    /// The request's correlation id.
    pub correlation_id: String,
    /// W3C trace context, if the request had or began one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// Time at which the gateway accepted the request, in microseconds since 1970.
    pub accepted_at: i64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Segment<O> {
    #[serde(flatten)]
    origin: O,
    pub(super) lengths: Vec<u32>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Header<O> {
    writer: Uuid,
    number: u64,
    total: u64,
    #[serde(default)]
    acknowledged: (u64, u64),
    pub(super) segments: Vec<Segment<O>>,
}

/// Error of reading a frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The frame was written by a newer version of this program.
    #[error("frame version {0} is newer than {FRAME_VERSION}, the newest that this version reads")]
    Newer(u8),
    /// The bytes are not a frame, or a damaged one.
    #[error("not a frame: {0}")]
    Unreadable(String),
}

/// Events of one request that go into a frame: the body, and their ranges in it.
#[derive(Debug, Clone)]
pub struct Piece<'a> {
    /// The request.
    pub origin: &'a Origin,
    /// The request's body.
    pub body: &'a [u8],
    /// The events in the body.
    pub events: &'a [Range<usize>],
}

/// Numbers the frames of one topic and counts their events.
#[derive(Debug)]
pub struct FrameWriter {
    writer: Uuid,
    number: u64,
    total: u64,
    /// Frames that the log has not acknowledged, by number, each with the mark of the frame before it.
    open: BTreeMap<u64, WriterMark>,
}

impl Default for FrameWriter {
    fn default() -> Self {
        Self { writer: Uuid::new_v4(), number: 0, total: 0, open: BTreeMap::new() }
    }
}

impl FrameWriter {
    /// The number of the last frame.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// True if the log has acknowledged every frame.
    pub fn is_settled(&self) -> bool {
        self.open.is_empty()
    }

    /// Remembers that the log has acknowledged a frame.
    pub fn acknowledge(&mut self, number: u64) {
        self.open.remove(&number);
    }

    /// Mark up to which the log has acknowledged every frame.
    pub fn acknowledged(&self) -> WriterMark {
        let last = WriterMark { number: self.number, total: self.total };
        self.open.first_key_value().map_or(last, |(_, before)| *before)
    }

    /// Writes the next frame, and returns its id and bytes.
    pub fn write(&mut self, pieces: &[Piece<'_>]) -> (String, Bytes) {
        let acknowledged = self.acknowledged();
        self.open.insert(self.number + 1, WriterMark { number: self.number, total: self.total });
        self.number += 1;
        self.total += pieces.iter().map(|piece| piece.events.len() as u64).sum::<u64>();
        let segment = |piece: &Piece<'_>| Segment {
            origin: piece.origin.clone(),
            lengths: piece
                .events
                .iter()
                .map(|event| u32::try_from(event.len()).unwrap_or(u32::MAX))
                .collect(),
        };
        let header = Header {
            writer: self.writer,
            number: self.number,
            total: self.total,
            acknowledged: (acknowledged.number, acknowledged.total),
            segments: pieces.iter().map(segment).collect(),
        };
        // A header of strings and numbers always has a JSON form.
        let header = serde_json::to_vec(&header).unwrap_or_default();
        let events =
            pieces.iter().flat_map(|piece| piece.events.iter().map(|range| &piece.body[range.clone()]));
        let size: usize = events.clone().map(<[u8]>::len).sum();
        let mut frame = BytesMut::with_capacity(PREFIX + header.len() + size + CRC);
        frame.put_slice(MAGIC);
        frame.put_u8(FRAME_VERSION);
        frame.put_u32_le(u32::try_from(header.len()).unwrap_or(u32::MAX));
        frame.put_slice(&header);
        for event in events {
            frame.put_slice(event);
        }
        frame.put_u32_le(crc32fast::hash(&frame));
        (format!("{}-{}", self.writer.simple(), self.number), frame.freeze())
    }
}

/// Frames and events of one writer (one run of one gateway) up to some frame.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WriterMark {
    /// The highest frame number.
    pub number: u64,
    /// Events of the writer's frames up to that one.
    pub total: u64,
}

impl WriterMark {
    /// The further of two marks of one writer.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self { number: self.number.max(other.number), total: self.total.max(other.total) }
    }
}

/// Writer, number and running total as a header begins with them.
#[derive(Debug, Deserialize)]
struct HeaderStart {
    writer: Uuid,
    number: u64,
    total: u64,
}

/// Writer, number and total of a frame, read from the beginning of its header; `None` if the bytes are no frame.
pub(super) fn read_mark(frame: &[u8]) -> Option<(Uuid, WriterMark)> {
    const SEGMENTS: &[u8] = b",\"segments\":";
    let header = frame.strip_prefix(MAGIC)?.get(PREFIX - MAGIC.len()..)?;
    let end = memchr::memmem::find(header, SEGMENTS)?;
    let start = [&header[..end], b"}"].concat();
    let HeaderStart { writer, number, total } = serde_json::from_slice(&start).ok()?;
    Some((writer, WriterMark { number, total }))
}

/// A frame that was read.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Id of the gateway's run that wrote the frame.
    pub writer: Uuid,
    /// Frame number within its writer, starting at 1.
    pub number: u64,
    /// Events of the writer up to this frame, included.
    pub total: u64,
    /// Frames that the log had acknowledged when this one was written: all up to this mark.
    pub acknowledged: WriterMark,
    /// Requests of the events.
    pub origins: Vec<Origin>,
    /// Index of each event's origin, and its range in `bytes`.
    events: Vec<(usize, Range<usize>)>,
    bytes: Bytes,
}

/// An event in a frame.
#[derive(Debug, Clone)]
pub struct FrameEvent<'a> {
    /// The event's request.
    pub origin: &'a Origin,
    /// The event as the publisher sent it.
    pub bytes: &'a [u8],
}

impl Frame {
    /// Reads a frame.
    pub fn read(bytes: Bytes) -> Result<Self, FrameError> {
        let unreadable = |what: &str| FrameError::Unreadable(what.to_owned());
        if bytes.len() < PREFIX + CRC || &bytes[..4] != MAGIC {
            return Err(unreadable("it does not begin with ESSF"));
        }
        match bytes[4] {
            FRAME_VERSION => {}
            newer if newer > FRAME_VERSION => return Err(FrameError::Newer(newer)),
            older => return Err(FrameError::Unreadable(format!("unknown version {older}"))),
        }
        let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let end = bytes.len() - CRC;
        if crc32fast::hash(&bytes[..end]) != number(end) {
            return Err(unreadable("its checksum does not match"));
        }
        let mut at = PREFIX + number(5) as usize;
        let header =
            bytes.get(PREFIX..at).filter(|_| at <= end).ok_or_else(|| unreadable("its header is cut off"))?;
        let header: Header<Origin> =
            serde_json::from_slice(header).map_err(|error| FrameError::Unreadable(error.to_string()))?;
        let mut events = Vec::new();
        let mut origins = Vec::with_capacity(header.segments.len());
        for segment in header.segments {
            for length in segment.lengths {
                let next = at.saturating_add(length as usize);
                events.push((origins.len(), at..next));
                at = next;
            }
            origins.push(segment.origin);
        }
        if at != end {
            return Err(unreadable("its lengths do not add up"));
        }
        let Header { writer, number, total, acknowledged: (frames, acked), .. } = header;
        let acknowledged = WriterMark { number: frames, total: acked };
        Ok(Self { writer, number, total, acknowledged, origins, events, bytes })
    }

    /// The frame's bytes.
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// Size in bytes, header and checksum included.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Number of events.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// True if the frame holds no event.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// The events in their order.
    pub fn events(&self) -> impl ExactSizeIterator<Item = FrameEvent<'_>> {
        self.events.iter().map(|(origin, range)| FrameEvent {
            origin: &self.origins[*origin],
            bytes: &self.bytes[range.clone()],
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn origin(id: &str) -> Origin {
        Origin { correlation_id: id.to_owned(), traceparent: None, accepted_at: 5 }
    }

    #[test]
    fn a_frame_is_read_as_it_was_written() {
        let (a, b) = (origin("a"), origin("b"));
        let single = std::iter::once(0..2).collect::<Vec<_>>();
        let pieces = [
            Piece { origin: &a, body: b"[{},{\"x\":1}]", events: &[1..3, 4..11] },
            Piece { origin: &b, body: b"{}", events: &single },
        ];
        let mut writer = FrameWriter::default();
        let (first, _) = writer.write(&pieces[..1]);
        let (id, bytes) = writer.write(&pieces);
        assert_ne!(first, id);
        let frame = Frame::read(bytes).unwrap();
        assert_eq!((frame.number, frame.total, frame.len()), (2, 5, 3));
        let events: Vec<_> = frame.events().map(|event| (event.origin.clone(), event.bytes)).collect();
        assert_eq!(events, [(a.clone(), &b"{}"[..]), (a.clone(), b"{\"x\":1}"), (b.clone(), b"{}")]);
    }

    #[test]
    fn a_frame_has_the_mark_up_to_which_all_frames_were_acknowledged() {
        let origin = origin("a");
        let two = [1..3, 4..6];
        let piece = [Piece { origin: &origin, body: b"[{},{}]", events: &two }];
        let mut writer = FrameWriter::default();
        let mut next = |acknowledge: &[u64]| {
            acknowledge.iter().for_each(|number| writer.acknowledge(*number));
            let frame = Frame::read(writer.write(&piece).1).unwrap();
            (frame.number, frame.acknowledged.number, frame.acknowledged.total)
        };
        assert_eq!(next(&[]), (1, 0, 0));
        assert_eq!(next(&[]), (2, 0, 0));
        assert_eq!(next(&[2]), (3, 0, 0), "the first is not acknowledged");
        assert_eq!(next(&[1]), (4, 2, 4));
        assert_eq!(next(&[3, 4]), (5, 4, 8));
    }

    #[test]
    fn a_newer_version_is_not_taken_for_damage() {
        let (_, bytes) = FrameWriter::default().write(&[]);
        let mut newer = bytes.to_vec();
        newer[4] = FRAME_VERSION + 1;
        assert_eq!(Frame::read(newer.into()).err(), Some(FrameError::Newer(FRAME_VERSION + 1)));
        for at in [0, 6, 20, bytes.len() - 1] {
            let mut damaged = bytes.to_vec();
            damaged[at] ^= 1;
            assert!(matches!(Frame::read(damaged.into()), Err(FrameError::Unreadable(_))), "{at}");
        }
    }

    proptest! {
        #[test]
        fn reading_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut framed = b"ESSF\x01".to_vec();
            framed.extend(&bytes);
            prop_assert!(Frame::read(bytes.into()).is_err());
            let crc = crc32fast::hash(&framed);
            framed.extend(crc.to_le_bytes());
            let _ = Frame::read(framed.into()).is_ok();
        }
    }
}
