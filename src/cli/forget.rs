//! `ess forget`: takes one person out of what is stored.

use clap::Args;

use super::Failure;
use crate::config::Config;
use crate::event::{Redactor, Source};
use crate::service::Ending;
use crate::store::forget::Forgotten;
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
    let Forgotten { rows, letters, hours, kept_hours } =
        store.forget(person.source, &ids).await.map_err(other)?;
    println!("{rows} rows have no user any more: id, name and unknown keys are gone; all else stays counted");
    println!("{letters} dead letters were deleted");
    println!("{hours} hours of users are counted anew from their rows, within minutes");
    if kept_hours > 0 {
        println!(
            "{kept_hours} hours whose rows have left in part keep a one-way hash that counts one more user"
        );
    }
    println!("events that are still in the log are not reached: run it again once they are stored");
    Ok(Ending::Clean)
}
