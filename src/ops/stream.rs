//! A stream between the socket of a connection and the HTTP library, which validates requests on their way.
//!
//! ```text
//! socket ──▶ head (validated) ──▶ body (framed) ──▶ library ──▶ handler
//!    ▲                                                 │
//!    └── the next head waits here until the answer is written
//! ```
//!
//! actix-http decodes requests ahead of the answers, and its codec has the state of the latest request: a pipelined
//! HEAD or `Connection: close` changes the answer before it (actix-web#2678). This stream therefore passes one request
//! at a time. A head that the library would refuse without a body is replaced by a placeholder request, which is
//! answered with a problem.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use actix_web::http::StatusCode;
use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::chunks::{Chunks, Step};
use super::connections::{Connection, Phase};
use super::head::{Framing, Refusal, Validated, validate};

/// Maximum number of bytes that are read ahead of an answer; more stay in the kernel, and TCP slows the client.
const MAX_AHEAD: usize = 16 << 10;
/// Bytes of one read into a buffer of this stream.
const SCRATCH: usize = 4 << 10;
/// Time for a client to close its side after the last answer, whatever it sends.
const LINGER: Duration = Duration::from_millis(1_500);
/// Time for a client that still sends a body of declared length: many read the answer only after their body.
const LINGER_SENDING: Duration = Duration::from_secs(30);
/// Minimum rate of such a client, in bytes per second.
const SENDING_RATE: u64 = 64 << 10;

/// Target of the placeholder for a refused request; no route matches it.
const REFUSED: &str = "/refused";

/// The part of a message that is read next.
enum Reading {
    /// A request's head.
    Head,
    /// A body, and the number of bytes left.
    Body(u64),
    /// A body in chunks.
    Chunks(Chunks),
    /// Nothing until the answer is written.
    Answer,
    /// Nothing: the connection ends.
    End,
}

/// The last phase of a connection: bytes that the client still sends are read and dropped. Closing with unread bytes
/// would reset the connection, and the client might lose the answer (RFC 9112, 9.6).
struct Linger {
    began: Instant,
    dropped: u64,
}

/// The stream of a connection that the HTTP library reads and writes.
pub(super) struct Stream<T> {
    io: T,
    connection: Arc<Connection>,
    reading: Reading,
    /// Bytes of the client that are not validated yet.
    ahead: BytesMut,
    /// Validated bytes for the library.
    out: BytesMut,
    max_head: usize,
    /// Bytes of a body of declared length that are missing when the connection ends.
    unread: Option<u64>,
    /// True if the client has closed its side.
    ended: bool,
    /// True while a request is served, and after the last one of the connection: the client may then still send bytes,
    /// and the end lingers.
    used: bool,
    linger: Option<Linger>,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Stream<T> {
    pub fn new(io: T, connection: Arc<Connection>, max_head: usize) -> Self {
        Self {
            io,
            connection,
            reading: Reading::Head,
            ahead: BytesMut::new(),
            out: BytesMut::new(),
            max_head,
            unread: None,
            ended: false,
            used: false,
            linger: None,
        }
    }

    pub fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Reads into `ahead`; returns the number of bytes, 0 at the end of the stream.
    fn fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.ended {
            return Poll::Ready(Ok(0));
        }
        let mut scratch = [const { MaybeUninit::uninit() }; SCRATCH];
        let mut scratch = ReadBuf::uninit(&mut scratch);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut scratch))?;
        let read = scratch.filled();
        self.ahead.extend_from_slice(read);
        self.end_if(read.is_empty());
        Poll::Ready(Ok(read.len()))
    }

    fn end_if(&mut self, ended: bool) {
        if ended {
            self.ended = true;
            self.connection.gone.store(true, Ordering::Relaxed);
        }
    }

    /// Copies `out` to the library's buffer; false if there is nothing to copy.
    fn copy_out(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        if self.out.is_empty() {
            return false;
        }
        let len = self.out.len().min(buf.remaining());
        buf.put_slice(&self.out[..len]);
        self.out.advance(len);
        if self.out.is_empty() {
            // Idle connections keep no buffer.
            self.out = BytesMut::new();
        }
        len > 0
    }

    /// Begins a request whose head is validated.
    fn begin(&mut self, framing: Framing, last: bool) {
        let connection = &self.connection;
        connection.answered.store(false, Ordering::Relaxed);
        connection.expired.store(false, Ordering::Relaxed);
        connection.last.store(last, Ordering::Relaxed);
        connection.body_open.store(framing != Framing::None, Ordering::Relaxed);
        connection.enter(Phase::Busy);
        self.used = true;
        self.reading = match framing {
            Framing::None => Reading::Answer,
            Framing::Length(length) => Reading::Body(length),
            Framing::Chunked => Reading::Chunks(Chunks::Size),
        };
    }

    /// Ends the body of a request.
    fn end_body(&mut self) {
        self.connection.body_open.store(false, Ordering::Relaxed);
        self.reading = Reading::Answer;
    }

    /// Replaces a request by a placeholder, which is answered with the refusal.
    fn refuse(&mut self, refusal: Refusal) {
        let method = if refusal.head { "HEAD" } else { "GET" };
        self.out = BytesMut::from(format!("{method} {REFUSED} HTTP/1.1\r\nhost: -\r\n\r\n").as_bytes());
        self.ahead = BytesMut::new();
        self.connection.refuse(refusal);
        self.begin(Framing::None, true);
    }

    /// Validates the head in `ahead`; false if more bytes are needed.
    fn validate_ahead(&mut self) -> bool {
        match validate(&self.ahead, self.max_head) {
            Validated::Partial => false,
            Validated::Refused(refusal) => {
                self.refuse(refusal);
                true
            }
            Validated::Complete(head) => {
                for part in head.upgrades {
                    self.ahead[part].fill(b' ');
                }
                self.out = self.ahead.split_to(head.len);
                self.begin(head.framing, head.last);
                true
            }
        }
    }

    /// Reads a head. Usually one read brings the whole head, which then stays in the library's buffer without a copy.
    fn read_head(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
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
    fn read_data(&mut self, left: u64, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
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
    fn read_chunks(
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

    /// Waits for the answer. Reading on detects a client that disconnects.
    fn read_ahead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.ended && self.ahead.len() < MAX_AHEAD {
            ready!(self.fill(cx))?;
        }
        Poll::Pending
    }

    /// Prepares for the next request, or for the end, once the answer is written.
    fn answer_written(&mut self, cx: &Context<'_>) {
        let connection = &self.connection;
        let whole = matches!(self.reading, Reading::Answer);
        if !whole || connection.last.load(Ordering::Relaxed) {
            self.unread = match self.reading {
                Reading::Body(left) => Some(left),
                _ => None,
            };
            self.reading = Reading::End;
        } else {
            self.reading = Reading::Head;
            self.used = false;
            connection.enter(if self.ahead.is_empty() { Phase::Idle } else { Phase::Head });
        }
        // Bytes that are buffered already cause no event of the socket.
        if !self.ahead.is_empty() || self.ended || matches!(self.reading, Reading::End) {
            cx.waker().wake_by_ref();
        }
    }

    /// Reads and drops bytes until the client closes its side or its time is over.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let linger = self.linger.get_or_insert_with(|| Linger { began: Instant::now(), dropped: 0 });
        loop {
            let waited = linger.began.elapsed();
            let sends = self.unread.is_some_and(|left| linger.dropped < left)
                && linger.dropped > waited.as_secs() * SENDING_RATE
                && waited < LINGER_SENDING;
            if waited > LINGER && !sends {
                return Poll::Ready(());
            }
            let mut scratch = [const { MaybeUninit::uninit() }; SCRATCH];
            let mut scratch = ReadBuf::uninit(&mut scratch);
            match Pin::new(&mut self.io).poll_read(cx, &mut scratch) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) if !scratch.filled().is_empty() => {
                    linger.dropped += scratch.filled().len() as u64;
                }
                Poll::Ready(_) => return Poll::Ready(()),
            }
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for Stream<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.connection.task.register(cx.waker());
        let start = buf.filled().len();
        loop {
            if this.copy_out(buf) {
                return Poll::Ready(Ok(()));
            }
            ready!(match this.reading {
                Reading::Head => this.read_head(cx, buf),
                Reading::Body(left) => this.read_data(left, cx, buf),
                Reading::Chunks(chunks) => this.read_chunks(chunks, cx, buf),
                Reading::Answer => this.read_ahead(cx),
                Reading::End => return Poll::Ready(Ok(())),
            })?;
            // A read of 0 bytes means the end of the stream, so return only with some.
            if buf.filled().len() > start {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Stream<T> {
    /// Restarts the timeout, because the client reads.
    fn unblocked(&self) {
        self.connection.progress();
        if self.connection.write_blocked.swap(false, Ordering::Relaxed) {
            self.connection.expired.store(false, Ordering::Relaxed);
        }
    }

    /// Records that the client does not read; returns an error once its time is over.
    fn blocked(&self, cx: &Context<'_>) -> Poll<io::Error> {
        let connection = &self.connection;
        connection.task.register(cx.waker());
        connection.write_blocked.store(true, Ordering::Relaxed);
        if connection.expired.load(Ordering::Relaxed) {
            return Poll::Ready(io::ErrorKind::TimedOut.into());
        }
        Poll::Pending
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Stream<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match Pin::new(&mut this.io).poll_write(cx, buf) {
            Poll::Pending => this.blocked(cx).map(Err),
            written => {
                this.unblocked();
                written
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // TLS has a buffer of its own.
        match Pin::new(&mut this.io).poll_flush(cx) {
            Poll::Pending => return this.blocked(cx).map(Err),
            Poll::Ready(flushed) => flushed?,
        }
        if this.connection.write_blocked.load(Ordering::Relaxed) {
            this.unblocked();
        }
        // The library flushes after it has written everything.
        if this.connection.answered.swap(false, Ordering::Relaxed) {
            this.answer_written(cx);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.linger.is_none() {
            match Pin::new(&mut this.io).poll_shutdown(cx) {
                Poll::Pending => return this.blocked(cx).map(Err),
                Poll::Ready(closed) => closed?,
            }
            if this.ended || !this.used {
                return Poll::Ready(Ok(()));
            }
            if let Reading::Body(left) = this.reading {
                this.unread = Some(left);
            }
            this.connection.enter(Phase::Closing);
        }
        this.connection.task.register(cx.waker());
        this.poll_linger(cx).map(Ok)
    }
}
