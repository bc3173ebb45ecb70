//! A service's listener: its sockets, TLS, and the HTTP library behind [`Stream`].

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
use super::tls;
use crate::config::HttpSettings;

/// Connections that wait to be taken.
const BACKLOG: i32 = 2_048;
/// Bytes of an answer that the kernel holds beyond what is on its way. So little that a client that reads, however
/// slowly, is seen to read.
const UNSENT: u32 = 128 << 10;

/// Settings of a socket that was taken. One that is closed already tells so when it is read.
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

/// The HTTP library on streams of ours. Its timers are off: the sweeper of connections has them all.
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

/// Starts a listener that serves an application. The error names the address that could not be bound, or the file
/// that is wrong.
pub(super) fn listen<F, I, S, B>(
    settings: &HttpSettings,
    (name, port): (&'static str, u16),
    workers: usize,
    gauge: &IntGauge,
    application: F,
) -> Result<(Server, SocketAddr), String>
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
    let why = |error: std::io::Error| format!("{name}: cannot listen on {address}: {error}");
    let socket = bind(address).map_err(why)?;
    let bound = socket.local_addr().map_err(why)?;
    let limits = Limits { head: settings.head_timeout, idle: settings.idle_timeout };
    let connections = Connections::new(limits, gauge.clone());
    let max_head = settings.max_header;
    let builder = ServerBuilder::new()
        .workers(workers)
        .max_concurrent_connections(settings.max_connections.div_ceil(workers))
        // Requests are waited for before the listener is stopped; what is left then is idle.
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
            let mut tls = tls::listening(identity)?;
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
    Ok((builder.map_err(why)?.run(), bound))
}
