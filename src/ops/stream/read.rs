//! Reading a request: its head, which is validated, and its body, which is framed.

use std::io;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use actix_web::http::StatusCode;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Reading, Stream};
use crate::ops::chunks::{Chunks, Step};
use crate::ops::head::{Framing, Refusal, Validated, validate};

impl<T: AsyncRead + AsyncWrite + Unpin> Stream<T> {
    /// Reads a head. Usually one read brings the whole head, which then stays in the library's buffer without a copy.
    pub(super) fn read_head(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.connection.expired.swap(false, Ordering::Relaxed) {
            // Empty lines before a head are ignored (RFC 9112, 2.2).
            if self.ahead.iter().all(|byte| matches!(byte, b'\r' | b'\n')) {
                self.reading = Reading::End;
            } else {
                let detail = "the request's head did not arrive in time (ESS_HEAD_TIMEOUT)";
                self.refuse(Refusal::new(StatusCode::REQUEST_TIMEOUT, detail));
            }
            return Poll::Ready(Ok(()));
        }
        if !self.ahead.is_empty() {
            if self.validate_ahead() {
                return Poll::Ready(Ok(()));
            }
            if ready!(self.fill(cx))? == 0 {
                self.reading = Reading::End;
            }
            return Poll::Ready(Ok(()));
        }
        let start = buf.filled().len();
        if !self.ended {
            ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        }
        if buf.filled().len() == start {
            self.end_if(true);
            self.reading = Reading::End;
            return Poll::Ready(Ok(()));
        }
        let Validated::Complete(head) = validate(&buf.filled()[start..], self.max_head) else {
            self.ahead.extend_from_slice(&buf.filled()[start..]);
            buf.set_filled(start);
            if !self.validate_ahead() {
                self.connection.begin_head();
            }
            return Poll::Ready(Ok(()));
        };
        for part in head.upgrades {
            buf.filled_mut()[start..][part].fill(b' ');
        }
        self.begin(head.framing, head.last);
        self.split_body(buf, start + head.len, head.framing);
        Poll::Ready(Ok(()))
    }

    /// Leaves the bytes of the body after `at` in `buf`, and moves the rest to `ahead`.
    fn split_body(&mut self, buf: &mut ReadBuf<'_>, at: usize, framing: Framing) {
        let behind = buf.filled().len() - at;
        let own = match framing {
            Framing::Length(length) => behind.min(usize::try_from(length).unwrap_or(usize::MAX)),
            Framing::None | Framing::Chunked => 0,
        };
        if own < behind {
            self.ahead.extend_from_slice(&buf.filled()[at + own..]);
            buf.set_filled(at + own);
        }
        if let Framing::Length(length) = framing {
            self.advance_body(length, own);
        }
    }

    /// Subtracts `bytes` from the `left` bytes of a body or chunk, and moves on after the last one.
    fn advance_body(&mut self, left: u64, bytes: usize) {
        let left = left - bytes as u64;
        match &mut self.reading {
            Reading::Chunks(chunks) if left == 0 => *chunks = Chunks::DataEnd,
            Reading::Chunks(chunks) => *chunks = Chunks::Data(left),
            _ if left == 0 => self.end_body(),
            reading => *reading = Reading::Body(left),
        }
    }

    /// Reads bytes of a body or chunk with `left` bytes left, directly into the library's buffer.
    pub(super) fn read_data(
        &mut self,
        left: u64,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let most = usize::try_from(left).unwrap_or(usize::MAX);
        if !self.ahead.is_empty() {
            let taken = self.ahead.len().min(most);
            self.out = self.ahead.split_to(taken);
            self.advance_body(left, taken);
            return Poll::Ready(Ok(()));
        }
        let start = buf.filled().len();
        if !self.ended {
            ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        }
        let read = buf.filled().len() - start;
        if read == 0 {
            self.end_if(true);
            self.reading = Reading::End;
        } else {
            let own = read.min(most);
            self.ahead.extend_from_slice(&buf.filled()[start + own..]);
            buf.set_filled(start + own);
            self.advance_body(left, own);
        }
        Poll::Ready(Ok(()))
    }

    /// Reads a body in chunks.
    pub(super) fn read_chunks(
        &mut self,
        mut chunks: Chunks,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Chunks::Data(left) = chunks {
            return self.read_data(left, cx, buf);
        }
        let step = chunks.step(&mut self.ahead, &mut self.out);
        self.reading = Reading::Chunks(chunks);
        match step {
            Step::Done if chunks == Chunks::End => self.end_body(),
            Step::Done => {}
            // The library sees an incomplete body, and the handler answers that with an error.
            Step::Malformed => self.reading = Reading::End,
            Step::Partial => {
                if ready!(self.fill(cx))? == 0 {
                    self.reading = Reading::End;
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}
