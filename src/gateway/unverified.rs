//! Room for bodies whose signature is not checked yet: nobody holds it by being slow.
//!
//! While there is room for all, a body may take its time (`ESS_BODY_TIMEOUT`). Once others wait, the largest of those
//! that come more slowly than a floor gives its room up.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::body::{ROOM_TIMEOUT, UNIT};

/// The floor, in bytes a second; for a large body, the part of what it holds that must come in a second.
const FLOOR: u64 = 64 * 1_024;
const FLOOR_PART: u64 = 16;
/// The time over which a body's speed is measured.
const WINDOW: Duration = Duration::from_secs(1);
/// Interval at which a waiting request looks for a body that is too slow.
const LOOK: Duration = Duration::from_millis(250);

/// A body on its way.
struct Reader {
    /// Units of room.
    held: AtomicUsize,
    /// Bytes that came.
    received: AtomicU64,
    /// True while it waits for room: it cannot come any faster.
    waits: AtomicBool,
    /// The beginning of the window, and `received` then.
    window: Mutex<(Instant, u64)>,
    ended: Notify,
}

impl Reader {
    /// True if it came more slowly than the floor in the window that ends now; false within the window.
    fn is_slow(&self, now: Instant) -> bool {
        let mut window = lock(&self.window);
        let elapsed = now.saturating_duration_since(window.0);
        if elapsed < WINDOW || self.waits.load(Ordering::Relaxed) {
            return false;
        }
        let received = self.received.load(Ordering::Relaxed);
        let came = received.saturating_sub(window.1) as f64 / elapsed.as_secs_f64();
        *window = (now, received);
        let held = (self.held.load(Ordering::Relaxed) * UNIT) as u64;
        came < FLOOR.max(held / FLOOR_PART) as f64
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The room of all of them together.
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

    /// A body's part, empty at first.
    pub fn part(self: &Arc<Self>) -> Part {
        let reader = Arc::new(Reader {
            held: AtomicUsize::new(0),
            received: AtomicU64::new(0),
            waits: AtomicBool::new(false),
            window: Mutex::new((Instant::now(), 0)),
            ended: Notify::new(),
        });
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        lock(&self.readers).insert(id, reader.clone());
        Part { of: self.clone(), id, reader, permit: None }
    }

    /// Ends the largest body that is too slow.
    fn end_the_slowest(&self) {
        let now = Instant::now();
        let readers = lock(&self.readers);
        let held = |reader: &&Arc<Reader>| reader.held.load(Ordering::Relaxed);
        let holding = readers.values().filter(|reader| held(reader) > 0);
        if let Some(slow) = holding.filter(|reader| reader.is_slow(now)).max_by_key(held) {
            slow.ended.notify_one();
        }
    }
}

/// Bytes that one body holds until its signature is checked.
pub(super) struct Part {
    of: Arc<Unverified>,
    id: u64,
    reader: Arc<Reader>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Part {
    /// Waits for so many units more, but never for more than there are; false if they do not come in time.
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
                () = tokio::time::sleep(LOOK) => self.of.end_the_slowest(),
            }
        }
    }

    /// So many bytes came.
    pub fn received(&self, bytes: usize) {
        self.reader.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Waits until the body has to give its room up.
    pub async fn ended(&self) {
        self.reader.ended.notified().await;
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        lock(&self.of.readers).remove(&self.id);
    }
}
