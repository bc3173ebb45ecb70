//! `ess log`: repair of the embedded log's file.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::failure::Failure;
use super::serve::{LOG_FILE, lock_data_dir};
use crate::config::Config;
use crate::log::recover::recover;
use crate::service::Ending;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Copy the intact frames of a damaged embedded log into a new one. The damaged file is kept. Exit code 1 if
    /// accepted frames are not found
    Recover(Recover),
}

#[derive(Debug, Args)]
pub(super) struct Recover {
    /// File to search, such as a copy of the log, or one that an earlier recovery kept; its frames are added to
    /// those of the log [default: the log's own file]
    file: Option<PathBuf>,
    /// Also take frames that were stored already; for a database that was lost too
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
        println!("{log} is intact and has every frame that it acknowledged: nothing to do");
        return Ok(Ending::Clean);
    }
    println!("{} frames with {} events were copied into {log}", found.frames, found.events);
    if found.letters > 0 {
        println!("{} messages with refused events were copied too", found.letters);
    }
    if let Some(kept) = &found.kept {
        println!("the damaged file is kept as {}", kept.display());
    }
    if found.done > 0 {
        println!("{} frames that were stored already were left out; --all takes them too", found.done);
    }
    if found.unknown > 0 {
        println!("{} frames of unknown sources were left out", found.unknown);
    }
    if found.lost > 0 {
        println!("{} accepted frames were not found: GET /ledger counts their events as missing", found.lost);
        return Ok(Ending::Incomplete);
    }
    Ok(Ending::Clean)
}
