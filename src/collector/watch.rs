//! Background tasks that watch the database: whether it answers, and whether batches are stored.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::batch_write::Progress;
use super::shared::{DATABASE, Health, STORING};
use crate::event::Source;
use crate::ops::{Away, Readiness};
use crate::runtime::Node;
use crate::store::{Store, StoreError};

/// Interval of the database's probe.
const PROBE: Duration = Duration::from_secs(1);
/// Interval at which the oldest batch is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Age of a batch at which writers whose transactions stand still are ended. A frozen collector's frames are delivered
/// to others at about the time at which its transaction counts as standing still: each second of this is one in which
/// those others store nothing.
const END_STUCK_WRITERS: Duration = Duration::from_secs(2);
/// Age of a batch at which the collector is not ready any more.
const NOT_STORING: Duration = Duration::from_secs(10);
/// Time limit of ending stuck writers.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// Migrates as soon as the database is there, then probes it again and again.
pub(super) async fn probe_database(
    store: Store,
    readiness: Arc<Readiness>,
    migrated: Arc<watch::Sender<bool>>,
    node: Arc<Node>,
) {
    loop {
        if *migrated.borrow() {
            readiness.probe(DATABASE, check(&store)).await;
        } else {
            // Without a time limit: a migration may rewrite large tables.
            let answer = store.migrate().await;
            migrated.send_replace(answer.is_ok());
            readiness.report(DATABASE, answer.map_err(Away::because));
        }
        node.count_handled();
        tokio::time::sleep(PROBE).await;
    }
}

/// Checks the database and its schema, and reads the names that other processes have added to its dictionary.
async fn check(store: &Store) -> Result<(), StoreError> {
    store.check().await?;
    store.read_dictionary().await.map(drop)
}

/// Ends writers that stand still and hold up this collector's batches, and reports when batches are not stored.
pub(super) async fn watch_storing(
    source: Source,
    store: Store,
    health: Health,
    progress: Progress,
    node: Arc<Node>,
) {
    let mut held_up = false;
    loop {
        tokio::time::sleep(LOOK).await;
        let waited = progress.oldest();
        if waited >= END_STUCK_WRITERS {
            end_stuck_writers(source, &store).await;
        }
        let not_storing = waited >= NOT_STORING;
        if not_storing || held_up {
            health.report(STORING, if not_storing { Err(Away::Failed(why(&progress))) } else { Ok(()) });
        }
        held_up = not_storing;
        node.count_handled();
    }
}

/// The reason for which batches are not stored.
fn why(progress: &Progress) -> String {
    let waited = format!("a batch has waited for the database for more than {NOT_STORING:?}");
    match progress.last_error() {
        Some(error) => format!("{waited}: {error}"),
        None => waited,
    }
}

async fn end_stuck_writers(source: Source, store: &Store) {
    match tokio::time::timeout(END_TIMEOUT, store.end_stuck_writers(source)).await {
        Ok(Ok(ended)) => ended.iter().for_each(|ended| {
            tracing::error!(%source, backend = ended.backend, client = ended.client, statement = ended.statement,
                "a writer's transaction stood still and held up others: it was ended, and its frames are delivered \
                 again. Look for a collector that is frozen or cut off");
        }),
        Ok(Err(error)) => tracing::debug!(%source, %error, "stuck writers were not looked for now"),
        Err(_) => tracing::debug!(%source, "stuck writers were not found within {END_TIMEOUT:?}"),
    }
}
