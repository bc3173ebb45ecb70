//! Phases in which a service comes to its end.

use std::time::{Duration, Instant};

use tokio::sync::watch;

/// Phase of a service's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Normal service.
    Running,
    /// Normal service, but no longer ready, so that new traffic goes elsewhere.
    Leaving,
    /// No new work is taken, and the work at hand is finished, until the deadline.
    Draining(Instant),
}

/// Moves services from phase to phase.
#[derive(Debug)]
pub struct Drain(watch::Sender<Phase>);

/// Reads the phase.
#[derive(Debug, Clone)]
pub struct DrainHandle(watch::Receiver<Phase>);

impl Default for Drain {
    fn default() -> Self {
        Self(watch::Sender::new(Phase::Running))
    }
}

impl Drain {
    /// A handle that reads the phase.
    pub fn handle(&self) -> DrainHandle {
        DrainHandle(self.0.subscribe())
    }

    /// Not ready from now on.
    pub fn leave(&self) {
        self.0.send_replace(Phase::Leaving);
    }

    /// Takes no new work from now on; the work at hand is to be finished within `budget`.
    pub fn start(&self, budget: Duration) {
        self.0.send_replace(Phase::Draining(Instant::now() + budget));
    }
}

impl DrainHandle {
    /// The phase at this moment.
    pub fn phase(&self) -> Phase {
        *self.0.borrow()
    }

    /// True if no new work may be taken.
    pub fn draining(&self) -> bool {
        matches!(self.phase(), Phase::Draining(_))
    }

    /// Waits until draining starts.
    pub async fn started(&self) {
        let mut phases = self.0.clone();
        // A service that dropped its drain has ended: no new work either.
        let _ = phases.wait_for(|phase| matches!(phase, Phase::Draining(_))).await;
    }
}
