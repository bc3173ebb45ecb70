//! The connection to NATS: servers, credentials and reconnection.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_nats::{Client, ConnectOptions, Event, ReconnectToServer, Server, ServerAddr};
use tokio::sync::watch;
use uuid::Uuid;

use super::request::{REQUEST_TIMEOUT, unavailable};
use crate::config::NatsAccess;
use crate::log::LogError;

/// Time for which the start waits for the first connection.
const FIRST_CONNECT: Duration = Duration::from_secs(1);
/// Time limit of one attempt to connect, with handshakes.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Time without data from the server after which it is pinged. The client disconnects after three unanswered pings,
/// 1.5 s.
const PING_INTERVAL: Duration = Duration::from_millis(500);
/// The oldest version of NATS that answers duplicate messages correctly in a cluster.
const LEAST_VERSION: (i64, i64, i64) = (2, 11, 0);

/// The servers of a comma-separated list.
fn servers(urls: &str) -> Result<Vec<ServerAddr>, LogError> {
    urls.split(',').map(|url| url.trim().parse().map_err(unavailable)).collect()
}

/// User and password, or a token, of the first server whose URL has them.
fn access_of(servers: &[ServerAddr]) -> Option<(String, Option<String>)> {
    let plain = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
    let server = servers.iter().find(|server| server.username().is_some())?;
    Some((plain(server.username()?), server.password().map(plain)))
}

/// Options of the client with credentials, certificates and authorities.
async fn options(servers: &[ServerAddr], access: &NatsAccess) -> Result<ConnectOptions, LogError> {
    let mut options = match &access.credentials {
        Some(path) => ConnectOptions::with_credentials_file(path)
            .await
            .map_err(|error| unavailable(format!("{}: {error}", path.display())))?,
        // The library ignores credentials in URLs.
        None => match access_of(servers) {
            Some((user, Some(password))) => ConnectOptions::with_user_and_password(user, password),
            Some((token, None)) => ConnectOptions::with_token(token),
            None => ConnectOptions::new(),
        },
    };
    if let Some(path) = &access.authorities {
        options = options.add_root_certificates(path.clone());
    }
    if let Some(identity) = &access.identity {
        // Without this, a server could ask for a connection without TLS.
        options = options
            .add_client_certificate(identity.certificate.clone(), identity.key.clone())
            .require_tls(true);
    } else if servers.iter().any(|server| server.tls_required()) {
        // Servers that the cluster announces have no scheme; credentials must not be sent to them without TLS.
        options = options.require_tls(true);
    }
    Ok(options)
}

/// Chooses the server of the next attempt to connect.
#[derive(Default)]
struct NextServer {
    last: Mutex<Option<ServerAddr>>,
}

impl NextServer {
    /// Avoids the last server, which may hang or be gone; of the others, a random one with the fewest failures.
    fn choose(&self, servers: &[Server]) -> Option<ReconnectToServer> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let rank =
            |server: &&Server| (last.as_ref() == Some(&server.addr), server.failed_attempts, Uuid::new_v4());
        let addr = servers.iter().min_by_key(rank)?.addr.clone();
        *last = Some(addr.clone());
        Some(ReconnectToServer { addr, delay: None })
    }
}

/// A client of NATS, and a counter that changes with each connection and disconnection. If no server answers, the
/// client connects in the background.
pub(super) async fn connect(
    urls: &str,
    name: &str,
    access: &NatsAccess,
) -> Result<(Client, watch::Receiver<u64>), LogError> {
    let servers = servers(urls)?;
    let (connections, connection) = watch::channel(0);
    let next = NextServer::default();
    let client = options(&servers, access)
        .await?
        .event_callback(move |event| {
            if matches!(event, Event::Connected | Event::Disconnected) {
                connections.send_modify(|count| *count += 1);
            }
            std::future::ready(())
        })
        .name(name)
        .retry_on_initial_connect()
        .max_reconnects(None)
        .reconnect_to_server_callback(move |servers, _| std::future::ready(next.choose(&servers)))
        .reconnect_delay_callback(|attempt| {
            Duration::from_millis((50 * attempt.saturating_sub(1) as u64).min(1_000))
        })
        .ping_interval(PING_INTERVAL)
        .connection_timeout(CONNECT_TIMEOUT)
        .request_timeout(Some(REQUEST_TIMEOUT))
        .connect(servers)
        .await
        .map_err(unavailable)?;
    let mut first = connection.clone();
    let waited = tokio::time::timeout(FIRST_CONNECT, first.wait_for(|count| *count > 0)).await;
    if waited.is_err() {
        tracing::warn!(
            url = crate::config::hide_password(urls),
            "NATS does not answer; connecting in the background"
        );
    }
    Ok((client, connection))
}

/// A warning if the server is older than [`LEAST_VERSION`]; `None` if it is not, or its version is unknown.
pub(super) fn too_old(client: &Client) -> Option<String> {
    let version = client.try_server_info()?.version;
    let (major, minor, patch) = LEAST_VERSION;
    (!client.is_server_compatible(major, minor, patch)).then(|| {
        format!(
            "NATS {version} is older than {major}.{minor}: in a cluster it may answer duplicate frames wrongly, and \
             these are sent until they are confirmed"
        )
    })
}
