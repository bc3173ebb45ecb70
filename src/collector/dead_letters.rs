//! The task that brings refused events from the log to the store.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use uuid::Uuid;

use crate::event::Refusal;
use crate::log::{DeadLetter, Delivery, LogError, Reason, SharedLog, Topic};
use crate::runtime::{DrainHandle, Node};
use crate::store::{Store, StoreError};

/// Maximum messages of one pull.
const PULL: usize = 8;
/// Wait after a failure.
const BACKOFF: Duration = Duration::from_secs(1);

/// Dependencies of the task.
#[derive(Clone)]
pub(super) struct Parts {
    pub log: SharedLog,
    pub store: Store,
    pub drain: DrainHandle,
    /// True once the database has its schema.
    pub migrated: watch::Receiver<bool>,
}

/// Reason for which a message's letters are not stored.
#[derive(Debug, thiserror::Error)]
enum StoreLettersError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Stores dead letters until the collector drains.
pub(super) async fn consume(parts: Parts, node: Arc<Node>) {
    let mut migrated = parts.migrated.clone();
    tokio::select! {
        _ = migrated.wait_for(|migrated| *migrated) => {}
        () = parts.drain.started() => return,
    }
    while !parts.drain.draining() {
        let Ok(mut messages) = parts.log.pull(Topic::DeadLetters, PULL).await else {
            tokio::time::sleep(BACKOFF).await;
            continue;
        };
        while let Some(message) = messages.next().await {
            let stored = match message {
                Ok(delivery) => store(&parts.store, delivery).await,
                Err(error) => Err(error.into()),
            };
            match stored {
                Ok(()) => node.count_handled(),
                Err(error) => {
                    tracing::warn!(%error, "dead letters were not stored; the log delivers them again");
                    tokio::time::sleep(BACKOFF).await;
                }
            }
        }
    }
}

/// Stores the letters of one message, then acknowledges it.
async fn store(store: &Store, delivery: Delivery) -> Result<(), StoreLettersError> {
    let letters: Vec<DeadLetter> = serde_json::from_slice(&delivery.frame).unwrap_or_else(|_| {
        let Delivery { logged_at, frame, .. } = &delivery;
        vec![DeadLetter::new(*logged_at, "", Reason::UnreadableFrame, frame, Refusal::default())]
    });
    let letters: Vec<_> =
        letters.into_iter().enumerate().map(|(index, letter)| (id(&delivery, index), letter)).collect();
    for source in letters.iter().filter_map(|(_, letter)| letter.source) {
        store.register(source).await?;
    }
    store.keep_letters(&letters).await?;
    Ok(delivery.receipt.ack().await?)
}

/// Id of a message's letter, the same with each delivery, so that no letter is stored twice.
fn id(delivery: &Delivery, index: usize) -> Uuid {
    let mut hash = Sha256::new_with_prefix("dead letter");
    hash.update(delivery.log_id.as_bytes());
    hash.update(delivery.sequence.to_be_bytes());
    hash.update((index as u64).to_be_bytes());
    let hash: [u8; 32] = hash.finalize().into();
    let mut id = [0; 16];
    id.copy_from_slice(&hash[..16]);
    Uuid::from_bytes(id)
}
