//! The chunked framing of a request's body (RFC 9112, 7.1), parsed and written again in its simplest form.
//!
//! Extensions and trailers are dropped, as the RFC allows. The HTTP library reads only framing that was written here,
//! so that both parsers agree on the end of the body (no request smuggling).

use bytes::BytesMut;

/// Bytes of a chunk's size line, its extension included, at most.
const MAX_LINE: usize = 4_096;
/// Bytes of the trailer section, at most.
const MAX_TRAILER: usize = 16_384;
/// Fields of the trailer section, at most.
const MAX_TRAILER_FIELDS: usize = 32;

/// The next part of a body in chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chunks {
    /// A size line.
    Size,
    /// Data of a chunk, and the number of bytes left.
    Data(u64),
    /// The end of a chunk's data.
    DataEnd,
    /// The trailer section.
    Trailer,
    /// Nothing: the body has ended.
    End,
}

/// The result of [`Chunks::step`].
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Bytes were taken.
    Done,
    /// More bytes are needed.
    Partial,
    /// The framing is malformed.
    Malformed,
}

impl Chunks {
    /// Moves the next part of the framing from `from` to `to`. The caller moves the data of chunks itself.
    pub fn step(&mut self, from: &mut BytesMut, to: &mut BytesMut) -> Step {
        match *self {
            Self::Size => self.size(from, to),
            Self::DataEnd => match &from[..] {
                [b'\r', b'\n', ..] => {
                    drop(from.split_to(2));
                    to.extend_from_slice(b"\r\n");
                    *self = Self::Size;
                    Step::Done
                }
                [] | [b'\r'] => Step::Partial,
                _ => Step::Malformed,
            },
            Self::Trailer => self.trailer(from, to),
            Self::Data(_) | Self::End => Step::Done,
        }
    }

    fn size(&mut self, from: &mut BytesMut, to: &mut BytesMut) -> Step {
        if from.first().is_some_and(|byte| !byte.is_ascii_hexdigit()) {
            return Step::Malformed;
        }
        match httparse::parse_chunk_size(from) {
            // A bare LF within an extension ends the line for some proxies.
            Ok(httparse::Status::Complete((len, _))) if from[..len - 2].contains(&b'\n') => Step::Malformed,
            Ok(httparse::Status::Complete((len, size))) => {
                drop(from.split_to(len));
                if size == 0 {
                    *self = Self::Trailer;
                } else {
                    to.extend_from_slice(format!("{size:x}\r\n").as_bytes());
                    *self = Self::Data(size);
                }
                Step::Done
            }
            Ok(httparse::Status::Partial) if from.len() <= MAX_LINE => Step::Partial,
            _ => Step::Malformed,
        }
    }

    fn trailer(&mut self, from: &mut BytesMut, to: &mut BytesMut) -> Step {
        let mut fields = [httparse::EMPTY_HEADER; MAX_TRAILER_FIELDS];
        let len = match httparse::parse_headers(from, &mut fields) {
            Ok(httparse::Status::Complete((len, _))) => len,
            Ok(httparse::Status::Partial) if from.len() <= MAX_TRAILER => return Step::Partial,
            _ => return Step::Malformed,
        };
        drop(from.split_to(len));
        to.extend_from_slice(b"0\r\n\r\n");
        *self = Self::End;
        Step::Done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rewritten body, and the bytes after it; `None` if the framing is malformed or incomplete.
    fn read(text: &[u8]) -> Option<(String, String)> {
        let (mut from, mut to) = (BytesMut::from(text), BytesMut::new());
        let mut chunks = Chunks::Size;
        loop {
            if let Chunks::Data(left) = chunks {
                let taken = from.len().min(usize::try_from(left).unwrap());
                to.extend_from_slice(&from.split_to(taken));
                chunks = if left == taken as u64 { Chunks::DataEnd } else { return None };
                continue;
            }
            match chunks.step(&mut from, &mut to) {
                Step::Done if chunks == Chunks::End => break,
                Step::Done => {}
                Step::Partial | Step::Malformed => return None,
            }
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Some((text(&to), text(&from)))
    }

    #[test]
    fn chunks_are_rewritten_without_extensions_and_trailers() {
        let (framed, rest) = read(b"5;a=b\r\nhello\r\n0A\r\n0123456789\r\n0\r\nX-T: 1\r\n\r\nGET /").unwrap();
        assert_eq!(framed, "5\r\nhello\r\na\r\n0123456789\r\n0\r\n\r\n");
        assert_eq!(rest, "GET /");
    }

    #[test]
    fn ambiguous_framing_is_refused() {
        for bad in [
            &b"\r\n\r\n"[..],
            b"+5\r\nhello\r\n0\r\n\r\n",
            b"5\nhello\n0\n\n",
            b"5;a\nhello\r\n0\r\n\r\n",
            b"5\r\nhello!\r\n0\r\n\r\n",
            b"11111111111111111\r\n",
            b"0x5\r\nhello\r\n0\r\n\r\n",
        ] {
            assert_eq!(read(bad), None, "{}", String::from_utf8_lossy(bad));
        }
    }
}
