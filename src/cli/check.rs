//! `ess check` and `ess health`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use futures::future::join_all;

use super::failure::Failure;
use crate::config::{Config, hide_password};
use crate::event::Source;
use crate::log::jetstream::JetStream;
use crate::log::{Log, LogRole, Topic};
use crate::ops::tls;
use crate::service::Ending;
use crate::store::{Purpose, SQLITE_FILE, Store, StoreError};

/// Time limit of one connection.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Time limit for trying one server of a list, beside the others.
const SERVER_TIMEOUT: Duration = Duration::from_secs(4);

/// Servers from which on copies survive the loss of one.
const SERVERS_OF_A_QUORUM: usize = 3;

/// A file that is written and removed again, to check that the data folder is writable.
const PROBE_FILE: &str = "ess.check";

/// Prints the configuration and tries each connection.
pub(super) async fn check(config: &Config) -> Result<Ending, Failure> {
    config.shown().iter().for_each(|line| println!("{line}"));
    println!();
    let mut fine = true;
    let mut report = |name: &str, result: Result<String, String>| match result {
        Ok(detail) => println!("{name}: ok{detail}"),
        Err(error) => {
            fine = false;
            println!("{name}: FAILED: {error}");
        }
    };
    match &config.nats_url {
        None => report("log", writable(config).map(|()| " (embedded)".to_owned())),
        Some(url) => {
            let found = within(try_nats(url.expose(), config)).await;
            let copies = found.is_ok().then_some(few_copies(url.expose(), config));
            report("log", found);
            if let Some(copies) = copies {
                within(copies)
                    .await
                    .unwrap_or_default()
                    .iter()
                    .for_each(|warning| println!("log: warning: {warning}"));
            }
        }
    }
    let file = config.data_dir.join(SQLITE_FILE);
    if config.database_url.is_none() && !file.exists() {
        report(
            "database",
            writable(config).map(|()| format!(" (embedded; {} will be created)", file.display())),
        );
    } else {
        report("database", within(try_store(config, Purpose::Write { transactions: 1 })).await);
    }
    if config.reporter_database_url.is_some() {
        report("reporter's database", within(try_store(config, Purpose::Read { connections: 1 })).await);
    }
    // Services that run apart may have the same port on each machine.
    if config.nats_url.is_none() || config.database_url.is_none() {
        report("ports", distinct(config).map(|()| String::new()));
    }
    Ok(if fine { Ending::Clean } else { Ending::Incomplete })
}

/// Checks that the services of one process have a port each; 0 is any free port.
fn distinct(config: &Config) -> Result<(), String> {
    let collectors = Source::built_in()
        .filter_map(|source| Some((source.collector_port()?.name, config.sources.of(source).collector_port)));
    let all: Vec<(&str, u16)> = [("ESS_GATEWAY_PORT", config.ports.gateway)]
        .into_iter()
        .chain(collectors)
        .chain([("ESS_COLLECTOR_PORT", config.ports.collector), ("ESS_REPORTER_PORT", config.ports.reporter)])
        .collect();
    for (at, (name, port)) in all.iter().enumerate() {
        if let Some((other, _)) = all[..at].iter().find(|(_, other)| *port != 0 && other == port) {
            return Err(format!("{other} and {name} are both {port}: `ess up` cannot listen on both"));
        }
    }
    Ok(())
}

async fn within<T>(work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    tokio::time::timeout(TIMEOUT, work).await.unwrap_or_else(|_| Err(format!("no answer within {TIMEOUT:?}")))
}

fn writable(config: &Config) -> Result<(), String> {
    let probe = config.data_dir.join(PROBE_FILE);
    std::fs::create_dir_all(&config.data_dir)
        .and_then(|()| std::fs::write(&probe, b"written by ess check"))
        .and_then(|()| std::fs::remove_file(&probe))
        .map_err(|error| format!("{}: {error}", config.data_dir.display()))
}

/// Tries each server of `NATS_URL` by itself. One that answers is enough; the others are named.
async fn try_nats(urls: &str, config: &Config) -> Result<String, String> {
    let servers: Vec<&str> = urls.split(',').map(str::trim).collect();
    let answers = join_all(servers.iter().map(|url| try_server(with_user(url, &servers), config))).await;
    let all = answers.len();
    let failed: Vec<String> = servers
        .iter()
        .zip(answers)
        .filter_map(|(url, answer)| Some(format!("{}: {}", hide_password(url), answer.err()?)))
        .collect();
    match failed.len() {
        0 if all == 1 => Ok(" (JetStream)".to_owned()),
        0 => Ok(format!(" (JetStream, {all} servers)")),
        count if count < all => {
            Ok(format!(" (JetStream, {} of {all} servers; not {})", all - count, failed.join("; ")))
        }
        _ => Err(failed.join("; ")),
    }
}

/// Warnings about streams with one copy in a cluster of three servers or more: the loss of that server stops them.
async fn few_copies(urls: &str, config: &Config) -> Result<Vec<String>, String> {
    let log = JetStream::connect(urls, "ess check", config.log.clone(), &config.nats, LogRole::Observer)
        .await
        .map_err(|error| error.to_string())?;
    // The connection is made in the background.
    while log.ask().await.is_err() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let servers = log.servers();
    if servers < SERVERS_OF_A_QUORUM {
        return Ok(Vec::new());
    }
    let mut warnings = Vec::new();
    for topic in Topic::all() {
        // A stream that is not there yet is made with the settings.
        let state = Log::state(&log, topic).await.ok();
        let copies = state.and_then(|state| state.copies).map_or(config.log.replicas, |copies| copies.wanted);
        if copies < 2 {
            warnings.push(format!(
                "the log of {topic} has one copy in a cluster of {servers} servers, so the loss of its server stops it \
                 and may lose events: set ESS_NATS_REPLICAS=3 and restart the gateways"
            ));
        }
    }
    Ok(warnings)
}

/// A server's URL, with the credentials of the first URL of the list that has some: NATS uses them for all servers.
fn with_user(url: &str, servers: &[&str]) -> String {
    let user = servers.iter().find_map(|server| server.split_once("://")?.1.rsplit_once('@'));
    match (url.split_once("://"), user) {
        (Some((scheme, host)), Some((user, _))) if !host.contains('@') => format!("{scheme}://{user}@{host}"),
        _ => url.to_owned(),
    }
}

async fn try_server(url: String, config: &Config) -> Result<(), String> {
    let started = std::time::Instant::now();
    let log = JetStream::connect(&url, "ess check", config.log.clone(), &config.nats, LogRole::Observer)
        .await
        .map_err(|error| error.to_string())?;
    // The connection is made in the background.
    let asked = async {
        loop {
            match log.ask().await {
                Ok(()) => return Ok(()),
                Err(error) if started.elapsed() >= TIMEOUT / 2 => return Err(error.to_string()),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    };
    let left = SERVER_TIMEOUT.saturating_sub(started.elapsed());
    tokio::time::timeout(left, asked).await.unwrap_or_else(|_| Err("no answer".to_owned()))
}

async fn try_store(config: &Config, purpose: Purpose) -> Result<String, String> {
    let store = Store::open(config, purpose).await.map_err(|error| error.to_string())?;
    match store.check().await {
        Ok(()) => Ok(" (schema up to date)".to_owned()),
        Err(StoreError::Schema { .. }) => {
            Ok(" (no schema yet: collectors create it at their start, or run `ess migrate`)".to_owned())
        }
        Err(error) => Err(error.to_string()),
    }
}

/// Asks the services of this machine for readiness: at least one must answer, and all that answer must be ready.
pub(super) async fn health(config: &Config) -> Result<Ending, Failure> {
    let ports = &config.ports;
    let collectors = Source::built_in().map(|source| config.sources.of(source).collector_port);
    let own: Vec<u16> =
        [ports.gateway].into_iter().chain(collectors).chain([ports.collector, ports.reporter]).collect();
    if let Some(alone) = ports.alone
        && let Some(ending) = ask(config, &[alone]).await?
    {
        return Ok(ending);
    }
    // `up` and `demo` ignore PORT.
    let ending = ask(config, &own).await?;
    ending.ok_or_else(|| {
        Failure::Other(format!(
            "no service answers on {}: is it running, and are its port settings those of this command?",
            config.http.listen
        ))
    })
}

/// Asks the services at these ports; `None` if none answers.
async fn ask(config: &Config, ports: &[u16]) -> Result<Option<Ending>, Failure> {
    let listen = config.http.listen;
    let ip = if listen.is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { listen };
    let mut connector = awc::Connector::new().timeout(TIMEOUT);
    let mut scheme = "http";
    if let Some(identity) = &config.http.tls {
        let tls = tls::pinned_client_config(&identity.certificate)
            .map_err(|error| Failure::Usage(error.to_string()))?;
        connector = connector.rustls_0_23(tls.into());
        scheme = "https";
    }
    let client = awc::Client::builder().timeout(TIMEOUT).connector(connector).finish();
    let mut answered = false;
    for port in ports {
        let url = format!("{scheme}://{}/ready", SocketAddr::new(ip, *port));
        let Ok(mut response) = client.get(&url).send().await else { continue };
        answered = true;
        if !response.status().is_success() {
            let body = response.body().await.unwrap_or_default();
            return Err(Failure::Other(format!("{url}: {}", String::from_utf8_lossy(&body))));
        }
    }
    Ok(answered.then_some(Ending::Clean))
}
