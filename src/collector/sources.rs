//! The sources that a collector has started.

use std::sync::{Mutex, PoisonError};

use super::shared::Shared;
use super::source::{Started, start};
use crate::event::Source;

/// The sources of a collector.
pub(super) struct Sources {
    pub shared: Shared,
    /// Each with what has to end before the collector ends.
    started: Mutex<Vec<Started>>,
}

impl Sources {
    pub fn new(shared: Shared) -> Self {
        Self { shared, started: Mutex::default() }
    }

    /// Starts a source, unless it was started before.
    pub fn add(&self, source: Source) {
        let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        if !started.iter().any(|known| known.source == source) {
            if self.shared.single.is_none() {
                tracing::info!(%source, "collecting this source");
            }
            started.push(start(&self.shared, source));
        }
    }

    /// Waits until no source has work; gives the number of frames that were stored.
    pub async fn finished(&self) -> u64 {
        let mut frames = 0;
        loop {
            let next = self.started.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some(source) = next else { return frames };
            frames += source.finished().await;
        }
    }
}
