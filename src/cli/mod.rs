//! The `ess` command: from subcommands to services.

#[macro_use]
mod output;

mod check;
mod dead_letters;
mod demo_source;
mod failure;
mod forget;
mod log;
mod plan;
mod publisher;
mod rollups;
mod sent_source;
mod serve;
mod sources;
mod waiting;
mod watch;

use std::collections::BTreeSet;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tokio::signal::unix::SignalKind;

use self::failure::Failure;
use self::serve::Demo;
use crate::collector::Selection;
use crate::config::Config;
use crate::event::Source;
use crate::ops::logs::{self, LogsError, Output};
use crate::ops::trace;
use crate::service::Ending;
use crate::store::{Purpose, Store};
use crate::terminal::status_line;

/// ESS, the Event Spawning System: receives webhooks of ad platforms, stores every event exactly once, and reports
#[derive(Debug, Parser)]
#[command(
    name = "ess",
    version,
    about,
    after_help = "Settings come from the environment and from .env files in \
the working directory; `ess check` shows them all, and .env.example explains them."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the whole system in one process, with a publisher of about 500 events/s; needs no server
    Demo {
        /// Show log lines on a terminal instead of a line of figures
        #[arg(long)]
        logs: bool,
    },
    /// Run the whole system in one process; log and database are embedded unless NATS_URL and DATABASE_URL are set
    Up,
    /// Run a gateway: receives events and makes them durable in NATS (needs NATS_URL)
    Gateway,
    /// Run a collector of one source or several: from NATS to the database (needs NATS_URL and DATABASE_URL)
    Collector {
        /// Sources of the events, or `all`: every source that NATS has a stream for
        #[arg(required = true, value_name = "SOURCE", value_parser = collected)]
        sources: Vec<Collected>,
    },
    /// Run a reporter: answers reports from the database (needs DATABASE_URL; NATS_URL only for /ledger)
    Reporter,
    /// Send generated events to a gateway, by default as the real publisher does; or those of one source (--source)
    Publisher(publisher::Arguments),
    /// Bring the database's schema up to date (DATABASE_URL, or the embedded database)
    Migrate,
    /// List and show dead letters (refused events), and replay them
    #[command(subcommand)]
    DeadLetters(dead_letters::Command),
    /// Compare rollups and summaries with the rows that they count, and repair them
    #[command(subcommand)]
    Rollups(rollups::Command),
    /// Erase one person from rows, summaries and dead letters
    Forget(forget::Person),
    /// Recover a damaged embedded log
    #[command(subcommand)]
    Log(log::Command),
    /// List sources; check, run and write source files
    #[command(subcommand)]
    Sources(sources::Command),
    /// Show the running system on the screen: rates, lag, processes, actors, ledger
    Top(watch::Target),
    /// Print events of the running system as they are validated, one a line, up to 20 a second
    Tail(watch::TailArguments),
    /// Show what so many events a second need: processes, cores, disks, and the first bottleneck
    Plan(plan::Arguments),
    /// Show the effective configuration and try each connection
    Check,
    /// Exit 0 if the service on this machine is ready (for container health checks)
    Health,
}

/// An argument of `ess collector`.
#[derive(Debug, Clone, Copy)]
enum Collected {
    All,
    One(Source),
}

fn collected(text: &str) -> Result<Collected, String> {
    if text == "all" { Ok(Collected::All) } else { source(text).map(Collected::One) }
}

/// The sources that the arguments of `ess collector` name.
fn selection(arguments: &[Collected]) -> Selection {
    let one = |argument: &Collected| match argument {
        Collected::One(source) => Some(*source),
        Collected::All => None,
    };
    match arguments.iter().map(one).collect::<Option<BTreeSet<_>>>() {
        Some(sources) => Selection::Only(sources.into_iter().collect()),
        None => Selection::All,
    }
}

/// A source by its name. Names of declared sources are checked by [`known`] once the database is open.
fn source(text: &str) -> Result<Source, String> {
    Source::declare(text, "").map_err(|error| error.to_string())
}

/// Reads the database's names, and checks that a source is one of them.
async fn known(store: &Store, source: Option<Source>) -> Result<(), Failure> {
    // Without a schema there are no names; the command itself tells that.
    if let Err(error) = store.read_dictionary().await {
        tracing::debug!(%error, "the dictionary was not read");
    }
    let Some(source) = source.filter(|source| source.code() == 0) else { return Ok(()) };
    let all = Source::all().filter(|source| source.code() != 0).map(Source::name);
    let all = all.collect::<Vec<_>>().join(", ");
    Err(Failure::Usage(format!("there is no source `{source}`: it must be one of {all}")))
}

/// File in the data folder that takes the demo's log lines while it shows figures.
const DEMO_LOG: &str = "demo.log";
/// Number of the signal SIGXFSZ on Linux and macOS: a write exceeded the file size limit.
const SIGXFSZ: i32 = 25;

/// Runs the command that the arguments name. Exit codes: 0 clean, 1 failed, 2 bad usage or configuration.
pub fn main() -> ExitCode {
    // A usage error ends here, with exit code 2.
    let cli = Cli::parse();
    match run(cli.command) {
        Ok(Ending::Clean) => ExitCode::SUCCESS,
        Ok(Ending::Incomplete) => ExitCode::from(1),
        Err(Failure::Usage(message)) => {
            eprintln!("ess: {message}");
            ExitCode::from(2)
        }
        Err(Failure::Other(message)) => {
            eprintln!("ess: {message}");
            ExitCode::from(1)
        }
    }
}

fn run(command: Command) -> Result<Ending, Failure> {
    let config = Config::load().map_err(|error| Failure::Usage(error.to_string()))?;
    let demo_log = match &command {
        Command::Demo { logs: false } if status_line::is_possible() => Some(config.data_dir.join(DEMO_LOG)),
        _ => None,
    };
    let (name, output) = match &command {
        Command::Demo { .. } | Command::Up => ("ess", demo_log.clone().map_or(Output::Stdout, Output::File)),
        Command::Gateway => (crate::gateway::NAME, Output::Stdout),
        Command::Collector { sources } => (selection(sources).name(), Output::Stdout),
        Command::Reporter => (crate::reporter::NAME, Output::Stdout),
        Command::Publisher(_) => ("publisher", Output::Stderr),
        // Log lines would be written across the screen.
        Command::Top(_) => ("ess", Output::None),
        Command::Migrate
        | Command::Tail(_)
        | Command::Check
        | Command::Health
        | Command::DeadLetters(_)
        | Command::Rollups(_)
        | Command::Forget(_)
        | Command::Log(_)
        | Command::Plan(_)
        | Command::Sources(_) => ("ess", Output::Stderr),
    };
    logs::start(name, &config.log_level, output).map_err(|error| match error {
        LogsError::File { .. } => Failure::Other(error.to_string()),
        error => Failure::Usage(error.to_string()),
    })?;
    if let Some(endpoint) = &config.otlp_endpoint {
        let started = trace::start(name, endpoint, config.trace_fraction);
        started.map_err(|error| Failure::Usage(error.to_string()))?;
    }
    let now = std::time::SystemTime::now();
    if now < std::time::UNIX_EPOCH {
        return Err(Failure::Other("the clock of this machine is before 1970: set the clock".to_owned()));
    }
    let system = actix::System::new();
    let ended = system.block_on(async move {
        // With a handler for this signal a write beyond the size limit (`ulimit -f`, LimitFSIZE) fails instead of ending
        // the process. A handler stays once it was installed.
        let size_limit = tokio::signal::unix::signal(SignalKind::from_raw(SIGXFSZ));
        let _ = size_limit.map_err(|error| Failure::Other(format!("signals: {error}")))?;
        let Some(config) = waiting::for_secrets(config, &command).await? else { return Ok(Ending::Clean) };
        // These do not listen, so that most warnings do not concern them.
        if !matches!(command, Command::Publisher(_) | Command::Health | Command::Top(_) | Command::Tail(_)) {
            let unknown = config.unknown_warnings(&sources::secret_names(&config));
            config.warnings.iter().chain(&unknown).for_each(|warning| tracing::warn!("{warning}"));
        }
        match command {
            Command::Demo { .. } => serve::all(config, Some(Demo { log: demo_log })).await,
            Command::Up => serve::all(config, None).await,
            Command::Gateway => serve::gateway(config).await,
            Command::Collector { sources } => serve::collector(config, &selection(&sources)).await,
            Command::Reporter => serve::reporter(config).await,
            Command::Publisher(arguments) => publisher::run(&config, &arguments).await,
            Command::Migrate => migrate(&config).await,
            Command::DeadLetters(command) => dead_letters::run(&config, command).await,
            Command::Rollups(command) => rollups::run(&config, command).await,
            Command::Forget(person) => forget::run(&config, &person).await,
            Command::Log(command) => log::run(&config, command).await,
            Command::Sources(command) => sources::run(&config, command),
            Command::Top(target) => watch::top(&config, &target).await,
            Command::Tail(arguments) => watch::tail(&config, &arguments).await,
            Command::Plan(arguments) => plan::run(&arguments),
            Command::Check => check::check(&config).await,
            Command::Health => check::health(&config).await,
        }
    });
    trace::stop();
    ended
}

async fn migrate(config: &Config) -> Result<Ending, Failure> {
    let store = Store::open(config, Purpose::Write { transactions: 1 }).await;
    let store = store.map_err(|error| Failure::Usage(format!("DATABASE_URL: {error}")))?;
    store.migrate().await.map_err(|error| Failure::Other(error.to_string()))?;
    serve::close(&store).await;
    println!("the schema is up to date");
    Ok(Ending::Clean)
}
