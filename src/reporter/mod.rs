//! The reporter: a service that answers reports on events, their revenue and their users.
//!
//! ```text
//! http ──Ask { question, form }──▶ report.N ──▶ store
//! ```
//!
//! [`query`] parses a request's parameters and refuses unknown ones. The `report` actors compute the reports; if all
//! their mailboxes are full, the answer is 503. [`answer`] and [`demographics`] define the answers, and [`form`] writes
//! them as JSON or CSV. A report that exceeds its time limit, or whose client has left, is cancelled in the database as
//! well. [`live`] feeds the console. [`watch`] has the background tasks.

mod answer;
mod answered;
mod dead_letters;
mod demographics;
mod error;
mod form;
mod http;
mod lists;
mod live;
mod live_routes;
mod query;
mod report;
mod shapes;
mod shared;
mod watch;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use actix_web::web::Data;
use tokio::sync::Semaphore;

use crate::config::Config;
use crate::console;
use crate::event::Redactor;
use crate::ledger::Reconciler;
use crate::log::{Bus, SharedLog};
#[cfg(feature = "fuzzing")]
use crate::money::Currency;
use crate::ops::Sampler;
use crate::ops::metrics::ReporterMetrics;
use crate::runtime::{DrainHandle, Mailbox};
use crate::service::{Builder, Listener, Running, StartError};
use crate::store::Store;
use crate::store::report::Reports;

/// Name of the service.
pub const NAME: &str = "reporter";
/// Number of report actors.
const REPORTS: usize = 4;
/// Capacity of a report actor's mailbox, in questions. If all are full, the answer is 503.
const REPORT_BOUND: usize = 64;
/// Maximum bytes of decoded summaries in the cache.
const SUMMARY_CACHE: u64 = 640 << 20;
/// Connections to the database for reports.
pub const CONNECTIONS: u32 = 8;
/// Name of the database in readiness.
const DATABASE: &str = "database";

/// Starts a reporter. `log` is needed only for the ledger; the reporter is ready without it.
///
/// # Errors
///
/// If the listener cannot be started.
pub fn start(
    config: &Config,
    port: u16,
    log: Option<&SharedLog>,
    store: &Store,
    drain: &DrainHandle,
) -> Result<Running, StartError> {
    let mut service = Builder::new(NAME, NAME, &[DATABASE], drain);
    let metrics = ReporterMetrics::new(&service.metrics);
    let (group, thread) = (service.group("reports"), service.thread());
    let over_store = Reports::new(store.clone(), SUMMARY_CACHE);
    let reports: Vec<Mailbox<report::Reporter>> = (1..=REPORTS)
        .map(|number| {
            let over_store = over_store.clone();
            group.actor(&format!("report.{number}"), REPORT_BOUND, &thread, move || {
                report::Reporter::new(over_store.clone())
            })
        })
        .collect();
    let ledgers = log.map(|log| Arc::new(Reconciler::new(log.clone(), store.clone())));
    let migrates = config.reporter_database_url.is_none();
    watch::start(&service, store, migrates, ledgers.as_ref(), &metrics);
    let bus = log.map_or_else(Bus::local, |log| log.bus());
    service.tell(bus.clone(), config.admin_token.clone());
    let live = Arc::new(live::Live::new(bus, ledgers.clone()));
    let (feed, draining) = (live.clone(), drain.clone());
    service.group("live").task("feed", &thread, move |node| {
        let (feed, drain) = (feed.clone(), draining.clone());
        async move { feed.run(drain, || node.count_handled()).await }
    });
    let shared = Data::new(shared::Shared {
        reports: reports.clone(),
        turn: AtomicUsize::new(0),
        store: store.clone(),
        unknown_names: Sampler::per_second(shared::DICTIONARY_READS_PER_SECOND),
        lists: lists::Lists::default(),
        ledgers,
        log: log.cloned(),
        replaying: Semaphore::new(1),
        redactor: Redactor::new(&config.pii),
        source_folder: config.source_folder.clone(),
        live,
        metrics,
        tokens: config.reporter_tokens.clone(),
    });
    let listener = Listener {
        port,
        workers: 2,
        works_over_http: true,
        tokens: config.reporter_tokens.clone(),
        routes: move |routes: &mut _| {
            http::routes(routes, shared.clone());
            console::routes(routes);
        },
    };
    service.start(config, listener, async move {
        for report in &reports {
            report.idle().await;
        }
        format!("{} reports", reports.iter().map(|report| report.node().handled()).sum::<u64>())
    })
}

/// Parses a query string like the routes of the reports, for the fuzzer.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz_filters(query: &str) {
    const ALLOWED: &[&str] = &[
        "from",
        "to",
        "source",
        "funnelStage",
        "eventType",
        "interval",
        "campaignId",
        "groupBy",
        "limit",
        "currency",
    ];
    for unit in [1, 60] {
        let Ok(parameters) = query::Parameters::read(query, ALLOWED) else { return };
        let _ = (parameters.limit(), parameters.by_campaign());
        if let Ok(filter) = parameters.filter(unit, Currency::USD) {
            let _ = (parameters.interval_within(&filter), query::range_of(&filter));
        }
    }
}
