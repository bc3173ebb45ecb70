//! Waiting for the files of secrets: a service is alive meanwhile, not ready, and says what it waits for.

use std::sync::Arc;
use std::time::Duration;

use super::serve::{alone, collector_port};
use super::{Command, Failure};
use crate::config::Config;
use crate::event::Source;
use crate::ops::Readiness;
use crate::ops::http::{Requests, ServiceView, serve};
use crate::ops::metrics::ServiceMetrics;
use crate::runtime::{Drain, Registry};
use crate::service::Signals;

/// How often the files are looked for.
const LOOK: Duration = Duration::from_secs(1);
/// The files of secrets, as readiness names them.
const SECRETS: &str = "secrets";

/// The services that a command runs, by their ports; none for a command that is no service.
fn services(config: &Config, command: &Command) -> Vec<(&'static str, u16)> {
    let gateway = (crate::gateway::NAME, config.ports.gateway);
    let collector = |source: Source| (crate::collector::name(source), collector_port(config, source));
    let reporter = (crate::reporter::NAME, config.ports.reporter);
    let by_itself = |(name, own)| vec![(name, alone(config, own))];
    match command {
        Command::Gateway => by_itself(gateway),
        Command::Collector { source } => by_itself(collector(*source)),
        Command::Reporter => by_itself(reporter),
        Command::Up | Command::Demo => {
            let collectors = Source::ALL.iter().map(|source| collector(*source));
            [gateway].into_iter().chain(collectors).chain([reporter]).collect()
        }
        _ => Vec::new(),
    }
}

/// The configuration once all files of secrets are there; `None` if a signal came before that.
///
/// # Errors
///
/// If the configuration is wrong, or no service waits for it.
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
        let actors = Arc::new(Registry::default());
        let readiness = Arc::new(Readiness::new(name, &[SECRETS]));
        let view = ServiceView {
            name,
            metrics: ServiceMetrics::new(actors.clone()),
            actors,
            readiness: readiness.clone(),
            drain: drain.handle(),
            admin_token: None,
            requests: Requests::default(),
            tokens: config.reporter_tokens.clone(),
            settings: config.http.clone(),
        };
        let (server, _) = serve(view, port, 1, |_| {}).map_err(Failure::Other)?;
        waiting.push((server.handle(), readiness));
        actix::spawn(server);
    }
    let mut missing = config.missing;
    let config = loop {
        let why: Vec<String> = missing.iter().map(ToString::to_string).collect();
        waiting.iter().for_each(|(_, readiness)| readiness.report(SECRETS, Err(why.join("; "))));
        tokio::select! {
            _ = signals.received() => break None,
            () = tokio::time::sleep(LOOK) => {}
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
