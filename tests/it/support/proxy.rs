//! A TCP proxy that can cut and delay connections.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[derive(Clone)]
pub struct Proxy {
    pub port: u16,
    target: Arc<AtomicU16>,
    connections: Arc<Mutex<Vec<TcpStream>>>,
    delay_ms: Arc<AtomicU64>,
}

impl Proxy {
    /// A proxy to a port on this machine; its threads end with the test's process.
    pub fn to(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let target = Arc::new(AtomicU16::new(target));
        let proxy = Self { port, target, connections: Arc::default(), delay_ms: Arc::default() };
        let accepting = proxy.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                match TcpStream::connect(("127.0.0.1", accepting.target.load(Ordering::Relaxed))) {
                    Ok(server) => accepting.join(client, server),
                    Err(_) => drop(client.shutdown(Shutdown::Both)),
                }
            }
        });
        proxy
    }

    fn join(&self, client: TcpStream, server: TcpStream) {
        // Nagle's algorithm would add to the delay.
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        for (mut from, mut to) in [
            (client.try_clone().unwrap(), server.try_clone().unwrap()),
            (server.try_clone().unwrap(), client.try_clone().unwrap()),
        ] {
            let delay = self.delay_ms.clone();
            std::thread::spawn(move || {
                let mut chunk = vec![0; 64 * 1024];
                while let Ok(length @ 1..) = from.read(&mut chunk) {
                    std::thread::sleep(Duration::from_millis(delay.load(Ordering::Relaxed)));
                    if to.write_all(&chunk[..length]).is_err() {
                        break;
                    }
                }
                let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
            });
        }
        self.connections.lock().unwrap().extend([client, server]);
    }

    /// Directs new connections to another port.
    pub fn lead_to(&self, target: u16) {
        self.target.store(target, Ordering::Relaxed);
    }

    /// Closes all connections; new ones are accepted.
    pub fn cut(&self) {
        for connection in self.connections.lock().unwrap().drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    /// Delays each chunk by `time`.
    pub fn delay(&self, time: Duration) {
        self.delay_ms.store(time.as_millis() as u64, Ordering::Relaxed);
    }
}
