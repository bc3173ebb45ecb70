//! Search for intact frames in a damaged file.

use std::io::Read;

use bytes::Bytes;

use super::frame::{CRC, Frame, Header, MAGIC, Origin, PREFIX};

/// Bytes that a search reads at a time.
const WINDOW: usize = 4 << 20;
/// Longest header that can be real, in bytes: a thousand segments have less.
const MAX_HEADER: usize = 8 << 20;
/// Most bytes of events that can be real.
const MAX_EVENT_BYTES: usize = 8 << 20;

/// Finds every intact frame in the bytes of a damaged log, wherever it is. At most a window and a frame are in memory.
///
/// # Errors
///
/// If the source cannot be read, or if `found` returns an error, which ends the search.
pub fn find_frames<E: From<std::io::Error>>(
    mut source: impl Read,
    mut found: impl FnMut(Frame) -> Result<(), E>,
) -> Result<(), E> {
    let mut bytes = Vec::new();
    loop {
        let before = bytes.len();
        let read = source.by_ref().take(WINDOW as u64).read_to_end(&mut bytes)?;
        debug_assert_eq!(bytes.len(), before + read);
        let at_end = read < WINDOW;
        let mut from = 0;
        let kept = loop {
            let Some(at) = memchr::memmem::find(&bytes[from..], MAGIC).map(|at| from + at) else {
                // The magic bytes may begin here and end in the next window.
                break bytes.len().saturating_sub(MAGIC.len() - 1).max(from);
            };
            match frame_at(&bytes[at..]) {
                Candidate::Whole(frame) => {
                    from = at + frame.size();
                    found(frame)?;
                }
                Candidate::Cut if !at_end => break at,
                Candidate::Cut | Candidate::None => from = at + MAGIC.len(),
            }
        };
        if at_end {
            return Ok(());
        }
        bytes.drain(..kept);
    }
}

/// Bytes that begin like a frame.
enum Candidate {
    Whole(Frame),
    /// More bytes are needed to decide.
    Cut,
    None,
}

/// Reads the frame at the beginning of the bytes; its header has its length.
fn frame_at(bytes: &[u8]) -> Candidate {
    let Some(length) = bytes.get(5..PREFIX).and_then(|length| length.try_into().ok()) else {
        return Candidate::Cut;
    };
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_HEADER {
        return Candidate::None;
    }
    let Some(header) = bytes.get(PREFIX..PREFIX + length) else { return Candidate::Cut };
    let Ok(header) = serde_json::from_slice::<Header<Origin>>(header) else { return Candidate::None };
    let lengths = header.segments.iter().flat_map(|segment| &segment.lengths);
    let events: usize = lengths.map(|length| *length as usize).sum();
    if events > MAX_EVENT_BYTES {
        return Candidate::None;
    }
    let Some(frame) = bytes.get(..PREFIX + length + events + CRC) else { return Candidate::Cut };
    Frame::read(Bytes::copy_from_slice(frame)).map_or(Candidate::None, Candidate::Whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::frame::read_mark;
    use crate::log::{FrameWriter, Piece};

    #[test]
    fn intact_frames_are_found_between_damaged_bytes() {
        let mut writer = FrameWriter::default();
        let origin = Origin { correlation_id: "a".to_owned(), traceparent: None, accepted_at: 5 };
        let mut frame = |body: &'static [u8]| {
            let whole = std::iter::once(0..body.len()).collect::<Vec<_>>();
            writer.write(&[Piece { origin: &origin, body, events: &whole }]).1
        };
        let (first, second, third) = (frame(b"{\"n\":1}"), frame(b"{\"n\":2}"), frame(b"{\"n\":3}"));
        let mut damaged = second.to_vec();
        let middle = damaged.len() / 2;
        damaged[middle] ^= 1;
        let file = [b"ESSF junk ".as_slice(), &first, b"\0\0", &damaged, &third, &first[..20]].concat();
        let numbers = |bytes: &[u8]| {
            let mut numbers = Vec::new();
            let found = find_frames::<std::io::Error>(bytes, |frame| {
                numbers.push(frame.number);
                Ok(())
            });
            found.unwrap();
            numbers
        };
        assert_eq!(numbers(&file), [1, 3]);
        // A frame that begins in one window and ends in the next.
        for before in [WINDOW - 1, WINDOW - 3, WINDOW - 8, WINDOW - 40, WINDOW, WINDOW - first.len()] {
            let file = [&vec![7; before][..], &first, b"ESSF", &third].concat();
            assert_eq!(numbers(&file), [1, 3], "{before}");
        }
        let (writer, mark) = read_mark(&third).unwrap();
        assert_eq!((writer, mark.number, mark.total), (Frame::read(third).unwrap().writer, 3, 3));
    }
}
