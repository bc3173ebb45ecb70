//! The end of a connection: bytes that the client still sends are read and dropped.
//!
//! Closing with unread bytes would reset the connection, and the client might lose the answer (RFC 9112, 9.6).

use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, ReadBuf};

/// Bytes of one read.
const SCRATCH: usize = 4 << 10;
/// Time for a client to close its side after the last answer, whatever it sends.
const LINGER: Duration = Duration::from_millis(1_500);
/// Time for a client that still sends a body of declared length: many read the answer only after their body.
const LINGER_SENDING: Duration = Duration::from_secs(30);
/// Minimum rate of such a client, in bytes per second.
const SENDING_RATE: u64 = 64 << 10;

/// The last phase of a connection.
pub(super) struct Linger {
    began: Instant,
    /// Bytes that were dropped.
    dropped: u64,
    /// Bytes of a body of declared length that were missing when the connection ended.
    unread: Option<u64>,
}

impl Linger {
    pub fn new(unread: Option<u64>) -> Self {
        Self { began: Instant::now(), dropped: 0, unread }
    }

    /// Reads and drops bytes until the client closes its side or its time is over.
    pub fn poll(&mut self, mut io: Pin<&mut impl AsyncRead>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let waited = self.began.elapsed();
            let sends = self.unread.is_some_and(|left| self.dropped < left)
                && self.dropped > waited.as_secs() * SENDING_RATE
                && waited < LINGER_SENDING;
            if waited > LINGER && !sends {
                return Poll::Ready(());
            }
            let mut scratch = [const { MaybeUninit::uninit() }; SCRATCH];
            let mut scratch = ReadBuf::uninit(&mut scratch);
            match io.as_mut().poll_read(cx, &mut scratch) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) if !scratch.filled().is_empty() => {
                    self.dropped += scratch.filled().len() as u64;
                }
                Poll::Ready(_) => return Poll::Ready(()),
            }
        }
    }
}
