//! Maximum events of a transaction. It adapts to a database that ends statements that take too long.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Maximum events of one transaction. Larger ones cost less per row, until they no longer fit the processor's caches;
/// smaller ones wait less.
pub(super) const BATCH_EVENTS: usize = 8_000;

/// Maximum events of one transaction and of one statement: [`BATCH_EVENTS`] at most, and 1 at least.
#[derive(Clone)]
pub struct BatchLimit(Arc<AtomicUsize>);

impl Default for BatchLimit {
    fn default() -> Self {
        Self(Arc::new(AtomicUsize::new(BATCH_EVENTS)))
    }
}

impl BatchLimit {
    /// The limit now.
    pub fn events(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Sets the limit to half of a batch that took too long.
    pub fn shrink(&self, events: usize) {
        self.0.store((events.min(self.events()) / 2).max(1), Ordering::Relaxed);
    }

    /// Raises the limit by a quarter after a batch that was written.
    pub fn grow(&self) {
        let events = self.events();
        if events < BATCH_EVENTS {
            self.0.store((events + events / 4 + 1).min(BATCH_EVENTS), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_halves_down_to_one_event_and_grows_back() {
        let limit = BatchLimit::default();
        limit.grow();
        assert_eq!(limit.events(), BATCH_EVENTS, "never above it");
        limit.shrink(100);
        assert_eq!(limit.events(), 50, "half of what took too long");
        limit.shrink(BATCH_EVENTS);
        assert_eq!(limit.events(), 25, "or of the limit, if that is less");
        for _ in 0..20 {
            limit.shrink(limit.events());
        }
        assert_eq!(limit.events(), 1);
        for _ in 0..100 {
            limit.grow();
        }
        assert_eq!(limit.events(), BATCH_EVENTS);
    }
}
