//! `ess log`: the embedded log's file.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Failure;
use super::serve::{LOG_FILE, lock_data_dir};
use crate::config::Config;
use crate::log::recover::recover;
use crate::service::Ending;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Bring what is intact of a damaged embedded log into a new one; the damaged file is kept. Exit code 1 if
    /// frames that were accepted are not found
    Recover(Recover),
}

#[derive(Debug, Args)]
pub(super) struct Recover {
    /// A file to look through, such as one that an earlier recovery kept, or a copy; its frames come into the log
    /// beside those that are there [default: the log's own file]
    file: Option<PathBuf>,
    /// Take frames too that were stored before; for a database that was lost as well
    #[arg(long)]
    all: bool,
}

/// Runs the command.
pub(super) async fn run(config: &Config, command: Command) -> Result<Ending, Failure> {
    let Command::Recover(Recover { file: from, all }) = command;
    let _lock = lock_data_dir(config)?;
    let file = config.data_dir.join(LOG_FILE);
    let log = file.display();
    let found = recover(&file, from.as_deref(), all);
    let found = found.map_err(|error| Failure::Other(format!("{error}; nothing was changed")))?;
    if found.whole {
        println!("{log} is whole and holds all that it acknowledged: nothing is to be done");
        return Ok(Ending::Clean);
    }
    println!("{} frames with {} events were brought into {log}", found.frames, found.events);
    if found.letters > 0 {
        println!("{} messages with refused events as well", found.letters);
    }
    if let Some(kept) = &found.kept {
        println!("the damaged file is kept as {}", kept.display());
    }
    if found.done > 0 {
        println!("{} frames that were stored before were left out; --all takes them too", found.done);
    }
    if found.unknown > 0 {
        println!("{} frames of no known source were left out", found.unknown);
    }
    if found.lost > 0 {
        println!(
            "{} frames that were accepted are in none of this: GET /ledger tells their events as missing",
            found.lost
        );
        return Ok(Ending::Incomplete);
    }
    Ok(Ending::Clean)
}
