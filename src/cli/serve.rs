//! Commands that run services: `gateway`, `collector`, `reporter`, and `up` and `demo` with all of them in one process.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::demo_source;
use super::failure::Failure;
use crate::collector::Selection;
use crate::config::{Config, Secret};
use crate::event::Source;
use crate::log::embedded::Embedded;
use crate::log::jetstream::JetStream;
use crate::log::{LogError, LogRole, SharedLog};
use crate::ops::{logs, raise_open_files};
use crate::publisher::generate::{Generator, Mix};
use crate::publisher::{Examples, Feed, Pace, Plan, Tally, publish};
use crate::runtime::{Drain, DrainHandle};
use crate::service::{DrainBudget, Ending, Running, Signals, StartError, run};
use crate::store::{Purpose, Store};
use crate::terminal::{Reporter, status_line};
use crate::{collector, gateway, reporter};

/// File of the embedded log in the data folder.
pub(super) const LOG_FILE: &str = "log.redb";
/// File in the data folder that is locked while a process uses the folder.
const LOCK_FILE: &str = "ess.lock";
/// Sources whose transactions have room in the pool of a collector of several sources at one time.
const SHARED_POOL: usize = 4;
/// Rate of the demo's publisher, in events per second.
const DEMO_RATE: f64 = 500.0;

/// The demo's publisher, and how its state is shown.
pub(super) struct Demo {
    /// File of the log lines while a line of figures is shown; `None` if log lines are shown.
    pub log: Option<PathBuf>,
}

fn missing(name: &str, command: &str) -> Failure {
    Failure::Usage(format!("{name} is not set, and `ess {command}` needs it"))
}

/// Exit reason for a service that could not be started.
pub(super) fn failed(error: StartError) -> Failure {
    Failure::Other(error.to_string())
}

async fn connect(url: &Secret, name: &str, config: &Config, role: LogRole) -> Result<SharedLog, Failure> {
    let log = JetStream::connect(url.expose(), name, config.log.clone(), &config.nats, role).await;
    let log = log.map_err(|error| Failure::Usage(format!("NATS_URL: {error}")))?;
    Ok(Arc::new(log))
}

async fn open(config: &Config, purpose: Purpose) -> Result<Store, Failure> {
    Store::open(config, purpose).await.map_err(|error| Failure::Usage(format!("DATABASE_URL: {error}")))
}

/// Opens the store for a command that runs once; unlike services, it does not wait for an unreachable database.
async fn open_now(config: &Config, purpose: Purpose) -> Result<Store, Failure> {
    let store = open(config, purpose).await?;
    store.reach().await.map_err(|error| Failure::Other(format!("DATABASE_URL: {error}")))?;
    Ok(store)
}

/// Opens the store for a command that only reads. It uses the reporter's role, if one is configured.
pub(super) async fn open_reading(config: &Config) -> Result<Store, Failure> {
    open_now(config, READING).await
}

/// Opens the store for a command that writes. It never uses the reporter's role, which cannot write.
pub(super) async fn open_writing(config: &Config) -> Result<Store, Failure> {
    open_now(config, Purpose::Write { transactions: 1 }).await
}

/// Closes the connections to a store.
pub(super) async fn close(store: &Store) {
    if let Err(error) = store.close().await {
        tracing::warn!(%error, "the database's connections were not closed");
    }
}

/// Opens the log: NATS if `NATS_URL` is set, else the embedded log in the data folder.
pub(super) async fn open_log(config: &Config, name: &str, role: LogRole) -> Result<SharedLog, Failure> {
    match &config.nats_url {
        Some(url) => connect(url, name, config, role).await,
        None => {
            let log = Embedded::open(&config.data_dir.join(LOG_FILE), config.log.clone());
            Ok(Arc::new(log.map_err(|error: LogError| Failure::Other(error.to_string()))?))
        }
    }
}

/// The pool of a collector. Several sources share one, in which those that wait for locks leave room for others.
fn writing_of(config: &Config, selection: &Selection) -> Purpose {
    let shares = if selection.single().is_some() { 1 } else { SHARED_POOL };
    Purpose::Write { transactions: shares * config.batch_concurrency }
}

const READING: Purpose = Purpose::Read { connections: reporter::CONNECTIONS };

/// Port of a service that runs alone: `PORT` if it is set, else the service's own port.
pub(super) fn alone(config: &Config, own: u16) -> u16 {
    config.ports.alone.unwrap_or(own)
}

/// `ess gateway`.
pub(super) async fn gateway(config: Config) -> Result<Ending, Failure> {
    let url = config.nats_url.as_ref().ok_or_else(|| missing("NATS_URL", "gateway"))?;
    // Declared before anything is built, so that all of it knows them.
    let served = super::sources::served(&config)?;
    let log = connect(url, gateway::NAME, &config, LogRole::Gateway).await?;
    let drain = Drain::default();
    let port = alone(&config, config.ports.gateway);
    let service = gateway::start(&config, port, &log, served, &drain.handle()).map_err(failed)?;
    serve(&config, vec![service], drain, flush(log)).await
}

/// `ess collector SOURCE… | all`.
pub(super) async fn collector(config: Config, selection: &Selection) -> Result<Ending, Failure> {
    let command = match selection {
        Selection::Only(sources) => {
            sources.iter().fold("collector".to_owned(), |all, one| format!("{all} {one}"))
        }
        Selection::All | Selection::Declared => "collector all".to_owned(),
    };
    let url = config.nats_url.as_ref().ok_or_else(|| missing("NATS_URL", &command))?;
    if config.database_url.is_none() {
        return Err(missing("DATABASE_URL", &command));
    }
    let log = connect(url, selection.name(), &config, LogRole::Collector).await?;
    let store = open(&config, writing_of(&config, selection)).await?;
    let drain = Drain::default();
    let port = alone(&config, selection.port(&config));
    let service =
        collector::start(&config, selection, port, &log, &store, &drain.handle()).map_err(failed)?;
    let end = async move {
        flush(log).await;
        close(&store).await;
    };
    serve(&config, vec![service], drain, end).await
}

/// `ess reporter`.
pub(super) async fn reporter(config: Config) -> Result<Ending, Failure> {
    if config.database_url.is_none() && config.reporter_database_url.is_none() {
        return Err(missing("DATABASE_URL", "reporter"));
    }
    let log = match &config.nats_url {
        Some(url) => Some(connect(url, reporter::NAME, &config, LogRole::Observer).await?),
        None => None,
    };
    let store = open(&config, READING).await?;
    let drain = Drain::default();
    let port = alone(&config, config.ports.reporter);
    let service = reporter::start(&config, port, log.as_ref(), &store, &drain.handle()).map_err(failed)?;
    serve(&config, vec![service], drain, async move { close(&store).await }).await
}

/// `ess up` and `ess demo`: all services in this process.
pub(super) async fn all(config: Config, demo: Option<Demo>) -> Result<Ending, Failure> {
    // Declared before anything is built, so that all of it knows them.
    let mut served = super::sources::served(&config)?;
    let mut examples = None;
    if demo.is_some() {
        examples = Some(demo_source::add(&config, &mut served)?);
    }
    let embedded = config.nats_url.is_none() || config.database_url.is_none();
    let _lock = embedded.then(|| lock_data_dir(&config)).transpose()?;
    let log = open_log(&config, "ess", LogRole::Gateway).await?;
    // All connections are opened before the demo prints its addresses, so that log lines do not push them away.
    let mut stores: Vec<(Selection, Store)> = Vec::new();
    let built_in = Source::built_in().map(|source| Selection::Only(vec![source]));
    let declared = has_declared_sources(&log).await.then_some(Selection::Declared);
    for selection in built_in.chain(declared) {
        let store = match stores.first() {
            // SQLite allows one writer, so the collectors share its connection.
            Some((_, first)) if !first.is_postgres() => first.clone(),
            _ => open(&config, writing_of(&config, &selection)).await?,
        };
        stores.push((selection, store));
    }
    let reading = open(&config, READING).await?;
    let drain = Drain::default();
    let handle = drain.handle();
    let gateway = gateway::start(&config, config.ports.gateway, &log, served, &handle);
    let mut services = vec![gateway.map_err(failed)?];
    for (selection, store) in &stores {
        let port = selection.port(&config);
        services.push(collector::start(&config, selection, port, &log, store, &handle).map_err(failed)?);
    }
    let port = config.ports.reporter;
    services.push(reporter::start(&config, port, Some(&log), &reading, &handle).map_err(failed)?);
    if let (Some(demo), Some(examples)) = (&demo, examples) {
        start_demo(&config, demo, examples, &services, &handle)?;
    }
    let end = async move {
        flush(log).await;
        for store in stores.iter().map(|(_, store)| store).chain([&reading]) {
            close(store).await;
        }
    };
    serve(&config, services, drain, end).await
}

/// True if source files declare sources, or the log has a topic of another one than the built-in ones.
async fn has_declared_sources(log: &SharedLog) -> bool {
    if Source::declared().len() > 0 {
        return true;
    }
    // Without an answer of NATS the source files decide.
    let topics = log.topics().await.unwrap_or_default();
    topics.iter().any(|name| Source::parse(name).is_none_or(|source| !source.is_built_in()))
}

async fn flush(log: SharedLog) {
    if let Err(error) = log.flush().await {
        tracing::warn!(%error, "the log was not flushed");
    }
}

async fn serve(
    config: &Config,
    services: Vec<Running>,
    drain: Drain,
    close: impl Future<Output = ()>,
) -> Result<Ending, Failure> {
    let signals = Signals::listen().map_err(|error| Failure::Other(format!("signals: {error}")))?;
    raise_open_files(services.len(), config.http.max_connections);
    for service in &services {
        tracing::info!(service = service.name, address = %service.address, "listening");
    }
    let budget = DrainBudget { grace: config.drain_grace, timeout: config.drain_timeout };
    let ending = run(services, drain, signals, budget, close).await;
    tracing::info!(clean = ending == Ending::Clean, "stopped");
    Ok(ending)
}

/// Locks the data folder, so that only one process uses it at a time.
pub(super) fn lock_data_dir(config: &Config) -> Result<std::fs::File, Failure> {
    let folder = config.data_dir.display();
    let lock = std::fs::create_dir_all(&config.data_dir)
        .and_then(|()| std::fs::File::create(config.data_dir.join(LOCK_FILE)))
        .map_err(|error| Failure::Other(format!("ESS_DATA_DIR: {folder}: {error}")))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(std::fs::TryLockError::WouldBlock) => {
            Err(Failure::Other(format!("ESS_DATA_DIR: {folder} is in use by another ess")))
        }
        Err(std::fs::TryLockError::Error(error)) => {
            Err(Failure::Other(format!("ESS_DATA_DIR: {folder}: {error}")))
        }
    }
}

/// Prints the addresses of the demo, and starts its publishers and its line of figures.
fn start_demo(
    config: &Config,
    demo: &Demo,
    examples: Examples,
    services: &[Running],
    drain: &DrainHandle,
) -> Result<(), Failure> {
    let scheme = if config.http.tls.is_some() { "https" } else { "http" };
    let address = |name: &str| services.iter().find(|service| service.name == name).map(|one| one.address);
    let url = |name: &str| address(name).map(|to| format!("{scheme}://{to}")).unwrap_or_default();
    print_addresses(config, demo, |name| match address(name) {
        // People know their own machine by this name.
        Some(to) if demo.log.is_some() && (to.ip().is_loopback() || to.ip().is_unspecified()) => {
            format!("{scheme}://localhost:{}", to.port())
        }
        _ => url(name),
    });
    let authorities = config.http.tls.as_ref().map(|identity| identity.certificate.clone());
    if demo.log.is_some() {
        let token = config.reporter_tokens.first().map(|token| token.secret.expose());
        let reporter = Reporter::new(&url(reporter::NAME), token, authorities.as_deref());
        let reporter = reporter.map_err(|error| Failure::Other(error.to_string()))?;
        actix::spawn(status_line::run(reporter, drain.clone(), logs::warnings));
    }
    let webhook = format!("{}/webhook", url(gateway::NAME));
    let own_path = format!("{webhook}/{}", demo_source::NAME);
    let is_verified = examples.is_verified();
    let generated = Feed::Generated(Box::new(Generator::new(None, Mix::default())));
    let plan = demo_plan(config, webhook, authorities.clone(), DEMO_RATE);
    start_publisher(plan, generated, drain.clone());
    let mut plan = demo_plan(config, own_path, authorities, demo_source::RATE);
    // A token would stand where the source's own secret can.
    plan.token = plan.token.filter(|_| !is_verified);
    start_publisher(plan, Feed::Examples(Box::new(examples)), drain.clone());
    Ok(())
}

fn print_addresses(config: &Config, demo: &Demo, url: impl Fn(&str) -> String) {
    let (gateway, reporter) = (url(gateway::NAME), url(reporter::NAME));
    let (name, rate) = (demo_source::NAME, demo_source::RATE);
    println!(
        "ESS is running, with about {DEMO_RATE} events/s and {rate} orders/s of a third source by file, {name}."
    );
    println!();
    println!("  Console   {reporter}/");
    println!("  Reports   {reporter}/reports/events");
    println!("            {reporter}/reports/revenue");
    println!("            {reporter}/reports/demographics");
    println!("  Ledger    {reporter}/ledger");
    println!("  Webhook   {gateway}/webhook");
    println!("            {gateway}/webhook/{name}");
    println!("  Metrics   {gateway}/metrics");
    println!("  Actors    {gateway}/actors");
    println!("  Data      {}", config.data_dir.display());
    if let Some(log) = &demo.log {
        println!("  Logs      {} (--logs shows them here)", log.display());
    }
    println!();
    println!("Ctrl-C ends it; the data stays.");
    println!();
}

fn demo_plan(config: &Config, target: String, authorities: Option<PathBuf>, rate: f64) -> Plan {
    Plan {
        target,
        authorities,
        token: config.webhook_tokens.first().map(|token| token.secret.expose().to_owned()),
        sizes: (20, 80),
        pace: Pace::Rate(rate),
        connections: 8,
        duration: None,
        corrupt_posts: true,
    }
}

fn start_publisher(plan: Plan, feed: Feed, drain: DrainHandle) {
    actix::spawn(async move {
        // Time for the listeners to accept connections.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let stop = async move { drain.started().await };
        match publish(&plan, feed, stop, |_| {}).await {
            Ok(Tally { sent, accepted, failed, .. }) => {
                tracing::info!(url = plan.target, sent, accepted, failed, "demo publisher stopped");
            }
            Err(error) => tracing::error!(%error, "the publisher of the demo ended"),
        }
    });
}
