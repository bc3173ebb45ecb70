//! How a service comes to its end: in phases that everybody can see.

use std::time::{Duration, Instant};

use tokio::sync::watch;

/// Where in its life a service is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It serves.
    Running,
    /// It serves, but is no longer ready: new traffic goes elsewhere.
    Leaving,
    /// It takes nothing new and finishes what it has, until the deadline.
    Draining(Instant),
}

/// Drives a service through its phases.
#[derive(Debug)]
pub struct Drain(watch::Sender<Phase>);

/// Sees the phases go by.
#[derive(Debug, Clone)]
pub struct DrainHandle(watch::Receiver<Phase>);

impl Default for Drain {
    fn default() -> Self {
        Self(watch::Sender::new(Phase::Running))
    }
}

impl Drain {
    /// A handle for those who must know.
    pub fn handle(&self) -> DrainHandle {
        DrainHandle(self.0.subscribe())
    }

    /// Not ready from now on.
    pub fn leave(&self) {
        self.0.send_replace(Phase::Leaving);
    }

    /// Nothing new from now on; everything finished within `budget`.
    pub fn start(&self, budget: Duration) {
        self.0.send_replace(Phase::Draining(Instant::now() + budget));
    }
}

impl DrainHandle {
    /// The phase at this moment.
    pub fn phase(&self) -> Phase {
        *self.0.borrow()
    }

    /// Whether new work may be taken.
    pub fn draining(&self) -> bool {
        matches!(self.phase(), Phase::Draining(_))
    }

    /// Waits until draining starts.
    pub async fn started(&self) {
        let mut phases = self.0.clone();
        // A service that dropped its drain is gone: nothing new either.
        let _ = phases.wait_for(|phase| matches!(phase, Phase::Draining(_))).await;
    }
}
