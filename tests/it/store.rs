//! The store by itself, on both databases.

pub mod clock;
pub mod currencies;
pub mod dictionary;
pub mod exactly_once;
pub mod money;
pub mod refused;

use ess::event::Source;
use ess::log::Origin;
use ess::store::{Batch, BatchFrame, Purpose, Store, Written};

use crate::support::block_on;
use crate::support::events::simple;
use crate::support::stores::{frame, log, sqlite};

async fn write(store: &Store, frames: Vec<BatchFrame<'_>>) -> Written {
    store.write(&Batch { source: Source::FACEBOOK, log_id: log(), frames }).await.unwrap()
}

/// One frame whose number is its sequence number.
fn at<'a>(place: u64, origin: &'a Origin, events: &'a [String]) -> Vec<BatchFrame<'a>> {
    vec![frame(place, place, origin, events)]
}

fn texts(ids: &[&str]) -> Vec<String> {
    ids.iter().map(|id| simple(id, "facebook").to_string()).collect()
}

#[test]
fn a_database_that_does_not_exist_is_created_at_the_first_try() {
    let folder = tempfile::tempdir().unwrap();
    block_on(async {
        for turn in 0..300 {
            let url = sqlite(&folder.path().join(format!("{turn}.db")));
            let purpose = if turn % 2 == 0 {
                Purpose::Write { transactions: 2 }
            } else {
                Purpose::Read { connections: 2 }
            };
            let store = Store::connect(&url, purpose).await;
            store.unwrap_or_else(|error| panic!("turn {turn}: {error}")).close().await.unwrap();
        }
    });
}
