//! One connection's bytes on their way between the socket and the HTTP library.
//!
//! ```text
//! socket ──▶ head (judged) ──▶ body (framed) ──▶ library ──▶ handler
//!    ▲                                              │
//!    └── the next head waits here until the answer was written
//! ```
//!
//! actix-http decodes requests ahead of the answers, and its codec's state is that of the latest request: a
//! pipelined HEAD or `Connection: close` changes the answer before it (actix-web#2678). So it is given one request
//! at a time. A head that it would refuse without a body is replaced by one that our own handlers answer.

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
use super::head::{Framing, Judged, Refusal, judge};

/// Bytes that are read ahead of an answer, at most: beyond them the client waits.
const AHEAD: usize = 16 << 10;
/// Bytes of one read into a buffer of ours.
const SCRATCH: usize = 4 << 10;
/// Time for a client to end its side after the last answer, whatever it sends.
const LINGER: Duration = Duration::from_millis(1_500);
/// Time for a client that still sends a body of declared length, so that it comes to read the answer.
const LINGER_SENDING: Duration = Duration::from_secs(30);
/// Bytes a second that such a client must send.
const SENDING_RATE: u64 = 64 << 10;

/// The target of the request that stands for a refused one; no route has it.
const REFUSED: &str = "/refused";

/// Part of the message that is read next.
enum Reading {
    /// A request's head.
    Head,
    /// So many bytes of a body.
    Body(u64),
    /// A body in chunks.
    Chunks(Chunks),
    /// Nothing before the answer was written.
    Answer,
    /// Nothing ever.
    End,
}

/// The end of a connection: what the client still sends is read and dropped, so that its system does not drop the
/// answer (RFC 9112, 9.6).
struct Linger {
    began: Instant,
    dropped: u64,
}

/// A connection's stream, as the HTTP library reads and writes it.
pub(super) struct Stream<T> {
    io: T,
    connection: Arc<Connection>,
    reading: Reading,
    /// Bytes of the client that nobody has judged.
    ahead: BytesMut,
    /// Bytes for the library.
    out: BytesMut,
    max_head: usize,
    /// Bytes of a body of declared length that had not come when the connection was ended.
    unread: Option<u64>,
    /// True if the client has ended its side.
    ended: bool,
    /// True once a request was taken whose answer ends the connection, or that was refused.
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

    /// Reads into `ahead`; the number of bytes, 0 at the end.
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

    /// Hands `out` to the library; true if there was something.
    fn serve(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        if self.out.is_empty() {
            return false;
        }
        let len = self.out.len().min(buf.remaining());
        buf.put_slice(&self.out[..len]);
        self.out.advance(len);
        if self.out.is_empty() {
            // Idle connections hold no buffer of ours.
            self.out = BytesMut::new();
        }
        len > 0
    }

    /// Begins to take a request.
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

    /// The body has come whole.
    fn body_ended(&mut self) {
        self.connection.body_open.store(false, Ordering::Relaxed);
        self.reading = Reading::Answer;
    }

    /// Puts a request that our handlers answer with the refusal in the place of one that cannot be served.
    fn refuse(&mut self, refusal: Refusal) {
        let method = if refusal.head { "HEAD" } else { "GET" };
        self.out = BytesMut::from(format!("{method} {REFUSED} HTTP/1.1\r\nhost: -\r\n\r\n").as_bytes());
        self.ahead = BytesMut::new();
        self.connection.refuse(refusal);
        self.begin(Framing::None, true);
    }

    /// Judges what is in `ahead`. False if more bytes are needed.
    fn judge_ahead(&mut self) -> bool {
        match judge(&self.ahead, self.max_head) {
            Judged::Partial => false,
            Judged::Refused(refusal) => {
                self.refuse(refusal);
                true
            }
            Judged::Whole(head) => {
                for part in head.upgrades {
                    self.ahead[part].fill(b' ');
                }
                self.out = self.ahead.split_to(head.len);
                self.begin(head.framing, head.last);
                true
            }
        }
    }

    /// Reads a head. The usual one comes whole and alone, and stays where the library wants it.
    fn read_head(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.connection.expired.swap(false, Ordering::Relaxed) {
            // Empty lines before a head are no part of it (RFC 9112, 2.2).
            if self.ahead.iter().all(|byte| matches!(byte, b'\r' | b'\n')) {
                self.reading = Reading::End;
            } else {
                let detail = "the request's head did not come in time (ESS_HEAD_TIMEOUT)";
                self.refuse(Refusal::new(StatusCode::REQUEST_TIMEOUT, detail));
            }
            return Poll::Ready(Ok(()));
        }
        if !self.ahead.is_empty() {
            if self.judge_ahead() {
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
        let Judged::Whole(head) = judge(&buf.filled()[start..], self.max_head) else {
            self.ahead.extend_from_slice(&buf.filled()[start..]);
            buf.set_filled(start);
            if !self.judge_ahead() {
                self.connection.begin_head();
            }
            return Poll::Ready(Ok(()));
        };
        for part in head.upgrades {
            buf.filled_mut()[start..][part].fill(b' ');
        }
        self.begin(head.framing, head.last);
        self.cut(buf, start + head.len, head.framing);
        Poll::Ready(Ok(()))
    }

    /// Leaves in `buf` what belongs to the body behind `at`, and keeps the rest.
    fn cut(&mut self, buf: &mut ReadBuf<'_>, at: usize, framing: Framing) {
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
            self.took(length, own);
        }
    }

    /// Counts bytes of a body of which `left` were to come.
    fn took(&mut self, left: u64, bytes: usize) {
        let left = left - bytes as u64;
        match &mut self.reading {
            Reading::Chunks(chunks) if left == 0 => *chunks = Chunks::DataEnd,
            Reading::Chunks(chunks) => *chunks = Chunks::Data(left),
            _ if left == 0 => self.body_ended(),
            reading => *reading = Reading::Body(left),
        }
    }

    /// Reads bytes of a body of which `left` are to come, straight into the library's buffer.
    fn read_data(&mut self, left: u64, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let most = usize::try_from(left).unwrap_or(usize::MAX);
        if !self.ahead.is_empty() {
            let taken = self.ahead.len().min(most);
            self.out = self.ahead.split_to(taken);
            self.took(left, taken);
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
            self.took(left, own);
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
            Step::Done if chunks == Chunks::End => self.body_ended(),
            Step::Done => {}
            // The library takes the body for one that did not come whole, and the handler answers that.
            Step::Malformed => self.reading = Reading::End,
            Step::Partial => {
                if ready!(self.fill(cx))? == 0 {
                    self.reading = Reading::End;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Waits for the answer, and looks at whether the client stays.
    fn read_ahead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.ended && self.ahead.len() < AHEAD {
            ready!(self.fill(cx))?;
        }
        Poll::Pending
    }

    /// The answer was written whole.
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
        // What is here already comes with no event of the socket.
        if !self.ahead.is_empty() || self.ended || matches!(self.reading, Reading::End) {
            cx.waker().wake_by_ref();
        }
    }

    /// Reads and drops until the client ends its side, or its time is over.
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
            if this.serve(buf) {
                return Poll::Ready(Ok(()));
            }
            ready!(match this.reading {
                Reading::Head => this.read_head(cx, buf),
                Reading::Body(left) => this.read_data(left, cx, buf),
                Reading::Chunks(chunks) => this.read_chunks(chunks, cx, buf),
                Reading::Answer => this.read_ahead(cx),
                Reading::End => return Poll::Ready(Ok(())),
            })?;
            // To read nothing means the end: only that may be told so.
            if buf.filled().len() > start {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Stream<T> {
    /// The client reads: its time begins anew.
    fn unblocked(&self) {
        self.connection.progress();
        if self.connection.write_blocked.swap(false, Ordering::Relaxed) {
            self.connection.expired.store(false, Ordering::Relaxed);
        }
    }

    /// The client does not read; an error once its time is over.
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
        // TLS holds bytes of its own.
        match Pin::new(&mut this.io).poll_flush(cx) {
            Poll::Pending => return this.blocked(cx).map(Err),
            Poll::Ready(flushed) => flushed?,
        }
        if this.connection.write_blocked.load(Ordering::Relaxed) {
            this.unblocked();
        }
        // The library flushes when it has written all that it has.
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
