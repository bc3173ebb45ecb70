//! The dead letter publisher: the actor that sends the outbox to the log, one message at a time.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, Message, WrapFuture};

use super::outbox::{Outbox, Sending, lock};
use crate::log::{AppendError, SharedLog, Topic};
use crate::ops::metrics::GatewayMetrics;
use crate::runtime::Held;

/// Wait before a message is sent again.
const BACKOFF: Duration = Duration::from_millis(500);
/// Interval at which the outbox is checked without a wake-up.
const SWEEP: Duration = Duration::from_secs(1);

/// Asks the actor to send what the outbox holds.
pub(super) struct Wake;

impl Message for Wake {
    type Result = ();
}

/// The actor. Its outbox outlives it.
pub(in crate::gateway) struct DeadLetterPublisher {
    log: SharedLog,
    metrics: GatewayMetrics,
    outbox: Arc<Mutex<Outbox>>,
    /// True while a message is under way.
    busy: bool,
}

impl DeadLetterPublisher {
    pub(super) fn new(log: SharedLog, metrics: GatewayMetrics, outbox: Arc<Mutex<Outbox>>) -> Self {
        Self { log, metrics, outbox, busy: false }
    }

    /// Sends the next message unless one is under way.
    fn pump(&mut self, context: &mut Context<Self>) {
        if self.busy {
            return;
        }
        let Some(Sending { id, bytes, letters, .. }) = lock(&self.outbox).message() else { return };
        self.busy = true;
        let log = self.log.clone();
        let send = async move {
            let result = log.append(Topic::DeadLetters, id, bytes).await;
            // A refused message of several letters is split without a wait.
            match &result {
                Ok(_) => {}
                Err(AppendError::Refused(_)) if letters > 1 => {}
                Err(_) => tokio::time::sleep(BACKOFF).await,
            }
            result.map(drop)
        };
        context.spawn(send.into_actor(self).map(|result, actor, context| {
            let dropped = lock(&actor.outbox).settle(result);
            actor.metrics.dead_letters_dropped.inc_by(dropped);
            actor.busy = false;
            actor.pump(context);
        }));
    }
}

impl Actor for DeadLetterPublisher {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.run_interval(SWEEP, Self::pump);
        self.pump(context);
    }
}

impl Handler<Held<Wake>> for DeadLetterPublisher {
    type Result = ();

    fn handle(&mut self, held: Held<Wake>, context: &mut Self::Context) {
        let (Wake, _room) = held.open();
        self.pump(context);
    }
}
