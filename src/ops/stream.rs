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

mod read;

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::chunks::Chunks;
use super::connections::{Connection, Phase};
use super::head::{Framing, Refusal, Validated, validate};
use super::linger::Linger;

/// Maximum number of bytes that are read ahead of an answer; more stay in the kernel, and TCP slows the client.
const MAX_AHEAD: usize = 16 << 10;
/// Bytes of one read into a buffer of this stream.
const SCRATCH: usize = 4 << 10;
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
        let unread = this.unread;
        let linger = this.linger.get_or_insert_with(|| Linger::new(unread));
        linger.poll(Pin::new(&mut this.io), cx).map(Ok)
    }
}
