//! Cost of the live feed: CPU time an event at 50,000 events a second, without viewers and with some.

use std::io::{BufRead, BufReader};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use crate::machine::{Machine, Sent, Usage, publish};
use crate::support::MINUTE;
use crate::{Line, line};

const VIEWERS: usize = 5;
/// Pairs of rounds, without viewers and with them. The two take turns, so that what else the machine does falls on both.
const PAIRS: usize = 3;
const LOAD: [&str; 6] = ["--batch", "50000", "--rate", "50000", "--duration", "20s"];

/// Viewers of `/live`, each reading all that it is sent until it is stopped.
struct Viewers {
    stop: Arc<AtomicBool>,
    bytes: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Viewers {
    fn look(url: &str) -> Self {
        let (stop, bytes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let view = |_| {
            let (url, stop, bytes) = (url.to_owned(), stop.clone(), bytes.clone());
            std::thread::spawn(move || {
                let agent: ureq::Agent =
                    ureq::Agent::config_builder().timeout_recv_body(Some(MINUTE * 10)).build().into();
                let mut feed = BufReader::new(agent.get(&url).call().unwrap().into_body().into_reader());
                let mut line = String::new();
                while !stop.load(Ordering::Relaxed) && feed.read_line(&mut line).is_ok_and(|read| read > 0) {
                    bytes.fetch_add(line.len() as u64, Ordering::Relaxed);
                    line.clear();
                }
            })
        };
        let threads = (0..VIEWERS).map(view).collect();
        Self { stop, bytes, threads }
    }

    /// Ends the viewers; gives the bytes that they have read.
    fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        // Each ends at its next line, a second later at most.
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
        self.bytes.load(Ordering::Relaxed)
    }
}

/// One round: its result, and the CPU time used until everything is stored.
fn round(machine: &Machine) -> (Sent, Usage) {
    let before = machine.usage();
    let sent = publish(&machine.gateway(), &LOAD);
    machine.settle(MINUTE * 2);
    (sent, machine.usage().since(&before))
}

pub fn viewers() -> Vec<Line> {
    let machine = Machine::start(&[]);
    // The first round fills caches and tables, and counts for neither side.
    let mut all = round(&machine).0.accepted;
    let (mut plain, mut viewed) = (Vec::new(), Vec::new());
    let (mut read, mut last) = (0, String::new());
    for _ in 0..PAIRS {
        let (sent, used) = round(&machine);
        plain.push(used.all() * 1e6 / sent.accepted as f64);
        all += sent.accepted;
        let looking = Viewers::look(&machine.reporter("/live"));
        let (sent, used) = round(&machine);
        read += looking.end();
        viewed.push(used.all() * 1e6 / sent.accepted as f64);
        last = used.per_event(sent.accepted);
        all += sent.accepted;
    }
    machine.check(all);
    assert!(read > 100_000, "the viewers have read {read} bytes");
    let best = |rounds: &[f64]| rounds.iter().copied().fold(f64::INFINITY, f64::min);
    let (plain, viewed) = (best(&plain), best(&viewed));
    vec![
        line(
            "CPU µs an event at 50,000/s, without viewers of /live and with 5",
            format!("{plain:.2} and {viewed:.2}, {:+.1} %", (viewed / plain - 1.0) * 100.0),
            format!("best of {PAIRS} rounds each; at most 2 %"),
        ),
        line("the last round with viewers", last, format!("{:.1} MB read by them", read as f64 / 1e6)),
    ]
}
