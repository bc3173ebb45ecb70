//! Keeps lines that come with every request from filling the log.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Lets so many through in each second.
#[derive(Debug)]
pub struct Sampler {
    started: Instant,
    most: u64,
    /// The second (high half) and how many it had (low half).
    state: AtomicU64,
}

impl Sampler {
    /// Lets `most` through in each second.
    pub fn per_second(most: u32) -> Self {
        Self { started: Instant::now(), most: u64::from(most), state: AtomicU64::new(0) }
    }

    /// Whether this one may pass.
    pub fn pass(&self) -> bool {
        let second = (self.started.elapsed().as_secs() & 0xffff_ffff) << 32;
        let next = |state: u64| if state & !0xffff_ffff == second { state + 1 } else { second + 1 };
        let before = self.state.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |state| Some(next(state)));
        before.is_ok_and(|before| next(before) & 0xffff_ffff <= self.most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lets_so_many_through() {
        let sampler = Sampler::per_second(3);
        assert_eq!((0..100).filter(|_| sampler.pass()).count(), 3);
    }
}
