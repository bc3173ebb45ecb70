//! Waits for files of secrets that are not mounted yet. Meanwhile the services' listeners answer health checks: alive,
//! but not ready, with the names of the missing files.

use std::time::Duration;

use super::failure::Failure;
use super::serve::{alone, failed};
use super::{Command, selection};
use crate::collector::Selection;
use crate::config::Config;
use crate::event::Source;
use crate::ops::Away;
use crate::runtime::Drain;
use crate::service::{Builder, Listener, Running, Signals};

/// Interval between two checks for the files.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Name of this dependency in `/ready`.
const SECRETS: &str = "secrets";

/// Names and ports of the services that a command runs; empty for a command that runs none.
fn services(config: &Config, command: &Command) -> Vec<(&'static str, u16)> {
    let gateway = (crate::gateway::NAME, config.ports.gateway);
    let collector = |selection: Selection| (selection.name(), selection.port(config));
    let reporter = (crate::reporter::NAME, config.ports.reporter);
    let single = |(name, own)| vec![(name, alone(config, own))];
    match command {
        Command::Gateway => single(gateway),
        Command::Collector { sources } => single(collector(selection(sources))),
        Command::Reporter => single(reporter),
        Command::Up | Command::Demo { .. } => {
            let collectors = Source::built_in().map(|source| collector(Selection::Only(vec![source])));
            [gateway].into_iter().chain(collectors).chain([reporter]).collect()
        }
        _ => Vec::new(),
    }
}

/// Waits until all files of secrets exist, and returns the configuration; `None` if a signal arrives first.
///
/// # Errors
///
/// If the configuration is wrong, or the command runs no service and a file is missing.
pub(super) async fn for_secrets(config: Config, command: &Command) -> Result<Option<Config>, Failure> {
    let Some(first) = config.missing.first() else { return Ok(Some(config)) };
    let services = services(&config, command);
    if services.is_empty() {
        return Err(Failure::Usage(first.to_string()));
    }
    let mut signals = Signals::listen().map_err(|error| Failure::Other(format!("signals: {error}")))?;
    let drain = Drain::default();
    let mut waiting = Vec::new();
    for (name, port) in services {
        let service = Builder::new(name, name, &[SECRETS], &drain.handle());
        let tokens = config.reporter_tokens.clone();
        let listener = Listener { port, workers: 1, works_over_http: true, tokens, routes: |_: &mut _| {} };
        let service = service.start(&config, listener, async { String::new() });
        let Running { server, readiness, .. } = service.map_err(failed)?;
        waiting.push((server.handle(), readiness));
        actix::spawn(server);
    }
    let mut missing = config.missing;
    let config = loop {
        let reasons: Vec<String> = missing.iter().map(ToString::to_string).collect();
        waiting
            .iter()
            .for_each(|(_, readiness)| readiness.report(SECRETS, Err(Away::Failed(reasons.join("; ")))));
        tokio::select! {
            _ = signals.received() => break None,
            () = tokio::time::sleep(CHECK_INTERVAL) => {}
        }
        let again = Config::load().map_err(|error| Failure::Usage(error.to_string()))?;
        if again.missing.is_empty() {
            break Some(again);
        }
        missing = again.missing;
    };
    for (server, _) in waiting {
        server.stop(true).await;
    }
    Ok(config)
}
