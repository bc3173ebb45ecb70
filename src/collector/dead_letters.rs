//! The actor that brings refused events from the log to the store.

use std::time::Duration;

use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, Context, WrapFuture};
use futures::StreamExt;
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use uuid::Uuid;

use super::consume::Ended;
use crate::event::Refusal;
use crate::log::{DeadLetter, Delivery, Reason, SharedLog, Topic};
use crate::runtime::DrainHandle;
use crate::store::Store;

/// Messages that one pull asks for.
const PULL: usize = 8;
/// The wait after something failed.
const BACKOFF: Duration = Duration::from_secs(1);

/// What it works with.
#[derive(Clone)]
pub(super) struct Parts {
    pub log: SharedLog,
    pub store: Store,
    pub drain: DrainHandle,
    pub migrated: watch::Receiver<bool>,
    pub ended: Ended,
}

/// The actor.
pub(super) struct DeadLetterCollector {
    parts: Parts,
}

impl DeadLetterCollector {
    pub fn new(parts: Parts) -> Self {
        Self { parts }
    }
}

impl Actor for DeadLetterCollector {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        let parts = self.parts.clone();
        let work = async move {
            collect(&parts).await;
            parts.ended.send_replace(true);
        };
        context.spawn(work.into_actor(self).map(|(), _, context| context.stop()));
    }
}

async fn collect(parts: &Parts) {
    let mut migrated = parts.migrated.clone();
    tokio::select! {
        _ = migrated.wait_for(|migrated| *migrated) => {}
        () = parts.drain.started() => return,
    }
    while !parts.drain.draining() {
        let Ok(mut letters) = parts.log.pull(Topic::DeadLetters, PULL).await else {
            tokio::time::sleep(BACKOFF).await;
            continue;
        };
        while let Some(message) = letters.next().await {
            let kept = match message {
                Ok(delivery) => keep(parts, delivery).await,
                Err(error) => Err(error.to_string()),
            };
            if let Err(why) = kept {
                tracing::warn!(why, "dead letters were not kept; they come again");
                tokio::time::sleep(BACKOFF).await;
            }
        }
    }
}

/// Keeps the letters of one message, then acknowledges it.
async fn keep(parts: &Parts, delivery: Delivery) -> Result<(), String> {
    let letters: Vec<DeadLetter> = serde_json::from_slice(&delivery.frame).unwrap_or_else(|_| {
        vec![DeadLetter::new(
            delivery.logged_at,
            "",
            Reason::UnreadableFrame,
            &delivery.frame,
            Refusal::default(),
        )]
    });
    let id = |index: usize| {
        let mut hash = Sha256::new_with_prefix("dead letter");
        hash.update(delivery.log_id.as_bytes());
        hash.update(delivery.sequence.to_be_bytes());
        hash.update((index as u64).to_be_bytes());
        Uuid::from_slice(&hash.finalize()[..16]).unwrap_or_default()
    };
    let letters: Vec<_> =
        letters.into_iter().enumerate().map(|(index, letter)| (id(index), letter)).collect();
    parts.store.keep_letters(&letters).await.map_err(|error| error.to_string())?;
    delivery.receipt.ack().await.map_err(|error| error.to_string())
}
