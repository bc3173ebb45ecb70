//! `ess log`: the embedded log's file.

use std::path::{Path, PathBuf};

use clap::Subcommand;

use super::Failure;
use super::serve::{LOG_FILE, lock_data_dir};
use crate::config::Config;
use crate::event::{Source, decode};
use crate::log::embedded::Embedded;
use crate::log::{Frame, Log, Topic, find_frames};
use crate::service::Ending;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Bring what is intact of a damaged embedded log into a new one; the damaged file is kept
    Recover,
}

/// Runs the command.
pub(super) async fn run(config: &Config, command: Command) -> Result<Ending, Failure> {
    match command {
        Command::Recover => recover(config).await,
    }
}

async fn recover(config: &Config) -> Result<Ending, Failure> {
    let _lock = lock_data_dir(config)?;
    let file = config.data_dir.join(LOG_FILE);
    let broken = set_apart(&file).map_err(|error| Failure::Other(format!("{}: {error}", file.display())))?;
    let bytes =
        std::fs::read(&broken).map_err(|error| Failure::Other(format!("{}: {error}", broken.display())))?;
    let log = Embedded::open(&file, config.log.clone()).map_err(|error| Failure::Other(error.to_string()))?;
    let (mut frames, mut events) = (0, 0);
    for frame in find_frames(&bytes) {
        let Some(source) = source_of(&frame) else { continue };
        let id = format!("{}-{}", frame.writer.simple(), frame.number);
        events += frame.len();
        frames += 1;
        let appended = log.append(Topic::Events(source), id, frame.into_bytes()).await;
        appended.map_err(|error| Failure::Other(format!("after {frames} frames: {error}")))?;
    }
    println!("{frames} frames with {events} events are in {}", file.display());
    println!("the damaged file is kept as {}", broken.display());
    println!("events that were stored already will be found to be duplicates");
    Ok(Ending::Clean)
}

/// Gives the damaged file another name.
fn set_apart(file: &Path) -> std::io::Result<PathBuf> {
    let broken = file.with_extension(format!("broken-{}", chrono::Utc::now().format("%Y%m%dT%H%M%S")));
    std::fs::rename(file, &broken)?;
    Ok(broken)
}

/// A frame is of one source: its first event's.
fn source_of(frame: &Frame) -> Option<Source> {
    let first = frame.events().next()?;
    decode(first.bytes, None).ok().map(|event| event.source)
}
