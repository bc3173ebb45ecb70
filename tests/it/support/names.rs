//! A name server that answers every name with the same IPv4 addresses, as Docker's does for the instances of a service.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// Length of a message's header (RFC 1035, section 4.1.1).
const HEADER: usize = 12;
/// Type and class of an IPv4 address.
const ADDRESS: [u8; 4] = [0, 1, 0, 1];

pub struct Names {
    pub port: u16,
    addresses: Arc<Mutex<Vec<Ipv4Addr>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Names {
    pub fn start(addresses: &[Ipv4Addr]) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let port = socket.local_addr().unwrap().port();
        let addresses = Arc::new(Mutex::new(addresses.to_vec()));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (addresses, stop) = (addresses.clone(), stop.clone());
            move || {
                let mut message = [0; 1_500];
                while !stop.load(Ordering::Relaxed) {
                    let Ok((length, client)) = socket.recv_from(&mut message) else { continue };
                    if let Some(answer) = answer(&message[..length], &addresses.lock().unwrap()) {
                        let _ = socket.send_to(&answer, client);
                    }
                }
            }
        });
        Self { port, addresses, stop, thread: Some(thread) }
    }

    /// Replaces the addresses.
    pub fn set(&self, addresses: &[Ipv4Addr]) {
        *self.addresses.lock().unwrap() = addresses.to_vec();
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The answer to a query: the addresses for an IPv4 query, none for others.
fn answer(query: &[u8], addresses: &[Ipv4Addr]) -> Option<Vec<u8>> {
    let name = query.get(HEADER..)?.iter().position(|length| *length == 0)?;
    let question = query.get(HEADER..HEADER + name + 5)?;
    let addresses = if question.ends_with(&ADDRESS) { addresses } else { &[] };
    let mut answer = query[..2].to_vec();
    // A response that is authoritative and recursive, without an error: one question, these answers.
    answer.extend([0x85, 0x80, 0, 1, 0, addresses.len() as u8, 0, 0, 0, 0]);
    answer.extend(question);
    for address in addresses {
        // The question's name by a pointer, one second to live, four bytes.
        answer.extend([0xc0, HEADER as u8]);
        answer.extend(ADDRESS);
        answer.extend([0, 0, 0, 1, 0, 4]);
        answer.extend(address.octets());
    }
    Some(answer)
}
