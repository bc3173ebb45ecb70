//! A rate limit for log lines that each request may cause.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Limit of log lines per second.
#[derive(Debug)]
pub struct Sampler {
    started: Instant,
    most: u64,
    /// The current second (high 32 bits) and its number of lines (low 32 bits).
    state: AtomicU64,
}

impl Sampler {
    /// A limit of `most` lines per second.
    pub fn per_second(most: u32) -> Self {
        Self { started: Instant::now(), most: u64::from(most), state: AtomicU64::new(0) }
    }

    /// True if this line is within the limit of the current second.
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
    fn lines_beyond_the_limit_of_a_second_are_dropped() {
        let sampler = Sampler::per_second(3);
        assert_eq!((0..100).filter(|_| sampler.pass()).count(), 3);
    }
}
