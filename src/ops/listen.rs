//! The listener of a service: socket, TLS, and the HTTP library, which reads and writes through [`Stream`].

use std::fmt::Debug;
use std::future::ready;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use actix_http::error::DispatchError;
use actix_http::{HttpService, KeepAlive, Request, Response};
use actix_server::{GracefulShutdownSignal, Server, ServerBuilder};
use actix_service::{IntoServiceFactory, Service, ServiceFactory, ServiceFactoryExt, fn_service, map_config};
use actix_tls::accept::TlsError;
use actix_tls::accept::rustls_0_23::{Acceptor, TlsStream};
use actix_web::body::MessageBody;
use actix_web::dev::{AppConfig, Extensions};
use actix_web::rt::net::TcpStream;
use prometheus::IntGauge;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite};

use super::connections::{Connections, Handle, Limits};
use super::stream::Stream;
use super::tls::{self, TlsConfigError};
use crate::config::HttpSettings;

/// Connections that the kernel queues until they are accepted.
const BACKLOG: i32 = 2_048;
/// Bytes of an answer that the kernel buffers beyond the TCP window (TCP_NOTSENT_LOWAT). The limit is low so that a
/// slow reader drains it, and its progress is seen, within the idle timeout.
const UNSENT: u32 = 128 << 10;

/// Sets the options of an accepted socket. A failure means that it is closed, which the next read reports.
fn tune(socket: &TcpStream) {
    let _ = socket.set_nodelay(true);
    let _ = SockRef::from(socket).set_tcp_notsent_lowat(UNSENT);
}

fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// The HTTP library over [`Stream`]. Its timers are off; [`Connections`] enforces all timeouts.
fn http<T, S, B>(
    application: S,
    signal: GracefulShutdownSignal,
) -> impl ServiceFactory<
    (Stream<T>, Option<SocketAddr>),
    Config = (),
    Response = (),
    Error = DispatchError,
    InitError = (),
>
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
    S: ServiceFactory<Request, Config = AppConfig> + 'static,
    S::Error: Into<actix_web::Error> + 'static,
    S::InitError: Debug,
    S::Response: Into<Response<B>> + 'static,
    <S::Service as Service<Request>>::Future: 'static,
    S::Service: 'static,
    B: MessageBody + 'static,
{
    let application = application.map_err(|error| error.into().error_response());
    HttpService::build()
        .graceful_shutdown_signal(move || {
            let signal = signal.clone();
            async move { signal.notified().await }
        })
        .keep_alive(KeepAlive::Os)
        .client_request_timeout(Duration::ZERO)
        .client_disconnect_timeout(Duration::ZERO)
        .on_connect_ext(|stream: &Stream<T>, data: &mut Extensions| {
            data.insert(Handle(stream.connection().clone()));
        })
        .h1(map_config(application, |()| AppConfig::default()))
}

/// Error of starting a listener.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address cannot be bound, or no thread can be started.
    #[error("{service}: cannot listen on {address}: {source}")]
    Address {
        /// The service.
        service: &'static str,
        /// The address.
        address: SocketAddr,
        /// The fault.
        source: std::io::Error,
    },
    /// The certificate or its key cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsConfigError),
}

/// Starts a listener that serves an application; returns its address too, because the port may be 0.
///
/// # Errors
///
/// If the address cannot be bound, or a file of the TLS identity cannot be used.
pub(super) fn listen<F, I, S, B>(
    settings: &HttpSettings,
    (name, port): (&'static str, u16),
    workers: usize,
    gauge: &IntGauge,
    application: F,
) -> Result<(Server, SocketAddr), ListenError>
where
    F: Fn() -> I + Clone + Send + 'static,
    I: IntoServiceFactory<S, Request>,
    S: ServiceFactory<Request, Config = AppConfig> + 'static,
    S::Error: Into<actix_web::Error> + 'static,
    S::InitError: Debug,
    S::Response: Into<Response<B>> + 'static,
    <S::Service as Service<Request>>::Future: 'static,
    S::Service: 'static,
    B: MessageBody + 'static,
{
    let address = SocketAddr::from((settings.listen, port));
    let at_address = |source| ListenError::Address { service: name, address, source };
    let socket = bind(address).map_err(at_address)?;
    let bound = socket.local_addr().map_err(at_address)?;
    let limits = Limits { head: settings.head_timeout, idle: settings.idle_timeout };
    let connections = Connections::new(limits, gauge.clone());
    let max_head = settings.max_header;
    let builder = ServerBuilder::new()
        .workers(workers)
        .max_concurrent_connections(settings.max_connections.div_ceil(workers))
        // The drain waits for all requests before it stops the listener; the connections left are idle.
        .shutdown_timeout(1)
        .disable_signals();
    let signal = builder.graceful_shutdown_signal();
    let builder = match &settings.tls {
        None => builder.listen(name, socket, move || {
            let connections = connections.clone();
            fn_service(move |socket: TcpStream| {
                tune(&socket);
                ready(Ok::<_, DispatchError>((Stream::new(socket, connections.open(), max_head), None)))
            })
            .and_then(http(application().into_factory(), signal.clone()))
        }),
        Some(identity) => {
            let mut tls = tls::server_config(identity)?;
            tls.alpn_protocols = vec![b"http/1.1".to_vec()];
            builder.listen(name, socket, move || {
                let connections = connections.clone();
                Acceptor::new(tls.clone())
                    .map_init_err(|_| ())
                    .map_err(TlsError::into_service_error)
                    .map(move |socket: TlsStream<TcpStream>| {
                        tune(socket.get_ref().0);
                        (Stream::new(socket, connections.open(), max_head), None)
                    })
                    .and_then(http(application().into_factory(), signal.clone()).map_err(TlsError::Service))
            })
        }
    };
    Ok((builder.map_err(at_address)?.run(), bound))
}
