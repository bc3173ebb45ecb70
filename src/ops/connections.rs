//! Connections that are open, as long as somebody uses them.
//!
//! The HTTP library gives the first head of a connection its time, and none to those after it: whoever begins a
//! second request and stops would hold a connection for ever. So a connection on which no request is answered for a
//! while is ended here, by its socket.
//!
//! The socket also tells when a client has left while it waits. actix-web looks at a connection again when the
//! answer is there; work that is long, and that nobody else needs, wants to know before. A client that closes its
//! sending side alone counts as gone, as it does elsewhere.

use std::any::Any;
use std::io::ErrorKind;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use actix_tls::accept::rustls_0_23::TlsStream;
use actix_web::HttpRequest;
use actix_web::dev::Extensions;
use prometheus::IntGauge;

/// How often a socket is asked whether its client is there.
const LOOK: Duration = Duration::from_millis(250);
/// How often connections are looked at, at most and at least.
const SWEEP: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// One that is open.
struct Connection {
    socket: Option<TcpStream>,
    /// Whether bytes on the socket are the client's own, and not TLS's.
    plain: bool,
    /// Requests that are being answered.
    requests: AtomicUsize,
    /// When the last one was, in milliseconds since the first connection of all.
    rests_since: AtomicU64,
    gauge: IntGauge,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

/// A connection as its requests know it.
#[derive(Clone)]
struct Handle(Arc<Connection>, Instant);

/// All that are open.
pub(super) struct Connections {
    open: Mutex<Vec<Weak<Connection>>>,
    began: Instant,
    idle: Duration,
    gauge: IntGauge,
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Connections {
    /// Ends those that rest for longer than this, as long as there is a listener.
    pub fn new(idle: Duration, gauge: IntGauge) -> Arc<Self> {
        let connections = Arc::new(Self { open: Mutex::default(), began: Instant::now(), idle, gauge });
        let known = Arc::downgrade(&connections);
        tokio::spawn(async move {
            let pause = (idle / 4).clamp(SWEEP.0, SWEEP.1);
            while let Some(connections) = known.upgrade() {
                connections.sweep();
                drop(connections);
                tokio::time::sleep(pause).await;
            }
        });
        connections
    }

    /// Remembers a new connection for its requests.
    pub fn remember(&self, connection: &dyn Any, data: &mut Extensions) {
        let tls = connection.downcast_ref::<TlsStream<actix_web::rt::net::TcpStream>>();
        let plain = connection.downcast_ref::<actix_web::rt::net::TcpStream>();
        let stream = plain.or_else(|| tls.map(|stream| stream.get_ref().0));
        let socket = stream.and_then(|stream| stream.as_fd().try_clone_to_owned().ok()).map(TcpStream::from);
        self.gauge.inc();
        let connection = Arc::new(Connection {
            socket,
            plain: plain.is_some(),
            requests: AtomicUsize::new(0),
            rests_since: AtomicU64::new(millis(self.began.elapsed())),
            gauge: self.gauge.clone(),
        });
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.push(Arc::downgrade(&connection));
        data.insert(Handle(connection, self.began));
    }

    fn sweep(&self) {
        let now = self.began.elapsed();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|connection| {
            let Some(connection) = connection.upgrade() else { return false };
            let rests =
                now.saturating_sub(Duration::from_millis(connection.rests_since.load(Ordering::Relaxed)));
            if connection.requests.load(Ordering::Relaxed) == 0
                && rests > self.idle
                && let Some(socket) = &connection.socket
            {
                // It may be closed already.
                let _ = socket.shutdown(Shutdown::Both);
            }
            true
        });
    }
}

/// Counts a request of a connection until what is given is dropped.
pub(super) fn enter(request: &HttpRequest) -> Option<impl Drop + use<>> {
    struct Entered(Handle);
    impl Drop for Entered {
        fn drop(&mut self) {
            let Handle(connection, began) = &self.0;
            connection.rests_since.store(millis(began.elapsed()), Ordering::Relaxed);
            connection.requests.fetch_sub(1, Ordering::Relaxed);
        }
    }
    let handle = request.conn_data::<Handle>()?.clone();
    handle.0.requests.fetch_add(1, Ordering::Relaxed);
    Some(Entered(handle))
}

/// Ends when the client of a request has left; never, where that cannot be known (TLS).
pub async fn left(request: &HttpRequest) {
    let Some(Handle(connection, _)) = request.conn_data::<Handle>().filter(|handle| handle.0.plain).cloned()
    else {
        return std::future::pending().await;
    };
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(socket) = &connection.socket else { continue };
        // The socket does not block. What a client sent ahead is not an end.
        match socket.peek(&mut [0]) {
            Ok(0) => return,
            Err(error) if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return,
            _ => {}
        }
    }
}
