//! The ledger: every frame is counted once, and every event that the log took is accounted for.

pub mod folding;
pub mod frames;
pub mod frozen;
pub mod load;
pub mod reconciliation;
pub mod restored_log;
pub mod standby;

use ess::event::Source;
use ess::log::Topic;
use ess::store::{Batch, BatchFrame, Store, Written};
use uuid::Uuid;

use crate::support::events::simple;
use crate::support::stores::log;

const SOURCE: Source = Source::FACEBOOK;
const TOPIC: Topic = Topic::Events(SOURCE);

/// Events with the ids `prefix-0` and so on.
fn texts(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| simple(&format!("{prefix}-{n}"), "facebook").to_string()).collect()
}

async fn write(store: &Store, frames: Vec<BatchFrame<'_>>) -> Written {
    store.write(&Batch { source: SOURCE, log_id: log(), frames }).await.unwrap()
}

/// A UUID as a literal of the store's database.
fn literal(store: &Store, id: u128) -> String {
    let id = Uuid::from_u128(id).simple();
    if store.is_postgres() { format!("'{id}'::uuid") } else { format!("x'{id}'") }
}
