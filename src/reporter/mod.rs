//! The reporter: what happened, what it earned, whom it reached.
//!
//! ```text
//! http ──Ask { question, form }──▶ report.N ──▶ store
//! ```
//!
//! [`query`] reads a request's filters and refuses what it does not know; each actor `report` holds as
//! many questions as its mailbox takes and no more; [`answer`] shapes what the store says, [`form`] writes
//! it as JSON or CSV. A report that takes too long, or that nobody waits for any more, is stopped in the
//! database as well.

mod answer;
mod form;
mod http;
mod lists;
mod query;
mod report;
mod shapes;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use actix::Arbiter;

use crate::config::Config;
use crate::event::Source;
use crate::ledger::Reconciler;
use crate::log::SharedLog;
use crate::ops::Readiness;
use crate::ops::http::{Requests, ServiceView, serve};
use crate::ops::metrics::{ReporterMetrics, ServiceMetrics};
use crate::runtime::{DrainHandle, Mailbox, Registry, Spec, supervise};
use crate::service::Running;
use crate::store::Store;
use crate::store::report::Reports;

/// The service's name.
pub const NAME: &str = "reporter";
/// Report actors.
const REPORTS: usize = 4;
/// Questions that each of them holds at one time; one more than all can hold is answered 503.
const REPORT_BOUND: usize = 64;
/// Bytes of decoded summaries that are kept.
const SUMMARY_CACHE: u64 = 640 << 20;
/// Connections to the database for reports.
pub const CONNECTIONS: u32 = 8;
/// The database, as readiness names it.
const DATABASE: &str = "database";
/// How often the database is asked whether it is there.
const PROBE: Duration = Duration::from_secs(1);
/// How often the ledger is balanced for the metric.
const LEDGER: Duration = Duration::from_secs(5);

/// Starts a reporter. `log` is asked for the ledger alone, and may be away. The error names what could
/// not be started.
pub fn start(
    config: &Config,
    port: u16,
    log: Option<&SharedLog>,
    store: &Store,
    drain: &DrainHandle,
) -> Result<Running, String> {
    let actors = Arc::new(Registry::default());
    let service_metrics = ServiceMetrics::new(actors.clone());
    let metrics = ReporterMetrics::new(&service_metrics);
    let readiness = Arc::new(Readiness::new(NAME, &[DATABASE]));
    let home = Arbiter::new();
    let over_store = Reports::new(store.clone(), SUMMARY_CACHE);
    let reports: Vec<Mailbox<report::Reporter>> = (1..=REPORTS)
        .map(|n| {
            let over_store = over_store.clone();
            let spec = Spec { name: format!("{NAME}.report.{n}"), bound: REPORT_BOUND };
            supervise(&actors, spec, &home.handle(), move || report::Reporter::new(over_store.clone()))
        })
        .collect();
    let migrates = config.reporter_database_url.is_none();
    let mut probes = vec![tokio::spawn(probe_store(store.clone(), readiness.clone(), migrates))];
    let ledgers = log.map(|log| Arc::new(Reconciler::new(log.clone(), store.clone())));
    if let Some(ledgers) = &ledgers {
        probes.push(tokio::spawn(watch_ledger(ledgers.clone(), metrics.clone())));
    }
    let view = ServiceView {
        name: NAME,
        actors: actors.clone(),
        metrics: service_metrics,
        readiness,
        drain: drain.clone(),
        admin_token: config.admin_token.clone(),
        requests: Requests::default(),
        tokens: config.reporter_tokens.clone(),
        settings: config.http.clone(),
    };
    let requests = view.requests.clone();
    let shared = actix_web::web::Data::new(http::Shared {
        reports: reports.clone(),
        turn: AtomicUsize::new(0),
        store: store.clone(),
        lists: lists::Lists::default(),
        ledgers,
        metrics,
        tokens: config.reporter_tokens.clone(),
    });
    let (server, address) = serve(view, port, 2, move |routes| http::routes(routes, shared.clone()))?;
    let idle = Box::pin(async move {
        for report in &reports {
            report.idle().await;
        }
        format!("{} reports", reports.iter().map(|report| report.stats().handled()).sum::<u64>())
    });
    Ok(Running {
        name: NAME,
        address,
        server,
        requests,
        actors,
        idle,
        works_over_http: true,
        probes,
        arbiters: vec![home],
    })
}

/// Migrates where that is the reporter's to do, and asks again and again for a schema that fits.
async fn probe_store(store: Store, readiness: Arc<Readiness>, migrates: bool) {
    let mut migrated = !migrates;
    loop {
        if migrated {
            readiness.probe(DATABASE, store.check()).await;
        } else {
            // A migration takes the time that it takes.
            let answer = store.migrate().await;
            migrated = answer.is_ok();
            readiness.report(DATABASE, answer.map_err(|error| error.to_string()));
        }
        tokio::time::sleep(PROBE).await;
    }
}

async fn watch_ledger(ledgers: Arc<Reconciler>, metrics: ReporterMetrics) {
    loop {
        tokio::time::sleep(LEDGER).await;
        for &source in Source::ALL {
            match ledgers.reconcile(source).await {
                Ok(look) => {
                    let missing = look.ledger.missing;
                    if missing > 0 {
                        tracing::error!(%source, missing, "events are nowhere");
                    }
                    metrics.set_missing(source, Some(missing));
                }
                Err(error) => {
                    metrics.set_missing(source, None);
                    tracing::debug!(%source, %error, "the ledger is not known now");
                }
            }
        }
    }
}

/// Reads a query string as each of the reports does.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz_filters(query: &str) {
    const ALLOWED: &[&str] =
        &["from", "to", "source", "funnelStage", "eventType", "interval", "campaignId", "groupBy", "limit"];
    for unit in [1, 60] {
        let Ok(parameters) = query::Parameters::read(query, ALLOWED) else { return };
        let _ = (parameters.limit(), parameters.by_campaign());
        if let Ok(filter) = parameters.filter(unit) {
            let _ = (parameters.interval_within(&filter), query::range_of(&filter));
        }
    }
}
