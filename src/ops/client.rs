//! Noticing that a client has left while it waits for its answer.
//!
//! actix-web looks at a connection again when the answer is there. Work that is long, and that nobody else
//! needs, wants to know before: it asks the connection's socket, which a client that is gone has closed. A
//! client that closes its sending side alone counts as gone, as it does elsewhere.

use std::any::Any;
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::dev::Extensions;

/// How often the socket is asked.
const LOOK: Duration = Duration::from_millis(250);

/// A connection's socket.
#[derive(Clone)]
struct Socket(Arc<std::net::TcpStream>);

/// Remembers a new connection's socket for its requests.
pub(super) fn remember(connection: &dyn Any, data: &mut Extensions) {
    if let Some(stream) = connection.downcast_ref::<actix_web::rt::net::TcpStream>()
        && let Ok(socket) = stream.as_fd().try_clone_to_owned()
    {
        data.insert(Socket(Arc::new(socket.into())));
    }
}

/// Ends when the client of a request has left; never, where that cannot be known.
pub async fn left(request: &HttpRequest) {
    let Some(Socket(socket)) = request.conn_data::<Socket>().cloned() else {
        return std::future::pending().await;
    };
    loop {
        tokio::time::sleep(LOOK).await;
        // The socket does not block. What a client sent ahead is not an end.
        match socket.peek(&mut [0]) {
            Ok(0) => return,
            Err(error) if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return,
            _ => {}
        }
    }
}
