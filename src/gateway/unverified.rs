//! Room for bodies whose signature is not checked yet, which slow clients cannot occupy.
//!
//! While there is room for all, a body has `ESS_BODY_TIMEOUT` to arrive. Once other bodies wait for room, the largest of
//! those that arrive more slowly than a minimum speed is given up.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::bounds::{ROOM_TIMEOUT, UNIT};

/// Minimum speed of a body, in bytes a second.
const MIN_SPEED: u64 = 64 * 1_024;
/// Minimum speed of a large body: this part of its room each second.
const MIN_SPEED_DIVISOR: u64 = 16;
/// Time over which the speed of a body is measured.
const WINDOW: Duration = Duration::from_secs(1);
/// Interval at which a waiting request searches for a body that is too slow.
const SEARCH: Duration = Duration::from_millis(250);

/// A body that is being read.
struct Reader {
    /// Units of room that it holds.
    held: AtomicUsize,
    /// Bytes that arrived.
    received: AtomicU64,
    /// True while it waits for room, during which its speed does not count.
    waits: AtomicBool,
    /// Start of the window, and `received` at that time.
    window: Mutex<(Instant, u64)>,
    given_up: Notify,
}

impl Reader {
    /// True if the speed in the window that ends now is below the minimum; false within the window.
    fn is_slow(&self, now: Instant) -> bool {
        let mut window = lock(&self.window);
        let elapsed = now.saturating_duration_since(window.0);
        if elapsed < WINDOW || self.waits.load(Ordering::Relaxed) {
            return false;
        }
        let received = self.received.load(Ordering::Relaxed);
        let speed = received.saturating_sub(window.1) as f64 / elapsed.as_secs_f64();
        *window = (now, received);
        let held = (self.held.load(Ordering::Relaxed) * UNIT) as u64;
        speed < MIN_SPEED.max(held / MIN_SPEED_DIVISOR) as f64
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Room of all unverified bodies together.
pub(super) struct Unverified {
    units: Arc<Semaphore>,
    all: usize,
    readers: Mutex<BTreeMap<u64, Arc<Reader>>>,
    next: AtomicU64,
}

impl Unverified {
    /// Room of so many units.
    pub fn new(all: usize) -> Arc<Self> {
        let units = Arc::new(Semaphore::new(all));
        Arc::new(Self { units, all, readers: Mutex::default(), next: AtomicU64::new(0) })
    }

    /// A part for another body, empty at first.
    pub fn part(self: &Arc<Self>) -> Part {
        let reader = Arc::new(Reader {
            held: AtomicUsize::new(0),
            received: AtomicU64::new(0),
            waits: AtomicBool::new(false),
            window: Mutex::new((Instant::now(), 0)),
            given_up: Notify::new(),
        });
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        lock(&self.readers).insert(id, reader.clone());
        Part { of: self.clone(), id, reader, permit: None }
    }

    /// Gives up the largest body that is too slow.
    fn give_up_one(&self) {
        let now = Instant::now();
        let readers = lock(&self.readers);
        let held = |reader: &&Arc<Reader>| reader.held.load(Ordering::Relaxed);
        let holding = readers.values().filter(|reader| held(reader) > 0);
        if let Some(slow) = holding.filter(|reader| reader.is_slow(now)).max_by_key(held) {
            slow.given_up.notify_one();
        }
    }
}

/// Room of one body until its signature is checked.
pub(super) struct Part {
    of: Arc<Unverified>,
    id: u64,
    reader: Arc<Reader>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Part {
    /// Waits for `more` units, or as many as exist; false if they are not free within [`ROOM_TIMEOUT`].
    pub async fn grow(&mut self, more: usize) -> bool {
        let held = self.reader.held.load(Ordering::Relaxed);
        let more = more.min(self.of.all.saturating_sub(held));
        let Ok(units) = u32::try_from(more) else { return false };
        self.reader.waits.store(true, Ordering::Relaxed);
        let permit = self.wait(units).await;
        *lock(&self.reader.window) = (Instant::now(), self.reader.received.load(Ordering::Relaxed));
        self.reader.waits.store(false, Ordering::Relaxed);
        let Some(permit) = permit else { return false };
        self.reader.held.fetch_add(more, Ordering::Relaxed);
        match &mut self.permit {
            Some(held) => held.merge(permit),
            None => self.permit = Some(permit),
        }
        true
    }

    async fn wait(&self, units: u32) -> Option<OwnedSemaphorePermit> {
        let mut acquire = std::pin::pin!(self.of.units.clone().acquire_many_owned(units));
        let end = tokio::time::Instant::now() + ROOM_TIMEOUT;
        loop {
            tokio::select! {
                biased;
                permit = &mut acquire => return permit.ok(),
                () = tokio::time::sleep_until(end) => return None,
                () = tokio::time::sleep(SEARCH) => self.of.give_up_one(),
            }
        }
    }

    /// Counts bytes that arrived.
    pub fn received(&self, bytes: usize) {
        self.reader.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Waits until the body is given up.
    pub async fn given_up(&self) {
        self.reader.given_up.notified().await;
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        lock(&self.of.readers).remove(&self.id);
    }
}
