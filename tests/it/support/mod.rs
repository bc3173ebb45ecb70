//! Fixtures of the tests: servers, the `ess` binary, an HTTP client, and events.

pub mod actors;
pub mod browser;
pub mod events;
pub mod haproxy;
pub mod http;
pub mod names;
pub mod nats;
pub mod otlp;
pub mod pgbouncer;
pub mod platforms;
pub mod postgres;
pub mod process;
pub mod proxy;
pub mod stores;
pub mod stream_backup;
pub mod system;
pub mod terminal;

use std::net::TcpListener;
use std::time::{Duration, Instant};

/// A free port, below the range of ephemeral ports: no outgoing connection takes it before the server starts.
pub fn free_port() -> u16 {
    loop {
        let port = 10_000 + (uuid::Uuid::new_v4().as_u128() % 22_000) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Waits until `check` returns a value; panics with `what` after `within`.
pub fn eventually<T>(what: &str, within: Duration, mut check: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(started.elapsed() < within, "{what}: not within {within:?}");
        std::thread::sleep(Duration::from_millis(25));
    }
}

/// Runs a future on a runtime of the kind that the services use.
pub fn block_on<T>(work: impl Future<Output = T>) -> T {
    actix::System::new().block_on(work)
}

pub const MINUTE: Duration = Duration::from_secs(60);

/// A program that `./test` installs.
pub fn tool(name: &str) -> std::path::PathBuf {
    let tools = std::env::var_os("ESS_TEST_TOOLS").map_or_else(
        || std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/tools"),
        std::path::PathBuf::from,
    );
    let path = tools.join(name);
    assert!(path.exists(), "{} is missing: ./test installs it", path.display());
    path
}
