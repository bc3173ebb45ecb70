//! `ess top` and `ess tail`: the live system in a terminal.

use clap::{Args, ValueEnum};

use super::failure::Failure;
use crate::config::Config;
use crate::fleet::{Outcome, SampleFilter};
use crate::service::{Ending, Signals};
use crate::terminal::tail::{self, Tail, TailError};
use crate::terminal::text::printable;
use crate::terminal::top::{self, TopError};
use crate::terminal::{Reporter, ReporterError};

/// Default URL of the reporter.
const DEFAULT_URL: &str = "http://localhost:3003";

/// Reporter to ask.
#[derive(Debug, Args)]
pub(super) struct Target {
    /// URL of a reporter
    #[arg(long, default_value = DEFAULT_URL)]
    url: String,
    /// Bearer token of the reporter [default: the first of ESS_REPORTER_TOKEN]
    #[arg(long)]
    token: Option<String>,
}

/// Result of validating an event.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum WantedOutcome {
    /// Valid events
    Accepted,
    /// Refused events
    Refused,
}

#[derive(Debug, Args)]
pub(super) struct TailArguments {
    #[command(flatten)]
    target: Target,
    /// Events of this source
    #[arg(long)]
    source: Option<String>,
    /// Events of this type; a refused event has none
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,
    /// Events with this outcome
    #[arg(long, value_enum)]
    outcome: Option<WantedOutcome>,
    /// Number of events after which to end
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Print each event as a JSON object on a line
    #[arg(long)]
    json: bool,
}

impl Target {
    fn reporter(&self, config: &Config) -> Result<Reporter, Failure> {
        let configured = || config.reporter_tokens.first().map(|token| token.secret.expose());
        let token = self.token.as_deref().or_else(configured);
        let printable = |token: &str| token.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        if !token.is_none_or(printable) {
            return Err(Failure::Usage("--token: only printable ASCII characters are allowed".to_owned()));
        }
        Reporter::new(&self.url, token, config.nats.authorities.as_deref())
            .map_err(|error| Failure::Usage(error.to_string()))
    }
}

fn signals() -> Result<Signals, Failure> {
    Signals::listen().map_err(|error| Failure::Other(format!("signals: {error}")))
}

/// The failure of asking a reporter, whose own words are not trusted.
fn refused(url: &str, error: &ReporterError) -> Failure {
    let said = printable(&error.to_string());
    match error {
        ReporterError::Refused { status, .. } if status.as_u16() == 401 => Failure::Usage(format!(
            "{url}: the reporter asks for a token, and it is missing or wrong: --token or ESS_REPORTER_TOKEN"
        )),
        error if error.is_usage() => Failure::Usage(format!("{url}: {said}")),
        ReporterError::Unreachable(_) => Failure::Other(format!(
            "no reporter answers at {url}: {said}; is it running, and is --url right?"
        )),
        _ => Failure::Other(format!("{url}: {said}")),
    }
}

/// `ess top`.
pub(super) async fn top(config: &Config, target: &Target) -> Result<Ending, Failure> {
    let reporter = target.reporter(config)?;
    let shown = top::run(&reporter, &mut signals()?).await;
    shown.map_err(|error| match error {
        TopError::Reporter { url, source } => refused(&url, &source),
        TopError::NoTerminal => Failure::Usage(error.to_string()),
        TopError::Terminal(_) => Failure::Other(error.to_string()),
    })?;
    Ok(Ending::Clean)
}

/// `ess tail`.
pub(super) async fn tail(config: &Config, arguments: &TailArguments) -> Result<Ending, Failure> {
    let reporter = arguments.target.reporter(config)?;
    let outcome = arguments.outcome.map(|outcome| match outcome {
        WantedOutcome::Accepted => Outcome::Accepted,
        WantedOutcome::Refused => Outcome::Refused,
    });
    let filter =
        SampleFilter { source: arguments.source.clone(), event_type: arguments.event_type.clone(), outcome };
    let tail = Tail { filter, json: arguments.json, limit: arguments.limit };
    let printed = tail::run(&reporter, &tail, &mut signals()?).await;
    printed.map_err(|error| match error {
        TailError::Reporter { url, source } => refused(&url, &source),
        TailError::Output(_) => Failure::Other(error.to_string()),
    })?;
    Ok(Ending::Clean)
}
