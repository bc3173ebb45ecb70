//! `ess forget`: takes one person out of what is stored.

use clap::Args;

use super::Failure;
use super::serve::{LOG_FILE, lock_data_dir};
use crate::config::Config;
use crate::event::{Redactor, Source};
use crate::log::embedded::{Embedded, FORGET_FILE};
use crate::service::Ending;
use crate::store::maintain::erase::Erasure;
use crate::store::{Purpose, Store};

#[derive(Debug, Args)]
pub(super) struct Person {
    /// Whose user it is
    #[arg(long, value_parser = super::source)]
    source: Source,
    /// The user's id as the platform sends it
    #[arg(long, value_name = "ID")]
    user: String,
}

/// Runs the command.
pub(super) async fn run(config: &Config, person: &Person) -> Result<Ending, Failure> {
    let store = Store::open(config, Purpose::Write { transactions: 1 }).await;
    let store = store.map_err(|error| Failure::Usage(format!("DATABASE_URL: {error}")))?;
    // What was stored under ESS_PII has the pseudonym, what was stored before has the id.
    let mut ids = vec![person.user.clone()];
    ids.extend(Redactor::new(&config.pii).map(|redactor| redactor.pseudonym(&person.user)));
    ids.dedup();
    let other = |error: crate::store::StoreError| Failure::Other(error.to_string());
    store.check().await.map_err(other)?;
    let Erasure { rows, letters, hours, kept_hours } =
        store.erase_user(person.source, &ids).await.map_err(other)?;
    println!("{rows} rows have no user any more: id, name and unknown keys are gone; all else stays counted");
    println!("{letters} dead letters were deleted");
    println!("{hours} hours of users are counted anew from their rows, within minutes");
    if kept_hours > 0 {
        println!(
            "{kept_hours} hours whose rows have left in part keep a one-way hash that counts one more user"
        );
    }
    if let Err(error) = store.vacuum().await {
        println!("what was deleted stays in the database's free pages until this is done again: {error}");
    }
    super::serve::close(&store).await;
    if config.nats_url.is_none() && config.database_url.is_none() {
        forget_in_log(config)?;
    }
    println!("events that are still in the log are not reached: run it again once they are stored");
    Ok(Ending::Clean)
}

/// The embedded log keeps what it let go of in free pages: its file is written anew, now, or by the process that has
/// it when that stops.
fn forget_in_log(config: &Config) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::Other(format!("{}: {error}", config.data_dir.display()));
    std::fs::write(config.data_dir.join(FORGET_FILE), b"").map_err(failed)?;
    match lock_data_dir(config) {
        Ok(_lock) if !config.data_dir.join(LOG_FILE).exists() => {
            std::fs::remove_file(config.data_dir.join(FORGET_FILE)).map_err(failed)?;
        }
        Ok(_lock) => {
            let log = Embedded::open(&config.data_dir.join(LOG_FILE), config.log.clone());
            drop(log.map_err(|error| Failure::Other(error.to_string()))?);
        }
        Err(_) => println!("the log's file is cleaned when the process that uses it stops"),
    }
    let entries = std::fs::read_dir(&config.data_dir).map_err(failed)?;
    let broken: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with("log.broken-"))
        .collect();
    if !broken.is_empty() {
        println!("damaged logs that were kept hold events as they came; delete them: {}", broken.join(", "));
    }
    Ok(())
}
