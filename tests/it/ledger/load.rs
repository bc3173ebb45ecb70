//! Clients that post events until they are told to stop.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::support::events::simple;
use crate::support::{MINUTE, eventually, http};

/// Posts batches from several clients until it is told to stop, and records the events that are answered 202, with the
/// round in which they were.
pub struct Load {
    next: AtomicU64,
    pub round: AtomicU64,
    stop: AtomicBool,
    pub accepted: Mutex<Vec<(u64, String)>>,
}

impl Load {
    pub fn new() -> Self {
        let (next, round, stop) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
        Self { next, round, stop, accepted: Mutex::default() }
    }

    fn client(&self, url: &str, sources: &[&str], size: usize) {
        while !self.stop.load(Ordering::Relaxed) {
            let round = self.round.load(Ordering::Relaxed);
            let ids: Vec<String> =
                (0..size).map(|_| format!("l-{}", self.next.fetch_add(1, Ordering::Relaxed))).collect();
            let events: Vec<_> =
                ids.iter().zip(sources.iter().cycle()).map(|(id, source)| simple(id, source)).collect();
            match http::post(url, &serde_json::Value::from(events).to_string()) {
                Ok(answer) if answer.status == 202 => {
                    self.accepted.lock().unwrap().extend(ids.into_iter().map(|id| (round, id)));
                }
                _ => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// Clients post batches of `size` events while `meanwhile` runs.
    pub fn run(
        &self,
        url: &str,
        sources: &[&str],
        (clients, size): (usize, usize),
        meanwhile: impl FnOnce(),
    ) {
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        std::thread::scope(|scope| {
            let _stop = Stop(&self.stop);
            (0..clients).for_each(|_| drop(scope.spawn(|| self.client(url, sources, size))));
            meanwhile();
        });
    }

    /// Events that were answered 202 in a round.
    pub fn accepted(&self, round: u64) -> usize {
        self.accepted.lock().unwrap().iter().filter(|(of, _)| *of == round).count()
    }

    /// Waits until so many events more were answered 202.
    pub fn wait(&self, events: usize) {
        let before = self.accepted.lock().unwrap().len();
        eventually("events are accepted", MINUTE, || {
            (self.accepted.lock().unwrap().len() >= before + events).then_some(())
        });
    }
}
