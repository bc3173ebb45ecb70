//! The loop that keeps one child of a group alive.
//!
//! actix's own supervisor does not see panics. This loop runs each instance as a task of its own and keeps the task's
//! handle, so that a panic is an outcome like any other. Three ends lead to a new instance: a panic, an end that nobody
//! asked for (outside of draining), and an operator's request; and so does a restart of the whole group.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{self, Either};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinError;

use super::node::{Node, RestartReason, State};
use super::supervisor::{Gate, Supervisor, Verdict};

/// Commands that wait for one child.
pub(super) const COMMANDS: usize = 4;

/// An operator's command to a node. For a node with children it means each child that has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Put a new instance in the place of this one.
    Restart,
    /// Make it panic, so that tests see that nothing is lost.
    #[cfg(feature = "faults")]
    Panic,
}

/// A child and its loop; `start` makes an instance.
pub(super) struct Child<S> {
    pub node: Arc<Node>,
    pub supervisor: Arc<Supervisor>,
    pub commands: mpsc::Receiver<Command>,
    pub start: S,
}

/// Outcome of one instance.
enum Outcome {
    Finished,
    Panicked(String),
    Requested,
    /// The group's gate was closed.
    GroupClosed,
    /// The service ends.
    Stopped,
}

impl<S, W> Child<S>
where
    S: Fn() -> W,
    W: Future<Output = ()> + 'static,
{
    /// Runs instance after instance, until the child ends for good.
    pub async fn run(mut self) {
        while self.gate_opens().await {
            let outcome = self.run_instance().await;
            let (reason, why) = match outcome {
                Outcome::Stopped => break,
                Outcome::Finished if self.supervisor.root.drain.draining() => break,
                Outcome::Finished => (RestartReason::Ended, "ended, and nobody had asked for it".to_owned()),
                Outcome::Panicked(why) => (RestartReason::Panic, why),
                Outcome::Requested => {
                    tracing::info!(actor = self.node.name(), "restarted on request");
                    self.node.count_restart(RestartReason::Requested);
                    continue;
                }
                Outcome::GroupClosed => {
                    if self.gate_opens().await {
                        self.node.count_restart(RestartReason::Group);
                    }
                    continue;
                }
            };
            if !self.recover(reason, &why).await {
                break;
            }
        }
        self.node.set_state(State::Stopped);
    }

    /// Carries out what the supervisor decides about a failure; false if the child ends for good.
    async fn recover(&self, reason: RestartReason, why: &str) -> bool {
        self.node.set_state(State::Restarting);
        self.node.count_restart(reason);
        self.node.set_last_failure(why);
        tracing::error!(
            actor = self.node.name(),
            reason = reason.as_str(),
            why,
            "an actor failed; it is restarted"
        );
        match self.supervisor.child_failed(self.node.name(), reason, why) {
            Verdict::Restart(wait) => self.wait(wait).await,
            Verdict::RestartGroup(wait) => {
                let goes_on = self.wait(wait).await;
                self.supervisor.gate.send_replace(Gate::Open);
                goes_on
            }
            Verdict::AwaitGroup => true,
            Verdict::Stop => false,
        }
    }

    /// Waits; false if the service ends meanwhile.
    async fn wait(&self, time: Duration) -> bool {
        tokio::select! {
            () = tokio::time::sleep(time) => true,
            () = self.service_stops() => false,
        }
    }

    async fn service_stops(&self) {
        // The sender lives as long as the supervisor that this child holds.
        let _ = self.supervisor.root.stopping.subscribe().wait_for(|stops| *stops).await;
    }

    /// Waits until the group's children may run; false if this one ends for good.
    async fn gate_opens(&self) -> bool {
        let mut gate = self.supervisor.gate.subscribe();
        if *gate.borrow() != Gate::Open {
            self.node.set_state(State::Restarting);
        }
        tokio::select! {
            biased;
            () = self.service_stops() => false,
            gate = gate.wait_for(|gate| !matches!(gate, Gate::Closed(_))) => {
                gate.is_ok_and(|gate| *gate == Gate::Open)
            }
        }
    }

    /// Runs one instance to its end.
    #[cfg_attr(
        not(feature = "faults"),
        expect(clippy::never_loop, reason = "the only command that an instance survives is for tests")
    )]
    async fn run_instance(&mut self) -> Outcome {
        let (fault, faulted) = oneshot::channel::<()>();
        let work = Box::pin((self.start)());
        let mut task = tokio::task::spawn_local(async move {
            match future::select(work, faulted).await {
                Either::Left(((), _)) => {}
                Either::Right((Err(_), work)) => work.await,
                Either::Right((Ok(()), _)) => panic!("asked to panic"),
            }
        });
        #[cfg(feature = "faults")]
        let mut fault = Some(fault);
        #[cfg(not(feature = "faults"))]
        drop(fault);
        let mut gate = self.supervisor.gate.subscribe();
        let supervisor = self.supervisor.clone();
        let mut stopping = supervisor.root.stopping.subscribe();
        self.node.set_state(State::Running);
        let asked = loop {
            tokio::select! {
                ended = &mut task => return match ended.map_err(JoinError::try_into_panic) {
                    Ok(()) => Outcome::Finished,
                    Err(Ok(panic)) => Outcome::Panicked(panic_text(&*panic)),
                    // The thread's runtime ends.
                    Err(Err(_aborted)) => Outcome::Stopped,
                },
                _ = stopping.wait_for(|stops| *stops) => break Outcome::Stopped,
                _ = gate.wait_for(|gate| *gate != Gate::Open) => break Outcome::GroupClosed,
                Some(command) = self.commands.recv() => match command {
                    Command::Restart => break Outcome::Requested,
                    #[cfg(feature = "faults")]
                    Command::Panic => {
                        if let Some(fault) = fault.take() {
                            // An instance that has just ended is seen in the next round.
                            let _ = fault.send(());
                        }
                    }
                },
            }
        };
        self.node.set_state(State::Restarting);
        task.abort();
        match task.await.map_err(JoinError::try_into_panic) {
            Err(Ok(panic)) => Outcome::Panicked(panic_text(&*panic)),
            Ok(()) | Err(Err(_)) => asked,
        }
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "panic".to_owned())
}
