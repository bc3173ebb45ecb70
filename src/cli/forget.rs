//! `ess forget`: erases one person from rows, dead letters, the embedded log's file and summaries.

use clap::Args;

use super::failure::Failure;
use super::serve::{LOG_FILE, lock_data_dir};
use crate::config::Config;
use crate::event::{Redactor, Source};
use crate::log::embedded::{Embedded, FORGET_FILE};
use crate::service::Ending;
use crate::store::maintain::erase::Erasure;
use crate::store::{Purpose, Store};

#[derive(Debug, Args)]
pub(super) struct Person {
    /// Source of the user
    #[arg(long, value_parser = super::source)]
    source: Source,
    /// Id of the user, as the platform sends it
    #[arg(long, value_name = "ID")]
    user: String,
}

/// Runs the command.
pub(super) async fn run(config: &Config, person: &Person) -> Result<Ending, Failure> {
    let store = Store::open(config, Purpose::Write { transactions: 1 }).await;
    let store = store.map_err(|error| Failure::Usage(format!("DATABASE_URL: {error}")))?;
    // Events that were stored with ESS_PII=hash or drop have the pseudonym; others have the id.
    let mut ids = vec![person.user.clone()];
    ids.extend(Redactor::new(&config.pii).map(|redactor| redactor.pseudonym(&person.user)));
    ids.dedup();
    let other = |error: crate::store::StoreError| Failure::Other(error.to_string());
    store.check().await.map_err(other)?;
    super::known(&store, Some(person.source)).await?;
    let Erasure { rows, letters, hours, kept_hours } =
        store.erase_user(person.source, &ids).await.map_err(other)?;
    println!(
        "{rows} rows have no user any more: user id, name and unknown keys were erased; the events still count in reports"
    );
    println!("{letters} dead letters were deleted");
    println!("{hours} hours of user counts will be computed again from their rows within minutes");
    if kept_hours > 0 {
        println!(
            "{kept_hours} hours, of which ESS_RETENTION deleted rows, keep a one-way hash that counts the user"
        );
    }
    if let Err(error) = store.vacuum().await {
        println!("deleted data stays in the database's free pages ({error}): run this command again");
    }
    super::serve::close(&store).await;
    if config.nats_url.is_none() && config.database_url.is_none() {
        forget_in_log(config)?;
    }
    println!("events that are still in the log are not erased: run this command again once they are stored");
    Ok(Ending::Clean)
}

/// Copies the embedded log's file without its free pages, which hold deleted frames: now, or by the process that uses
/// the file when that stops.
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
        Err(_) => println!("the log's file is in use: it is cleaned when the process that uses it stops"),
    }
    let entries = std::fs::read_dir(&config.data_dir).map_err(failed)?;
    let broken: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with("log.broken-"))
        .collect();
    if !broken.is_empty() {
        println!(
            "damaged log files that were kept still hold events as they were sent; delete them: {}",
            broken.join(", ")
        );
    }
    Ok(())
}
