//! Background tasks of the reporter: the probe of the database, and the watch of the ledger.

use std::sync::Arc;
use std::time::Duration;

use super::DATABASE;
use crate::event::Source;
use crate::ledger::Reconciler;
use crate::ops::metrics::ReporterMetrics;
use crate::ops::{Away, Readiness};
use crate::runtime::Node;
use crate::service::Builder;
use crate::store::Store;

/// Interval of the database's probe.
const PROBE: Duration = Duration::from_secs(1);
/// Interval at which the ledger is reconciled for the metric of missing events.
const LEDGER: Duration = Duration::from_secs(5);

/// Starts the tasks. A reporter without a log watches no ledger.
pub(super) fn start(
    service: &Builder,
    store: &Store,
    migrates: bool,
    reconciler: Option<&Arc<Reconciler>>,
    metrics: &ReporterMetrics,
) {
    let (group, thread) = (service.group("watch"), service.main_thread());
    let task = (store.clone(), service.readiness.clone());
    group.task("probe_database", &thread, move |node| {
        let (store, readiness) = task.clone();
        probe_database(store, readiness, migrates, node)
    });
    if let Some(reconciler) = reconciler {
        let task = (reconciler.clone(), metrics.clone());
        group.task("watch_ledger", &thread, move |node| {
            let (reconciler, metrics) = task.clone();
            watch_ledger(reconciler, metrics, node)
        });
    }
}

/// Migrates if the reporter may, then probes the database for a schema that fits, again and again.
async fn probe_database(store: Store, readiness: Arc<Readiness>, migrates: bool, node: Arc<Node>) {
    let mut migrated = !migrates;
    loop {
        if migrated {
            readiness.probe(DATABASE, store.check()).await;
            // Names that collectors have learnt meanwhile.
            if let Err(error) = store.read_dictionary().await {
                tracing::debug!(%error, "the dictionary was not read now");
            }
        } else {
            // Without a time limit: a migration may rewrite large tables.
            let answer = store.migrate().await;
            migrated = answer.is_ok();
            readiness.report(DATABASE, answer.map_err(Away::because));
        }
        node.count_handled();
        tokio::time::sleep(PROBE).await;
    }
}

/// Updates `ess_ledger_missing_events`, and logs an error for each source with missing events.
async fn watch_ledger(reconciler: Arc<Reconciler>, metrics: ReporterMetrics, node: Arc<Node>) {
    loop {
        tokio::time::sleep(LEDGER).await;
        for source in Source::all() {
            match reconciler.reconcile(source).await {
                Ok(found) => {
                    let missing = found.ledger.missing;
                    if missing > 0 {
                        tracing::error!(%source, missing, "events are missing: neither the log nor the store has them");
                    }
                    metrics.set_missing(source, Some(missing));
                }
                Err(error) => {
                    metrics.set_missing(source, None);
                    tracing::debug!(%source, %error, "the ledger is not known now");
                }
            }
        }
        node.count_handled();
    }
}
